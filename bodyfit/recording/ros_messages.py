"""The ROS messages that recordings of depth sensors are made of, read from the bytes of ROS 1 and ROS 2.

Fields and their order are those of the message definitions (ros/std_msgs, ros/common_msgs and ros2/common_interfaces:
std_msgs/Header, sensor_msgs/Image, CompressedImage and CameraInfo, geometry_msgs/Transform, tf2_msgs/TFMessage).
ROS 1 packs them without gaps, little-endian (ROS wiki, "msg"); ROS 2 codes them as plain CDR, version 1 (OMG
DDS-XTypes, 7.4.1): four bytes that tell the byte order, then each number at a multiple of its size; strings end with a
NUL. A header has a `seq` in ROS 1 only.

Bytes after a message's end are left alone: librealsense writes four of them after each image.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import RecordingError

HEAD_BYTES = 768
"""what is read to know an image's header: its strings are short"""
_MAX_NAME_BYTES = 4096
_MAX_TRANSFORMS = 10_000


class Cursor:
    """Reads a message's fields one after the other.

    Args:
        where: what errors call the message.
        data: its bytes, or the first of them.
        is_cdr: coded as in ROS 2.
    """

    def __init__(self, where: str, data: bytes, is_cdr: bool) -> None:
        self.where, self.data, self.is_cdr = where, data, is_cdr
        self._order, self._start, self.position = "<", 0, 0
        if is_cdr:
            if len(data) < 4 or data[0] != 0 or data[1] > 1:
                raise RecordingError(where, "a message coded as plain CDR", f"one that starts {data[:4]!r}")
            self._order, self._start, self.position = "<" if data[1] else ">", 4, 4

    def numbers(self, code: str, count: int = 1) -> tuple:
        """`count` numbers of a kind of `struct`."""
        size = struct.calcsize(f"<{code}")
        if self.is_cdr:
            self.position += -(self.position - self._start) % size
        end = self.position + size * count
        if end > len(self.data):
            raise RecordingError(self.where, f"at least {end} bytes", f"{len(self.data)}")
        values = struct.unpack_from(f"{self._order}{count}{code}", self.data, self.position)
        self.position = end
        return values

    def number(self, code: str) -> int:
        """One whole number."""
        return int(self.numbers(code)[0])

    def text(self, limit: int = _MAX_NAME_BYTES) -> str:
        """A string."""
        size = self.number("I")
        if size > min(limit, len(self.data) - self.position):
            raise RecordingError(
                self.where, f"a string of at most {limit} bytes inside of the message", f"{size} bytes"
            )
        value = self.data[self.position : self.position + size]
        self.position += size
        return value.rstrip(b"\0").decode("utf-8", "replace") if self.is_cdr else value.decode("utf-8", "replace")

    def floats(self) -> tuple[float, ...]:
        """A list of doubles, of at most 64."""
        count = self.number("I")
        if count > 64:
            raise RecordingError(self.where, "at most 64 coefficients", f"{count}")
        return self.numbers("d", count) if count else ()


class Header(NamedTuple):
    """std_msgs/Header: when (ns since the epoch, or of another clock) and in which frame."""

    stamp_ns: int
    frame: str


class ImageHead(NamedTuple):
    """sensor_msgs/Image without its pixels, which lie at `position`, `size` bytes of them."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    position: int
    size: int


class CompressedHead(NamedTuple):
    """sensor_msgs/CompressedImage without its data, which lies at `position`, `size` bytes of it."""

    header: Header
    format: str
    position: int
    size: int


class CameraInfo(NamedTuple):
    """sensor_msgs/CameraInfo."""

    header: Header
    height: int
    width: int
    model: str
    D: tuple[float, ...]
    K: tuple[float, ...]
    P: tuple[float, ...]
    binning: tuple[int, int]
    roi: tuple[int, int, int, int]
    """x offset, y offset, height, width"""


class Transform(NamedTuple):
    """geometry_msgs/TransformStamped: p_parent = T_parent_child p_child."""

    parent: str
    child: str
    T_parent_child: NDArray[np.float64]


def read_header(cursor: Cursor) -> Header:
    """A header; the frame's leading slash, of old ROS 1, is taken off."""
    if not cursor.is_cdr:
        cursor.number("I")
    seconds, nanoseconds = cursor.number("i" if cursor.is_cdr else "I"), cursor.number("I")
    return Header(seconds * 10**9 + nanoseconds, cursor.text().lstrip("/"))


def read_image(where: str, data: bytes, is_cdr: bool) -> ImageHead:
    """An image's fields, from its first bytes.

    Raises:
        RecordingError: bytes that are no such message.
    """
    cursor = Cursor(where, data, is_cdr)
    header = read_header(cursor)
    height, width = cursor.number("I"), cursor.number("I")
    encoding, is_bigendian = cursor.text(), bool(cursor.number("B"))
    step, size = cursor.number("I"), cursor.number("I")
    return ImageHead(header, height, width, encoding, is_bigendian, step, cursor.position, size)


def read_compressed(where: str, data: bytes, is_cdr: bool) -> CompressedHead:
    """A compressed image's fields, from its first bytes.

    Raises:
        RecordingError: bytes that are no such message.
    """
    cursor = Cursor(where, data, is_cdr)
    header = read_header(cursor)
    form, size = cursor.text(), cursor.number("I")
    return CompressedHead(header, form, cursor.position, size)


def payload(where: str, data: bytes, position: int, size: int) -> bytes:
    """What a message holds from `position` on.

    Raises:
        RecordingError: a message that is too short for what it says to hold.
    """
    if position + size > len(data):
        raise RecordingError(where, f"{size} bytes of data", f"{len(data) - position}")
    return data[position : position + size]


def read_camera_info(where: str, data: bytes, is_cdr: bool) -> CameraInfo:
    """A camera's calibration.

    Raises:
        RecordingError: bytes that are no such message.
    """
    cursor = Cursor(where, data, is_cdr)
    header = read_header(cursor)
    height, width = cursor.number("I"), cursor.number("I")
    model, D = cursor.text(), cursor.floats()
    K, _, P = cursor.numbers("d", 9), cursor.numbers("d", 9), cursor.numbers("d", 12)
    binning = (cursor.number("I"), cursor.number("I"))
    x, y, roi_height, roi_width = cursor.numbers("I", 4)
    return CameraInfo(header, height, width, model, D, K, P, binning, (x, y, roi_height, roi_width))


def read_transform(where: str, cursor: Cursor) -> NDArray[np.float64]:
    """geometry_msgs/Transform as (4, 4): a translation and a unit quaternion x y z w.

    Raises:
        RecordingError: numbers that are no rigid transform.
    """
    values = np.array(cursor.numbers("d", 7))
    length = float(np.sqrt(np.square(np.clip(values[3:], -10, 10)).sum()))
    if not np.isfinite(values).all() or abs(length - 1.0) > 0.01 or np.abs(values).max() > 1e6:
        raise RecordingError(where, "a translation and a unit quaternion", str(values.tolist()))
    x, y, z, w = values[3:] / length
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = values[:3]
    return T


def read_transforms(where: str, data: bytes, is_cdr: bool) -> list[Transform]:
    """The transforms of a tf2_msgs/TFMessage.

    Raises:
        RecordingError: bytes that are no such message.
    """
    cursor = Cursor(where, data, is_cdr)
    count = cursor.number("I")
    if count > _MAX_TRANSFORMS:
        raise RecordingError(where, f"at most {_MAX_TRANSFORMS} transforms", f"{count}")
    found = []
    for _ in range(count):
        header = read_header(cursor)
        child = cursor.text().lstrip("/")
        found.append(Transform(header.frame, child, read_transform(where, cursor)))
    return found
