"""Depth, faces and barycentrics of a mesh at a camera's pixel centres."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import InputError


class Raster(NamedTuple):
    """depth (H, W) float32 metres, 0 = nothing; face (H, W) int32, -1 = nothing; barycentrics (H, W, 2) float32."""

    depth: NDArray[np.float32]
    face: NDArray[np.int32]
    barycentrics: NDArray[np.float32]


def rasterize(points_cam: NDArray[Any], faces: NDArray[Any], camera: Camera) -> Raster:
    """Draws a closed, outward-wound mesh (V, 3), (F, 3) in metres into a pinhole camera.

    Raises:
        InputError: vertices or faces that are no mesh, or vertices that are not finite.
    """
    from bodyfit.kernels.raster import rasterize as kernel

    points = np.ascontiguousarray(points_cam, dtype=np.float32)
    corners = np.ascontiguousarray(faces, dtype=np.int32)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError("vertices", "shape (V, 3)", str(points.shape))
    if corners.ndim != 2 or corners.shape[1] != 3:
        raise InputError("faces", "shape (F, 3)", str(corners.shape))
    if not np.isfinite(points).all():
        raise InputError("vertices", "finite numbers", f"{int((~np.isfinite(points)).any(1).sum())} vertices with NaN")
    if corners.size and (corners.min() < 0 or corners.max() >= len(points)):
        raise InputError("faces", f"vertex numbers from 0 to {len(points) - 1}", f"{corners.min()} to {corners.max()}")
    size = (camera.height, camera.width)
    raster = Raster(np.empty(size, np.float32), np.empty(size, np.int32), np.empty((*size, 2), np.float32))
    kernel(points, corners, camera.fx, camera.fy, camera.cx, camera.cy, *raster)
    return raster
