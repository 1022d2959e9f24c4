"""Reading BVH motion capture: a skeleton's joints, their offsets and channels, and its frames as world rotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AXES = "XYZ"


@dataclass(frozen=True)
class Clip:
    """One BVH file: names (J), parents (J), offsets (J, 3) in the file's unit, and per frame the joints' rotations
    (F, J, 3, 3) and places (F, J, 3) in the file's world; end sites are joints too, called `NAME_end`."""

    name: str
    names: tuple[str, ...]
    parents: NDArray[np.int64]
    offsets: NDArray[np.float64]
    rotations: NDArray[np.float64]
    places: NDArray[np.float64]
    fps: float

    def joint(self, name: str) -> int:
        """The number of a joint.

        Raises:
            ValueError: the clip has none of that name.
        """
        if name not in self.names:
            raise ValueError(f"{self.name}: expected a joint {name}, found {', '.join(self.names[:8])} …")
        return self.names.index(name)


def read_bvh(path: Path, *, fps: float = 30.0) -> Clip:
    """Reads a BVH file, every n-th frame, so that the rate comes nearest to fps.

    Raises:
        ValueError: the file is no BVH, or its frames do not have as many numbers as its joints have channels.
    """
    words = path.read_text(encoding="utf-8").split()
    if not words or words[0] != "HIERARCHY" or "MOTION" not in words:
        raise ValueError(f"{path.name}: expected HIERARCHY and MOTION, found {' '.join(words[:2])!r}")
    names, parents, offsets, channels = [], [], [], []
    open_joints: list[int] = []
    i, end = 1, words.index("MOTION")
    while i < end:
        word = words[i]
        if word in ("ROOT", "JOINT", "End"):
            parents.append(open_joints[-1] if open_joints else -1)
            names.append(f"{names[open_joints[-1]]}_end" if word == "End" else words[i + 1])
            offsets.append(np.zeros(3))
            channels.append([])
            i += 2
        elif word == "{":
            open_joints.append(len(names) - 1)
            i += 1
        elif word == "}":
            open_joints.pop()
            i += 1
        elif word == "OFFSET":
            offsets[open_joints[-1]] = np.array([float(w) for w in words[i + 1 : i + 4]])
            i += 4
        elif word == "CHANNELS":
            count = int(words[i + 1])
            channels[open_joints[-1]] = words[i + 2 : i + 2 + count]
            i += 2 + count
        else:
            raise ValueError(f"{path.name}: expected a joint, found {word!r}")
    # MOTION Frames: n Frame Time: seconds, then the numbers
    count, seconds = int(words[end + 2]), float(words[end + 5])
    width = sum(len(c) for c in channels)
    values = np.array(words[end + 6 :], dtype=np.float64)
    if values.size != count * width:
        raise ValueError(f"{path.name}: expected {count} frames of {width} numbers, found {values.size} numbers")
    stride = max(1, round(1.0 / (seconds * fps)))
    motion = values.reshape(count, width)[::stride]
    place = np.array(offsets)
    order = np.array(parents)
    rotations, places = _forward(order, place, channels, motion)
    return Clip(path.stem, tuple(names), order, place, rotations, places, 1.0 / (seconds * stride))


def _turn(axis: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    b, c = (axis + 1) % 3, (axis + 2) % 3
    R = np.zeros((*angle.shape, 3, 3))
    R[..., axis, axis] = 1
    R[..., b, b] = R[..., c, c] = np.cos(angle)
    R[..., b, c], R[..., c, b] = -np.sin(angle), np.sin(angle)
    return R


def _forward(
    parents: NDArray[np.int64], offsets: NDArray[np.float64], channels: list[list[str]], motion: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World rotations and places: a joint's channels turn it in the order in which they stand, each about its own
    axis; a place in the channels stands for the offset of the root, and beside it everywhere else."""
    frames, count = len(motion), len(parents)
    R, p = np.zeros((frames, count, 3, 3)), np.zeros((frames, count, 3))
    column = 0
    for j, parent in enumerate(parents):
        turn = np.broadcast_to(np.eye(3), (frames, 3, 3))
        place = np.tile(offsets[j], (frames, 1))
        moved = [k for k, c in enumerate(channels[j]) if c.endswith("position")]
        for k in moved:
            place[:, AXES.index(channels[j][k][0])] = motion[:, column + k]
        for k, channel in enumerate(channels[j]):
            if k not in moved:
                turn = turn @ _turn(AXES.index(channel[0]), np.radians(motion[:, column + k]))
        column += len(channels[j])
        if parent < 0:
            R[:, j], p[:, j] = turn, place
        else:
            R[:, j] = R[:, parent] @ turn
            p[:, j] = p[:, parent] + np.einsum("fab,fb->fa", R[:, parent], place)
    return R, p
