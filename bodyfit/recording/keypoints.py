"""Keypoint files of a recording: named 2-D points of one person, in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import RecordingError
from bodyfit.frame import Keypoints
from bodyfit.recording.document import Field, parse_json
from bodyfit.recording.files import read_file

MAX_FILE_BYTES = 1 << 20
COCO_17 = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
SMPL_24 = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
NAMES = frozenset(COCO_17) | frozenset(SMPL_24)


def read_keypoints(root: Path, relative: str, camera: Camera) -> Keypoints:
    """The keypoints of one file, in pixels as recorded (with the lens's distortion).

    Args:
        root, relative: the recording's folder and the file's place in it.
        camera: the camera of the image that the pixels belong to.

    Raises:
        RecordingError: no JSON of the form {"names", "xy", "confidence"}, a name that is neither COCO's nor SMPL's or
            comes twice, lengths that differ, a pixel far outside of the image, a confidence outside of 0 to 1.
    """
    top = Field(relative, "", parse_json(relative, read_file(root, relative, MAX_FILE_BYTES)))
    names: list[str] = []
    for entry in top.key("names").items(at_most=len(NAMES)):
        name = entry.text()
        if name not in NAMES:
            entry.refuse("a COCO-17 or SMPL joint name")
        if name in names:
            entry.refuse("each name once")
        names.append(name)
    xy = top.key("xy").array(len(names), 2)
    confidence = top.key("confidence").numbers(at_most=len(names))
    return checked_keypoints(f"{relative}: ", names, xy, confidence, camera)


def checked_keypoints(
    where: str, names: Sequence[str], xy: NDArray[np.float64], confidence: Sequence[float], camera: Camera
) -> Keypoints:
    """Keypoints in pixels as recorded, each looked at.

    Args:
        where: what stands before the names of the fields in errors.
        names: N of COCO's or SMPL's, each once.
        xy: (N, 2) pixels of the camera's image, in it or near.
        confidence: N from 0 to 1.
        camera: the camera of the image that the pixels belong to.

    Raises:
        RecordingError: anything else, with the field's name.
    """
    for i, name in enumerate(names):
        if name not in NAMES:
            raise RecordingError(f"{where}names[{i}]", "a COCO-17 or SMPL joint name", repr(name)[:60])
        if name in names[:i]:
            raise RecordingError(f"{where}names[{i}]", "each name once", repr(name))
    for i, (x, y) in enumerate(xy):
        # a joint may be guessed beyond the border, but not by more than an image
        if not (-camera.width <= x <= 2 * camera.width and -camera.height <= y <= 2 * camera.height):
            expected = f"a pixel in or near the image of {camera.width} × {camera.height}"
            raise RecordingError(f"{where}xy[{i}]", expected, f"({x:g}, {y:g})")
    if len(confidence) != len(names):
        raise RecordingError(f"{where}confidence", f"{len(names)} numbers", f"{len(confidence)}")
    for i, value in enumerate(confidence):
        if not 0.0 <= value <= 1.0:
            raise RecordingError(f"{where}confidence[{i}]", "a number from 0 to 1", f"{value:g}")
    return Keypoints(tuple(names), xy, np.array(confidence, dtype=np.float64))
