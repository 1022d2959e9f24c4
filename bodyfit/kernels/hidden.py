"""How much of each part of a body a camera shows, and how much of that a depth image bears out."""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST
from bodyfit.kernels.raster import NEAR_M, draw_faces
from bodyfit.kernels.scalar_evidence import PERSON

FACING, IN_FRONT, SHOWN = range(3)
NUM_AREAS = 3


@njit(nogil=True, cache=True, fastmath=FAST)
def part_areas(points, faces, face_parts, intrinsics, depth, label, same_m, drawn, face, areas):
    """Areas of a body's parts in a view, in pixels.

    A part's back is behind its own front and counts for nothing: areas are of faces that look at the camera.

    Args:
        points: (V, 3) float32, camera coordinates; faces (F, 3) int32; face_parts (F,) the part of each face.
        intrinsics: (4,) of the view; depth (h, w) metres, 0 for no reading; label (h, w) as of `bodyfit.observe`.
        same_m: a reading of the person this near to the body's surface is that surface; so is none, within the person.
        drawn, face: (h, w) filled with the body's depth and faces.
        areas: (parts, NUM_AREAS) filled: what faces the camera, whatever is before it and even out of the picture; what
            of that nothing of the body hides, in the picture; and what of that the depth shows where the body has it.
    """
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    draw_faces(points, faces, fx, fy, cx, cy, drawn, face)
    areas[:] = 0.0
    uv = np.empty((points.shape[0], 2), np.float32)
    for i in range(points.shape[0]):
        w = np.float32(1.0) / max(points[i, 2], NEAR_M)
        uv[i, 0], uv[i, 1] = fx * points[i, 0] * w + cx, fy * points[i, 1] * w + cy
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        twice = (uv[b, 1] - uv[a, 1]) * (uv[c, 0] - uv[a, 0]) - (uv[b, 0] - uv[a, 0]) * (uv[c, 1] - uv[a, 1])
        if twice > 0 and min(points[a, 2], points[b, 2], points[c, 2]) > NEAR_M:
            areas[face_parts[f], FACING] += 0.5 * twice
    for r in range(face.shape[0]):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                continue
            p = face_parts[f]
            areas[p, IN_FRONT] += 1.0
            if label[r, c] == PERSON and (depth[r, c] <= 0 or abs(depth[r, c] - drawn[r, c]) < same_m):
                areas[p, SHOWN] += 1.0
