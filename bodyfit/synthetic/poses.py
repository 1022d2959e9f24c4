"""Everyday standing poses as SMPL axis-angles, with the variation that people put into them.

A pose is written by hand as Euler angles in degrees (twist about x, swing about y, lift about z) of the T-pose's axes:
x is the person's left, y up, z front. The rotation is Rz(lift) Ry(swing) Rx(twist), so for the left arm a lift of -75
hangs it down, a swing of -90 reaches forward and a positive twist turns the elbow's crease inward. The right side
mirrors: (x, -y, -z).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.errors import InputError
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

_J = {name: i for i, name in enumerate(SMPL_JOINTS)}

Euler = tuple[float, float, float]


def _both(**left: Euler) -> dict[str, Euler]:
    """Left-side angles and their mirror image on the right."""
    out: dict[str, Euler] = {}
    for name, (x, y, z) in left.items():
        out[f"left_{name}"], out[f"right_{name}"] = (x, y, z), (x, -y, -z)
    return out


_HANGING = _both(collar=(0, 0, -4), shoulder=(8, -5, -68), elbow=(0, -14, 0))
_LEGS = _both(hip=(0, 0, 4), knee=(3, 0, 0))

POSES: dict[str, dict[str, Euler]] = {
    "t_pose": _both(shoulder=(0, -4, -8), elbow=(0, -6, 0), hip=(0, 0, 5)),
    "a_pose": _both(collar=(0, 0, -2), shoulder=(0, -4, -42), elbow=(0, -8, 0), hip=(0, 0, 9)),
    "arms_down": {**_HANGING, **_LEGS},
    "hands_on_hips": _both(
        collar=(0, 0, -2), shoulder=(66, 12, -40), elbow=(0, -92, 0), wrist=(0, 0, 20), hip=(0, 0, 7), knee=(2, 0, 0)
    ),
    "mid_walk": {
        **_both(collar=(0, 0, -4)),
        "left_hip": (-19, 0, 2), "right_hip": (14, 0, -2), "left_knee": (6, 0, 0), "right_knee": (22, 0, 0),
        "right_foot": (-18, 0, 0), "spine2": (3, 4, 0),
        "left_shoulder": (8, 18, -68), "left_elbow": (0, -12, 0),
        "right_shoulder": (8, 24, 68), "right_elbow": (0, 30, 0),
    },
    "arms_crossed": {
        **_LEGS, **_both(collar=(0, -8, -2)),
        "left_shoulder": (64, -34, -66), "left_elbow": (0, -104, 0),
        "right_shoulder": (58, 44, 62), "right_elbow": (0, 100, 0),
    },
    "hands_before_chest": {
        **_LEGS, **_both(collar=(0, -5, -2), shoulder=(42, -24, -62), elbow=(0, -112, 0), wrist=(0, 0, 12)),
    },
    "one_arm_up": {
        **_HANGING, **_LEGS, "left_collar": (0, 0, 12), "left_shoulder": (-20, -12, 52), "left_elbow": (0, -18, 0),
    },
    "phone_at_ear": {
        **_HANGING, **_LEGS, "left_shoulder": (-40, -36, -44), "left_elbow": (0, -143, 0), "left_wrist": (0, 0, -6),
        "head": (4, 4, 3),
    },
    "hands_behind_back": {**_LEGS, **_both(collar=(0, 6, -4), shoulder=(104, 20, -66), elbow=(0, -62, 0))},
    "leaning": {
        **_HANGING, **_LEGS, "spine1": (7, 4, 3), "spine2": (6, 3, 3), "spine3": (4, 0, 2), "head": (-8, 0, 0),
        "left_hip": (-6, 0, 3), "right_hip": (-6, 0, -5),
    },
    "contrapposto": {
        **_HANGING, "pelvis": (0, 0, -5), "left_hip": (-20, 8, 12), "left_knee": (32, 0, 0), "right_hip": (0, 0, 4),
        "spine1": (0, 0, 3), "spine2": (0, 0, 4), "head": (0, 10, 0),
        "right_shoulder": (66, -12, 40), "right_elbow": (0, 92, 0),
    },
    "holding": {**_LEGS, **_both(collar=(0, -4, -3), shoulder=(12, -22, -70), elbow=(0, -74, 0), wrist=(0, 0, 0))},
    "one_arm_forward": {
        **_HANGING, **_LEGS, "right_collar": (0, 6, 0), "right_shoulder": (-10, 74, 12), "right_elbow": (0, 14, 0),
    },
}  # fmt: skip
"""Joint angles of every pose, degrees (twist, swing, lift); joints left out stay at zero."""

EVERYDAY = tuple(name for name in POSES if name != "t_pose")
"""The poses in which people stand about."""

_STIFF = {  # share of the jitter that a joint gets: legs carry the weight, the trunk sums three joints
    "hip": 0.6, "knee": 0.5, "ankle": 0.4, "foot": 0.3, "spine1": 0.5, "spine2": 0.5, "spine3": 0.5, "collar": 0.5,
    "hand": 0.6, "pelvis": 0.4,
}  # fmt: skip


def euler_matrix(euler_deg: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 3) degrees (twist, swing, lift) to (..., 3, 3)."""
    x, y, z = (np.zeros((*euler_deg.shape[:-1], 3)) for _ in range(3))
    rad = np.radians(euler_deg)
    x[..., 0], y[..., 1], z[..., 2] = rad[..., 0], rad[..., 1], rad[..., 2]
    return matrix_from_axis_angle(z) @ matrix_from_axis_angle(y) @ matrix_from_axis_angle(x)


def heading_rotation(yaw: float) -> NDArray[np.float64]:
    """(3, 3) from the model's axes (x left, y up, z front) to a world with z up; yaw (radians) 0 looks along +x."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[-s, 0.0, c], [c, 0.0, s], [0.0, 1.0, 0.0]])


def everyday_pose(
    name: str, rng: np.random.Generator, *, yaw: float = 0.0, jitter_deg: float = 5.0, mirror: bool | None = None
) -> NDArray[np.float64]:
    """A (24, 3) axis-angle pose in a world with z up: the named pose, varied, its feet level with the floor.

    Args:
        name: one of `POSES`.
        yaw: heading in radians; 0 looks along world +x.
        jitter_deg: standard deviation per joint and axis (legs and trunk get half of it).
        mirror: swap left and right; None leaves it to chance.

    Raises:
        InputError: the name is unknown.
    """
    if name not in POSES:
        raise InputError("pose", f"one of {', '.join(POSES)}", repr(name))
    euler = np.zeros((24, 3))
    for joint, angles in POSES[name].items():
        euler[_J[joint]] = angles
    noise = rng.normal(0.0, jitter_deg, (24, 3))
    for joint, i in _J.items():
        noise[i] *= _STIFF.get(joint.removeprefix("left_").removeprefix("right_"), 1.0)
    for side in ("left", "right"):
        noise[_J[f"{side}_knee"], 1:] *= 0.3  # hinges: hardly any give to the sides
        noise[_J[f"{side}_elbow"], 0] *= 0.3
        noise[_J[f"{side}_elbow"], 2] *= 0.2
    euler = euler + noise
    for side in ("left", "right"):  # knees and elbows do not bend backwards
        euler[_J[f"{side}_knee"], 0] = max(euler[_J[f"{side}_knee"], 0], 0.0)
    euler[_J["left_elbow"], 1] = min(euler[_J["left_elbow"], 1], 0.0)
    euler[_J["right_elbow"], 1] = max(euler[_J["right_elbow"], 1], 0.0)
    swap = rng.random() < 0.5
    if swap if mirror is None else mirror:
        euler = _mirrored(euler)
    R = euler_matrix(euler)
    _level_feet(R, 25.0)
    R[0] = heading_rotation(yaw) @ R[0]
    return axis_angle_from_matrix(R)


def _mirrored(euler: NDArray[np.float64]) -> NDArray[np.float64]:
    order = [
        _J[n.replace("left_", "right_") if n.startswith("left_") else n.replace("right_", "left_")] for n in SMPL_JOINTS
    ]
    return euler[order] * np.array([1.0, -1.0, -1.0])


def _level_feet(R: NDArray[np.float64], limit_deg: float) -> None:
    """Turn each ankle so that the sole is parallel to the floor, as far as an ankle goes."""
    for side in ("left", "right"):
        chain = R[0] @ R[_J[f"{side}_hip"]] @ R[_J[f"{side}_knee"]]
        foot = chain @ R[_J[f"{side}_ankle"]]
        heading = np.arctan2(foot[0, 2], foot[2, 2])
        level = chain.T @ matrix_from_axis_angle(np.array([0.0, heading, 0.0]))
        turn = axis_angle_from_matrix(level)
        angle = np.degrees(np.linalg.norm(turn))
        R[_J[f"{side}_ankle"]] = matrix_from_axis_angle(turn * min(1.0, limit_deg / max(angle, 1e-9)))
