"""An observation cut to the person and thinned to a stage's grid, as the kernels take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.keypoints import JointTargets, joint_targets

if TYPE_CHECKING:
    from bodyfit.observe.observation import Observation

MARGIN_M = 0.35
"""how much around the person is kept: a limb of the model further out is not seen as wrong"""


@dataclass(frozen=True)
class View:
    """One sensor's evidence on a grid (h, w): depth metres, label (0 background, 1 person, 2 unknown)."""

    depth: NDArray[np.float32]
    label: NDArray[np.uint8]
    near_person: NDArray[np.int32]
    intrinsics: NDArray[np.float32]
    R_cw: NDArray[np.float64]
    t_cw: NDArray[np.float64]
    floor_plane: NDArray[np.float64]
    num_person: int
    noise_m: float
    """standard deviation of the sensor's noise on the person, from the depth itself"""
    independent_pixels: float
    """how many of the person's pixels, of all that the sensor has of them, have a noise of their own"""
    stride: int
    origin: tuple[int, int]
    keypoints: JointTargets | None = None
    noise_is_smooth: bool = False
    """whether the sensor is a stereo matcher, whose noise is smooth over many pixels"""


def depth_noise(depth: NDArray[np.float32], person: NDArray[np.bool_], reach: int = 4) -> float:
    """Standard deviation of the noise (metres): second differences over `reach` pixels, which a body hardly bends in.

    Neighbours further apart than a stereo matcher's blobs, so that noise that is smooth over a pixel or two counts.
    """
    use = person & (depth > 0)
    a, b, c = depth[:, : -2 * reach], depth[:, reach:-reach], depth[:, 2 * reach :]
    all_three = use[:, : -2 * reach] & use[:, reach:-reach] & use[:, 2 * reach :]
    bend = np.abs(a - 2 * b + c)[all_three]
    # half of the differences lie below 0.6745 sd; one difference has variance 1 + 4 + 1
    return float(np.median(bend) / 0.6745 / np.sqrt(6.0)) if len(bend) > 100 else 0.0


class Views:
    """The views of what some sensors saw at one instant, each made once: the stages of a fit ask for the same grids."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self.observations = observations
        self._cuts: list[_Cut] | None = None
        self._made: dict[int, list[View]] = {}

    def at(self, pixels: int) -> list[View]:
        """One view of each observation, with about `pixels` person pixels left."""
        if self._cuts is None:
            self._cuts = [_cut_to_person(o) for o in self.observations]
        if pixels not in self._made:
            self._made[pixels] = [_thinned(cut, pixels) for cut in self._cuts]
        return list(self._made[pixels])


def make_view(observation: Observation, pixels: int) -> View:
    """Thins an observation so that about `pixels` person pixels are left."""
    return _thinned(_cut_to_person(observation), pixels)


@dataclass(frozen=True, eq=False)
class _Cut:
    """What every grid of an observation needs: the person's pixels and their middle depth in metres, the part of the
    image (first row and column, and those after the last), and the sensor's noise and keypoints as in a `View`."""

    observation: Observation
    count: int
    distance: float
    first: tuple[int, int]
    end: tuple[int, int]
    noise_m: float
    keypoints: JointTargets | None


def _cut_to_person(observation: Observation) -> _Cut:
    person = observation.label == 1
    camera = observation.camera
    rows, cols = np.flatnonzero(person.any(1)), np.flatnonzero(person.any(0))
    seen = observation.depth[person & (observation.depth > 0)]
    distance = float(np.median(seen)) if len(seen) else 2.0
    margin = int(MARGIN_M * camera.fx / distance)
    r0, c0 = max(0, int(rows[0]) - margin), max(0, int(cols[0]) - margin)
    r1 = min(camera.height, int(rows[-1]) + margin + 1)
    c1 = min(camera.width, int(cols[-1]) + margin + 1)
    noise, known = depth_noise(observation.depth[r0:r1, c0:c1], person[r0:r1, c0:c1]), observation.noise
    if known is not None and known.stereo:
        noise = known.sigma(distance)
    targets = joint_targets(observation, distance)
    return _Cut(observation, int(person.sum()), distance, (r0, c0), (r1, c1), noise, targets)


def _thinned(cut: _Cut, pixels: int) -> View:
    from bodyfit.kernels.nearest import nearest_marked

    observation, camera, known = cut.observation, cut.observation.camera, cut.observation.noise
    stride = max(1, int(np.sqrt(cut.count / max(pixels, 1)) + 0.35))
    r0, c0 = (first // stride * stride for first in cut.first)
    grid = (slice(r0, cut.end[0], stride), slice(c0, cut.end[1], stride))
    depth = np.ascontiguousarray(observation.depth[grid], np.float32)
    label = np.ascontiguousarray(observation.label[grid], np.uint8)
    near = np.where(label == 1, np.arange(label.size, dtype=np.int32).reshape(label.shape), np.int32(-1))
    near = np.ascontiguousarray(near, np.int32)
    nearest_marked(near)
    T = observation.T_world_depth
    R_cw = np.ascontiguousarray(T[:3, :3].T)
    plane = observation.floor_plane_world
    return View(
        depth=depth,
        label=label,
        near_person=near,
        intrinsics=np.array(
            [camera.fx / stride, camera.fy / stride, (camera.cx - c0) / stride, (camera.cy - r0) / stride], np.float32
        ),
        R_cw=R_cw,
        t_cw=-R_cw @ T[:3, 3],
        floor_plane=np.zeros(4) if plane is None else np.asarray(plane, np.float64),
        num_person=int((label == 1).sum()),
        noise_m=cut.noise_m,
        independent_pixels=cut.count / (1.0 if known is None else known.area_px),
        stride=stride,
        origin=(r0, c0),
        keypoints=cut.keypoints,
        noise_is_smooth=known is not None and known.stereo,
    )
