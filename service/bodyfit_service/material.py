"""What a client sends: a recording's instants as messages, one at a time, from the first as often as need be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError

if TYPE_CHECKING:
    from bodyfit.frame import Frame
    from bodyfit.recording.source import FrameSource
    from bodyfit_protos.v1 import bodyfit_pb2 as pb


@dataclass(frozen=True, eq=False)
class Material:
    """What is to be sent of a recording.

    Attributes:
        source: where the frames are.
        positions: of the instants in it, in the order of time.
        sensors: their names, the one first that is held where places are looked for.
        header: the sensors as a message.
        told_s: by sensor (T,) seconds to be told as its stamps, where its own would be misread.
    """

    source: FrameSource
    positions: tuple[int, ...]
    sensors: tuple[str, ...]
    header: pb.RecordingHeader
    told_s: dict[str, NDArray[np.float64]]

    @property
    def num_instants(self) -> int:
        """How many instants are sent."""
        return len(self.positions)

    def instants(self) -> Iterator[pb.Instant]:
        """The instants; read as they are asked for.

        Raises:
            InputError: a file that is broken, by its name; or no frame at all.
        """
        from bodyfit_service.frames_wire import recording_messages

        _, messages = recording_messages(self.source, frames=self.positions, sensors=self.sensors)
        seen = False
        for i, message in zip(self.positions, messages, strict=True):
            seen = seen or bool(message.frames)
            for frame in message.frames:
                if frame.sensor in self.told_s and frame.HasField("depth_timestamp_s"):
                    frame.depth_timestamp_s = float(self.told_s[frame.sensor][i])
            yield message
        if not seen:
            raise InputError("frames", "at least one frame of the chosen sensors", "none")


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
    from bodyfit_service.frames_wire import recording_messages

    source = source_of(recording, gravity_world)
    chosen = tuple(range(source.num_frames) if frames is None else sorted(set(frames)))
    header, _ = recording_messages(source, frames=chosen, sensors=sensors)
    if not chosen:
        raise InputError("frames", "at least one frame of the chosen sensors", "none")
    names = tuple(sensor.name for sensor in header.sensors)
    told = {} if len(chosen) == source.num_frames else _told(source, names)
    return Material(source, chosen, names, header, told)


def source_of(recording: FrameSource | str | Path | Sequence[Frame], gravity_world: Any = None) -> FrameSource:
    """The recording that was meant: an open one, its folder, or frames in memory."""
    if isinstance(recording, (str, Path)):
        from bodyfit.recording.native import open_recording

        return open_recording(recording)
    if isinstance(recording, Sequence):
        from bodyfit.recording.memory import frames_recording

        return frames_recording(recording, gravity_world)
    return recording


def _told(source: FrameSource, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """By sensor (T,) its stamps on the instants' clock, of those sensors whose clock started at another moment.

    Such a clock is told by the usual gap between instants; of a few chosen instants a server would not know it.
    """
    from bodyfit.fit.fit import stamped_delays

    late, out = stamped_delays(source, names), {}
    for name in names:
        stamps = source.stream_timestamps_s.get(f"{name}.depth_s")
        told = source.timestamps_s + late[name]
        if stamps is not None and not np.allclose(told, stamps, rtol=0, atol=1e-9, equal_nan=True):
            out[name] = told
    return out
