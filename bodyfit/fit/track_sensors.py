"""The sensors of a track: what each is known to look at, and what they see of a body that is expected somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import FrameError
from bodyfit.fit.follow import Looker, Pose, Seen
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.view import depth_noise
from bodyfit.frame import Frame
from bodyfit.observe.follow import REACH_M, Follower, follower_of
from bodyfit.observe.observation import PERSON, Observation

LEAST_SEEN = 40
"""grid pixels of the person, over all sensors, below which a frame says nothing of them"""
WIDE_REACH_M = 0.6
"""how far from a body that may be elsewhere the person is looked for"""
THERE_M = 0.1
"""what stands out is where it was while its middle moves by less than this"""
LEAST_CHANGE_M2 = 0.04
"""and as large while its area changes by less"""


class Sensors:
    """Sensors by name: their rooms, noise, and the grid on which each is looked at."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        self._strides: dict[str, int] = {}
        self._noise: dict[str, float] = {}
        self._coarse: dict[str, int] = {}
        self.noise_m = 0.0
        """the sensors' noise where the person was last seen, the least of them"""
        self._looker = Looker()
        self._pixels = 0
        self.before = 0
        """how many pixels of others lay before the body where it was last looked for"""

    def meet(self, observation: Observation, pixels: int) -> None:
        """What is known of a sensor from now on; its room is kept, where it was seen before, behind the person."""
        new = follower_of(observation)
        old = self._followers.get(observation.sensor)
        if old is not None and np.array_equal(old.T_world_depth, new.T_world_depth):
            unseen = (new.background == 0) & (old.background > 0)
            new.background[unseen] = old.background[unseen]
        self._followers[observation.sensor] = new
        self._strides[observation.sensor] = self._stride(int(observation.person.sum()), pixels)
        noise = depth_noise(observation.depth, observation.person)
        if observation.noise is not None and observation.noise.stereo:
            noise = observation.noise.sigma(float(np.median(observation.depth[observation.person])))
        self._noise[observation.sensor] = noise

    def _stride(self, person: int, pixels: int) -> int:
        share = pixels / max(len(self._followers), 1)
        return max(1, int(np.sqrt(person / max(share, 1)) + 0.35))

    def _known(self, frame: Frame) -> Follower | None:
        follower = self._followers.get(frame.sensor)
        return follower if follower is not None and frame.depth.shape == follower.background.shape else None

    def look(
        self, mesh: Mesh, frames: Sequence[Frame], expected: Pose, pixels: int, reach_m: float = REACH_M,
        *, coarse: bool = False,
    ) -> list[Seen]:  # fmt: skip
        """What the sensors see of a body expected at a pose, on grids of about `pixels` person pixels together.

        A coarse look is one beside the others and leaves what is known for the next frame as it is.
        """
        before, self.before = self.before, 0
        self._pixels = self._pixels if coarse else pixels
        out, noises = [], []
        for frame in frames:
            follower = self._known(frame)
            if follower is None:
                continue
            stride = self._strides[frame.sensor]
            if coarse:
                stride = self._coarse.get(frame.sensor, 2 * stride)
            seen = self._looker.look(mesh, expected, frame, follower, stride, self._noise[frame.sensor], reach_m)
            if seen is None:
                continue
            if seen.followed.person:
                wanted = self._stride(seen.followed.person * stride**2, pixels)
                (self._coarse if coarse else self._strides)[frame.sensor] = wanted
            self.before += seen.followed.before
            if seen.followed.person >= LEAST_SEEN // 2:
                out.append(seen)
                z = seen.view.depth[(seen.view.label == PERSON) & (seen.view.depth > 0)]
                noises.append(0.0 if follower.noise is None or not len(z) else follower.noise.sigma(float(z.mean())))
        self.noise_m = min(noises, default=self.noise_m)
        if coarse:
            self.before = before
        return out

    def look_closer(self, mesh: Mesh, frames: Sequence[Frame], pose: Pose, pixels: int) -> list[Seen]:
        """The same of a body that was found, on finer grids; the next frame's grids stay as they are."""
        strides, before, noise_m = dict(self._strides), self.before, self.noise_m
        usual = self._pixels
        scale = np.sqrt(max(pixels, 1) / max(usual, 1))
        self._strides = {name: max(1, int(stride / scale + 0.35)) for name, stride in strides.items()}
        seen = self.look(mesh, frames, pose, pixels)
        self._strides, self.before, self._pixels, self.noise_m = strides, before, usual, noise_m
        return seen

    def look_coarsely(self, mesh: Mesh, frames: Sequence[Frame], expected: Pose, pixels: int) -> list[Seen]:
        """The same on few pixels and far around, for a search: twice where somebody is of another size by now."""
        seen = self.look(mesh, frames, expected, pixels, WIDE_REACH_M, coarse=True)
        if sum(s.followed.person for s in seen) > 1.4 * pixels:
            seen = self.look(mesh, frames, expected, pixels, WIDE_REACH_M, coarse=True)
        return seen

    def know_their_rooms(self, frames: Sequence[Frame]) -> bool:
        """Whether every sensor of these frames has seen its room before and sees it still."""
        followers = [(self._known(frame), frame) for frame in frames]
        return all(follower is not None and follower.sees_its_room(frame) for follower, frame in followers)

    def standing_out(self, frames: Sequence[Frame]) -> StandingOut:
        """What stands before the rooms, as all sensors together see it."""
        points, area, cut = [np.zeros((0, 3))], 0.0, []
        for frame in frames:
            follower = self._known(frame)
            if follower is not None:
                size, border, here = follower.standing_out(frame)
                area += size
                if size > 0:
                    cut.append(border)
                points.append(here)
        every = np.concatenate(points)
        middle = np.median(every, axis=0) if len(every) else np.full(3, np.nan)
        return StandingOut(area, middle, min(cut, default=0.0))


@dataclass(frozen=True)
class StandingOut:
    """What stands before the rooms: square metres, face on; where its middle (3,) is; and over how many metres the
    picture's border cuts it, in the picture that cuts least of it."""

    area_m2: float
    middle: NDArray[np.float64]
    cut_m: float

    def is_like(self, other: StandingOut) -> bool:
        """Whether nothing to speak of has changed."""
        if max(self.area_m2, other.area_m2) < LEAST_CHANGE_M2:
            return True
        if abs(self.area_m2 - other.area_m2) > max(LEAST_CHANGE_M2, 0.1 * self.area_m2):
            return False
        return bool(np.linalg.norm(self.middle - other.middle) < THERE_M)


def seen_points(seen: Sequence[Seen]) -> NDArray[np.float64]:
    """(N, 3) where the person's readings are, metres, in the world."""
    out = [np.zeros((0, 3))]
    for view in (s.view for s in seen):
        rows, cols = np.nonzero((view.label == PERSON) & (view.depth > 0))
        z = view.depth[rows, cols].astype(np.float64)
        fx, fy, cx, cy = (float(x) for x in view.intrinsics)
        points = np.stack([(cols - cx) / fx * z, (rows - cy) / fy * z, z], 1)
        out.append((points - view.t_cw) @ view.R_cw)
    return np.concatenate(out)


def seen_area_m2(seen: Sequence[Seen]) -> float:
    """How large the person is, square metres face on, in the view that shows most of them."""
    areas = [0.0]
    for view in (s.view for s in seen):
        z = view.depth[(view.label == PERSON) & (view.depth > 0)]
        areas.append(float((z.astype(np.float64) ** 2).sum() / (view.intrinsics[0] * view.intrinsics[1])))
    return max(areas)


def check_depth(frames: Sequence[Frame]) -> None:
    """Refuses depth that no sensor gives.

    Raises:
        FrameError: it is negative or not finite.
    """
    for frame in frames:
        low, high = float(frame.depth.min()), float(frame.depth.max())
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
            found = "NaN or infinity" if not (np.isfinite(low) and np.isfinite(high)) else f"{low:g} m"
            raise FrameError(f"depth of {frame.sensor}", "finite metres, 0 for no reading", found)


def person_pixels(seen: Sequence[Seen]) -> float:
    """How many pixels of the images are the person's, from those of the grids."""
    return float(sum(s.followed.person * s.view.stride**2 for s in seen))
