"""For every pixel the nearest marked pixel: Danielsson's two sweeps (1980, "Euclidean distance mapping")."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, inline="always")
def _take(near, r, c, rr, cc, width, best):
    other = near[rr, cc]
    if other >= 0:
        dr, dc = other // width - r, other % width - c
        d = dr * dr + dc * dc
        if d < best:
            near[r, c] = other
            return d
    return best


@njit(nogil=True, cache=True)
def nearest_marked(near):
    """near (H, W) int32: on entry the pixel's own flat number where marked and -1 elsewhere; on return the nearest
    marked pixel's flat number everywhere (-1 where nothing is marked). Exact to a fraction of a pixel."""
    height, width = near.shape
    far = np.int64(1) << 40
    for r in range(height):
        for c in range(width):
            own = near[r, c]
            best = far
            if own >= 0:
                dr, dc = own // width - r, own % width - c
                best = dr * dr + dc * dc
            if r > 0:
                best = _take(near, r, c, r - 1, c, width, best)
                if c > 0:
                    best = _take(near, r, c, r - 1, c - 1, width, best)
                if c < width - 1:
                    best = _take(near, r, c, r - 1, c + 1, width, best)
            if c > 0:
                best = _take(near, r, c, r, c - 1, width, best)
        for c in range(width - 2, -1, -1):
            own = near[r, c]
            best = far
            if own >= 0:
                dr, dc = own // width - r, own % width - c
                best = dr * dr + dc * dc
            best = _take(near, r, c, r, c + 1, width, best)
    for r in range(height - 2, -1, -1):
        for c in range(width):
            own = near[r, c]
            best = far
            if own >= 0:
                dr, dc = own // width - r, own % width - c
                best = dr * dr + dc * dc
            best = _take(near, r, c, r + 1, c, width, best)
            if c > 0:
                best = _take(near, r, c, r + 1, c - 1, width, best)
                best = _take(near, r, c, r, c - 1, width, best)
            if c < width - 1:
                best = _take(near, r, c, r + 1, c + 1, width, best)
        for c in range(width - 2, -1, -1):
            own = near[r, c]
            best = far
            if own >= 0:
                dr, dc = own // width - r, own % width - c
                best = dr * dr + dc * dc
            best = _take(near, r, c, r, c + 1, width, best)
