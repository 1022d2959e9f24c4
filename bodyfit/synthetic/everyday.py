"""Everyday movements by chance: walking, turning, reaching, squatting, waving, stepping aside, folding arms, jumping.

A mover writes its movement into a plan (`movement.Plan`) between two times and leaves the person standing at ease.
Speeds, heights and angles are drawn within what adults do without haste (walking at 0.65 to 0.95 m/s, an arm raised in
about a second).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.synthetic.movement import LEAD_S, Attitudes, Body, Plan, Step, min_jerk, ramp
from bodyfit.synthetic.poses import POSES, Euler

_J = {name: i for i, name in enumerate(SMPL_JOINTS)}
_SIDES = (("left", 1.0), ("right", -1.0))
_ATTITUDES = (
    "arms_crossed", "hands_on_hips", "hands_before_chest", "phone_at_ear", "holding", "one_arm_forward", "one_arm_up",
)  # fmt: skip
LEAVES_M = 3.3
"""Who leaves the view walks so far: out of any of `sensor.SENSORS` at three metres."""

Mover = Callable[[Plan, Attitudes, np.random.Generator, Body, float, float], None]


def plan_of(name: str, rng: np.random.Generator, body: Body, seconds: float) -> Plan:
    """A movement's plan about the origin, looking along +x to begin with; `name` is one of `MOVERS`."""
    plan = Plan.still(seconds)
    plan.half_width = float(abs(body.legs[0].hip[0]) * rng.uniform(0.9, 1.35))
    arms_rng, sway_rng, move_rng = rng.spawn(3)
    arms = Attitudes(body, arms_rng)
    MOVERS[name](plan, arms, move_rng, body, 0.0, seconds)
    _sway(plan, sway_rng)
    plan.euler += arms.at(plan.t)
    return plan


def _sway(plan: Plan, rng: np.random.Generator) -> None:
    """Nobody stands still: slow drifts of a few millimetres and degrees."""
    t = plan.t

    def wave(low: float, high: float) -> NDArray[np.float64]:
        return np.sin(2 * np.pi * rng.uniform(low, high) * t + rng.uniform(0, 2 * np.pi))

    for k in range(2):
        for _ in range(2):
            plan.place[:, k] += rng.uniform(0.001, 0.004) * wave(0.1, 0.45)
    plan.dip += 0.003 * (1 + wave(0.1, 0.4))
    for name in SMPL_JOINTS:
        if name == "pelvis" or name.endswith(("hip", "knee", "ankle", "foot")):
            continue
        size = 0.4 if name.startswith("spine") else 1.0
        for k in range(3):
            plan.euler[:, _J[name], k] += size * rng.normal(0, 1.0) * wave(0.15, 0.6)


def _now(plan: Plan, at_s: float) -> tuple[NDArray[np.float64], float]:
    """Where the person is and looks at a time."""
    place = np.array([np.interp(at_s, plan.t, plan.place[:, k]) for k in (0, 1)])
    return place, float(np.interp(at_s, plan.t, plan.yaw))


# --- on the way


def cruise(t: NDArray[np.float64], begin: float, end: float, ease: float) -> NDArray[np.float64]:
    """Distance travelled at unit speed from `begin` to `end`, speeding up and slowing down within `ease` seconds."""
    speed = ramp(t, begin, begin + ease) * (1 - ramp(t, end - ease, end))
    return np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(t))])


def _stride(plan: Plan, path: NDArray[np.float64], step_m: float, rng: np.random.Generator, lively: float) -> None:
    """Steps and swinging limbs of a walk whose length (T,) so far is `path`, metres; place and yaw are there already.

    A foot is on the floor for 62 % of its cycle of two steps, as in walking at ease (Perry, Gait Analysis, 1992).
    """
    t, total = plan.t, float(path[-1])
    speed = np.gradient(path, t)
    # the length is flat while the person stands: it is read where it grows
    begin, end = (float(t[np.argmin(np.abs(path - s))]) for s in (1e-4, total - 1e-4))

    def when(s: float) -> float:
        return begin if s <= 1e-4 else end if s >= total - 1e-4 else float(np.interp(s, path, t))

    first = int(rng.integers(2))
    for k in range(1, int(np.ceil(total / step_m)) + 2):
        leaves = when((k - 2 + 0.62) * step_m) if k > 1 else begin
        if leaves >= end:
            break
        lands = max(when((k - 0.62) * step_m), leaves + 0.25)
        brisk = min(float(np.interp((leaves + lands) / 2, t, speed)), 1.0)
        plan.steps.append(
            Step((first + k) % 2, leaves, lands, when(k * step_m), 0.05 + 0.03 * brisk, 0.15 + 0.35 * brisk,
                 0.28 * brisk)
        )  # fmt: skip
    # the foot of number `first` is in the middle of its stance at phase 0
    sign, phase, swing = (1.0, -1.0)[first], np.pi * path / step_m, ramp(speed, 0.05, 0.6)
    beat = sign * np.sin(phase) * swing  # +1: the right leg and the left arm are ahead
    e = plan.euler
    for side, s in _SIDES:
        e[:, _J[f"{side}_shoulder"], 1] -= 20 * lively * beat
        e[:, _J[f"{side}_elbow"], 1] -= s * (8 * swing + 9 * s * beat) * lively
    e[:, _J["spine1"], 1] -= 3 * beat
    e[:, _J["spine2"], 1] -= 4 * beat
    e[:, _J["spine1"], 0] += 2.5 * swing
    weight = sign * np.cos(phase) * swing  # +1: on the left foot
    plan.tilt += np.radians(np.stack([2 * swing, 4 * beat, 2.5 * weight], 1))
    plan.place += (0.022 * weight)[:, None] * np.stack([-np.sin(plan.yaw), np.cos(plan.yaw)], 1)


def _walk(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """Round and round in an arc: the person stays in view and shows all sides. Half of the time they walk already."""
    radius, sign = rng.uniform(0.6, 0.8), rng.choice([-1.0, 1.0])
    speed = rng.uniform(0.65, 0.95)
    start = begin + 0.3 if rng.random() < 0.5 else begin - LEAD_S + 0.1
    path = speed * cruise(plan.t, start, end + LEAD_S, 0.9)
    angle = sign * path / radius
    angle = angle - np.interp(begin, plan.t, angle)
    from_centre = angle + rng.uniform(-np.pi, np.pi)
    plan.place += radius * np.stack([np.cos(from_centre), np.sin(from_centre)], 1)
    plan.yaw += from_centre + sign * np.pi / 2
    plan.half_width = float(abs(body.legs[0].hip[0]) * rng.uniform(0.7, 1.0))
    _stride(plan, path, 0.36 + 0.22 * speed, rng, rng.uniform(0.8, 1.2))


def _leave(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """Out of the picture to the side, round and back again; one such walk from the begin."""
    from scipy.ndimage import gaussian_filter1d

    side, speed, bow = rng.choice([-1.0, 1.0]), rng.uniform(1.0, 1.2), 0.3
    total = 2 * LEAVES_M + np.pi * bow
    path = speed * cruise(plan.t, begin + 0.3, begin + 0.3 + total / speed + 0.9, 0.9)
    path = np.minimum(path, total)
    u = path - LEAVES_M
    turned = np.clip(u / bow, 0, np.pi)
    out = np.minimum(path, LEAVES_M) + bow * np.sin(turned) - np.maximum(u - np.pi * bow, 0)
    aside = bow * (1 - np.cos(turned))
    # +x is where the sensor is: on the way back they are further from it, and whole in its picture
    xy = np.stack([bow - aside, side * out], 1)
    plan.place += gaussian_filter1d(xy, 0.12 / np.diff(plan.t[:2])[0], axis=0, mode="nearest")
    yaw = side * (np.pi / 2 + turned)
    plan.yaw += gaussian_filter1d(yaw, 0.12 / np.diff(plan.t[:2])[0], mode="nearest")
    _stride(plan, path, 0.36 + 0.22 * speed, rng, 1.0)


def _turn(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """On the spot by small steps, now to one side, now to the other."""
    at, yaw = begin + 0.2, 0.0
    while at < end - 0.6:
        angle, pause = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 3.2)), rng.uniform(0.3, 1.0)
        angle = -angle if abs(yaw + angle) > 3.3 else angle
        beats, beat = max(2, int(np.ceil(abs(angle) / 0.55))), rng.uniform(0.46, 0.6)
        last = at + beats * beat
        plan.yaw += angle * ramp(plan.t, at, last)
        ahead = ramp(plan.t, at - 0.15, at + 0.3) - ramp(plan.t, last - 0.4, last + 0.1)
        plan.euler[:, _J["head"], 1] += np.degrees(angle) * 0.08 * ahead
        side = 0 if angle > 0 else 1  # the inner foot goes first
        for k in range(beats + 1):
            leaves = at + (k - 0.2) * beat
            plan.steps.append(
                Step(side, leaves, leaves + 0.75 * beat, min(leaves + 1.4 * beat, last + 0.1), 0.05, 0.2, 0.0, 0.12)
            )
            side = 1 - side
        yaw += angle
        at = last + beat + pause


def _step_aside(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """One or two steps to the side, forward or back, and sooner or later home again."""
    at, away, yaw = begin + rng.uniform(0.1, 0.4), np.zeros(2), _now(plan, begin)[1]
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    while at < end - 0.9:
        to = rng.uniform((-0.3, -0.45), (0.3, 0.45)) if np.hypot(*away) < 0.2 else np.zeros(2)
        go = to - away
        beats, beat = (1 if np.hypot(*go) < 0.28 else 2), rng.uniform(0.5, 0.65)
        last = at + 2 * beats * beat
        plan.place += ramp(plan.t, at - 0.1, last)[:, None] * (turn @ go)
        side = 0 if go[1] > 0 else 1  # the foot on that side goes first
        for k in range(2 * beats):
            leaves = at + k * beat
            lands = leaves + 0.8 * beat
            stands_for = last + 0.1 if k >= 2 * beats - 2 else at + beat * (k + 2)
            plan.steps.append(Step(side, leaves, lands, stands_for, 0.05, 0.25, 0.0, 0.12))
            side = 1 - side
        away = to
        at = last + beat * 0.5 + rng.uniform(0.1, 0.6)


# --- on the spot


def _reach(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """An arm goes up, ahead, across or to the side and comes back; the trunk goes with it."""
    at = begin + rng.uniform(0.1, 0.5)
    while at < end - 1.2:
        side, s = _SIDES[int(rng.integers(2))]
        kind = int(rng.integers(4))
        x, y, z = ((-20, -70, 55), (-8, -80, -5), (10, -112, -12), (-5, -10, 8))[kind]
        to: dict[str, Euler] = {
            f"{side}_shoulder": (x + rng.normal(0, 6), s * (y + rng.normal(0, 8)), s * (z + rng.normal(0, 8))),
            f"{side}_elbow": (0.0, -s * rng.uniform(4, 45), 0.0),
            f"{side}_wrist": (rng.normal(0, 20), 0.0, s * rng.normal(0, 12)),
            f"{side}_collar": (0.0, -s * 6.0, s * (12.0 if kind == 0 else 3.0)),
            "spine2": (rng.uniform(0, 6), -s * (8.0 if kind == 2 else 3.0), 0.0),
            "spine3": (0.0, -s * 4.0, 0.0),
            "head": (-8.0 if kind == 0 else 3.0, s * rng.uniform(0, 14), 0.0),
        }
        within, hold = rng.uniform(0.7, 1.1), rng.uniform(0.15, 0.6)
        arms.take(at, within, to)
        there = at + within + hold
        plan.tilt[:, 0] += np.radians(rng.uniform(0, 7)) * (
            ramp(plan.t, at, at + within) - ramp(plan.t, there, there + within)
        )
        at = there
        if rng.random() < 0.6:
            arms.rest(at, within)
            at += within + rng.uniform(0.1, 0.4)
    arms.rest(at, 0.9)


def _arms(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """Arms crossed, hands on hips, before the chest, at the ear: one attitude after the other."""
    at, last = begin + rng.uniform(0.1, 0.5), ""
    while at < end - 1.2:
        name = str(rng.choice([n for n in _ATTITUDES if n != last]))
        angles = {j: a for j, a in POSES[name].items() if not j.endswith(("hip", "knee", "ankle", "foot", "pelvis"))}
        within = rng.uniform(0.9, 1.4)
        arms.take(at, within, _mirror(angles) if rng.random() < 0.5 else angles)
        at, last = at + within + rng.uniform(0.2, 0.9), name
        if rng.random() < 0.4:
            arms.rest(at, within)
            at += within
    arms.rest(at, 1.0)


def _mirror(angles: dict[str, Euler]) -> dict[str, Euler]:
    other = {"left": "right", "right": "left"}
    out: dict[str, Euler] = {}
    for name, (x, y, z) in angles.items():
        side, _, rest = name.partition("_")
        out[f"{other[side]}_{rest}" if side in other else name] = (x, -y, -z)
    return out


def _wave(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """A hand is raised and waves from the elbow, 1.2 to 1.9 times a second."""
    at = begin + rng.uniform(0.1, 0.5)
    while at < end - 1.6:
        side, s = _SIDES[int(rng.integers(2))]
        up: dict[str, Euler] = {
            f"{side}_collar": (0.0, 0.0, s * 8.0),
            f"{side}_shoulder": (rng.normal(-82, 6), -s * rng.uniform(10, 35), s * rng.normal(2, 10)),
            f"{side}_elbow": (0.0, -s * rng.uniform(62, 80), 0.0),
            "head": (0.0, s * rng.uniform(0, 12), 0.0),
        }
        within, waves, rate = rng.uniform(0.8, 1.1), int(rng.integers(2, 5)), rng.uniform(1.2, 1.9)
        arms.take(at, within, up)
        from_s, to_s = at + within - 0.15, at + within - 0.15 + waves / rate
        window = ramp(plan.t, from_s, from_s + 0.35) - ramp(plan.t, to_s - 0.35, to_s)
        beat = np.sin(2 * np.pi * rate * (plan.t - from_s)) * window
        plan.euler[:, _J[f"{side}_elbow"], 1] -= s * rng.uniform(14, 24) * beat
        plan.euler[:, _J[f"{side}_wrist"], 1] -= s * rng.uniform(4, 12) * beat
        arms.rest(to_s, within)
        at = to_s + within + rng.uniform(0.1, 0.4)


def _squat(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """Down by 20 to 40 cm with the arms ahead, and up again."""
    at = begin + rng.uniform(0.1, 0.4)
    plan.half_width = max(plan.half_width, float(abs(body.legs[0].hip[0]) * 1.5))
    plan.toes_out = 0.25
    while at < end - 1.8:
        depth, down, hold = rng.uniform(0.2, 0.4), rng.uniform(0.8, 1.2), rng.uniform(0.1, 0.5)
        up = rng.uniform(0.8, 1.1)
        share = ramp(plan.t, at, at + down) - ramp(plan.t, at + down + hold, at + down + hold + up)
        plan.dip += depth * share
        yaw = _now(plan, at)[1]
        plan.place -= (0.30 * depth * share)[:, None] * np.array([np.cos(yaw), np.sin(yaw)])
        plan.tilt[:, 0] += np.radians(65) * depth * share
        for name, degrees in (("spine1", 22), ("spine2", 22), ("head", -40)):
            plan.euler[:, _J[name], 0] += degrees * depth * share
        ahead: dict[str, Euler] = {}
        for side, s in _SIDES:
            ahead[f"{side}_shoulder"] = (-5.0, -s * rng.uniform(70, 84), s * rng.normal(-6, 5))
            ahead[f"{side}_elbow"] = (0.0, -s * rng.uniform(5, 25), 0.0)
        arms.take(at, down, ahead)
        arms.rest(at + down + hold, up)
        at += down + hold + up + rng.uniform(0.2, 0.6)


def _jump(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """Small jumps on the spot: a dip, both feet in the air by 8 to 16 cm, a dip again; the arms swing."""
    at = begin + rng.uniform(0.2, 0.5)
    while at < end - 1.8:
        height, dip = rng.uniform(0.08, 0.16), rng.uniform(0.10, 0.18)
        off, air = at + 0.55, rng.uniform(0.44, 0.5)
        on = off + air
        u = np.clip((plan.t - off) / air, 0, 1)
        plan.leap += height * 64 * (u * (1 - u)) ** 3
        share = ramp(plan.t, at, at + 0.36) - ramp(plan.t, at + 0.30, off + 0.12)
        again = ramp(plan.t, on - 0.12, on + 0.2) - ramp(plan.t, on + 0.2, on + 0.75)
        plan.dip += dip * (share + 0.8 * again)
        plan.tilt[:, 0] += np.radians(80) * dip * (share + 0.6 * again)
        back: dict[str, Euler] = {}
        front: dict[str, Euler] = {}
        for side, s in _SIDES:
            back[f"{side}_shoulder"] = (8.0, s * 28.0, -s * 62.0)
            front[f"{side}_shoulder"] = (0.0, -s * 50.0, -s * 50.0)
            front[f"{side}_elbow"] = (0.0, -s * 30.0, 0.0)
        arms.take(at, 0.45, back)
        arms.take(at + 0.45, 0.45, front)
        arms.rest(on + 0.05, 0.7)
        at = on + 0.9 + rng.uniform(0.1, 0.5)


def _mixed(plan: Plan, arms: Attitudes, rng: np.random.Generator, body: Body, begin: float, end: float) -> None:
    """One movement after the other, three to five seconds of each."""
    at, names = begin, ("reach", "turn", "arms", "squat", "wave", "step_aside")
    order = [str(n) for n in rng.permutation(names)]
    k = 0
    while at < end - 1.0:
        till = min(at + rng.uniform(3.0, 5.0), end)
        MOVERS[order[k % len(order)]](plan, arms, rng.spawn(1)[0], body, at, till)
        busy = max([s.lands_s for s in plan.steps] + [a + within for a, within, _ in arms.keys])
        at, k = max(till, busy + 0.1), k + 1


MOVERS: dict[str, Mover] = {
    "walk": _walk, "turn": _turn, "reach": _reach, "squat": _squat, "wave": _wave, "step_aside": _step_aside,
    "arms": _arms, "jump": _jump, "mixed": _mixed, "leave": _leave,
}  # fmt: skip
__all__ = ["LEAVES_M", "MOVERS", "cruise", "min_jerk", "plan_of"]
