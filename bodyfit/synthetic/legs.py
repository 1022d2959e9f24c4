"""Legs that stand where they are told: two-bone inverse kinematics, and feet that roll from the heel over the ball.

A foot is placed by its ankle's place over the floor with the sole flat, its heading, how high it is lifted, and two
turns: the heel raised about the ball (the toes stay on the floor) and the toes raised about the heel. All functions
take whole clips at once and are smooth wherever their arguments are, as long as no leg is stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.subject import Subject

SIDES = ("left", "right")
STRETCH = 0.995
"""A leg is never longer than this share of its bones: knees give way before they lock, and locked knees jerk."""


@dataclass(frozen=True)
class Leg:
    """One leg at rest, metres in the model's axes (x left, y up, z front).

    Attributes:
        hip: (3,) hip from the pelvis joint; thigh, shin (3,): the bones.
        ankle_height: of the ankle over the sole.
        ball, heel: (3,) from the ankle to the points about which the foot rolls.
        joints: numbers of hip, knee, ankle and foot.
    """

    hip: NDArray[np.float64]
    thigh: NDArray[np.float64]
    shin: NDArray[np.float64]
    ankle_height: float
    ball: NDArray[np.float64]
    heel: NDArray[np.float64]
    joints: tuple[int, int, int, int]

    @property
    def length(self) -> float:
        """The longest that the leg may be, metres."""
        full = np.linalg.norm(self.thigh) + np.linalg.norm(self.shin)
        return float(STRETCH * full)


@dataclass(frozen=True)
class FootTrack:
    """One foot over T times: the ankle's place over the floor (T, 2), heading (T,), lift (T,) and rolls (T,).

    `over_ball` >= 0 raises the heel about the ball, `over_heel` >= 0 the toes about the heel, radians; `planted` (T,)
    is True where ball or heel is on the floor and does not move.
    """

    place: NDArray[np.float64]
    yaw: NDArray[np.float64]
    lift: NDArray[np.float64]
    over_ball: NDArray[np.float64]
    over_heel: NDArray[np.float64]
    planted: NDArray[np.bool_]


def legs_of(model: BodyModel, subject: Subject, surface: NDArray[np.float64]) -> tuple[Leg, Leg]:
    """The subject's legs; `surface` (V, 3) is the unposed body with its shoes on, metres."""
    names = {name: i for i, name in enumerate(model.joint_names)}
    main = model.lbs_weights.argmax(1)
    rest = subject.rest_joints
    legs = []
    for side in SIDES:
        hip, knee, ankle, foot = (names[f"{side}_{n}"] for n in ("hip", "knee", "ankle", "foot"))
        of_foot = surface[np.isin(main, [ankle, foot])]
        floor = float(of_foot[:, 1].min())
        height = float(rest[ankle, 1] - floor)
        sole = of_foot[of_foot[:, 1] < floor + 0.025]
        heel = np.array([0.0, -height, min(float(sole[:, 2].min() - rest[ankle, 2]) + 0.012, -0.01)])
        thigh, shin = rest[knee] - rest[hip], rest[ankle] - rest[knee]
        ball = rest[foot] - rest[ankle]
        legs.append(Leg(rest[hip] - rest[0], thigh, shin, height, ball, heel, (hip, knee, ankle, foot)))
    return legs[0], legs[1]


def upright(yaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 3, 3) from the model's axes to a world with z up for headings (T,); yaw 0 looks along +x."""
    c, s, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    return np.stack([np.stack([-s, zero, c], -1), np.stack([c, zero, s], -1), np.stack([zero, one, zero], -1)], -2)


def _about_x(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = np.zeros((*angle.shape, 3))
    turn[..., 0] = angle
    return matrix_from_axis_angle(turn)


def ankle_places(leg: Leg, foot: FootTrack) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World places (T, 3) of the ankle and orientations (T, 3, 3) of the foot (its toes apart)."""
    heading = upright(foot.yaw)
    # about +x the toes go down: over the ball by +, over the heel by -
    ball, heel = _about_x(foot.over_ball), _about_x(-foot.over_heel)
    eye = np.eye(3)
    moved = (ball - eye) @ -leg.ball + (heel - eye) @ -leg.heel
    flat = np.concatenate([foot.place, (leg.ankle_height + foot.lift)[:, None]], 1)
    return flat + (heading @ moved[..., None])[..., 0], heading @ _about_x(foot.over_ball - foot.over_heel)


def highest_pelvis(
    leg: Leg, foot: FootTrack, pelvis_xy: NDArray[np.float64], pelvis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(T,) how high the pelvis joint may be for the leg to reach its foot; pelvis (T, 3, 3) is its orientation."""
    ankle, _ = ankle_places(leg, foot)
    hip = pelvis @ leg.hip
    across = ((ankle[:, :2] - pelvis_xy - hip[:, :2]) ** 2).sum(1)
    return ankle[:, 2] - hip[:, 2] + np.sqrt(np.maximum(leg.length**2 - across, 0.25 * leg.length**2))


def solve_leg(
    leg: Leg, foot: FootTrack, root: NDArray[np.float64], pelvis: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rotations (T, 3, 3) of hip, knee, ankle and toes that put the foot where its track says.

    The knee is a hinge about the thigh's x axis; it looks where the foot and the pelvis look in the mean.

    Args:
        root: (T, 3) place of the pelvis joint; pelvis: (T, 3, 3) its orientation.
    """
    ankle, orientation = ankle_places(leg, foot)
    inverse = np.swapaxes(pelvis, 1, 2)
    target = (inverse @ (ankle - root)[..., None])[..., 0] - leg.hip
    b1, b2 = leg.thigh, leg.shin
    # |b1 + Rx(a) b2| = |target|: b1 . Rx(a) b2 = fixed + c cos a + s sin a
    c, s = b1[1] * b2[1] + b1[2] * b2[2], b1[2] * b2[1] - b1[1] * b2[2]
    dot = ((target**2).sum(1) - b1 @ b1 - b2 @ b2) / 2 - b1[0] * b2[0]
    bend = np.arctan2(s, c) + np.arccos(np.clip(dot / np.hypot(c, s), -1.0, 1.0))
    knee = _about_x(bend)
    reach = b1 + knee @ b2
    sideways = np.array([1.0, 0.0, 0.0])
    foot_side = (inverse @ upright(foot.yaw) @ sideways[:, None])[..., 0]
    hip = _frame(target, foot_side + sideways) @ np.swapaxes(
        _frame(reach, np.broadcast_to(sideways, reach.shape)), 1, 2
    )
    above = pelvis @ hip @ knee
    return hip, knee, np.swapaxes(above, 1, 2) @ orientation, _about_x(-foot.over_ball)


def _frame(along: NDArray[np.float64], side: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 3, 3) whose first column looks along, the second is `side` (T, 3) made perpendicular."""
    a = along / np.linalg.norm(along, axis=1, keepdims=True)
    b = side - (side * a).sum(1, keepdims=True) * a
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return np.stack([a, b, np.cross(a, b)], -1)
