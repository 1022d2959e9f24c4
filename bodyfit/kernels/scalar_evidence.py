"""What one pixel says of a body: scalar functions that the CPU's loops and the GPU's grids share.

Lengths are metres in a camera's axes. Robustifier: Geman-McClure, whose weight stays fixed within a step.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST

NOTHING, DEPTH, SPILLED, BARE = -1, 0, 1, 2
BACKGROUND, PERSON, UNKNOWN = 0, 1, 2
GAPING = np.float32(0.03)
SAME_SURFACE = np.float32(0.04)
FAR_BEHIND = np.float32(0.40)
SLANTED = np.float32(0.5)
MAX_WINDOW = 5
HALF, ONE = np.float32(0.5), np.float32(1.0)


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def mode_of_pixel(covered, label, seen, drawn, person_near, near_drawn):
    """What is compared in a pixel: DEPTH, SPILLED, BARE or NOTHING.

    covered: the model is drawn there, at `drawn` metres; seen: the sensor's reading, 0 for none; person_near: a person
    pixel exists to which a spilled one can be drawn; near_drawn: the model's depth in its pixel nearest to this one,
    below 0 where there is none.
    """
    if covered and label == PERSON:
        return DEPTH if seen > 0 else NOTHING
    if covered and label == BACKGROUND:
        # something nearer hides what is behind it; and a surface right where the model has one is the model's,
        # whatever the mask says: no evidence against the model
        if not person_near or (seen > 0 and seen < drawn + SAME_SURFACE):
            return NOTHING
        return SPILLED
    if not covered and label == PERSON:
        # a mask that runs over the edge: what is seen there is the room
        return NOTHING if near_drawn < 0 or seen > near_drawn + FAR_BEHIND else BARE
    return NOTHING


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def face_normal(xa, ya, za, xb, yb, zb, xc, yc, zc):
    """Unit normal of the triangle a b c, and twice its area; the area is 0 where there is no normal."""
    ax, ay, az, bx, by, bz = xb - xa, yb - ya, zb - za, xc - xa, yc - ya, zc - za
    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    norm = sqrt(nx * nx + ny * ny + nz * nz)
    if norm == 0:
        return nx, ny, nz, norm
    return nx / norm, ny / norm, nz / norm, norm


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def depth_evidence(nx, ny, nz, qx, qy, qz, gap, windowed, share, sigma, sigma_behind, scale2):
    """Distance of the sensor's point, which lies at q from the model's, along the model's normal n.

    gap: difference of the two depths in the pixel; windowed: the points are of different pixels; share: the weight;
    sigma: where the body lies before the seen surface, sigma_behind: behind it; scale2: the robustifier's, squared.

    Returns:
        outside (metres, above 0 where the sensor's point lies outside), direction (3), cost, strength: what a row of
        the residual -outside is multiplied by.
    """
    apart = sqrt(qx * qx + qy * qy + qz * qz)
    outside = nx * qx + ny * qy + nz * qz
    if windowed and abs(outside) < SLANTED * apart:
        # beside the surface rather than above it: the way to it, instead of the normal
        outside = apart
        nx, ny, nz = qx / apart, qy / apart, qz / apart
    far = apart if windowed else abs(gap)
    s = sigma_behind if outside > 0 else sigma
    keep = scale2 / (scale2 + far * far)
    cost = HALF * share * outside * outside / (s * s) * keep
    return outside, nx, ny, nz, cost, sqrt(share) * keep / s


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def outline_evidence(du, dv, dx, dy, z, f_mean, weight, sigma, scale2):
    """Distance across of a model point at depth z, in the pixel whose ray is (dx, dy, 1), from where it should be,
    which lies du columns and dv rows behind it.

    Returns:
        residual (metres), direction (3), cost, strength.
    """
    distance = sqrt(du * du + dv * dv)
    du, dv = du / distance, dv / distance
    # the outline runs between the two pixel centres
    residual = (distance - HALF) * z / f_mean
    keep = scale2 / (scale2 + residual * residual)
    cost = HALF * weight * residual * residual / (sigma * sigma) * keep
    # the pixel of a point moves with it, and outwards as it comes nearer
    return residual, du, dv, -(du * dx + dv * dy), cost, sqrt(weight) * keep / sigma


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def floor_evidence(above, share, sigma_floor, sigma_sunk, scale2):
    """Cost and strength of a sole's vertex so many metres above the floor: a foot may be lifted (robust), but never
    stands below the floor."""
    keep, sigma = ONE, sigma_sunk
    if above > 0:
        keep, sigma = scale2 / (scale2 + above * above), sigma_floor
    return HALF * share * above * above / (sigma * sigma) * keep, sqrt(share) * keep / sigma
