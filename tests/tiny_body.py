"""A small but complete SMPL-format body, made from capsules: some hundred vertices, 24 joints, real skinning.

Tests need a body whose file is written in milliseconds and whose forward pass, volume and girths can be reasoned about.
The surface is one closed, outward-facing manifold, so that everything that holds for a shipped body can be asked of it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
PART_OF_JOINT = {
    "pelvis": "pelvis", "spine1": "abdomen", "spine2": "abdomen", "spine3": "chest", "neck": "neck", "head": "head",
    "collar": "chest", "shoulder": "upper_arm", "elbow": "forearm", "wrist": "hand", "hand": "hand",
    "hip": "thigh", "knee": "calf", "ankle": "foot", "foot": "foot",
}  # fmt: skip
CELL_M = 0.05
SMOOTH_M = 0.03
NUM_BETAS = 6

_LEFT = {
    "hip": (0.09, -0.28, 0.02), "knee": (0.11, -0.70, 0.02), "ankle": (0.13, -1.10, -0.01), "foot": (0.14, -1.16, 0.10),
    "collar": (0.07, 0.22, 0.0), "shoulder": (0.18, 0.24, 0.0), "elbow": (0.45, 0.24, -0.01),
    "wrist": (0.70, 0.24, 0.0), "hand": (0.79, 0.24, 0.0),
}  # fmt: skip
_MIDDLE = {
    "pelvis": (0.0, -0.20, 0.0), "spine1": (0.0, -0.08, 0.0), "spine2": (0.0, 0.04, 0.0), "spine3": (0.0, 0.13, 0.0),
    "neck": (0.0, 0.31, 0.0), "head": (0.0, 0.41, 0.01),
}  # fmt: skip
_TIPS = {"head": (0.0, 0.50, 0.01), "hand": (0.86, 0.24, 0.0), "foot": (0.15, -1.17, 0.17)}


def _joint(name: str, table: dict[str, tuple[float, float, float]] | None = None) -> NDArray[np.float64]:
    side, _, rest = name.partition("_")
    if side not in ("left", "right"):
        return np.array((table or _MIDDLE)[name])
    return np.array((table or _LEFT)[rest]) * np.array([1.0 if side == "left" else -1.0, 1.0, 1.0])


def joints() -> NDArray[np.float64]:
    """(24, 3) metres: where the joints of the template are."""
    return np.stack([_joint(n) for n in JOINT_NAMES])


def _capsules() -> list[tuple[NDArray[np.float64], NDArray[np.float64], float, float]]:
    """Ends and radii of what the body is made of."""
    j = {n: _joint(n) for n in JOINT_NAMES}
    parts = [
        (j["pelvis"] - [0.06, 0.02, 0], j["pelvis"] + [0.06, -0.02, 0], 0.13, 0.13),
        (j["pelvis"], j["spine2"], 0.13, 0.12),
        (j["spine2"] + [0, 0.04, 0], j["spine3"] + [0, 0.03, 0], 0.13, 0.14),
        (j["neck"] - [0, 0.1, 0], j["head"], 0.06, 0.055),
        (j["head"] + [0, 0.02, 0], _joint("head", _TIPS), 0.085, 0.09),
    ]
    for s in ("left_", "right_"):
        parts += [
            (j["spine3"], j[s + "shoulder"], 0.10, 0.065),
            (j[s + "shoulder"], j[s + "elbow"], 0.058, 0.047),
            (j[s + "elbow"], j[s + "wrist"], 0.046, 0.036),
            (j[s + "wrist"], _joint(s + "hand", _TIPS), 0.036, 0.036),
            (j[s + "hip"], j[s + "knee"], 0.085, 0.06),
            (j[s + "knee"], j[s + "ankle"], 0.062, 0.042),
            (j[s + "ankle"] - [0, 0.03, 0], _joint(s + "foot", _TIPS), 0.045, 0.036),
        ]
    return parts


def _distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance (...,) of points (..., 3) to the body's surface, negative inside, parts melted together."""
    total = np.zeros(points.shape[:-1])
    for a, b, ra, rb in _capsules():
        h = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0.0, 1.0)
        d = np.linalg.norm(points - a - h[..., None] * (b - a), axis=-1) - (ra + (rb - ra) * h)
        total += np.exp(-d / SMOOTH_M * 4)
    return -np.log(np.maximum(total, 1e-300)) * SMOOTH_M / 4


def _normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    step = 1e-4
    g = np.stack([_distance(points + e) - _distance(points - e) for e in np.eye(3) * step], axis=-1)
    return g / np.linalg.norm(g, axis=-1, keepdims=True)


def _surface() -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vertices and faces of the zero level by surface nets: a vertex per crossed cell, a quad per crossed edge."""
    low, high = np.array([-1.02, -1.32, -0.3]), np.array([1.02, 0.72, 0.36])
    # half a cell off the mirror plane, so that left and right are cut alike
    axes = [
        np.arange(lo, hi, CELL_M) + (CELL_M * 0.013 if k else 0.0)
        for k, (lo, hi) in enumerate(zip(low, high, strict=True))
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = _distance(grid) < 0
    corners = [
        inside[i : i - 1 or None, j : j - 1 or None, k : k - 1 or None] for i in (0, 1) for j in (0, 1) for k in (0, 1)
    ]
    count = np.sum(corners, axis=0)
    crossed = (count > 0) & (count < 8)
    number = np.full(crossed.shape, -1)
    number[crossed] = np.arange(crossed.sum())
    vertices = grid[:-1, :-1, :-1][crossed] + CELL_M / 2
    for _ in range(8):
        vertices = vertices - _distance(vertices)[:, None] * _normals(vertices)
    quads = []
    for axis in range(3):
        u, v = [(1, 2), (2, 0), (0, 1)][axis]
        here, there = (
            np.take(inside, range(inside.shape[axis] - 1), axis),
            np.take(inside, range(1, inside.shape[axis]), axis),
        )
        for cell in np.argwhere(here != there):
            ring = []
            for du, dv in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
                c = cell.copy()
                c[u] += du
                c[v] += dv
                ring.append(number[tuple(c)])
            quads.append(ring if here[tuple(cell)] else ring[::-1])
    q = np.array(quads)
    return vertices, np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]]).astype(np.int32)


def _bone_distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V, 24) metres from each point to the bone that each joint turns."""
    j, out = joints(), np.empty((len(points), len(JOINT_NAMES)))
    for k, name in enumerate(JOINT_NAMES):
        children = [c for c, p in enumerate(PARENTS) if p == k]
        ends = [j[c] for c in children] or [_joint(name, {**_TIPS})]
        per_end = []
        for end in ends:
            axis = end - j[k]
            h = np.clip(((points - j[k]) @ axis) / (axis @ axis), 0, 1)
            per_end.append(np.linalg.norm(points - j[k] - h[:, None] * axis, axis=-1))
        out[:, k] = np.min(per_end, axis=0)
    return out


def _part_names() -> list[str]:
    names = []
    for joint in JOINT_NAMES:
        side, _, rest = joint.partition("_")
        part = (
            f"{side}_{PART_OF_JOINT[rest]}"
            if side in ("left", "right") and rest != "collar"
            else PART_OF_JOINT[rest or side]
        )
        names.append(part)
    return names


def _shapedirs(v: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V, 3, 6) metres per standard deviation: size, girth, leg length, belly, arm length, shoulder breadth."""
    arm = np.clip((np.abs(v[:, 0]) - 0.16) / 0.1, 0, 1)[:, None]
    leg = np.clip((-0.25 - v[:, 1]) / 0.9, 0, 1)[:, None]
    trunk = np.exp(-(((v[:, 1] + 0.05) / 0.2) ** 2))[:, None] * (1 - arm)
    side = np.sign(v[:, [0]])
    columns = [
        0.035 * (v - joints()[0]),
        normals * (0.006 + 0.012 * trunk),
        leg * np.array([0.0, -0.025, 0.0]),
        trunk * np.array([0.0, 0.0, 0.02]) * np.clip(normals[:, [2]], 0, 1),
        np.clip((np.abs(v[:, [0]]) - 0.18) / 0.6, 0, 1) * side * np.array([0.02, 0.0, 0.0]),
        np.clip(np.abs(v[:, [0]]) / 0.18, 0, 1) * (v[:, [1]] > 0) * side * np.array([0.01, 0.0, 0.0]),
    ]
    return np.stack(columns, axis=-1)


@lru_cache(maxsize=1)
def _arrays() -> dict[str, NDArray]:
    v, faces = _surface()
    normals = _normals(v)
    distance = _bone_distance(v)
    weights = np.exp(-((distance - distance.min(1, keepdims=True)) / 0.03))
    weights[weights < np.sort(weights, axis=1)[:, [-4]]] = 0
    weights /= weights.sum(1, keepdims=True)
    regressor = np.zeros((len(JOINT_NAMES), len(v)))
    for k, joint in enumerate(joints()):
        near = np.exp(-((np.linalg.norm(v - joint, axis=1) / 0.12) ** 2))
        rows = np.c_[v, np.ones(len(v))]
        # the smallest locally weighted combination of vertices that gives the joint exactly
        regressor[k] = near * (rows @ np.linalg.solve((rows * near[:, None]).T @ rows, np.r_[joint, 1.0]))
    parts = _part_names()
    part_names = sorted(set(parts))
    prior = {
        f"prior_mean_{s}": np.full(NUM_BETAS, m, np.float32)
        for s, m in (("female", -0.3), ("male", 0.3), ("neutral", 0.0))
    }
    prior |= {f"prior_cov_{s}": np.eye(NUM_BETAS, dtype=np.float32) for s in ("female", "male", "neutral")}
    every = np.arange(len(v), dtype=np.int32)
    return {
        "v_template": v.astype(np.float32),
        "shapedirs": _shapedirs(v, normals).astype(np.float32),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights.astype(np.float32),
        "kintree_table": np.array([PARENTS, range(len(PARENTS))], np.int64),
        "faces": faces,
        "joint_names": np.array(JOINT_NAMES),
        "sample_mask": np.ones(len(v), bool),
        **prior,
        "lod1_vertex_ids": every,
        "lod1_faces": faces,
        "lod2_vertex_ids": every,
        "lod2_faces": faces,
        "part_names": np.array(part_names),
        "part_labels": np.array([part_names.index(parts[k]) for k in distance.argmin(1)], np.uint8),
    }


def tiny_body_arrays() -> dict[str, NDArray]:
    """The arrays of the body file, a fresh copy each time, so that a test may spoil them."""
    arrays = {k: a.copy() for k, a in _arrays().items()}
    arrays["meta"] = np.array(json.dumps({
        "name": "tiny", "licence": "Apache-2.0", "source": "made by the tests", "units": "metres", "version": "1",
        "sexes": ["female", "male", "neutral"],
    }))  # fmt: skip
    return arrays


def write_tiny_body(path: Path) -> Path:
    """Write the body file and return where it is."""
    with open(path, "wb") as f:
        np.savez(f, allow_pickle=False, **tiny_body_arrays())
    return path
