"""Meshes as the adapters to other renderers take them: checked, welded, with smooth normals, one of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.render.extra import Tensor, torch


def checked_mesh(vertices: Any, faces: Any) -> tuple[Tensor, Tensor]:
    """Vertices (B, V, 3) on the CPU and faces (F, 3) int64.

    Raises:
        InputError: not a mesh, or vertices that are not finite.
    """
    if not isinstance(vertices, torch.Tensor) or vertices.ndim not in (2, 3) or vertices.shape[-1] != 3:
        raise InputError("vertices", "a tensor (B, V, 3) or (V, 3)", _kind(vertices))
    if vertices.device.type != "cpu":
        raise InputError("vertices", "a tensor on the CPU", str(vertices.device))
    batch = vertices if vertices.ndim == 3 else vertices[None]
    bad = int((~torch.isfinite(batch.detach())).any(-1).sum())
    if bad:
        raise InputError("vertices", "finite numbers", f"{bad} vertices with NaN or infinity")
    triangles = torch.as_tensor(faces).detach()
    if triangles.is_floating_point() or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError("faces", "whole numbers (F, 3)", _kind(triangles))
    triangles = triangles.to("cpu", torch.int64)
    if triangles.numel() and not 0 <= int(triangles.min()) <= int(triangles.max()) < batch.shape[1]:
        found = f"{int(triangles.min())} to {int(triangles.max())}"
        raise InputError("faces", f"vertex numbers from 0 to {batch.shape[1] - 1}", found)
    return batch, triangles


def welded(points: Tensor, triangles: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
    """One vertex (Vw, 3) for each place, the mean of those that lie exactly there, and the faces (F, 3) of those.

    The two sides of a seam would each count as a silhouette; gradients are shared among the vertices of a place.
    """
    _, place = np.unique(points.detach().numpy(), axis=0, return_inverse=True)
    place = place.reshape(-1)
    # in the order of their first vertex, so that a mesh without seams keeps its order
    first = np.full(place.max() + 1, len(place))
    np.minimum.at(first, place, np.arange(len(place)))
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    place = rank[place]
    if len(first) == len(place):
        return points, triangles.numpy()
    index = torch.from_numpy(place)
    total = torch.zeros(len(first), 3, dtype=points.dtype).index_add(0, index, points)
    count = torch.bincount(index, minlength=len(first)).to(points.dtype)
    return total / count[:, None], place[triangles.numpy()]


def smooth_normals(points: Tensor, triangles: Tensor) -> Tensor:
    """(V, 3) unit normals of vertices, faces weighted by their area; 0 where a vertex has no face."""
    a, b, c = points[triangles].unbind(1)
    weighted = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(points)
    for k in range(3):
        total = total.index_add(0, triangles[:, k], weighted)
    return torch.nn.functional.normalize(total, dim=1)


def of_batch(value: Tensor | None, ndim: int, b: int) -> Any:
    """One mesh's share of a tensor that may have a batch axis before its `ndim` own."""
    if value is None or value.ndim == ndim:
        return value
    return value[b if value.shape[0] > 1 else 0]


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
