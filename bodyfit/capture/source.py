"""Where live frames come from: what every sensor has to offer, and frames at hand, played as if they came live."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import DeviceError, InputError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage, FrameDecoder

UNTESTED = "this source follows the maker's documentation and was never tried on a device"


@dataclass(frozen=True, eq=False)
class Captured:
    """What a sensor took at one instant, as it came: lens distortion in it, nothing decoded.

    Attributes:
        depth: (H, W) uint16 counts of the sensor's `depth_unit_m`, 0 = no reading; nobody else writes to it.
        depth_time_s: when it was taken, seconds on the device's clock.
        color: (Hc, Wc, 3) uint8 RGB, or the bytes of a JPEG file; None where none came with it.
        color_time_s: when that was taken, on the same clock; None where unknown.
        number: the device's own count of depth frames; None where it has none.
        color_number: the same of colour.
        arrived_s: when it was read, seconds on this machine's monotonic clock.
    """

    depth: NDArray[np.uint16]
    depth_time_s: float
    color: NDArray[np.uint8] | bytes | None = None
    color_time_s: float | None = None
    number: int | None = None
    color_number: int | None = None
    arrived_s: float = field(default_factory=time.monotonic)


class Source(Protocol):
    """A sensor that gives frames. `sensor` and the rest are known once `start` has returned."""

    kind: str
    """what it is on the command line"""
    device: Mapping[str, Any]
    """name and firmware as the device tells them; never its serial number"""
    settings: Mapping[str, Any]
    """sizes, rates and modes that were asked for"""
    notes: tuple[str, ...]
    """what who uses it should know; sentences"""

    @property
    def sensor(self) -> Sensor:
        """Cameras with their distortion, T_color_depth and the depth unit."""
        ...

    @property
    def gravity_world(self) -> NDArray[np.float64] | None:
        """(3,) unit vector, or None where unknown."""
        ...

    @property
    def ended(self) -> bool:
        """No more frames will come."""
        ...

    def start(self) -> None:
        """Opens the device.

        Raises:
            DeviceError: there is none, or it cannot do what was asked for.
            MissingExtraError: the maker's package is not installed.
        """
        ...

    def read(self, timeout_s: float) -> Captured | None:
        """The next frame; None where none came in that time.

        Raises:
            DeviceError: the device is gone.
        """
        ...

    def stop(self) -> None:
        """Closes the device; may be called twice."""
        ...


class CameraSource:
    """What cameras have in common, whoever made them: they have no end, and a sensor once they were started."""

    kind = ""

    def __init__(self) -> None:
        self._sensor: Sensor | None = None

    @property
    def sensor(self) -> Sensor:
        """As the camera's calibration has it."""
        if self._sensor is None:
            raise DeviceError(self.kind, "a source that was started", "one that was not")
        return self._sensor

    @property
    def gravity_world(self) -> NDArray[np.float64] | None:
        """Unknown: accelerometers, where a camera has one, are not read."""
        return None

    @property
    def ended(self) -> bool:
        """A camera has no end; a lost one is silent."""
        return False


class FrameMaker:
    """Frames as the library has them, undistorted, of what a sensor captured."""

    def __init__(self, sensor: Sensor) -> None:
        self._sensor, self._decoder = sensor, FrameDecoder([sensor])

    def frame(self, captured: Captured, *, index: int, timestamp_s: float, color: bool = True) -> Frame:
        """One frame.

        Args:
            color: with its colour image.

        Raises:
            ImageError: a colour image that is cut or broken.
        """
        counts = captured.depth.astype("<u2", copy=False)
        depth = EncodedImage("depth", Coding.UINT16, lambda: counts.tobytes())
        image = None
        if color and captured.color is not None and self._sensor.color_camera is not None:
            given = captured.color
            if isinstance(given, bytes):
                image = EncodedImage("color", Coding.FILE, lambda: given)
            else:
                image = EncodedImage("color", Coding.UINT8, lambda: given.tobytes())
        return self._decoder.frame(
            self._sensor.name, EncodedFrame(depth, image), index=index, timestamp_s=timestamp_s
        )  # fmt: skip


class PlayedSource:
    """Frames at hand, each given when its time has come: a recording that is replayed, or frames that were rendered.

    Args:
        kind: what it is called.
        sensor: what took the frames.
        frames: they, with rising `depth_time_s`; drawn in the reading thread, so that an iterator may read files.
        gravity_world: (3,) or None.
        speed: how many times as fast as they were taken; 0: as fast as they are read, nothing waits.
        settings, notes: as of any source.
    """

    def __init__(
        self,
        kind: str,
        sensor: Sensor,
        frames: Iterable[Captured],
        *,
        gravity_world: NDArray[np.float64] | None = None,
        speed: float = 1.0,
        settings: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        if not 0 <= speed <= 1000:
            raise InputError("speed", "0 (no waiting) to 1000 times", f"{speed:g}")
        self.kind, self.notes = kind, notes
        self.device: Mapping[str, Any] = {"name": sensor.name}
        self.settings: Mapping[str, Any] = {**(settings or {}), "speed": speed}
        self._sensor, self._gravity, self._speed = sensor, gravity_world, speed
        self._frames: Iterator[Captured] = iter(frames)
        self._waiting: Captured | None = None
        self._began: float | None = None
        self._ended = False

    @property
    def sensor(self) -> Sensor:
        """What took the frames."""
        return self._sensor

    @property
    def gravity_world(self) -> NDArray[np.float64] | None:
        """As it was given."""
        return self._gravity

    @property
    def ended(self) -> bool:
        """All frames were given."""
        return self._ended

    def start(self) -> None:
        """Nothing has to be opened."""

    def read(self, timeout_s: float) -> Captured | None:
        """The next frame once its time has come; None where that is later than `timeout_s`."""
        if self._waiting is None:
            self._waiting = next(self._frames, None)
            if self._waiting is None:
                self._ended = True
                return None
        if self._speed > 0:
            now = time.monotonic()
            due = self._waiting.depth_time_s / self._speed
            if self._began is None:
                self._began = now - due
            wait = self._began + due - now
            if wait > timeout_s:
                time.sleep(timeout_s)
                return None
            time.sleep(max(wait, 0.0))
        c, self._waiting = self._waiting, None
        return Captured(c.depth, c.depth_time_s, c.color, c.color_time_s, c.number, c.color_number)

    def stop(self) -> None:
        """No more frames."""
        self._ended = True
