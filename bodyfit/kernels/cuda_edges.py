"""The edges of a batch of pictures on a GPU: which matter, cut at the borders of pixels, and what moves their ends.

As `cpu_edges`, for all images at once: what is found goes into flat lists, in whatever order the threads come, and
`counts` says how many there are, also where they did not fit. `cuda_visible` asks what is seen of each cut.
"""

from __future__ import annotations

from math import floor, sqrt

import numpy as np

from bodyfit.kernels.cpu_edges import NONE, SHORTEST_CUT_PX, front_of_side, inside_image
from bodyfit.kernels.cuda_jit import F1, F2, F3, FLAG, I1, I2, I3, INT, U1, cuda, device, kernel
from bodyfit.kernels.scalar import HALF, ONE, ZERO
from bodyfit.kernels.scalar_edges import first_border, share_at_border

FOUND, CUTS, LINKS, PIECES, LARGE, COUNTS = 0, 1, 2, 3, 4, 5
"""Places in `counts`: edges that matter, their cuts, pairs of a pixel and a face, pieces, large faces; all of them."""
OUTLINES, SEAMS = 0, 1
IMAGE, ROW, BESIDE = 0, 1, 2
"""Columns of an edge that matters: image, row of `incident` in front, row beside it (-1: none)."""
OWNER, PIXEL = 0, 1
"""Columns of a cut's whole numbers: place among the edges that matter, pixel (row × width + column)."""


@device
def only_sign(seen, closed):
    """The one sign of faces that can be seen in an image, 0 where it may be both; see `find_edges`."""
    if closed and seen == 1:
        return 1
    if closed and seen == 2:
        return -1
    return 0


@kernel(F3, I2, F2, I1, I1, I1, I2, U1, INT, FLAG, I2, I1)
def find_edges(screen, faces, areas, seen, starts, sides, incident, seams, which, closed, found, counts):
    """Edges that matter, into found (N, 3).

    screen (B, V, 3), faces (F, 3), areas (B, F); starts, sides, incident, seams as in `cpu_edges.find_edges`. seen
    (B,): 1 where an image's samples saw faces of positive area, 2 of negative area, 3 of both. Outside of a closed
    surface of which only one side is seen, the other is left out. which: OUTLINES or SEAMS.
    """
    n_edges, n_faces = starts.shape[0] - 1, faces.shape[0]
    for i in range(cuda.grid(1), screen.shape[0] * n_edges, cuda.gridsize(1)):
        b = i // n_edges
        e = i - b * n_edges
        if which == SEAMS and not seams[e]:
            continue
        first, last = starts[e], starts[e + 1]
        positive = negative = False
        for k in range(first, last):
            side = sides[k]
            turned = side >= n_faces
            area = areas[b, side - n_faces if turned else side]
            positive |= area < ZERO if turned else area > ZERO
            negative |= area > ZERO if turned else area < ZERO
        if positive == negative if which == OUTLINES else not (positive and negative):
            continue
        row = front_of_side(screen[b], faces, areas[b], incident, first, last, 1 if positive else -1)
        beside = NONE
        if which == SEAMS:
            beside = front_of_side(screen[b], faces, areas[b], incident, first, last, -1)
        elif areas[b, incident[row, 0]] * np.float32(only_sign(seen[b], closed)) < ZERO:
            continue
        at = cuda.atomic.add(counts, FOUND, 1)
        if at < found.shape[0]:
            found[at, IMAGE], found[at, ROW], found[at, BESIDE] = b, row, beside


@kernel(F3, I2, F2, I2, I2, INT, INT, I3, I2, F2, I1)
def cut_edges(screen, faces, areas, incident, found, height, width, heads, cut_ints, cut_floats, counts):
    """Cuts edges at the borders of pixels.

    Fills cut_ints (N, 2) and cut_floats (N, 4), the share of the edge where the cut begins and where it ends, and the
    edge's normal (u, v) away from the face in front, as long as the whole edge; marks with 0 in heads (B, H, W), which
    comes filled with -1, the pixels that have a cut.
    """
    n_found = min(counts[FOUND], found.shape[0])
    for e in range(cuda.grid(1), n_found, cuda.gridsize(1)):
        b, k = found[e, IMAGE], found[e, ROW]
        f = incident[k, 0]
        i, j = faces[f, incident[k, 1]], faces[f, incident[k, 2]]
        u0, v0 = screen[b, i, 0], screen[b, i, 1]
        u1, v1 = screen[b, j, 0], screen[b, j, 1]
        t, t_end = inside_image(u0, v0, u1, v1, width, height)
        if not t < t_end:
            continue
        du, dv = u1 - u0, v1 - v0
        length = sqrt(du * du + dv * dv)
        away = ONE if areas[b, f] * np.float32(incident[k, 3]) > ZERO else -ONE
        nu, nv = away * dv, -away * du
        step_u, step_v = (1 if du > ZERO else -1), (1 if dv > ZERO else -1)
        border_u = first_border(u0 + t * du + HALF, step_u, width)
        border_v = first_border(v0 + t * dv + HALF, step_v, height)
        while t < t_end:
            next_u, next_v = share_at_border(border_u, width, u0, du), share_at_border(border_v, height, v0, dv)
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
            column = np.int64(floor(u0 + middle * du + HALF))
            row = np.int64(floor(v0 + middle * dv + HALF))
            if 0 <= column < width and 0 <= row < height:
                heads[b, row, column] = 0
                at = cuda.atomic.add(counts, CUTS, 1)
                if at < cut_ints.shape[0]:
                    cut_ints[at, OWNER], cut_ints[at, PIXEL] = e, row * width + column
                    cut_floats[at, 0], cut_floats[at, 1] = t, stop
                    cut_floats[at, 2], cut_floats[at, 3] = nu, nv
            t = stop


@kernel(I2, F2, I1, F1, F3)
def scatter_edges(ints, floats, count, jumps, v_screen):
    """Adds to v_screen (B, V, 3) what moves the ends of the edges; jumps (N,) is the loss per area won."""
    for p in range(cuda.grid(1), min(count[0], ints.shape[0]), cuda.gridsize(1)):
        i, j, b = ints[p, 3], ints[p, 4], ints[p, 5]
        t = floats[p, 0]
        gu, gv = jumps[p] * floats[p, 1], jumps[p] * floats[p, 2]
        cuda.atomic.add(v_screen, (b, i, 0), (ONE - t) * gu)
        cuda.atomic.add(v_screen, (b, i, 1), (ONE - t) * gv)
        cuda.atomic.add(v_screen, (b, j, 0), t * gu)
        cuda.atomic.add(v_screen, (b, j, 1), t * gv)


@kernel(I2, F2, I1, F3, F3, F1)
def cover_jumps(ints, floats, count, v_alpha, v_depth, jumps):
    """jumps (N,) for coverage and depth; v_alpha and v_depth (B, H, W)."""
    width = v_alpha.shape[2]
    for p in range(cuda.grid(1), min(count[0], ints.shape[0]), cuda.gridsize(1)):
        b = ints[p, 5]
        row = ints[p, 0] // width
        column = ints[p, 0] - row * width
        g = v_depth[b, row, column]
        if ints[p, 2] >= 0:
            jumps[p] = g * (floats[p, 8] - floats[p, 12])
        else:
            jumps[p] = v_alpha[b, row, column] + g * floats[p, 8]


@kernel(I1, I1)
def note_most(counts, most):
    """most (COUNTS,) = the largest that each of counts ever was."""
    k = cuda.grid(1)
    if k < COUNTS:
        most[k] = max(most[k], counts[k])
