"""Images of values that live on vertices, on a GPU: `cpu_layers` for a batch, a thread per pixel.

A pixel's thread goes through its samples, so images need no atomics. What is added to the corners of a face is summed
in the thread as long as its samples see the same face. Arrays with the batch axis first may have one row for all.
"""

from __future__ import annotations

import numpy as np
from numba import float32

from bodyfit.kernels.cpu_layers import normal_beside, seen_normal, seen_normal_vjp, value_beside
from bodyfit.kernels.cpu_raster import scatter_weights, weights_at
from bodyfit.kernels.cuda_jit import F1, F2, F3, F4, FLAG, I1, I2, I3, INT, cuda, device, kernel
from bodyfit.kernels.scalar import HALF, ONE, ZERO, blend, blend_vjp

IMAGE = 5
"""Column of a piece of an edge: which image it is in."""


@device
def row_of(array, b):
    """Where an array with the batch axis first has what belongs to image b: there, or in its only row."""
    return min(b, array.shape[0] - 1)


@device
def sample_of(p, s, height, width, samples):
    """Image, row and column of pixel p of a batch, and row and column of its sample s in the fine grid."""
    b = p // (height * width)
    row = (p - b * height * width) // width
    column = p - (b * height + row) * width
    i = s // samples
    return b, row, column, row * samples + i, column * samples + s - i * samples


@device
def place_of(index, samples):
    """Where on the screen a row or column of samples lies, in pixels."""
    return (np.float32(index) + HALF) / np.float32(samples) - HALF


@device
def take_corners(values, row, a, b, c, mine, v_mine):
    """mine (3, C) = values (B, V, C) of three vertices; v_mine (3, C) = 0."""
    for k in range(mine.shape[1]):
        mine[0, k], mine[1, k], mine[2, k] = values[row, a, k], values[row, b, k], values[row, c, k]
        v_mine[0, k] = v_mine[1, k] = v_mine[2, k] = ZERO


@device
def add_corners(v_mine, row, a, b, c, v_values):
    """Adds v_mine (3, C) to v_values (B, V, C) of three vertices."""
    for k in range(v_mine.shape[1]):
        cuda.atomic.add(v_values, (row, a, k), v_mine[0, k])
        cuda.atomic.add(v_values, (row, b, k), v_mine[1, k])
        cuda.atomic.add(v_values, (row, c, k), v_mine[2, k])


@kernel(F3, I2, I3, INT, FLAG, F3, F4)
def paint(screen, faces, ids, samples, perspective, values, image):
    """image (B, H, W, C), which comes 0, = mean over all samples of the vertex values (B, V, C)."""
    height, width = image.shape[1], image.shape[2]
    share = ONE / np.float32(samples * samples)
    for p in range(cuda.grid(1), image.shape[0] * height * width, cuda.gridsize(1)):
        for s in range(samples * samples):
            b, row, column, r, col = sample_of(p, s, height, width, samples)
            f = ids[b, r, col]
            if f < 0:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            u, v = place_of(col, samples), place_of(r, samples)
            pa, pb, pc, _ = weights_at(screen[b], i, j, k, u, v, perspective)
            pa, pb, pc = share * pa, share * pb, share * pc
            m = row_of(values, b)
            for c in range(values.shape[2]):
                image[b, row, column, c] += blend(pa, pb, pc, values[m, i, c], values[m, j, c], values[m, k, c])


@kernel(F3, I2, I3, INT, FLAG, F3, F4, F3, F3)
def paint_vjp(screen, faces, ids, samples, perspective, values, v_image, v_values, v_screen):
    """Adds to v_values (B, V, C) and v_screen (B, V, 3)."""
    height, width = v_image.shape[1], v_image.shape[2]
    share = ONE / np.float32(samples * samples)
    corners, v_corners = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    for p in range(cuda.grid(1), v_image.shape[0] * height * width, cuda.gridsize(1)):
        now = b = i = j = k = -1
        for s in range(samples * samples):
            b, row, column, r, col = sample_of(p, s, height, width, samples)
            f = ids[b, r, col]
            if f < 0:
                continue
            if f != now:
                if now >= 0:
                    add_corners(v_corners, b, i, j, k, v_screen)
                now, i, j, k = f, faces[f, 0], faces[f, 1], faces[f, 2]
                take_corners(screen, b, i, j, k, corners, v_corners)
            u, v = place_of(col, samples), place_of(r, samples)
            pa, pb, pc, _ = weights_at(corners, 0, 1, 2, u, v, perspective)
            v_pa = v_pb = v_pc = ZERO
            m = row_of(values, b)
            for c in range(values.shape[2]):
                wa, wb, wc, v_a, v_b, v_c = blend_vjp(
                    pa, pb, pc, values[m, i, c], values[m, j, c], values[m, k, c], v_image[b, row, column, c] * share
                )
                v_pa += wa
                v_pb += wb
                v_pc += wc
                cuda.atomic.add(v_values, (m, i, c), v_a)
                cuda.atomic.add(v_values, (m, j, c), v_b)
                cuda.atomic.add(v_values, (m, k, c), v_c)
            scatter_weights(corners, v_corners, 0, 1, 2, u, v, perspective, v_pa, v_pb, v_pc, ZERO)
        if now >= 0:
            add_corners(v_corners, b, i, j, k, v_screen)


@kernel(I2, I2, F2, I1, F3, F3, F1)
def paint_jumps(faces, ints, floats, count, values, v_image, jumps):
    """jumps (N,) of the pieces of edges; v_image (B, H W, C)."""
    for p in range(cuda.grid(1), min(count[0], ints.shape[0]), cuda.gridsize(1)):
        b = ints[p, IMAGE]
        mine, total = values[row_of(values, b)], ZERO
        for k in range(values.shape[2]):
            jump = value_beside(faces, ints, floats, p, 0, mine, k)
            if ints[p, 2] >= 0:
                jump -= value_beside(faces, ints, floats, p, 1, mine, k)
            total += v_image[b, ints[p, 0], k] * jump
        jumps[p] = total


@kernel(F3, I2, F2, I3, INT, FLAG, F3, F4)
def paint_normals(screen, faces, areas, ids, samples, perspective, normals, image):
    """image (B, H, W, 3), which comes 0, = mean over all samples of the normal; normals (B, V, 3) of any length."""
    height, width = image.shape[1], image.shape[2]
    share = ONE / np.float32(samples * samples)
    for p in range(cuda.grid(1), image.shape[0] * height * width, cuda.gridsize(1)):
        for s in range(samples * samples):
            b, row, column, r, col = sample_of(p, s, height, width, samples)
            f = ids[b, r, col]
            if f < 0:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            u, v = place_of(col, samples), place_of(r, samples)
            pa, pb, pc, _ = weights_at(screen[b], i, j, k, u, v, perspective)
            nx, ny, nz, _, _, _ = seen_normal(normals[row_of(normals, b)], i, j, k, pa, pb, pc, areas[b, f])
            image[b, row, column, 0] += share * nx
            image[b, row, column, 1] += share * ny
            image[b, row, column, 2] += share * nz


@kernel(F3, I2, F2, I3, INT, FLAG, F3, F4, F3, F3)
def paint_normals_vjp(screen, faces, areas, ids, samples, perspective, normals, v_image, v_normals, v_screen):
    """Adds to v_normals (B, V, 3) and v_screen (B, V, 3)."""
    height, width = v_image.shape[1], v_image.shape[2]
    share = ONE / np.float32(samples * samples)
    corners, v_corners = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    about, v_about = cuda.local.array((3, 3), float32), cuda.local.array((3, 3), float32)
    for p in range(cuda.grid(1), v_image.shape[0] * height * width, cuda.gridsize(1)):
        now = b = m = i = j = k = -1
        for s in range(samples * samples):
            b, row, column, r, col = sample_of(p, s, height, width, samples)
            f = ids[b, r, col]
            if f < 0:
                continue
            m = row_of(normals, b)
            if f != now:
                if now >= 0:
                    add_corners(v_corners, b, i, j, k, v_screen)
                    add_corners(v_about, m, i, j, k, v_normals)
                now, i, j, k = f, faces[f, 0], faces[f, 1], faces[f, 2]
                take_corners(screen, b, i, j, k, corners, v_corners)
                take_corners(normals, m, i, j, k, about, v_about)
            u, v = place_of(col, samples), place_of(r, samples)
            pa, pb, pc, _ = weights_at(corners, 0, 1, 2, u, v, perspective)
            _, _, _, x, y, z = seen_normal(about, 0, 1, 2, pa, pb, pc, areas[b, f])
            gx, gy, gz = v_image[b, row, column, 0], v_image[b, row, column, 1], v_image[b, row, column, 2]
            v_pa, v_pb, v_pc = seen_normal_vjp(
                about, 0, 1, 2, pa, pb, pc, areas[b, f], x, y, z, gx * share, gy * share, gz * share, v_about
            )
            scatter_weights(corners, v_corners, 0, 1, 2, u, v, perspective, v_pa, v_pb, v_pc, ZERO)
        if now >= 0:
            add_corners(v_corners, b, i, j, k, v_screen)
            add_corners(v_about, m, i, j, k, v_normals)


@kernel(I2, F2, I2, F2, I1, F3, F3, F1)
def normal_jumps(faces, areas, ints, floats, count, normals, v_image, jumps):
    """jumps (N,) of the pieces of edges; v_image (B, H W, 3)."""
    for p in range(cuda.grid(1), min(count[0], ints.shape[0]), cuda.gridsize(1)):
        b = ints[p, IMAGE]
        mine = normals[row_of(normals, b)]
        jump = normal_beside(faces, areas[b], ints, floats, p, 0, mine, v_image[b])
        if ints[p, 2] >= 0:
            jump -= normal_beside(faces, areas[b], ints, floats, p, 1, mine, v_image[b])
        jumps[p] = jump
