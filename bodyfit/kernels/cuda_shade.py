"""Images of shaded surfaces on a GPU: `cpu_shade` for a batch, a thread per pixel; see `cuda_layers`."""

from __future__ import annotations

import numpy as np
from numba import float32, types

from bodyfit.kernels.cpu_albedo import TEXTURED, albedo_at, texels_at, texels_vjp, uv_vjp, vertex_albedo_vjp
from bodyfit.kernels.cpu_raster import scatter_weights, weights_at
from bodyfit.kernels.cpu_shade import LIT, PERSPECTIVE, color_at, color_of_side, lit_vjp
from bodyfit.kernels.cuda_jit import F1, F2, F3, F4, I1, I2, I3, INT, SIMULATED, THREADS, cuda, device, kernel
from bodyfit.kernels.cuda_layers import IMAGE, add_corners, place_of, row_of, sample_of, take_corners
from bodyfit.kernels.scalar import ONE, ZERO

U2 = types.Array(types.uint8, 2, "C")
SURFACE = (F3, F3, F3, F4, F3)
LIGHT = (F3, F3, U2, F2, F2)

MOST_LAMPS = 4
"""A thread sums the cotangents of so many lamps at once."""
TILE = 64 if SIMULATED else 1024
"""Pixels of one image that a block of threads goes through before it adds its sums to the light's cotangents."""
AT_ONCE, PARTS = 16, 8
"""A block sums so many numbers at once, each with so many threads."""
ACROSS = THREADS + PARTS  # so that the threads of a warp read from different banks


@kernel(F3, I2, I2, F2, I3, INT, INT, *SURFACE, *LIGHT, F4)
def paint_color(
    screen, faces, uv_faces, areas, ids, samples, flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss,
    eye, image,
):  # fmt: skip
    """image (B, H, W, 3), which comes 0, = mean over all samples of the linear colour."""
    height, width = image.shape[1], image.shape[2]
    share = ONE / np.float32(samples * samples)
    perspective = (flags & PERSPECTIVE) != 0
    for p in range(cuda.grid(1), image.shape[0] * height * width, cuda.gridsize(1)):
        for s in range(samples * samples):
            b, row, column, r, col = sample_of(p, s, height, width, samples)
            f = ids[b, r, col]
            if f < 0:
                continue
            u, v = place_of(col, samples), place_of(r, samples)
            pa, pb, pc, _ = weights_at(screen[b], faces[f, 0], faces[f, 1], faces[f, 2], u, v, perspective)
            red, green, blue = color_at(
                flags, points[row_of(points, b)], normals[row_of(normals, b)], albedo[row_of(albedo, b)],
                picture[row_of(picture, b)], uv[row_of(uv, b)], sh[row_of(sh, b)], lamps[row_of(lamps, b)],
                places[row_of(places, b)], gloss[row_of(gloss, b)], eye[row_of(eye, b)], faces, uv_faces, f,
                pa, pb, pc, areas[b, f],
            )  # fmt: skip
            image[b, row, column, 0] += share * red
            image[b, row, column, 1] += share * green
            image[b, row, column, 2] += share * blue


@kernel(I2, I2, F2, I2, F2, I1, INT, *SURFACE, *LIGHT, F3, F1)
def color_jumps(
    faces, uv_faces, areas, ints, floats, count, flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss,
    eye, v_image, jumps,
):  # fmt: skip
    """jumps (N,) of the pieces of edges; v_image (B, H W, 3)."""
    for p in range(cuda.grid(1), min(count[0], ints.shape[0]), cuda.gridsize(1)):
        b, pixel = ints[p, IMAGE], ints[p, 0]
        total = ZERO
        for side in range(2):
            f = ints[p, 1 + side]
            if f < 0:
                continue
            seen = color_of_side(
                faces, uv_faces, areas[b], floats, p, side, f, flags, points[row_of(points, b)],
                normals[row_of(normals, b)], albedo[row_of(albedo, b)], picture[row_of(picture, b)],
                uv[row_of(uv, b)], sh[row_of(sh, b)], lamps[row_of(lamps, b)], places[row_of(places, b)],
                gloss[row_of(gloss, b)], eye[row_of(eye, b)],
                v_image[b, pixel, 0], v_image[b, pixel, 1], v_image[b, pixel, 2],
            )  # fmt: skip
            total += seen if side == 0 else -seen
        jumps[p] = total


@device
def clear(mine):
    """mine (N, C) = 0."""
    for i in range(mine.shape[0]):
        for k in range(mine.shape[1]):
            mine[i, k] = ZERO


@device
def add_over_block(mine, rows, row, first, total, parts):
    """Adds to total (B, N, C), from [row, first] on, the sum over the block's threads of the first rows of mine (M, C).

    parts (AT_ONCE, ACROSS): shared. All threads of the block have to come here.
    """
    t, columns = cuda.threadIdx.x, mine.shape[1]
    for begin in range(0, rows * columns, AT_ONCE):
        n = min(AT_ONCE, rows * columns - begin)
        for k in range(n):
            i = (begin + k) // columns
            parts[k, t] = mine[i, begin + k - i * columns]
        cuda.syncthreads()
        for w in range(t, n * PARTS, cuda.blockDim.x):
            k = w // PARTS
            part = ZERO
            for other in range(w - k * PARTS, cuda.blockDim.x, PARTS):
                part += parts[k, other]
            i = (begin + k) // columns
            cuda.atomic.add(total, (row, first + i, begin + k - i * columns), part)
        cuda.syncthreads()


@device
def texture_vjp(flags, picture, uv, v_picture, v_uv, row, pa, pb, pc, v_r, v_g, v_b):
    """Adds to v_picture (B, Ht, Wt, 3) and to v_uv (3, 2), and returns the cotangents of the weights.

    picture (Ht, Wt, 3); uv (3, 2) of a face's corners.
    """
    texels, v_texels = cuda.local.array((2, 2, 3), float32), cuda.local.array((2, 2, 3), float32)
    i0, i1, s, j0, j1, t = texels_at(flags, picture, uv, 0, 1, 2, pa, pb, pc)
    for k in range(3):
        texels[0, 0, k], texels[0, 1, k] = picture[j0, i0, k], picture[j0, i1, k]
        texels[1, 0, k], texels[1, 1, k] = picture[j1, i0, k], picture[j1, i1, k]
        v_texels[0, 0, k] = v_texels[0, 1, k] = v_texels[1, 0, k] = v_texels[1, 1, k] = ZERO
    v_s, v_t = texels_vjp(texels, v_texels, 0, 1, s, 0, 1, t, v_r, v_g, v_b)
    for k in range(3):
        cuda.atomic.add(v_picture, (row, j0, i0, k), v_texels[0, 0, k])
        cuda.atomic.add(v_picture, (row, j0, i1, k), v_texels[0, 1, k])
        cuda.atomic.add(v_picture, (row, j1, i0, k), v_texels[1, 0, k])
        cuda.atomic.add(v_picture, (row, j1, i1, k), v_texels[1, 1, k])
    return uv_vjp(uv, v_uv, 0, 1, 2, pa, pb, pc, picture.shape[1], picture.shape[0], v_s, v_t)


@kernel(
    F3, I2, I2, F2, I3, INT, INT, *SURFACE, *LIGHT, INT, F4, F3, F3, F3, F4, F3, F3, F3, F3, F3, F3
)  # fmt: skip
def paint_color_vjp(
    screen, faces, uv_faces, areas, ids, samples, flags, points, normals, albedo, picture, uv, sh, lamps, places, gloss,
    eye, first, v_image, v_points, v_normals, v_albedo, v_picture, v_uv, v_sh, v_lamps, v_gloss, v_eye, v_screen,
):  # fmt: skip
    """Adds to the cotangents: v_gloss (B, 1, 4), v_eye (B, 1, 3), the others as what they belong to.

    Of the lamps the MOST_LAMPS from `first` on; light adds up, so the others are a call of their own.
    """
    height, width = v_image.shape[1], v_image.shape[2]
    share = ONE / np.float32(samples * samples)
    perspective, lit, textured = (flags & PERSPECTIVE) != 0, (flags & LIT) != 0, (flags & TEXTURED) != 0
    last = min(first + MOST_LAMPS, lamps.shape[1])
    parts = cuda.shared.array((AT_ONCE, ACROSS), float32)
    my_sh, my_lamps = cuda.local.array((9, 3), float32), cuda.local.array((MOST_LAMPS, 6), float32)
    my_gloss, my_eye = cuda.local.array((1, 4), float32), cuda.local.array((1, 3), float32)
    corners, v_corners = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    where, v_where = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    about, v_about = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    tint, v_tint = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    on_picture, v_on_picture = cuda.local.array((3, 2), float32), cuda.local.array((3, 2), float32)
    n_tiles = (height * width + TILE - 1) // TILE
    for tile in range(cuda.blockIdx.x, v_image.shape[0] * n_tiles, cuda.gridDim.x):
        b = tile // n_tiles
        begin = (tile - b * n_tiles) * TILE
        end = b * height * width + min(begin + TILE, height * width)
        in_points, in_normals, in_albedo = row_of(points, b), row_of(normals, b), row_of(albedo, b)
        in_picture, in_uv = row_of(picture, b), row_of(uv, b)
        in_sh, in_lamps, in_gloss, in_eye = row_of(sh, b), row_of(lamps, b), row_of(gloss, b), row_of(eye, b)
        clear(my_sh)
        clear(my_lamps)
        clear(my_gloss)
        clear(my_eye)
        seen = 0
        for p in range(b * height * width + begin + cuda.threadIdx.x, end, cuda.blockDim.x):
            now = i = j = k = ti = tj = tk = -1
            for s in range(samples * samples + 1):
                # once more than there are samples, to add what the last face has
                f, r, col, row, column = -1, 0, 0, 0, 0
                if s < samples * samples:
                    _, row, column, r, col = sample_of(p, s, height, width, samples)
                    f = ids[b, r, col]
                    if f < 0:
                        continue
                if f != now:
                    if now >= 0:
                        add_corners(v_corners, b, i, j, k, v_screen)
                        if lit:
                            add_corners(v_where, in_points, i, j, k, v_points)
                            add_corners(v_about, in_normals, i, j, k, v_normals)
                        if textured:
                            add_corners(v_on_picture, in_uv, ti, tj, tk, v_uv)
                        else:
                            add_corners(v_tint, in_albedo, i, j, k, v_albedo)
                    now = f
                    if f < 0:
                        continue
                    seen = 1
                    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                    take_corners(screen, b, i, j, k, corners, v_corners)
                    if lit:
                        take_corners(points, in_points, i, j, k, where, v_where)
                        take_corners(normals, in_normals, i, j, k, about, v_about)
                    if textured:
                        ti, tj, tk = uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2]
                        take_corners(uv, in_uv, ti, tj, tk, on_picture, v_on_picture)
                    else:
                        take_corners(albedo, in_albedo, i, j, k, tint, v_tint)
                if f < 0:
                    continue
                u, v = place_of(col, samples), place_of(r, samples)
                pa, pb, pc, _ = weights_at(corners, 0, 1, 2, u, v, perspective)
                v_r = share * v_image[b, row, column, 0]
                v_g = share * v_image[b, row, column, 1]
                v_b = share * v_image[b, row, column, 2]
                ua = ub = uc = ZERO
                if lit:
                    red, green, blue = albedo_at(
                        flags, albedo[in_albedo], picture[in_picture], uv[in_uv], faces, uv_faces, f, pa, pb, pc
                    )
                    v_r, v_g, v_b, ua, ub, uc = lit_vjp(
                        flags, where, about, sh[in_sh], lamps[in_lamps, first:last],
                        places[row_of(places, b), first:last], gloss[in_gloss], eye[in_eye],
                        v_where, v_about, my_sh, my_lamps, my_gloss[0], my_eye[0],
                        0, 1, 2, pa, pb, pc, areas[b, f], red, green, blue, v_r, v_g, v_b,
                    )  # fmt: skip
                if textured:
                    wa, wb, wc = texture_vjp(
                        flags, picture[in_picture], on_picture, v_picture, v_on_picture, in_picture, pa, pb, pc,
                        v_r, v_g, v_b,
                    )  # fmt: skip
                else:
                    wa, wb, wc = vertex_albedo_vjp(tint, v_tint, 0, 1, 2, pa, pb, pc, v_r, v_g, v_b)
                scatter_weights(
                    corners, v_corners, 0, 1, 2, u, v, perspective, wa + ua, wb + ub, wc + uc, ZERO
                )  # fmt: skip
        if lit and cuda.syncthreads_or(seen):
            add_over_block(my_sh, 9, in_sh, 0, v_sh, parts)
            add_over_block(my_lamps, last - first, in_lamps, first, v_lamps, parts)
            add_over_block(my_gloss, 1, in_gloss, 0, v_gloss, parts)
            add_over_block(my_eye, 1, in_eye, 0, v_eye, parts)
