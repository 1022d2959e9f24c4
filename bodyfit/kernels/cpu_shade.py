"""Images of shaded surfaces on the CPU: albedo from vertices or a texture, Lambert and glossy light on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.kernels.cpu_albedo import REPEATED, TEXTURED, albedo_at, albedo_at_vjp
from bodyfit.kernels.cpu_layers import seen_normal, seen_normal_vjp
from bodyfit.kernels.cpu_raster import kernel, part, scatter_weights, share_of, weights_at
from bodyfit.kernels.scalar import HALF, ONE, ZERO
from bodyfit.kernels.scalar_shading import (
    INV_PI,
    diffuse_harmonics,
    diffuse_harmonics_vjp,
    glossy_lobe,
    glossy_lobe_vjp,
    toward,
    toward_vjp,
)

LIT, GLOSSY, PERSPECTIVE = 4, 8, 16
"""Bits of `flags`, beside those of `cpu_albedo`."""
__all__ = ["GLOSSY", "LIT", "PERSPECTIVE", "REPEATED", "TEXTURED"]


class Surface(NamedTuple):
    """What a face carries: world points and normals (V, 3), albedo (V, 3); texture image (Ht, Wt, 3), uv (N, 2)."""

    points: NDArray
    normals: NDArray
    albedo: NDArray
    image: NDArray
    uv: NDArray


class Light(NamedTuple):
    """sh (9, 3); lamps (L, 6): unit direction to the light or its place, and its colour; places (L,) bool: which of
    both; gloss (4,): F0 and alpha; eye (3,): the camera's place, or the unit direction to it where all are parallel."""

    sh: NDArray
    lamps: NDArray
    places: NDArray
    gloss: NDArray
    eye: NDArray


@part
def shade(flags, sh, lamps, places, gloss, eye, r, g, b, x, y, z, nx, ny, nz):
    """Linear colour sent to the eye from albedo (r, g, b) at (x, y, z) with unit normal n."""
    if not flags & LIT:
        return r, g, b
    basis = diffuse_harmonics(nx, ny, nz)
    er = eg = eb = ZERO * nx
    for k in range(9):
        er += basis[k] * sh[k, 0]
        eg += basis[k] * sh[k, 1]
        eb += basis[k] * sh[k, 2]
    er, eg, eb = er * r, eg * g, eb * b
    ex, ey, ez = eye[0], eye[1], eye[2]
    if flags & PERSPECTIVE:
        ex, ey, ez, _ = toward(x, y, z, ex, ey, ez)
    for m in range(lamps.shape[0]):
        lx, ly, lz, falloff = lamps[m, 0], lamps[m, 1], lamps[m, 2], ONE + ZERO * x
        if places[m]:
            lx, ly, lz, falloff = toward(x, y, z, lx, ly, lz)
        nl = nx * lx + ny * ly + nz * lz
        if not nl > ZERO:
            continue
        lobe = weight = ZERO * x
        if flags & GLOSSY:
            lobe, weight = glossy_lobe(nx, ny, nz, lx, ly, lz, ex, ey, ez, gloss[3])
        diffuse = nl * INV_PI
        fr, fg, fb = gloss[0], gloss[1], gloss[2]
        er += falloff * lamps[m, 3] * (r * diffuse + lobe * (fr + (ONE - fr) * weight))
        eg += falloff * lamps[m, 4] * (g * diffuse + lobe * (fg + (ONE - fg) * weight))
        eb += falloff * lamps[m, 5] * (b * diffuse + lobe * (fb + (ONE - fb) * weight))
    return er, eg, eb


@part
def shade_vjp(
    flags, sh, lamps, places, gloss, eye, v_sh, v_lamps, v_gloss, v_eye, r, g, b, x, y, z, nx, ny, nz, v_r, v_g, v_b
):  # fmt: skip
    """Adds to the arrays v_sh … v_eye (float64) and returns the cotangents of albedo, place and normal."""
    o = ZERO * x
    if not flags & LIT:
        return v_r, v_g, v_b, o, o, o, o, o, o
    basis = diffuse_harmonics(nx, ny, nz)
    a_r = a_g = a_b = o  # cotangents of the albedo
    for k in range(9):
        a_r += basis[k] * sh[k, 0]
        a_g += basis[k] * sh[k, 1]
        a_b += basis[k] * sh[k, 2]
        v_sh[k, 0] += basis[k] * r * v_r
        v_sh[k, 1] += basis[k] * g * v_g
        v_sh[k, 2] += basis[k] * b * v_b
    a_r, a_g, a_b = a_r * v_r, a_g * v_g, a_b * v_b
    wr, wg, wb = r * v_r, g * v_g, b * v_b
    n_x, n_y, n_z = diffuse_harmonics_vjp(
        nx, ny, nz,
        sh[1, 0] * wr + sh[1, 1] * wg + sh[1, 2] * wb, sh[2, 0] * wr + sh[2, 1] * wg + sh[2, 2] * wb,
        sh[3, 0] * wr + sh[3, 1] * wg + sh[3, 2] * wb, sh[4, 0] * wr + sh[4, 1] * wg + sh[4, 2] * wb,
        sh[5, 0] * wr + sh[5, 1] * wg + sh[5, 2] * wb, sh[6, 0] * wr + sh[6, 1] * wg + sh[6, 2] * wb,
        sh[7, 0] * wr + sh[7, 1] * wg + sh[7, 2] * wb, sh[8, 0] * wr + sh[8, 1] * wg + sh[8, 2] * wb,
    )  # fmt: skip
    p_x = p_y = p_z = o
    e_x = e_y = e_z = o
    ex, ey, ez = eye[0], eye[1], eye[2]
    if flags & PERSPECTIVE:
        ex, ey, ez, _ = toward(x, y, z, ex, ey, ez)
    for m in range(lamps.shape[0]):
        lx, ly, lz, falloff = lamps[m, 0], lamps[m, 1], lamps[m, 2], ONE + o
        if places[m]:
            lx, ly, lz, falloff = toward(x, y, z, lx, ly, lz)
        nl = nx * lx + ny * ly + nz * lz
        if not nl > ZERO:
            continue
        lobe = weight = o
        if flags & GLOSSY:
            lobe, weight = glossy_lobe(nx, ny, nz, lx, ly, lz, ex, ey, ez, gloss[3])
        diffuse = nl * INV_PI
        v_lobe = v_weight = v_nl = v_falloff = o
        for k in range(3):
            albedo, v_out = (r, v_r) if k == 0 else ((g, v_g) if k == 1 else (b, v_b))
            f0 = gloss[k]
            fresnel = f0 + (ONE - f0) * weight
            sent = albedo * diffuse + lobe * fresnel
            v_lamps[m, 3 + k] += v_out * falloff * sent
            v_falloff += v_out * lamps[m, 3 + k] * sent
            v_sent = v_out * falloff * lamps[m, 3 + k]
            v_nl += v_sent * albedo * INV_PI
            v_lobe += v_sent * fresnel
            v_weight += v_sent * lobe * (ONE - f0)
            v_gloss[k] += v_sent * lobe * (ONE - weight)
            if k == 0:
                a_r += v_sent * diffuse
            elif k == 1:
                a_g += v_sent * diffuse
            else:
                a_b += v_sent * diffuse
        n_x, n_y, n_z = n_x + v_nl * lx, n_y + v_nl * ly, n_z + v_nl * lz
        l_x, l_y, l_z = v_nl * nx, v_nl * ny, v_nl * nz
        if flags & GLOSSY:
            t = glossy_lobe_vjp(nx, ny, nz, lx, ly, lz, ex, ey, ez, gloss[3], v_lobe, v_weight)
            n_x, n_y, n_z = n_x + t[0], n_y + t[1], n_z + t[2]
            l_x, l_y, l_z = l_x + t[3], l_y + t[4], l_z + t[5]
            e_x, e_y, e_z = e_x + t[6], e_y + t[7], e_z + t[8]
            v_gloss[3] += t[9]
        if places[m]:
            l_x, l_y, l_z = toward_vjp(x, y, z, lamps[m, 0], lamps[m, 1], lamps[m, 2], l_x, l_y, l_z, v_falloff)
            p_x, p_y, p_z = p_x - l_x, p_y - l_y, p_z - l_z
        v_lamps[m, 0] += l_x
        v_lamps[m, 1] += l_y
        v_lamps[m, 2] += l_z
    if flags & GLOSSY:
        if flags & PERSPECTIVE:
            e_x, e_y, e_z = toward_vjp(x, y, z, eye[0], eye[1], eye[2], e_x, e_y, e_z, o)
            p_x, p_y, p_z = p_x - e_x, p_y - e_y, p_z - e_z
        v_eye[0] += e_x
        v_eye[1] += e_y
        v_eye[2] += e_z
    return a_r, a_g, a_b, p_x, p_y, p_z, n_x, n_y, n_z


@part
def color_at(
    flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss, eye, faces, uv_faces, f, pa, pb, pc, area
):  # fmt: skip
    """Linear colour of face f at weights p, seen by the eye."""
    r, g, b = albedo_at(flags, albedo, picture, uv, faces, uv_faces, f, pa, pb, pc)
    if not flags & LIT:
        return r, g, b
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    s = points
    nx, ny, nz, _, _, _ = seen_normal(normals, i, j, k, pa, pb, pc, area)
    return shade(
        flags, sh, lamps, places, gloss, eye, r, g, b,
        pa * s[i, 0] + pb * s[j, 0] + pc * s[k, 0],
        pa * s[i, 1] + pb * s[j, 1] + pc * s[k, 1],
        pa * s[i, 2] + pb * s[j, 2] + pc * s[k, 2],
        nx, ny, nz,
    )  # fmt: skip


@part
def lit_vjp(
    flags, points, normals, sh, lamps, places, gloss, eye, v_points, v_normals, v_sh, v_lamps, v_gloss, v_eye,
    i, j, k, pa, pb, pc, area, r, g, b, v_r, v_g, v_b,
):  # fmt: skip
    """Adds to the arrays v_points … v_eye and returns the cotangents of albedo (r, g, b) and of the weights.

    Of a face with corners i, j, k on a lit surface, at weights p.
    """
    s, v_s = points, v_points
    nx, ny, nz, mx, my, mz = seen_normal(normals, i, j, k, pa, pb, pc, area)
    a_r, a_g, a_b, p_x, p_y, p_z, n_x, n_y, n_z = shade_vjp(
        flags, sh, lamps, places, gloss, eye, v_sh, v_lamps, v_gloss, v_eye, r, g, b,
        pa * s[i, 0] + pb * s[j, 0] + pc * s[k, 0],
        pa * s[i, 1] + pb * s[j, 1] + pc * s[k, 1],
        pa * s[i, 2] + pb * s[j, 2] + pc * s[k, 2],
        nx, ny, nz, v_r, v_g, v_b,
    )  # fmt: skip
    wa, wb, wc = seen_normal_vjp(normals, i, j, k, pa, pb, pc, area, mx, my, mz, n_x, n_y, n_z, v_normals)
    for m in range(3):
        v = p_x if m == 0 else (p_y if m == 1 else p_z)
        wa += v * s[i, m]
        wb += v * s[j, m]
        wc += v * s[k, m]
        v_s[i, m] += v * pa
        v_s[j, m] += v * pb
        v_s[k, m] += v * pc
    return a_r, a_g, a_b, wa, wb, wc


@part
def color_at_vjp(
    flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss, eye,
    v_points, v_normals, v_albedo, v_picture, v_uv, v_sh, v_lamps, v_gloss, v_eye,
    faces, uv_faces, f, pa, pb, pc, area, v_r, v_g, v_b,
):  # fmt: skip
    """Adds to the arrays v_points … v_eye and returns the cotangents of the weights."""
    if not flags & LIT:
        return albedo_at_vjp(
            flags, albedo, picture, uv, v_albedo, v_picture, v_uv, faces, uv_faces, f, pa, pb, pc, v_r, v_g, v_b
        )
    r, g, b = albedo_at(flags, albedo, picture, uv, faces, uv_faces, f, pa, pb, pc)
    a_r, a_g, a_b, ua, ub, uc = lit_vjp(
        flags, points, normals, sh, lamps, places, gloss, eye, v_points, v_normals, v_sh, v_lamps, v_gloss, v_eye,
        faces[f, 0], faces[f, 1], faces[f, 2], pa, pb, pc, area, r, g, b, v_r, v_g, v_b,
    )  # fmt: skip
    wa, wb, wc = albedo_at_vjp(
        flags, albedo, picture, uv, v_albedo, v_picture, v_uv, faces, uv_faces, f, pa, pb, pc, a_r, a_g, a_b
    )
    return wa + ua, wb + ub, wc + uc


@kernel
def paint_color(screen, faces, uv_faces, areas, ids, samples, reach, flags, surface, light, image):
    """image (H, W, 3), which comes 0, = mean over all samples of the linear colour."""
    points, normals, albedo, picture, uv = surface
    sh, lamps, places, gloss, eye = light
    n = np.float32(samples)
    share = share_of(samples, screen)
    perspective = (flags & PERSPECTIVE) != 0
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            u = (np.float32(col) + HALF) / n - HALF
            pa, pb, pc, _ = weights_at(screen, faces[f, 0], faces[f, 1], faces[f, 2], u, v, perspective)
            red, green, blue = color_at(
                flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss, eye,
                faces, uv_faces, f, pa, pb, pc, areas[f],
            )  # fmt: skip
            row, column = r // samples, col // samples
            image[row, column, 0] += share * red
            image[row, column, 1] += share * green
            image[row, column, 2] += share * blue


@kernel
def paint_color_vjp(
    screen, faces, uv_faces, areas, ids, samples, reach, flags, surface, light, v_image, v_surface, v_light, v_screen
):
    """Adds to v_surface, v_light and v_screen (V, 3), all float64."""
    points, normals, albedo, picture, uv = surface
    sh, lamps, places, gloss, eye = light
    v_points, v_normals, v_albedo, v_picture, v_uv = v_surface
    v_sh, v_lamps, _, v_gloss, v_eye = v_light
    n = np.float32(samples)
    share = share_of(samples, screen)
    perspective = (flags & PERSPECTIVE) != 0
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            row, column = r // samples, col // samples
            u = (np.float32(col) + HALF) / n - HALF
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            pa, pb, pc, _ = weights_at(screen, a, b, c, u, v, perspective)
            v_pa, v_pb, v_pc = color_at_vjp(
                flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss, eye,
                v_points, v_normals, v_albedo, v_picture, v_uv, v_sh, v_lamps, v_gloss, v_eye,
                faces, uv_faces, f, pa, pb, pc, areas[f],
                share * v_image[row, column, 0], share * v_image[row, column, 1], share * v_image[row, column, 2],
            )  # fmt: skip
            scatter_weights(screen, v_screen, a, b, c, u, v, perspective, v_pa, v_pb, v_pc, ZERO * pa)


@part
def color_of_side(
    faces, uv_faces, areas, floats, p, side, f, flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss,
    eye, v_red, v_green, v_blue,
):  # fmt: skip
    """What the colour of face f, in front of piece p of an edge (side 0) or behind it (1), adds to the loss."""
    w = 5 + 4 * side
    red, green, blue = color_at(
        flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss, eye, faces, uv_faces, f,
        floats[p, w], floats[p, w + 1], floats[p, w + 2], areas[f],
    )  # fmt: skip
    return v_red * red + v_green * green + v_blue * blue


@kernel
def color_jumps(faces, uv_faces, areas, ints, floats, flags, surface, light, v_image, jumps):
    """jumps (N,) of the pieces of edges; v_image (H W, 3)."""
    points, normals, albedo, picture, uv = surface
    sh, lamps, places, gloss, eye = light
    for p in range(ints.shape[0]):
        pixel = ints[p, 0]
        total = ZERO * floats[p, 0]
        for side in range(2):
            f = ints[p, 1 + side]
            if f < 0:
                continue
            seen = color_of_side(
                faces, uv_faces, areas, floats, p, side, f, flags, points, normals, albedo, picture, uv, sh, lamps,
                places, gloss, eye, v_image[pixel, 0], v_image[pixel, 1], v_image[pixel, 2],
            )  # fmt: skip
            total += seen if side == 0 else -seen
        jumps[p] = total
