"""Vertex normals of a batch of meshes on a CUDA device, one launch for all of them."""

from __future__ import annotations

from typing import Any

from bodyfit.kernels import cuda_normals as kernels
from bodyfit.render.cuda_arrays import DeviceArrays


def sum_normals(points: Any, faces: Any, arrays: DeviceArrays) -> Any:
    """Sums (B, V, 3) of the area normals about each vertex of points (B, V, 3) float32; faces (F, 3) int32."""
    normals = arrays.full(*points.shape, value=0.0)
    arrays.launch(kernels.sum_normals, points.shape[0] * faces.shape[0], points, faces, normals)
    return normals


def sum_normals_vjp(points: Any, faces: Any, v_normals: Any, arrays: DeviceArrays) -> Any:
    """The cotangent (B, V, 3) of the points."""
    v_points = arrays.full(*points.shape, value=0.0)
    arrays.launch(kernels.sum_normals_vjp, points.shape[0] * faces.shape[0], points, faces, v_normals, v_points)
    return v_points
