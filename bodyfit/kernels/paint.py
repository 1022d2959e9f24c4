"""Colours of a textured mesh under lamps and a sky, for synthetic colour images; linear light, float32."""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST
from bodyfit.kernels.raster import barycentrics


@njit(nogil=True, cache=True, inline="always")
def cell_of(wa, wb, side):
    """Number of the texture cell of a point with weights wa, wb of the face's first two corners; `side` cells an edge.

    Cells (i, j) with i + j < side are counted row by row.
    """
    i = min(max(int(wa * side), 0), side - 1)
    j = min(max(int(wb * side), 0), side - 1 - i)
    return i * side - i * (i - 1) // 2 + j


@njit(nogil=True, cache=True, fastmath=FAST)
def paint(points_cam, normals, faces, face, shown, texture, side, lamps, ambient, sky, fx, fy, cx, cy, r0, c0, image):
    """Writes the colours of a rasterised mesh into a window of an image.

    points_cam (V, 3) and unit normals (V, 3) float32, the normals in any axes in which lamps (L, 4) give a direction to
    the lamp and its strength; the sky shines from +z of those axes. face (H, W) int32 is the raster (-1 = nothing) and
    shown (H, W) bool which of it is to be seen; texture (F, cells, 3) the linear albedo. image (h, w, 3) is the window
    whose first pixel is (r0, c0).
    """
    one, half, zero = np.float32(1.0), np.float32(0.5), np.float32(0.0)
    for r in range(image.shape[0]):
        y = (np.float32(r + r0) - cy) / fy
        for c in range(image.shape[1]):
            f = face[r + r0, c + c0]
            if f < 0 or not shown[r + r0, c + c0]:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            wb, wc = barycentrics(
                points_cam[i, 0], points_cam[i, 1], points_cam[i, 2],
                points_cam[j, 0], points_cam[j, 1], points_cam[j, 2],
                points_cam[k, 0], points_cam[k, 1], points_cam[k, 2],
                (np.float32(c + c0) - cx) / fx, y,
            )  # fmt: skip
            wa = one - wb - wc
            nx = wa * normals[i, 0] + wb * normals[j, 0] + wc * normals[k, 0]
            ny = wa * normals[i, 1] + wb * normals[j, 1] + wc * normals[k, 1]
            nz = wa * normals[i, 2] + wb * normals[j, 2] + wc * normals[k, 2]
            scale = one / max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-9))
            light = ambient + sky * half * (one + nz * scale)
            for m in range(lamps.shape[0]):
                facing = (nx * lamps[m, 0] + ny * lamps[m, 1] + nz * lamps[m, 2]) * scale
                light += lamps[m, 3] * max(facing, zero)
            cell = cell_of(wa, wb, side)
            for channel in range(3):
                image[r, c, channel] = texture[f, cell, channel] * light
