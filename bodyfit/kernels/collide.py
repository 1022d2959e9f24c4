"""Spheres that ride on a body's joints, and how deep they lie in each other."""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import joint_motions


@njit(nogil=True, cache=True)
def penetration(
    rotations, joints, parents, owner, offset, radius, pairs, slack, inv_sigma, cost, gradient, hessian, depth
):  # fmt: skip
    """Adds ½ Σ (d/σ)² of the depths d by which pairs of spheres lie in each other to cost (N,), gradient (N, 3J) and
    hessian (N, 3J, 3J), by right perturbations of rotations (N, J, 3, 3); the deepest goes to depth (N,), metres.

    joints (J, 3) at rest; a sphere K rides on joint owner[K] at offset[K] (3,) metres from it at rest with radius[K];
    pairs (P, 2) of spheres; overlaps up to `slack` (P,) metres are none.
    """
    count, size = rotations.shape[1], len(owner)
    G, posed, centre = np.empty((count, 3, 3)), np.empty((count, 3)), np.empty((size, 3))
    origin, axes = np.zeros(3), np.eye(3)
    u, row = np.empty(3), np.zeros(3 * count)
    used = np.empty(2 * count, np.int64)
    for n in range(rotations.shape[0]):
        joint_motions(rotations[n], joints, parents, axes, origin, origin, G, posed)
        for k in range(size):
            j = owner[k]
            for r in range(3):
                centre[k, r] = (
                    posed[j, r] + G[j, r, 0] * offset[k, 0] + G[j, r, 1] * offset[k, 1] + G[j, r, 2] * offset[k, 2]
                )
        depth[n] = 0.0
        for q in range(len(pairs)):
            a, b = pairs[q, 0], pairs[q, 1]
            x, y, z = centre[a, 0] - centre[b, 0], centre[a, 1] - centre[b, 1], centre[a, 2] - centre[b, 2]
            reach = radius[a] + radius[b] - slack[q]
            square = x * x + y * y + z * z
            if square >= reach * reach or reach <= 0:
                continue
            distance = np.sqrt(square)
            if distance < 1e-9:
                continue  # one in the other's middle: no direction leads out
            d = reach - distance
            depth[n] = max(depth[n], d)
            r0 = d * inv_sigma
            cost[n] += 0.5 * r0 * r0
            u[0], u[1], u[2] = x / distance, y / distance, z / distance
            many = 0
            for end in range(2):
                # d falls as sphere a moves along u, and as b moves against it
                sign = -inv_sigma if end == 0 else inv_sigma
                k = a if end == 0 else b
                j = owner[k]
                while j >= 0:
                    w0, w1, w2, v0, v1, v2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                    for r in range(3):
                        arm = centre[k, r] - posed[j, r]
                        w0, w1, w2 = w0 + G[j, r, 0] * arm, w1 + G[j, r, 1] * arm, w2 + G[j, r, 2] * arm
                        v0, v1, v2 = v0 + G[j, r, 0] * u[r], v1 + G[j, r, 1] * u[r], v2 + G[j, r, 2] * u[r]
                    row[3 * j] += sign * (w1 * v2 - w2 * v1)
                    row[3 * j + 1] += sign * (w2 * v0 - w0 * v2)
                    row[3 * j + 2] += sign * (w0 * v1 - w1 * v0)
                    known = False
                    for i in range(many):
                        known = known or used[i] == j
                    if not known:
                        used[many] = j
                        many += 1
                    j = parents[j]
            for i in range(many):
                for c in range(3):
                    gi = 3 * used[i] + c
                    gradient[n, gi] += r0 * row[gi]
                    for e in range(many):
                        for f in range(3):
                            he = 3 * used[e] + f
                            hessian[n, gi, he] += row[gi] * row[he]
            for i in range(many):
                for c in range(3):
                    row[3 * used[i] + c] = 0.0
