"""A recording's frames as a sensor would give them: counts, images as they are stored, lens distortion in them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.capture.source import Captured, PlayedSource
from bodyfit.errors import ImageError, InputError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import Coding, EncodedImage, decoded_depth
from bodyfit.recording.images import decode_color
from bodyfit.recording.native_files import depth_counts
from bodyfit.recording.recording import Recording

JPEG_HEAD = b"\xff\xd8\xff"


def replay_source(recording: Recording, *, sensor_name: str | None = None, speed: float = 1.0) -> PlayedSource:
    """A recording of any readable format, paced by its timestamps.

    Args:
        sensor_name: one of its sensors; None: the only one.
        speed: see `PlayedSource`.

    Raises:
        InputError: several sensors and none chosen. RecordingError: no such sensor.
    """
    sensors = list(recording.sensors)
    if sensor_name is None and len(sensors) > 1:
        names = ", ".join(s.name for s in sensors)
        raise InputError("--sensor", f"one of {names}", "none", "a capture has one sensor")
    sensor = sensors[0] if sensor_name is None else recording.sensor(sensor_name)
    notes = ("masks, keypoints and places of a moving sensor are not replayed",)
    return PlayedSource(
        "replay", sensor, _recorded(recording, sensor), gravity_world=recording.gravity_world, speed=speed,
        settings={"format": recording.format}, notes=notes,
    )  # fmt: skip


def _recorded(recording: Recording, sensor: Sensor) -> Iterator[Captured]:
    color_times = recording.stream_timestamps_s.get(f"{sensor.name}.color_s")
    depth_times = recording.stream_timestamps_s.get(f"{sensor.name}.depth_s")
    for i in range(recording.num_frames):
        encoded = recording.encoded(i, sensor.name)
        if encoded is None:
            continue
        time_s = float(recording.timestamps_s[i])
        depth = decoded_depth(encoded.depth, sensor.depth_camera)
        if encoded.depth.coding is Coding.FLOAT32:
            counts = depth_counts(encoded.depth.name, depth, sensor.depth_unit_m)
        else:
            counts = depth.astype(np.uint16, copy=False)
        color: NDArray[np.uint8] | bytes | None = None
        color_s: float | None = None
        if encoded.color is not None and sensor.color_camera is not None:
            color = _color(encoded.color, sensor.color_camera)
            color_s = time_s
            if color_times is not None and depth_times is not None:
                lag = float(color_times[i] - depth_times[i])
                color_s = time_s + lag if np.isfinite(lag) else None
        yield Captured(counts, time_s, color, color_s)


def _color(image: EncodedImage, camera: Camera) -> NDArray[np.uint8] | bytes:
    """A JPEG file as it is; else the pixels (Hc, Wc, 3)."""
    data = image.load()
    if image.coding is not Coding.FILE:
        shape = (camera.height, camera.width, 3)
        if len(data) != camera.height * camera.width * 3:
            raise ImageError(image.name, f"{shape} bytes", f"{len(data)}")
        return np.frombuffer(data, np.uint8).reshape(shape)
    pixels = decode_color(image.name, data, camera)
    return data if data.startswith(JPEG_HEAD) else pixels


def captured_of(frame: Frame, sensor: Sensor, number: int | None = None) -> Captured:
    """A frame as a sensor gives it: counts and colour, whose times are one."""
    counts = depth_counts(f"frame {frame.index}", frame.depth, sensor.depth_unit_m)
    return Captured(counts, frame.timestamp_s, frame.color, frame.timestamp_s, number)


def back_and_forth(
    frames: list[Captured], fps: float, *, numbered: bool = True
) -> Iterator[Captured]:  # fmt: skip
    """The frames forwards, then backwards, and so on without an end: nobody jumps from the last to the first."""
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)] or [0]
    k = 0
    while True:
        c = frames[order[k % len(order)]]
        yield Captured(c.depth, k / fps, c.color, k / fps, k if numbered else None, k if numbered else None)
        k += 1
