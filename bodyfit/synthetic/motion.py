"""People who move, filmed at a sensor's rate: everyday movements in, frames with noise and the truth beside them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.errors import InputError
from bodyfit.synthetic.clothing import Clothing, dress, wear
from bodyfit.synthetic.legs import legs_of
from bodyfit.synthetic.everyday import MOVERS, plan_of
from bodyfit.synthetic.movement import Body, Moved
from bodyfit.synthetic.scene import Scene, place_camera, room
from bodyfit.synthetic.sensor import SENSORS, SensorModel
from bodyfit.synthetic.subject import Subject, make_subject, prior, sample_subject
from bodyfit.synthetic.take import Instant, MaskKind, SensorView, Take, full_pose

MOTIONS: tuple[str, ...] = tuple(MOVERS)
"""Names of movements."""


def move(
    model: BodyModel,
    subject: Subject,
    clothing: Clothing,
    name: str,
    rng: np.random.Generator,
    *,
    seconds: float,
    yaw: float = 0.0,
) -> Moved:
    """A movement for this very body: its own legs, its own shoes on the floor, its arms outside of its trunk.

    Raises:
        InputError: the name is unknown, or the time is not positive.
    """
    if name not in MOVERS:
        raise InputError("motion", f"one of {', '.join(MOTIONS)}", repr(name))
    if not seconds > 0:
        raise InputError("seconds", "a time above 0", f"{seconds:g}")
    body = Body(model, subject, legs_of(model, subject, wear(subject.rest_vertices, model.faces, clothing)))
    return Moved(plan_of(name, rng, body, seconds), body, yaw)


def motion_poses(
    name: str,
    rng: np.random.Generator,
    *,
    seconds: float,
    fps: float = 30.0,
    yaw: float = 0.0,
    model: BodyModel | None = None,
    subject: Subject | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses (T, 24, 3) axis-angle of SMPL's joints in a world with z up, and the pelvis joint's places (T, 3) metres.

    Args:
        name: one of `MOTIONS`.
        yaw: heading in radians at which the movement begins or about which it turns; 0 looks along +x.
        subject: whose legs; None: the mean neutral adult of the model (None: the default body), naked.
    """
    from bodyfit.body.model import load_body_model

    model = load_body_model() if model is None else model
    if subject is None:
        subject = make_subject(model, prior(model, "neutral")[0], "female")
    naked = dress(model, subject, "none", np.random.default_rng(0))
    moved = move(model, subject, naked, name, rng, seconds=seconds, yaw=yaw)
    poses, root, _ = moved.at(np.arange(round(seconds * fps)) / fps)
    return poses, root


@dataclass(frozen=True)
class Filming:
    """A film before it is shot: iterate to get one `Instant` a frame; only the present one is in memory.

    Every pass makes the same bytes.
    """

    model: BodyModel
    subject: Subject
    clothing: Clothing
    moved: Moved
    times_s: NDArray[np.float64]
    fps: float
    sensors: tuple[SensorModel, ...]
    T_world_depth: tuple[NDArray[np.float64], ...]
    scene: Scene
    mask: MaskKind = "none"
    color: bool = False
    color_stride: int = 2
    seed: tuple[int, ...] = (0,)
    name: str = ""
    gravity_world: NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, 0.0, -1.0]))

    def __len__(self) -> int:
        return len(self.times_s)

    def truth(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Poses (T, J, 3), the pelvis joint's places (T, 3) and which feet (T, 2) are pinned to the floor."""
        poses, root, planted = self.moved.at(self.times_s)
        if self.model.joint_names != SMPL_JOINTS:
            poses = np.stack([full_pose(self.model, pose) for pose in poses])
        return poses, root, planted

    def __iter__(self) -> Iterator[Instant]:
        rng = np.random.default_rng(self.seed)
        views = [
            SensorView(s, T, self.scene, rng.spawn(1)[0], self.color, self.color_stride)
            for s, T in zip(self.sensors, self.T_world_depth, strict=True)
        ]
        poses, root, _ = self.truth()
        for t, time_s in enumerate(self.times_s):
            transl = root[t] - self.subject.rest_joints[0]
            vertices, joints = self.subject.posed(self.model, poses[t], transl)
            surface = wear(vertices, self.model.faces, self.clothing)
            frames, masks, clean = {}, {}, {}
            for view in views:
                name = view.sensor.name
                frames[name], masks[name], clean[name] = view.shoot(
                    surface, self.model.faces, self.clothing, self.mask, t, float(time_s), rng.spawn(1)[0]
                )
            yield Instant(frames, masks, clean, poses[t], transl, vertices, surface, joints)

    def take(self) -> Take:
        """The whole film in memory."""
        instants = tuple(self)
        return Take(
            self.model, self.subject, self.clothing, self.sensors, self.T_world_depth, instants,
            (self.name,) * len(instants), (), self.gravity_world,
        )  # fmt: skip


def plan_film(
    model: BodyModel,
    seed: int,
    *,
    motion: str,
    seconds: float,
    fps: float = 30.0,
    sensor: str | SensorModel = "azure",
    clothing: str = "tight",
    mask: MaskKind = "none",
    color: bool = False,
    color_stride: int = 2,
    subject: Subject | None = None,
    sex: str | None = None,
    off_model_mm_rms: float = 3.0,
    heading_deg: float | None = None,
) -> Filming:
    """A person, a room, one sensor and a movement by chance; the same seed gives the same bytes.

    Args:
        motion: one of `MOTIONS`.
        sensor: a name of `sensor.SENSORS` or a sensor.
        heading_deg: which way the person faces to begin with, 0 looks at the sensor; None draws it (walks go round
            anyhow).
    """
    if not fps > 0:
        raise InputError("fps", "a rate above 0", f"{fps:g}")
    subject_rng, clothes_rng, place_rng, move_rng, heading_rng = np.random.default_rng([0x307, seed]).spawn(5)
    if subject is None:
        subject = sample_subject(model, subject_rng, sex, off_model_mm_rms)
    clothes = dress(model, subject, clothing, clothes_rng)
    device = SENSORS[sensor]() if isinstance(sensor, str) else sensor
    azimuth = place_rng.uniform(-np.pi, np.pi)
    about = motion == "walk"
    T_world_depth = place_camera(place_rng, azimuth=azimuth, distance=(2.5, 2.9) if about else (2.2, 2.8))
    scene = room(place_rng, T_world_depth[:3, 3], clear_m=0.6 if about else 0.2)
    drawn = float(heading_rng.uniform(-180, 180) if motion in ("walk", "turn") else heading_rng.uniform(-45, 45))
    heading = drawn if heading_deg is None else heading_deg
    moved = move(model, subject, clothes, motion, move_rng, seconds=seconds, yaw=azimuth + np.radians(heading))
    times = np.arange(round(seconds * fps)) / fps
    return Filming(
        model, subject, clothes, moved, times, fps, (device,), (T_world_depth,), scene, mask, color, color_stride,
        (0x307, seed, 1), motion,
    )  # fmt: skip


def film_motion(
    model: BodyModel,
    seed: int,
    *,
    motion: str,
    seconds: float,
    fps: float = 30.0,
    sensor: str | SensorModel = "azure",
    clothing: str = "tight",
    mask: MaskKind = "none",
    color: bool = False,
    color_stride: int = 2,
    subject: Subject | None = None,
    sex: str | None = None,
    off_model_mm_rms: float = 3.0,
    heading_deg: float | None = None,
) -> Take:
    """`plan_film`, shot: one instant a frame, all in memory (an Azure frame with its truth takes 4 MB)."""
    return plan_film(
        model, seed, motion=motion, seconds=seconds, fps=fps, sensor=sensor, clothing=clothing, mask=mask, color=color,
        color_stride=color_stride, subject=subject, sex=sex, off_model_mm_rms=off_model_mm_rms, heading_deg=heading_deg,
    ).take()  # fmt: skip
