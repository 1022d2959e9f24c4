"""How abruptly this person moves: the scales of their accelerations, learnt from the recording, joint by joint.

Scales for everybody let a sensor's noise through where somebody hardly moves, and blunt who moves more than others. So
each joint's scale, about each instant, is what makes the recording likeliest (empirical Bayes): with the evidence and
the poses' covariance at hand, the scale at which what is seen to be new in the accelerations is as much as can be seen
of it (MacKay 1992, Neural Computation 4(3), equation 4.10: so many well determined parameters). What the evidence
cannot tell from noise lowers the scale, which lets still less of it through; what stands out raises it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.banded import Band, band_cholesky
from bodyfit.fit.smooth import REACH, News, add_rows, tail_weights

ROUNDS = 6
"""so often scales and poses take turns"""
AROUND_S = 0.2
"""an instant's scale is told by those around it: standard deviation of their weights"""
LEAST = 0.02
"""no scale falls below this share of everybody's: who stands still breathes and sways"""
MOST = 4.0
"""nor rises above this many times everybody's"""
BELIEF = 0.02
"""everybody's scale counts as so many instants that are known well: it holds for limbs that nobody sees, and where
something is seen that decides"""


@dataclass(frozen=True)
class Evidence:
    """What else is known of a window's poses, to second order: stiffness (reach, T, Q, Q) and gradient (T, Q); the
    first `held` instants do not move; share: how much of its claimed errors are new in each instant (`flicker`)."""

    band: Band
    gradient: NDArray[np.float64]
    held: int
    share: float


def learnt_scales(
    news: News, usual: NDArray[np.float64], times_s: NDArray[np.float64], evidence: Evidence
) -> NDArray[np.float64]:
    """Scales (T, J + 1, 1) of what is new in the accelerations, rad/s² and m/s², of T instants at times_s (T,).

    Args:
        news: at the poses at hand.
        usual: (J + 1,) everybody's scales, from which the rounds begin.
    """
    T, k, at = len(times_s), evidence.held, news.at
    sigma = np.repeat(usual[None, :, None], T, 0)
    near = np.exp(-0.5 * ((times_s[at][:, None] - times_s[at]) / AROUND_S) ** 2)
    residual = news.residual
    for _ in range(ROUNDS):
        tail = tail_weights(residual, sigma[at])
        weight = tail * (evidence.share / sigma[at]) ** 2
        band, gradient = Band(evidence.band.blocks.copy()), evidence.gradient.copy()
        add_rows(at, news.residual, news.blocks, weight, gradient, band)
        free = Band(band.blocks[:, k:])
        i = np.arange(free.diagonal.shape[1])
        free.diagonal[:, i, i] += 1e-9 * (1.0 + free.diagonal[:, i, i].max(1, keepdims=True))
        try:
            factor = band_cholesky(free)
        except np.linalg.LinAlgError:
            break  # scales so far apart that numbers do not reach: the last ones are good
        step = np.zeros_like(gradient)
        step[k:] = -factor.solve(gradient[k:])
        residual = news.residual + moved_news(news, step)
        # of the three axes as much as the evidence and not the scale itself decides
        known = np.maximum(1.0 - weight * variances(news, factor.inverse(), k), 0.0).sum(2)
        seen = (tail * residual**2).sum(2)
        square = (near @ seen + 3 * BELIEF * usual**2) / (near @ known + 3 * BELIEF)
        sigma[at] = np.clip(np.sqrt(square), LEAST * usual, MOST * usual)[..., None]
    return sigma


def moved_news(news: News, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, J + 1, 3) by how much the news change with a step (T, 3J + 3)."""
    each = step.reshape(len(step), -1, 3)
    out = np.zeros_like(news.residual)
    for later in range(REACH + 1):
        # rows of instants before the first are zero
        out += np.einsum("tjab,tjb->tja", news.blocks[later], each[np.maximum(news.at + later - 2, 0)])
    return out


def variances(news: News, covariance: Band, held: int) -> NDArray[np.float64]:
    """(n, J + 1, 3) of the news, poses' covariance being that of the instants from `held` on."""
    J1 = news.residual.shape[1]
    own = np.arange(3 * J1).reshape(J1, 3)
    out = np.zeros_like(news.residual)
    for later in range(REACH + 1):
        for earlier in range(later + 1):
            t = news.at + later - 2 - held
            use = np.flatnonzero(t - later + earlier >= 0)
            if not len(use):
                continue
            blocks = covariance.blocks[later - earlier][t[use]]
            part = blocks[:, own[:, :, None], own[:, None, :]]
            term = np.einsum("tjab,tjbc,tjac->tja", news.blocks[later][use], part, news.blocks[earlier][use])
            out[use] += term if later == earlier else 2.0 * term
    return out
