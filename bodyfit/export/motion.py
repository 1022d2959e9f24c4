"""A fit's motion as the formats of motion want it: rotations in time order, joints on a skeleton, an even clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.export.result_npz import frame_rate
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult

LONGEST_STEP_S = 0.2
"""Poses further apart than this are stills, such as a person who turns by a quarter between them, and no motion."""
JITTER = 0.25
"""By this share of a step may a sensor's clock tremble without its frames being resampled."""
LONGEST_BRIDGE_S = 10.0
"""A longer gap is left out where the clock has to be even: nobody is there to be shown."""

Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""World coordinates (z up) to those of glTF and BVH (y up): (x, y, z) becomes (x, z, -y)."""


@dataclass(frozen=True, eq=False)
class Motion:
    """One person's joints over time.

    Attributes:
        joint_names, parents (J,): the skeleton, parents before children, -1 for the root.
        rest_joints: (J, 3) metres, this person's unposed joints in the model's axes (x left, y up, z front).
        rotations: (T, J, 3, 3) relative to the parent, the root's in the world.
        root_world: (T, 3) metres, where the root joint is.
        timestamps_s: (T,) rising.
        frame_indices: (T,) the recording's numbers; -1 for a row that lies between two frames.
        rate: rows a second, by the median step.
    """

    joint_names: tuple[str, ...]
    parents: NDArray[np.int32]
    rest_joints: NDArray[np.float64]
    rotations: NDArray[np.float64]
    root_world: NDArray[np.float64]
    timestamps_s: NDArray[np.float64]
    frame_indices: NDArray[np.int64]
    rate: float

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def offsets(self) -> NDArray[np.float64]:
        """(J, 3) metres from each joint's parent to it at rest; the root's own rest place for the root."""
        offsets = self.rest_joints.copy()
        child = self.parents >= 0
        offsets[child] -= self.rest_joints[self.parents[child]]
        return offsets

    def joints_world(self) -> NDArray[np.float64]:
        """(T, J, 3) metres, where each joint is."""
        places = np.empty((*self.rotations.shape[:2], 3))
        turned = np.empty_like(self.rotations)
        offsets = self.offsets
        for j, p in enumerate(self.parents):
            if p < 0:
                places[:, j], turned[:, j] = self.root_world, self.rotations[:, j]
            else:
                places[:, j] = places[:, p] + turned[:, p] @ offsets[j]
                turned[:, j] = turned[:, p] @ self.rotations[:, j]
        return places


def is_motion(result: FitResult) -> bool:
    """Whether a result shows a person moving, rather than one pose or stills of several."""
    steps = np.diff(np.sort(np.asarray(result.timestamps_s, np.float64)))
    return len(steps) > 0 and 0 < float(np.median(steps)) <= LONGEST_STEP_S


def motion_of(result: FitResult) -> Motion:
    """The motion of a result, in the order of time.

    Raises:
        InputError: no pose, numbers that are not finite, two poses at one time, or arrays that do not fit.
    """
    model = result.model
    T, J = len(result.timestamps_s), model.num_joints
    poses, transl = np.asarray(result.poses, np.float64), np.asarray(result.transl, np.float64)
    seconds = np.asarray(result.timestamps_s, np.float64)
    indices = np.asarray(result.frame_indices, np.int64)
    if T == 0:
        raise InputError("timestamps_s", "at least one pose", "none")
    if list(model.parents).count(-1) != 1 or model.parents[0] != -1:
        raise InputError(f"model {model.name}: parents", "one root, the first joint", str(list(model.parents)))
    for name, array, shape in (
        ("poses", poses, (T, J, 3)), ("transl", transl, (T, 3)), ("frame_indices", indices, (T,)),
        ("timestamps_s", seconds, (T,)),
    ):  # fmt: skip
        if array.shape != shape:
            raise InputError(name, f"shape {shape}", str(array.shape))
        if not np.isfinite(array).all():
            raise InputError(name, "finite numbers", "NaN or infinity")
    order = np.argsort(seconds, kind="stable")
    if (np.diff(seconds[order]) <= 0).any():
        twice = float(seconds[order][1:][np.diff(seconds[order]) <= 0][0])
        raise InputError("timestamps_s", "one pose for each time", f"two at {twice:g} s")
    rest = model.joints_at_rest(result.betas)
    return Motion(
        joint_names=_names(model.joint_names, J),
        parents=np.asarray(model.parents, np.int32),
        rest_joints=rest,
        rotations=matrix_from_axis_angle(poses[order]),
        root_world=rest[0] + transl[order],
        timestamps_s=seconds[order],
        frame_indices=indices[order],
        rate=frame_rate(seconds[order]),
    )


def on_an_even_clock(motion: Motion) -> Motion:
    """The motion at one rate, for formats that know nothing else; as it is where its frames came evenly.

    Where frames are missing, rotations are interpolated along the shortest way and places straight; such rows have
    frame index -1. What is missing for more than LONGEST_BRIDGE_S is left out: the rows go on with what follows.
    """
    seconds, step = motion.timestamps_s, 1 / motion.rate
    if (np.abs(np.diff(seconds) - step) <= JITTER * step).all():
        return motion
    jumps = np.flatnonzero(np.diff(seconds) > LONGEST_BRIDGE_S) + 1
    pieces = np.split(np.arange(len(seconds)), jumps)
    times = np.concatenate([
        seconds[p[0]] + step * np.arange(int(np.floor((seconds[p[-1]] - seconds[p[0]]) / step + 0.5)) + 1)
        for p in pieces
    ])  # fmt: skip
    after = np.clip(np.searchsorted(seconds, times), 1, len(seconds) - 1)
    before = after - 1
    share = np.clip((times - seconds[before]) / (seconds[after] - seconds[before]), 0, 1)
    nearest = np.where(share < 0.5, before, after)
    observed = np.abs(times - seconds[nearest]) <= JITTER * step
    share = np.where(observed, (nearest == after).astype(np.float64), share)
    a, b = motion.rotations[before], motion.rotations[after]
    turn = axis_angle_from_matrix(np.swapaxes(a, -1, -2) @ b)
    blended = a @ matrix_from_axis_angle(turn * share[:, None, None])
    rotations = np.where(observed[:, None, None, None], motion.rotations[nearest], blended)
    root = motion.root_world[before] * (1 - share[:, None]) + motion.root_world[after] * share[:, None]
    return replace(
        motion,
        rotations=rotations,
        root_world=np.where(observed[:, None], motion.root_world[nearest], root),
        timestamps_s=np.where(observed, seconds[nearest], times),
        frame_indices=np.where(observed, motion.frame_indices[nearest], -1),
    )


def quaternions(motion: Motion) -> NDArray[np.float64]:
    """(T, J, 4) x y z w of the rotations, without a change of sign from row to row."""
    axis_angle = axis_angle_from_matrix(motion.rotations)
    half = np.linalg.norm(axis_angle, axis=-1, keepdims=True) / 2
    q = np.concatenate([axis_angle * (0.5 * np.sinc(half / np.pi)), np.cos(half)], -1)
    flips = np.where((q[1:] * q[:-1]).sum(-1) < 0, -1.0, 1.0)
    q[1:] *= np.cumprod(flips, axis=0)[..., None]
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def _names(names: tuple[str, ...], J: int) -> tuple[str, ...]:
    """A name for each joint without white space, which BVH cannot hold, each once."""
    if len(names) != J:
        return tuple(f"joint_{j:02d}" for j in range(J))
    clean = tuple("_".join(name.split()) or f"joint_{j:02d}" for j, name in enumerate(names))
    return clean if len(set(clean)) == J else tuple(f"{name}_{j:02d}" for j, name in enumerate(clean))
