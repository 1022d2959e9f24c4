"""Girths of an Anny rest mesh by plane cuts: the rules by which test recordings state their subjects' measurements.

They are not the ISO definitions of `bodyfit.body.measure`: truth and fit are cut alike here, so that their difference
is an error of shape and not of definition. All metres, z up. Landmarks and the parts of the mesh come from a file
beside the recordings (`landmarks.npz`); it belongs to the scoring and is not part of bodyfit.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError

GIRTHS = ("chest", "waist", "hip", "thigh", "calf", "upper_arm", "neck")
FILE_NAME = "landmarks.npz"
TRUNK, HEAD, ARMS, LEGS = 0, 1, (2, 3), (4, 5)
STEP_M = 0.005
UP = np.array([0.0, 0.0, 1.0])
POINTS = ("waist", "nipple", "neck_base", "head_base", "shoulder_L", "shoulder_R", "elbow_L", "elbow_R")


@dataclass(frozen=True, eq=False)
class GirthRules:
    """Edges (E, 2) of the parts of the mesh, and the vertices whose mean is a landmark."""

    num_vertices: int
    without_arms: NDArray[np.int64]
    trunk_and_legs: NDArray[np.int64]
    arms: tuple[NDArray[np.int64], NDArray[np.int64]]
    points: dict[str, NDArray[np.int64]]

    def measure(self, vertices: NDArray[Any]) -> dict[str, float]:
        """Stature and the seven girths of a rest mesh (V, 3): the perimeters of the convex hulls of its slices."""
        v = np.asarray(vertices, np.float64)
        if v.shape != (self.num_vertices, 3):
            raise InputError("rest vertices", f"shape ({self.num_vertices}, 3)", str(v.shape))
        at = {name: v[ids].mean(0) for name, ids in self.points.items()}
        low, stature = float(v[:, 2].min()), float(np.ptp(v[:, 2]))
        # the crotch is the lowest point of the cut through the middle
        crotch = float(_cut(v, self.trunk_and_legs, np.zeros(3), np.array([1.0, 0.0, 0.0]))[:, 2].min())

        def level(edges: NDArray[np.int64], z: float) -> NDArray[np.float64]:
            return _cut(v, edges, UP * z, UP)

        def legs(z: float) -> tuple[float, float]:
            p = level(self.trunk_and_legs, z)
            return _perimeter(p[p[:, 0] > 0], UP), _perimeter(p[p[:, 0] < 0], UP)

        shin = np.arange(low + 0.3 * (crotch - low), low + 0.5 * (crotch - low), STEP_M)
        seat = np.arange(crotch + 0.02 * stature, at["waist"][2], STEP_M)
        throat = np.arange(at["neck_base"][2], at["head_base"][2], STEP_M)
        upper_arms = []
        for side, edges in zip("LR", self.arms, strict=True):
            a, b = at[f"shoulder_{side}"], at[f"elbow_{side}"]
            axis = (b - a) / np.linalg.norm(b - a)
            upper_arms.append(_perimeter(_cut(v, edges, (a + b) / 2, axis), axis))
        return {
            "stature": stature,
            "chest": _perimeter(level(self.without_arms, at["nipple"][2]), UP),
            "waist": _perimeter(level(self.without_arms, at["waist"][2]), UP),
            "hip": max(_perimeter(level(self.trunk_and_legs, z), UP) for z in seat),
            "thigh": float(np.mean(legs(crotch - 0.02 * stature))),
            "calf": float(np.max([legs(z) for z in shin], axis=0).mean()),
            "upper_arm": float(np.mean(upper_arms)),
            "neck": min(_perimeter(level(self.without_arms, z), UP) for z in throat),
        }


def load_girth_rules(path: str | Path) -> GirthRules:
    """Reads the rules' landmarks: the file, or the folder that holds it.

    Raises:
        InputError: no such file, or one without the arrays that are needed.
    """
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    if not file.is_file():
        raise InputError("--rules", f"a folder that holds {FILE_NAME}", str(path))
    try:
        with np.load(file, allow_pickle=False) as z:
            arrays = {k: z[k] for k in ("label", "faces", *POINTS)}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as e:
        raise InputError("--rules", f"{FILE_NAME} with label, faces and the landmarks", f"{e}") from None
    faces, label = arrays["faces"].astype(np.int64), arrays["label"]
    of_face = label[faces]
    return GirthRules(
        num_vertices=len(label),
        without_arms=_edges(faces[~np.isin(of_face, ARMS).any(1)]),
        trunk_and_legs=_edges(faces[np.isin(of_face, (TRUNK, *LEGS)).all(1)]),
        arms=(_edges(faces[(of_face == ARMS[0]).any(1)]), _edges(faces[(of_face == ARMS[1]).any(1)])),
        points={name: arrays[name].astype(np.int64) for name in POINTS},
    )


def _edges(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _cut(
    v: NDArray[np.float64], edges: NDArray[np.int64], origin: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3) where the edges cross the plane."""
    height = (v - origin) @ normal
    edges = edges[(height[edges[:, 0]] > 0) != (height[edges[:, 1]] > 0)]
    first, second = height[edges[:, 0]], height[edges[:, 1]]
    share = (first / (first - second))[:, None]
    return (1.0 - share) * v[edges[:, 0]] + share * v[edges[:, 1]]


def _perimeter(points: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Length of a tape around points (N, 3) of a plane; 0 where they enclose nothing."""
    from scipy.spatial import ConvexHull, QhullError

    if len(points) < 3:
        return 0.0
    basis = np.linalg.svd(normal[None])[2][1:]
    try:
        return float(ConvexHull(points @ basis.T).area)
    except QhullError:
        return 0.0
