"""The faces at the edges' pixels, and what is told of the pieces of edges that are seen, on the CPU.

`cpu_edges` cuts the edges at the borders of pixels; here each pixel with a cut in it gets the list of the faces that
touch it. `cpu_behind` divides each cut where what hides it, or what lies behind it, changes.
"""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cpu_raster import kernel
from bodyfit.kernels.scalar import HALF, ONE, TWO, ZERO, scalar, surface_weights

# How far beside an edge (pixels) the question is put what is behind it: over the rounding of a coordinate in a large
# image, under anything that one could see.
BESIDE_PX = np.float32(1e-4)
# What is nearer than an edge by less than this share of its depth does not hide it.
SAME_DEPTH = np.float32(1e-5)
COVERS = np.float32(-1e-7)
FACES_AT_ONCE = 256


@scalar
def lowest_bit(word):
    """The number of the lowest bit that is set in a word (uint64): the exponent of that bit as a float."""
    return np.uintp((np.float64(word & (~word + np.uint64(1))).view(np.int64) >> 52) - 1023)


@kernel
def faces_of_pixels(
    screen, faces, areas, signs, only, slots, bits, n_slots, links, lists, chosen, planes, lengths, firsts
):
    """Lists of the faces whose bounding boxes meet each numbered pixel.

    signs (F,) as of face_signs; only: leave out faces of another sign than this; 0: none. slots (H, W) has the pixels'
    numbers, bits their bits, as of cut_edges. Fills chosen (F + 1,) with the faces in any list; planes (F + 1, 9), of
    each of these: u, v, q of the first corner and how the weights of the second and third and q change per pixel.
    Fills lists (N,), places in `chosen`: a pixel's begin at firsts (n_slots,) and are lengths (n_slots,) many. links
    (N + 1, 2) is scratch. Returns how long lists has to be; where it is not, nothing is in it.
    """
    height, width = slots.shape
    one, rest, six, all_bits = np.uint64(1), np.uint64(63), np.uint64(6), ~np.uint64(0)
    four, fifteen = np.uint64(4), np.uint64(15)
    wanted = np.uint8(3) if only == 0 else (np.uint8(1) if only > 0 else np.uint8(2))
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    half = HALF + TWO * BESIDE_PX  # with room for the points beside the edges
    lengths[:] = 0
    candidates = np.empty(FACES_AT_ONCE + 1, np.int32)
    boxes = np.empty((4, FACES_AT_ONCE), np.int32)
    corners = np.empty((6, FACES_AT_ONCE), screen.dtype)
    n, n_chosen = np.uintp(0), np.uintp(0)
    last = np.uintp(lists.shape[0])  # the row of links for what finds no room
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
            if small:
                # the numbered pixels of all its rows, 16 bits a row
                word, shift = np.uint64(c0) >> six, np.uint64(c0) & rest
                there = np.uint64(0)
                for r in range(4):
                    down = np.uintp(r0) + np.uintp(r)
                    row = (bits[down, word] >> shift) | ((bits[down, word + one] << (rest - shift)) << one)
                    there |= (row & (all_bits >> (rest - np.uint64(c1 - c0)))) << np.uint64(16 * r)
                there &= all_bits >> (np.uint64(3 - (r1 - r0)) << four)
                while there != np.uint64(0):
                    bit = lowest_bit(there)
                    slot = slots[np.uintp(r0) + (bit >> four), np.uintp(c0) + (bit & fifteen)]
                    at = min(n, last)
                    links[at, 0], links[at, 1] = slot, n_chosen
                    lengths[np.uintp(slot)] += np.int32(1)
                    n += np.uintp(1)
                    there &= there - one
            else:
                for r in range(np.uintp(r0), np.uintp(r1 + 1)):
                    for start in range(c0, c1 + 1, 64):
                        # the numbered pixels among up to 64 from here on, a bit each
                        word, shift = np.uint64(start) >> six, np.uint64(start) & rest
                        there = (bits[r, word] >> shift) | ((bits[r, word + one] << (rest - shift)) << one)
                        there &= all_bits >> (rest - np.uint64(min(c1 - start, 63)))
                        while there != np.uint64(0):
                            slot = slots[r, np.uintp(start) + lowest_bit(there)]
                            at = min(n, last)
                            links[at, 0], links[at, 1] = slot, n_chosen
                            lengths[np.uintp(slot)] += np.int32(1)
                            n += np.uintp(1)
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
            place = n_chosen
            planes[place, 0], planes[place, 1], planes[place, 2] = ua, va, qa
            planes[place, 3], planes[place, 4], planes[place, 5], planes[place, 6] = lb_du, lb_dv, lc_du, lc_dv
            planes[place, 7], planes[place, 8] = qb * lb_du + qc * lc_du, qb * lb_dv + qc * lc_dv
            n_chosen += np.uintp(1)
    if n > last:
        return np.int64(n)
    end = np.int32(0)
    for slot in range(n_slots):
        end += lengths[slot]
        firsts[slot] = end
    for k in range(n):
        slot = np.uintp(links[k, 0])
        firsts[slot] -= np.int32(1)
        lists[np.uintp(firsts[slot])] = links[k, 1]
    return np.int64(n)


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
