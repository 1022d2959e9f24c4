"""Coarser meshes of a body whose vertices are a subset of the full mesh's, so that one skinning serves all levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CANDIDATES = 24


def decimate(
    vertices: NDArray[Any], faces: NDArray[Any], target_faces: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """A mesh of about `target_faces` faces on a subset of the vertices.

    Quadric edge collapse (Garland & Heckbert 1997, Open3D's), then each new vertex moved to an original one of its own:
    near it, and facing the same way, so that lips, armpits and fingers stay on their side.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3).
        target_faces: wanted count; a mesh that has no more comes back whole.

    Returns:
        vertex_ids (V1,) into the vertices, ascending, and faces (F1, 3) into vertex_ids.
    """
    faces = np.asarray(faces, dtype=np.int32)
    if len(faces) <= target_faces:
        ids = np.unique(faces).astype(np.int32)
        return ids, np.searchsorted(ids, faces).astype(np.int32)
    import open3d as o3d
    from scipy.spatial import KDTree

    points = np.asarray(vertices, dtype=np.float64)
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(points), o3d.utility.Vector3iVector(faces))
    coarse = mesh.simplify_quadric_decimation(int(target_faces))
    coarse.remove_unreferenced_vertices()
    new_points, new_faces = np.asarray(coarse.vertices), np.asarray(coarse.triangles)

    used = np.unique(faces)
    normals, new_normals = vertex_normals(points, faces)[used], vertex_normals(new_points, new_faces)
    k = min(_CANDIDATES, len(used))
    distance, near = KDTree(points[used]).query(new_points, k=k)
    cost = distance * (1.5 - np.einsum("ij,ikj->ik", new_normals, normals[near]))
    owner = _distinct(cost.reshape(len(new_points), k), near.reshape(len(new_points), k), len(used))
    owned = owner[new_faces]
    new_faces = used[owned[(owned >= 0).all(1)]]
    ids = np.unique(new_faces).astype(np.int32)
    return ids, np.searchsorted(ids, new_faces).astype(np.int32)


def vertex_normals(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[np.float64]:
    """(V, 3) unit normals, each face's counted by its area; zero where a vertex has no face."""
    v = np.asarray(vertices, dtype=np.float64)
    a, b, c = (v[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(face_normals[:, i], 3), minlength=len(v)) for i in range(3)], 1
    )
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _distinct(cost: NDArray[Any], candidates: NDArray[Any], count: int) -> NDArray[np.int64]:
    """One candidate for each row, none used twice, the cheapest pairs first; -1 for a row whose are all taken."""
    owner = np.full(len(cost), -1)
    taken = np.zeros(count, dtype=bool)
    rows, columns = np.unravel_index(np.argsort(cost, axis=None, kind="stable"), cost.shape)
    for row, vertex in zip(rows.tolist(), candidates[rows, columns].tolist(), strict=True):
        if owner[row] < 0 and not taken[vertex]:
            owner[row] = vertex
            taken[vertex] = True
    return owner
