"""A motion as BVH (Biovision Hierarchy): this person's skeleton, and its joints' angles at one rate.

Metres, y up (Blender's importer turns that to its own z up; a package that thinks in centimetres scales by 100). The
skeleton's rest pose is the T-pose with the person's front towards +z. Channels are position of the root, and rotations
written Z X Y in degrees: a joint turns by R = Rz Rx Ry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.export.motion import Y_UP, Motion, motion_of, on_an_even_clock

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult

FILE_NAME = "motion.bvh"
_ROTATIONS = "Zrotation Xrotation Yrotation"


def bvh_text(result: FitResult) -> str:
    """The file of a result's motion.

    Raises:
        InputError: see `bodyfit.export.motion.motion_of`.
    """
    motion = on_an_even_clock(motion_of(result))
    children: list[list[int]] = [[] for _ in motion.parents]
    for j, p in enumerate(motion.parents):
        if p >= 0:
            children[p].append(j)
    order: list[int] = []
    lines = ["HIERARCHY"]
    _joint(motion, children, _tips(result, motion), 0, 0, lines, order)

    rotations = motion.rotations.copy()
    rotations[:, 0] = Y_UP @ rotations[:, 0]
    angles = np.rad2deg(zxy_angles(rotations))[:, order].reshape(len(motion), -1)
    table = np.concatenate([motion.root_world @ Y_UP.T, angles], 1)
    lines += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / motion.rate:.8f}"]
    lines += [" ".join([f"{x:.6f}" for x in row]) for row in table.tolist()]
    return "\n".join(lines) + "\n"


def zxy_angles(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, ..., 3) radians z, x, y with R = Rz Rx Ry; of the angles that mean the same, those nearest to the row before.

    Where x is a right angle and y and z turn about one axis, y stays what it was.
    """
    R = np.asarray(rotations, np.float64)
    cos_x = np.hypot(R[..., 2, 0], R[..., 2, 2])
    x = np.arctan2(R[..., 2, 1], cos_x)
    y = np.arctan2(-R[..., 2, 0], R[..., 2, 2])
    locked = cos_x < 1e-7
    out = np.empty((*R.shape[:-2], 3))
    last = np.zeros(out.shape[1:])
    for t in range(len(R)):
        yt = np.where(locked[t], last[..., 2], y[t])
        # what is left of the rotation without y is Rz Rx, whose first column is (cos z, sin z, 0)
        c, s = np.cos(yt), np.sin(yt)
        z = np.arctan2(R[t, ..., 1, 0] * c + R[t, ..., 1, 2] * s, R[t, ..., 0, 0] * c + R[t, ..., 0, 2] * s)
        one = np.stack([z, x[t], yt], -1)
        other = np.stack([z + np.pi, np.pi - x[t], yt + np.pi], -1)
        one, other = (a - 2 * np.pi * np.round((a - last) / (2 * np.pi)) for a in (one, other))
        nearer = np.abs(one - last).sum(-1) <= np.abs(other - last).sum(-1)
        last = out[t] = np.where(nearer[..., None] | (t == 0), one, other)
    return out


def _tips(result: FitResult, motion: Motion) -> NDArray[np.float64]:
    """(J, 3) metres from each joint to the far end of the skin that hangs on it: where a bone without a child ends."""
    rest, owner = result.rest_vertices(), result.model.lbs_weights.argmax(1)
    tips = np.zeros_like(motion.rest_joints)
    for j in range(len(tips)):
        around = rest[owner == j] - motion.rest_joints[j]
        middle = around.mean(0) if len(around) else np.array([0.0, 0.05, 0.0])
        length = float(np.linalg.norm(middle))
        direction = middle / length if length > 0 else np.array([0.0, 1.0, 0.0])
        tips[j] = direction * max(float((around @ direction).max()) if len(around) else length, 0.01)
    return tips


def _joint(
    motion: Motion, children: list[list[int]], tips: NDArray[np.float64], j: int, depth: int, lines: list[str],
    order: list[int],
) -> None:  # fmt: skip
    """Adds a joint and those below it, depth first, as the channels come."""
    order.append(j)
    pad = "\t" * depth
    is_root = depth == 0
    # the root's position is written in every frame: its own offset would be added to it by some readers
    offset = np.zeros(3) if is_root else motion.offsets[j]
    channels = f"6 Xposition Yposition Zposition {_ROTATIONS}" if is_root else f"3 {_ROTATIONS}"
    lines += [f"{pad}{'ROOT' if is_root else 'JOINT'} {motion.joint_names[j]}", f"{pad}{{"]
    lines += [f"{pad}\tOFFSET {_numbers(offset)}", f"{pad}\tCHANNELS {channels}"]
    for child in children[j]:
        _joint(motion, children, tips, child, depth + 1, lines, order)
    if not children[j]:
        lines += [f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET {_numbers(tips[j])}", f"{pad}\t}}"]
    lines.append(f"{pad}}}")


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(f"{x:.6f}" for x in values.tolist())
