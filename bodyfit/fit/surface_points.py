"""Points spread over a body's surface, as a cloud that is skinned like a mesh: what carries a person's colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.mesh import Mesh


@dataclass(frozen=True)
class SurfacePoints:
    """Places on a mesh's faces: corners (N, 3) vertex numbers of that mesh and their weights (N, 3)."""

    corners: NDArray[np.int32]
    bary: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.corners)

    def of(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, ...) means of a vertex's values (V, ...)."""
        at = values[self.corners].astype(np.float32)
        return np.einsum("nk,nk...->n...", self.bary, at)


@dataclass(frozen=True)
class PointCloud:
    """Surface points of one body at rest, each skinned by the mean of its corners' weights.

    template and normals (N, 3), shapedirs (N, 3, S), weight_joints and weights (N, K).
    """

    template: NDArray[np.float32]
    normals: NDArray[np.float32]
    shapedirs: NDArray[np.float32]
    weight_joints: NDArray[np.int32]
    weights: NDArray[np.float32]


def spread_points(mesh: Mesh, count: int, seed: int = 0) -> SurfacePoints:
    """About `count` points, as many on every square centimetre of the resting body, the same for the same mesh.

    Every face gets its share of points, rounded by chance; in a face they follow a low-discrepancy sequence.
    """
    rng = np.random.default_rng(seed)
    v = mesh.template[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]), axis=1)
    share = np.cumsum(area) / area.sum() * count
    upto = np.floor(share + rng.random()).astype(np.int64)
    number = np.diff(upto, prepend=0)
    face = np.repeat(np.arange(len(area)), number)
    # an additive recurrence with the plastic number fills a square evenly; folded, it fills the triangle
    k = np.arange(len(face)) + 1
    a, b = (0.5 + 0.7548776662466927 * k) % 1.0, (0.5 + 0.5698402909980532 * k) % 1.0
    over = a + b > 1
    a[over], b[over] = 1 - a[over], 1 - b[over]
    bary = np.stack([1 - a - b, a, b], 1).astype(np.float32)
    return SurfacePoints(np.ascontiguousarray(mesh.faces[face], np.int32), bary)


def point_cloud(points: SurfacePoints, mesh: Mesh, skinning: tuple[NDArray, NDArray] | None = None) -> PointCloud:
    """The points on a mesh of some shape; `skinning` (weight_joints, weights) of an earlier cloud saves making them."""
    from bodyfit.kernels.body import vertex_normals

    vertex = np.empty_like(mesh.template)
    vertex_normals(mesh.template, mesh.faces, vertex)
    normals = points.of(vertex)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    if skinning is None:
        skinning = _mean_weights(points, mesh)
    return PointCloud(
        np.ascontiguousarray(points.of(mesh.template)), normals, np.ascontiguousarray(points.of(mesh.shapedirs)),
        *skinning,
    )  # fmt: skip


def _mean_weights(points: SurfacePoints, mesh: Mesh) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(N, K) joints and weights, largest first: the mean of the corners'."""
    joints = len(mesh.parents)
    dense = np.zeros((len(mesh.template), joints), np.float32)
    np.put_along_axis(dense, mesh.weight_joints[:, ::-1].astype(np.int64), mesh.weights[:, ::-1], 1)
    mean = points.of(dense)
    most = int((mean > 1e-4).sum(1).max())
    order = np.argsort(-mean, axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(mean, order, 1)
    weights[weights < 1e-4] = 0
    weights /= weights.sum(1, keepdims=True)
    return np.ascontiguousarray(order, np.int32), np.ascontiguousarray(weights, np.float32)
