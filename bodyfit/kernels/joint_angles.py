"""Angles of joints that are hinges: how far they are bent, and how far what is beyond them is turned about itself."""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.rotations import log_rotations


@njit(nogil=True, cache=True, forceinline=True)
def swing_twist(theta, axis, out):
    """Fills out (3,) for a rotation with axis-angle theta (3,) = swing · twist about one of the axes: the swing's two
    parts across that axis and, at the axis, the twist, radians in (-π, π]."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    x, y, z = theta[axis], theta[b], theta[c]
    angle = np.sqrt(x * x + y * y + z * z)
    w = np.cos(0.5 * angle)
    f = 0.5 if angle < 1e-8 else np.sin(0.5 * angle) / angle
    x, y, z = x * f, y * f, z * f
    size = np.sqrt(w * w + x * x)
    tw, tx = (w / size, x / size) if size > 1e-12 else (1.0, 0.0)
    # the swing is q · conj(twist): it has no part along the axis
    sw, sy, sz = w * tw + x * tx, y * tw - z * tx, z * tw + y * tx
    sin_half = np.sqrt(sy * sy + sz * sz)
    g = 2.0 if sin_half < 1e-12 else 2.0 * np.arctan2(sin_half, sw) / sin_half
    out[axis], out[b], out[c] = 2.0 * np.arctan2(tx, tw), g * sy, g * sz


@njit(nogil=True, cache=True)
def joint_angles(R, twist_axis, theta, D):
    """Fills theta (N, J, 3) radians and D (N, J, 3, 3) = dθ/dδ for R·exp δ of R (N, J, 3, 3): axis-angle, and for a
    joint with a twist axis (J,) (0, 1 or 2; none: -1) its swing and twist as `swing_twist` orders them.

    R = S T; R·exp δ = S·exp(T δ)·T, and T commutes with a further twist t: J_r(s) ds + e dt = T δ, where ds has no part
    along the axis e. Multiplied by J_r(s)⁻¹ that is solved one row after the other.
    """
    angles = np.empty(3)
    swing = np.empty((1, 3))
    S, T, Ds = np.empty((1, 3, 3)), np.zeros((3, 3)), np.empty((1, 3, 3))
    for n in range(R.shape[0]):
        log_rotations(R[n], theta[n], D[n])
        for j in range(R.shape[1]):
            a = twist_axis[j]
            if a < 0:
                continue
            b, c = (a + 1) % 3, (a + 2) % 3
            swing_twist(theta[n, j], a, angles)
            cos, sin = np.cos(angles[a]), np.sin(angles[a])
            T[a, a], T[a, b], T[a, c], T[b, a], T[c, a] = 1.0, 0.0, 0.0, 0.0, 0.0
            T[b, b], T[b, c], T[c, b], T[c, c] = cos, -sin, sin, cos
            for i in range(3):
                for k in range(3):
                    S[0, i, k] = R[n, j, i, 0] * T[k, 0] + R[n, j, i, 1] * T[k, 1] + R[n, j, i, 2] * T[k, 2]
            log_rotations(S, swing, Ds)
            for k in range(3):
                along = (Ds[0, a, 0] * T[0, k] + Ds[0, a, 1] * T[1, k] + Ds[0, a, 2] * T[2, k]) / Ds[0, a, a]
                D[n, j, a, k] = along
                for i in (b, c):
                    across = Ds[0, i, 0] * T[0, k] + Ds[0, i, 1] * T[1, k] + Ds[0, i, 2] * T[2, k]
                    D[n, j, i, k] = across - Ds[0, i, a] * along
            theta[n, j] = angles


@njit(nogil=True, cache=True)
def angles_of(theta, twist_axis, out):
    """Fills out (N, J, 3): axis-angles theta (N, J, 3) in the angles of `joint_angles`."""
    for n in range(theta.shape[0]):
        for j in range(theta.shape[1]):
            if twist_axis[j] < 0:
                out[n, j] = theta[n, j]
            else:
                swing_twist(theta[n, j], twist_axis[j], out[n, j])
