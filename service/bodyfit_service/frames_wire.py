"""Frames that were sent, made into what a fit takes; and, from its neighbours, all that turns frames to messages and
checks them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bodyfit.camera import Camera
from bodyfit.errors import RecordingError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage, FrameDecoder
from bodyfit.recording.memory import MemoryInstant, MemoryRecording
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.frames_checked import (
    COLOR_FILES,
    COUNT_BYTES,
    RAW_DEPTH,
    ZSTD_DEPTH,
    InstantsCheck,
    below,
    check_header,
    check_instant,
    check_lenses,
    gravity_of,
    keypoints_of,
)
from bodyfit_service.frames_sent import header_message, instant_message, recording_messages
from bodyfit_service.limits import Limits
from bodyfit_service.zstd import unpacked

__all__ = [
    "InstantDecoder",
    "check_header",
    "check_instant",
    "check_lenses",
    "frames_of",
    "gravity_of",
    "header_message",
    "instant_message",
    "make_recording",
    "recording_messages",
]


def make_recording(
    header: pb.RecordingHeader, instants: Iterable[pb.Instant], limits: Limits, field: str = "instants"
) -> MemoryRecording:
    """A recording of what was sent. Images are decoded when a frame is asked for, each time anew.

    Args:
        header, instants: as they came; they must stay as they are while the recording is used.
        limits: how much it may be.
        field: what errors call the instants.

    Raises:
        InputError: as of check_header, check_lenses and check_instant, of all instants together. Images that turn out
            broken once they are decoded raise ImageError or FrameError from `frame`, with the field's name.
    """
    sensors = check_header(header, limits)
    check_lenses(sensors)
    taken: list[MemoryInstant] = []
    last_stamps: dict[str, float] = {}
    check = InstantsCheck(sensors, limits, field)
    for instant in instants:
        where = check.next_field
        check.take(instant)
        stamps = {f.sensor: f.depth_timestamp_s for f in instant.frames if f.HasField("depth_timestamp_s")}
        for n, frame in enumerate(instant.frames):
            if frame.sensor in stamps and stamps[frame.sensor] < last_stamps.get(frame.sensor, -math.inf):
                expected = f"{last_stamps[frame.sensor]:g} s as at the instant before, or later"
                raise RecordingError(f"{where}.frames[{n}].depth_timestamp_s", expected, f"{stamps[frame.sensor]:g} s")
        last_stamps |= stamps
        taken.append(MemoryInstant(instant.index, instant.timestamp_s, _encoded(instant, sensors, where), stamps))
    if not taken:
        raise RecordingError(field, "at least one instant", "none")
    return MemoryRecording(sensors, taken, gravity_of(header))


class InstantDecoder:
    """Makes frames of one instant after the other, as a live stream sends them.

    Args:
        sensors: as check_header gave them.
        limits: the most bytes of an instant.

    Raises:
        CameraError: a lens that cannot be undistorted.
    """

    def __init__(self, sensors: Sequence[Sensor], limits: Limits) -> None:
        check_lenses(sensors)
        self._sensors, self._limits = tuple(sensors), limits
        self._decoder = FrameDecoder(sensors)

    def frames(self, instant: pb.Instant, field: str = "") -> list[Frame]:
        """The frames of an instant, in the order of the sensors.

        Raises:
            InputError: as of check_instant, or an image that turns out broken; without frames, too.
        """
        check_instant(instant, self._sensors, self._limits, field)
        encoded = _encoded(instant, self._sensors, field)
        if not encoded:
            raise RecordingError(below(field, "frames"), "at least one sensor's frame", "none")
        return [
            self._decoder.frame(s.name, encoded[s.name], index=instant.index, timestamp_s=instant.timestamp_s)
            for s in self._sensors
            if s.name in encoded
        ]


def frames_of(instant: pb.Instant, sensors: Sequence[Sensor], limits: Limits, field: str = "") -> list[Frame]:
    """The frames of one instant; for many, InstantDecoder keeps what undistorts a sensor's images.

    Raises:
        InputError: see InstantDecoder.frames.
    """
    return InstantDecoder(sensors, limits).frames(instant, field)


def _encoded(instant: pb.Instant, sensors: Sequence[Sensor], where: str) -> dict[str, EncodedFrame]:
    by_name = {sensor.name: sensor for sensor in sensors}
    return {
        frame.sensor: _encoded_frame(frame, by_name[frame.sensor], below(where, f"frames[{n}]"))
        for n, frame in enumerate(instant.frames)
    }


def _encoded_frame(frame: pb.SensorFrame, sensor: Sensor, where: str) -> EncodedFrame:
    color = mask = keypoints = None
    if frame.HasField("color"):
        coding = Coding.FILE if frame.color.encoding in COLOR_FILES else Coding.UINT8
        color = EncodedImage(f"{where}.color", coding, lambda: frame.color.data)
    if frame.HasField("mask"):
        coding = Coding.FILE if frame.mask.encoding == pb.MASK_ENCODING_PNG else Coding.UINT8
        mask = EncodedImage(f"{where}.mask", coding, lambda: frame.mask.data)
    if frame.HasField("keypoints"):
        keypoints = keypoints_of(f"{where}.keypoints", frame.keypoints, sensor)
    return EncodedFrame(_encoded_depth(frame, sensor.depth_camera, f"{where}.depth"), color, mask, keypoints)


def _encoded_depth(frame: pb.SensorFrame, camera: Camera, field: str) -> EncodedImage:
    encoding = frame.depth.encoding
    if encoding in ZSTD_DEPTH:
        coding = ZSTD_DEPTH[encoding]
        wanted = camera.width * camera.height * COUNT_BYTES[coding]
        return EncodedImage(field, coding, lambda: unpacked(field, frame.depth.data, wanted))
    return EncodedImage(field, RAW_DEPTH.get(encoding, Coding.FILE), lambda: frame.depth.data)
