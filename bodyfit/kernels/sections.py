"""Plane sections of a mesh and what a tape around them reads, in plain loops; float64 points, int32 edges.

A tape bridges hollows: it reads the perimeter of the convex hull of the section. The hull is found with Andrew's
monotone chain ("Another efficient algorithm for convex hulls in two dimensions", 1979).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, forceinline=True)
def convex_hull(uv, n, order, hull, nearly=False):
    """Convex hull of uv[:n] (n, 2), counter-clockwise; fills hull with row numbers, returns how many and the perimeter.

    `order` (≥ n,) int32 has the rows in any order and is sorted by u, quickest where it is `nearly` so already; `hull`
    (≥ 2 n,) is int32 scratch. Fewer than two points have perimeter 0; a straight line has twice its length.
    """
    for gap in (701, 301, 132, 57, 23, 10, 4, 1):
        if nearly and gap > 1:
            continue
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


@njit(nogil=True, cache=True, forceinline=True)
def levels_between(a, b, n_levels):
    """The whole numbers k in [min, max) of two heights, 0 ≤ k < n_levels: the first, and the one after the last."""
    lo, hi = min(a, b), max(a, b)
    if hi <= 0 or lo > n_levels - 1:
        return 0, 0
    k_low = int(math.ceil(lo)) if lo > 0 else 0
    k_high = int(math.ceil(hi)) if hi < n_levels else n_levels
    return k_low, k_high


@njit(nogil=True, cache=True)
def scan(bodies, corners, edges, origins, normals, us, vs, firsts, steps, out):
    """Sections of bodies (D, N, 3) at `first + k step` metres along each one's unit normal from its origin, k < L.

    Origins, normals, u and v are (D, 3), first and step (D,); edges (E, 2) are rows of corners (C,), which are rows of
    a body. Fills out (D, L, 5): the hull's perimeter, and the section's lowest and highest u, lowest and highest v from
    the origin along the unit vectors u and v; NaN where the plane does not meet the mesh.
    """
    n_bodies, n_levels, n_edges, n_corners = bodies.shape[0], out.shape[1], edges.shape[0], corners.shape[0]
    # heights in steps above the first level, and between which ones a corner lies in all of the bodies
    heights = np.empty((n_bodies, n_corners))
    lowest_of, highest_of = np.full(n_corners, np.inf), np.full(n_corners, -np.inf)
    for d in range(n_bodies):
        points, origin, normal, step = bodies[d], origins[d], normals[d], steps[d]
        base = origin[0] * normal[0] + origin[1] * normal[1] + origin[2] * normal[2] + firsts[d]
        n0, n1, n2 = normal[0] / step, normal[1] / step, normal[2] / step
        base /= step
        for c in range(n_corners):
            i = corners[c]
            height = points[i, 0] * n0 + points[i, 1] * n1 + points[i, 2] * n2 - base
            heights[d, c] = height
            lowest_of[c], highest_of[c] = min(lowest_of[c], height), max(highest_of[c], height)
    # few edges come near a level in any of the bodies
    near = np.empty(n_edges, np.int32)
    n_near, n_cuts = 0, 0
    for e in range(n_edges):
        a, b = edges[e, 0], edges[e, 1]
        k_low, k_high = levels_between(min(lowest_of[a], lowest_of[b]), max(highest_of[a], highest_of[b]), n_levels)
        if k_low < k_high:
            near[n_near] = e
            n_near += 1
            n_cuts += k_high - k_low
    low, high = np.empty(n_near, np.int32), np.empty(n_near, np.int32)
    count, filled = np.empty(n_levels + 1, np.int64), np.empty(n_levels, np.int64)
    uv, cut_edge = np.empty((n_cuts, 2)), np.empty(n_cuts, np.int32)
    order, hull = np.empty(n_near, np.int32), np.empty(2 * n_near + 2, np.int32)
    # by level the edges that the body before was cut at, in the order of u: the next body's is nearly the same
    before, n_before = np.empty((n_levels, n_near), np.int32), np.zeros(n_levels, np.int64)
    row_of = np.full(n_near, -1, np.int32)
    for d in range(n_bodies):
        points, origin, u, v, height = bodies[d], origins[d], us[d], vs[d], heights[d]
        count[:] = 0
        for m in range(n_near):
            low[m], high[m] = levels_between(height[edges[near[m], 0]], height[edges[near[m], 1]], n_levels)
            for k in range(low[m], high[m]):
                count[k + 1] += 1
        for k in range(n_levels):
            count[k + 1] += count[k]
        filled[:] = 0
        ou = origin[0] * u[0] + origin[1] * u[1] + origin[2] * u[2]
        ov = origin[0] * v[0] + origin[1] * v[1] + origin[2] * v[2]
        for m in range(n_near):
            if low[m] >= high[m]:
                continue
            a, b = height[edges[near[m], 0]], height[edges[near[m], 1]]
            i, j = corners[edges[near[m], 0]], corners[edges[near[m], 1]]
            ua = points[i, 0] * u[0] + points[i, 1] * u[1] + points[i, 2] * u[2] - ou
            va = points[i, 0] * v[0] + points[i, 1] * v[1] + points[i, 2] * v[2] - ov
            du = points[j, 0] * u[0] + points[j, 1] * u[1] + points[j, 2] * u[2] - ou - ua
            dv = points[j, 0] * v[0] + points[j, 1] * v[1] + points[j, 2] * v[2] - ov - va
            for k in range(low[m], high[m]):
                t = min(max((k - a) / (b - a), 0.0), 1.0)
                row = count[k] + filled[k]
                uv[row, 0] = ua + t * du
                uv[row, 1] = va + t * dv
                cut_edge[row] = m
                filled[k] += 1
        for k in range(n_levels):
            here = uv[count[k] : count[k + 1]]
            n = here.shape[0]
            if n == 0:
                for c in range(5):
                    out[d, k, c] = np.nan
                n_before[k] = 0
                continue
            for i in range(n):
                row_of[cut_edge[count[k] + i]] = i
            placed, nearly = 0, 10 * n_before[k] > 9 * n
            for i in range(n_before[k]):
                m = before[k, i]
                if row_of[m] >= 0:
                    order[placed] = row_of[m]
                    placed += 1
                    row_of[m] = -1
            for i in range(n):
                m = cut_edge[count[k] + i]
                if row_of[m] >= 0:
                    order[placed] = i
                    placed += 1
                    row_of[m] = -1
            _, out[d, k, 0] = convex_hull(here, n, order, hull, nearly)
            for i in range(n):
                before[k, i] = cut_edge[count[k] + order[i]]
            n_before[k] = n
            out[d, k, 1], out[d, k, 2] = here[order[0], 0], here[order[n - 1], 0]
            lowest, highest = here[0, 1], here[0, 1]
            for i in range(1, n):
                lowest, highest = min(lowest, here[i, 1]), max(highest, here[i, 1])
            out[d, k, 3], out[d, k, 4] = lowest, highest


@njit(nogil=True, cache=True, forceinline=True)
def bridge(points, n, kept, uv, order, hull):
    """A tape drawn tight from the first of points[:n] (n, 2) to the last, on the right of the way between them.

    Returns metres, and where in `hull` the way starts, how many points it has, and how many the whole ring has: the
    way's points are rows `kept[hull[(start + k) % ring]]`. No ring (0): the way is straight. `kept`, `order` (≥ n,) and
    `hull` (≥ 2 n + 2,) are int32 scratch, uv (≥ n, 2) float64.
    """
    cx, cy = points[n - 1, 0] - points[0, 0], points[n - 1, 1] - points[0, 1]
    chord = math.sqrt(cx * cx + cy * cy)
    m = 0
    for i in range(n):
        side = cx * (points[i, 1] - points[0, 1]) - cy * (points[i, 0] - points[0, 0])
        if side < 0 or i == 0 or i == n - 1:
            kept[m] = i
            uv[m, 0], uv[m, 1] = points[i, 0], points[i, 1]
            m += 1
    for i in range(m):
        order[i] = i
    size, perimeter = convex_hull(uv, m, order, hull)
    start, stop = -1, -1
    for k in range(size):
        if hull[k] == 0 and start < 0:
            start = k
        if hull[k] == m - 1 and stop < 0:
            stop = k
    if start < 0 or stop < 0:
        return chord, 0, 0, 0
    # counter-clockwise from the first point, the right-hand side comes before the last point
    return perimeter - chord, start, (stop - start) % size + 1, size


@njit(nogil=True, cache=True)
def bridge_one(points, hull, kept):
    """`bridge` over points (n, 2); fills kept (n,) and hull (2 n + 2,)."""
    n = points.shape[0]
    return bridge(points, n, kept, np.empty((n, 2)), np.empty(n, np.int32), hull)


@njit(nogil=True, cache=True)
def bridges(points, use, out):
    """Fills out (D,) with the metres of `bridge` over those of each row of points (D, n, 2) that are used (D, n)."""
    most = points.shape[1]
    some, uv = np.empty((most, 2)), np.empty((most, 2))
    kept, order, hull = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(2 * most + 2, np.int32)
    for d in range(points.shape[0]):
        n = 0
        for i in range(most):
            if use[d, i]:
                some[n, 0], some[n, 1] = points[d, i, 0], points[d, i, 1]
                n += 1
        out[d], _, _, _ = bridge(some, n, kept, uv, order, hull)


@njit(nogil=True, cache=True, forceinline=True)
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
def extrema(values, sign, out):
    """`extremum` of each row of values (D, L), into out (D, 2)."""
    for d in range(values.shape[0]):
        out[d, 0], out[d, 1] = extremum(values[d], sign)


@njit(nogil=True, cache=True, forceinline=True)
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


@njit(nogil=True, cache=True)
def enclosed_volumes(bodies, faces, out):
    """`enclosed_volume` of each of the bodies (D, N, 3), into out (D,)."""
    for d in range(bodies.shape[0]):
        out[d] = enclosed_volume(bodies[d], faces)
