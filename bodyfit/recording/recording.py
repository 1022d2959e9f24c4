"""A recording of any format, once it was opened: the sensors, the instants, and frames one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import RecordingError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor, check_gravity, check_names
from bodyfit.recording.encoded import EncodedFrame, FrameDecoder
from bodyfit.recording.timeline import Timeline, check_timeline
from bodyfit.recording.undistort import check_invertible


class ImageStore(Protocol):
    """Where the images of an opened recording lie; each format has its own.

    A store keeps no image after it was handed out, and reads no more of its file than the frame needs, as far as the
    format allows. Calls come one at a time; the images' `load` may be called later, from another thread.
    """

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        """What a sensor saw at the `i`-th instant, before anything is decoded; None where it saw nothing.

        Raises:
            RecordingError: that part of the recording is broken; the rest may be read all the same.
        """
        ...

    def close(self) -> None:
        """Closes the files; loading images afterwards may fail."""
        ...


class Recording:
    """A recording that was opened and checked; get one from `open_recording`.

    Args:
        path: its folder or file.
        format: name of its format, as the table of formats has it.
        sensors: as recorded, distortion included.
        timeline: its instants.
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.
        images: gives the images.
        notes: what whoever uses the recording should know: what was assumed, dropped or is not to be had; sentences.
        described_in: the file that says what the sensors are, for errors; the recording itself where None.

    Attributes:
        path: its folder or file.
        format: name of its format.
        sensors: as recorded, distortion included; frames come with pinhole cameras.
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.
        notes: what was assumed, dropped or is not to be had.

    Raises:
        RecordingError: no sensors, names that are none, instants that do not rise.
        CameraError: intrinsics, distortion or transforms that make no sense.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        sensors: Sequence[Sensor],
        timeline: Timeline,
        gravity_world: NDArray[np.float64] | None,
        images: ImageStore,
        notes: Sequence[str] = (),
        *,
        described_in: str | None = None,
    ) -> None:
        where = f"{path.name if described_in is None else described_in}: sensors"
        check_names(where, [sensor.name for sensor in sensors])
        for i, sensor in enumerate(sensors):
            sensor.check(f"{where}[{i}]")
            check_invertible(f"{where}[{i}].depth_camera", sensor.depth_camera)
            if sensor.color_camera:
                check_invertible(f"{where}[{i}].color_camera", sensor.color_camera)
        check_timeline(path.name, timeline)
        self.path, self.format, self.sensors, self.notes = path, format, tuple(sensors), tuple(notes)
        self.gravity_world = check_gravity("gravity_world", gravity_world)
        self._timeline, self._images = timeline, images
        self._decoder = FrameDecoder(self.sensors)

    @property
    def num_frames(self) -> int:
        """How many instants there are."""
        return len(self._timeline.indices)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(T,) the instants' numbers, rising; in a native recording those in the file names."""
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

    def frame(self, i: int, sensor_name: str, *, color: bool = True) -> Frame | None:
        """What a sensor saw at the `i`-th instant (a position in `indices`); None where it saw nothing there.

        Without color its image is neither read nor decoded, and the frame has none.

        Depth without a single reading is a frame all the same: whoever looks for a person in it says so.

        Raises:
            IndexError: `i` is not in 0 … num_frames - 1.
            RecordingError: no such sensor, broken keypoints, or a broken part of the file.
            ImageError: an image of another kind or size, or one that is cut or broken.
        """
        encoded = self.encoded(i, sensor_name)
        if encoded is None:
            return None
        if not color:
            encoded = replace(encoded, color=None)
        index, time_s = int(self.indices[i]), float(self.timestamps_s[i])
        return self._decoder.frame(sensor_name, encoded, index=index, timestamp_s=time_s)

    def encoded(self, i: int, sensor_name: str) -> EncodedFrame | None:
        """The same before anything is decoded: images as they are stored, keypoints in pixels as recorded.

        Raises:
            IndexError: `i` is not in 0 … num_frames - 1.
            RecordingError: no such sensor, broken keypoints, or a broken part of the file.
        """
        sensor = self.sensor(sensor_name)
        if not 0 <= i < self.num_frames:
            raise IndexError(f"frame {i} of {self.num_frames}")
        return self._images.encoded(i, sensor)

    def close(self) -> None:
        """Closes the recording's files; frames cannot be read any more."""
        self._images.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
