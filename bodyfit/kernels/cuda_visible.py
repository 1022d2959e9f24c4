"""What is seen of the edges of a batch of pictures, and what lies behind them, on a GPU; see `cpu_behind`.

Each pixel with a cut in it has a chain of the faces that touch it; a thread follows it for one cut. Nothing is sorted:
where a cut is next hidden, or what is behind it next changes, is asked of the chain again.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import int32

from bodyfit.kernels.cpu_edges import FLOATS, SHORTEST_CUT_PX
from bodyfit.kernels.cpu_raster import FAR
from bodyfit.kernels.cpu_visible import BESIDE_PX, SAME_DEPTH
from bodyfit.kernels.cuda_edges import BESIDE, CUTS, IMAGE, LARGE, LINKS, OWNER, PIECES, PIXEL, ROW, only_sign
from bodyfit.kernels.cuda_jit import F2, F3, FLAG, I1, I2, I3, cuda, device, kernel
from bodyfit.kernels.scalar import HALF, ONE, ZERO, surface_weights
from bodyfit.kernels.scalar_edges import face_plane, parts_over_face, touches_pixel

FACE, NEXT = 0, 1
"""Columns of a link of a chain: the face, and the next link's number + 1 (0: no more)."""
LARGE_PX = 512
"""A face over so many pixels is linked by a whole block of threads."""
MINE = 24
"""So many faces over one cut are remembered; where there are more, the whole chain is followed every time."""
OVER = -3


@device
def reach_of(screen, faces, b, f, height, width):
    """First row, last row, first column and last column of the pixels about a face; last < first off the image."""
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    ua, ub, uc = screen[b, i, 0], screen[b, j, 0], screen[b, k, 0]
    va, vb, vc = screen[b, i, 1], screen[b, j, 1], screen[b, k, 1]
    v_low, v_high = min(va, vb, vc) + HALF, max(va, vb, vc) + HALF
    u_low, u_high = min(ua, ub, uc) + HALF, max(ua, ub, uc) + HALF
    if v_high < ZERO or v_low >= np.float32(height) or u_high < ZERO or u_low >= np.float32(width):
        return 0, -1, 0, -1
    r0, r1 = np.int32(max(v_low, ZERO)), np.int32(min(v_high, np.float32(height - 1)))
    c0, c1 = np.int32(max(u_low, ZERO)), np.int32(min(u_high, np.float32(width - 1)))
    return r0, r1, c0, c1


@device
def link_pixels(screen, faces, areas, b, f, r0, r1, c0, c1, begin, step, heads, planes, links, counts):
    """Puts a face at the head of the chains of every step-th pixel from `begin` on of those that it touches."""
    wide = c1 - c0 + 1
    known = False
    ua = va = lb_du = lb_dv = lc_du = lc_dv = ZERO
    n = 0
    for k in range(begin, (r1 - r0 + 1) * wide, step):
        r = r0 + k // wide
        c = c0 + k - (r - r0) * wide
        if heads[b, r, c] < 0:
            continue
        if not known:
            known = True
            x, y, z = faces[f, 0], faces[f, 1], faces[f, 2]
            ua, va, qa = screen[b, x, 0], screen[b, x, 1], screen[b, x, 2]
            lb_du, lb_dv, lc_du, lc_dv, q_du, q_dv = face_plane(
                ua, va, qa, screen[b, y, 0], screen[b, y, 1], screen[b, y, 2],
                screen[b, z, 0], screen[b, z, 1], screen[b, z, 2], areas[b, f],
            )  # fmt: skip
            planes[b, f, 0], planes[b, f, 1], planes[b, f, 2] = ua, va, qa
            planes[b, f, 3], planes[b, f, 4], planes[b, f, 5], planes[b, f, 6] = lb_du, lb_dv, lc_du, lc_dv
            planes[b, f, 7], planes[b, f, 8] = q_du, q_dv
        n += touches_pixel(np.float32(c) - ua, np.float32(r) - va, lb_du, lb_dv, lc_du, lc_dv)
    if n == 0:
        return
    # counted first: every thread would wait for the one counter once per pixel
    at = cuda.atomic.add(counts, LINKS, n)
    for k in range(begin, (r1 - r0 + 1) * wide, step):
        r = r0 + k // wide
        c = c0 + k - (r - r0) * wide
        if heads[b, r, c] < 0:
            continue
        if touches_pixel(np.float32(c) - ua, np.float32(r) - va, lb_du, lb_dv, lc_du, lc_dv):
            if at < links.shape[0]:
                links[at, FACE] = f
                links[at, NEXT] = cuda.atomic.exch(heads, (b, r, c), at + 1)
            at += 1


@kernel(F3, I2, F2, I1, FLAG, I3, F3, I2, I2, I1)
def link_faces(screen, faces, areas, seen, closed, heads, planes, links, large, counts):
    """Chains (heads (B, H, W), links (N, 2)) of the faces that touch a pixel with a cut in it, which comes as 0.

    planes (B, F, 9): of each face in a chain u, v, q of the first corner and how the weights of the second and third
    and q change per pixel. large (M, 2): image and face of those left to `link_large_faces`.
    """
    n_faces = faces.shape[0]
    height, width = heads.shape[1], heads.shape[2]
    for i in range(cuda.grid(1), screen.shape[0] * n_faces, cuda.gridsize(1)):
        b = i // n_faces
        f = i - b * n_faces
        area = areas[b, f]
        if area == ZERO or area * np.float32(only_sign(seen[b], closed)) < ZERO:
            continue
        r0, r1, c0, c1 = reach_of(screen, faces, b, f, height, width)
        if (r1 - r0 + 1) * (c1 - c0 + 1) > LARGE_PX:
            at = cuda.atomic.add(counts, LARGE, 1)
            if at < large.shape[0]:
                large[at, 0], large[at, 1] = b, f
                continue
        link_pixels(screen, faces, areas, b, f, r0, r1, c0, c1, 0, 1, heads, planes, links, counts)


@kernel(F3, I2, F2, I2, I3, F3, I2, I1)
def link_large_faces(screen, faces, areas, large, heads, planes, links, counts):
    """Does what `link_faces` left: a block of threads for each face."""
    height, width = heads.shape[1], heads.shape[2]
    for k in range(cuda.blockIdx.x, min(counts[LARGE], large.shape[0]), cuda.gridDim.x):
        b, f = large[k, 0], large[k, 1]
        r0, r1, c0, c1 = reach_of(screen, faces, b, f, height, width)
        link_pixels(
            screen, faces, areas, b, f, r0, r1, c0, c1, cuda.threadIdx.x, cuda.blockDim.x, heads, planes, links, counts
        )


@device
def is_about(incident, first, last, f):
    """Whether a face is one of those about an edge, the rows from first to last of incident."""
    about = False
    for m in range(first, last):
        about |= incident[m, 0] == f
    return about


@device
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


@device
def over_cut(planes, b, f, u0, v0, u_off, v_off, du, dv, end, limit, growth):
    """`parts_over_face` of face f, whose q at the cut's beginning and the growth of that follow.

    (u0, v0): the edge's first end; (u_off, v_off): from there to the cut's beginning, a little beside the edge;
    (du, dv): the whole edge.
    """
    u, v = (u0 - planes[b, f, 0]) + u_off, (v0 - planes[b, f, 1]) + v_off
    lb_du, lb_dv, lc_du, lc_dv = planes[b, f, 3], planes[b, f, 4], planes[b, f, 5], planes[b, f, 6]
    there = planes[b, f, 2] + u * planes[b, f, 7] + v * planes[b, f, 8]
    rise = du * planes[b, f, 7] + dv * planes[b, f, 8]
    h_low, h_high, l_low, l_high = parts_over_face(
        u * lb_du + v * lb_dv, du * lb_du + dv * lb_dv, u * lc_du + v * lc_dv, du * lc_du + dv * lc_dv, end,
        there, rise, limit, growth,
    )  # fmt: skip
    return h_low, h_high, l_low, l_high, there, rise


@device
def next_face(links, incident, first, last, mine, n_mine, at):
    """The next face over a cut (-1: no more) and where to go on: in mine (n_mine,), or in the chain if n_mine < 0."""
    if n_mine >= 0:
        if at < n_mine:
            return mine[at], at + 1
        return -1, at
    while at > 0:
        f, at = links[at - 1, FACE], links[at - 1, NEXT]
        if not is_about(incident, first, last, f):
            return f, at
    return -1, 0


@kernel(F3, I2, I2, I2, I2, I2, F2, I3, I2, F3, FLAG, I2, F2, I1)
def look_behind(
    screen, faces, bounds, incident, found, cut_ints, cut_floats, heads, links, planes, perspective, ints, floats,
    counts,
):  # fmt: skip
    """The parts of the cuts that are seen, each with what is behind it, into ints (N, 6) and floats (N, 13).

    bounds (N, 2) as in `cpu_behind.look_behind`, whose pieces these are; the sixth whole number is the image.
    """
    width = heads.shape[2]
    mine = cuda.local.array(MINE, int32)
    for p in range(cuda.grid(1), min(counts[CUTS], cut_ints.shape[0]), cuda.gridsize(1)):
        e, pixel = cut_ints[p, OWNER], cut_ints[p, PIXEL]
        b, row, beside = found[e, IMAGE], found[e, ROW], found[e, BESIDE]
        f = incident[row, 0]
        first, last = bounds[row, 0], bounds[row, 1]
        i, j = faces[f, incident[row, 1]], faces[f, incident[row, 2]]
        t0, end = cut_floats[p, 0], cut_floats[p, 1] - cut_floats[p, 0]
        nu, nv = cut_floats[p, 2], cut_floats[p, 3]
        u0, v0 = screen[b, i, 0], screen[b, i, 1]
        du, dv = screen[b, j, 0] - u0, screen[b, j, 1] - v0
        length = sqrt(nu * nu + nv * nv)
        to_beside, shortest = BESIDE_PX / length, SHORTEST_CUT_PX / length
        u_off, v_off = t0 * du + to_beside * nu, t0 * dv + to_beside * nv
        growth = screen[b, j, 2] - screen[b, i, 2]
        q = screen[b, i, 2] + t0 * growth
        limit = q + SAME_DEPTH * abs(q)  # what is nearer than this hides

        head = heads[b, pixel // width, pixel - pixel // width * width]
        n_mine, hidden, at = 0, False, head
        while at > 0:
            f, at = links[at - 1, FACE], links[at - 1, NEXT]
            h_low, h_high, l_low, l_high, _, _ = over_cut(
                planes, b, f, u0, v0, u_off, v_off, du, dv, end, limit, growth
            )
            if (h_low < h_high or l_low < l_high) and not is_about(incident, first, last, f):
                if h_low <= ZERO and h_high >= end:
                    hidden = True
                    break
                if n_mine < MINE:
                    mine[n_mine] = f
                n_mine += 1
        if hidden:
            continue
        start = 0
        if n_mine > MINE:
            start, n_mine = head, -1

        begin = ZERO
        while begin < end:
            # past everything that hides; then as far as nothing does
            moved = True
            stop = end
            while moved:
                moved, stop = False, end
                f, at = next_face(links, incident, first, last, mine, n_mine, start)
                while f >= 0:
                    h_low, h_high, l_low, l_high, _, _ = over_cut(
                        planes, b, f, u0, v0, u_off, v_off, du, dv, end, limit, growth
                    )
                    if h_low < h_high and h_high > begin:
                        if h_low <= begin + shortest:
                            begin, moved = h_high, True
                        else:
                            stop = min(stop, h_low)
                    f, at = next_face(links, incident, first, last, mine, n_mine, at)
            if begin + shortest >= end:
                break
            # between the ends of what lies behind nothing changes: one look in the middle tells which is next
            before, piece, here, now = -2, begin, begin, -2
            while now != OVER:
                now, onward, best = OVER, stop, FAR
                if here < stop:
                    now = -1
                    if beside < 0:
                        f, at = next_face(links, incident, first, last, mine, n_mine, start)
                        while f >= 0:
                            _, _, l_low, l_high, _, _ = over_cut(
                                planes, b, f, u0, v0, u_off, v_off, du, dv, end, limit, growth
                            )
                            if l_low < l_high and l_high > here:
                                onward = min(onward, l_low if l_low > here else l_high)
                            f, at = next_face(links, incident, first, last, mine, n_mine, at)
                        middle = HALF * (here + onward)
                        f, at = next_face(links, incident, first, last, mine, n_mine, start)
                        while f >= 0:
                            _, _, l_low, l_high, there, rise = over_cut(
                                planes, b, f, u0, v0, u_off, v_off, du, dv, end, limit, growth
                            )
                            there += middle * rise
                            # of two at one depth the lower number, whatever the order of the chain
                            if l_low <= middle <= l_high and (there > best or (there == best and f < now)):
                                now, best = f, there
                            f, at = next_face(links, incident, first, last, mine, n_mine, at)
                if now != before:
                    if before > -2:
                        at = cuda.atomic.add(counts, PIECES, 1)
                        if at < ints.shape[0]:
                            s = HALF * (piece + here)
                            put_piece(
                                screen[b], faces, incident, planes[b], perspective, row, beside, before, pixel, t0 + s,
                                here - piece, u_off + s * du, v_off + s * dv, nu, nv, ints, floats, at,
                            )  # fmt: skip
                            ints[at, 5] = b
                    piece, before = here, now
                here = onward
            begin = stop
