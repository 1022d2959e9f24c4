"""The sensors of a track: what each is known to look at, and what they see of a body that is expected somewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import FrameError
from bodyfit.fit.follow import Looker, Pose, Seen
from bodyfit.fit.initialize import HALF_DEPTH_M
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.view import depth_noise
from bodyfit.frame import Frame
from bodyfit.observe.follow import REACH_M, Follower, follower_of
from bodyfit.observe.observation import Observation

LEAST_SEEN = 40
"""grid pixels of the person, over all sensors, below which a frame says nothing of them"""
THERE_M = 0.1
"""a body this near to the middle of what stands out is there"""


class Sensors:
    """Sensors by name: their rooms, noise, and the grid on which each is looked at."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        self._strides: dict[str, int] = {}
        self._noise: dict[str, float] = {}
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
        self, mesh: Mesh, frames: Sequence[Frame], expected: Pose, pixels: int, reach_m: float = REACH_M
    ) -> list[Seen]:
        """What the sensors see of a body expected at a pose, on grids of about `pixels` person pixels together."""
        self.before, self._pixels = 0, pixels
        out = []
        for frame in frames:
            follower = self._known(frame)
            if follower is None:
                continue
            stride = self._strides[frame.sensor]
            seen = self._looker.look(mesh, expected, frame, follower, stride, self._noise[frame.sensor], reach_m)
            if seen is None:
                continue
            if seen.followed.person:
                self._strides[frame.sensor] = self._stride(seen.followed.person * stride**2, pixels)
            self.before += seen.followed.before
            if seen.followed.person >= LEAST_SEEN // 2:
                out.append(seen)
        return out

    def look_closer(self, mesh: Mesh, frames: Sequence[Frame], pose: Pose, pixels: int) -> list[Seen]:
        """The same of a body that was found, on finer grids; the next frame's grids stay as they are."""
        strides, before = dict(self._strides), self.before
        usual = self._pixels
        scale = np.sqrt(max(pixels, 1) / max(usual, 1))
        self._strides = {name: max(1, int(stride / scale + 0.35)) for name, stride in strides.items()}
        seen = self.look(mesh, frames, pose, pixels)
        self._strides, self.before, self._pixels = strides, before, usual
        return seen

    def may_show_somebody(self, frames: Sequence[Frame], least_m2: float) -> bool:
        """Whether something stands before a room, or a room is not known."""
        for frame in frames:
            follower = self._known(frame)
            if follower is None or not follower.sees_its_room(frame):
                return True
            if follower.standing_out(frame)[0] > least_m2:
                return True
        return False

    def moved_to_readings(
        self, frames: Sequence[Frame], pose: Pose, root: NDArray[np.float64], up: NDArray[np.float64], least_m2: float
    ) -> Pose | None:
        """A pose whose root is at `root` (3,), over the middle of what stands before the rooms; None where too little
        does, or it is there."""
        points, area, eye = [], 0.0, np.zeros(3)
        for frame in frames:
            follower = self._known(frame)
            if follower is not None:
                size, here = follower.standing_out(frame)
                area, eye = area + size, frame.T_world_depth[:3, 3]
                points.append(here)
        if area < least_m2:
            return None
        middle = np.median(np.concatenate(points), axis=0)
        shift = middle - root
        shift -= up * (shift @ up)
        # a body's middle lies behind what is seen of it
        away = middle - eye
        away -= up * (away @ up)
        shift += HALF_DEPTH_M * away / max(float(np.linalg.norm(away)), 1e-6)
        return None if float(np.linalg.norm(shift)) < THERE_M else Pose(pose.rotations, pose.transl + shift)


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
