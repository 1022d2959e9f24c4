"""People who move, filmed at a sensor's rate: a movement in, frames with noise and the truth beside them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.errors import InputError
from bodyfit.synthetic.clips import MovedClip, clip_names, moved_clip
from bodyfit.synthetic.clothing import Clothing, dress, wear
from bodyfit.synthetic.everyday import MOVERS, plan_of
from bodyfit.synthetic.legs import legs_of
from bodyfit.synthetic.movement import Body, Moved
from bodyfit.synthetic.scene import Box, Scene, place_camera, room
from bodyfit.synthetic.sensor import SENSORS, SensorModel
from bodyfit.synthetic.subject import Subject, make_subject, prior, sample_subject
from bodyfit.synthetic.take import Instant, MaskKind, SensorView, Studio, Take, full_pose

CLIP_PREFIX = "cmu_"
MOTIONS: tuple[str, ...] = (*MOVERS, *(CLIP_PREFIX + name for name in clip_names()))
"""Names of movements: those of `everyday`, and recorded ones (`clips`)."""
_SEED = 0x307
EMPTY_ROOMS = 8
"""readings of the empty room, of which each frame has one around the person (whose own noise is always new)"""


def move(
    model: BodyModel,
    subject: Subject,
    clothing: Clothing,
    name: str,
    rng: np.random.Generator,
    *,
    seconds: float,
    yaw: float = 0.0,
) -> Moved | MovedClip:
    """A movement for this very body: its own legs, its own shoes on the floor, its arms outside of its trunk.

    Raises:
        InputError: the name is unknown, or the time is not positive.
    """
    if name not in MOTIONS:
        raise InputError("motion", f"one of {', '.join(MOTIONS)}", repr(name))
    if not seconds > 0:
        raise InputError("seconds", "a time above 0", f"{seconds:g}")
    if name.startswith(CLIP_PREFIX):
        return moved_clip(model, subject, clothing, name.removeprefix(CLIP_PREFIX), rng, seconds, yaw)
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
class Scenario:
    """What goes wrong in a film; each is a first frame and a number of frames, counted before the stall.

    Attributes:
        missing: frames whose depth has no reading at all.
        stall: frames that never come: a gap in time.
        hidden: frames in which a board stands before the person.
        hides: how much of the person the board hides.
    """

    missing: tuple[int, int] | None = None
    stall: tuple[int, int] | None = None
    hidden: tuple[int, int] | None = None
    hides: Literal["all", "legs"] = "all"

    @staticmethod
    def holds(span: tuple[int, int] | None, frame: int) -> bool:
        """Whether a frame is among them."""
        return span is not None and span[0] <= frame < span[0] + span[1]


@dataclass(frozen=True)
class Filming:
    """A film before it is shot: iterate to get one `Instant` a frame; only the present one is in memory.

    Every pass makes the same bytes. Frames keep their number in `Frame.index` where a stall leaves some out.

    Attributes:
        studio: texture and light where there is colour.
        color_lag_s: colour is taken so long after the depth of the same frame.
    """

    model: BodyModel
    subject: Subject
    clothing: Clothing
    moved: Moved | MovedClip
    seconds: float
    fps: float
    sensors: tuple[SensorModel, ...]
    T_world_depth: tuple[NDArray[np.float64], ...]
    scene: Scene
    name: str
    seed: int
    mask: MaskKind = "none"
    studio: Studio | None = None
    color_lag_s: float = 0.0
    scenario: Scenario = field(default_factory=Scenario)
    gravity_world: NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, 0.0, -1.0]))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(T,) the frames that come."""
        count = round(self.seconds * self.fps)
        return np.array([k for k in range(count) if not Scenario.holds(self.scenario.stall, k)], np.int64)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(T,) seconds."""
        return self.numbers / self.fps

    def __len__(self) -> int:
        return len(self.numbers)

    def truth(
        self, times_s: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Poses (T, J, 3), the pelvis joint's places (T, 3) and which feet (T, 2) are pinned, at the frames' times."""
        poses, root, planted = self.moved.at(self.times_s if times_s is None else times_s)
        if self.model.joint_names != SMPL_JOINTS:
            poses = np.stack([full_pose(self.model, pose) for pose in poses])
        return poses, root, planted

    def __iter__(self) -> Iterator[Instant]:
        rng = np.random.default_rng([_SEED, self.seed, 1])
        views = [
            SensorView(s, T, self.scene, rng.spawn(1)[0], False, 1)
            for s, T in zip(self.sensors, self.T_world_depth, strict=True)
        ]
        for view in views:
            view.read_empty(EMPTY_ROOMS, rng.spawn(1)[0])
        poses, root, _ = self.truth()
        late = self.truth(self.times_s + self.color_lag_s) if self.studio is not None and self.color_lag_s else None
        blocked: list[SensorView] | None = None
        for t, (number, time_s) in enumerate(zip(self.numbers.tolist(), self.times_s.tolist(), strict=True)):
            transl = root[t] - self.subject.rest_joints[0]
            vertices, surface, joints = self._body(poses[t], transl)
            hidden = Scenario.holds(self.scenario.hidden, number)
            if hidden and blocked is None:
                blocked = [view.elsewhere(self._with_board(root[t])) for view in views]
            frames, masks, clean = {}, {}, {}
            for view in blocked if hidden and blocked is not None else views:
                name = view.sensor.name
                frame, masks[name], clean[name] = view.shoot(
                    surface, self.model.faces, self.clothing, self.mask, number, time_s, rng.spawn(1)[0]
                )
                if Scenario.holds(self.scenario.missing, number):
                    frame = replace(frame, depth=np.zeros_like(frame.depth))
                if self.studio is not None:
                    seen = surface
                    if late is not None:
                        seen = self._body(late[0][t], late[1][t] - self.subject.rest_joints[0])[1]
                    frame = self.studio.colored(frame, seen, self.model.faces, time_s + self.color_lag_s)
                frames[name] = frame
            yield Instant(frames, masks, clean, poses[t], transl, vertices, surface, joints)

    def _body(
        self, pose: NDArray[np.float64], transl: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        vertices, joints = self.subject.posed(self.model, pose, transl)
        return vertices, wear(vertices, self.model.faces, self.clothing), joints

    def _with_board(self, root: NDArray[np.float64]) -> Scene:
        """The room with a board 70 cm before the person, on the side of the first sensor."""
        to = self.T_world_depth[0][:2, 3] - root[:2]
        to = to / np.linalg.norm(to)
        x, y = root[:2] + 0.7 * to
        height = 2.2 if self.scenario.hides == "all" else 0.95
        board = Box((x, y, height / 2), (0.05, 1.5, height), float(np.arctan2(to[1], to[0])), (150, 130, 110))
        return replace(self.scene, boxes=(*self.scene.boxes, board))

    def take(self) -> Take:
        """The whole film in memory (an Azure frame with its truth takes 4 MB)."""
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
    exposure_wanders: bool = False,
    color_lag_s: float = 0.0,
    subject: Subject | None = None,
    sex: str | None = None,
    off_model_mm_rms: float = 3.0,
    heading_deg: float | None = None,
    scenario: Scenario | None = None,
) -> Filming:
    """A person, a room, one sensor and a movement by chance; the same seed gives the same bytes.

    Args:
        motion: one of `MOTIONS`.
        sensor: a name of `sensor.SENSORS` or a sensor.
        color: colour images of a textured person (at every `color_stride`-th pixel of the colour camera).
        exposure_wanders: brightness and white balance of the colour change slowly.
        color_lag_s: colour is taken so long after the depth of the same frame.
        heading_deg: which way the person faces to begin with, 0 looks at the sensor; None draws it.
        scenario: what goes wrong.

    Raises:
        InputError: a name, a rate or a time that there is not.
    """
    if not fps > 0:
        raise InputError("fps", "a rate above 0", f"{fps:g}")
    if motion not in MOTIONS:
        raise InputError("motion", f"one of {', '.join(MOTIONS)}", repr(motion))
    subject_rng, clothes_rng, place_rng, move_rng, heading_rng = np.random.default_rng([_SEED, seed]).spawn(5)
    if subject is None:
        subject = sample_subject(model, subject_rng, sex, off_model_mm_rms)
    clothes = dress(model, subject, clothing, clothes_rng)
    device = SENSORS[sensor]() if isinstance(sensor, str) else sensor
    azimuth = place_rng.uniform(-np.pi, np.pi)
    about = motion in ("walk", "leave") or motion.startswith(CLIP_PREFIX)
    T_world_depth = place_camera(place_rng, azimuth=azimuth, distance=(2.5, 2.9) if about else (2.2, 2.8))
    # who leaves the view walks where walls to the side and boxes would stand
    boxes = 0 if motion == "leave" else None
    scene = room(
        place_rng, T_world_depth[:3, 3], clear_m=0.6 if about else 0.2, boxes=boxes, side_wall=motion != "leave"
    )
    all_round = motion in ("walk", "turn") or motion.startswith(CLIP_PREFIX)
    drawn = float(heading_rng.uniform(-180, 180) if all_round else heading_rng.uniform(-45, 45))
    heading = (0.0 if motion == "leave" else drawn) if heading_deg is None else heading_deg
    moved = move(model, subject, clothes, motion, move_rng, seconds=seconds, yaw=azimuth + np.radians(heading))
    studio = None
    if color:
        studio = Studio.drawn(
            model, subject, clothes, (device,), (T_world_depth,), scene, color_stride, seed, exposure_wanders
        )
    return Filming(
        model, subject, clothes, moved, seconds, fps, (device,), (T_world_depth,), scene, motion, seed, mask, studio,
        color_lag_s, scenario or Scenario(),
    )  # fmt: skip
