"""Several sensors at once: what they gain over one, and whether their places and clocks are found from the person.

    python benchmarks/rigs.py --rigs 20 --out rigs [--results]

Writes rigs/cases.jsonl (one line a rig; go on after a break by the same command) and report.md. A rig is made from its
seed alone: two or three sensors of one kind stand around a person who steps about, turns and changes pose.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from study import CONFIG, Record, markdown, run_cases, share, write_section, write_text

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.joint import Instant
    from bodyfit.fit.result import FitResult
    from bodyfit.synthetic.take import Take

FIRST_SEED = 400
KINDS = ("azure", "kinect2", "azure", "kinect2", "d435")
"""in turn, each for two rigs"""
OFF_MODEL_MM = 3.0
PLACE_M, TURN_DEG = 0.02, 1.0
"""how far each sensor but the first is said to stand from where it stands"""
FOUND_M, FOUND_DEG = 0.005, 0.3
INSTANTS, GAP_S = 12, 0.2
"""instants of a rig whose places are sought, and the time between them"""
CLOCK_INSTANTS, CLOCK_GAP_S = 16, 1 / 30
CLOCK_EVERY = 4
"""every fourth rig's clocks are put out of step too"""
KEY_S = 0.8
"""from one pose to the next"""


@dataclass(frozen=True)
class Case:
    """What a seed stands for."""

    seed: int
    sensors: int
    kind: str
    clothing: str
    sex: str
    delay_s: float
    """how much later than its stamps each sensor but the first sees, where clocks are out of step"""


def case_of(seed: int) -> Case:
    """The case of a seed: two and three sensors take turns, all else is drawn."""
    from bodyfit.synthetic.subject import SEXES

    rng = np.random.default_rng([0x816, seed])
    return Case(
        seed, 2 + seed % 2, KINDS[seed // 2 % len(KINDS)], ("tight", "casual")[int(rng.integers(2))],
        SEXES[int(rng.integers(2))], round(float(rng.choice([-1, 1]) * rng.uniform(0.008, 0.022)), 4),
    )  # fmt: skip


class Walkabout:
    """A person who steps about, turns and changes pose: poses and places at any time, smooth in it."""

    def __init__(self, model: BodyModel, subject: Any, rng: np.random.Generator, seconds: float) -> None:
        from bodyfit.rotation import matrix_from_axis_angle
        from bodyfit.synthetic.contact import both_feet_down, free_arms
        from bodyfit.synthetic.poses import EVERYDAY, everyday_pose
        from bodyfit.synthetic.take import full_pose

        count = int(np.ceil(seconds / KEY_S)) + 2
        yaw = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.choice([-1, 1]) * rng.uniform(0.5, 1.1, count))
        poses = [
            everyday_pose(EVERYDAY[int(rng.integers(len(EVERYDAY)))], rng, yaw=float(y), mirror=bool(k % 2))
            for k, y in enumerate(yaw)
        ]
        keys = [free_arms(model, subject, both_feet_down(model, subject, full_pose(model, p))) for p in poses]
        self.keys = np.stack([matrix_from_axis_angle(k) for k in keys])
        self.places = rng.uniform(-0.6, 0.6, (count, 2))

    def at(self, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pose (J, 3) and place (2,) at a time from half a key before the first instant on."""
        from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

        u = seconds / KEY_S + 0.5
        k = int(np.clip(np.floor(u), 0, len(self.keys) - 2))
        s = u - k
        s = s * s * (3 - 2 * s)
        way = axis_angle_from_matrix(np.swapaxes(self.keys[k], 1, 2) @ self.keys[k + 1])
        pose = axis_angle_from_matrix(self.keys[k] @ matrix_from_axis_angle(s * way))
        return pose, (1 - s) * self.places[k] + s * self.places[k + 1]


def film_rig(
    model: BodyModel, case: Case, times_s: Sequence[float], delays_s: Sequence[float] | None = None
) -> list[Take]:
    """One take a sensor, all of the same person at the same times, each with its own delay."""
    from bodyfit.synthetic.clothing import dress
    from bodyfit.synthetic.scene import Plane, Scene, place_camera
    from bodyfit.synthetic.sensor import SENSORS
    from bodyfit.synthetic.subject import sample_subject
    from bodyfit.synthetic.take import film

    who, clothes, where, moves, *noises = np.random.default_rng([0x816, case.seed, 1]).spawn(4 + case.sensors)
    subject = sample_subject(model, who, case.sex, OFF_MODEL_MM)
    worn = dress(model, subject, case.clothing, clothes)
    # three stand about evenly, two anything from a sixth to half of the way round
    apart = 2 * np.pi / 3 if case.sensors > 2 else where.uniform(np.pi / 3, np.pi)
    first = where.uniform(-np.pi, np.pi)
    poses_of_sensors = [
        place_camera(where, azimuth=first + k * apart + where.normal(0, 0.15), distance=(2.4, 2.9))
        for k in range(case.sensors)
    ]
    # a hall: what is farther than the sensors reach is open
    scene = Scene((Plane((0.0, 0.0, 1.0), 0.0, (150, 150, 150)),))
    walk = Walkabout(model, subject, moves, max(times_s) + 0.1)
    takes = []
    for k in range(case.sensors):
        delay = delays_s[k] if delays_s else 0.0
        steps = [walk.at(t + delay) for t in times_s]
        device = replace(SENSORS[case.kind](), name=f"cam{k}")
        takes.append(
            film(
                model, subject, worn, [p for p, _ in steps], np.stack([p for _, p in steps]), (device,),
                (poses_of_sensors[k],), scene, noises[k],
            )
        )  # fmt: skip
    return takes


def disturbed(T: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A sensor's pose (4, 4) shifted by PLACE_M and turned by TURN_DEG, each some way by chance."""
    from bodyfit.rotation import matrix_from_axis_angle

    axis, way = rng.normal(size=3), rng.normal(size=3)
    out = T.copy()
    out[:3, :3] = matrix_from_axis_angle(axis / np.linalg.norm(axis) * np.radians(TURN_DEG)) @ T[:3, :3]
    out[:3, 3] += way / np.linalg.norm(way) * PLACE_M
    return out


def looked_at(
    takes: Sequence[Take], times_s: Sequence[float], said: Sequence[NDArray[np.float64]] | None = None
) -> list[Instant]:
    """The instants as observations, with the sensors where they are said to stand."""
    from bodyfit.fit.joint import Instant
    from bodyfit.observe.observation import observe

    instants = []
    for t, seconds in enumerate(times_s):
        seen = []
        for k, take in enumerate(takes):
            frame = take.instants[t].frames[take.sensors[0].name]
            T = frame.T_world_depth if said is None else said[k]
            frame = replace(frame, T_world_depth=T, timestamp_s=float(seconds))
            seen.append(observe(frame, gravity_world=take.gravity_world))
        instants.append(Instant(t, float(seconds), tuple(seen)))
    return instants
