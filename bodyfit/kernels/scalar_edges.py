"""The maths of one cut of an edge: where it meets borders of pixels, and what a face before or behind it covers."""

from __future__ import annotations

from math import ceil, floor

import numpy as np

from bodyfit.kernels.cpu_raster import FAR
from bodyfit.kernels.cpu_visible import BESIDE_PX, COVERS
from bodyfit.kernels.scalar import HALF, ONE, TWO, ZERO, scalar


@scalar
def first_border(at, step, n):
    """The first border of n pixels (0 to n) that a way from coordinate `at` towards `step` (±1) meets."""
    if step > 0:
        return max(np.int64(floor(at)) + 1, 0)
    return min(np.int64(ceil(at)) - 1, n)


@scalar
def share_at_border(border, n, start, delta):
    """The share of an edge, from coordinate `start` on by `delta`, at which it meets a border; FAR off the image."""
    if delta == ZERO or border < 0 or border > n:
        return -FAR
    return (np.float32(border) - HALF - start) / delta


@scalar
def face_plane(ua, va, qa, ub, vb, qb, uc, vc, qc, area):
    """How the weights of the second and third corner and q change per pixel of u and v: six numbers."""
    inv = ONE / area
    lb_du, lb_dv = (vc - va) * inv, -(uc - ua) * inv
    lc_du, lc_dv = -(vb - va) * inv, (ub - ua) * inv
    b, c = qb - qa, qc - qa
    return lb_du, lb_dv, lc_du, lc_dv, b * lb_du + c * lc_du, b * lb_dv + c * lc_dv


@scalar
def touches_pixel(du, dv, lb_du, lb_dv, lc_du, lc_dv):
    """Whether a face may touch a pixel (or lie within BESIDE_PX) whose centre is (du, dv) from its first corner."""
    la_du, la_dv = -lb_du - lc_du, -lb_dv - lc_dv
    half = HALF + TWO * BESIDE_PX
    lb, lc = du * lb_du + dv * lb_dv, du * lc_du + dv * lc_dv
    return (
        lb + half * (abs(lb_du) + abs(lb_dv)) >= ZERO
        and lc + half * (abs(lc_du) + abs(lc_dv)) >= ZERO
        and ONE - lb - lc + half * (abs(la_du) + abs(la_dv)) >= ZERO
    )


@scalar
def inside_face(b0, b1, c0, c1, end):
    """The part (low, high) of the way from 0 to `end` where the weights b0 + b1 t, c0 + c1 t and the third are not
    negative; low ≥ high where there is none."""
    low, high = ZERO * end, end
    at, there = b0 - COVERS, b0 - COVERS + b1 * end
    if at < ZERO:
        if not there > ZERO:
            return end, low
        low = -at / b1
    elif there < ZERO:
        high = -at / b1
    at, there = c0 - COVERS, c0 - COVERS + c1 * end
    if at < ZERO:
        if not there > ZERO:
            return end, low
        low = max(low, -at / c1)
    elif there < ZERO:
        high = min(high, -at / c1)
    at = ONE - b0 - c0 - COVERS
    there = at - (b1 + c1) * end
    if at < ZERO:
        if not there > ZERO:
            return end, low
        low = max(low, at / (b1 + c1))
    elif there < ZERO:
        high = min(high, at / (b1 + c1))
    return low, high


@scalar
def parts_over_face(b, b_rise, c, c_rise, end, q, q_rise, limit, limit_rise):
    """What a face covers of a cut that runs from 0 to `end`: the part that it hides and the part behind which it lies.

    b, c: the weights of the face's second and third corner along the cut; q: the face's there; limit: the q above
    which it is in front. Returns first and last of the hidden part, then of the other; last ≤ first where there is
    none. An edge may pass through a face, which then does both.
    """
    nothing = ZERO * end
    low, high = inside_face(b, b_rise, c, c_rise, end)
    if not low < high:
        return end, nothing, end, nothing
    over_low = q + low * q_rise - (limit + low * limit_rise)
    over_high = q + high * q_rise - (limit + high * limit_rise)
    if over_low > ZERO:
        if over_high > ZERO:
            return low, high, end, nothing
        through = low + (high - low) * (over_low / (over_low - over_high))
        return low, through, through, high
    if over_high > ZERO:
        through = low + (high - low) * (over_low / (over_low - over_high))
        return through, high, low, through
    return end, nothing, low, high
