"""Recorded movements (`data/poses/motions.npz`, retargeted motion capture) put on any body, at any frame rate."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.synthetic.clothing import Clothing, wear
from bodyfit.synthetic.subject import Subject

FILE = Path(__file__).resolve().parent.parent / "data" / "poses" / "motions.npz"
UNIT_RAD = 1e-4
SMOOTH_S = 0.02
"""The recorded angles are smoothed by a Gaussian of this width: rounded to 30 a second they tremble."""
STILL_M = 0.004
"""A foot that moves less than this between frames, low down, counts as standing."""


@lru_cache(maxsize=1)
def _file() -> dict[str, NDArray[Any]]:
    if not FILE.is_file():
        return {}
    with np.load(FILE, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def clip_names() -> tuple[str, ...]:
    """Names of the recorded movements; none where the file is missing."""
    return tuple(str(name) for name in _file().get("names", ()))


class MovedClip:
    """A clip on a body: poses at any time, forwards and back again where the film is longer than the clip."""

    def __init__(
        self,
        rotations: NDArray[np.float64],
        root: NDArray[np.float64],
        planted: NDArray[np.bool_],
        fps: float,
        seconds: float,
    ) -> None:
        from scipy.interpolate import CubicSpline
        from scipy.spatial.transform import Rotation, RotationSpline

        self._fps, self._planted, self._end = fps, planted, (len(root) - 1) / fps
        self._fits = seconds <= self._end
        times = np.arange(len(root)) / fps
        self._splines = [
            RotationSpline(times, Rotation.from_matrix(rotations[:, j])) for j in range(rotations.shape[1])
        ]
        self._root = CubicSpline(times, root)

    def at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Poses (T, 24, 3) axis-angle, the pelvis joint's places (T, 3) metres, and which feet (T, 2) stand."""
        t = np.asarray(times, np.float64)
        if not self._fits:
            t = t % (2 * self._end)
            t = np.where(t > self._end, 2 * self._end - t, t)
            t = np.where(t < self._end / 2, _eased(t), self._end - _eased(self._end - t))
        poses = np.stack([axis_angle_from_matrix(s(t).as_matrix()) for s in self._splines], 1)
        row = np.clip(np.rint(t * self._fps).astype(int), 0, len(self._planted) - 1)
        return poses, np.asarray(self._root(t)), self._planted[row]


def _eased(t: NDArray[np.float64], within: float = 0.5) -> NDArray[np.float64]:
    """Time that comes to rest and turns round at 0 with continuous acceleration, and is t from `within` seconds on."""
    x = np.clip(t / within, 0.0, 1.0)
    return np.where(t < within, within * (3 / 8 + 3 / 4 * x**2 - x**4 / 8), t)


def moved_clip(
    model: BodyModel,
    subject: Subject,
    clothing: Clothing,
    name: str,
    rng: np.random.Generator,
    seconds: float,
    yaw: float,
) -> MovedClip:
    """A piece of a clip about the origin, turned by `yaw` about the vertical.

    The way is scaled by the length of the legs; the height is such that the lower sole is on the floor where it is in
    the clip, smoothed, so that the recorded jumps stay jumps. Feet slide as far as the other skeleton makes them.
    """
    from scipy.ndimage import gaussian_filter1d

    data, k = _file(), clip_names().index(name)
    fps = float(data["fps"][k])
    first, last = int(data["starts"][k]), int(data["starts"][k + 1])
    count = min(int(np.ceil(seconds * fps)) + 2, last - first)
    first += int(rng.integers(0, last - first - count + 1))
    rotations = matrix_from_axis_angle(data["poses"][first : first + count] * UNIT_RAD)
    root = data["transl"][first : first + count].astype(np.float64)
    rotations = _smoothed(rotations, SMOOTH_S * fps)
    legs = [SMPL_JOINTS.index(n) for n in ("left_hip", "left_knee", "left_ankle")]
    mine = [model.joint_names.index(n) for n in ("left_hip", "left_knee", "left_ankle")]

    def length(joints: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(np.diff(joints, axis=0), axis=1).sum())

    scale = length(subject.rest_joints[mine]) / length(model.joint_template[legs])
    root = gaussian_filter1d(root, SMOOTH_S * fps, axis=0, mode="nearest") * scale
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    middle = (root.min(0) + root.max(0)) / 2 * np.array([1.0, 1.0, 0.0])
    root = (root - middle) @ turn.T
    rotations[:, 0] = turn @ rotations[:, 0]
    return MovedClip(rotations, *_on_floor(model, subject, clothing, rotations, root), fps, seconds)


def _smoothed(rotations: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Rotations (T, J, 3, 3) smoothed in time: the mean of matrices, put back on SO(3)."""
    from scipy.ndimage import gaussian_filter1d

    from bodyfit.rotation import nearest_rotation

    return nearest_rotation(gaussian_filter1d(rotations, sigma, axis=0, mode="nearest"))


def _on_floor(
    model: BodyModel,
    subject: Subject,
    clothing: Clothing,
    rotations: NDArray[np.float64],
    root: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The root with the soles brought to the floor, and which feet stand (T, 2)."""
    from scipy.ndimage import gaussian_filter1d, minimum_filter1d

    from bodyfit.synthetic.take import full_pose

    main = model.lbs_weights.argmax(1)
    feet = [
        np.nonzero(np.isin(main, [model.joint_names.index(f"{side}_{n}") for n in ("ankle", "foot")]))[0]
        for side in ("left", "right")
    ]
    low, at = np.empty((len(root), 2)), np.empty((len(root), 2, 2))
    for t in range(len(root)):
        pose = full_pose(model, axis_angle_from_matrix(rotations[t]))
        vertices, _ = subject.posed(model, pose, root[t] - subject.rest_joints[0])
        surface = wear(vertices, model.faces, clothing)
        for k in (0, 1):
            low[t, k], at[t, k] = surface[feet[k], 2].min(), surface[feet[k]].mean(0)[:2]
    lowest = low.min(1)
    # how high the lower sole is: a slow course that touches the soles from below, so that jumps stay in the air
    floor = gaussian_filter1d(minimum_filter1d(lowest, 31, mode="nearest"), 8.0, mode="nearest")
    root = root - np.stack([np.zeros_like(floor), np.zeros_like(floor), floor], 1)
    still = np.linalg.norm(np.gradient(at, axis=0), axis=2) < STILL_M
    return root, still & (low - floor[:, None] < 0.02)
