"""Landmarks carried from one body to another: the source's surface is brought onto the target's and read there."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.skeleton import parts_touch
from bodyfit.body.surface_fit import Arrays, fit_surface, parts_of

_COMPACT_M = 0.03  # a landmark whose vertices lie closer than this is one point


def transfer_landmarks(source: Arrays, target: Arrays) -> tuple[NDArray[np.str_], NDArray[np.int32]]:
    """Landmark names (L,) and vertices (L, K), padded with -1, of the source body found on the target's.

    Args:
        source: a body file's arrays with landmarks.
        target: v_template, faces, weights, J_regressor and joint_names of another body in the same pose.

    Returns:
        As `landmark_names`, `landmark_vertices` of a body file: each landmark is the centroid of its vertices.
    """
    from scipy.spatial import KDTree

    bent = fit_surface(source, target)
    vertices = target["v_template"].astype(np.float64)
    source_part, target_part = parts_of(source), parts_of(target)
    touch, tree = parts_touch(), KDTree(vertices)
    rows: list[list[int]] = []
    for padded in source["landmark_vertices"]:
        ids = padded[padded >= 0]
        points = bent[ids]
        if np.linalg.norm(points - points.mean(0), axis=1).max() < _COMPACT_M:
            points, ids = points.mean(0, keepdims=True), ids[:1]
        row: list[int] = []
        for point, vertex in zip(points, ids, strict=True):
            near = np.atleast_1d(tree.query(point, k=min(64, len(vertices)))[1])
            fits = near[touch[source_part[vertex], target_part[near]]]
            near = (fits if len(fits) else near)[:8]
            row += _closest_centroid(point, near, vertices) if len(points) == 1 else [int(near[0])]
        rows.append(row)
    found = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return source["landmark_names"], found


def _closest_centroid(point: NDArray[Any], near: NDArray[Any], vertices: NDArray[Any]) -> list[int]:
    """One to three of the near vertices, whose centroid is closest to the point."""
    sets = [list(c) for n in (1, 2, 3) for c in combinations(range(len(near)), n)]
    distances = [np.linalg.norm(vertices[near[c]].mean(0) - point) for c in sets]
    return [int(i) for i in near[sets[int(np.argmin(distances))]]]
