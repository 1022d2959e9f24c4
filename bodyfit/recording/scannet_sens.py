"""ScanNet's `.sens` files, version 4: one file with calibration, poses, and compressed depth and colour.

Conventions, from SensReader of the ScanNet repository (sensorData.h, python/SensorData.py) and the paper (Dai et al.,
CVPR 2017):

- Little endian; matrices of 16 floats, row by row. Depth counts are `depth_shift` a metre (1000), 0 = no reading.
- Intrinsics are of each camera's own resolution, a pixel's centre at whole numbers. The extrinsic matrices are
  identities once depth was registered to colour, as in all published scans; else they are taken as camera to device.
- Each frame has its camera-to-world pose (x right, y down, z forward); one whose tracking was lost has -infinity. The
  world is where tracking began: which way is down is not said.
- Time stamps are microseconds; older scans have zeros. Then 30 frames a second are assumed.
- Colour: raw, PNG or JPEG. Depth: raw or zlib; `occi` (a codec of its own) is refused.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import CameraError, ImageError, RecordingError
from bodyfit.recording.description import Sensor, check_rigid
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.handheld import plain_camera, rising
from bodyfit.recording.images import max_file_bytes
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import MAX_INDEX, Timeline

VERSION = 4
SENSOR_NAME = "scannet"
MAX_NAME_BYTES = 4096
ASSUMED_RATE_HZ = 30.0
RAW_COLOR, PNG, JPEG = 0, 1, 2
RAW_DEPTH, ZLIB_DEPTH, OCCI_DEPTH = 0, 1, 2
_FRAME = struct.Struct("<16fQQQQ")
_SIZES = struct.Struct("<iiIIIIfQ")


@dataclass(frozen=True)
class _Entry:
    """Where a frame lies in the file."""

    offset: int
    color_bytes: int
    depth_bytes: int
    pose: NDArray[np.float64] | None


def is_sens(path: Path, head: bytes) -> bool:
    """Version 4, a name of printable letters, and a colour camera's matrix that ends in 0 0 0 1."""
    if len(head) < 12 + 64 or struct.unpack_from("<I", head)[0] != VERSION:
        return False
    (length,) = struct.unpack_from("<Q", head, 4)
    if length > MAX_NAME_BYTES or len(head) < 12 + length + 64:
        return False
    name = head[12 : 12 + length]
    last = struct.unpack_from("<4f", head, 12 + length + 48)
    return all(32 <= letter < 127 for letter in name) and last == (0.0, 0.0, 0.0, 1.0)


class _File:
    """Reads at any place of a file, from any thread."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size
        except OSError as problem:
            raise RecordingError(path.name, "a readable file", problem.strerror or str(problem)) from None

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Exactly so many bytes.

        Raises:
            RecordingError: the file ends before.
        """
        if offset + count > self.size:
            raise RecordingError(f"{self.name}: {what}", f"{count} bytes at {offset}", f"a file of {self.size} bytes")
        try:
            data = os.pread(self._descriptor, count, offset)
        except OSError as problem:
            raise RecordingError(self.name, "a readable file", problem.strerror or str(problem)) from None
        if len(data) != count:
            raise RecordingError(f"{self.name}: {what}", f"{count} bytes at {offset}", f"{len(data)}")
        return data

    def close(self) -> None:
        """Closes the file, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_sens(path: Path) -> Recording:
    """Opens a `.sens` file: reads its header and hops from frame to frame.

    Raises:
        RecordingError: another version, a header that makes no sense, a coding that cannot be read, no whole frame.
    """
    file = _File(path)
    try:
        return _open(path, file)
    except BaseException:
        file.close()
        raise


def _open(path: Path, file: _File) -> Recording:
    name = file.name
    version, length = struct.unpack("<IQ", file.read(0, 12, "header"))
    if version != VERSION:
        raise RecordingError(f"{name}: version", str(VERSION), str(version))
    if length > MAX_NAME_BYTES:
        raise RecordingError(f"{name}: sensor name", f"at most {MAX_NAME_BYTES} bytes", str(length))
    at = 12 + length
    matrices = np.frombuffer(file.read(at, 256, "calibration"), "<f4").reshape(4, 4, 4).astype(np.float64)
    at += 256
    color_code, depth_code, wc, hc, wd, hd, shift, count = _SIZES.unpack(file.read(at, _SIZES.size, "sizes"))
    at += _SIZES.size
    if depth_code not in (RAW_DEPTH, ZLIB_DEPTH):
        found = "occi" if depth_code == OCCI_DEPTH else str(depth_code)
        raise RecordingError(f"{name}: depth compression", "0 (raw) or 1 (zlib)", found)
    if not (math.isfinite(shift) and 1.0 <= shift <= 1e6):
        raise RecordingError(f"{name}: depth_shift", "counts a metre from 1 to 1e6", f"{shift:g}")
    notes: list[str] = []
    has_color = color_code in (RAW_COLOR, PNG, JPEG) and wc > 0 and hc > 0
    depth_camera = _camera(f"{name}: depth camera", wd, hd, matrices[2])
    color_camera = _camera(f"{name}: colour camera", wc, hc, matrices[0]) if has_color else None
    if not has_color:
        notes.append(f"Colour is not read: compression {color_code}, {wc} × {hc} pixels.")
    T_color_depth = _between(name, matrices[1], matrices[3], notes) if has_color else None
    entries, stamps = _index(file, at, count, notes)
    times, kept = _times(stamps, notes)
    entries = [entries[i] for i in kept]
    lost = sum(entry.pose is None for entry in entries)
    still = lost == len(entries)
    if still:
        notes.append("No frame has a pose: the sensor is taken to stand still.")
    elif lost:
        notes.append(f"{lost} frames have no pose, since tracking was lost: left out.")
    first = next((entry.pose for entry in entries if entry.pose is not None), np.eye(4))
    sensor = Sensor(SENSOR_NAME, depth_camera, first, color_camera, T_color_depth, 1.0 / shift)
    timeline = Timeline(np.arange(len(entries)), times, {})
    images = _Images(file, entries, color_code, depth_code, moving=not still)
    return Recording(path, "scannet", [sensor], timeline, None, images, notes)


def _camera(where: str, width: int, height: int, K: NDArray[np.float64]) -> Camera:
    if not np.isfinite(K).all():
        raise RecordingError(where, "finite intrinsics", "NaN or infinity")
    return plain_camera(where, width, height, (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


def _between(
    name: str, color: NDArray[np.float64], depth: NDArray[np.float64], notes: list[str]
) -> NDArray[np.float64]:
    try:
        E_color = check_rigid(f"{name}: colour extrinsics", color)
        E_depth = check_rigid(f"{name}: depth extrinsics", depth)
    except CameraError as problem:
        raise RecordingError(problem.field, problem.expected, problem.found) from None
    if np.allclose(E_color, E_depth, atol=1e-6):
        return np.eye(4)
    notes.append("The extrinsics are not identities: they are taken as from each camera to the device.")
    return np.linalg.inv(E_color) @ E_depth


def _index(file: _File, at: int, count: int, notes: list[str]) -> tuple[list[_Entry], list[int]]:
    entries: list[_Entry] = []
    stamps: list[int] = []
    for n in range(min(count, MAX_INDEX + 1)):
        if at + _FRAME.size > file.size:
            break
        values = _FRAME.unpack(file.read(at, _FRAME.size, f"frame {n}"))
        _, depth_stamp, color_bytes, depth_bytes = values[16:]
        end = at + _FRAME.size + color_bytes + depth_bytes
        if end > file.size:
            break
        entries.append(_Entry(at + _FRAME.size, color_bytes, depth_bytes, _pose(values[:16])))
        stamps.append(depth_stamp)
        at = end
    if not entries:
        raise RecordingError(f"{file.name}: frames", f"{count} frames", "not one that is whole")
    if len(entries) < count:
        notes.append(f"The file ends after {len(entries)} of {count} frames.")
    return entries, stamps


def _pose(values: tuple[float, ...]) -> NDArray[np.float64] | None:
    T = np.array(values, np.float64).reshape(4, 4)
    try:
        return check_rigid("pose", T)
    except CameraError:
        return None


def _times(stamps: list[int], notes: list[str]) -> tuple[NDArray[np.float64], list[int]]:
    """Seconds from the first frame, and which frames have them."""
    micros = np.array([min(stamp, 2**62) for stamp in stamps], np.float64)
    if not micros.any():
        notes.append(f"The frames have no times: {ASSUMED_RATE_HZ:g} a second are assumed.")
        return np.arange(len(micros)) / ASSUMED_RATE_HZ, list(range(len(micros)))
    seconds = (micros - micros[0]) * 1e-6
    kept = rising(seconds)
    if len(kept) < len(seconds):
        notes.append(f"{len(seconds) - len(kept)} frames repeat a time or go back in it: left out.")
    return seconds[kept], kept.tolist()


class _Images:
    def __init__(self, file: _File, entries: list[_Entry], color: int, depth: int, *, moving: bool) -> None:
        self._file, self._entries, self._color, self._depth, self._moving = file, entries, color, depth, moving

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        entry = self._entries[i]
        if self._moving and entry.pose is None:
            return None
        depth = EncodedImage(
            f"{self._file.name}: depth of frame {i}", Coding.UINT16, partial(self._load_depth, i, sensor.depth_camera)
        )
        color = None
        if sensor.color_camera is not None and entry.color_bytes:
            what = f"{self._file.name}: colour of frame {i}"
            coding = Coding.UINT8 if self._color == RAW_COLOR else Coding.FILE
            if entry.color_bytes > max_file_bytes(sensor.color_camera):
                raise ImageError(what, f"at most {max_file_bytes(sensor.color_camera)} bytes", f"{entry.color_bytes}")
            color = EncodedImage(what, coding, partial(self._file.read, entry.offset, entry.color_bytes, what))
        return EncodedFrame(depth, color, T_world_depth=entry.pose if self._moving else None)

    def close(self) -> None:
        self._file.close()

    def _load_depth(self, i: int, camera: Camera) -> bytes:
        entry, what = self._entries[i], f"{self._file.name}: depth of frame {i}"
        wanted = camera.width * camera.height * 2
        if entry.depth_bytes > max_file_bytes(camera):
            raise ImageError(what, f"at most {max_file_bytes(camera)} bytes", f"{entry.depth_bytes}")
        data = self._file.read(entry.offset + entry.color_bytes, entry.depth_bytes, what)
        if self._depth == RAW_DEPTH:
            return data
        inflater = zlib.decompressobj()
        try:
            counts = inflater.decompress(data, wanted + 1)
        except zlib.error as problem:
            raise ImageError(what, "depth packed by zlib", str(problem)[:80]) from None
        if len(counts) != wanted:
            found = f"more than {wanted}" if len(counts) > wanted else str(len(counts))
            raise ImageError(what, f"{wanted} bytes: {camera.width} × {camera.height} counts", found)
        return counts
