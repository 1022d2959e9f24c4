"""What is seen of an edge, and what lies behind it, on the CPU: asked of the triangles themselves.

`cpu_edges` cuts the edges at the borders of pixels; here each pixel with a cut in it gets the list of the faces that
touch it, and each cut is divided where what hides it, or what lies behind it, changes.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from bodyfit.kernels.cpu_edges import NONE, SHORTEST_CUT_PX
from bodyfit.kernels.cpu_raster import FAR, kernel
from bodyfit.kernels.scalar import HALF, ONE, TWO, ZERO, surface_weights

# How far beside an edge (pixels) the question is put what is behind it: over the rounding of a coordinate in a large
# image, under anything that one could see.
BESIDE_PX = np.float32(1e-4)
# What is nearer than an edge by less than this share of its depth does not hide it.
SAME_DEPTH = np.float32(1e-5)
COVERS = np.float32(-1e-7)


@kernel
def faces_of_pixels(screen, faces, areas, signs, only, slots, bits, candidates, chosen, planes, lengths, firsts, links):
    """Lists of the faces whose bounding boxes meet each numbered pixel.

    signs (F,) as of face_signs; only: leave out faces of another sign than this; 0: none. Fills chosen (F + 1,) with
    the faces in any list; planes (F, 9), of each of these: u, v, q of the first corner and how the weights of the
    second and third and q change per pixel. firsts (n_slots,), which comes -1, is where a pixel's list begins in links
    (N, 2) = next row or -1, place in `chosen`; lengths (n_slots,), which comes 0, is how long it is. candidates (F +
    1,) is scratch. Returns the number of links, also where they did not fit: the caller then brings more.
    """
    height, width = slots.shape
    one, rest, six, all_bits = np.uint64(1), np.uint64(63), np.uint64(6), ~np.uint64(0)
    wanted = np.uint8(3) if only == 0 else (np.uint8(1) if only > 0 else np.uint8(2))
    # Without branches: what is no candidate is overwritten by the next. Half of a body's faces look away.
    n_candidates = np.uintp(0)
    for f in range(faces.shape[0]):
        candidates[n_candidates] = f
        n_candidates += np.uintp((signs[f] & wanted) != 0)
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    half = HALF + TWO * BESIDE_PX  # with room for the points beside the edges
    n, n_chosen = 0, np.uintp(0)
    for k in range(n_candidates):
        f = np.uintp(candidates[k])
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        ua, va, ub, vb, uc, vc = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        u0, v0 = min(ua, ub, uc) + (ONE - half), min(va, vb, vc) + (ONE - half)
        u1, v1 = max(ua, ub, uc) + half, max(va, vb, vc) + half
        if (u1 < ZERO) | (v1 < ZERO) | (u0 > right + ONE) | (v0 > bottom + ONE):
            continue
        c0, r0 = np.int32(max(u0, ZERO)), np.int32(max(v0, ZERO))
        c1, r1 = np.int32(min(u1, right)), np.int32(min(v1, bottom))
        chosen[n_chosen] = f
        before = n
        for r in range(np.uintp(r0), np.uintp(r1 + 1)):
            for start in range(c0, c1 + 1, 64):
                # the numbered pixels among up to 64 from here on, a bit each
                word, shift = np.uint64(start) >> six, np.uint64(start) & rest
                found = (bits[r, word] >> shift) | ((bits[r, word + one] << (rest - shift)) << one)
                found &= all_bits >> (rest - np.uint64(min(c1 - start, 63)))
                col = np.uint64(start)
                while found != np.uint64(0):
                    if found & one:
                        slot = np.uintp(slots[r, col])
                        if n < links.shape[0]:
                            links[n, 0], links[n, 1] = firsts[slot], n_chosen
                            firsts[slot] = n
                            lengths[slot] += np.int32(1)
                        n += 1
                    found >>= one
                    col += one
        n_chosen += np.uintp(n > before)
    for k in range(n_chosen):
        f = np.uintp(chosen[k])
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        ua, va, ub, vb, uc, vc = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        inv = ONE / areas[f]
        lb_du, lb_dv = (vc - va) * inv, -(uc - ua) * inv
        lc_du, lc_dv = -(vb - va) * inv, (ub - ua) * inv
        qa = screen[a, 2]
        qb, qc = screen[b, 2] - qa, screen[c, 2] - qa
        planes[k, 0], planes[k, 1], planes[k, 2] = ua, va, qa
        planes[k, 3], planes[k, 4], planes[k, 5], planes[k, 6] = lb_du, lb_dv, lc_du, lc_dv
        planes[k, 7], planes[k, 8] = qb * lb_du + qc * lc_du, qb * lb_dv + qc * lc_dv
    return n


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
def look_behind(
    bounds, incident, lines, marks, width, chosen, planes, pixels, n_slots, firsts, links, first_cuts, next_cuts, cuts,
    owner, room, parts, places,
):  # fmt: skip
    """The parts of the cut edges that are seen, each with what is behind it: parts and places as in `fill_pieces`.

    lines, marks: the edges as `describe_edges` tells; pixels (n_slots,): row × width + column; firsts, links: the faces
    of each pixel; first_cuts, next_cuts: the cuts of each pixel; room: the longest list of a pixel. Returns how many
    pieces there are, also where they did not fit: the caller then brings more room.

    Along a cut every triangle of the pixel's list covers an interval. Those in front hide it there; between the ends
    of the others nothing changes, so that one look in the middle tells which is next behind.
    """
    room = (room + 7) & ~7
    hides = np.empty((room, 2), lines.dtype)
    which = np.empty(room, np.int64)
    lies = np.empty((room, 4), lines.dtype)  # first, last, q at the cut's beginning, growth of q
    stops = np.empty(2 * room + 2, lines.dtype)
    # Of the pixel's faces, for eight at once: the weight of the second corner at its centre and its growth per pixel,
    # the same of the third, q and its growth.
    near = np.empty((9, room), lines.dtype)
    listed, some = np.empty(room, np.int32), np.empty(room, np.int32)
    least = np.empty(room, lines.dtype)
    kept = 0
    for slot in range(n_slots):
        pixel = pixels[slot]
        pixel_row = pixel // width
        pixel_column = pixel - pixel_row * width
        n_near = np.uintp(0)
        k = firsts[slot]
        while k >= 0:
            p = np.uintp(links[k, 1])
            listed[n_near] = p
            du, dv = np.float32(pixel_column) - planes[p, 0], np.float32(pixel_row) - planes[p, 1]
            near[0, n_near] = du * planes[p, 3] + dv * planes[p, 4]
            near[1, n_near], near[2, n_near] = planes[p, 3], planes[p, 4]
            near[3, n_near] = du * planes[p, 5] + dv * planes[p, 6]
            near[4, n_near], near[5, n_near] = planes[p, 5], planes[p, 6]
            near[6, n_near] = planes[p, 2] + du * planes[p, 7] + dv * planes[p, 8]
            near[7, n_near], near[8, n_near] = planes[p, 7], planes[p, 8]
            n_near += np.uintp(1)
            k = links[k, 0]
        n_lanes = (n_near + np.uintp(7)) & ~np.uintp(7)
        for h in range(n_near, n_lanes):  # these cover nothing
            near[0, h] = -ONE
            near[1, h] = near[2, h] = near[3, h] = near[4, h] = near[5, h] = ZERO
        p = first_cuts[slot]
        while p >= 0:
            e = owner[p]
            t0, end = cuts[p, 0], cuts[p, 1] - cuts[p, 0]
            p = next_cuts[p]
            u0, v0, q = lines[e, 0], lines[e, 1], lines[e, 2]
            du, dv, growth, nu, nv = lines[e, 3], lines[e, 4], lines[e, 5], lines[e, 6], lines[e, 7]
            own_a, own_b, more, beside = marks[e, 5], marks[e, 6], marks[e, 7], marks[e, 8]
            per_length = ONE / sqrt(nu * nu + nv * nv)
            u_off, v_off = t0 * du + BESIDE_PX * per_length * nu, t0 * dv + BESIDE_PX * per_length * nv
            q += t0 * growth
            limit = q + SAME_DEPTH * abs(q)  # what is nearer than this hides
            u, v = (u0 - np.float32(pixel_column)) + u_off, (v0 - np.float32(pixel_row)) + v_off
            u_end, v_end = du * end, dv * end
            # Most faces of the pixel are elsewhere in it: each weight at both ends tells, without branches.
            for h in range(n_lanes):
                b_du, b_dv, c_du, c_dv = near[1, h], near[2, h], near[4, h], near[5, h]
                b, c = near[0, h] + u * b_du + v * b_dv, near[3, h] + u * c_du + v * c_dv
                b_end, c_end = b + (u_end * b_du + v_end * b_dv), c + (u_end * c_du + v_end * c_dv)
                a, a_end = ONE - b - c, ONE - b_end - c_end
                a, b, c = a if a > a_end else a_end, b if b > b_end else b_end, c if c > c_end else c_end
                b = b if b < c else c
                least[h] = a if a < b else b
            n_some = np.uintp(0)
            for h in range(n_near):
                some[n_some] = h
                n_some += np.uintp(least[h] >= COVERS)
            n_hides = n_lies = 0
            hidden = False
            for m in range(n_some):
                h = np.uintp(some[m])
                b_du, b_dv, c_du, c_dv = near[1, h], near[2, h], near[4, h], near[5, h]
                low, high = inside_face(
                    near[0, h] + u * b_du + v * b_dv, du * b_du + dv * b_dv,
                    near[3, h] + u * c_du + v * c_dv, du * c_du + dv * c_dv, end,
                )  # fmt: skip
                if not low < high:
                    continue
                f = chosen[listed[h]]
                own = f in (own_a, own_b)
                if more >= 0:
                    for k in range(bounds[more, 0], bounds[more, 1]):
                        own = own or incident[k, 0] == f
                if own:
                    continue
                there = near[6, h] + u * near[7, h] + v * near[8, h]
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
                which[n_lies] = listed[h]
                lies[n_lies, 0], lies[n_lies, 1], lies[n_lies, 2], lies[n_lies, 3] = low, high, there, rise
                n_lies += 1
            if hidden:
                continue
            begin = ZERO * end
            shortest = SHORTEST_CUT_PX * per_length
            while begin < end:
                # past everything that hides; then as far as nothing does
                moved = n_hides > 0
                while moved:
                    moved = False
                    for h in range(n_hides):
                        if hides[h, 0] <= begin + shortest and hides[h, 1] > begin:
                            begin = hides[h, 1]
                            moved = True
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
                        if kept < parts.shape[0]:
                            middle = HALF * (begin + stops[m])
                            parts[kept, 0], parts[kept, 1], parts[kept, 2] = pixel, e, before
                            places[kept, 0], places[kept, 1] = t0 + middle, stops[m] - begin
                            places[kept, 2], places[kept, 3] = u_off + middle * du, v_off + middle * dv
                        kept += 1
                    begin, before = stops[m], now
                begin = stop
    return kept


@kernel
def fill_pieces(screen, faces, incident, lines, marks, chosen, planes, perspective, parts, places, ints, floats):
    """Writes ints and floats of the pieces that `look_behind` found, (N,) = (pixel, edge, row of planes or -1) each.

    parts (N, 3) int32, places (N, 4) = the share of the edge at the piece's middle, the piece's share of the edge, and
    the point beside the edge (u, v), from its first end, where it was asked what is behind.
    """
    for at in range(parts.shape[0]):
        pixel, e, plane = parts[at, 0], parts[at, 1], parts[at, 2]
        t, share = places[at, 0], places[at, 1]
        u0, v0, q0 = lines[e, 0], lines[e, 1], lines[e, 2]
        q1 = q0 + lines[e, 5]
        ints[at, 0], ints[at, 1], ints[at, 2] = pixel, marks[e, 0], -1
        ints[at, 3], ints[at, 4] = marks[e, 3], marks[e, 4]
        floats[at, 0], floats[at, 1], floats[at, 2] = t, lines[e, 6] * share, lines[e, 7] * share
        floats[at, 3], floats[at, 4] = u0 + t * lines[e, 3], v0 + t * lines[e, 4]
        floats[at, 5] = floats[at, 6] = floats[at, 7] = ZERO
        floats[at, 9] = floats[at, 10] = floats[at, 11] = floats[at, 12] = ZERO
        if perspective:
            z = ONE / (q0 * (ONE - t) + q1 * t)
            w0, w1 = q0 * (ONE - t) * z, q1 * t * z
        else:
            z, w0, w1 = -(q0 * (ONE - t) + q1 * t), ONE - t, t
        floats[at, 5 + marks[e, 1]], floats[at, 5 + marks[e, 2]], floats[at, 8] = w0, w1, z
        beside = marks[e, 8]
        if beside >= 0:
            ints[at, 2] = incident[beside, 0]
            floats[at, 9 + incident[beside, 1]], floats[at, 9 + incident[beside, 2]], floats[at, 12] = w0, w1, z
        elif plane >= 0:
            behind = chosen[plane]
            ints[at, 2] = behind
            a, b, c = faces[behind, 0], faces[behind, 1], faces[behind, 2]
            u, v = (u0 - planes[plane, 0]) + places[at, 2], (v0 - planes[plane, 1]) + places[at, 3]
            lb, lc = u * planes[plane, 3] + v * planes[plane, 4], u * planes[plane, 5] + v * planes[plane, 6]
            w0, w1, w2, z = surface_weights(
                ONE - lb - lc, lb, lc, screen[a, 2], screen[b, 2], screen[c, 2], perspective
            )
            floats[at, 9], floats[at, 10], floats[at, 11], floats[at, 12] = w0, w1, w2, z
