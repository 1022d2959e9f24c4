"""A recording that is held in memory: of frames that a program has, or of images that were sent.

`fit` and `track` take it as they take one on disk. Images that were not decoded yet are decoded each time a frame is
asked for, as files are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bodyfit.camera import check_rigid
from bodyfit.errors import FrameError, RecordingError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor, check_gravity, check_names
from bodyfit.recording.encoded import EncodedFrame, FrameDecoder
from bodyfit.recording.undistort import check_invertible


@dataclass(frozen=True, eq=False)
class MemoryInstant:
    """What the sensors saw at one time.

    Attributes:
        index: the instant's number.
        timestamp_s: seconds.
        frames: by sensor, those that saw the instant.
        depth_stamps_s: by sensor, when it took its depth image by its own clock, where that is known.
    """

    index: int
    timestamp_s: float
    frames: Mapping[str, Frame | EncodedFrame]
    depth_stamps_s: Mapping[str, float] = field(default_factory=dict)


class MemoryRecording:
    """A recording in memory, for `bodyfit.fit` and `bodyfit.track`.

    Args:
        sensors: as recorded; frames that are decoded already must have their pinhole cameras (`Sensor.undistorted`).
        instants: in the order of time.
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.

    Raises:
        RecordingError: no sensors or instants, a name that is none or comes twice, time or numbers that do not rise.
        CameraError: intrinsics, distortion or transforms that make no sense.
        FrameError: a frame of no sensor, or with other cameras than its sensor's.
    """

    def __init__(
        self, sensors: Sequence[Sensor], instants: Sequence[MemoryInstant], gravity_world: ArrayLike | None = None
    ) -> None:
        check_names("sensors", [sensor.name for sensor in sensors])
        for i, sensor in enumerate(sensors):
            sensor.check(f"sensors[{i}]")
            check_invertible(f"sensors[{i}].depth_camera", sensor.depth_camera)
            if sensor.color_camera is not None:
                check_invertible(f"sensors[{i}].color_camera", sensor.color_camera)
        if not instants:
            raise RecordingError("instants", "at least one", "none")
        by_name = {sensor.name: sensor.undistorted for sensor in sensors}
        for t, instant in enumerate(instants):
            _check_instant(f"instants[{t}]", instant, instants[t - 1] if t else None, by_name)
        self._sensors, self._instants = tuple(sensors), tuple(instants)
        self._gravity = None if gravity_world is None else unit_gravity("gravity_world", gravity_world)
        self._decoder = FrameDecoder(self._sensors)
        self._indices = np.array([instant.index for instant in instants], dtype=np.int64)
        self._times = np.array([instant.timestamp_s for instant in instants], dtype=np.float64)
        self._stamps = {
            f"{name}.depth_s": np.array([instant.depth_stamps_s.get(name, math.nan) for instant in instants])
            for name in by_name
            if any(name in instant.depth_stamps_s for instant in instants)
        }

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """As recorded, distortion included; frames come with pinhole cameras."""
        return self._sensors

    @property
    def gravity_world(self) -> NDArray[np.float64] | None:
        """(3,) unit vector in world coordinates, or None where unknown."""
        return self._gravity

    @property
    def num_frames(self) -> int:
        """How many instants there are."""
        return len(self._instants)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(T,) the instants' numbers, rising."""
        return self._indices

    @property
    def timestamps_s(self) -> NDArray[np.float64]:
        """(T,) seconds, rising."""
        return self._times

    @property
    def stream_timestamps_s(self) -> dict[str, NDArray[np.float64]]:
        """`<sensor>.depth_s` to (T,) seconds on the sensor's own clock, NaN where none."""
        return self._stamps

    def frame(self, i: int, sensor_name: str, *, color: bool = True) -> Frame | None:
        """What a sensor saw at the `i`-th instant; None where it has none there. Without color an image that was not
        decoded yet is left out.

        Raises:
            IndexError: `i` is not in 0 … num_frames - 1.
            RecordingError: no such sensor.
            ImageError, FrameError: an image that is broken or does not fit its sensor.
        """
        names = [sensor.name for sensor in self._sensors]
        if sensor_name not in names:
            raise RecordingError("sensor", f"one of {', '.join(names)}", repr(sensor_name))
        if not 0 <= i < self.num_frames:
            raise IndexError(f"frame {i} of {self.num_frames}")
        instant = self._instants[i]
        seen = instant.frames.get(sensor_name)
        if not isinstance(seen, EncodedFrame):
            return seen
        if not color:
            seen = replace(seen, color=None)
        return self._decoder.frame(sensor_name, seen, index=instant.index, timestamp_s=instant.timestamp_s)


def frames_recording(frames: Sequence[Frame], gravity_world: ArrayLike | None = None) -> MemoryRecording:
    """A recording of frames that a program has; each sensor is what its frames say.

    Args:
        frames: in the order of time; those of one instant share index and timestamp.
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.

    Raises:
        FrameError: no frames, two of one sensor at one instant, or cameras of a sensor that change.
        RecordingError, CameraError: as for MemoryRecording.
    """
    if not frames:
        raise FrameError("frames", "at least one", "none")
    sensors: dict[str, Sensor] = {}
    instants: list[tuple[int, float, dict[str, Frame]]] = []
    for frame in frames:
        where = f"frame {frame.index} of sensor {frame.sensor}"
        if not all(c is None or c.distortion.is_none for c in (frame.depth_camera, frame.color_camera)):
            raise FrameError(f"{where}: cameras", "pinhole cameras: a frame's images are undistorted", "distortion")
        known = sensors.get(frame.sensor)
        if known is None or (known.color_camera is None and frame.color_camera is not None):
            sensors[frame.sensor] = Sensor(
                frame.sensor, frame.depth_camera, frame.T_world_depth, frame.color_camera, frame.T_color_depth
            )
        if not instants or frame.index != instants[-1][0]:
            instants.append((frame.index, frame.timestamp_s, {}))
        index, time_s, seen = instants[-1]
        if frame.timestamp_s != time_s:
            expected = f"{time_s:g} s as its instant's first"
            raise FrameError(f"{where}: timestamp_s", expected, f"{frame.timestamp_s:g} s")
        if frame.sensor in seen:
            raise FrameError(where, f"one frame of a sensor for each instant (index {index})", "two")
        seen[frame.sensor] = frame
    return MemoryRecording(list(sensors.values()), [MemoryInstant(*i) for i in instants], gravity_world)


def unit_gravity(name: str, gravity_world: ArrayLike) -> NDArray[np.float64]:
    """Gravity as a (3,) unit vector. One that was made a unit vector already stays as it is, to the last bit: what a
    recording on disk has must not change because it was sent.

    Raises:
        RecordingError: not 3 finite numbers of length 1.
    """
    unit = check_gravity(name, gravity_world)
    given = np.array(gravity_world, dtype=np.float64)
    assert unit is not None
    return given if float(np.abs(given - unit).max()) < 1e-15 else unit


def _check_instant(
    where: str, instant: MemoryInstant, before: MemoryInstant | None, sensors: Mapping[str, Sensor]
) -> None:
    if not math.isfinite(instant.timestamp_s):
        raise RecordingError(f"{where}.timestamp_s", "a finite number of seconds", f"{instant.timestamp_s:g}")
    if before is not None and not instant.timestamp_s > before.timestamp_s:
        expected = f"a time after {before.timestamp_s:g} s, the one before it"
        raise RecordingError(f"{where}.timestamp_s", expected, f"{instant.timestamp_s:g} s")
    if instant.index < 0 or (before is not None and not instant.index > before.index):
        expected = "a number from 0" if before is None else f"more than {before.index}, the index before it"
        raise RecordingError(f"{where}.index", expected, str(instant.index))
    for name, stamp in instant.depth_stamps_s.items():
        if name not in sensors or not math.isfinite(stamp):
            raise RecordingError(f"{where}.depth_stamps_s", "finite seconds of a sensor", f"{stamp:g} of {name!r}"[:80])
    for name, seen in instant.frames.items():
        if name not in sensors:
            raise FrameError(f"{where}.frames", f"frames of {', '.join(sensors)}", repr(name)[:80])
        if isinstance(seen, Frame):
            _check_frame(f"{where}.frames[{name!r}]", seen, sensors[name])


def _check_frame(where: str, frame: Frame, sensor: Sensor) -> None:
    if frame.depth_camera != sensor.depth_camera:
        raise FrameError(f"{where}: depth_camera", f"its sensor's, {sensor.depth_camera}", str(frame.depth_camera))
    if frame.color is not None and frame.color_camera != sensor.color_camera:
        raise FrameError(f"{where}: color_camera", f"its sensor's, {sensor.color_camera}", str(frame.color_camera))
    # a sensor may have moved, but its colour camera moves with it
    check_rigid(f"{where}: T_world_depth", frame.T_world_depth)
    ours, theirs = frame.T_color_depth, sensor.T_color_depth
    if ours is not None and (theirs is None or not np.array_equal(ours, theirs)):
        raise FrameError(f"{where}: T_color_depth", "its sensor's", "another")
