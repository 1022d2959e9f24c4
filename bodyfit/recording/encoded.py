"""Images as they are stored or sent, and their way to a frame: one way for files of a recording and for messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import FrameError, ImageError
from bodyfit.frame import Frame, Keypoints
from bodyfit.recording.description import Sensor
from bodyfit.recording.images import decode_color, decode_depth, decode_mask, person_of
from bodyfit.recording.undistort import Undistorter, make_undistorter

MAX_DEPTH_M = 65535.0
"""the farthest that 16-bit counts of the largest unit can say"""
MIN_DEPTH_M = 1e-6
"""the nearest that they can"""


class Coding(Enum):
    """How an image's bytes are to be read; the value says it in words."""

    FILE = "a PNG or JPEG file"
    UINT16 = "little-endian 16-bit counts"
    FLOAT32 = "little-endian 32-bit floats in metres"
    UINT8 = "bytes"


@dataclass(frozen=True)
class EncodedImage:
    """One image that was not decoded yet.

    Attributes:
        name: what errors call it: a file, or a field of a message.
        coding: how to read it.
        load: gives its bytes, when they are needed.
    """

    name: str
    coding: Coding
    load: Callable[[], bytes]


@dataclass(frozen=True)
class EncodedFrame:
    """What one sensor saw at one instant, in images and pixels as recorded, the lens's distortion in them."""

    depth: EncodedImage
    color: EncodedImage | None = None
    mask: EncodedImage | None = None
    keypoints: Keypoints | None = None


class FrameDecoder:
    """Makes frames of encoded images: decoded, checked and undistorted.

    Args:
        sensors: as recorded, distortion included.
    """

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self._sensors = {sensor.name: sensor for sensor in sensors}
        self._undistorters: dict[tuple[str, str], Undistorter | None] = {}

    def frame(self, sensor_name: str, encoded: EncodedFrame, *, index: int, timestamp_s: float) -> Frame:
        """The frame of one of the sensors, with pinhole cameras.

        Raises:
            ImageError: an image of another kind or size, or one that is cut or broken.
            FrameError: depth in metres that is negative, not finite or beyond what a sensor can say.
            CameraError: a lens that cannot be undistorted.
        """
        sensor = self._sensors[sensor_name]
        depth = _depth(encoded.depth, sensor.depth_camera)
        color = None if encoded.color is None else self._color(sensor, encoded.color)
        mask = None if encoded.mask is None else _mask(encoded.mask, sensor.depth_camera)
        undistorter = self._undistorter(sensor, "depth_camera")
        if undistorter is not None:
            depth = undistorter.image_nearest(depth)
            mask = None if mask is None else undistorter.image_nearest(mask)
        if encoded.depth.coding is not Coding.FLOAT32:
            depth = depth.astype(np.float32) * np.float32(sensor.depth_unit_m)
        return Frame(
            depth=depth,
            depth_camera=sensor.depth_camera.pinhole,
            T_world_depth=sensor.T_world_depth,
            timestamp_s=timestamp_s,
            color=color,
            color_camera=sensor.color_camera.pinhole if sensor.color_camera else None,
            T_color_depth=sensor.T_color_depth,
            mask=mask,
            keypoints=None if encoded.keypoints is None else self._keypoints(sensor, encoded.keypoints),
            sensor=sensor.name,
            index=index,
        )

    def _color(self, sensor: Sensor, image: EncodedImage) -> NDArray[np.uint8]:
        camera = sensor.color_camera
        if camera is None:
            raise ImageError(image.name, "no colour image of a sensor without color_camera", "one")
        if image.coding is Coding.FILE:
            pixels = decode_color(image.name, image.load(), camera)
        else:
            pixels = _raw(image, np.dtype(np.uint8), (camera.height, camera.width, 3))
        undistorter = self._undistorter(sensor, "color_camera")
        return pixels if undistorter is None else undistorter.image_linear(pixels)

    def _keypoints(self, sensor: Sensor, keypoints: Keypoints) -> Keypoints:
        undistorter = self._undistorter(sensor, "color_camera" if sensor.color_camera else "depth_camera")
        if undistorter is None:
            return keypoints
        xy = undistorter.points(keypoints.xy)
        # a guess beyond the border may lie where the lens model ends
        kept = np.flatnonzero(np.isfinite(xy).all(axis=-1))
        return Keypoints(tuple(keypoints.names[k] for k in kept), xy[kept], keypoints.confidence[kept])

    def _undistorter(self, sensor: Sensor, key: str) -> Undistorter | None:
        """Made once for each camera."""
        place = (sensor.name, key)
        if place not in self._undistorters:
            camera: Camera = getattr(sensor, key)
            self._undistorters[place] = make_undistorter(f"sensor {sensor.name}: {key}", camera)
        return self._undistorters[place]


def _depth(image: EncodedImage, camera: Camera) -> NDArray:
    """(H, W) uint16 counts or float32 metres."""
    if image.coding is Coding.FILE:
        return decode_depth(image.name, image.load(), camera)
    shape = (camera.height, camera.width)
    if image.coding is Coding.UINT16:
        return _raw(image, np.dtype("<u2"), shape)
    metres = _raw(image, np.dtype("<f4"), shape)
    low, high = float(metres.min()), float(metres.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise FrameError(image.name, "finite metres from 0 up", "NaN, infinite or negative depth")
    if high > MAX_DEPTH_M:
        raise FrameError(image.name, f"at most {MAX_DEPTH_M:g} m", f"{high:g} m")
    if ((metres > 0) & (metres < MIN_DEPTH_M)).any():
        raise FrameError(image.name, f"0 for no reading, or at least {MIN_DEPTH_M:g} m", "less")
    return metres


def _mask(image: EncodedImage, camera: Camera) -> NDArray[np.bool_]:
    if image.coding is Coding.FILE:
        return decode_mask(image.name, image.load(), camera)
    return person_of(image.name, _raw(image, np.dtype(np.uint8), (camera.height, camera.width)))


def _raw(image: EncodedImage, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray:
    """An array of its own, in the machine's byte order."""
    data = image.load()
    wanted = int(np.prod(shape)) * dtype.itemsize
    if len(data) != wanted:
        raise ImageError(image.name, f"{wanted} bytes: {' × '.join(map(str, shape))} of {dtype.name}", f"{len(data)}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
