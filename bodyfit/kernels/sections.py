"""Plane sections of a mesh and what a tape around them reads, in plain loops; float64 points, int32 edges.

A tape bridges hollows: it reads the perimeter of the convex hull of the section. The hull is found with Andrew's
monotone chain ("Another efficient algorithm for convex hulls in two dimensions", 1979).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, forceinline=True)
def convex_hull(uv, n, order, hull):
    """Convex hull of uv[:n] (n, 2), counter-clockwise; fills hull with row numbers, returns how many and the perimeter.

    `order` (≥ n,) and `hull` (≥ 2 n,) are int32 scratch. Fewer than two points have perimeter 0; a straight line has
    twice its length.
    """
    for i in range(n):
        order[i] = i
    for gap in (701, 301, 132, 57, 23, 10, 4, 1):
        for i in range(gap, n):
            moved = order[i]
            key = uv[moved, 0]
            j = i
            while j >= gap and uv[order[j - gap], 0] > key:
                order[j] = order[j - gap]
                j -= gap
            order[j] = moved
    if n < 2:
        hull[0] = 0
        return n, 0.0
    size = 0
    for sweep in range(2):
        floor = size + 1 if sweep == 0 else size
        for i in range(n):
            if sweep == 0:
                p = order[i]
            elif i == 0:
                continue  # the lower chain ends where the upper one starts
            else:
                p = order[n - 1 - i]
            while size > floor:
                a, b = hull[size - 2], hull[size - 1]
                turn = (uv[b, 0] - uv[a, 0]) * (uv[p, 1] - uv[b, 1]) - (uv[b, 1] - uv[a, 1]) * (uv[p, 0] - uv[b, 0])
                if turn > 0:
                    break
                size -= 1
            hull[size] = p
            size += 1
    size -= 1  # the upper chain ends where the lower one starts
    perimeter = 0.0
    for i in range(size):
        a, b = hull[i], hull[(i + 1) % size]
        perimeter += math.hypot(uv[b, 0] - uv[a, 0], uv[b, 1] - uv[a, 1])
    return size, perimeter


@njit(nogil=True, cache=True)
def cut(points, edges, origin, normal, u, v, uv):
    """Fills uv with the plane coordinates of where edges (E, 2) of points (N, 3) cross a plane; returns how many."""
    ou = origin[0] * u[0] + origin[1] * u[1] + origin[2] * u[2]
    ov = origin[0] * v[0] + origin[1] * v[1] + origin[2] * v[2]
    level = origin[0] * normal[0] + origin[1] * normal[1] + origin[2] * normal[2]
    n = 0
    for e in range(edges.shape[0]):
        i, j = edges[e, 0], edges[e, 1]
        a = points[i, 0] * normal[0] + points[i, 1] * normal[1] + points[i, 2] * normal[2] - level
        b = points[j, 0] * normal[0] + points[j, 1] * normal[1] + points[j, 2] * normal[2] - level
        if (a > 0) != (b > 0) and n < uv.shape[0]:
            t = a / (a - b)
            x = points[i, 0] + t * (points[j, 0] - points[i, 0])
            y = points[i, 1] + t * (points[j, 1] - points[i, 1])
            z = points[i, 2] + t * (points[j, 2] - points[i, 2])
            uv[n, 0] = x * u[0] + y * u[1] + z * u[2] - ou
            uv[n, 1] = x * v[0] + y * v[1] + z * v[2] - ov
            n += 1
    return n


@njit(nogil=True, cache=True)
def scan(points, edges, origin, normal, u, v, first, step, out):
    """Sections at `first + k step` metres along the unit normal from origin, k < len(out).

    Fills out (L, 5): the hull's perimeter, and the section's lowest and highest u, lowest and highest v from the origin
    along the unit vectors u and v; NaN where the plane does not meet the mesh.
    """
    n_levels = out.shape[0]
    n_edges = edges.shape[0]
    base = origin[0] * normal[0] + origin[1] * normal[1] + origin[2] * normal[2] + first
    n0, n1, n2 = normal[0] / step, normal[1] / step, normal[2] / step
    base /= step
    # the edges that cross a level, and which levels: first counted, so that the buffers are as large as needed
    met = np.empty(n_edges, np.int32)
    low, high = np.empty(n_edges, np.int32), np.empty(n_edges, np.int32)
    count = np.zeros(n_levels + 1, np.int64)
    n_met = 0
    for e in range(n_edges):
        i, j = edges[e, 0], edges[e, 1]
        a = points[i, 0] * n0 + points[i, 1] * n1 + points[i, 2] * n2 - base
        b = points[j, 0] * n0 + points[j, 1] * n1 + points[j, 2] * n2 - base
        # level k is met when k lies in [min, max)
        lo, hi = min(a, b), max(a, b)
        if hi <= 0 or lo > n_levels - 1:
            continue
        k_low = int(math.ceil(lo)) if lo > 0 else 0
        k_high = int(math.ceil(hi)) if hi < n_levels else n_levels
        if k_low < k_high:
            met[n_met], low[n_met], high[n_met] = e, k_low, k_high
            n_met += 1
            for k in range(k_low, k_high):
                count[k + 1] += 1
    most = 0
    for k in range(n_levels):
        most = max(most, count[k + 1])
        count[k + 1] += count[k]
    uv = np.empty((count[n_levels], 2))
    filled = np.zeros(n_levels, np.int64)
    ou = origin[0] * u[0] + origin[1] * u[1] + origin[2] * u[2]
    ov = origin[0] * v[0] + origin[1] * v[1] + origin[2] * v[2]
    for m in range(n_met):
        i, j = edges[met[m], 0], edges[met[m], 1]
        a = points[i, 0] * n0 + points[i, 1] * n1 + points[i, 2] * n2 - base
        b = points[j, 0] * n0 + points[j, 1] * n1 + points[j, 2] * n2 - base
        ua = points[i, 0] * u[0] + points[i, 1] * u[1] + points[i, 2] * u[2] - ou
        va = points[i, 0] * v[0] + points[i, 1] * v[1] + points[i, 2] * v[2] - ov
        du = points[j, 0] * u[0] + points[j, 1] * u[1] + points[j, 2] * u[2] - ou - ua
        dv = points[j, 0] * v[0] + points[j, 1] * v[1] + points[j, 2] * v[2] - ov - va
        for k in range(low[m], high[m]):
            t = min(max((k - a) / (b - a), 0.0), 1.0)
            row = count[k] + filled[k]
            uv[row, 0] = ua + t * du
            uv[row, 1] = va + t * dv
            filled[k] += 1
    order, hull = np.empty(most + 1, np.int32), np.empty(2 * most + 2, np.int32)
    for k in range(n_levels):
        here = uv[count[k] : count[k + 1]]
        n = here.shape[0]
        if n == 0:
            for c in range(5):
                out[k, c] = np.nan
            continue
        _, out[k, 0] = convex_hull(here, n, order, hull)
        for c in range(2):
            lowest, highest = here[0, c], here[0, c]
            for i in range(1, n):
                lowest, highest = min(lowest, here[i, c]), max(highest, here[i, c])
            out[k, 1 + 2 * c] = lowest
            out[k, 2 + 2 * c] = highest


@njit(nogil=True, cache=True)
def extremum(values, sign):
    """The largest (sign 1) or smallest (-1) of evenly spaced values, NaN left out, and its fractional index.

    A parabola through the best value and its neighbours gives both; (NaN, 0) where every value is NaN.
    """
    best = -1
    for k in range(values.shape[0]):
        if not math.isnan(values[k]) and (best < 0 or sign * values[k] > sign * values[best]):
            best = k
    if best < 0:
        return np.nan, 0.0
    if 0 < best < values.shape[0] - 1:
        before, after = values[best - 1], values[best + 1]
        bend = before - 2.0 * values[best] + after
        if sign * bend < 0:  # false with a NaN
            shift = 0.5 * (before - after) / bend
            return values[best] - 0.25 * (before - after) * shift, best + shift
    return values[best], float(best)


@njit(nogil=True, cache=True)
def enclosed_volume(points, faces):
    """Cubic metres inside a closed mesh whose faces (F, 3) are wound outwards: the sum of signed tetrahedra."""
    total = 0.0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        total += (
            points[a, 0] * (points[b, 1] * points[c, 2] - points[b, 2] * points[c, 1])
            + points[a, 1] * (points[b, 2] * points[c, 0] - points[b, 0] * points[c, 2])
            + points[a, 2] * (points[b, 0] * points[c, 1] - points[b, 1] * points[c, 0])
        )
    return total / 6.0
