"""Images of values that live on vertices, on the CPU: attributes of any number of channels, and normals.

`values_at`-style loops run over the samples that `cpu_raster.draw` named; each `_vjp` adds what its image's cotangent
says to the values' cotangents and, through the weights, to the screen's. `_jumps` does the edges' part.
"""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cpu_raster import kernel, part, scatter_weights, share_of, weights_at
from bodyfit.kernels.scalar import HALF, ZERO, area_normal, area_normal_vjp, blend, blend_vjp, unit, unit_vjp


@kernel
def paint(screen, faces, ids, samples, reach, perspective, values, image):
    """image (H, W, C), which comes 0, = mean over all samples of the vertex values (V, C)."""
    n = np.float32(samples)
    share = share_of(samples, screen)
    channels = values.shape[1]
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        row = r // samples
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            column = col // samples
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            pa, pb, pc, _ = weights_at(screen, a, b, c, (np.float32(col) + HALF) / n - HALF, v, perspective)
            pa, pb, pc = share * pa, share * pb, share * pc
            for k in range(channels):
                image[row, column, k] += blend(pa, pb, pc, values[a, k], values[b, k], values[c, k])


@kernel
def paint_vjp(screen, faces, ids, samples, reach, perspective, values, v_image, v_values, v_screen):
    """Adds to v_values (V, C) and v_screen (V, 3), both float64."""
    n = np.float32(samples)
    share = share_of(samples, screen)
    channels = values.shape[1]
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        row = r // samples
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            column = col // samples
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            u = (np.float32(col) + HALF) / n - HALF
            pa, pb, pc, _ = weights_at(screen, a, b, c, u, v, perspective)
            v_pa = v_pb = v_pc = ZERO * pa
            for k in range(channels):
                wa, wb, wc, v_a, v_b, v_c = blend_vjp(
                    pa, pb, pc, values[a, k], values[b, k], values[c, k], v_image[row, column, k] * share
                )
                v_pa += wa
                v_pb += wb
                v_pc += wc
                v_values[a, k] += v_a
                v_values[b, k] += v_b
                v_values[c, k] += v_c
            scatter_weights(screen, v_screen, a, b, c, u, v, perspective, v_pa, v_pb, v_pc, ZERO * pa)


@part
def value_beside(faces, ints, floats, p, side, values, k):
    """The value of channel k in front (side 0) or behind (1) of piece p of an edge."""
    f, w = ints[p, 1 + side], 5 + 4 * side
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    return blend(floats[p, w], floats[p, w + 1], floats[p, w + 2], values[a, k], values[b, k], values[c, k])


@kernel
def paint_jumps(faces, ints, floats, values, v_image, jumps):
    """jumps (N,) of the pieces of edges; v_image (H W, C)."""
    for p in range(ints.shape[0]):
        total = ZERO * floats[p, 0]
        for k in range(values.shape[1]):
            jump = value_beside(faces, ints, floats, p, 0, values, k)
            if ints[p, 2] >= 0:
                jump -= value_beside(faces, ints, floats, p, 1, values, k)
            total += v_image[ints[p, 0], k] * jump
        jumps[p] = total


@part
def seen_normal(normals, a, b, c, pa, pb, pc, area):
    """The interpolated normal at length 1, turned to the side that is seen, and before both."""
    x = pa * normals[a, 0] + pb * normals[b, 0] + pc * normals[c, 0]
    y = pa * normals[a, 1] + pb * normals[b, 1] + pc * normals[c, 1]
    z = pa * normals[a, 2] + pb * normals[b, 2] + pc * normals[c, 2]
    if area > ZERO:  # wound clockwise with v down: its back is seen
        x, y, z = -x, -y, -z
    nx, ny, nz = unit(x, y, z)
    return nx, ny, nz, x, y, z


@part
def seen_normal_vjp(normals, a, b, c, pa, pb, pc, area, x, y, z, v_nx, v_ny, v_nz, v_normals):
    """Adds to v_normals (V, 3) float64 and returns the cotangents of the weights."""
    gx, gy, gz = unit_vjp(x, y, z, v_nx, v_ny, v_nz)
    if area > ZERO:
        gx, gy, gz = -gx, -gy, -gz
    v_normals[a, 0] += pa * gx
    v_normals[a, 1] += pa * gy
    v_normals[a, 2] += pa * gz
    v_normals[b, 0] += pb * gx
    v_normals[b, 1] += pb * gy
    v_normals[b, 2] += pb * gz
    v_normals[c, 0] += pc * gx
    v_normals[c, 1] += pc * gy
    v_normals[c, 2] += pc * gz
    return (
        gx * normals[a, 0] + gy * normals[a, 1] + gz * normals[a, 2],
        gx * normals[b, 0] + gy * normals[b, 1] + gz * normals[b, 2],
        gx * normals[c, 0] + gy * normals[c, 1] + gz * normals[c, 2],
    )


@kernel
def paint_normals(screen, faces, areas, ids, samples, reach, perspective, normals, image):
    """image (H, W, 3), which comes 0, = mean over all samples of the normal; normals (V, 3) of any length."""
    n = np.float32(samples)
    share = share_of(samples, screen)
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            pa, pb, pc, _ = weights_at(screen, a, b, c, (np.float32(col) + HALF) / n - HALF, v, perspective)
            nx, ny, nz, _, _, _ = seen_normal(normals, a, b, c, pa, pb, pc, areas[f])
            row, column = r // samples, col // samples
            image[row, column, 0] += share * nx
            image[row, column, 1] += share * ny
            image[row, column, 2] += share * nz


@kernel
def paint_normals_vjp(screen, faces, areas, ids, samples, reach, perspective, normals, v_image, v_normals, v_screen):
    """Adds to v_normals (V, 3) and v_screen (V, 3), both float64."""
    n = np.float32(samples)
    share = share_of(samples, screen)
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            row, column = r // samples, col // samples
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            u = (np.float32(col) + HALF) / n - HALF
            pa, pb, pc, _ = weights_at(screen, a, b, c, u, v, perspective)
            _, _, _, x, y, z = seen_normal(normals, a, b, c, pa, pb, pc, areas[f])
            v_pa, v_pb, v_pc = seen_normal_vjp(
                normals, a, b, c, pa, pb, pc, areas[f], x, y, z,
                v_image[row, column, 0] * share, v_image[row, column, 1] * share, v_image[row, column, 2] * share,
                v_normals,
            )  # fmt: skip
            scatter_weights(screen, v_screen, a, b, c, u, v, perspective, v_pa, v_pb, v_pc, ZERO * pa)


@part
def normal_beside(faces, areas, ints, floats, p, side, normals, v_image):
    """The normal in front (side 0) or behind (1) of piece p of an edge times its cotangent, v_image (H W, 3)."""
    f, w, pixel = ints[p, 1 + side], 5 + 4 * side, ints[p, 0]
    x, y, z, _, _, _ = seen_normal(
        normals, faces[f, 0], faces[f, 1], faces[f, 2], floats[p, w], floats[p, w + 1], floats[p, w + 2], areas[f]
    )
    return v_image[pixel, 0] * x + v_image[pixel, 1] * y + v_image[pixel, 2] * z


@kernel
def normal_jumps(faces, areas, ints, floats, normals, v_image, jumps):
    """jumps (N,) of the pieces of edges; v_image (H W, 3)."""
    for p in range(ints.shape[0]):
        jump = normal_beside(faces, areas, ints, floats, p, 0, normals, v_image)
        if ints[p, 2] >= 0:
            jump -= normal_beside(faces, areas, ints, floats, p, 1, normals, v_image)
        jumps[p] = jump


@kernel
def sum_normals(points, faces, normals):
    """normals (V, 3), which come 0, = sum of the area normals of the faces about each vertex."""
    for f in range(faces.shape[0]):
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        x, y, z = area_normal(
            points[a, 0], points[a, 1], points[a, 2],
            points[b, 0], points[b, 1], points[b, 2],
            points[c, 0], points[c, 1], points[c, 2],
        )  # fmt: skip
        for k in (a, b, c):
            normals[k, 0] += x
            normals[k, 1] += y
            normals[k, 2] += z


@kernel
def sum_normals_vjp(points, faces, v_normals, v_points):
    """Adds to v_points (V, 3)."""
    for f in range(faces.shape[0]):
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        g = area_normal_vjp(
            points[a, 0], points[a, 1], points[a, 2],
            points[b, 0], points[b, 1], points[b, 2],
            points[c, 0], points[c, 1], points[c, 2],
            v_normals[a, 0] + v_normals[b, 0] + v_normals[c, 0],
            v_normals[a, 1] + v_normals[b, 1] + v_normals[c, 1],
            v_normals[a, 2] + v_normals[b, 2] + v_normals[c, 2],
        )  # fmt: skip
        v_points[a, 0] += g[0]
        v_points[a, 1] += g[1]
        v_points[a, 2] += g[2]
        v_points[b, 0] += g[3]
        v_points[b, 1] += g[4]
        v_points[b, 2] += g[5]
        v_points[c, 0] += g[6]
        v_points[c, 1] += g[7]
        v_points[c, 2] += g[8]
