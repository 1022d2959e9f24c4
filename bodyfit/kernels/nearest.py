"""For every pixel the nearest marked pixel: Danielsson's two sweeps (1980, "Euclidean distance mapping")."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, inline="always")
def _apart(place, r, c):
    """Squared distance of a place from the pixel (r, c), in 32 bits so that sweeps run in wide registers.

    A place is a row and a column in one number, the row in the upper half.
    """
    dr, dc = np.int32((place >> 16) - r), np.int32((place & 0xFFFF) - c)
    return np.int32(dr * dr + dc * dc)


@njit(nogil=True, cache=True, forceinline=True)
def _take_row(places, best, others, r, first):
    """Lets pixels of row r, from column `first` on, take over what their neighbours in another row have found."""
    for i in range(min(len(places), len(others))):
        place, nearest, other = places[i], best[i], others[i]
        d = _apart(other, r, i + first)
        if d < nearest:
            nearest = d
            place = other
        best[i] = nearest
        places[i] = place


@njit(nogil=True, cache=True, forceinline=True)
def _take_along(places, best, r, backwards):
    """The same within row r, from the pixel before (or, backwards, behind): what is found runs on along the row."""
    width = places.shape[0]
    first = width - 1 if backwards else 0
    step = -1 if backwards else 1
    before = places[first]
    for i in range(1, width):
        c = first + step * i
        d = _apart(before, r, c)
        if d < best[c]:
            best[c], places[c] = d, before
        else:
            before = places[c]


@njit(nogil=True, cache=True, forceinline=True)
def nearest_marked(near):
    """near (H, W) int32: on entry the pixel's own flat number where marked and -1 elsewhere; on return the nearest
    marked pixel's flat number everywhere (-1 where nothing is marked). Exact to a fraction of a pixel; sides up to
    16,384."""
    height, width = near.shape
    # where nothing is found yet the nearest is a place outside, farther than every pixel: no test needed
    outside = np.int32(-(3 * max(height, width) // 2 + 2) * 65536)
    places = np.empty((height, width), np.int32)
    best = np.empty(width, np.int32)
    for r in range(height):
        for c in range(width):
            places[r, c] = np.int32(r * 65536 + c) if near[r, c] >= 0 else outside
    for sweep in range(2):
        for i in range(height):
            r = i if sweep == 0 else height - 1 - i
            here = places[r]
            for c in range(width):
                best[c] = _apart(here[c], np.int32(r), np.int32(c))
            if i > 0:
                others = places[r - 1 if sweep == 0 else r + 1]
                _take_row(here, best, others, r, 0)
                _take_row(here[1:], best[1:], others, r, 1)
                _take_row(here, best, others[1:], r, 0)
            _take_along(here, best, r, False)
            _take_along(here, best, r, True)
    for r in range(height):
        for c in range(width):
            row = places[r, c] >> 16
            near[r, c] = row * width + (places[r, c] & 0xFFFF) if row >= 0 else -1
