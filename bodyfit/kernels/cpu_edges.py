"""The edges of a picture on the CPU: where, in which pixel, what ends and what is seen behind it.

The integral of an image over a pixel changes with an edge that runs through it by the line integral, along the edge's
visible part, of (what is seen on one side - what is seen on the other) × (speed of the edge across itself): Li et al.
2018 sample that integral, here it is summed over the pieces between which nothing changes. An edge matters where the surface
ends or turns away (both its faces on one side of it), and, for values that jump across it, where it is a seam.

Whether a piece is seen, and what lies behind it, is asked of the triangles themselves, at that point, not of a
picture: each pixel with a piece in it gets the list of the faces that touch it.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from bodyfit.kernels.cpu_raster import FAR, kernel
from bodyfit.kernels.scalar import HALF, ONE, ZERO, slope_of, surface_weights

# How far beside an edge (pixels) the question is put what is behind it: over the rounding of a coordinate in a large
# image, under anything that one could see.
BESIDE_PX = np.float32(1e-4)
# What is nearer than an edge by less than this share of its depth does not hide it.
SAME_DEPTH = np.float32(1e-5)
COVERS = np.float32(-1e-7)
SHORTEST_CUT_PX = np.float32(1e-6)
NONE = np.int64(-1)

INTS = 5
"""Integers of a piece: pixel (row × width + column), face in front, face behind (-1: nothing), the edge's two ends."""
FLOATS = 13
"""Floats of a piece: 0 share of the way from the first end to the second; 1, 2 the normal (u, v) that points away from
the face in front, as long as the piece; 3, 4 its middle; 5-7 weights of the front face's corners there, 8 its z; 9-12
the same of the face behind."""


@kernel
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
def find_edges(screen, faces, areas, starts, incident, seams, which, found):
    """Rows of `incident` of the edges that matter: found (E, 2) in front and, for seams, beside. Returns how many.

    starts (E + 1,) and incident (N, 4): of each edge the faces with their corner numbers at the edge's first and
    second end, and +1 or -1 as the face is wound from the first to the second or back. which: 0 for the outlines,
    1 for the seams (seams (E,) says which edges are).
    """
    n = 0
    for e in range(starts.shape[0] - 1):
        first, last = starts[e], starts[e + 1]
        if which == 1 and not seams[e]:
            continue
        left = right = 0
        for k in range(first, last):
            side = areas[incident[k, 0]] * np.float32(incident[k, 3])
            left += side > ZERO
            right += side < ZERO
        if which == 0:
            if (left == 0) == (right == 0):
                continue
            row = front_of_side(screen, faces, areas, incident, first, last, 1 if left > 0 else -1)
            found[n, 0], found[n, 1] = row, NONE
        else:
            if left == 0 or right == 0:
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
def most_cuts(screen, faces, incident, found, n_found, width, height):
    """At least as many as cut_edges will make."""
    total = 0
    for e in range(n_found):
        k = found[e, 0]
        f = incident[k, 0]
        i, j = faces[f, incident[k, 1]], faces[f, incident[k, 2]]
        t0, t1 = inside_image(screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1], width, height)
        if t0 < t1:
            span = (abs(screen[j, 0] - screen[i, 0]) + abs(screen[j, 1] - screen[i, 1])) * (t1 - t0)
            total += np.int64(span) + 6
    return total


@kernel
def cut_edges(screen, faces, areas, incident, found, n_found, slots, rows, cuts, owner):
    """Cuts edges at the borders of pixels.

    Fills cuts (N, 4) = share of the edge where the cut begins and where it ends, and the edge's normal (u, v) away
    from the face in front, as long as the whole edge, and owner (N,), the edge's place in `found`; numbers the pixels
    met in slots (H, W) int32, which comes filled with -1, and gives rows (H, 2) the first and last such column.
    Returns the numbers of cuts and of pixels.
    """
    height, width = slots.shape
    n = n_slots = 0
    for e in range(n_found):
        k = found[e, 0]
        f = incident[k, 0]
        i, j = faces[f, incident[k, 1]], faces[f, incident[k, 2]]
        u0, v0 = screen[i, 0], screen[i, 1]
        u1, v1 = screen[j, 0], screen[j, 1]
        t, t_end = inside_image(u0, v0, u1, v1, width, height)
        if not t < t_end:
            continue
        du, dv = u1 - u0, v1 - v0
        length = sqrt(du * du + dv * dv)
        # away from the face in front
        away = ONE if areas[f] * np.float32(incident[k, 3]) > ZERO else -ONE
        nu, nv = away * dv, -away * du
        # the next borders of pixels on the way, and the steps between them
        step_u = ONE / abs(du) if du != ZERO else -FAR
        step_v = ONE / abs(dv) if dv != ZERO else -FAR
        at_u, at_v = u0 + t * du + HALF, v0 + t * dv + HALF
        next_u = next_v = -FAR
        if du > ZERO:
            next_u = (np.float32(np.floor(at_u)) + ONE - HALF - u0) * step_u
        elif du < ZERO:
            next_u = (u0 - (np.float32(np.ceil(at_u)) - ONE - HALF)) * step_u
        if dv > ZERO:
            next_v = (np.float32(np.floor(at_v)) + ONE - HALF - v0) * step_v
        elif dv < ZERO:
            next_v = (v0 - (np.float32(np.ceil(at_v)) - ONE - HALF)) * step_v
        while t < t_end:
            if next_u <= next_v:
                stop = min(next_u, t_end)
                next_u += step_u
            else:
                stop = min(next_v, t_end)
                next_v += step_v
            if not (stop - t) * length > SHORTEST_CUT_PX:
                t = max(t, stop)
                continue
            middle = HALF * (t + stop)
            column = np.int64(np.floor(u0 + middle * du + HALF))
            row = np.int64(np.floor(v0 + middle * dv + HALF))
            if 0 <= column < width and 0 <= row < height:
                if slots[row, column] < 0:
                    slots[row, column] = n_slots
                    n_slots += 1
                    rows[row, 0], rows[row, 1] = min(rows[row, 0], column), max(rows[row, 1], column)
                if n == cuts.shape[0]:
                    return -1, n_slots
                cuts[n, 0], cuts[n, 1], cuts[n, 2], cuts[n, 3] = t, stop, nu, nv
                owner[n] = e
                n += 1
            t = stop
    return n, n_slots


@kernel
def faces_of_pixels(screen, faces, areas, slots, rows, planes, heads, lengths, links):
    """Lists, for the numbered pixels, the faces that touch them.

    heads (n_slots,) comes -1, lengths (n_slots,) 0; links (N, 2) = (face, next); planes (F, 9) = u, v, q of the first corner and how the
    weights of the second and third and q change per pixel. Returns the number of links, also where they did not fit:
    the caller then brings more.
    """
    height, width = slots.shape
    n = 0
    for f in range(faces.shape[0]):
        area = areas[f]
        if area == ZERO:
            continue
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        va, vb, vc = screen[a, 1], screen[b, 1], screen[c, 1]
        v_low, v_high = min(va, vb, vc) + HALF, max(va, vb, vc) + HALF
        if v_high < ZERO or v_low >= np.float32(height):
            continue
        ua, ub, uc = screen[a, 0], screen[b, 0], screen[c, 0]
        u_low, u_high = min(ua, ub, uc) + HALF, max(ua, ub, uc) + HALF
        if u_high < ZERO or u_low >= np.float32(width):
            continue
        r0, r1 = np.int64(max(v_low, ZERO)), np.int64(min(v_high, np.float32(height - 1)))
        c0, c1 = np.int64(max(u_low, ZERO)), np.int64(min(u_high, np.float32(width - 1)))
        known = False
        lb_du = lb_dv = lc_du = lc_dv = la_du = la_dv = half_a = half_b = half_c = ZERO * area
        for r in range(r0, r1 + 1):
            for col in range(max(c0, rows[r, 0]), min(c1, rows[r, 1]) + 1):
                slot = slots[r, col]
                if slot < 0:
                    continue
                if not known:
                    known = True
                    inv = ONE / area
                    lb_du, lb_dv = (vc - va) * inv, -(uc - ua) * inv
                    lc_du, lc_dv = -(vb - va) * inv, (ub - ua) * inv
                    la_du, la_dv = -lb_du - lc_du, -lb_dv - lc_dv
                    # how much a weight can be larger in the pixel than at its centre, with room for BESIDE_PX
                    half = HALF + np.float32(2.0) * BESIDE_PX
                    half_a, half_b = half * (abs(la_du) + abs(la_dv)), half * (abs(lb_du) + abs(lb_dv))
                    half_c = half * (abs(lc_du) + abs(lc_dv))
                    qb, qc = screen[b, 2] - screen[a, 2], screen[c, 2] - screen[a, 2]
                    planes[f, 0], planes[f, 1], planes[f, 2] = ua, va, screen[a, 2]
                    planes[f, 3], planes[f, 4], planes[f, 5], planes[f, 6] = lb_du, lb_dv, lc_du, lc_dv
                    planes[f, 7], planes[f, 8] = qb * lb_du + qc * lc_du, qb * lb_dv + qc * lc_dv
                du, dv = np.float32(col) - ua, np.float32(r) - va
                lb, lc = du * lb_du + dv * lb_dv, du * lc_du + dv * lc_dv
                if lb + half_b < ZERO or lc + half_c < ZERO or ONE - lb - lc + half_a < ZERO:
                    continue
                lengths[slot] += 1
                if n < links.shape[0]:
                    links[n, 0], links[n, 1] = f, heads[slot]
                    heads[slot] = n
                n += 1
    return n


@kernel
def inside_face(planes, f, u, v, du, dv, end):
    """The part (a, b) of the way from (u, v), given from the first corner, along (du, dv) to `end` that f covers."""
    b0, b1 = u * planes[f, 3] + v * planes[f, 4], du * planes[f, 3] + dv * planes[f, 4]
    c0, c1 = u * planes[f, 5] + v * planes[f, 6], du * planes[f, 5] + dv * planes[f, 6]
    low, high = ZERO * end, end
    for k in range(3):
        at, slope = (b0, b1) if k == 0 else ((c0, c1) if k == 1 else (ONE - b0 - c0, -b1 - c1))
        at -= COVERS
        if slope == ZERO:
            if at < ZERO:
                return end, low
        elif slope > ZERO:
            low = max(low, -at / slope)
        else:
            high = min(high, -at / slope)
    return low, high


@kernel
def look_behind(
    screen, faces, bounds, incident, found, slots, planes, heads, links, perspective, n, cuts, owner, room, ints, floats
):
    """The parts of the cut edges that are seen, each with what is behind it, as pieces in ints and floats.

    bounds (N, 2): for a row of `incident` the first and last row of its edge; room: the longest list of a pixel.
    Returns how many pieces there are, also where they did not fit: the caller then brings more room.

    Along a cut every triangle of the pixel's list covers an interval. Between the ends of all these intervals nothing
    changes, so that one look in the middle tells what hides the edge, or which triangle is next behind it.
    """
    width = slots.shape[1]
    which = np.empty(room, np.int64)
    reach = np.empty((room, 4), screen.dtype)  # first, last, q at the cut's beginning, growth of q
    stops = np.empty(3 * room + 2, screen.dtype)
    kept = 0
    for p in range(n):
        e = owner[p]
        k, beside = found[e, 0], found[e, 1]
        f = incident[k, 0]
        first, last = bounds[k, 0], bounds[k, 1]
        i, j = faces[f, incident[k, 1]], faces[f, incident[k, 2]]
        t0, end = cuts[p, 0], cuts[p, 1] - cuts[p, 0]
        nu, nv = cuts[p, 2], cuts[p, 3]
        u0, v0 = screen[i, 0], screen[i, 1]
        du, dv = screen[j, 0] - u0, screen[j, 1] - v0
        to_beside = BESIDE_PX / sqrt(nu * nu + nv * nv)
        u_off, v_off = t0 * du + to_beside * nu, t0 * dv + to_beside * nv
        q_ends = screen[j, 2] - screen[i, 2]
        q = screen[i, 2] + t0 * q_ends
        q_limit, growth = q + SAME_DEPTH * abs(q), q_ends  # what is nearer than this hides
        pixel = cuts_pixel(screen, i, t0 + HALF * end, du, dv, width)
        link = heads[slots[pixel // width, pixel % width]]
        count, n_stops, hidden = 0, 1, False
        stops[0] = ZERO
        while link >= 0:
            f = links[link, 0]
            link = links[link, 1]
            u, v = (u0 - planes[f, 0]) + u_off, (v0 - planes[f, 1]) + v_off
            low, high = inside_face(planes, f, u, v, du, dv, end)
            if not low < high:
                continue
            own = False
            for m in range(first, last):
                own = own or incident[m, 0] == f
            if own:
                continue
            there = planes[f, 2] + u * planes[f, 7] + v * planes[f, 8]
            rise = du * planes[f, 7] + dv * planes[f, 8]
            over_low = there + low * rise - (q_limit + low * growth)
            over_high = there + high * rise - (q_limit + high * growth)
            if over_low > ZERO and over_high > ZERO and low <= ZERO and high >= end:
                hidden = True
                break
            which[count] = f
            reach[count, 0], reach[count, 1], reach[count, 2], reach[count, 3] = low, high, there, rise
            count += 1
            if low > ZERO:
                stops[n_stops] = low
                n_stops += 1
            if high < end:
                stops[n_stops] = high
                n_stops += 1
            if (over_low > ZERO) != (over_high > ZERO):  # the edge passes through the face
                stops[n_stops] = low + (high - low) * (over_low / (over_low - over_high))
                n_stops += 1
        if hidden:
            continue
        for m in range(1, n_stops):
            value = stops[m]
            at = m
            while at > 0 and stops[at - 1] > value:
                stops[at] = stops[at - 1]
                at -= 1
            stops[at] = value
        stops[n_stops] = end
        begin = ZERO * end
        before = np.int64(-2)  # what the part that began at `begin` has behind it; -2: it is hidden
        for m in range(n_stops + 1):
            now = np.int64(-2)
            if m < n_stops:
                middle = HALF * (stops[m] + stops[m + 1])
                if not stops[m + 1] > stops[m]:
                    continue
                now, best = NONE, FAR * ONE
                for h in range(count):
                    there = reach[h, 2] + middle * reach[h, 3]
                    if reach[h, 0] <= middle and middle <= reach[h, 1] and there > best:
                        now, best = which[h], there
                if now >= 0 and best > q_limit + middle * growth:
                    now = np.int64(-2)
                if now == before:
                    continue
            stop = stops[m]
            if before > -2 and stop > begin:
                if kept < ints.shape[0]:
                    s = HALF * (begin + stop)
                    t, share = t0 + s, stop - begin
                    ints[kept, 0], ints[kept, 1], ints[kept, 2] = pixel, incident[k, 0], before
                    ints[kept, 3], ints[kept, 4] = i, j
                    floats[kept, 0], floats[kept, 1], floats[kept, 2] = t, nu * share, nv * share
                    floats[kept, 3], floats[kept, 4] = u0 + t * du, v0 + t * dv
                    for w in range(5, FLOATS):
                        floats[kept, w] = ZERO
                    q0, q1 = screen[i, 2], screen[j, 2]
                    if perspective:
                        z = ONE / (q0 * (ONE - t) + q1 * t)
                        w0, w1 = q0 * (ONE - t) * z, q1 * t * z
                    else:
                        z, w0, w1 = -(q0 * (ONE - t) + q1 * t), ONE - t, t
                    floats[kept, 5 + incident[k, 1]], floats[kept, 5 + incident[k, 2]] = w0, w1
                    floats[kept, 8] = z
                    if beside >= 0:
                        ints[kept, 2] = incident[beside, 0]
                        floats[kept, 9 + incident[beside, 1]], floats[kept, 9 + incident[beside, 2]] = w0, w1
                        floats[kept, 12] = z
                    elif before >= 0:
                        a, b, c = faces[before, 0], faces[before, 1], faces[before, 2]
                        u, v = (u0 - screen[a, 0]) + u_off + s * du, (v0 - screen[a, 1]) + v_off + s * dv
                        lb, lc = (
                            u * planes[before, 3] + v * planes[before, 4],
                            u * planes[before, 5] + v * planes[before, 6],
                        )
                        w0, w1, w2, z = surface_weights(
                            ONE - lb - lc, lb, lc, screen[a, 2], screen[b, 2], screen[c, 2], perspective
                        )
                        floats[kept, 9], floats[kept, 10], floats[kept, 11], floats[kept, 12] = w0, w1, w2, z
                kept += 1
            begin, before = stop, now
    return kept


@kernel
def cuts_pixel(screen, i, t, du, dv, width):
    """Number of the pixel that a cut lies in, from its middle."""
    column = np.int64(np.floor(screen[i, 0] + t * du + HALF))
    return np.int64(np.floor(screen[i, 1] + t * dv + HALF)) * width + column


@kernel
def scatter_edges(ints, floats, jumps, v_screen):
    """Adds to v_screen (V, 3) float64 what moves the ends of the edges; jumps (N,) is the loss's change per area won."""
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
