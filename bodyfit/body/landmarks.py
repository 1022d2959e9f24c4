"""Landmarks carried from one body to another: the source's surface is bent onto the target's, then its landmarks read.

Both bodies stand in SMPL's zero pose. The bend goes through their common joints and a few extreme points exactly
(biharmonic spline), then closes on the surface step by step, its moves smoothed over the mesh (non-rigid closest
points).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.decimate import vertex_normals
from bodyfit.body.skeleton import PART_NAMES, part_labels, parts_touch

Arrays = Mapping[str, NDArray[Any]]
SMOOTHING_ROUNDS = (60, 40, 25, 15, 8, 4)  # of one ring each: stiff first
_CANDIDATES = 12
_COMPACT_M = 0.03  # a landmark whose vertices lie closer than this is one point
_APART_M = 0.005
_NO_MATCH = 1e9


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
    source_part, target_part = _parts(source), _parts(target)
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


def fit_surface(source: Arrays, target: Arrays) -> NDArray[np.float64]:
    """(V, 3) metres: the source's vertices bent onto the target's surface."""
    from scipy.interpolate import RBFInterpolator
    from scipy.sparse import coo_array
    from scipy.spatial import KDTree

    start, end = _controls(source), _controls(target)
    names: list[str] = []
    for name in sorted(start.keys() & end.keys()):  # a spline through one point twice has no solution
        if all(np.linalg.norm(start[name] - start[other]) > _APART_M for other in names):
            names.append(name)
    spline = RBFInterpolator(
        np.stack([start[n] for n in names]), np.stack([end[n] for n in names]), kernel="linear", degree=1
    )
    bent = spline(source["v_template"].astype(np.float64))
    faces = source["faces"].astype(np.int64)
    i, j = faces[:, [0, 1, 2, 1, 2, 0]].ravel(), faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    V = len(bent)
    every = np.arange(V)
    neighbours = coo_array((np.ones(len(i) + V), (np.r_[i, every], np.r_[j, every])), (V, V)).tocsr()
    degree = neighbours @ np.ones(V)

    points, normals, parts = _surface_points(target)
    tree, touch, own_part = KDTree(points), parts_touch(), _parts(source)
    evidence = source["sample_mask"].astype(np.float64) if "sample_mask" in source else np.ones(V)
    for rounds in SMOOTHING_ROUNDS:
        distance, near = (np.asarray(a) for a in tree.query(bent, k=_CANDIDATES))
        same_way = np.einsum("ij,ikj->ik", vertex_normals(bent, faces), normals[near])
        cost = distance * (1.5 - same_way)
        cost[~touch[own_part[:, None], parts[near]] | (same_way < 0.2)] = _NO_MATCH
        best = cost.argmin(1)
        seen = evidence * (cost[every, best] < _NO_MATCH)
        move = seen[:, None] * (points[near[every, best]] - bent)
        weight = seen.copy()
        for _ in range(rounds):
            move, weight = neighbours @ move / degree[:, None], neighbours @ weight / degree
        bent = bent + move / np.maximum(weight, 1e-6)[:, None]
    return bent


def _controls(body: Arrays) -> dict[str, NDArray[np.float64]]:
    """Named points that every body has: joints, the head's top, soles, tips of hands and feet, heels."""
    v = body["v_template"].astype(np.float64)
    names = [str(n) for n in body["joint_names"]]
    part = _parts(body)
    points = dict(zip(names, body["J_regressor"].astype(np.float64) @ v, strict=True))
    for side in ("left", "right"):  # SMPL-H and SMPL-X have fingers where SMPL has one joint
        points.setdefault(f"{side}_hand", points.get(f"{side}_middle1", points[f"{side}_wrist"]))

    def extreme(name: str, axis: int, sign: float, *, of: str) -> None:
        member = v[part == PART_NAMES.index(of)]
        if len(member):
            points[name] = member[(member[:, axis] * sign).argmax()]

    extreme("top of the head", 1, 1.0, of="head")
    extreme("front of the head", 2, 1.0, of="head")
    extreme("back of the head", 2, -1.0, of="head")
    for side, sign in (("left", 1.0), ("right", -1.0)):
        extreme(f"{side} fingertip", 0, sign, of=f"{side}_hand")
        extreme(f"{side} sole", 1, -1.0, of=f"{side}_foot")
        extreme(f"{side} toe", 2, 1.0, of=f"{side}_foot")
        extreme(f"{side} heel", 2, -1.0, of=f"{side}_foot")
    return points


def _parts(body: Arrays) -> NDArray[np.int64]:
    return part_labels(body["weights"], [str(n) for n in body["joint_names"]]).astype(np.int64)


def _surface_points(body: Arrays) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Vertices, face centres and points towards each face's corners, with normals and parts: a dense sampling."""
    v, faces, part = body["v_template"].astype(np.float64), body["faces"].astype(np.int64), _parts(body)
    normals = vertex_normals(v, faces)
    mixes = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=np.float64)
    mixes /= mixes.sum(1, keepdims=True)
    points = np.concatenate([v, np.einsum("mk,fkc->fmc", mixes, v[faces]).reshape(-1, 3)])
    way = np.concatenate([normals, np.einsum("mk,fkc->fmc", mixes, normals[faces]).reshape(-1, 3)])
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-12)
    return points, way, np.concatenate([part, part[faces][:, mixes.argmax(1)].reshape(-1)])


def _closest_centroid(point: NDArray[Any], near: NDArray[Any], vertices: NDArray[Any]) -> list[int]:
    """One to three of the near vertices, whose centroid is closest to the point."""
    sets = [list(c) for n in (1, 2, 3) for c in combinations(range(len(near)), n)]
    distances = [np.linalg.norm(vertices[near[c]].mean(0) - point) for c in sets]
    return [int(i) for i in near[sets[int(np.argmin(distances))]]]
