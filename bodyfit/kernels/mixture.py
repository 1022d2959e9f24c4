"""Minus the logarithm of a mixture of Gaussians over joint angles, with a Hessian that is never indefinite."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def mixture_terms(theta, D, joints, axes, log_weights, means, precisions, tempering, cost, gradient, hessian):
    """Adds -t·log Σ w_k N(x; m_k, P_k⁻¹) of some joint angles x to cost (N,), gradient (N, 3J) and hessian (N, 3J, 3J).

    theta (N, J, 3) angles and D (N, J, 3, 3) their derivatives by right perturbations; joints, axes (D,) which angles x
    has; log_weights (K,) with the densities' factors in; means (K, D); precisions (K, D, D); tempering t.

    The Hessian is the precision of each component by its share in the point (as in expectation maximisation): what the
    true one has beyond that is negative.
    """
    size, many = len(joints), len(log_weights)
    r, pull = np.empty((many, size)), np.empty((many, size))
    share, g, P = np.empty(many), np.empty(size), np.empty((size, size))
    for n in range(theta.shape[0]):
        top = -np.inf
        for k in range(many):
            for i in range(size):
                r[k, i] = theta[n, joints[i], axes[i]] - means[k, i]
            square = 0.0
            for i in range(size):
                acc = 0.0
                for j in range(size):
                    acc += precisions[k, i, j] * r[k, j]
                pull[k, i] = acc
                square += acc * r[k, i]
            share[k] = log_weights[k] - 0.5 * square
            top = max(top, share[k])
        total = 0.0
        for k in range(many):
            share[k] = np.exp(share[k] - top)
            total += share[k]
        cost[n] -= tempering * (top + np.log(total))
        g[:] = 0.0
        P[:] = 0.0
        for k in range(many):
            s = tempering * share[k] / total
            if s < 1e-12:
                continue
            for i in range(size):
                g[i] += s * pull[k, i]
                for j in range(size):
                    P[i, j] += s * precisions[k, i, j]
        for i in range(size):
            a = 3 * joints[i]
            for b in range(3):
                left = D[n, joints[i], axes[i], b]
                gradient[n, a + b] += left * g[i]
                for j in range(size):
                    c = 3 * joints[j]
                    for e in range(3):
                        hessian[n, a + b, c + e] += left * P[i, j] * D[n, joints[j], axes[j], e]
