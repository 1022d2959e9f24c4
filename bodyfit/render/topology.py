"""The edges of a mesh and the faces about each: found once for a list of faces, then kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Topology(NamedTuple):
    """Edges as the kernels take them.

    starts (E + 1,) int32: the rows of `incident` that belong to each edge. incident (N, 4) int32: face, its corner
    numbers at the edge's first and second end, and +1 where the face is wound from the first to the second, else -1.
    sides (N,) int32: face and sign in one number, f or F + f.
    bounds (N, 2) int32: for each row the first and last row of its edge. seams (E,) bool: the faces about the edge do
    not share their vertices (or texture coordinates) there, so that values may jump. twins (P, 2) int64: vertices that
    were found at the same place and count as one here.
    """

    starts: NDArray[np.int32]
    incident: NDArray[np.int32]
    sides: NDArray[np.int32]
    bounds: NDArray[np.int32]
    seams: NDArray[np.bool_]
    twins: NDArray[np.int64]
    closed: bool


def at_one_place(vertices: NDArray[Any], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For pairs (P, 2) of vertex numbers whether both lie at the same place in every mesh of vertices (B, V, 3)."""
    return (vertices[:, pairs[:, 0]] == vertices[:, pairs[:, 1]]).all(axis=(0, 2))


def find_topology(
    faces: NDArray[np.int32], vertices: NDArray[Any], uv_faces: NDArray[np.int32] | None = None
) -> Topology:
    """The edges of faces (F, 3); vertices (B, V, 3) at the same place in every mesh of the batch count as one.

    A mesh that was split along texture seams or creases would otherwise have a boundary there, twice.
    """
    n_vertices = vertices.shape[1]
    welded, twins = _weld(vertices)
    begin, end = faces, np.roll(faces, -1, axis=1)
    low, high = np.minimum(welded[begin], welded[end]), np.maximum(welded[begin], welded[end])
    keep = (low != high).ravel()
    order = np.flatnonzero(keep)
    key = (low.astype(np.int64) * n_vertices + high).ravel()[order]
    sorting = np.argsort(key, kind="stable")
    order, key = order[sorting], key[sorting]
    changes = np.flatnonzero(np.diff(key)) + 1
    starts = np.concatenate([[0], changes, [len(key)]]).astype(np.int32) if len(key) else np.zeros(1, np.int32)
    face, corner = order // 3, order % 3
    forward = welded[begin].ravel()[order] == low.ravel()[order]
    following = (corner + 1) % 3
    first, second = np.where(forward, corner, following), np.where(forward, following, corner)
    incident = np.stack([face, first, second, np.where(forward, 1, -1)], axis=1).astype(np.int32)
    counts = np.diff(starts)
    bounds = np.stack([np.repeat(starts[:-1], counts), np.repeat(starts[1:], counts)], axis=1)
    seams = np.zeros(len(counts), dtype=np.bool_)
    for numbers in (faces,) if uv_faces is None else (faces, uv_faces):
        ends = np.stack([numbers[face, first], numbers[face, second]], axis=1)
        differs = (ends != ends[bounds[:, 0]]).any(axis=1) if len(ends) else np.zeros(0, np.bool_)
        seams[np.repeat(np.arange(len(counts)), counts)[differs]] = True
    closed = (
        bool((counts == 2).all() and (np.add.reduceat(incident[:, 3], starts[:-1]) == 0).all())
        if len(counts)
        else False
    )
    sides = np.where(forward, face, len(faces) + face).astype(np.int32)
    return Topology(starts, incident, sides, bounds.astype(np.int32), seams, twins, closed)


def _weld(vertices: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each vertex the number of the first one at its place (V,), and the pairs (P, 2) that this made one."""
    first_mesh = vertices[0]
    order = np.lexsort(first_mesh.T)
    ordered = first_mesh[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    for mesh in vertices[1:]:
        if not same.any():
            break
        same &= (mesh[order[1:]] == mesh[order[:-1]]).all(axis=1)
    group = np.concatenate([[0], np.cumsum(~same)]) if len(order) else np.zeros(0, np.int64)
    # lexsort is stable: the first of a group has the smallest number
    heads = order[np.concatenate([[True], ~same])] if len(order) else order
    welded = np.empty(len(order), dtype=np.int64)
    welded[order] = heads[group] if len(order) else order
    others = np.flatnonzero(welded != np.arange(len(order)))
    return welded, np.stack([welded[others], others], axis=1).astype(np.int64)
