"""Everyday standing poses to start from, built from a few plain angles per limb."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle


class Arm(NamedTuple):
    """A left arm in degrees, from the T-pose: twist about the upper arm, lowered in the frontal plane, brought forward
    about the vertical, swung forward about the left-right axis; then the elbow's bend."""

    lower: float
    forward: float = 0.0
    swing: float = 0.0
    twist: float = 0.0
    elbow: float = 10.0


ARMS: dict[str, Arm] = {
    "down": Arm(74),
    "away": Arm(50),
    "out": Arm(8),
    "up": Arm(-62, elbow=20),
    "on_hip": Arm(52, swing=-12, twist=62, elbow=85),
    "before_belly": Arm(70, swing=15, twist=45, elbow=80),
    "before_chest": Arm(62, swing=30, twist=40, elbow=120),
    "forearm_forward": Arm(76, elbow=80),
    "at_ear": Arm(48, forward=35, twist=0, elbow=140),
    "behind_back": Arm(68, swing=-30, twist=75, elbow=55),
    "reaching": Arm(15, forward=75, elbow=20),
    "swung_forward": Arm(74, swing=28, elbow=25),
    "swung_back": Arm(72, swing=-28, elbow=12),
}


class Legs(NamedTuple):
    """Degrees: stance apart; left and right thigh forward; left and right knee bent."""

    apart: float = 4.0
    left: float = 0.0
    right: float = 0.0
    left_knee: float = 4.0
    right_knee: float = 4.0


STANCES: dict[str, tuple[str, str, Legs]] = {
    "arms_down": ("down", "down", Legs()),
    "a_pose": ("away", "away", Legs(9)),
    "arms_out": ("out", "out", Legs(6)),
    "hands_on_hips": ("on_hip", "on_hip", Legs(7)),
    "hands_in_front": ("before_belly", "before_belly", Legs()),
    "arms_crossed": ("before_chest", "before_chest", Legs()),
    "walk_left": ("swung_back", "swung_forward", Legs(2, 22, -18, 8, 12)),
    "walk_right": ("swung_forward", "swung_back", Legs(2, -18, 22, 12, 8)),
}
RARER_STANCES: dict[str, tuple[str, str, Legs]] = {
    "left_arm_up": ("up", "down", Legs()),
    "right_arm_up": ("down", "up", Legs()),
    "left_at_ear": ("at_ear", "down", Legs()),
    "right_at_ear": ("down", "at_ear", Legs()),
    "left_reaching": ("reaching", "down", Legs()),
    "right_reaching": ("down", "reaching", Legs()),
    "hands_behind_back": ("behind_back", "behind_back", Legs()),
    "forearms_forward": ("forearm_forward", "forearm_forward", Legs()),
    "arms_up": ("up", "up", Legs()),
}
"""tried when the usual ones leave too much unexplained"""


def _turn(axis: int, degrees: float) -> NDArray[np.float64]:
    v = np.zeros(3)
    v[axis] = np.radians(degrees)
    return matrix_from_axis_angle(v)


def mirrored(axis_angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation's mirror image left to right."""
    return axis_angle * np.array([1.0, -1.0, -1.0])


@lru_cache(maxsize=64)
def arm_rotations(arm: Arm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axis-angle of the left shoulder and the left elbow."""
    R = _turn(0, -arm.swing) @ _turn(1, -arm.forward) @ _turn(2, -arm.lower) @ _turn(0, arm.twist)
    shoulder, elbow = axis_angle_from_matrix(R), np.array([0.0, -np.radians(arm.elbow), 0.0])
    shoulder.flags.writeable = elbow.flags.writeable = False  # they are shared
    return shoulder, elbow


def with_arm(pose: NDArray[np.float64], names: tuple[str, ...], side: str, arm: Arm) -> NDArray[np.float64]:
    """A copy of a pose (J, 3) with one arm replaced; wrist and collar go back to rest."""
    out = pose.copy()
    shoulder, elbow = arm_rotations(arm)
    turn = mirrored if side == "right" else np.asarray
    for joint, value in (("shoulder", shoulder), ("elbow", elbow), ("wrist", np.zeros(3)), ("collar", np.zeros(3))):
        if f"{side}_{joint}" in names:
            out[names.index(f"{side}_{joint}")] = turn(value)
    return out


def stance_pose(names: tuple[str, ...], stance: str) -> NDArray[np.float64]:
    """(J, 3) axis-angle of a named stance; the root stays at zero."""
    left, right, legs = {**STANCES, **RARER_STANCES}[stance]
    pose = np.zeros((len(names), 3))
    pose = with_arm(pose, names, "left", ARMS[left])
    pose = with_arm(pose, names, "right", ARMS[right])
    values = {
        "left_hip": axis_angle_from_matrix(_turn(2, legs.apart) @ _turn(0, -legs.left)),
        "right_hip": axis_angle_from_matrix(_turn(2, -legs.apart) @ _turn(0, -legs.right)),
        "left_knee": np.array([np.radians(legs.left_knee), 0, 0]),
        "right_knee": np.array([np.radians(legs.right_knee), 0, 0]),
    }
    for name, value in values.items():
        if name in names:
            pose[names.index(name)] = value
    return pose


WRISTS = ((0.0, 0.0, 0.8), (0.0, 0.0, -0.8), (0.0, 0.6, 0.0), (0.0, -0.6, 0.0), (1.4, 0.0, 0.0), (-1.4, 0.0, 0.0))
"""radians: the left hand bent down and up, to either side, and the forearm turned about itself"""
HEAD_TURNS = (-0.9, -0.45, 0.0, 0.45, 0.9)
"""radians about the vertical, shared by neck and head"""
LEG_SWINGS = (-18.0, 0.0, 18.0)
"""degrees: a thigh behind, under and before the body"""


_OTHER = {"left": "right", "right": "left"}


def limb_variants(pose: NDArray[np.float64], names: tuple[str, ...]) -> list[list[NDArray[np.float64]]]:
    """Copies of a pose (J, 3) with one limb elsewhere, grouped by limb: left arm, right arm, hands,
    head, legs exchanged, left leg, right leg."""
    groups: list[list[NDArray[np.float64]]] = []
    for side in ("left", "right"):
        groups.append(
            [*(with_arm(pose, names, side, arm) for arm in ARMS.values()), _like_the_other(pose, names, side)]
        )
    for side in ("left", "right"):
        group = []
        for turn in WRISTS:
            value = np.array(turn) if side == "left" else mirrored(np.array(turn))
            out = pose.copy()
            if f"{side}_wrist" in names:
                out[names.index(f"{side}_wrist")] = np.array([0.0, *value[1:]])
            if f"{side}_elbow" in names:
                # the elbow's bend stays; the forearm turns about its own length first
                elbow = names.index(f"{side}_elbow")
                turned = matrix_from_axis_angle(pose[elbow]) @ _turn(0, float(np.degrees(value[0])))
                out[elbow] = axis_angle_from_matrix(turned)
            group.append(out)
        groups.append(group)
    joints = [names.index(n) for n in ("neck", "head") if n in names]
    heads = []
    for turn in HEAD_TURNS:
        out = pose.copy()
        out[joints] = 0
        out[joints, 1] = turn / max(len(joints), 1)
        heads.append(out)
    groups.append(heads)
    legs = pose.copy()
    for joint in ("hip", "knee", "ankle"):
        if f"left_{joint}" in names and f"right_{joint}" in names:
            left, right = names.index(f"left_{joint}"), names.index(f"right_{joint}")
            legs[left], legs[right] = mirrored(pose[right]), mirrored(pose[left])
    groups.append([legs])
    for side in ("left", "right"):
        groups.append([_with_leg(pose, names, side, swing, apart) for swing in LEG_SWINGS for apart in (3.0, 9.0)])
    return groups


def _like_the_other(pose: NDArray[np.float64], names: tuple[str, ...], side: str) -> NDArray[np.float64]:
    """A copy of a pose whose arm does what the other one does."""
    out = pose.copy()
    for joint in ("collar", "shoulder", "elbow", "wrist", "hand"):
        if f"left_{joint}" in names and f"right_{joint}" in names:
            mine, other = names.index(f"{side}_{joint}"), names.index(f"{_OTHER[side]}_{joint}")
            out[mine] = mirrored(pose[other])
    return out


def _with_leg(
    pose: NDArray[np.float64], names: tuple[str, ...], side: str, swing: float, apart: float
) -> NDArray[np.float64]:
    """A copy of a pose with one plain leg: the thigh swung forward and apart by degrees, the knee nearly straight."""
    out = pose.copy()
    turn = mirrored if side == "right" else np.asarray
    hip = _hip_turn(swing, apart)
    knee = np.array([np.radians(4.0 + max(-swing, 0.0)), 0.0, 0.0])
    for joint, value in (("hip", hip), ("knee", knee), ("ankle", np.zeros(3))):
        if f"{side}_{joint}" in names:
            out[names.index(f"{side}_{joint}")] = turn(value)
    return out


@lru_cache(maxsize=64)
def _hip_turn(swing: float, apart: float) -> NDArray[np.float64]:
    """Axis-angle of the left hip."""
    out = axis_angle_from_matrix(_turn(2, apart) @ _turn(0, -swing))
    out.flags.writeable = False  # it is shared
    return out


def mutate(
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    names: tuple[str, ...],
    up: NDArray[np.float64],
    others: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Changes poses (N, J, 3, 3) and transl (N, 3) in place, each by one to three chance moves: a limb elsewhere, the
    limbs of one of the others (M, J, 3, 3), legs exchanged, the whole body turned about `up`, tilted or moved."""
    arms = list(ARMS.values())
    for i in range(len(rotations)):
        for move in rng.choice(6, size=int(rng.integers(1, 4)), replace=False):
            pose = axis_angle_from_matrix(rotations[i])
            side = ("left", "right")[int(rng.integers(2))]
            if move == 0:
                pose = with_arm(pose, names, side, arms[int(rng.integers(len(arms)))])
            elif move == 1:
                pose = _with_leg(pose, names, side, float(rng.normal(0, 22)), float(rng.uniform(0, 12)))
            elif move == 2:
                other = axis_angle_from_matrix(others[int(rng.integers(len(others)))])
                for name in (
                    ("collar", "shoulder", "elbow", "wrist") if rng.random() < 0.5 else ("hip", "knee", "ankle")
                ):
                    for s in ("left", "right"):
                        if f"{s}_{name}" in names:
                            pose[names.index(f"{s}_{name}")] = other[names.index(f"{s}_{name}")]
            elif move == 3:
                for name in ("hip", "knee", "ankle"):
                    if f"left_{name}" in names and f"right_{name}" in names:
                        left, right = names.index(f"left_{name}"), names.index(f"right_{name}")
                        pose[[left, right]] = mirrored(pose[[right, left]])
            turned = matrix_from_axis_angle(pose)
            turned[0] = rotations[i, 0]
            if move == 4:
                turn = up * rng.normal(0, 0.35) + rng.normal(0, 0.06, 3)
                turned[0] = matrix_from_axis_angle(turn) @ turned[0]
            elif move == 5:
                transl[i] += rng.normal(0, 0.03, 3)
            rotations[i] = turned
