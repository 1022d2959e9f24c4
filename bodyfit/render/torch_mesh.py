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


class Welder:
    """Makes one vertex of those that lie at the same place; the two sides of a seam would each count as a silhouette.

    Which vertices share a place is looked for anew only where those of the last mesh of that size came apart.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __call__(self, points: Tensor, triangles: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
        """Vertices (Vw, 3), the mean of those at a place, which thus share its gradient, and faces (F, 3) of them."""
        there = points.detach().numpy()
        place, first = self._known.get(len(there), (None, None))
        if place is None or first is None or not np.array_equal(there[first[place]], there):
            place, first = self._known[len(there)] = places_of(there)
        if len(first) == len(place):
            return points, triangles.numpy()
        index = torch.from_numpy(place)
        total = torch.zeros(len(first), 3, dtype=points.dtype).index_add(0, index, points)
        count = torch.bincount(index, minlength=len(first)).to(points.dtype)
        return total / count[:, None], place[triangles.numpy()]


def places_of(points: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of the points (V, 3) the number of its place, and for each place (Vw,) its first point; places are
    numbered in the order of their first points, so that a mesh without seams keeps its own."""
    _, first, place = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return rank[place.reshape(-1)], first[order]


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
