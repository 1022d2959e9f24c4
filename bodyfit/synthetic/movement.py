"""Everyday movements as plans: where the pelvis goes, where and when each foot steps, what trunk and arms do.

Between two attitudes a joint moves by the minimum-jerk law (Flash and Hogan, J. Neurosci. 5, 1985), of which velocity
and acceleration are continuous. A plan is laid out at `RATE_HZ` and read in between by cubic splines, so that all
joints move with continuous acceleration at any frame rate. Feet are put down and pinned; the legs follow
(`legs.solve_leg`), and the pelvis rides as high as both legs allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.synthetic.contact import free_arms
from bodyfit.synthetic.legs import SIDES, FootTrack, Leg, highest_pelvis, solve_leg, upright
from bodyfit.synthetic.poses import POSES, Euler, euler_matrix, heading_rotation
from bodyfit.synthetic.subject import Subject

RATE_HZ = 120.0
LEAD_S = 3.0
"""A plan begins so long before and ends so long after what is filmed: people are in motion when the film begins."""
_J = {name: i for i, name in enumerate(SMPL_JOINTS)}
_ARM = ("collar", "shoulder", "elbow", "wrist")


def min_jerk(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 to 1 for x from 0 to 1 with velocity and acceleration zero at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * x * (10 - 15 * x + 6 * x * x)


def ramp(t: NDArray[np.float64], begin: float, end: float) -> NDArray[np.float64]:
    """`min_jerk` from `begin` to `end`."""
    return min_jerk((t - begin) / (end - begin))


@dataclass(frozen=True)
class Step:
    """One foot leaves the floor and comes down again where the body will be at `for_s`."""

    side: int
    leaves_s: float
    lands_s: float
    for_s: float
    height_m: float = 0.06
    heel_rise_rad: float = 0.15
    toe_rise_rad: float = 0.0
    roll_s: float = 0.14
    """how long before leaving the heel rises, and after landing the toes come down"""


@dataclass
class Plan:
    """A movement at the times `t` (T,) seconds, before legs are solved.

    Attributes:
        place: (T, 2) the pelvis over the floor; yaw: (T,) heading.
        dip: (T,) metres below the highest that the legs allow.
        leap: (T,) metres of both feet and the pelvis above the floor.
        tilt: (T, 3) radians of the pelvis about its own x (forward bend), y and z.
        euler: (T, 24, 3) degrees of all joints but pelvis and legs.
        steps: in the order of time.
        half_width: metres from the middle to a foot; ahead: metres from the pelvis to the ankles.
    """

    t: NDArray[np.float64]
    place: NDArray[np.float64]
    yaw: NDArray[np.float64]
    dip: NDArray[np.float64]
    leap: NDArray[np.float64]
    tilt: NDArray[np.float64]
    euler: NDArray[np.float64]
    steps: list[Step]
    half_width: float = 0.1
    ahead: float = -0.02
    toes_out: float = 0.05

    @staticmethod
    def still(seconds: float) -> Plan:
        """Nothing moves."""
        t = np.arange(-LEAD_S, seconds + LEAD_S, 1 / RATE_HZ)
        n = len(t)
        yaw, dip, leap = np.zeros((3, n))
        return Plan(t, np.zeros((n, 2)), yaw, dip, leap, np.zeros((n, 3)), np.zeros((n, 24, 3)), [])

    def foot(self, side: int) -> FootTrack:
        """The track of one foot."""
        t, sign = self.t, (1.0, -1.0)[side]

        def stand_for(when: float) -> tuple[NDArray[np.float64], float]:
            x, y, yaw = (float(np.interp(when, t, a)) for a in (self.place[:, 0], self.place[:, 1], self.yaw))
            front, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
            return np.array([x, y]) + self.ahead * front + sign * self.half_width * left, yaw + sign * self.toes_out

        mine = [s for s in self.steps if s.side == side]
        place, yaw = stand_for(min(mine[0].leaves_s, 0.0) - LEAD_S if mine else float(t[0]))
        at, heading = np.tile(place, (len(t), 1)), np.full(len(t), yaw)
        lift, ball, heel = np.zeros(len(t)), np.zeros(len(t)), np.zeros(len(t))
        planted = np.ones(len(t), bool)
        for step in mine:
            to, to_yaw = stand_for(step.for_s)
            span = step.lands_s - step.leaves_s
            u = (t - step.leaves_s) / span
            share = min_jerk(u)
            at += share[:, None] * (to - place)
            heading += share * (to_yaw - yaw)
            inside = np.clip(u, 0, 1)
            lift += step.height_m * 64 * (inside * (1 - inside)) ** 3
            ball += step.heel_rise_rad * (
                ramp(t, step.leaves_s - step.roll_s, step.leaves_s + 0.15 * span)
                - ramp(t, step.leaves_s + 0.15 * span, step.leaves_s + 0.75 * span)
            )
            heel += step.toe_rise_rad * (
                ramp(t, step.leaves_s + 0.45 * span, step.lands_s - 0.02)
                - ramp(t, step.lands_s - 0.02, step.lands_s + step.roll_s)
            )
            planted &= (u <= 0) | (u >= 1)
            place, yaw = to, to_yaw
        return FootTrack(at, heading, lift, ball, heel, planted)


@dataclass(frozen=True)
class Body:
    """Who moves."""

    model: BodyModel
    subject: Subject
    legs: tuple[Leg, Leg]


# --- arms


class Attitudes:
    """Joint angles (degrees, as in `poses.POSES`) that a person takes one after the other.

    Each is freed of the trunk for this body first (`contact.free_arms`).
    """

    def __init__(self, body: Body, rng: np.random.Generator, jitter_deg: float = 4.0) -> None:
        self.body = body
        habit = rng.normal(0, jitter_deg, (24, 3))
        for side in SIDES:
            habit[_J[f"{side}_elbow"], [0, 2]] *= 0.3
        for name in ("spine1", "spine2", "spine3", "left_collar", "right_collar"):
            habit[_J[name]] *= 0.4
        self.habit = habit
        self.keys: list[tuple[float, float, NDArray[np.float64]]] = []
        self.base = self.freed(POSES["arms_down"])

    def freed(self, angles: Mapping[str, Euler]) -> NDArray[np.float64]:
        """(24, 3) degrees with this person's habits, no arm in the trunk."""
        euler = self.habit.copy()
        for name, value in angles.items():
            euler[_J[name]] += value
        for side, sign in (("left", -1), ("right", 1)):
            elbow = euler[_J[f"{side}_elbow"]]
            elbow[1] = sign * max(sign * elbow[1], 3.0)
        for name in _J:
            if name == "pelvis" or name.endswith(("hip", "knee", "ankle", "foot")):
                euler[_J[name]] = 0
        model = self.body.model
        pose = np.zeros((model.num_joints, 3))
        R = euler_matrix(euler)
        R[0] = heading_rotation(0.0)
        at = [model.joint_names.index(name) for name in SMPL_JOINTS]
        pose[at] = axis_angle_from_matrix(R)
        freed = free_arms(model, self.body.subject, pose)
        for name in ("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"):
            i = model.joint_names.index(name)
            if not np.array_equal(freed[i], pose[i]):
                euler[_J[name]] = _nearest_euler(matrix_from_axis_angle(freed[i]), euler[_J[name]])
        return euler

    def take(self, at_s: float, within_s: float, angles: Mapping[str, Euler]) -> None:
        """Begin to move at `at_s` and have taken the attitude `within_s` later; joints left out go back to rest."""
        self.keys.append((at_s, within_s, self.freed({**POSES["arms_down"], **angles})))

    def rest(self, at_s: float, within_s: float) -> None:
        """Back to hanging arms."""
        self.keys.append((at_s, within_s, self.base))

    def at(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, 24, 3) degrees."""
        out, last = np.tile(self.base, (len(t), 1, 1)), self.base
        for at_s, within_s, euler in sorted(self.keys, key=lambda k: k[0]):
            out += ramp(t, at_s, at_s + within_s)[:, None, None] * (euler - last)
            last = euler
        return out


def _nearest_euler(R: NDArray[np.float64], near: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees (twist, swing, lift) of Rz Ry Rx, of the two solutions and their turns the nearest to `near`."""
    y = np.arcsin(np.clip(-R[2, 0], -1, 1))
    first = np.array([np.arctan2(R[2, 1], R[2, 2]), y, np.arctan2(R[1, 0], R[0, 0])])
    second = np.array([first[0] + np.pi, np.pi - y, first[2] + np.pi])
    options = [np.degrees(o) + 360 * np.round((near - np.degrees(o)) / 360) for o in (first, second)]
    return min(options, key=lambda o: float(np.abs(o - near).sum()))


# --- from plans to poses


class Moved:
    """A plan with its legs solved: poses at any time."""

    def __init__(self, plan: Plan, body: Body, yaw: float) -> None:
        from scipy.interpolate import CubicSpline
        from scipy.ndimage import gaussian_filter1d, minimum_filter1d

        plan.yaw = plan.yaw + yaw
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        plan.place = plan.place @ turn.T
        self.body = body
        self.feet = [plan.foot(side) for side in (0, 1)]
        pelvis = upright(plan.yaw) @ matrix_from_axis_angle(plan.tilt)
        # in the air the toes hang
        hang = np.minimum(plan.leap * 4.0, 0.5)
        room = np.minimum(
            *(highest_pelvis(leg, f, plan.place, pelvis) for leg, f in zip(body.legs, self.feet, strict=True))
        )
        # the mean of least values around: nowhere above what the legs allow
        half = int(0.14 * RATE_HZ)
        high = gaussian_filter1d(minimum_filter1d(room, 2 * half + 1), 0.07 * RATE_HZ, radius=half, mode="nearest")
        channels = [
            plan.place,
            plan.yaw[:, None],
            (high - plan.dip + plan.leap)[:, None],
            plan.tilt,
            plan.euler.reshape(len(plan.t), -1),
        ]
        for f in self.feet:
            channels += [f.place, *(a[:, None] for a in (f.yaw, f.lift + plan.leap, f.over_ball + hang, f.over_heel))]
        self._splines = CubicSpline(plan.t, np.concatenate(channels, 1))
        self._t = plan.t
        self._planted = np.stack([f.planted & (plan.leap == 0) for f in self.feet], 1)

    def at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Poses (T, 24, 3) axis-angle, the pelvis joint's places (T, 3) metres, and which feet (T, 2) are pinned."""
        x = np.asarray(self._splines(times))
        place, yaw, height, tilt, euler = x[:, :2], x[:, 2], x[:, 3], x[:, 4:7], x[:, 7:79].reshape(-1, 24, 3)
        root = np.concatenate([place, height[:, None]], 1)
        pelvis = upright(yaw) @ matrix_from_axis_angle(tilt)
        R = euler_matrix(euler)
        R[:, 0] = pelvis
        planted = np.ones((len(times), 2), bool)
        row = np.clip(np.searchsorted(self._t, times), 0, len(self._t) - 1)
        for k, (leg, side) in enumerate(zip(self.body.legs, SIDES, strict=True)):
            y = x[:, 79 + 6 * k : 85 + 6 * k]
            planted[:, k] = self._planted[row, k]
            foot = FootTrack(y[:, :2], y[:, 2], np.maximum(y[:, 3], 0), y[:, 4], y[:, 5], planted[:, k])
            for joint, value in zip(("hip", "knee", "ankle", "foot"), solve_leg(leg, foot, root, pelvis), strict=True):
                R[:, _J[f"{side}_{joint}"]] = value
        return axis_angle_from_matrix(R), root, planted
