"""What a client sends: a recording's instants as messages, one at a time.

A recording on disk goes as it lies there, file by file: the server decodes the same bytes and takes the same lenses'
distortion out, so that its frames are those that `Recording.frame` gives, bit by bit. Any other source's frames are
decoded already; they go without loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError

if TYPE_CHECKING:
    from bodyfit.recording.memory import FrameSource
    from bodyfit_protos.v1 import bodyfit_pb2 as pb

    from bodyfit.frame import Frame
    from bodyfit.recording.description import Sensor
    from bodyfit.recording.native import Recording

MAX_KEYPOINT_BYTES = 1 << 20


@dataclass(frozen=True)
class Material:
    """What is to be sent of a recording.

    Attributes:
        source: where the frames are.
        positions: of the instants in it, in the order of time; each has a frame of one of the sensors at least.
        sensors: their names.
        stamps_s: by sensor (T,) when its depth was taken, seconds, NaN where unknown; only of sensors with such stamps.
    """

    source: FrameSource
    positions: tuple[int, ...]
    sensors: tuple[str, ...]
    stamps_s: dict[str, NDArray[np.float64]]

    @property
    def num_instants(self) -> int:
        """How many instants are sent at most; those without a frame are left out."""
        return len(self.positions)

    def header(self) -> pb.RecordingHeader:
        """The sensors, with the cameras that their images have as they are sent."""
        from bodyfit_service.frames_wire import header_message

        by_name = {s.name: s for s in self.source.sensors}
        chosen = [by_name[name] for name in self.sensors]
        return header_message(
            chosen if self._is_on_disk else [s.undistorted for s in chosen], self.source.gravity_world
        )

    def instants(self) -> Iterator[pb.Instant]:
        """The instants that have a frame; read as they are asked for.

        Raises:
            InputError: a file that is broken, or nothing to send at all.
        """
        sent = False
        for i in self.positions:
            message = self.instant(i)
            if message is not None:
                sent = True
                yield message
        if not sent:
            raise InputError("frames", "at least one frame of the chosen sensors", "none")

    def instant(self, i: int) -> pb.Instant | None:
        """The instant at position i of the source; None where no chosen sensor has a frame."""
        if self._is_on_disk:
            return self._recorded(i)
        from bodyfit_service.frames_wire import instant_message

        found = [self.source.frame(i, name) for name in self.sensors]
        frames = [f for f in found if f is not None]
        if not frames:
            return None
        stamps = {name: float(t[i]) for name, t in self.stamps_s.items() if np.isfinite(t[i])}
        index, time = int(self.source.indices[i]), float(self.source.timestamps_s[i])
        return instant_message(frames, index=index, timestamp_s=time, stamps=stamps)

    @property
    def _is_on_disk(self) -> bool:
        from bodyfit.recording.native import Recording

        return isinstance(self.source, Recording)

    def _recorded(self, i: int) -> pb.Instant | None:
        from bodyfit_protos.v1 import bodyfit_pb2 as pb

        recording: Any = self.source
        index = int(recording.indices[i])
        message = pb.Instant(index=index, timestamp_s=float(recording.timestamps_s[i]))
        for name in self.sensors:
            frame = recorded_frame(recording, recording.sensor(name), index)
            if frame is None:
                continue
            stamp = self.stamps_s.get(name)
            if stamp is not None and np.isfinite(stamp[i]):
                frame.depth_timestamp_s = float(stamp[i])
            message.frames.append(frame)
        return message if message.frames else None


def recorded_frame(recording: Recording, sensor: Sensor, index: int) -> pb.SensorFrame | None:
    """One sensor's files of one instant, as they are; None where there is no depth."""
    from bodyfit_protos.v1 import bodyfit_pb2 as pb

    from bodyfit.errors import ImageError
    from bodyfit.recording.files import read_file
    from bodyfit.recording.keypoints import read_keypoints
    from bodyfit.recording.native import COLOR_SUFFIXES

    root = recording.path

    def content(relative: str, width: int, height: int) -> bytes:
        return read_file(root, relative, width * height * 8 + (1 << 20), ImageError)

    depth, name = sensor.depth_camera, sensor.name
    depth_file = f"{name}/depth/{index:06d}.png"
    if not _there(root, depth_file):
        return None
    frame = pb.SensorFrame(sensor=name)
    frame.depth.encoding = pb.DEPTH_ENCODING_PNG16
    frame.depth.data = content(depth_file, depth.width, depth.height)
    color = sensor.color_camera
    for suffix in COLOR_SUFFIXES:
        file = f"{name}/color/{index:06d}{suffix}"
        if color is not None and _there(root, file):
            frame.color.data = content(file, color.width, color.height)
            # what it is says its beginning, not its name
            is_png = frame.color.data.startswith(b"\x89PNG")
            frame.color.encoding = pb.COLOR_ENCODING_PNG if is_png else pb.COLOR_ENCODING_JPEG
            break
    mask_file = f"{name}/mask/{index:06d}.png"
    if _there(root, mask_file):
        frame.mask.encoding = pb.MASK_ENCODING_PNG
        frame.mask.data = content(mask_file, depth.width, depth.height)
    points_file = f"{name}/keypoints/{index:06d}.json"
    if _there(root, points_file):
        points = read_keypoints(root, points_file, color or depth)
        frame.keypoints.names.extend(points.names)
        frame.keypoints.xy.extend(points.xy.ravel().tolist())
        frame.keypoints.confidence.extend(points.confidence.tolist())
    return frame


def _there(root: Path, relative: str) -> bool:
    import os

    return os.path.lexists(root / relative)


def make_material(
    recording: FrameSource | str | Path | Sequence[Frame],
    frames: Sequence[int] | None = None,
    sensors: Sequence[str] | None = None,
    gravity_world: Any = None,
) -> Material:
    """What is to be sent of a recording, its folder, or frames.

    Args:
        frames: positions in the recording, all where None.
        sensors: names, all where None.
        gravity_world: (3,) of frames that come without a recording; None: estimated by the server.

    Raises:
        InputError: a frame or sensor that does not exist, as the library refuses them.
    """
    source = source_of(recording, gravity_world)
    names = [s.name for s in source.sensors]
    for name in sensors or ():
        if name not in names:
            raise InputError("sensors", f"names of this recording's sensors ({', '.join(names)})", repr(name))
    everything = range(source.num_frames)
    chosen = list(everything) if frames is None else sorted(set(frames))
    for i in chosen:
        if i not in everything:
            raise InputError("frames", f"positions from 0 to {source.num_frames - 1}", str(i))
    if not chosen:
        raise InputError("frames", "at least one frame of the chosen sensors", "none")
    kept = tuple(dict.fromkeys(sensors or names))  # the first one is held where places are looked for
    return Material(source, tuple(chosen), kept, _stamps(source, kept, whole=len(chosen) == source.num_frames))


def source_of(recording: FrameSource | str | Path | Sequence[Frame], gravity_world: Any = None) -> FrameSource:
    """The recording that was meant: an open one, its folder, or frames in memory."""
    if isinstance(recording, (str, Path)):
        from bodyfit.recording.native import open_recording

        return open_recording(recording)
    if isinstance(recording, Sequence):
        from bodyfit.recording.memory import frames_recording

        return frames_recording(recording, gravity_world)
    return recording


def _stamps(source: FrameSource, names: Sequence[str], *, whole: bool) -> dict[str, NDArray[np.float64]]:
    """By sensor (T,) seconds at which its depth was taken by its own clock, where it has one.

    A clock that started at another moment than the instants' is told by the usual gap between instants, of which some
    chosen instants may know nothing: theirs are told by the instants' clock.
    """
    from bodyfit.fit.fit import stamped_delays

    out = {}
    late = stamped_delays(source, names)
    for name in names:
        stamps = source.stream_timestamps_s.get(f"{name}.depth_s")
        if stamps is None:
            continue
        told = source.timestamps_s + late[name]
        in_step = bool(np.allclose(told, stamps, rtol=0, atol=1e-9, equal_nan=True) | ~np.isfinite(stamps).any())
        out[name] = stamps if whole or in_step else np.where(np.isfinite(stamps), told, np.nan)
    return out
