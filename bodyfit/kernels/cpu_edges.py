"""The edges of a picture on the CPU: which edges of the mesh matter, cut at the borders of pixels, and their gradient.

The integral of an image over a pixel changes with an edge that runs through it by the line integral, along the edge's
visible part, of (what is seen on one side - what is seen on the other) × (speed of the edge across itself): Li et al.
2018 sample that integral, here it is summed over the pieces between which nothing changes. An edge matters where the
surface ends or turns away (both its faces on one side of it), and, for values that jump across it, where it is a seam.
What of an edge is seen, and what lies behind it, is found in `cpu_behind`.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from bodyfit.kernels.cpu_raster import FAR, kernel, part
from bodyfit.kernels.scalar import HALF, ONE, ZERO, slope_of

SHORTEST_CUT_PX = np.float32(1e-6)
NONE = np.int64(-1)

INTS = 5
"""Integers of a piece: pixel (row × width + column), face in front, face behind (-1: nothing), the edge's two ends."""
FLOATS = 13
"""Floats of a piece: 0 share of the way from the first end to the second; 1, 2 the normal (u, v) that points away from
the face in front, as long as the piece; 3, 4 its middle; 5-7 weights of the front face's corners there, 8 its z; 9-12
the same of the face behind."""


@part
def front_of_side(screen, faces, areas, incident, first, last, sign):
    """Of an edge's faces that lie on one side of it (sign ±1), the row of the one that is in front; -1 if none."""
    best, best_slope = NONE, FAR * ONE
    several = 0
    for k in range(first, last):
        area = areas[incident[k, 0]]
        if area * np.float32(incident[k, 3]) * np.float32(sign) > ZERO:
            several += 1
            best = k
    if several < 2:
        return best
    for k in range(first, last):
        f = incident[k, 0]
        if not areas[f] * np.float32(incident[k, 3]) * np.float32(sign) > ZERO:
            continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        su, sv = slope_of(
            screen[a, 0], screen[a, 1], screen[a, 2],
            screen[b, 0], screen[b, 1], screen[b, 2],
            screen[c, 0], screen[c, 1], screen[c, 2],
        )  # fmt: skip
        i, j = faces[f, incident[k, 1]], faces[f, incident[k, 2]]
        du, dv = screen[j, 0] - screen[i, 0], screen[j, 1] - screen[i, 1]
        # into the face, across the edge: the nearer face's q grows more there
        slope = np.float32(sign) * (dv * -su + du * sv)
        if slope > best_slope:
            best, best_slope = k, slope
    return best


@kernel
def face_signs(areas, signs):
    """signs (2 F,) uint8 = 1 for positive areas, 2 for negative ones, 0 for none; the second half turned round."""
    n = areas.shape[0]
    for f in range(n):
        positive, negative = np.uint8(areas[f] > ZERO), np.uint8(areas[f] < ZERO)
        signs[f] = positive | (negative << np.uint8(1))
    for f in range(n):
        signs[n + f] = (signs[f] >> np.uint8(1)) | (signs[f] << np.uint8(1)) & np.uint8(2)


@kernel
def find_edges(screen, faces, areas, signs, starts, sides, incident, seams, closed, which, only, edges, found):
    """Rows of `incident` of the edges that matter: found (E, 2) in front and, for seams, beside. Returns how many.

    starts (E + 1,), sides (N,) and incident (N, 4): of each edge the faces with their corner numbers at the edge's
    first and second end, and +1 or -1 as the face is wound from the first to the second or back; sides is the face
    and that sign in one number, f or F + f. signs (2 F,) comes from face_signs. which: 0 for the outlines, 1 for the
    seams (seams (E,) says which are). closed: every edge has two faces. only: leave
    out outlines whose face in front has another sign than this; 0: none. edges (E,) is scratch.
    """
    # First those that may be: with faces on one side, or on both, as far as the first and the last one tell. Without
    # branches, as what is no such edge is overwritten by the next.
    n_edges = np.uintp(0)
    outlines_of_pairs = closed and which == 0
    for e in range(starts.shape[0] - 1 if outlines_of_pairs else 0):
        at = np.uintp(2 * e)
        both = signs[np.uintp(sides[at])] | signs[np.uintp(sides[at + np.uintp(1)])]
        edges[n_edges] = e
        n_edges += np.uintp((both == np.uint8(1)) | (both == np.uint8(2)))
    for e in range(0 if outlines_of_pairs else starts.shape[0] - 1):
        first, last = np.uintp(starts[e]), np.uintp(starts[e + 1])
        both = signs[np.uintp(sides[first])] | signs[np.uintp(sides[last - np.uintp(1)])]
        more = last - first > np.uintp(2)
        edges[n_edges] = e
        if which == 0:
            n_edges += np.uintp((both == np.uint8(1)) | (both == np.uint8(2)) | ((both == np.uint8(0)) & more))
        else:
            n_edges += np.uintp(seams[e] & ((both == np.uint8(3)) | more))
    n = 0
    for k in range(n_edges):
        e = edges[k]
        first, last = starts[e], starts[e + 1]
        both = np.uint8(0)
        for m in range(first, last):
            both |= signs[np.uintp(sides[m])]
        if which == 0:
            if both != 1 and both != 2:
                continue
            row = front_of_side(screen, faces, areas, incident, first, last, 1 if both == 1 else -1)
            if only != 0 and areas[incident[row, 0]] * np.float32(only) < ZERO:
                continue
            found[n, 0], found[n, 1] = row, NONE
        else:
            if both != 3:
                continue
            found[n, 0] = front_of_side(screen, faces, areas, incident, first, last, 1)
            found[n, 1] = front_of_side(screen, faces, areas, incident, first, last, -1)
        n += 1
    return n


@kernel
def inside_image(u0, v0, u1, v1, width, height):
    """The part (t0, t1) of a segment that lies in the image; t0 ≥ t1 where none does (Liang and Barsky 1984)."""
    t0, t1 = ZERO * u0, ONE + ZERO * u0
    du, dv = u1 - u0, v1 - v0
    if du == ZERO:
        if u0 < -HALF or u0 >= np.float32(width) - HALF:
            return t1, t0
    else:
        a, b = (-HALF - u0) / du, (np.float32(width) - HALF - u0) / du
        t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
    if dv == ZERO:
        if v0 < -HALF or v0 >= np.float32(height) - HALF:
            return t1, t0
    else:
        a, b = (-HALF - v0) / dv, (np.float32(height) - HALF - v0) / dv
        t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
    return t0, t1


@kernel
def describe_edges(screen, faces, areas, bounds, incident, found, n_found, width, height, lines, marks):
    """What the kernels below ask of each edge found, side by side. Returns at least as many as cut_edges will make.

    lines (E, 8) = u, v, q of its first end, the way (u, v, q) to the second, and its normal (u, v) away from the face
    in front, as long as the edge. marks (E, 9) int32 = the face in front, its corners at the two ends, the ends' own
    numbers, the first and the last face about the edge, its row of `incident` if there are more than two such faces,
    else -1, and the row beside or -1. bounds (N, 2): for a row of `incident` the first and last row of its edge.
    """
    total = 0
    for e in range(n_found):
        row = found[e, 0]
        f, first, second = incident[row, 0], incident[row, 1], incident[row, 2]
        i, j = faces[f, first], faces[f, second]
        u, v, q = screen[i, 0], screen[i, 1], screen[i, 2]
        du, dv, dq = screen[j, 0] - u, screen[j, 1] - v, screen[j, 2] - q
        away = ONE if areas[f] * np.float32(incident[row, 3]) > ZERO else -ONE
        lines[e, 0], lines[e, 1], lines[e, 2], lines[e, 3], lines[e, 4], lines[e, 5] = u, v, q, du, dv, dq
        lines[e, 6], lines[e, 7] = away * dv, -away * du
        begin, end = bounds[row, 0], bounds[row, 1]
        marks[e, 0], marks[e, 1], marks[e, 2], marks[e, 3], marks[e, 4] = f, first, second, i, j
        marks[e, 5], marks[e, 6] = incident[begin, 0], incident[end - 1, 0]
        marks[e, 7], marks[e, 8] = row if end - begin > 2 else -1, found[e, 1]
        t0, t1 = inside_image(u, v, u + du, v + dv, width, height)
        if t0 < t1:
            span = (abs(du) + abs(dv)) * (t1 - t0)
            # on an edge far longer than the image, rounding makes the span a guess
            total += np.int64(span) + 6 if span < np.float32(width) else width + height + 6
    return total


@kernel
def cut_edges(lines, n_found, slots, bits, cuts, owner, pixels, first_cuts, next_cuts):
    """Cuts edges at the borders of pixels.

    Fills cuts (N, 2) = share of the edge where the cut begins and where it ends, and owner (N,), the edge's place in
    `lines`; numbers the pixels met in slots (H, W) int32, and sets their bits in bits (H, W / 64 + 2) uint64,
    which comes 0. pixels (N,) = row × width + column of each number, first_cuts (N,) = its first cut, next_cuts (N,) =
    each cut's next in the same pixel, or -1. Returns the numbers of cuts and of pixels.
    """
    height, width = slots.shape
    n = n_slots = 0
    for e in range(n_found):
        u0, v0, du, dv = lines[e, 0], lines[e, 1], lines[e, 3], lines[e, 4]
        t, t_end = inside_image(u0, v0, u0 + du, v0 + dv, width, height)
        if not t < t_end:
            continue
        length = sqrt(du * du + dv * dv)
        # The next borders of pixels on the way are counted, not added up: however long the edge, they come to an end.
        at_u, at_v = u0 + t * du + HALF, v0 + t * dv + HALF
        step_u, step_v = (1 if du > ZERO else -1), (1 if dv > ZERO else -1)
        border_u = max(np.int64(np.floor(at_u)) + 1, 0) if du > ZERO else min(np.int64(np.ceil(at_u)) - 1, width)
        border_v = max(np.int64(np.floor(at_v)) + 1, 0) if dv > ZERO else min(np.int64(np.ceil(at_v)) - 1, height)
        while t < t_end:
            next_u = next_v = -FAR
            if du != ZERO and 0 <= border_u <= width:
                next_u = (np.float32(border_u) - HALF - u0) / du
            if dv != ZERO and 0 <= border_v <= height:
                next_v = (np.float32(border_v) - HALF - v0) / dv
            if next_u <= next_v:
                stop = min(next_u, t_end)
                border_u += step_u
            else:
                stop = min(next_v, t_end)
                border_v += step_v
            if not (stop - t) * length > SHORTEST_CUT_PX:
                # nothing left between here and the end: no border comes any more
                t = t_end if stop >= t_end else max(t, stop)
                continue
            middle = HALF * (t + stop)
            column = np.int64(np.floor(u0 + middle * du + HALF))
            row = np.int64(np.floor(v0 + middle * dv + HALF))
            if 0 <= column < width and 0 <= row < height:
                word, bit = np.uint64(column) >> np.uint64(6), np.uint64(1) << (np.uint64(column) & np.uint64(63))
                if not bits[row, word] & bit:
                    bits[row, word] |= bit
                    slots[row, column] = n_slots
                    pixels[n_slots], first_cuts[n_slots] = row * width + column, -1
                    n_slots += 1
                if n == cuts.shape[0]:
                    return -1, n_slots
                slot = slots[row, column]
                cuts[n, 0], cuts[n, 1] = t, stop
                owner[n], next_cuts[n], first_cuts[slot] = e, first_cuts[slot], n
                n += 1
            t = stop
    return n, n_slots


@kernel
def scatter_edges(ints, floats, jumps, v_screen):
    """Adds to v_screen (V, 3) float64 what moves the ends of the edges; jumps (N,) is the loss per area won."""
    for p in range(ints.shape[0]):
        jump = jumps[p]
        i, j = ints[p, 3], ints[p, 4]
        t = floats[p, 0]
        gu, gv = jump * floats[p, 1], jump * floats[p, 2]
        v_screen[i, 0] += (ONE - t) * gu
        v_screen[i, 1] += (ONE - t) * gv
        v_screen[j, 0] += t * gu
        v_screen[j, 1] += t * gv


@kernel
def cover_jumps(ints, floats, v_alpha, v_depth, jumps):
    """jumps (N,) for coverage and depth; v_alpha and v_depth (H W,)."""
    for p in range(ints.shape[0]):
        pixel = ints[p, 0]
        if ints[p, 2] >= 0:
            jumps[p] = v_depth[pixel] * (floats[p, 8] - floats[p, 12])
        else:
            jumps[p] = v_alpha[pixel] + v_depth[pixel] * floats[p, 8]


@kernel
def scatter_cover(ints, floats, v_alpha, v_depth, v_screen):
    """Both of the above: adds to v_screen (V, 3) float64 what coverage and depth (H W,) say of the edges."""
    jumps = np.empty(ints.shape[0], floats.dtype)
    cover_jumps(ints, floats, v_alpha, v_depth, jumps)
    scatter_edges(ints, floats, jumps, v_screen)
