"""What colour a surface is before light falls on it: values of vertices, or a texture looked up bilinearly."""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cpu_raster import part
from bodyfit.kernels.scalar import ZERO, blend, blend_vjp
from bodyfit.kernels.scalar_shading import bilinear, bilinear_vjp, texel

TEXTURED, REPEATED = 1, 2
"""Bits of `flags`."""


@part
def texels_at(flags, picture, uv, a, b, c, pa, pb, pc):
    """Columns of two texels and the share of the second, then rows and share: where weights p fall between a, b, c."""
    repeat = (flags & REPEATED) != 0
    i0, i1, s = texel(blend(pa, pb, pc, uv[a, 0], uv[b, 0], uv[c, 0]), picture.shape[1], repeat)
    j0, j1, t = texel(blend(pa, pb, pc, uv[a, 1], uv[b, 1], uv[c, 1]), picture.shape[0], repeat)
    return i0, i1, s, j0, j1, t


@part
def albedo_at(flags, albedo, picture, uv, faces, uv_faces, f, pa, pb, pc):
    """Linear albedo of face f at weights p."""
    if not flags & TEXTURED:
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        s = albedo
        return (
            blend(pa, pb, pc, s[a, 0], s[b, 0], s[c, 0]),
            blend(pa, pb, pc, s[a, 1], s[b, 1], s[c, 1]),
            blend(pa, pb, pc, s[a, 2], s[b, 2], s[c, 2]),
        )
    a, b, c = uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2]
    i0, i1, s, j0, j1, t = texels_at(flags, picture, uv, a, b, c, pa, pb, pc)
    return (
        bilinear(picture[j0, i0, 0], picture[j0, i1, 0], picture[j1, i0, 0], picture[j1, i1, 0], s, t),
        bilinear(picture[j0, i0, 1], picture[j0, i1, 1], picture[j1, i0, 1], picture[j1, i1, 1], s, t),
        bilinear(picture[j0, i0, 2], picture[j0, i1, 2], picture[j1, i0, 2], picture[j1, i1, 2], s, t),
    )


@part
def vertex_albedo_vjp(albedo, v_albedo, a, b, c, pa, pb, pc, v_r, v_g, v_b):
    """Adds to v_albedo at the corners a, b, c and returns the cotangents of the weights."""
    v_pa = v_pb = v_pc = ZERO * pa
    for k in range(3):
        v = v_r if k == 0 else (v_g if k == 1 else v_b)
        wa, wb, wc, v_a, v_b_, v_c = blend_vjp(pa, pb, pc, albedo[a, k], albedo[b, k], albedo[c, k], v)
        v_pa += wa
        v_pb += wb
        v_pc += wc
        v_albedo[a, k] += v_a
        v_albedo[b, k] += v_b_
        v_albedo[c, k] += v_c
    return v_pa, v_pb, v_pc


@part
def texels_vjp(picture, v_picture, i0, i1, s, j0, j1, t, v_r, v_g, v_b):
    """Adds to v_picture at four texels and returns the cotangents of the shares s and t."""
    v_s = v_t = ZERO * s
    for k in range(3):
        v = v_r if k == 0 else (v_g if k == 1 else v_b)
        t00, t10, t01, t11, ds, dt = bilinear_vjp(
            picture[j0, i0, k], picture[j0, i1, k], picture[j1, i0, k], picture[j1, i1, k], s, t, v
        )
        v_picture[j0, i0, k] += t00
        v_picture[j0, i1, k] += t10
        v_picture[j1, i0, k] += t01
        v_picture[j1, i1, k] += t11
        v_s += ds
        v_t += dt
    return v_s, v_t


@part
def uv_vjp(uv, v_uv, a, b, c, pa, pb, pc, width, height, v_s, v_t):
    """Adds to v_uv at the corners a, b, c and returns the cotangents of the weights; the texture has width × height
    texels, v_s and v_t are per texel."""
    v_x, v_y = v_s * np.float32(width), v_t * np.float32(height)
    ua, ub, uc, xa, xb, xc = blend_vjp(pa, pb, pc, uv[a, 0], uv[b, 0], uv[c, 0], v_x)
    wa, wb, wc, ya, yb, yc = blend_vjp(pa, pb, pc, uv[a, 1], uv[b, 1], uv[c, 1], v_y)
    v_uv[a, 0] += xa
    v_uv[a, 1] += ya
    v_uv[b, 0] += xb
    v_uv[b, 1] += yb
    v_uv[c, 0] += xc
    v_uv[c, 1] += yc
    return ua + wa, ub + wb, uc + wc


@part
def albedo_at_vjp(
    flags, albedo, picture, uv, v_albedo, v_picture, v_uv, faces, uv_faces, f, pa, pb, pc, v_r, v_g, v_b
):  # fmt: skip
    """Adds to v_albedo or v_picture and v_uv (float64) and returns the cotangents of the weights."""
    if not flags & TEXTURED:
        return vertex_albedo_vjp(albedo, v_albedo, faces[f, 0], faces[f, 1], faces[f, 2], pa, pb, pc, v_r, v_g, v_b)
    a, b, c = uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2]
    i0, i1, s, j0, j1, t = texels_at(flags, picture, uv, a, b, c, pa, pb, pc)
    v_s, v_t = texels_vjp(picture, v_picture, i0, i1, s, j0, j1, t, v_r, v_g, v_b)
    return uv_vjp(uv, v_uv, a, b, c, pa, pb, pc, picture.shape[1], picture.shape[0], v_s, v_t)
