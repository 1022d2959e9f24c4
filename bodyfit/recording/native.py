"""bodyfit's own recording on disk, `bodyfit.recording/1`, opened and read.

Everything that recording.json, frames.csv and poses.csv say is checked when a recording is opened; images are read, and
checked when they are decoded, one frame at a time. The folder `truth/` is never read here.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import RecordingError
from bodyfit.recording.description import FILE, Sensor, read_description
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.files import read_file
from bodyfit.recording.images import read_image_file
from bodyfit.recording.keypoints import read_keypoints
from bodyfit.recording.poses import read_poses
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import Timeline, read_timeline

CAPTURE_FILE = "capture.json"
"""what `bodyfit capture` says of a recording that it made, or is about to make"""
MAX_CAPTURE_BYTES = 4 << 20

# the first that is there is read
COLOR_SUFFIXES = (".jpg", ".png")


def open_native(root: Path) -> Recording:
    """Open the native recording in folder `root` and check all but its images.

    Raises:
        RecordingError: recording.json, frames.csv or poses.csv missing, broken or of another version; a sensor without
            any depth image of the named frames; colour images without a color_camera.
        CameraError: intrinsics, distortion or transforms that make no sense.
    """
    sensors, gravity_world = read_description(root)
    unfinished = is_unfinished(root)
    timeline = read_timeline(root, [sensor.name for sensor in sensors], unfinished=unfinished)
    for sensor in sensors:
        _check_images(root, sensor, timeline)
    poses = {sensor.name: read_poses(root, sensor.name) for sensor in sensors}
    images = NativeImages(root, timeline, poses)
    notes = ("its capture was not finished: it goes on, or was cut off; the frames until then are here",)
    notes = notes if unfinished else ()
    return Recording(root, "bodyfit", sensors, timeline, gravity_world, images, notes, described_in=FILE)


def is_unfinished(root: Path) -> bool:
    """Whether capture.json says that the recording was not closed: it goes on, or was cut off."""
    if not os.path.lexists(root / CAPTURE_FILE):
        return False
    try:
        document = json.loads(read_file(root, CAPTURE_FILE, MAX_CAPTURE_BYTES))
    except (RecordingError, ValueError, RecursionError):
        return False  # it is no part of the format: a recording without it is one all the same
    return isinstance(document, dict) and document.get("finished") is False


class NativeImages:
    """The images of a native recording, as their files have them.

    Args:
        root: the recording's folder, resolved.
        timeline: its instants.
        poses: by sensor, `T_world_depth` by the instant's number, where the sensor moved.
    """

    def __init__(self, root: Path, timeline: Timeline, poses: dict[str, dict[int, NDArray[np.float64]]]) -> None:
        self._root, self._timeline, self._poses = root, timeline, poses

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        """What a sensor saw at the `i`-th instant; None where it has no depth file there."""
        index = int(self._timeline.indices[i])
        depth_file, mask_file, keypoints_file = (
            f"{sensor.name}/{kind}/{index:06d}.{suffix}"
            for kind, suffix in (("depth", "png"), ("mask", "png"), ("keypoints", "json"))
        )
        if not self._has(depth_file):
            return None
        color = None
        for suffix in COLOR_SUFFIXES:
            color_file = f"{sensor.name}/color/{index:06d}{suffix}"
            if sensor.color_camera is not None and self._has(color_file):
                color = self._image(color_file, sensor.color_camera)
                break
        keypoints = None
        if self._has(keypoints_file):
            keypoints = read_keypoints(self._root, keypoints_file, sensor.color_camera or sensor.depth_camera)
        mask = self._image(mask_file, sensor.depth_camera) if self._has(mask_file) else None
        T_world_depth = self._poses[sensor.name].get(index)
        return EncodedFrame(self._image(depth_file, sensor.depth_camera), color, mask, keypoints, T_world_depth)

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, relative: str, camera: Camera) -> EncodedImage:
        return EncodedImage(relative, Coding.FILE, partial(read_image_file, self._root, relative, camera))

    def _has(self, relative: str) -> bool:
        # a link that leads nowhere is a broken file, not an absent frame
        return os.path.lexists(self._root / relative)


def _check_images(root: Path, sensor: Sensor, timeline: Timeline) -> None:
    """Refuse a sensor without depth at any of the named instants, and colour that no camera describes."""
    depth = _file_names(root, f"{sensor.name}/depth")
    if depth is None or not any(f"{index:06d}.png" in depth for index in timeline.indices):
        found = "no such folder" if depth is None else f"{len(depth)} files, none of these"
        first, last = timeline.indices[0], timeline.indices[-1]
        expected = f"depth images {first:06d}.png … {last:06d}.png, at least one of those that frames.csv names"
        raise RecordingError(f"{sensor.name}/depth", expected, found)
    if sensor.color_camera is None:
        names = _file_names(root, f"{sensor.name}/color") or ()
        color = sorted(name for name in names if name.endswith(COLOR_SUFFIXES))
        if color:
            expected = "no colour images, since its color_camera is null in recording.json"
            raise RecordingError(f"{sensor.name}/color", expected, f"{len(color)} ({color[0][:40]} …)")


def _file_names(root: Path, relative: str) -> frozenset[str] | None:
    """What lies in a folder of the recording; None where there is no such folder."""
    try:
        if not (root / relative).resolve().is_relative_to(root):
            raise RecordingError(relative, "a folder inside the recording", "a link to somewhere outside of it")
        return frozenset(os.listdir(root / relative))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise RecordingError(relative, "a folder", "a file") from None
    except (OSError, RuntimeError) as problem:
        raise RecordingError(relative, "a readable folder", str(problem)) from None
