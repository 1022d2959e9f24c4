"""Films for the benchmark of the fit on a GPU, made with numpy, scipy and our own kernels alone.

`bodyfit.synthetic` plans them: bodies from the prior that are dressed, off the model's span and move in a room. What
the sensor reads is plainer than `read_depth` there, whose blurs need OpenCV: noise that grows with the square of the
distance, pixels without a reading, depth in whole units; no mixed pixels, no slow bias. The person's mask is exact, so
nobody has to be found. Times do not hang on that; accuracy is measured elsewhere (RESULTS.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.camera import Camera
    from bodyfit.fit.track import Tracker
    from bodyfit.fit.track_config import TrackConfig
    from bodyfit.frame import Frame
    from bodyfit.observe.observation import Observation
    from bodyfit.synthetic.motion import Filming

FPS = 30.0
MOTIONS = ("arms", "reach", "squat", "turn", "wave", "step_aside", "walk", "mixed")
FIRST_SEED = 7100
CLOTHING = "tight"
SHAPE_SHARE = 0.1
"""a track's first shape is the true one, known as if this share of the prior's variance were left"""
UNIT_M = 0.001
FLOOR = np.array([0.0, 0.0, 1.0, 0.0])
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Film:
    """A person who moves, as one sensor sees them: counts (T, H, W) uint16 millimetres, masks (T, H, W) of the person,
    the true rotations (T, J, 3, 3) and transl (T, 3), and the true betas (S,)."""

    counts: NDArray[np.uint16]
    masks: NDArray[np.bool_]
    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    betas: NDArray[np.float64]
    T_world_depth: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    """(4,) fx, fy, cx, cy"""

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def camera(self) -> Camera:
        """The depth camera."""
        from bodyfit.camera import Camera

        height, width = self.counts.shape[1:]
        fx, fy, cx, cy = self.intrinsics.tolist()
        return Camera(width, height, fx, fy, cx, cy)

    def frame(self, at: int, time_s: float | None = None) -> Frame:
        """Frame `at` of the film, without the mask: who is followed is known by where they are."""
        from bodyfit.frame import Frame

        depth = self.counts[at].astype(np.float32) * np.float32(UNIT_M)
        when = at / FPS if time_s is None else time_s
        return Frame(depth, self.camera, self.T_world_depth, timestamp_s=when, index=at)

    def walk_through(self, start: int, count: int) -> list[Frame]:
        """`count` frames from `start` on, back and forth, so that the motion never leaps."""
        last = len(self) - 1
        places = [last - abs(last - (start + k) % max(2 * last, 1)) for k in range(count)]
        once = {at: self.frame(at) for at in set(places)}
        return [replace(once[at], timestamp_s=k / FPS) for k, at in enumerate(places)]

    def observation(self, at: int) -> Observation:
        """The same frame as evidence, by its mask."""
        from bodyfit.observe.noise import plane_noise
        from bodyfit.observe.observation import BACKGROUND, PERSON, UNKNOWN, Observation

        frame, mask = self.frame(at), self.masks[at]
        label = np.where(mask, PERSON, np.where(frame.depth > 0, BACKGROUND, UNKNOWN)).astype(np.uint8)
        edges = {"top": mask[:2], "bottom": mask[-2:], "left": mask[:, :2], "right": mask[:, -2:]}
        return Observation(
            depth=frame.depth, label=label, camera=self.camera, T_world_depth=self.T_world_depth, up_world=UP,
            floor_height_m=0.0, floor_plane_world=FLOOR, cut_off=frozenset(s for s, e in edges.items() if e.any()),
            mask_given=True, dropped_px=0, keypoints=None, color=None, color_camera=None, T_color_depth=None,
            sensor=frame.sensor, index=at, timestamp_s=frame.timestamp_s,
            noise=plane_noise(frame.depth, label == BACKGROUND),
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """The film as one file, which another process can read."""
        names = ("counts", "masks", "rotations", "transl", "betas", "T_world_depth", "intrinsics")
        temporary = path.with_name(path.name + ".part")
        with open(temporary, "wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in names})
        temporary.replace(path)

    @staticmethod
    def read(path: Path) -> Film:
        """A film that was written."""
        with np.load(path, allow_pickle=False) as arrays:
            return Film(**{name: arrays[name] for name in arrays.files})


def shoot(model: BodyModel, plan: Filming, every: int, rng: np.random.Generator) -> Film:
    """Films a plan with its first sensor, every `every`-th pixel of it."""
    from bodyfit.render.rasterize import rasterize
    from bodyfit.rotation import matrix_from_axis_angle
    from bodyfit.synthetic.clothing import wear

    sensor, T = plan.sensors[0], plan.T_world_depth[0]
    camera = sensor.depth_camera.every(every)
    room = plan.scene.view(camera, T).depth
    poses, root, _ = plan.truth()
    transl = root - plan.subject.rest_joints[0]
    counts, masks = [], []
    for pose, place in zip(poses, transl, strict=True):
        vertices, _ = plan.subject.posed(model, pose, place)
        surface = wear(vertices, model.faces, plan.clothing)
        raster = rasterize((surface - T[:3, 3]) @ T[:3, :3], model.faces, camera)
        mask = (raster.face >= 0) & ((room == 0) | (raster.depth < room))
        depth = np.where(mask, raster.depth, room)
        depth = depth + rng.standard_normal(depth.shape, dtype=np.float32) * sensor.sigma(depth)
        lost = (rng.random(depth.shape, dtype=np.float32) < sensor.random_lost) | (depth < sensor.range_m[0])
        depth[lost | (depth > sensor.range_m[1])] = 0
        counts.append(np.round(depth / np.float32(UNIT_M)).astype(np.uint16))
        masks.append(mask)
    intrinsics = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    return Film(
        np.stack(counts), np.stack(masks), matrix_from_axis_angle(poses), transl, plan.subject.betas, T, intrinsics
    )


def make_films(model: BodyModel, count: int, frames: int, every: int) -> list[Film]:
    """`count` films of `frames` frames from an Azure Kinect (640×576), every `every`-th pixel of it; the same each
    time. Two people take turns: drawing somebody is the slowest part."""
    from bodyfit.synthetic.motion import plan_film

    films = []
    people: list[Any] = [None, None]
    for k in range(count):
        plan = plan_film(
            model, FIRST_SEED + k, motion=MOTIONS[k % len(MOTIONS)], seconds=frames / FPS, fps=FPS, sensor="azure",
            clothing=CLOTHING, subject=people[k % 2],
        )  # fmt: skip
        people[k % 2] = plan.subject
        films.append(shoot(model, plan, every, np.random.default_rng([0x69F, k])))
    return films


def new_tracker(model: BodyModel, film: Film, config: TrackConfig) -> Tracker:
    """A tracker that knows who is to be followed: their shape, and where they are in the first frame."""
    from bodyfit.fit.config import CLOTHING as WORN
    from bodyfit.fit.follow import Pose
    from bodyfit.fit.joint import garment_prior, prior_shape
    from bodyfit.fit.track import Tracker
    from bodyfit.fit.track_search import PersonSearch
    from bodyfit.fit.track_shape import TrackShape

    class KnownPerson(PersonSearch):
        """Looks where the film says that the person is."""

        def look(self, frames: Any) -> tuple[list[Observation], str]:
            """The observation by the film's mask."""
            return [film.observation(frames[0].index)], ""

        def first(self, observations: Any, now: float) -> tuple[TrackShape, Pose]:
            """The film's person, their shape not quite known."""
            prior, (worn, sd) = prior_shape(self.setup), garment_prior(WORN[CLOTHING])
            free = model.num_betas
            cov = np.zeros((free + len(worn), free + len(worn)))
            cov[:free, :free], cov[free:, free:] = SHAPE_SHARE * prior.cov, np.diag(sd**2)
            found = np.concatenate([film.betas - prior.mean, worn])
            at = observations[0].index
            shape = TrackShape(self.setup, self.config, self.prior, WORN[CLOTHING], found, cov)
            return shape, Pose(film.rotations[at], film.transl[at])

    tracker = Tracker(model, clothing=CLOTHING, config=config, gravity_world=-UP)
    tracker._whole.person = KnownPerson(tracker.setup, tracker.config, tracker.prior, -UP, None)
    return tracker
