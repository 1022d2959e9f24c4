"""What is seen of an edge, and what lies behind it, on the CPU: asked of the triangles themselves.

`cpu_edges` cuts the edges at the borders of pixels; here each pixel with a cut in it gets the list of the faces that
touch it, and each cut is divided where what hides it, or what lies behind it, changes.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

from bodyfit.kernels.cpu_edges import NONE, SHORTEST_CUT_PX
from bodyfit.kernels.cpu_raster import FAR, kernel
from bodyfit.kernels.scalar import HALF, ONE, TWO, ZERO, surface_weights

# How far beside an edge (pixels) the question is put what is behind it: over the rounding of a coordinate in a large
# image, under anything that one could see.
BESIDE_PX = np.float32(1e-4)
# What is nearer than an edge by less than this share of its depth does not hide it.
SAME_DEPTH = np.float32(1e-5)
COVERS = np.float32(-1e-7)
FACES_AT_ONCE = 256


@kernel
def faces_of_pixels(screen, faces, areas, signs, only, slots, bits, n_slots, chosen, planes, lengths, firsts):
    """Lists of the faces whose bounding boxes meet each numbered pixel.

    signs (F,) as of face_signs; only: leave out faces of another sign than this; 0: none. slots (H, W) has the pixels'
    numbers, bits their bits, as of cut_edges. Fills chosen (F + 1,) with the faces in any list; planes (F + 1, 9), of
    each of these: u, v, q of the first corner and how the weights of the second and third and q change per pixel.
    Returns the lists (N,), places in `chosen`: a pixel's is lengths (n_slots,) long and begins at firsts (n_slots,).
    """
    height, width = slots.shape
    one, rest, six, all_bits = np.uint64(1), np.uint64(63), np.uint64(6), ~np.uint64(0)
    four, fifteen = np.uint64(4), np.uint64(15)
    wanted = np.uint8(3) if only == 0 else (np.uint8(1) if only > 0 else np.uint8(2))
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    half = HALF + TWO * BESIDE_PX  # with room for the points beside the edges
    lengths[:] = 0
    links = np.empty((8 * faces.shape[0] + 1024, 2), np.int32)  # pixel and place in `chosen`
    candidates = np.empty(FACES_AT_ONCE + 1, np.int32)
    boxes = np.empty((4, FACES_AT_ONCE), np.int32)
    corners = np.empty((6, FACES_AT_ONCE), screen.dtype)
    n, n_chosen = 0, np.uintp(0)
    for first in range(0, faces.shape[0], FACES_AT_ONCE):
        # Without branches: what is no candidate is overwritten by the next. Half of a body's faces look away.
        count = np.uintp(0)
        for f in range(first, min(first + FACES_AT_ONCE, faces.shape[0])):
            candidates[count] = f
            count += np.uintp((signs[f] & wanted) != 0)
        for k in range(count):
            f = np.uintp(candidates[k])
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            corners[0, k], corners[1, k] = screen[a, 0], screen[a, 1]
            corners[2, k], corners[3, k] = screen[b, 0], screen[b, 1]
            corners[4, k], corners[5, k] = screen[c, 0], screen[c, 1]
        for k in range(count):
            ua, va, ub, vb, uc, vc = (
                corners[0, k], corners[1, k], corners[2, k], corners[3, k], corners[4, k], corners[5, k]
            )  # fmt: skip
            u0, u1 = ua if ua < ub else ub, ua if ua > ub else ub
            v0, v1 = va if va < vb else vb, va if va > vb else vb
            u0, u1 = (u0 if u0 < uc else uc) + (ONE - half), (u1 if u1 > uc else uc) + half
            v0, v1 = (v0 if v0 < vc else vc) + (ONE - half), (v1 if v1 > vc else vc) + half
            away = (u1 < ZERO) | (v1 < ZERO) | (u0 > right + ONE) | (v0 > bottom + ONE)
            u0, v0 = u0 if u0 > ZERO else ZERO, v0 if v0 > ZERO else ZERO
            u0, v0 = u0 if u0 < right + ONE else right + ONE, v0 if v0 < bottom + ONE else bottom + ONE
            u1, v1 = u1 if u1 < right else right, v1 if v1 < bottom else bottom
            u1, v1 = u1 if u1 > ZERO else ZERO, v1 if v1 > ZERO else ZERO
            boxes[0, k], boxes[1, k] = np.int32(v0), np.int32(-1) if away else np.int32(v1)
            boxes[2, k], boxes[3, k] = np.int32(u0), np.int32(u1)
        for k in range(count):
            r0, r1, c0, c1 = boxes[0, k], boxes[1, k], boxes[2, k], boxes[3, k]
            if r1 < r0 or c1 < c0:
                continue
            f = np.uintp(candidates[k])
            before = n
            small = r1 - r0 < 4 and c1 - c0 < 16
            if n + (64 if small else (r1 - r0 + 1) * (c1 - c0 + 1)) > links.shape[0]:
                more = np.empty((2 * links.shape[0] + (r1 - r0 + 1) * (c1 - c0 + 1), 2), np.int32)
                more[:n] = links[:n]
                links = more
            if small:
                # the numbered pixels of all its rows, 16 bits a row
                word, shift = np.uint64(c0) >> six, np.uint64(c0) & rest
                there = np.uint64(0)
                for r in range(4):
                    at = np.uintp(r0) + np.uintp(r)
                    row = (bits[at, word] >> shift) | ((bits[at, word + one] << (rest - shift)) << one)
                    there |= (row & (all_bits >> (rest - np.uint64(c1 - c0)))) << np.uint64(16 * r)
                there &= all_bits >> (np.uint64(3 - (r1 - r0)) << four)
                while there != np.uint64(0):
                    bit = trailing_zeros(there)
                    links[n, 0] = slots[np.uintp(r0) + np.uintp(bit >> four), np.uintp(c0) + np.uintp(bit & fifteen)]
                    links[n, 1] = n_chosen
                    lengths[np.uintp(links[n, 0])] += np.int32(1)
                    n += 1
                    there &= there - one
            else:
                for r in range(np.uintp(r0), np.uintp(r1 + 1)):
                    for start in range(c0, c1 + 1, 64):
                        # the numbered pixels among up to 64 from here on, a bit each
                        word, shift = np.uint64(start) >> six, np.uint64(start) & rest
                        there = (bits[r, word] >> shift) | ((bits[r, word + one] << (rest - shift)) << one)
                        there &= all_bits >> (rest - np.uint64(min(c1 - start, 63)))
                        while there != np.uint64(0):
                            links[n, 0] = slots[r, np.uintp(start) + np.uintp(trailing_zeros(there))]
                            links[n, 1] = n_chosen
                            lengths[np.uintp(links[n, 0])] += np.int32(1)
                            n += 1
                            there &= there - one
            if n == before:
                continue
            ua, va, ub, vb, uc, vc = (
                corners[0, k], corners[1, k], corners[2, k], corners[3, k], corners[4, k], corners[5, k]
            )  # fmt: skip
            inv = ONE / areas[f]
            lb_du, lb_dv = (vc - va) * inv, -(uc - ua) * inv
            lc_du, lc_dv = -(vb - va) * inv, (ub - ua) * inv
            qa = screen[np.uintp(faces[f, 0]), 2]
            qb, qc = screen[np.uintp(faces[f, 1]), 2] - qa, screen[np.uintp(faces[f, 2]), 2] - qa
            chosen[n_chosen] = f
            at = n_chosen
            planes[at, 0], planes[at, 1], planes[at, 2] = ua, va, qa
            planes[at, 3], planes[at, 4], planes[at, 5], planes[at, 6] = lb_du, lb_dv, lc_du, lc_dv
            planes[at, 7], planes[at, 8] = qb * lb_du + qc * lc_du, qb * lb_dv + qc * lc_dv
            n_chosen += np.uintp(1)
    end = np.int32(0)
    for slot in range(n_slots):
        end += lengths[slot]
        firsts[slot] = end
    listed = np.empty(n, np.int32)
    for k in range(np.uintp(n)):
        slot = np.uintp(links[k, 0])
        firsts[slot] -= np.int32(1)
        listed[np.uintp(firsts[slot])] = links[k, 1]
    return listed


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
def part_inside(b, b_rise, c, c_rise, end):
    """What `inside_face` tells, without branches: for small faces each would be guessed wrong."""
    a, a_rise = ONE - b - c - COVERS, -(b_rise + c_rise)
    b, c = b - COVERS, c - COVERS
    a_end, b_end, c_end = a + a_rise * end, b + b_rise * end, c + c_rise * end
    a_at, b_at, c_at = -a / a_rise, -b / b_rise, -c / c_rise  # read only where the weight changes sign
    low, high = ZERO * end, end
    low, high = b_at if b < ZERO else low, b_at if (b_end < ZERO) & (b >= ZERO) else high
    low, high = (
        c_at if (c < ZERO) & (c_at > low) else low,
        c_at if (c_end < ZERO) & (c >= ZERO) & (c_at < high) else high,
    )
    low, high = (
        a_at if (a < ZERO) & (a_at > low) else low,
        a_at if (a_end < ZERO) & (a >= ZERO) & (a_at < high) else high,
    )
    never = ((a < ZERO) & (a_end <= ZERO)) | ((b < ZERO) & (b_end <= ZERO)) | ((c < ZERO) & (c_end <= ZERO))
    return end if never else low, ZERO * end if never else high


@kernel
def look_behind(
    bounds, incident, lines, marks, width, chosen, planes, pixels, n_slots, firsts, lengths, lists, first_cuts,
    next_cuts, cuts, owner, parts, places,
):  # fmt: skip
    """The parts of the cut edges that are seen, each with what is behind it: parts and places as in `fill_pieces`.

    lines, marks: the edges as `describe_edges` tells; pixels (n_slots,): row × width + column; firsts, lengths, lists:
    the faces of each pixel; first_cuts, next_cuts: the cuts of each pixel. Returns how many pieces there are, also
    where they did not fit: the caller then brings more room.

    Along a cut every triangle of the pixel's list covers an interval. Those in front hide it there; between the ends
    of the others nothing changes, so that one look in the middle tells which is next behind.
    """
    room = 0
    for slot in range(n_slots):
        room = max(room, np.int64(lengths[slot]))
    room = (room + 7) & ~7
    hides = np.empty((room + 1, 2), lines.dtype)
    which = np.empty(room + 1, np.int64)
    lies = np.empty((room + 1, 4), lines.dtype)  # first, last, q at the cut's beginning, growth of q
    stops = np.empty(2 * room + 2, lines.dtype)
    # Of the pixel's faces, for eight at once: the weight of the second corner at its centre and its growth per pixel,
    # the same of the third.
    near = np.empty((6, room), lines.dtype)
    some = np.empty(room, np.int32)
    least = np.empty(room, lines.dtype)
    kept = 0
    for slot in range(n_slots):
        pixel = pixels[slot]
        pixel_row = pixel // width
        pixel_column = pixel - pixel_row * width
        here, n_near = np.uintp(firsts[slot]), np.uintp(lengths[slot])
        for h in range(n_near):
            p = np.uintp(lists[here + h])
            du, dv = np.float32(pixel_column) - planes[p, 0], np.float32(pixel_row) - planes[p, 1]
            near[0, h] = du * planes[p, 3] + dv * planes[p, 4]
            near[1, h], near[2, h] = planes[p, 3], planes[p, 4]
            near[3, h] = du * planes[p, 5] + dv * planes[p, 6]
            near[4, h], near[5, h] = planes[p, 5], planes[p, 6]
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
            n_hides, n_lies = np.uintp(0), np.uintp(0)
            hidden = False
            # Without branches again: what is nothing is overwritten by the next.
            for m in range(n_some):
                h = np.uintp(some[m])
                b_du, b_dv, c_du, c_dv = near[1, h], near[2, h], near[4, h], near[5, h]
                low, high = part_inside(
                    near[0, h] + u * b_du + v * b_dv, du * b_du + dv * b_dv,
                    near[3, h] + u * c_du + v * c_dv, du * c_du + dv * c_dv, end,
                )  # fmt: skip
                plane = np.uintp(lists[here + h])
                f = chosen[plane]
                own = (f == own_a) | (f == own_b)
                if more >= 0:
                    for k in range(bounds[more, 0], bounds[more, 1]):
                        own = own | (incident[k, 0] == f)
                q_du, q_dv = planes[plane, 7], planes[plane, 8]
                there = planes[plane, 2] + (u + (np.float32(pixel_column) - planes[plane, 0])) * q_du
                there += (v + (np.float32(pixel_row) - planes[plane, 1])) * q_dv
                rise = du * q_du + dv * q_dv
                over_low = there + low * rise - (limit + low * growth)
                over_high = there + high * rise - (limit + high * growth)
                before, after = over_low > ZERO, over_high > ZERO  # in front of the edge at either end
                through = low + (high - low) * (over_low / (over_low - over_high))  # read only where it passes through
                found = (low < high) & (not own)
                hides[n_hides, 0] = hide_low = low if before else through
                hides[n_hides, 1] = hide_high = high if after else through
                hides_here = found & (before | after)
                n_hides += np.uintp(hides_here)
                hidden |= hides_here & (hide_low <= ZERO) & (hide_high >= end)
                which[n_lies] = plane
                lies[n_lies, 0], lies[n_lies, 1] = through if before else low, through if after else high
                lies[n_lies, 2], lies[n_lies, 3] = there, rise
                n_lies += np.uintp(found & (not (before & after)))
            if hidden:
                continue
            begin = ZERO * end
            shortest = SHORTEST_CUT_PX * per_length
            if n_hides == 0 and (n_lies == 0 or beside >= 0):  # seen all along, and nothing known behind: most are
                if begin + shortest < end:
                    if kept < parts.shape[0]:
                        middle = HALF * end
                        parts[kept, 0], parts[kept, 1], parts[kept, 2] = pixel, e, -1
                        places[kept, 0], places[kept, 1] = t0 + middle, end
                        places[kept, 2], places[kept, 3] = u_off + middle * du, v_off + middle * dv
                    kept += 1
                continue
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
