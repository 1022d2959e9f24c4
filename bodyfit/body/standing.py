"""The neutral standing pose of any SMPL-format body, and the points and regions on it that measurements need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.landmark_places import place_landmarks
from bodyfit.body.model import BodyModel
from bodyfit.body.sections import Region, mesh_edges
from bodyfit.body.skeleton import PART_NAMES, part_labels, part_of_joint
from bodyfit.errors import InputError
from bodyfit.rotation import axis_angle_from_matrix

ARM_ANGLE = np.radians(18.0)
"""Upper arms to the vertical: off the trunk, as for a tape around the chest."""
HANGING_ARM_ANGLE = np.radians(5.0)
"""Upper arms to the vertical for the bideltoid breadth."""
LEG_ANGLE = np.radians(2.0)
"""Hip-to-ankle lines to the vertical, feet a little apart."""
COLLAR_SHARE = 0.11
"""Share of the arm's way down that the shoulder girdle takes: about 8 degrees of 72 from the T-pose."""

_ARM_PARTS = {s: tuple(f"{s}_{p}" for p in ("upper_arm", "forearm", "hand")) for s in ("left", "right")}


@dataclass(frozen=True, eq=False)
class Standing:
    """How the bodies of one model are stood up and where they are measured.

    Points are the posed vertices (V, 3) followed by the posed joints (J, 3).

    Attributes:
        pose: (J, 3) axis-angle, the neutral standing pose.
        joints: joint name to its row among the points.
        landmarks: landmark name to rows among the points; the landmark is their mean.
        regions: by name: torso (trunk and thighs), neck, head, left_leg, left_arm …
        midline: edges (M, 2) that cross the template's mirror plane, and where on each (M,).
        deltoids: side to vertices (D,) of the upper arm's upper half and the weight (D,) with which the arm moves them.
        feet: side to vertices of the foot's heel and toes.
        num_vertices: V.
    """

    pose: NDArray[np.float64]
    joints: dict[str, int]
    landmarks: dict[str, NDArray[np.int64]]
    regions: dict[str, Region]
    midline: tuple[NDArray[np.int32], NDArray[np.float64]]
    deltoids: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    feet: dict[str, NDArray[np.int64]]
    num_vertices: int

    def landmark_points(self, points: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Each landmark's place (D, 3) metres on the points (D, V + J, 3) of each body."""
        rows = list(self.landmarks.values())
        counts = np.array([len(r) for r in rows])
        first = np.r_[0, np.cumsum(counts)[:-1]]
        means = np.add.reduceat(points[:, np.concatenate(rows)], first, axis=1) / counts[:, None]
        return {name: means[:, k] for k, name in enumerate(self.landmarks)}


def _least_rotation(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """The rotation matrix of least angle that takes the direction a to the direction b, both (3,)."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    c = np.cross(a, b)
    k = np.array([[0, -c[2], c[1]], [c[2], 0, -c[0]], [-c[1], c[0], 0]])
    return np.eye(3) + k + k @ k / (1 + a @ b)


def _about_front(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def standing_pose(model: BodyModel, arm_angle: float = ARM_ANGLE) -> NDArray[np.float64]:
    """(J, 3) axis-angle that stands a body upright: arms lowered beside the trunk, legs slightly apart, feet level.

    The angles are reached from wherever the template's joints are, so that a zero pose that differs from SMPL's T a
    little gives the same posture. Trunk, head, elbows, knees and hands stay as in the zero pose.

    Raises:
        InputError: the model's joints have not SMPL's names.
    """
    names = joint_rows(model)
    at = model.joint_template
    pose = np.zeros((model.num_joints, 3))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        collar, shoulder, elbow = (names[f"{side}_{n}"] for n in ("collar", "shoulder", "elbow"))
        upper = at[elbow] - at[shoulder]
        goal = np.array([sign * np.sin(arm_angle), -np.cos(arm_angle), 0.0])
        drop = np.arctan2(upper[1], sign * upper[0]) - np.arctan2(goal[1], sign * goal[0])
        girdle = _about_front(-sign * COLLAR_SHARE * drop)
        pose[collar] = axis_angle_from_matrix(girdle)
        pose[shoulder] = axis_angle_from_matrix(girdle.T @ _least_rotation(girdle @ upper, goal) @ girdle)
        leg = at[names[f"{side}_ankle"]] - at[names[f"{side}_hip"]]
        swing = sign * (LEG_ANGLE - np.arctan2(sign * leg[0], -leg[1]))
        pose[names[f"{side}_hip"], 2] = swing
        pose[names[f"{side}_ankle"], 2] = -swing
    return pose


def joint_rows(model: BodyModel) -> dict[str, int]:
    """Joint name to its number.

    Raises:
        InputError: a joint of SMPL's body is missing among the names.
    """
    names = {n: i for i, n in enumerate(model.joint_names)}
    wanted = ["pelvis", "spine1", "spine2", "spine3", "neck", "head"]
    wanted += [f"{s}_{n}" for s in ("left", "right")
               for n in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")]  # fmt: skip
    missing = [n for n in wanted if n not in names]
    if missing:
        raise InputError("joint_names", "SMPL's joint names", f"none called {', '.join(missing)}")
    return names


def parts_of(model: BodyModel) -> NDArray[np.str_]:
    """(V,) the name of the body part that each vertex belongs to.

    Raises:
        InputError: a joint has a name that none of SMPL's family has.
    """
    try:
        return np.array(PART_NAMES)[part_labels(model.lbs_weights, model.joint_names)]
    except KeyError as error:
        raise InputError("joint_names", "names of SMPL's, SMPL-H's or SMPL-X's joints", str(error)) from error


@lru_cache(maxsize=4)
def standing(model: BodyModel) -> Standing:
    """Prepares a model's bodies for measuring; kept for the models used last."""
    pose = standing_pose(model)
    V = model.num_vertices
    vertices, joints = model.forward(np.zeros(model.num_betas), pose)
    points = np.concatenate([vertices, joints])
    parts = parts_of(model)
    rows = {n: V + i for n, i in joint_rows(model).items()}
    is_in = lambda *names: np.isin(parts, names)  # noqa: E731
    across = np.asarray(model.v_template[:, 0])
    torso = is_in("pelvis", "abdomen", "chest", "neck", "left_thigh", "right_thigh")
    # the head has most of a body's vertices, and no tape goes round its face: what lies far off is not searched
    neck, head = points[rows["neck"]], points[rows["head"]]
    up_neck = (vertices - neck) @ (head - neck) / ((head - neck) @ (head - neck))
    landmarks = place_landmarks(model.landmarks, points, parts, rows)
    nose, top = (points[landmarks[n]].mean(0)[1] for n in ("nose_tip", "head_top"))
    masks = {
        "torso": torso,
        "neck": is_in("chest", "neck", "head") & (up_neck > -0.4) & (up_neck < 1.5),
        "head": is_in("head", "neck") & (vertices[:, 1] > nose + 0.2 * (top - nose)),
    }
    for side, sign in (("left", 1.0), ("right", -1.0)):
        # skin between the legs may hang on the pelvis: it belongs to the leg of its side
        own = is_in(*(f"{side}_{p}" for p in ("thigh", "calf", "foot")))
        masks[f"{side}_leg"] = own | (is_in("pelvis") & (sign * across > 0))
        masks[f"{side}_arm"] = is_in(*_ARM_PARTS[side])
    every = mesh_edges(model.faces)
    regions = {name: Region.of(every[mask[every].all(1)]) for name, mask in masks.items()}
    torso_edges = regions["torso"].edges
    a, b = across[torso_edges].astype(np.float64).T
    crossing = (a > 0) != (b > 0)
    deltoids = {}
    for side in ("left", "right"):
        shoulder, elbow = points[rows[f"{side}_shoulder"]], points[rows[f"{side}_elbow"]]
        along = (vertices - shoulder) @ (elbow - shoulder) / ((elbow - shoulder) @ (elbow - shoulder))
        near = np.flatnonzero(is_in(f"{side}_upper_arm", "chest") & (along < 0.5) & (along > -0.2))
        arm = [i for i, n in enumerate(model.joint_names) if part_of_joint(n) in _ARM_PARTS[side]]
        weight = np.asarray(model.lbs_weights)[near][:, arm].sum(1).astype(np.float64)
        deltoids[side] = (near[weight > 0.3], weight[weight > 0.3])
    feet = {}
    for side in ("left", "right"):  # the middle of a foot is neither its heel nor its toes
        heel, toe = (points[landmarks[f"{side}_{n}"]].mean(0) for n in ("heel", "toe_tip"))
        along = (vertices - heel) @ (toe - heel) / ((toe - heel) @ (toe - heel))
        feet[side] = np.flatnonzero(is_in(f"{side}_foot") & ((along < 0.2) | (along > 0.7)))
    return Standing(
        pose=pose,
        joints=rows,
        landmarks=landmarks,
        regions=regions,
        midline=(torso_edges[crossing], (a / np.where(crossing, a - b, 1.0))[crossing]),
        deltoids=deltoids,
        feet=feet,
        num_vertices=V,
    )
