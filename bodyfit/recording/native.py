"""bodyfit's own recording on disk, `bodyfit.recording/1`, opened and read.

Everything that recording.json and frames.csv say is checked when a recording is opened; images are decoded, checked and
undistorted one frame at a time. The folder `truth/` is never read here.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import RecordingError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor, read_description
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage, FrameDecoder
from bodyfit.recording.images import read_image_file
from bodyfit.recording.keypoints import read_keypoints
from bodyfit.recording.timeline import Timeline, read_timeline
from bodyfit.recording.undistort import check_invertible

__all__ = ["Recording", "Sensor", "open_recording"]

# the first that is there is read
COLOR_SUFFIXES = (".jpg", ".png")


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open the recording in folder `path` and check all but its images.

    Raises:
        RecordingError: no such folder; recording.json or frames.csv missing, broken or of another version; a sensor
            without any depth image of the named frames; colour images without a color_camera.
        CameraError: intrinsics, distortion or transforms that make no sense.
    """
    root = Path(path)
    try:
        root = root.resolve()
        found = "a file" if root.exists() else "nothing of that name"
        is_folder = root.is_dir()
    except (OSError, RuntimeError, ValueError) as problem:
        raise RecordingError(str(path), "a recording's folder", str(problem)) from None
    if not is_folder:
        raise RecordingError(str(path), "a recording's folder", found)
    sensors, gravity_world = read_description(root)
    timeline = read_timeline(root, [sensor.name for sensor in sensors])
    for i, sensor in enumerate(sensors):
        _check_images(root, sensor, timeline)
        check_invertible(f"recording.json: sensors[{i}].depth_camera", sensor.depth_camera)
        if sensor.color_camera:
            check_invertible(f"recording.json: sensors[{i}].color_camera", sensor.color_camera)
    return Recording(root, sensors, timeline, gravity_world)


class Recording:
    """A recording that was opened and checked; get one from `open_recording`.

    Attributes:
        path: its folder.
        sensors: as recorded, distortion included; frames come with pinhole cameras.
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.
    """

    def __init__(
        self, path: Path, sensors: tuple[Sensor, ...], timeline: Timeline, gravity_world: NDArray[np.float64] | None
    ) -> None:
        self.path, self.sensors, self.gravity_world = path, sensors, gravity_world
        self._timeline = timeline
        self._decoder = FrameDecoder(sensors)

    @property
    def num_frames(self) -> int:
        """How many instants there are."""
        return len(self._timeline.indices)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(T,) the numbers in the file names."""
        return self._timeline.indices

    @property
    def timestamps_s(self) -> NDArray[np.float64]:
        """(T,) seconds, rising."""
        return self._timeline.timestamps_s

    @property
    def stream_timestamps_s(self) -> dict[str, NDArray[np.float64]]:
        """`<sensor>.depth_s` and `<sensor>.color_s` to (T,) seconds on the stream's own clock, NaN where none."""
        return self._timeline.stream_timestamps_s

    @property
    def has_truth(self) -> bool:
        """True in a test recording that carries the true body beside it."""
        return (self.path / "truth").is_dir()

    def sensor(self, name: str) -> Sensor:
        """The sensor of that name.

        Raises:
            RecordingError: no such sensor; the message lists those there are.
        """
        for sensor in self.sensors:
            if sensor.name == name:
                return sensor
        raise RecordingError("sensor", f"one of {', '.join(s.name for s in self.sensors)}", repr(name))

    def frame(self, i: int, sensor_name: str) -> Frame | None:
        """What a sensor saw at the `i`-th instant (a position in `indices`); None where it has no depth file there.

        Depth without a single reading is a frame all the same: whoever looks for a person in it says so.

        Raises:
            IndexError: `i` is not in 0 … num_frames - 1.
            RecordingError: no such sensor, or broken keypoints.
            ImageError: an image of another kind or size, or one that is cut or broken.
        """
        encoded = self.encoded(i, sensor_name)
        if encoded is None:
            return None
        index, time_s = int(self.indices[i]), float(self.timestamps_s[i])
        return self._decoder.frame(sensor_name, encoded, index=index, timestamp_s=time_s)

    def encoded(self, i: int, sensor_name: str) -> EncodedFrame | None:
        """The same before anything is decoded: images as their files have them, keypoints in pixels as recorded.

        Raises:
            IndexError: `i` is not in 0 … num_frames - 1.
            RecordingError: no such sensor, or broken keypoints.
        """
        sensor = self.sensor(sensor_name)
        if not 0 <= i < self.num_frames:
            raise IndexError(f"frame {i} of {self.num_frames}")
        index = int(self.indices[i])
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
            keypoints = read_keypoints(self.path, keypoints_file, sensor.color_camera or sensor.depth_camera)
        mask = self._image(mask_file, sensor.depth_camera) if self._has(mask_file) else None
        return EncodedFrame(self._image(depth_file, sensor.depth_camera), color, mask, keypoints)

    def _image(self, relative: str, camera: Camera) -> EncodedImage:
        return EncodedImage(relative, Coding.FILE, partial(read_image_file, self.path, relative, camera))

    def _has(self, relative: str) -> bool:
        # a link that leads nowhere is a broken file, not an absent frame
        return os.path.lexists(self.path / relative)


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
