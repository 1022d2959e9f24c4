"""Logarithms of rotations, one matrix after the other: many small ones cost numpy more in calls than in sums."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, forceinline=True)
def log_rotations(R, theta, D):
    """Axis-angle theta (N, 3) radians of R (N, 3, 3), angle in [0, π], by way of the quaternion's largest component,
    and D (N, 3, 3) = dθ/dδ for R·exp δ (inverse right Jacobian of SO(3); Solà et al. 2018, eq. 144)."""
    t = np.empty(4)
    q = np.empty(4)
    K = np.empty((3, 3))
    for n in range(R.shape[0]):
        m = R[n]
        a, b, c = m[0, 0], m[1, 1], m[2, 2]
        t[0], t[1], t[2], t[3] = 1 + a + b + c, 1 + a - b - c, 1 - a + b - c, 1 - a - b + c
        wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
        xy, xz, yz = m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2]
        k = 0
        for i in range(1, 4):
            if t[i] > t[k]:
                k = i
        if k == 0:
            q[0], q[1], q[2], q[3] = t[0], wx, wy, wz
        elif k == 1:
            q[0], q[1], q[2], q[3] = wx, t[1], xy, xz
        elif k == 2:
            q[0], q[1], q[2], q[3] = wy, xy, t[2], yz
        else:
            q[0], q[1], q[2], q[3] = wz, xz, yz, t[3]
        size = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        sign = -1.0 if q[0] < 0 else 1.0
        for i in range(4):
            q[i] = q[i] / size * sign
        sin_half = np.sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        scale = 2.0 * np.arctan2(sin_half, q[0]) / sin_half if sin_half > 1e-12 else 2.0
        x, y, z = q[1] * scale, q[2] * scale, q[3] * scale
        theta[n, 0], theta[n, 1], theta[n, 2] = x, y, z
        angle = np.sqrt(x * x + y * y + z * z)
        f = 1.0 / 12.0
        if angle >= 1e-4:
            f = 1.0 / (angle * angle) - (1 + np.cos(angle)) / (2 * angle * np.sin(angle) + 1e-12)
        K[0, 0], K[0, 1], K[0, 2] = 0.0, -z, y
        K[1, 0], K[1, 1], K[1, 2] = z, 0.0, -x
        K[2, 0], K[2, 1], K[2, 2] = -y, x, 0.0
        for i in range(3):
            for j in range(3):
                square = K[i, 0] * K[0, j] + K[i, 1] * K[1, j] + K[i, 2] * K[2, j]
                D[n, i, j] = (1.0 if i == j else 0.0) + 0.5 * K[i, j] + f * square


@njit(nogil=True, cache=True)
def about(theta, D, mean, precision, low, high, limit_precision, cost, gradient, hessian):
    """Adds to cost (N,), gradient (N, J, 3) and hessian (N, J, 3, 3) a Gaussian about `mean` (N, J, 3) and, beyond low
    and high (J, 3), another one about the limit; theta and D (N, J, ...) as from `log_rotations`."""
    p, s = np.empty(3), np.empty(3)
    for n in range(theta.shape[0]):
        for j in range(theta.shape[1]):
            for a in range(3):
                x, w = theta[n, j, a], precision[j, a]
                r = x - mean[n, j, a]
                if w == 0:
                    r = 0.0
                over = max(x - high[j, a], 0.0) + min(x - low[j, a], 0.0)
                p[a], s[a] = w * r, w
                cost[n] += 0.5 * w * r * r
                if over != 0:
                    v = limit_precision[j, a]
                    cost[n] += 0.5 * v * over * over
                    p[a] += v * over
                    s[a] += v
            for b in range(3):
                acc = 0.0
                for a in range(3):
                    acc += D[n, j, a, b] * p[a]
                gradient[n, j, b] += acc
                for c in range(3):
                    acc = 0.0
                    for a in range(3):
                        acc += D[n, j, a, b] * s[a] * D[n, j, a, c]
                    hessian[n, j, b, c] += acc
