"""Reads a BVH file and poses its skeleton, with angles multiplied in the order in which the channels are written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Bone:
    name: str
    parent: int
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


@dataclass
class Bvh:
    bones: list[Bone]
    rows: NDArray[np.float64]
    frame_time: float

    def joints(self, t: int) -> dict[str, NDArray[np.float64]]:
        """Where each joint is in row t; an end of a bone is named after its joint, with a star."""
        places: list[NDArray[np.float64]] = []
        turns: list[NDArray[np.float64]] = []
        at = 0
        for bone in self.bones:
            R, shift = np.eye(3), bone.offset.copy()
            for channel in bone.channels:
                value, axis = self.rows[t, at], "XYZ".index(channel[0])
                at += 1
                if channel.endswith("position"):
                    shift[axis] += value
                else:
                    R = R @ _about(axis, np.deg2rad(value))
            if bone.parent < 0:
                places.append(shift)
                turns.append(R)
            else:
                places.append(places[bone.parent] + turns[bone.parent] @ shift)
                turns.append(turns[bone.parent] @ R)
        assert at == self.rows.shape[1]
        return {bone.name: place for bone, place in zip(self.bones, places, strict=True)}


def _about(axis: int, angle: float) -> NDArray[np.float64]:
    i, j = (axis + 1) % 3, (axis + 2) % 3
    R = np.eye(3)
    R[i, i] = R[j, j] = np.cos(angle)
    R[i, j], R[j, i] = -np.sin(angle), np.sin(angle)
    return R


def read_bvh(text: str) -> Bvh:
    head, _, motion = text.partition("MOTION\n")
    bones: list[Bone] = []
    stack: list[int] = []
    for line in head.splitlines()[1:]:
        word, *rest = line.split()
        if word in ("ROOT", "JOINT"):
            bones.append(Bone(rest[0], stack[-1] if stack else -1))
        elif word == "End":
            bones.append(Bone(f"{bones[stack[-1]].name}*", stack[-1]))
        elif word == "{":
            stack.append(len(bones) - 1)
        elif word == "}":
            stack.pop()
        elif word == "OFFSET":
            bones[-1].offset = np.array(rest, float)
        elif word == "CHANNELS":
            bones[-1].channels = rest[1:]
            assert int(rest[0]) == len(rest) - 1
    frames, time, *rows = motion.splitlines()
    table = np.array([row.split() for row in rows], float)
    assert frames == f"Frames: {len(rows)}"
    return Bvh(bones, table, float(time.removeprefix("Frame Time: ")))
