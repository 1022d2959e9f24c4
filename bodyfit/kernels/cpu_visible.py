"""What is seen of an edge, and what lies behind it, on the CPU: asked of the triangles themselves.

`cpu_edges` cuts the edges at the borders of pixels; here each pixel with a cut in it gets the list of the faces that
touch it, and each cut is divided where what hides it, or what lies behind it, changes.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from bodyfit.kernels.cpu_edges import FLOATS, NONE, SHORTEST_CUT_PX
from bodyfit.kernels.cpu_raster import FAR, kernel
from bodyfit.kernels.scalar import HALF, ONE, ZERO, surface_weights

# How far beside an edge (pixels) the question is put what is behind it: over the rounding of a coordinate in a large
# image, under anything that one could see.
BESIDE_PX = np.float32(1e-4)
# What is nearer than an edge by less than this share of its depth does not hide it.
SAME_DEPTH = np.float32(1e-5)
COVERS = np.float32(-1e-7)


@kernel
def faces_of_pixels(screen, faces, areas, only, slots, rows, about, planes, lengths, links):
    """Pairs (pixel's number, face) of the faces that touch a numbered pixel, by rising face.

    links (N, 2) are the pairs, lengths (n_slots,), which comes 0, how many each pixel has; planes (F, 9) = u, v, q of
    the first corner and how the weights of the second and third and q change per pixel. Returns the number of links,
    also where they did not fit: the caller then brings more. only: leave out faces of another sign than this; 0: none.
    """
    height, width = slots.shape
    n = 0
    for f in range(faces.shape[0]):
        area = areas[f]
        if area == ZERO or area * np.float32(only) < ZERO:
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
        if c1 <= c0 + 1 and r1 <= r0 + 1 and not about[r0, c0]:
            continue
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
                    links[n, 0], links[n, 1] = slot, f
                n += 1
    return n


@kernel
def sort_by_first(keys, values, n_keys):
    """Where the values of each key begin (n_keys + 1,), and the values sorted by key, in their order otherwise."""
    starts = np.zeros(n_keys + 1, np.int64)
    for k in range(keys.shape[0]):
        starts[keys[k] + 1] += 1
    for k in range(n_keys):
        starts[k + 1] += starts[k]
    fill = starts[:-1].copy()
    out = np.empty(values.shape[0], np.int64)
    for k in range(keys.shape[0]):
        out[fill[keys[k]]] = values[k]
        fill[keys[k]] += 1
    return starts, out


@kernel
def inside_face(b0, b1, c0, c1, end):
    """The part (low, high) of the way from 0 to `end` where the weights b0 + b1 t, c0 + c1 t and the third are not
    negative; low ≥ high where there is none."""
    low, high = ZERO * end, end
    at, there = b0 - COVERS, b0 - COVERS + b1 * end
    if at < ZERO:
        if not there > ZERO:
            return end, low
        low = -at / b1
    elif there < ZERO:
        high = -at / b1
    at, there = c0 - COVERS, c0 - COVERS + c1 * end
    if at < ZERO:
        if not there > ZERO:
            return end, low
        low = max(low, -at / c1)
    elif there < ZERO:
        high = min(high, -at / c1)
    at = ONE - b0 - c0 - COVERS
    there = at - (b1 + c1) * end
    if at < ZERO:
        if not there > ZERO:
            return end, low
        low = max(low, at / (b1 + c1))
    elif there < ZERO:
        high = min(high, at / (b1 + c1))
    return low, high


@kernel
def past_what_hides(hides, n, begin, shortest):
    """How far one gets from `begin` when every interval (n, 2) that is reached without a gap carries on to its end."""
    moved = True
    while moved:
        moved = False
        for h in range(n):
            if hides[h, 0] <= begin + shortest and hides[h, 1] > begin:
                begin = hides[h, 1]
                moved = True
    return begin


@kernel
def put_piece(
    screen, faces, incident, planes, perspective, row, beside, behind, pixel, t, share, u_beside, v_beside, nu, nv,
    ints, floats, at,
):  # fmt: skip
    """Writes one piece into row `at` of ints and floats: t its middle, share its part of the edge; the point beside
    the edge where it was asked what is behind lies (u_beside, v_beside) from the edge's first end."""
    f = incident[row, 0]
    i, j = faces[f, incident[row, 1]], faces[f, incident[row, 2]]
    ints[at, 0], ints[at, 1], ints[at, 2], ints[at, 3], ints[at, 4] = pixel, f, behind, i, j
    u0, v0, q0 = screen[i, 0], screen[i, 1], screen[i, 2]
    q1 = screen[j, 2]
    floats[at, 0], floats[at, 1], floats[at, 2] = t, nu * share, nv * share
    floats[at, 3], floats[at, 4] = u0 + t * (screen[j, 0] - u0), v0 + t * (screen[j, 1] - v0)
    for k in range(5, FLOATS):
        floats[at, k] = ZERO
    if perspective:
        z = ONE / (q0 * (ONE - t) + q1 * t)
        w0, w1 = q0 * (ONE - t) * z, q1 * t * z
    else:
        z, w0, w1 = -(q0 * (ONE - t) + q1 * t), ONE - t, t
    floats[at, 5 + incident[row, 1]], floats[at, 5 + incident[row, 2]], floats[at, 8] = w0, w1, z
    if beside >= 0:
        ints[at, 2] = incident[beside, 0]
        floats[at, 9 + incident[beside, 1]], floats[at, 9 + incident[beside, 2]], floats[at, 12] = w0, w1, z
    elif behind >= 0:
        a, b, c = faces[behind, 0], faces[behind, 1], faces[behind, 2]
        u, v = (u0 - screen[a, 0]) + u_beside, (v0 - screen[a, 1]) + v_beside
        lb, lc = u * planes[behind, 3] + v * planes[behind, 4], u * planes[behind, 5] + v * planes[behind, 6]
        w0, w1, w2, z = surface_weights(ONE - lb - lc, lb, lc, screen[a, 2], screen[b, 2], screen[c, 2], perspective)
        floats[at, 9], floats[at, 10], floats[at, 11], floats[at, 12] = w0, w1, w2, z


@kernel
def look_behind(
    screen, faces, bounds, incident, found, width, planes, starts, listed, perspective, order, first_cuts, cuts, owner,
    room, ints, floats,
):  # fmt: skip
    """The parts of the cut edges that are seen, each with what is behind it, as pieces in ints and floats.

    bounds (N, 2): for a row of `incident` the first and last row of its edge; listed: the faces of each pixel, which
    begin at starts (n_slots + 1,); order: the cuts of each pixel, which begin at first_cuts (n_slots + 1,); room: the
    longest list of a pixel. Returns how many pieces there are, also where they did not fit: the caller then brings
    more room.

    Along a cut every triangle of the pixel's list covers an interval. Those in front hide it there; between the ends
    of the others nothing changes, so that one look in the middle tells which is next behind.
    """
    hides = np.empty((room, 2), screen.dtype)
    which = np.empty(room, np.int64)
    lies = np.empty((room, 4), screen.dtype)  # first, last, q at the cut's beginning, growth of q
    stops = np.empty(2 * room + 2, screen.dtype)
    near = np.empty((9, room), screen.dtype)  # the planes of the pixel's faces, for many at once
    least = np.empty(room, screen.dtype)
    kept = 0
    for slot in range(starts.shape[0] - 1):
        n_near = starts[slot + 1] - starts[slot]
        for h in range(n_near):
            f = listed[starts[slot] + h]
            for k in range(9):
                near[k, h] = planes[f, k]
        for place in range(first_cuts[slot], first_cuts[slot + 1]):
            p = order[place]
            e = owner[p]
            row, beside = found[e, 0], found[e, 1]
            f = incident[row, 0]
            first, last = bounds[row, 0], bounds[row, 1]
            i, j = faces[f, incident[row, 1]], faces[f, incident[row, 2]]
            t0, end = cuts[p, 0], cuts[p, 1] - cuts[p, 0]
            nu, nv = cuts[p, 2], cuts[p, 3]
            u0, v0 = screen[i, 0], screen[i, 1]
            du, dv = screen[j, 0] - u0, screen[j, 1] - v0
            to_beside = BESIDE_PX / sqrt(nu * nu + nv * nv)
            u_off, v_off = t0 * du + to_beside * nu, t0 * dv + to_beside * nv
            u_end, v_end = du * end, dv * end
            growth = screen[j, 2] - screen[i, 2]
            q = screen[i, 2] + t0 * growth
            limit = q + SAME_DEPTH * abs(q)  # what is nearer than this hides
            middle = t0 + HALF * end
            column = np.int64(np.floor(u0 + middle * du + HALF))
            pixel = np.int64(np.floor(v0 + middle * dv + HALF)) * width + column
            for h in range(n_near):  # most faces of the pixel are elsewhere in it: no branches here, so many at a time
                u, v = (u0 - near[0, h]) + u_off, (v0 - near[1, h]) + v_off
                b, c = u * near[3, h] + v * near[4, h], u * near[5, h] + v * near[6, h]
                b_end = b + (u_end * near[3, h] + v_end * near[4, h])
                c_end = c + (u_end * near[5, h] + v_end * near[6, h])
                least[h] = min(max(b, b_end), max(c, c_end), max(ONE - b - c, ONE - b_end - c_end))
            n_hides = n_lies = 0
            hidden = False
            for h in range(n_near):
                if least[h] < COVERS:
                    continue
                u, v = (u0 - near[0, h]) + u_off, (v0 - near[1, h]) + v_off
                low, high = inside_face(
                    u * near[3, h] + v * near[4, h], du * near[3, h] + dv * near[4, h],
                    u * near[5, h] + v * near[6, h], du * near[5, h] + dv * near[6, h], end,
                )  # fmt: skip
                if not low < high:
                    continue
                f = np.int64(listed[starts[slot] + h])
                own = False
                for m in range(first, last):
                    own = own or incident[m, 0] == f
                if own:
                    continue
                there = near[2, h] + u * near[7, h] + v * near[8, h]
                rise = du * near[7, h] + dv * near[8, h]
                over_low = there + low * rise - (limit + low * growth)
                over_high = there + high * rise - (limit + high * growth)
                if over_low > ZERO or over_high > ZERO:
                    h_low, h_high = low, high
                    if not (over_low > ZERO and over_high > ZERO):  # the edge passes through the face
                        through = low + (high - low) * (over_low / (over_low - over_high))
                        if over_low > ZERO:
                            h_high = low = through
                        else:
                            h_low = high = through
                    if h_low <= ZERO and h_high >= end:
                        hidden = True
                        break
                    hides[n_hides, 0], hides[n_hides, 1] = h_low, h_high
                    n_hides += 1
                    if over_low > ZERO and over_high > ZERO:
                        continue
                which[n_lies] = f
                lies[n_lies, 0], lies[n_lies, 1], lies[n_lies, 2], lies[n_lies, 3] = low, high, there, rise
                n_lies += 1
            if hidden:
                continue
            begin = ZERO * end
            shortest = SHORTEST_CUT_PX / sqrt(nu * nu + nv * nv)
            while begin < end:
                # past everything that hides; then as far as nothing does
                begin = past_what_hides(hides, n_hides, begin, shortest)
                if begin + shortest >= end:
                    break
                stop = end
                for h in range(n_hides):
                    if hides[h, 0] > begin:
                        stop = min(stop, hides[h, 0])
                stops[0] = begin
                n_stops = 1
                if beside < 0:
                    for h in range(n_lies):
                        for k in range(2):
                            value = lies[h, k]
                            if begin < value < stop:
                                at = n_stops
                                while at > 0 and stops[at - 1] > value:
                                    stops[at] = stops[at - 1]
                                    at -= 1
                                stops[at] = value
                                n_stops += 1
                stops[n_stops] = stop
                before = np.int64(-2)
                for m in range(n_stops + 1):
                    now = np.int64(-3)
                    if m < n_stops:
                        if not stops[m + 1] > stops[m]:
                            continue
                        now, best = NONE, FAR * ONE
                        if beside < 0:
                            middle = HALF * (stops[m] + stops[m + 1])
                            for h in range(n_lies):
                                there = lies[h, 2] + middle * lies[h, 3]
                                if there > best and lies[h, 0] <= middle <= lies[h, 1]:
                                    now, best = which[h], there
                    if now == before:
                        continue
                    if before > -2 and stops[m] > begin:
                        if kept < ints.shape[0]:
                            s = HALF * (begin + stops[m])
                            put_piece(
                                screen, faces, incident, planes, perspective, row, beside, before, pixel, t0 + s,
                                stops[m] - begin, u_off + s * du, v_off + s * dv, nu, nv, ints, floats, kept,
                            )  # fmt: skip
                        kept += 1
                    begin, before = stops[m], now
                begin = stop
    return kept
