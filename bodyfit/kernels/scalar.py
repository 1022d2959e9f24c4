"""The maths of one vertex, one triangle, one pixel: floats in, floats and tuples out, each `foo` beside its `foo_vjp`.

A `_vjp` takes the arguments of its function and the cotangents `v_…` of what that returns, and returns those of its
arguments. All are generic in float32 and float64; constants are float32 by type, so that float32 stays float32 (and no
double precision comes into a GPU's code). Nothing here knows arrays: launchers load, call and store.

On the screen a point is (u, v, q): pixels, and what is linear in the picture and larger when nearer, which is 1/z in a
perspective camera and -z in an orthographic one. Screen points have v down, so a triangle wound outwards that faces
the camera has negative area.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST

ZERO, HALF, ONE, TWO = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(2.0)
TINY = np.float32(1e-20)

scalar = njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy", forceinline=True)


@scalar
def project(x, y, z, fx, fy, cx, cy, perspective):
    """Screen point (u, v, q) of a camera point in metres with z > 0."""
    if perspective:
        q = ONE / z
        return fx * x * q + cx, fy * y * q + cy, q
    return fx * x + cx, fy * y + cy, -z


@scalar
def project_vjp(x, y, z, fx, fy, cx, cy, perspective, v_u, v_v, v_q):
    """Cotangents of x, y, z, fx, fy, cx, cy."""
    if perspective:
        q = ONE / z
        v_q = v_q + v_u * fx * x + v_v * fy * y
        return v_u * fx * q, v_v * fy * q, -v_q * q * q, v_u * x * q, v_v * y * q, v_u, v_v
    return v_u * fx, v_v * fy, -v_q, v_u * x, v_v * y, v_u, v_v


@scalar
def signed_area(ua, va, ub, vb, uc, vc):
    """Twice the area of a triangle on the screen, positive where a, b, c turn clockwise as one looks at it."""
    return (ub - ua) * (vc - va) - (vb - va) * (uc - ua)


@scalar
def barycentrics(u, v, ua, va, ub, vb, uc, vc):
    """Weights (a, b, c) of a triangle's corners at a point of the screen; they sum to 1."""
    inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
    du, dv = u - ua, v - va
    lb = (du * (vc - va) - dv * (uc - ua)) * inv
    lc = (dv * (ub - ua) - du * (vb - va)) * inv
    return ONE - lb - lc, lb, lc


@scalar
def barycentrics_vjp(u, v, ua, va, ub, vb, uc, vc, v_la, v_lb, v_lc):
    """Cotangents of ua, va, ub, vb, uc, vc (the point stays where it is).

    A corner k that moves by d takes the point with weight k along with it, by l_k d: at a place that stays, every
    weight changes by minus its slope times that.
    """
    inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
    la, lb, lc = barycentrics(u, v, ua, va, ub, vb, uc, vc)
    b, c = (v_lb - v_la) * inv, (v_lc - v_la) * inv
    slope_u = b * (vc - va) - c * (vb - va)
    slope_v = c * (ub - ua) - b * (uc - ua)
    return -la * slope_u, -la * slope_v, -lb * slope_u, -lb * slope_v, -lc * slope_u, -lc * slope_v


@scalar
def surface_weights(la, lb, lc, qa, qb, qc, perspective):
    """Weights (a, b, c) of the corners on the surface itself, and its camera z, where the screen's are l."""
    if perspective:
        wa, wb, wc = la * qa, lb * qb, lc * qc
        z = ONE / (wa + wb + wc)
        return wa * z, wb * z, wc * z, z
    return la, lb, lc, -(la * qa + lb * qb + lc * qc)


@scalar
def surface_weights_vjp(la, lb, lc, qa, qb, qc, perspective, v_pa, v_pb, v_pc, v_z):
    """Cotangents of la, lb, lc, qa, qb, qc."""
    if perspective:
        wa, wb, wc = la * qa, lb * qb, lc * qc
        z = ONE / (wa + wb + wc)
        v_sum = -z * z * (v_z + v_pa * wa + v_pb * wb + v_pc * wc)
        v_wa, v_wb, v_wc = v_pa * z + v_sum, v_pb * z + v_sum, v_pc * z + v_sum
        return v_wa * qa, v_wb * qb, v_wc * qc, v_wa * la, v_wb * lb, v_wc * lc
    return v_pa - v_z * qa, v_pb - v_z * qb, v_pc - v_z * qc, -v_z * la, -v_z * lb, -v_z * lc


@scalar
def blend(pa, pb, pc, a, b, c):
    """The value on a face whose corners have a, b, c."""
    return pa * a + pb * b + pc * c


@scalar
def blend_vjp(pa, pb, pc, a, b, c, v_out):
    """Cotangents of the weights, then of a, b, c."""
    return v_out * a, v_out * b, v_out * c, v_out * pa, v_out * pb, v_out * pc


@scalar
def surface_depth(u, v, ua, va, qa, ub, vb, qb, uc, vc, qc, perspective):
    """Camera z of a triangle's plane at a point of the screen."""
    du, dv = slope_of(ua, va, qa, ub, vb, qb, uc, vc, qc)
    q = qa + du * (u - ua) + dv * (v - va)
    return ONE / q if perspective else -q


@scalar
def surface_depth_vjp(u, v, ua, va, qa, ub, vb, qb, uc, vc, qc, perspective, v_z):
    """Cotangents of the corners' nine numbers (the point stays where it is); see `barycentrics_vjp`."""
    inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
    bu, bv, cu, cv = ub - ua, vb - va, uc - ua, vc - va
    du, dv = u - ua, v - va
    lb, lc = (du * cv - dv * cu) * inv, (dv * bu - du * bv) * inv
    la = ONE - lb - lc
    b, c = qb - qa, qc - qa
    v_q = -v_z
    if perspective:
        z = ONE / (qa + lb * b + lc * c)
        v_q = v_q * z * z
    slope_u, slope_v = (b * cv - c * bv) * inv * v_q, (c * bu - b * cu) * inv * v_q
    return (
        -la * slope_u,
        -la * slope_v,
        la * v_q,
        -lb * slope_u,
        -lb * slope_v,
        lb * v_q,
        -lc * slope_u,
        -lc * slope_v,
        lc * v_q,
    )


@scalar
def plane_sum(ua, va, qa, ub, vb, qb, uc, vc, qc, s, su, sv):
    """The sum of w q over points of a triangle's plane with weights w, from the sums s of w, su of w u, sv of w v."""
    du, dv = slope_of(ua, va, qa, ub, vb, qb, uc, vc, qc)
    return s * qa + du * (su - s * ua) + dv * (sv - s * va)


@scalar
def plane_sum_vjp(ua, va, qa, ub, vb, qb, uc, vc, qc, s, su, sv, v_sum):
    """Cotangents of the corners' nine numbers (the points stay where they are); see `barycentrics_vjp`."""
    inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
    bu, bv, cu, cv = ub - ua, vb - va, uc - ua, vc - va
    s, su, sv = v_sum * s, v_sum * (su - s * ua), v_sum * (sv - s * va)
    sb, sc = (su * cv - sv * cu) * inv, (sv * bu - su * bv) * inv
    sa = s - sb - sc
    b, c = qb - qa, qc - qa
    slope_u, slope_v = (b * cv - c * bv) * inv, (c * bu - b * cu) * inv
    return (
        -sa * slope_u,
        -sa * slope_v,
        sa,
        -sb * slope_u,
        -sb * slope_v,
        sb,
        -sc * slope_u,
        -sc * slope_v,
        sc,
    )


@scalar
def slope_of(ua, va, qa, ub, vb, qb, uc, vc, qc):
    """How q grows over the screen on a triangle's plane, per pixel of u and of v."""
    inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
    b, c = qb - qa, qc - qa
    return (b * (vc - va) - c * (vb - va)) * inv, (c * (ub - ua) - b * (uc - ua)) * inv


@scalar
def unit(x, y, z):
    """The vector at length 1; the zero vector stays."""
    inv = ONE / sqrt(max(x * x + y * y + z * z, TINY))
    return x * inv, y * inv, z * inv


@scalar
def unit_vjp(x, y, z, v_x, v_y, v_z):
    """Cotangents of x, y, z."""
    inv = ONE / sqrt(max(x * x + y * y + z * z, TINY))
    nx, ny, nz = x * inv, y * inv, z * inv
    along = nx * v_x + ny * v_y + nz * v_z
    return (v_x - nx * along) * inv, (v_y - ny * along) * inv, (v_z - nz * along) * inv


@scalar
def area_normal(ax, ay, az, bx, by, bz, cx, cy, cz):
    """Normal of a triangle in space, outwards as it is wound, as long as twice its area."""
    px, py, pz = bx - ax, by - ay, bz - az
    qx, qy, qz = cx - ax, cy - ay, cz - az
    return py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx


@scalar
def area_normal_vjp(ax, ay, az, bx, by, bz, cx, cy, cz, v_x, v_y, v_z):
    """Cotangents of the nine coordinates."""
    px, py, pz = bx - ax, by - ay, bz - az
    qx, qy, qz = cx - ax, cy - ay, cz - az
    # d (p × q) · v = dp · (q × v) + dq · (v × p)
    bx_, by_, bz_ = qy * v_z - qz * v_y, qz * v_x - qx * v_z, qx * v_y - qy * v_x
    cx_, cy_, cz_ = v_y * pz - v_z * py, v_z * px - v_x * pz, v_x * py - v_y * px
    return -bx_ - cx_, -by_ - cy_, -bz_ - cz_, bx_, by_, bz_, cx_, cy_, cz_
