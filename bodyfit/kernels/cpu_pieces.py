"""The visible pieces of edges on the CPU, from the mesh on the screen to what gradients take, in one call."""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cpu_behind import look_behind
from bodyfit.kernels.cpu_edges import FLOATS, INTS, cut_edges, describe_edges, face_signs, find_edges
from bodyfit.kernels.cpu_raster import kernel
from bodyfit.kernels.cpu_visible import faces_of_pixels, fill_pieces


@kernel
def find_pieces(
    screen, faces, areas, starts, sides, incident, bounds, seams, closed, which, only, perspective, slots
):  # fmt: skip
    """ints and floats (see `cpu_edges`) of the visible pieces of the edges that matter: all of the above in one call.

    closed: two faces about every edge. slots (H, W) int32 is scratch; the other arguments as in `find_edges`.
    """
    height, width = slots.shape
    n_edges, n_faces = starts.shape[0] - 1, faces.shape[0]
    signs = np.empty(2 * n_faces, np.uint8)
    face_signs(areas, signs)
    edges, found = np.empty(n_edges, np.int32), np.empty((n_edges, 2), np.int32)
    n_found = find_edges(
        screen, faces, areas, signs, starts, sides, incident, seams, closed, which, only, edges, found
    )  # fmt: skip
    lines, marks = np.empty((n_found, 8), screen.dtype), np.empty((n_found, 9), np.int32)
    room = describe_edges(screen, faces, areas, bounds, incident, found, n_found, width, height, lines, marks)
    cuts, owner, pixels = np.empty((room, 2), screen.dtype), np.empty(room, np.int32), np.empty(room, np.int32)
    first_cuts, next_cuts = np.empty(room, np.int32), np.empty(room, np.int32)
    bits = np.zeros((height + 3, width // 64 + 2), np.uint64)
    n, n_slots = cut_edges(lines, n_found, slots, bits, cuts, owner, pixels, first_cuts, next_cuts)
    assert n >= 0, "there was room promised for every cut"
    chosen, planes = np.empty(n_faces + 1, np.int32), np.empty((n_faces + 1, 9), screen.dtype)
    lengths, firsts = np.empty(n_slots, np.int32), np.empty(n_slots, np.int32)
    length = 32 * max(n_slots, 64)
    links, lists = np.empty((length + 1, 2), np.int32), np.empty(length, np.int32)
    needed = faces_of_pixels(
        screen, faces, areas, signs, only, slots, bits, n_slots, links, lists, chosen, planes, lengths, firsts
    )
    if needed > length:
        links, lists = np.empty((needed + 1, 2), np.int32), np.empty(needed, np.int32)
        faces_of_pixels(
            screen, faces, areas, signs, only, slots, bits, n_slots, links, lists, chosen, planes, lengths, firsts
        )
    space = 2 * n + 256
    parts, places = np.empty((space, 3), np.int32), np.empty((space, 4), screen.dtype)
    kept = look_behind(
        bounds, incident, lines, marks, width, chosen, planes, pixels, n_slots, firsts, lengths, lists, first_cuts,
        next_cuts, cuts, owner, parts, places,
    )  # fmt: skip
    if kept > space:
        parts, places = np.empty((kept, 3), np.int32), np.empty((kept, 4), screen.dtype)
        look_behind(
            bounds, incident, lines, marks, width, chosen, planes, pixels, n_slots, firsts, lengths, lists, first_cuts,
            next_cuts, cuts, owner, parts, places,
        )  # fmt: skip
    ints, floats = np.empty((kept, INTS), np.int32), np.empty((kept, FLOATS), screen.dtype)
    fill_pieces(
        screen, faces, incident, lines, marks, chosen, planes, perspective, parts[:kept], places[:kept], ints, floats
    )
    return ints, floats
