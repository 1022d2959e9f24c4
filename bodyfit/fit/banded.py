"""Normal equations of a chain of instants, each coupled to the few before it: block-banded systems.

What differences in time couple is a band of blocks, so that time and memory grow with the number of instants and not
with its square. Cholesky in blocks; the marginal covariances by Takahashi's recursion, which needs no inverse of the
whole (Takahashi, Fagan, Chen 1973; Erisman, Tinney 1975).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular


@dataclass(frozen=True)
class Band:
    """A symmetric matrix of (T, T) blocks: blocks[k, t] (Q, Q) is that of instants t and t - k, on and below the
    diagonal; blocks[k, t] with t < k is not looked at. blocks (reach + 1, T, Q, Q)."""

    blocks: NDArray[np.float64]

    @classmethod
    def zeros(cls, instants: int, size: int, reach: int) -> Band:
        """No stiffness, each instant coupled to at most `reach` before it."""
        return cls(np.zeros((reach + 1, instants, size, size)))

    @property
    def reach(self) -> int:
        """How many instants before an instant it is coupled to."""
        return len(self.blocks) - 1

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """(T, Q, Q), a view."""
        return self.blocks[0]

    def block(self, t: int, s: int) -> NDArray[np.float64]:
        """The block of instants t ≥ s, a view."""
        return self.blocks[t - s, t]

    def dense(self) -> NDArray[np.float64]:
        """(T·Q, T·Q): for tests and small chains."""
        T, Q = self.diagonal.shape[:2]
        out = np.zeros((T, Q, T, Q))
        for t in range(T):
            for s in range(max(0, t - self.reach), t + 1):
                out[t, :, s] = self.block(t, s)
                out[s, :, t] = self.block(t, s).T
        return out.reshape(T * Q, T * Q)


@dataclass(frozen=True)
class BandCholesky:
    """L of a Band = L·Lᵀ, laid out as the band is; the diagonal's blocks are lower triangles."""

    lower: Band

    def solve(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """x (T, Q) of matrix · x = right (T, Q)."""
        L = self.lower
        T = len(right)
        y = np.empty_like(right)
        for t in range(T):
            rest = right[t].copy()
            for s in range(max(0, t - L.reach), t):
                rest -= L.block(t, s) @ y[s]
            y[t] = solve_triangular(L.diagonal[t], rest, lower=True, check_finite=False)
        x = np.empty_like(right)
        for t in range(T - 1, -1, -1):
            rest = y[t].copy()
            for s in range(t + 1, min(t + L.reach + 1, T)):
                rest -= L.block(s, t).T @ x[s]
            x[t] = solve_triangular(L.diagonal[t], rest, lower=True, trans=1, check_finite=False)
        return x

    def marginals(self) -> NDArray[np.float64]:
        """(T, Q, Q) the diagonal blocks of the inverse: each instant's covariance, all others unknown as well."""
        return self.inverse().diagonal

    def inverse(self) -> Band:
        """The inverse as far as the band reaches: covariances of instants that are so close."""
        L = self.lower
        T, Q = L.diagonal.shape[:2]
        identity = np.eye(Q)
        inverse = Band.zeros(T, Q, L.reach)
        for t in range(T - 1, -1, -1):
            later = range(t + 1, min(t + L.reach + 1, T))
            # the column of L below the diagonal, times the inverse of the diagonal's block
            W = [solve_triangular(L.diagonal[t], L.block(s, t).T, lower=True, trans=1, check_finite=False).T
                 for s in later]  # fmt: skip
            for s in later:
                Z = inverse.block(s, t)
                for r, w in zip(later, W, strict=True):
                    Z -= (inverse.block(s, r) if s >= r else inverse.block(r, s).T) @ w
            Z = cho_solve((L.diagonal[t], True), identity, check_finite=False)
            for s, w in zip(later, W, strict=True):
                Z -= w.T @ inverse.block(s, t)
            inverse.diagonal[t] = 0.5 * (Z + Z.T)
        return inverse


def band_cholesky(band: Band) -> BandCholesky:
    """Factors a positive definite band.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    T, Q = band.diagonal.shape[:2]
    L = Band.zeros(T, Q, band.reach)
    for t in range(T):
        first = max(0, t - band.reach)
        for s in range(first, t):
            rest = band.block(t, s).copy()
            for r in range(first, s):
                rest -= L.block(t, r) @ L.block(s, r).T
            L.block(t, s)[:] = solve_triangular(L.diagonal[s], rest.T, lower=True, check_finite=False).T
        rest = band.diagonal[t].copy()
        for r in range(first, t):
            rest -= L.block(t, r) @ L.block(t, r).T
        L.diagonal[t] = cholesky(rest, lower=True, check_finite=False)
    return BandCholesky(L)
