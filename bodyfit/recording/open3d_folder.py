"""Open3D's RGB-D folders: `color/`, `depth/` and `intrinsic.json`, as its recorders write them.

Conventions, from Open3D's sources (cpp/open3d/t/io/sensor/realsense, cpp/open3d/io/sensor/azure_kinect, the
examples of the reconstruction system; RGBDVideoMetadata, PinholeCameraIntrinsic):

- `depth/000000.png`: 16-bit, `depth_scale` counts a metre (1000 where nothing says), registered to the colour camera:
  both images have one grid and one camera. `color/000000.jpg` or `.png`.
- `intrinsic.json` (or `camera_intrinsic.json`): `intrinsic_matrix`, 9 numbers column by column, `width`, `height`; a
  recorder's video metadata has them under `camera` or beside `depth_scale`, `fps` and `stream_length_usec`. A pixel's
  centre is at whole numbers. Distortion is none: recorders undistort, or the device does.
- Files are paired by their order when their names differ, as Open3D's reconstruction system pairs them, and by name
  where both have the same numbers.
- There are no time stamps: the metadata's `fps`, or 30 frames a second, is assumed.
- `trajectory.log` (camera to world, x right, y down, z forward), where it has a pose for every frame.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, check_rigid
from bodyfit.errors import CameraError, RecordingError
from bodyfit.recording.description import Sensor
from bodyfit.recording.document import Field, parse_json
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.files import read_file
from bodyfit.recording.handheld import number, plain_camera
from bodyfit.recording.images import read_image_file
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import MAX_INDEX, Timeline

SENSOR_NAME = "rgbd"
INTRINSICS = ("intrinsic.json", "camera_intrinsic.json")
ASSUMED_SCALE, ASSUMED_RATE_HZ = 1000.0, 30.0
TRAJECTORY = "trajectory.log"
_NUMBER = re.compile(r"([0-9]+)\.[A-Za-z]+\Z")


def is_open3d(path: Path, head: bytes) -> bool:
    """A folder with colour, depth and one of the two names of the intrinsics."""
    if head or not path.is_dir():
        return False
    return (path / "depth").is_dir() and any((path / name).is_file() for name in INTRINSICS)


def open_open3d(root: Path) -> Recording:
    """Opens an Open3D RGB-D folder.

    Raises:
        RecordingError: no images, intrinsics that are missing or broken, a trajectory of another length.
    """
    notes: list[str] = []
    depth = _images(root, "depth", (".png",))
    if not depth:
        raise RecordingError("depth", "16-bit PNG images", "none")
    color = _images(root, "color", (".jpg", ".jpeg", ".png"))
    camera, scale, rate = _camera(root, notes)
    pairs = _paired(depth, color, notes)
    poses = _poses(root, len(pairs))
    first = poses[0] if poses else np.eye(4)
    sensor = Sensor(SENSOR_NAME, camera, first, camera if color else None, np.eye(4) if color else None, 1.0 / scale)
    timeline = Timeline(np.arange(len(pairs)), np.arange(len(pairs)) / rate, {})
    return Recording(root, "open3d", [sensor], timeline, None, _Images(root, pairs, poses), notes)


def _images(root: Path, folder: str, suffixes: tuple[str, ...]) -> list[str]:
    try:
        names = [
            f.name for f in (root / folder).iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".")
        ]
    except OSError:
        return []
    if len(names) > MAX_INDEX:
        raise RecordingError(folder, f"at most {MAX_INDEX} images", str(len(names)))
    return sorted(names, key=lambda name: (_index(name) is None, _index(name) or 0, name))


def _index(name: str) -> int | None:
    match = _NUMBER.search(name)
    return int(match[1][-9:]) if match else None


def _paired(depth: list[str], color: list[str], notes: list[str]) -> list[tuple[str, str | None]]:
    if not color:
        return [(name, None) for name in depth]
    by_number = {_index(name): name for name in color}
    if all(_index(name) in by_number for name in depth):
        return [(name, by_number[_index(name)]) for name in depth]
    if len(depth) == len(color):
        notes.append("Colour and depth have other numbers: they are paired in their order.")
        return list(zip(depth, color, strict=True))
    missing = sum(_index(name) not in by_number for name in depth)
    notes.append(f"{missing} depth images have no colour image of their number.")
    return [(name, by_number.get(_index(name))) for name in depth]


def _camera(root: Path, notes: list[str]) -> tuple[Camera, float, float]:
    """The one camera, counts a metre, and frames a second."""
    name = next(name for name in INTRINSICS if (root / name).is_file())
    document = Field(name, "", parse_json(name, read_file(root, name, 1 << 20)))
    lens = document
    for key in ("camera", "intrinsics"):
        if lens.key(key, None).value is not None:
            lens = lens.key(key)
    K = lens.key("intrinsic_matrix").numbers(at_most=9)
    if len(K) != 9:
        lens.key("intrinsic_matrix").refuse("9 numbers, column by column")
    if K[1] != 0 or K[3] != 0 or K[2] != 0 or K[5] != 0:
        lens.key("intrinsic_matrix").refuse("fx 0 0 0 fy 0 cx cy 1: no skew")
    camera = plain_camera(
        lens.name, lens.key("width").integer(), lens.key("height").integer(), (K[0], K[4], K[6], K[7])
    )
    scale, rate = document.key("depth_scale", None), document.key("fps", None)
    if scale.value is None:
        notes.append(f"The folder does not say what a count of depth is: {ASSUMED_SCALE:g} a metre are assumed.")
    elif not 1 <= scale.number() <= 1e6:
        scale.refuse("counts a metre from 1 to 1e6")
    if rate.value is None:
        notes.append(f"The images have no times: {ASSUMED_RATE_HZ:g} a second are assumed.")
    elif not 0.1 <= rate.number() <= 1000:
        rate.refuse("frames a second from 0.1 to 1000")
    return (
        camera,
        ASSUMED_SCALE if scale.value is None else scale.number(),
        ASSUMED_RATE_HZ if rate.value is None else rate.number(),
    )


def _poses(root: Path, count: int) -> list[NDArray[np.float64]]:
    if not (root / TRAJECTORY).is_file():
        return []
    try:
        lines = read_file(root, TRAJECTORY, 256 << 20).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise RecordingError(TRAJECTORY, "numbers", "bytes that are no text") from None
    lines = [line for line in lines if line.strip()]
    if len(lines) != 5 * count:
        raise RecordingError(TRAJECTORY, f"5 lines for each of the {count} frames", f"{len(lines)} lines")
    poses = []
    for n in range(count):
        rows = [line.split() for line in lines[5 * n + 1 : 5 * n + 5]]
        where = f"{TRAJECTORY}: line {5 * n + 2}"
        if any(len(row) != 4 for row in rows):
            raise RecordingError(where, "4 rows of 4 numbers", "other lines")
        T = np.array([[number(where, word) for word in row] for row in rows])
        try:
            poses.append(check_rigid(where, T))
        except CameraError as problem:
            raise RecordingError(where, problem.expected, problem.found) from None
    return poses


class _Images:
    def __init__(self, root: Path, pairs: list[tuple[str, str | None]], poses: list[NDArray[np.float64]]) -> None:
        self._root, self._pairs, self._poses = root, pairs, poses

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        depth, color = self._pairs[i]
        image = None
        if color is not None and sensor.color_camera is not None:
            image = self._image(f"color/{color}", sensor.color_camera)
        T = self._poses[i] if self._poses else None
        return EncodedFrame(self._image(f"depth/{depth}", sensor.depth_camera), image, T_world_depth=T)

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, relative: str, camera: Camera) -> EncodedImage:
        return EncodedImage(relative, Coding.FILE, partial(read_image_file, self._root, relative, camera))
