"""Mixtures of Gaussians over the angles of an arm, of both legs and of the trunk, from a handful of clips.

Few clips show few ways to move, and a clip's frames are alike: every clip counts as a few independent poses, and each
component's covariance is held near a share of today's broad Gaussian (a MAP estimate under an inverse Wishart prior).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How a mixture is fitted."""

    components: int
    spread: float
    """a component's usual standard deviation as a share of the broad Gaussian's"""
    faith: float
    """as how many poses that usual covariance counts"""
    poses_per_clip: float = 25.0
    """as how many independent poses a clip counts at most"""
    frames_per_pose: float = 6.0
    rounds: int = 60


@dataclass(frozen=True)
class Mixture:
    """weights (K,), means (K, D) and covariances (K, D, D)."""

    weights: Array
    means: Array
    covs: Array

    def log_density(self, x: Array) -> Array:
        """(N, K) log of weight times density at x (N, D)."""
        d = x.shape[1]
        out = []
        for w, m, C in zip(self.weights, self.means, self.covs, strict=True):
            L = np.linalg.cholesky(C)
            z = np.linalg.solve(L, (x - m).T)
            out.append(np.log(w) - np.log(np.diag(L)).sum() - 0.5 * d * np.log(2 * np.pi) - 0.5 * (z * z).sum(0))
        return np.stack(out, 1)


def log_sum(a: Array) -> Array:
    """(N,) log of the sum of exp a (N, K)."""
    top = a.max(1)
    return top + np.log(np.exp(a - top[:, None]).sum(1))


def together(parts: Sequence[tuple[float, Mixture]]) -> Mixture:
    """One mixture of several, each with a share."""
    return Mixture(
        np.concatenate([share * m.weights for share, m in parts]),
        np.concatenate([m.means for _, m in parts]),
        np.concatenate([m.covs for _, m in parts]),
    )


def single(mean: Array, sigma: Array) -> Mixture:
    """A Gaussian with independent angles."""
    return Mixture(np.ones(1), mean[None], np.diag(sigma**2)[None])


def clip_weights(lengths: Sequence[int], recipe: Recipe) -> Array:
    """A frame's weight: every clip counts as a few poses."""
    each = [min(n / recipe.frames_per_pose, recipe.poses_per_clip) / n for n in lengths]
    return np.repeat(each, lengths)


def fit_mixture(x: Array, weight: Array, sigma: Array, recipe: Recipe) -> Mixture:
    """Expectation maximisation on poses x (N, D) with weights (N,), from seeds far from each other; sigma (D,) of the
    broad Gaussian."""
    rng = np.random.default_rng(0)
    K = recipe.components
    usual = np.diag((recipe.spread * sigma) ** 2)
    scaled = x / sigma
    centres = [np.average(scaled, axis=0, weights=weight)]
    while len(centres) < K:
        near = np.min([((scaled - c) ** 2).sum(1) for c in centres], axis=0) * weight
        centres.append(scaled[rng.choice(len(x), p=near / near.sum())])
    mixture = Mixture(np.full(K, 1 / K), np.array(centres) * sigma, np.repeat(usual[None] * 2, K, 0))
    for _ in range(recipe.rounds):
        logs = mixture.log_density(x)
        share = np.exp(logs - log_sum(logs)[:, None]) * weight[:, None]
        count = share.sum(0) + 1e-9
        means = share.T @ x / count[:, None]
        covs = []
        for k in range(K):
            r = x - means[k]
            covs.append(((share[:, k, None] * r).T @ r + recipe.faith * usual) / (count[k] + recipe.faith))
        mixture = Mixture((count + 1.0) / (count + 1.0).sum(), means, np.array(covs))
    return mixture


def left_out(
    clips: Sequence[Array], subjects: Sequence[int], sigma: Array, broad: Mixture, broad_share: float, recipe: Recipe
) -> list[tuple[float, float]]:
    """For each clip (frames, D): mean log-density of its frames under the broad Gaussian, and under the broad Gaussian
    and the mixture learnt from all other subjects' clips together."""
    out = []
    for held, whose in zip(clips, subjects, strict=True):
        rest = [c for c, other in zip(clips, subjects, strict=True) if other != whose]
        learnt = fit_mixture(np.concatenate(rest), clip_weights([len(c) for c in rest], recipe), sigma, recipe)
        mixed = together([(broad_share, broad), (1 - broad_share, learnt)])
        before, after = log_sum(broad.log_density(held)), log_sum(mixed.log_density(held))
        out.append((float(before.mean()), float(after.mean())))
    return out
