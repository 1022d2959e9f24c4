"""The edges of a picture on the CPU: where, in which pixel, what ends and what is seen behind it.

The integral of an image over a pixel changes with an edge that runs through it by the line integral, along the edge's
visible part, of (what is seen on one side - what is seen on the other) × (speed of the edge across itself): Li et al.
2018 sample that integral, here it is summed over pieces of at most half a pixel. An edge matters where the surface
ends or turns away (both its faces on one side of it), and, for values that jump across it, where it is a seam.

Whether a piece is seen, and what lies behind it, is asked of the triangles themselves, at that point, not of a
picture: each pixel with a piece in it gets the list of the faces that touch it.
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

from bodyfit.kernels.cpu_raster import FAR, kernel, weights_at
from bodyfit.kernels.scalar import HALF, ONE, ZERO, slope_of

# How far beside an edge (pixels) the question is put what is behind it: over the rounding of a coordinate in a large
# image, under anything that one could see.
BESIDE_PX = np.float32(2e-3)
# What is nearer than an edge by less than this share of its depth does not hide it.
SAME_DEPTH = np.float32(1e-5)
COVERS = np.float32(-1e-6)
LONGEST_PIECE_PX, SHORTEST_PIECE_PX = np.float32(0.5), np.float32(1e-6)
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
def most_pieces(screen, faces, incident, found, n_found, width, height):
    """At least as many as cut_edges will make."""
    total = 0
    for e in range(n_found):
        k = found[e, 0]
        f = incident[k, 0]
        i, j = faces[f, incident[k, 1]], faces[f, incident[k, 2]]
        t0, t1 = inside_image(screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1], width, height)
        if t0 < t1:
            span = (abs(screen[j, 0] - screen[i, 0]) + abs(screen[j, 1] - screen[i, 1])) * (t1 - t0)
            total += 4 * np.int64(span) + 8
    return total


@kernel
def cut_edges(screen, faces, areas, incident, found, n_found, slots, rows, ints, floats, owner):
    """Cuts edges at the borders of pixels, and longer pieces into halves of a pixel.

    Fills ints, floats but for what is behind, and owner (N,), the edge's place in `found`; numbers the pixels met in
    slots (H, W) int32, which comes filled with -1, and gives rows (H, 2) the first and last such column. Returns the
    numbers of pieces and of pixels.
    """
    height, width = slots.shape
    n = n_slots = 0
    for e in range(n_found):
        k = found[e, 0]
        f = incident[k, 0]
        corner_i, corner_j = incident[k, 1], incident[k, 2]
        i, j = faces[f, corner_i], faces[f, corner_j]
        u0, v0, q0 = screen[i, 0], screen[i, 1], screen[i, 2]
        u1, v1, q1 = screen[j, 0], screen[j, 1], screen[j, 2]
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
            if not (stop - t) * length > SHORTEST_PIECE_PX:
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
                parts = max(1, np.int64(ceil((stop - t) * length / LONGEST_PIECE_PX)))
                if n + parts > ints.shape[0]:
                    return -1, n_slots
                part = (stop - t) / np.float32(parts)
                for p in range(parts):
                    s = t + (np.float32(p) + HALF) * part
                    ints[n, 0], ints[n, 1], ints[n, 2] = row * width + column, f, NONE
                    ints[n, 3], ints[n, 4] = i, j
                    floats[n, 0], floats[n, 1], floats[n, 2] = s, nu * part, nv * part
                    floats[n, 3], floats[n, 4] = u0 + s * du, v0 + s * dv
                    owner[n] = e
                    n += 1
            t = stop
    return n, n_slots


@kernel
def faces_of_pixels(screen, faces, areas, slots, rows, planes, heads, links):
    """Lists, for the numbered pixels, the faces that touch them.

    heads (n_slots,) comes -1; links (N, 2) = (face, next); planes (F, 9) = u, v, q of the first corner and how the
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
                if n < links.shape[0]:
                    links[n, 0], links[n, 1] = f, heads[slot]
                    heads[slot] = n
                n += 1
    return n


@kernel
def look_behind(screen, faces, starts_of, incident, found, slots, planes, heads, links, perspective, n, ints, floats, owner):
    """Drops the pieces that are hidden and completes the others with what is behind; returns how many are left.

    starts_of (N_incident, 2): for a row of `incident` the first and last row of its edge.
    """
    width = slots.shape[1]
    kept = 0
    for p in range(n):
        e = owner[p]
        k = found[e, 0]
        beside = found[e, 1]
        first, last = starts_of[k, 0], starts_of[k, 1]
        i, j = ints[p, 3], ints[p, 4]
        t = floats[p, 0]
        nu, nv = floats[p, 1], floats[p, 2]
        q0, q1 = screen[i, 2] * (ONE - t), screen[j, 2] * t
        q = q0 + q1
        to_beside = BESIDE_PX / sqrt(nu * nu + nv * nv)
        u, v = floats[p, 3] + to_beside * nu, floats[p, 4] + to_beside * nv
        limit = q + SAME_DEPTH * abs(q)
        behind, behind_q = NONE, FAR * ONE
        hidden = False
        pixel = ints[p, 0]
        link = heads[slots[pixel // width, pixel % width]]
        while link >= 0:
            f = links[link, 0]
            link = links[link, 1]
            du, dv = u - planes[f, 0], v - planes[f, 1]
            lb, lc = du * planes[f, 3] + dv * planes[f, 4], du * planes[f, 5] + dv * planes[f, 6]
            if lb < COVERS or lc < COVERS or lb + lc > ONE - COVERS:
                continue
            there = planes[f, 2] + du * planes[f, 7] + dv * planes[f, 8]
            if not there > behind_q:
                continue
            own = False
            for m in range(first, last):
                own = own or incident[m, 0] == f
            if own:
                continue
            if there > limit:
                hidden = True
                break
            behind, behind_q = f, there
        if hidden:
            continue
        ints[kept, 0], ints[kept, 1], ints[kept, 3], ints[kept, 4] = pixel, ints[p, 1], i, j
        for m in range(5):
            floats[kept, m] = floats[p, m]
        if perspective:
            z = ONE / q
            w0, w1 = q0 * z, q1 * z
        else:
            z, w0, w1 = -q, ONE - t, t
        for m in range(5, FLOATS):
            floats[kept, m] = ZERO
        floats[kept, 5 + incident[k, 1]], floats[kept, 5 + incident[k, 2]], floats[kept, 8] = w0, w1, z
        if beside >= 0:
            ints[kept, 2] = incident[beside, 0]
            floats[kept, 9 + incident[beside, 1]], floats[kept, 9 + incident[beside, 2]] = w0, w1
            floats[kept, 12] = z
        else:
            ints[kept, 2] = behind
            if behind >= 0:
                b0, b1, b2, bz = weights_at(
                    screen, faces[behind, 0], faces[behind, 1], faces[behind, 2], u, v, perspective
                )
                floats[kept, 9], floats[kept, 10], floats[kept, 11], floats[kept, 12] = b0, b1, b2, bz
        kept += 1
    return kept


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
