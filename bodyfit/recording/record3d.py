"""Record3D's `.r3d` files (iPhone and iPad with LiDAR or TrueDepth): a ZIP of images and a JSON document.

Conventions, from the app's author in the issues of github.com/marek-simonik/record3d:

- `rgbd/<i>.jpg`, `<i>.depth` (LZFSE of float32 metres, rows of the image as shown; NaN and 0 = no reading) and
  `<i>.conf` (LZFSE of uint8, 0 to 2) for each frame from 0 (#93, #60); depth is registered to colour, at its own
  resolution (#31).
- `metadata`: `w`, `h` of colour, `dw`, `dh` of depth (in older files by its length: 192 × 256, 480 × 640, 720 × 960),
  `K` column by column for the colour image of the first frame, `perFrameIntrinsicCoeffs` [fx, fy, cx, cy] for each
  (#83, #99), `fps`, `frameTimestamps` in seconds. Distortion can be taken as none (#88). A pixel's centre: the borders
  of both grids coincide; K is taken to count from the first pixel's centre.
- `poses`: camera to world, [qx, qy, qz, qw, px, py, pz], OpenGL's axes (x right, y up, z back) (#33, #36), relative
  to the first frame (#27): which way is down is not said. TrueDepth recordings have none.

The principal point wanders by some pixels with the lens's stabilisation; one camera holds for all frames here: the
median of the frames' intrinsics. Readings of the lowest confidence, 0, are left out.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import ImageError, RecordingError
from bodyfit.recording.description import Sensor
from bodyfit.recording.document import Field, parse_json
from bodyfit.recording.encoded import MAX_DEPTH_M, MIN_DEPTH_M, Coding, EncodedFrame, EncodedImage
from bodyfit.recording.handheld import GL_TO_CV, plain_camera, rigid_of, rising, scaled_camera
from bodyfit.recording.images import max_file_bytes
from bodyfit.recording.lzfse import unpacked, unpacked_length
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import MAX_INDEX, Timeline

SENSOR_NAME = "iphone"
MAX_METADATA_BYTES = 256 << 20
MAX_FRAMES = MAX_INDEX + 1
LEAST_CONFIDENCE = 1
DEPTH_UNIT_M = 0.00025
KNOWN_SIZES = ((192, 256), (480, 640), (720, 960))
_MEMBER = re.compile(r"rgbd/([0-9]{1,6})\.(jpg|depth|conf)\Z")


def is_r3d(path: Path, head: bytes) -> bool:
    """A ZIP file with Record3D's names in its directory."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError):
        # its directory is at its end: one that was cut has names in its first bytes only
        return b"rgbd/" in head
    return "metadata" in names and any(_MEMBER.match(name) for name in names)


def open_r3d(path: Path) -> Recording:
    """Opens a `.r3d` file: reads its directory and its metadata.

    Raises:
        RecordingError: no whole ZIP, no metadata, none of the images; values that make no sense.
        MissingExtraError: lzfse is not installed (when depth is read).
    """
    archive = _Archive(path)
    try:
        return _open(path, archive)
    except BaseException:
        archive.close()
        raise


class _Archive:
    """Members by name, no larger than they may be; one at a time."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._lock = Lock()
        try:
            self._zip = zipfile.ZipFile(path)
            self.sizes = {info.filename: info.file_size for info in self._zip.infolist()}
        except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError) as problem:
            raise RecordingError(path.name, "a whole ZIP file", str(problem)[:100]) from None

    def read(self, member: str, limit: int) -> bytes:
        """A member's bytes.

        Raises:
            ImageError: it is not there, is larger than `limit`, or broken.
        """
        where = f"{self.name}: {member}"
        try:
            with self._lock, self._zip.open(member) as file:
                data = file.read(limit + 1)
        except KeyError:
            raise ImageError(where, "a file", "no such file") from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, NotImplementedError) as e:
            raise ImageError(where, "a file that can be unpacked", f"{type(e).__name__}: {e}"[:100]) from None
        if len(data) > limit:
            raise ImageError(where, f"at most {limit} bytes", "more")
        return data

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()


def _open(path: Path, archive: _Archive) -> Recording:
    name = archive.name
    if "metadata" not in archive.sizes:
        raise RecordingError(f"{name}: metadata", "a file", "no such file")
    where = f"{name}: metadata"
    document = Field(where, "", parse_json(where, archive.read("metadata", MAX_METADATA_BYTES)))
    notes: list[str] = []
    present = {int(m[1]) for member in archive.sizes if (m := _MEMBER.match(member)) and m[2] == "depth"}
    if not present:
        raise RecordingError(f"{name}: rgbd", "depth images", "none")
    order = sorted(present)
    color_size = document.key("w").integer(), document.key("h").integer()
    depth_size = _depth_size(archive, document, order[0])
    color_camera = _camera(document, *color_size, notes)
    depth_camera = scaled_camera(color_camera, *depth_size)
    times, order = _times(document, order, notes)
    poses = _poses(document, order, notes)
    first = poses[order[0]] if poses else np.eye(4)
    has_color = any(f"rgbd/{i}.jpg" in archive.sizes for i in order)
    sensor = Sensor(
        SENSOR_NAME, depth_camera, first, color_camera if has_color else None, np.eye(4) if has_color else None,
        DEPTH_UNIT_M,
    )  # fmt: skip
    if any(f"rgbd/{i}.conf" in archive.sizes for i in order):
        notes.append(f"Readings of a confidence below {LEAST_CONFIDENCE} (of 0 to 2) are left out.")
    timeline = Timeline(np.array(order, np.int64), times, {})
    return Recording(path, "record3d", [sensor], timeline, None, _Images(archive, order, poses), notes)


def _depth_size(archive: _Archive, document: Field, first: int) -> tuple[int, int]:
    """Width and height of the depth images."""
    if document.key("dw", None).value is not None:
        return document.key("dw").integer(), document.key("dh").integer()
    member = f"rgbd/{first}.depth"
    data = archive.read(member, max(w * h for w, h in KNOWN_SIZES) * 8)
    length = unpacked_length(f"{archive.name}: {member}", data)
    for width, height in KNOWN_SIZES:
        if length == width * height * 4:
            return width, height
    raise RecordingError(f"{archive.name}: metadata: dw", "the depth images' width", "no such key")


def _camera(document: Field, width: int, height: int, notes: list[str]) -> Camera:
    every = document.key("perFrameIntrinsicCoeffs", None)
    if every.value:
        rows = np.array([row.numbers(at_most=4) for row in every.items(MAX_FRAMES) if len(row.items(4)) == 4])
        if len(rows):
            middle = np.median(rows, 0)
            apart = float(np.abs(rows - middle).max())
            if apart > 1.0:
                notes.append(f"The frames' intrinsics differ by up to {apart:.1f} pixels: their median holds for all.")
            return plain_camera(f"{document.file}: w, h", width, height, middle.tolist())
    K = document.key("K").numbers(at_most=9)
    if len(K) != 9:
        document.key("K").refuse("9 numbers, column by column")
    return plain_camera(f"{document.file}: w, h", width, height, (K[0], K[4], K[6], K[7]))


def _times(document: Field, order: list[int], notes: list[str]) -> tuple[NDArray[np.float64], list[int]]:
    stamps = document.key("frameTimestamps", None)
    if stamps.value:
        known = stamps.numbers(at_most=MAX_FRAMES)
        within = [i for i in order if i < len(known)]
        if len(within) < len(order):
            notes.append(f"{len(order) - len(within)} frames have no time: left out.")
        if not within:
            stamps.refuse("a time for each frame")
        seconds = np.array([known[i] for i in within])
        kept = rising(seconds)
        if len(kept) < len(seconds):
            notes.append(f"{len(seconds) - len(kept)} frames repeat a time or go back in it: left out.")
        return seconds[kept] - seconds[kept[0]], [within[i] for i in kept]
    rate = document.key("fps", 30.0).number()
    if not 0.1 <= rate <= 1000:
        document.key("fps").refuse("frames a second from 0.1 to 1000")
    notes.append(f"The frames have no times: {rate:g} a second are assumed.")
    return (np.array(order) - order[0]) / rate, order


def _poses(document: Field, order: list[int], notes: list[str]) -> dict[int, NDArray[np.float64]]:
    """`T_world_camera` in OpenCV's axes by frame; empty where there are none."""
    entry = document.key("poses", None)
    if not entry.value:
        notes.append("The recording has no poses: the sensor is taken to stand still.")
        return {}
    rows: list[Any] = entry.items(MAX_FRAMES)
    if len(rows) <= order[-1]:
        raise RecordingError(entry.name, f"a pose for each frame, {order[-1] + 1}", str(len(rows)))
    poses = {}
    for i in order:
        row = rows[i].numbers(at_most=7)
        if len(row) != 7:
            rows[i].refuse("7 numbers: qx qy qz qw px py pz")
        poses[i] = rigid_of(rows[i].name, row[:4], row[4:]) @ GL_TO_CV
    return poses


class _Images:
    def __init__(self, archive: _Archive, order: list[int], poses: dict[int, NDArray[np.float64]]) -> None:
        self._archive, self._order, self._poses = archive, order, poses

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        n, archive = self._order[i], self._archive
        depth = EncodedImage(
            f"{archive.name}: rgbd/{n}.depth", Coding.FLOAT32, partial(self._load_depth, n, sensor.depth_camera)
        )
        color, member = None, f"rgbd/{n}.jpg"
        if sensor.color_camera is not None and member in archive.sizes:
            load = partial(archive.read, member, max_file_bytes(sensor.color_camera))
            color = EncodedImage(f"{archive.name}: {member}", Coding.FILE, load)
        return EncodedFrame(depth, color, T_world_depth=self._poses.get(n))

    def close(self) -> None:
        self._archive.close()

    def _load_depth(self, n: int, camera: Camera) -> bytes:
        pixels = camera.width * camera.height
        depth = np.frombuffer(self._member(f"rgbd/{n}.depth", pixels * 4, camera), "<f4").copy()
        depth[~((depth >= MIN_DEPTH_M) & (depth <= MAX_DEPTH_M))] = 0
        if f"rgbd/{n}.conf" in self._archive.sizes:
            confidence = np.frombuffer(self._member(f"rgbd/{n}.conf", pixels, camera), np.uint8)
            depth[confidence < LEAST_CONFIDENCE] = 0
        return depth.tobytes()

    def _member(self, member: str, wanted: int, camera: Camera) -> bytes:
        data = self._archive.read(member, max_file_bytes(camera))
        return unpacked(f"{self._archive.name}: {member}", data, wanted)
