"""What hides the cuts of edges, and what lies behind them, on the CPU: asked of the triangles themselves.

Each cut meets a few of the faces of its pixel. Which, and where along the cut, is asked for many pairs of a cut and a
face at once; then each cut is divided where what hides it, or what lies behind it, changes.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from bodyfit.kernels.cpu_edges import NONE, SHORTEST_CUT_PX
from bodyfit.kernels.cpu_raster import FAR, kernel
from bodyfit.kernels.cpu_visible import BESIDE_PX, COVERS, SAME_DEPTH
from bodyfit.kernels.scalar import HALF, ONE, ZERO

BLOCK = 64
"""pairs of a cut and a face that lie side by side; a power of 2"""
PAIRS_AT_ONCE = 1024


@kernel
def part_inside(b, b_rise, c, c_rise, end):
    """The part (low, high) of the way from 0 to `end` where no weight is negative; low ≥ high where there is none.

    The weights: b + b_rise t, c + c_rise t and what is left of 1. Without branches, which would be guessed wrong.
    """
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
def meet_faces(n, pairs, spans, hiding):
    """Where along their cuts n pairs of a cut and a face meet, (blocks, ..., BLOCK) each.

    pairs = the weights of the face's second corner at the cut's beginning and its growth, the same of the third, the
    end of the cut, the face's q there and its growth, and those of the q above which it is in front of the edge. Fills
    spans = first and last place that it hides, first and last at which it lies behind; hiding int32 = whether it hides
    any, whether it lies behind any, whether it hides the whole cut.
    """
    for block in range((n + BLOCK - 1) // BLOCK):
        block = np.uintp(block)
        for k in range(np.uintp(min(BLOCK, n - np.int64(block) * BLOCK))):
            end, there, rise = pairs[block, 4, k], pairs[block, 5, k], pairs[block, 6, k]
            limit, growth = pairs[block, 7, k], pairs[block, 8, k]
            low, high = part_inside(pairs[block, 0, k], pairs[block, 1, k], pairs[block, 2, k], pairs[block, 3, k], end)
            over_low = there + low * rise - (limit + low * growth)
            over_high = there + high * rise - (limit + high * growth)
            before, after = over_low > ZERO, over_high > ZERO  # in front of the edge at either end
            through = low + (high - low) * (over_low / (over_low - over_high))  # read only where it passes through
            found = low < high
            hide_low, hide_high = low if before else through, high if after else through
            spans[block, 0, k], spans[block, 1, k] = hide_low, hide_high
            spans[block, 2, k], spans[block, 3, k] = through if before else low, through if after else high
            hides = found & (before | after)
            hiding[block, 0, k] = np.int32(hides)
            hiding[block, 1, k] = np.int32(found & (not (before & after)))
            hiding[block, 2, k] = np.int32(hides & (hide_low <= ZERO) & (hide_high >= end))


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
    most = room + PAIRS_AT_ONCE
    n_blocks = most // BLOCK + 1
    pairs, spans = np.empty((n_blocks, 9, BLOCK), lines.dtype), np.empty((n_blocks, 4, BLOCK), lines.dtype)
    hiding, pair_planes = np.empty((n_blocks, 3, BLOCK), np.int32), np.empty(n_blocks * BLOCK, np.int32)
    # the cuts whose pairs these are: number, pixel, first pair; beginning, end, point beside the edge, shortest part
    jobs, job_places = np.empty((PAIRS_AT_ONCE + 1, 3), np.int32), np.empty((PAIRS_AT_ONCE, 5), lines.dtype)
    hides, lies = np.empty((room + 1, 2), lines.dtype), np.empty((room + 1, 2), lines.dtype)
    which, which_pair = np.empty(room + 1, np.int64), np.empty(room + 1, np.int64)
    stops = np.empty(2 * room + 2, lines.dtype)
    # Of the pixel's faces, for eight at once: the weight of the second corner at its centre and its growth per pixel,
    # the same of the third.
    near = np.empty((6, room), lines.dtype)
    some = np.empty(room, np.int32)
    least = np.empty(room, lines.dtype)
    kept = 0
    slot, p = -1, np.int64(-1)
    pixel, column, row = np.int32(0), np.float32(0), np.float32(0)
    here = n_near = n_lanes = np.uintp(0)
    while slot < n_slots:
        # As many pairs as there is room for; a pixel's cuts may go on in the next turn.
        n_pairs, n_jobs = np.uintp(0), 0
        while True:
            if p < 0:
                slot += 1
                if slot >= n_slots:
                    break
                pixel, p = pixels[slot], np.int64(first_cuts[slot])
                row, column = np.float32(pixel // width), np.float32(pixel % width)
                here, n_near = np.uintp(firsts[slot]), np.uintp(lengths[slot])
                for h in range(n_near):
                    at = np.uintp(lists[here + h])
                    du, dv = column - planes[at, 0], row - planes[at, 1]
                    near[0, h] = du * planes[at, 3] + dv * planes[at, 4]
                    near[1, h], near[2, h] = planes[at, 3], planes[at, 4]
                    near[3, h] = du * planes[at, 5] + dv * planes[at, 6]
                    near[4, h], near[5, h] = planes[at, 5], planes[at, 6]
                n_lanes = (n_near + np.uintp(7)) & ~np.uintp(7)
                for h in range(n_near, n_lanes):  # these cover nothing
                    near[0, h] = -ONE
                    near[1, h] = near[2, h] = near[3, h] = near[4, h] = near[5, h] = ZERO
                continue
            if n_jobs == PAIRS_AT_ONCE or np.int64(n_pairs + n_near) >= most:
                break
            e = owner[p]
            t0, end = cuts[p, 0], cuts[p, 1] - cuts[p, 0]
            u0, v0, q = lines[e, 0], lines[e, 1], lines[e, 2]
            du, dv, growth, nu, nv = lines[e, 3], lines[e, 4], lines[e, 5], lines[e, 6], lines[e, 7]
            own_a, own_b, more = marks[e, 5], marks[e, 6], marks[e, 7]
            per_length = ONE / sqrt(nu * nu + nv * nv)
            u_off, v_off = t0 * du + BESIDE_PX * per_length * nu, t0 * dv + BESIDE_PX * per_length * nv
            jobs[n_jobs, 0], jobs[n_jobs, 1], jobs[n_jobs, 2] = e, pixel, n_pairs
            job_places[n_jobs, 0], job_places[n_jobs, 1] = t0, end
            job_places[n_jobs, 2], job_places[n_jobs, 3] = u_off, v_off
            job_places[n_jobs, 4] = SHORTEST_CUT_PX * per_length
            n_jobs += 1
            p = np.int64(next_cuts[p])
            q += t0 * growth
            limit = q + SAME_DEPTH * abs(q)  # what is nearer than this hides
            u, v = (u0 - column) + u_off, (v0 - row) + v_off
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
            for m in range(n_some):
                h = np.uintp(some[m])
                plane = np.uintp(lists[here + h])
                f = chosen[plane]
                own = (f == own_a) | (f == own_b)
                if more >= 0:
                    for k in range(bounds[more, 0], bounds[more, 1]):
                        own = own | (incident[k, 0] == f)
                b_du, b_dv, c_du, c_dv = near[1, h], near[2, h], near[4, h], near[5, h]
                q_du, q_dv = planes[plane, 7], planes[plane, 8]
                there = planes[plane, 2] + (u + (column - planes[plane, 0])) * q_du
                there += (v + (row - planes[plane, 1])) * q_dv
                block, k = n_pairs // np.uintp(BLOCK), n_pairs % np.uintp(BLOCK)
                pairs[block, 0, k], pairs[block, 1, k] = near[0, h] + u * b_du + v * b_dv, du * b_du + dv * b_dv
                pairs[block, 2, k], pairs[block, 3, k] = near[3, h] + u * c_du + v * c_dv, du * c_du + dv * c_dv
                pairs[block, 4, k], pairs[block, 5, k], pairs[block, 6, k] = end, there, du * q_du + dv * q_dv
                pairs[block, 7, k], pairs[block, 8, k] = limit, growth
                pair_planes[n_pairs] = plane
                n_pairs += np.uintp(not own)
        meet_faces(np.int64(n_pairs), pairs, spans, hiding)
        jobs[n_jobs, 2] = n_pairs
        for job in range(n_jobs):
            e, pixel_here = jobs[job, 0], jobs[job, 1]
            hidden = 0
            n_hides, n_lies = np.uintp(0), np.uintp(0)
            for m in range(np.uintp(jobs[job, 2]), np.uintp(jobs[job + 1, 2])):
                block, k = m // np.uintp(BLOCK), m % np.uintp(BLOCK)
                hides[n_hides, 0], hides[n_hides, 1] = spans[block, 0, k], spans[block, 1, k]
                lies[n_lies, 0], lies[n_lies, 1] = spans[block, 2, k], spans[block, 3, k]
                which[n_lies], which_pair[n_lies] = pair_planes[m], m
                n_hides += np.uintp(hiding[block, 0, k])
                n_lies += np.uintp(hiding[block, 1, k])
                hidden |= hiding[block, 2, k]
            if hidden != 0:
                continue
            beside = marks[e, 8]
            du, dv = lines[e, 3], lines[e, 4]
            t0, end, u_off, v_off = job_places[job, 0], job_places[job, 1], job_places[job, 2], job_places[job, 3]
            shortest = job_places[job, 4]
            begin = ZERO * end
            if n_hides == 0 and (n_lies == 0 or beside >= 0):  # seen all along, and nothing known behind: most are
                if begin + shortest < end:
                    if kept < parts.shape[0]:
                        middle = HALF * end
                        parts[kept, 0], parts[kept, 1], parts[kept, 2] = pixel_here, e, -1
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
                                block, k = which_pair[h] // BLOCK, which_pair[h] % BLOCK
                                there = pairs[block, 5, k] + middle * pairs[block, 6, k]
                                if there > best and lies[h, 0] <= middle <= lies[h, 1]:
                                    now, best = which[h], there
                    if now == before:
                        continue
                    if before > -2 and stops[m] > begin:
                        if kept < parts.shape[0]:
                            middle = HALF * (begin + stops[m])
                            parts[kept, 0], parts[kept, 1], parts[kept, 2] = pixel_here, e, before
                            places[kept, 0], places[kept, 1] = t0 + middle, stops[m] - begin
                            places[kept, 2], places[kept, 3] = u_off + middle * du, v_off + middle * dv
                        kept += 1
                    begin, before = stops[m], now
                begin = stop
    return kept
