"""TUM RGB-D folders: `rgb.txt`, `depth.txt`, their images, and `groundtruth.txt` where the sensor's way was measured.

Conventions, as stated on the pages "File Formats" and "Intrinsic Camera Calibration" of the RGB-D SLAM Dataset and
Benchmark (Computer Vision Group, TU Munich) and in Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM
Systems", IROS 2012:

- Depth: 16-bit PNG, 5000 counts a metre, 0 = no reading, registered to the colour camera: one grid, one camera.
- Lists: `timestamp filename`, seconds since 1970, `#` begins a comment. Depth and colour have times of their own; they
  are associated by time within 20 ms, as the benchmark's associate.py does by default.
- `groundtruth.txt`: `timestamp tx ty tz qx qy qz qw`, the colour camera's optical centre and axes (x right, y down,
  z forward) in the motion capture's world, whose z is up.
- Intrinsics are not in the folder. Beside it may lie `calibration.txt` (`fx fy cx cy`, then distortion k1 k2 p1 p2 k3)
  or `camera.json` (the same keys as a camera of recording.json); else the values published for freiburg1, 2 and 3 are
  taken where the folder's name says which, and else those of ROS's default (525, 525, 319.5, 239.5).
- Depth was registered with a pinhole model: published distortion applies to colour; it is used for colour alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion
from bodyfit.errors import RecordingError
from bodyfit.recording.description import Sensor
from bodyfit.recording.document import Field, parse_json
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.files import read_file
from bodyfit.recording.handheld import nearest_in_time, number, rigid_of, rising
from bodyfit.recording.images import read_header, read_image_file
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import MAX_INDEX, Timeline

SENSOR_NAME = "rgbd"
DEPTH_UNIT_M = 1 / 5000
TOGETHER_S = 0.02
POSE_GAP_S = 0.1
"""a pose is interpolated between two that lie no further apart"""
MAX_LIST_BYTES = 64 << 20
# "Intrinsic Camera Calibration" of the benchmark's file-format page, colour: fx fy cx cy, k1 k2 p1 p2 k3
PUBLISHED = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)


def open_tum(root: Path) -> Recording:
    """Opens a TUM RGB-D folder.

    Raises:
        RecordingError: a list that is missing or broken, no depth image, intrinsics that make no sense.
    """
    notes: list[str] = []
    depth_times, depth_files = _listed(root, "depth.txt", notes)
    color_times, color_files = _listed(root, "rgb.txt", notes) if (root / "rgb.txt").exists() else (np.zeros(0), [])
    if not depth_files:
        raise RecordingError("depth.txt", "at least one image", "none")
    paired = nearest_in_time(depth_times, color_times, TOGETHER_S)
    if color_files and (paired < 0).any():
        notes.append(f"{int((paired < 0).sum())} depth images have no colour within {TOGETHER_S * 1000:g} ms.")
    header = read_header(depth_files[0], read_file(root, depth_files[0], 64 << 20))
    depth_camera, color_camera = _cameras(root, header.width, header.height, notes)
    poses = _poses(root, depth_times, notes)
    gravity = None if poses is None else np.array([0.0, 0.0, -1.0])
    first = next((T for T in poses if T is not None), np.eye(4)) if poses is not None else np.eye(4)
    sensor = Sensor(
        SENSOR_NAME, depth_camera, first, color_camera if color_files else None, np.eye(4) if color_files else None,
        DEPTH_UNIT_M,
    )  # fmt: skip
    streams = {f"{SENSOR_NAME}.depth_s": depth_times}
    if color_files:
        streams[f"{SENSOR_NAME}.color_s"] = np.where(paired >= 0, color_times[paired], np.nan)
    timeline = Timeline(np.arange(len(depth_times)), depth_times - depth_times[0], streams)
    files = [(depth_files[i], color_files[k] if k >= 0 else None) for i, k in enumerate(paired.tolist())]
    return Recording(root, "tum", [sensor], timeline, gravity, _Images(root, files, poses), notes)


class _Images:
    def __init__(
        self, root: Path, files: list[tuple[str, str | None]], poses: list[NDArray[np.float64] | None] | None
    ) -> None:
        self._root, self._files, self._poses = root, files, poses

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        depth, color = self._files[i]
        T = None
        if self._poses is not None:
            T = self._poses[i]
            if T is None:
                # a frame whose place is not known cannot be put into the others' world
                return None
        images = self._image(depth, sensor.depth_camera), None
        if color is not None and sensor.color_camera is not None:
            images = images[0], self._image(color, sensor.color_camera)
        return EncodedFrame(*images, T_world_depth=T)

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, relative: str, camera: Camera) -> EncodedImage:
        return EncodedImage(relative, Coding.FILE, partial(read_image_file, self._root, relative, camera))


def _rows(root: Path, name: str) -> list[tuple[int, list[str]]]:
    """Line number and words of each line that is no comment."""
    try:
        text = read_file(root, name, MAX_LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise RecordingError(name, "text in UTF-8", f"byte {problem.start} that is not UTF-8") from None
    lines = ((n, line.strip()) for n, line in enumerate(text.splitlines(), start=1))
    return [(n, line.split()) for n, line in lines if line and not line.startswith("#")]


def _listed(root: Path, name: str, notes: list[str]) -> tuple[NDArray[np.float64], list[str]]:
    times, files = [], []
    for n, words in _rows(root, name):
        if len(words) != 2:
            raise RecordingError(f"{name}: line {n}", "a time and a file", f"{len(words)} words")
        if ".." in Path(words[1]).parts or Path(words[1]).is_absolute():
            raise RecordingError(f"{name}: line {n}", "a file of this folder", repr(words[1])[:80])
        times.append(number(f"{name}: line {n}", words[0]))
        files.append(words[1])
    every = np.array(times, np.float64)
    kept = rising(every)
    if len(kept) < len(every):
        notes.append(f"{len(every) - len(kept)} lines of {name} repeat a time or go back in it: left out.")
    if len(kept) > MAX_INDEX:
        raise RecordingError(name, f"at most {MAX_INDEX} images", str(len(kept)))
    return every[kept], [files[i] for i in kept]


def _cameras(root: Path, width: int, height: int, notes: list[str]) -> tuple[Camera, Camera]:
    if (root / "camera.json").exists():
        K, bent = _from_json(root)
    elif (root / "calibration.txt").exists():
        rows = _rows(root, "calibration.txt")
        values = [number(f"calibration.txt: line {n}", word) for n, words in rows for word in words]
        if len(values) not in (4, 9):
            raise RecordingError("calibration.txt", "fx fy cx cy, and k1 k2 p1 p2 k3 or none", f"{len(values)} numbers")
        K, bent = values[:4], values[4:]
    else:
        known = next((key for key in PUBLISHED if key in root.name.lower()), None)
        K, bent = PUBLISHED[known] if known else (ROS_DEFAULT, ())
        source = f"those published for {known}" if known else "ROS's default, 525 pixels"
        notes.append(f"The folder has no intrinsics: {source} are taken.")
        if (width, height) != (640, 480):
            raise RecordingError("calibration.txt", f"intrinsics of {width} × {height} pixels", "no such file")
    fx, fy, cx, cy = K
    depth = Camera(width, height, fx, fy, cx, cy)
    if not any(bent):
        return depth, depth
    return depth, replace(depth, distortion=Distortion("brown_conrady", tuple(bent)))


def _from_json(root: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    document: Any = parse_json("camera.json", read_file(root, "camera.json", 1 << 20))
    entry = Field("camera.json", "", document)
    K = tuple(entry.key(key).number() for key in ("fx", "fy", "cx", "cy"))
    lens = entry.key("distortion", None)
    return K, () if lens.value is None else lens.key("coefficients").numbers(at_most=5)


def _poses(root: Path, times: NDArray[np.float64], notes: list[str]) -> list[NDArray[np.float64] | None] | None:
    """`T_world_camera` at each time, None where it is not known; None at all without groundtruth.txt."""
    name = "groundtruth.txt"
    if not (root / name).exists():
        return None
    stamps, values = [], []
    for n, words in _rows(root, name):
        where = f"{name}: line {n}"
        if len(words) != 8:
            raise RecordingError(where, "a time, a place and a quaternion: 8 numbers", f"{len(words)} words")
        row = [number(where, word) for word in words]
        rigid_of(where, row[4:], row[1:4])
        stamps.append(row[0])
        values.append(row[1:])
    every = np.array(stamps, np.float64)
    kept = rising(every)
    if not len(kept):
        return None
    known, rows = every[kept], np.array(values, np.float64)[kept]
    out = [_at(known, rows, time_s) for time_s in times.tolist()]
    unknown = sum(T is None for T in out)
    if unknown == len(out):
        notes.append(f"{name} tells no frame's place: the sensor is taken to stand still.")
        return None
    if unknown:
        notes.append(f"{unknown} depth images lie where {name} has no place within {POSE_GAP_S * 1000:g} ms: left out.")
    return out


def _at(known: NDArray[np.float64], rows: NDArray[np.float64], time_s: float) -> NDArray[np.float64] | None:
    """The pose at a time: straight between its neighbours, turned at an even rate; None in a gap."""
    after = int(np.searchsorted(known, time_s))
    if after < len(known) and known[after] == time_s:
        return rigid_of("groundtruth.txt", rows[after, 3:].tolist(), rows[after, :3].tolist())
    if after == 0 or after == len(known):
        nearest = min(after, len(known) - 1)
        if abs(known[nearest] - time_s) > TOGETHER_S:
            return None
        return rigid_of("groundtruth.txt", rows[nearest, 3:].tolist(), rows[nearest, :3].tolist())
    gap = known[after] - known[after - 1]
    if gap > POSE_GAP_S:
        return None
    share = (time_s - known[after - 1]) / gap
    a, b = rows[after - 1], rows[after]
    q0, q1 = a[3:] / np.linalg.norm(a[3:]), b[3:] / np.linalg.norm(b[3:])
    cosine = float(q0 @ q1)
    if cosine < 0:
        q1, cosine = -q1, -cosine
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:
        q = q0 + share * (q1 - q0)
    else:
        q = (math.sin((1 - share) * angle) * q0 + math.sin(share * angle) * q1) / math.sin(angle)
    return rigid_of("groundtruth.txt", (q / np.linalg.norm(q)).tolist(), (a[:3] + share * (b[:3] - a[:3])).tolist())
