"""For every pixel the nearest marked pixel, exactly: the lower envelope of parabolas, column by column and then row by
row (Meijster, Roerdink and Hesselink 2000, "A general algorithm for computing distance transforms in linear time").

Of marked pixels that are equally near, the one furthest to the left counts, and of a column's two the upper: a rule
that is the same whatever the order of the work, so that CPU and GPU find the same one.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, forceinline=True)
def _nearest_rows(near, rows):
    """rows (H, W) int32: the row of the nearest marked pixel in the same column, -1 for none."""
    height, width = near.shape
    none = np.int32(-1)
    last = np.full(width, none)
    for r in range(height):
        for c in range(width):
            here = np.int32(r) if near[r, c] >= 0 else last[c]
            last[c] = here
            rows[r, c] = here
    last[:] = none
    for back in range(height):
        r = height - 1 - back
        for c in range(width):
            here = np.int32(r) if near[r, c] >= 0 else last[c]
            last[c] = here
            above = rows[r, c]
            below_is_nearer = (here >= 0) & ((above < 0) | (here - r < r - above))
            rows[r, c] = here if below_is_nearer else above


@njit(nogil=True, cache=True, forceinline=True)
def nearest_marked(near):
    """near (H, W) int32: on entry the pixel's own flat number where marked and -1 elsewhere; on return the nearest
    marked pixel's flat number everywhere (-1 where nothing is marked). Sides up to 16,384."""
    height, width = near.shape
    rows = np.empty((height, width), np.int32)
    _nearest_rows(near, rows)
    # columns whose parabolas touch the envelope, heights of these, and from which pixel on each is the lowest
    column, size, start = np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.int32)
    for r in range(height):
        own = rows[r]
        q = -1
        for u in range(width):
            if own[u] < 0:
                continue
            dr = np.int32(own[u] - r)
            g = np.int32(dr * dr)
            while q >= 0:
                x, i = start[q], column[q]
                if np.int32((x - i) * (x - i)) + size[q] <= np.int32((x - u) * (x - u)) + g:
                    break
                q -= 1
            if q < 0:
                q = 0
                first = np.int32(0)
            else:
                i = column[q]
                # exact: the quotient of such numbers is never as near to a whole one as a double's rounding
                apart = np.float64(u * u - i * i + g - size[q]) / np.float64(2 * (u - i))
                first = np.int32(np.floor(apart)) + 1
                if first >= width:
                    continue
                q += 1
            column[q], size[q], start[q] = u, g, first
        if q < 0:
            near[r, :] = -1
            continue
        end = width
        while q >= 0:
            i = column[q]
            found = own[i] * width + i
            for x in range(start[q], end):
                near[r, x] = found
            end = start[q]
            q -= 1
