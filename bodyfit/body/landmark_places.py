"""Landmarks of a standing body: the model's own, and where it has none, points found from its joints and surface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# name: (joint from which a ray leaves the body, direction with x outwards, parts it may meet)
_SIDED_RAYS: dict[str, tuple[str, tuple[float, float, float], tuple[str, ...]]] = {
    "neck_side": ("neck", (1.0, 0.3, 0.0), ("neck", "chest")),
    "acromion": ("shoulder", (0.1, 1.0, 0.0), ("upper_arm", "chest")),
    "bust_point": ("spine3", (0.45, -0.2, 1.0), ("chest", "abdomen")),
    "waist_side": ("spine1", (1.0, 0.5, 0.0), ("abdomen", "pelvis", "chest")),
    "trochanterion": ("hip", (1.0, 0.0, 0.0), ("thigh", "pelvis")),
    "buttock": ("hip", (0.0, 0.0, -1.0), ("thigh", "pelvis")),
    "patella": ("knee", (0.0, 0.0, 1.0), ("calf", "thigh")),
    "lateral_malleolus": ("ankle", (1.0, 0.0, 0.0), ("foot", "calf")),
    "olecranon": ("elbow", (0.0, 0.0, -1.0), ("forearm", "upper_arm")),
    "ulnar_styloid": ("wrist", (0.0, 0.0, -1.0), ("hand", "forearm")),
}
_MIDDLE_RAYS: dict[str, tuple[str, tuple[float, float, float], tuple[str, ...]]] = {
    "chin": ("head", (0.0, -0.3, 1.0), ("head", "neck")),
    "neck_base_back": ("neck", (0.0, 0.0, -1.0), ("neck", "chest")),
    "underbust_front": ("spine2", (0.0, 0.1, 1.0), ("chest", "abdomen")),
    "navel": ("spine1", (0.0, 0.0, 1.0), ("abdomen", "pelvis")),
}
# name: (part, direction of the extreme, x outwards)
_SIDED_EXTREMES: dict[str, tuple[str, tuple[float, float, float]]] = {
    "fingertip": ("hand", (0.0, -1.0, 0.0)),
    "heel": ("foot", (0.0, 0.0, -1.0)),
    "toe_tip": ("foot", (0.0, 0.0, 1.0)),
}
_MIDDLE_EXTREMES: dict[str, tuple[str, tuple[float, float, float]]] = {
    "head_top": ("head", (0.0, 1.0, 0.0)),
    "nose_tip": ("head", (0.0, 0.0, 1.0)),
}


def landmark_names() -> tuple[str, ...]:
    """The landmarks that measurements use."""
    sided = (*_SIDED_RAYS, *_SIDED_EXTREMES)
    return (*_MIDDLE_EXTREMES, *_MIDDLE_RAYS, *(f"{s}_{n}" for n in sided for s in ("left", "right")))


def place_landmarks(
    known: Mapping[str, NDArray[Any]], points: NDArray[np.float64], parts: NDArray[np.str_], joints: Mapping[str, int]
) -> dict[str, NDArray[np.int64]]:
    """Rows of `points` whose mean is each landmark: the known ones, the others where the standing template has them.

    Args:
        known: landmark name to vertices, the model's own.
        points: (V + J, 3) metres, the standing template's vertices, then its joints; y up, z to the front.
        parts: (V,) name of each vertex's body part.
        joints: joint name to its row in points.
    """
    places = {n: np.asarray(known[n], np.int64) for n in landmark_names() if n in known and len(known[n])}
    vertices = points[: len(parts)]

    def add(name: str, row: int) -> None:
        places.setdefault(name, np.array([row], np.int64))

    def extreme(of: tuple[str, ...], direction: NDArray[np.float64]) -> int:
        rows = np.flatnonzero(np.isin(parts, of))
        return int(rows[np.argmax(vertices[rows] @ direction)]) if len(rows) else int(np.argmax(vertices @ direction))

    def ray(start: str, direction: NDArray[np.float64], of: tuple[str, ...]) -> int:
        """The vertex furthest along a ray, those beside it set back by thrice their distance from it."""
        rows = np.flatnonzero(np.isin(parts, of))
        rows = rows if len(rows) else np.arange(len(parts))
        way = direction / np.linalg.norm(direction)
        offset = vertices[rows] - points[joints[start]]
        along = offset @ way
        beside = np.linalg.norm(offset - along[:, None] * way, axis=1)
        return int(rows[np.argmax(along - 3.0 * beside)])

    for name, (part, way) in _MIDDLE_EXTREMES.items():
        add(name, extreme((part,), np.array(way)))
    for name, (joint, way, of) in _MIDDLE_RAYS.items():
        add(name, ray(joint, np.array(way), of))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        mirror = np.array([sign, 1.0, 1.0])
        for name, (part, way) in _SIDED_EXTREMES.items():
            add(f"{side}_{name}", extreme((f"{side}_{part}",), mirror * way))
        for name, (joint, way, of) in _SIDED_RAYS.items():
            start = joint if joint in joints else f"{side}_{joint}"
            add(f"{side}_{name}", ray(start, mirror * way, tuple(q for p in of for q in (p, f"{side}_{p}"))))
    return places
