"""Frames as messages, for those who send them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import FrameError, InputError
from bodyfit.frame import Frame, Keypoints
from bodyfit.recording.description import Sensor
from bodyfit.recording.images import COLOR, DEPTH, MASK, check_image
from bodyfit.recording.native import Recording
from bodyfit.recording.source import FrameSource
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.enums import DISTORTION_MODELS
from bodyfit_service.zstd import compressed

DepthPacking = Literal["zstd", "raw"]
ColorPacking = Literal["png", "jpeg", "raw"]
JPEG_QUALITY = 95


def header_message(sensors: Sequence[Sensor], gravity_world: NDArray[np.float64] | None = None) -> pb.RecordingHeader:
    """Sensors and gravity as a message.

    Args:
        sensors: for frames that are decoded, with their pinhole cameras (`Sensor.undistorted`).
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.
    """
    header = pb.RecordingHeader(sensors=[_sensor_message(sensor) for sensor in sensors])
    if gravity_world is not None:
        x, y, z = (float(g) for g in gravity_world)
        header.gravity_world.CopyFrom(pb.Vector3(x=x, y=y, z=z))
    return header


def instant_message(
    frames: Sequence[Frame],
    *,
    index: int,
    timestamp_s: float,
    depth: DepthPacking = "zstd",
    color: ColorPacking = "png",
    stamps: Mapping[str, float] | None = None,
) -> pb.Instant:
    """Frames of one instant as a message; all but JPEG comes out again as it went in, to the last bit.

    Args:
        frames: one of each sensor that saw the instant; their sensors go into the header as `Sensor.undistorted`.
        index, timestamp_s: of the instant.
        depth: how depth is packed: floats as they are, or those compressed.
        color: how colour is packed.
        stamps: by sensor, seconds by its own clock when it took its depth image.
    """
    message = pb.Instant(index=index, timestamp_s=timestamp_s)
    for frame in frames:
        seen = message.frames.add(sensor=frame.sensor)
        seen.depth.CopyFrom(_depth_message(frame.depth, depth))
        if frame.color is not None:
            seen.color.CopyFrom(_color_message(frame.color, color))
        if frame.mask is not None:
            values = frame.mask.astype(np.uint8) * np.uint8(255)
            seen.mask.CopyFrom(pb.MaskImage(encoding=pb.MASK_ENCODING_PNG, data=_encode(".png", values)))
        _add_keypoints_and_stamp(seen, frame.keypoints, stamps)
    return message


def recording_messages(
    recording: FrameSource, *, frames: Sequence[int] | None = None, sensors: Sequence[str] | None = None
) -> tuple[pb.RecordingHeader, Iterator[pb.Instant]]:
    """A recording as messages, so that what is made of them fits to the same result, to the last bit. One on disk is
    sent as its files are, and undistorted by who receives it.

    Args:
        recording: on disk or in memory; instants are read one at a time.
        frames: positions in the recording, all where None.
        sensors: names, all where None.

    Raises:
        InputError: a frame or sensor that does not exist; while instants are taken: a broken file, by its name.
    """
    known = [sensor.name for sensor in recording.sensors]
    for name in sensors or ():
        if name not in known:
            raise InputError("sensors", f"names of this recording's sensors ({', '.join(known)})", repr(name))
    # the order in which sensors were asked for is the order in which a fit takes them
    by_name = {sensor.name: sensor for sensor in recording.sensors}
    chosen = [by_name[name] for name in dict.fromkeys(sensors or known)]
    positions = range(recording.num_frames) if frames is None else sorted(set(frames))
    for i in positions:
        if not 0 <= i < recording.num_frames:
            raise InputError("frames", f"positions from 0 to {recording.num_frames - 1}", str(i))
    as_files = isinstance(recording, Recording)
    header = header_message(chosen if as_files else [s.undistorted for s in chosen], recording.gravity_world)
    return header, (_recorded_instant(recording, i, chosen) for i in positions)


def _recorded_instant(recording: FrameSource, i: int, sensors: Sequence[Sensor]) -> pb.Instant:
    index, time_s = int(recording.indices[i]), float(recording.timestamps_s[i])
    stamps = {}
    for sensor in sensors:
        times = recording.stream_timestamps_s.get(f"{sensor.name}.depth_s")
        if times is not None and math.isfinite(times[i]):
            stamps[sensor.name] = float(times[i])
    if not isinstance(recording, Recording):
        frames = [recording.frame(i, sensor.name) for sensor in sensors]
        return instant_message([f for f in frames if f is not None], index=index, timestamp_s=time_s, stamps=stamps)
    message = pb.Instant(index=index, timestamp_s=time_s)
    for sensor in sensors:
        encoded = recording.encoded(i, sensor.name)
        if encoded is None:
            continue
        seen = message.frames.add(sensor=sensor.name)
        data = encoded.depth.load()
        check_image(DEPTH, encoded.depth.name, data, sensor.depth_camera)
        seen.depth.CopyFrom(pb.DepthImage(encoding=pb.DEPTH_ENCODING_PNG16, data=data))
        if encoded.color is not None and sensor.color_camera is not None:
            data = encoded.color.load()
            kind = check_image(COLOR, encoded.color.name, data, sensor.color_camera).kind
            packing = pb.COLOR_ENCODING_PNG if kind == "PNG" else pb.COLOR_ENCODING_JPEG
            seen.color.CopyFrom(pb.ColorImage(encoding=packing, data=data))
        if encoded.mask is not None:
            data = encoded.mask.load()
            check_image(MASK, encoded.mask.name, data, sensor.depth_camera)
            seen.mask.CopyFrom(pb.MaskImage(encoding=pb.MASK_ENCODING_PNG, data=data))
        _add_keypoints_and_stamp(seen, encoded.keypoints, stamps)
    return message


def _add_keypoints_and_stamp(
    seen: pb.SensorFrame, keypoints: Keypoints | None, stamps: Mapping[str, float] | None
) -> None:
    if keypoints is not None:
        xy = keypoints.xy.ravel().tolist()
        seen.keypoints.CopyFrom(pb.Keypoints(names=keypoints.names, xy=xy, confidence=keypoints.confidence.tolist()))
    if stamps and seen.sensor in stamps:
        seen.depth_timestamp_s = stamps[seen.sensor]


def _sensor_message(sensor: Sensor) -> pb.Sensor:
    message = pb.Sensor(
        name=sensor.name,
        depth_camera=_camera_message(sensor.depth_camera),
        t_world_depth=rigid_message(sensor.T_world_depth),
        depth_unit_m=sensor.depth_unit_m,
    )
    if sensor.color_camera is not None:
        message.color_camera.CopyFrom(_camera_message(sensor.color_camera))
    if sensor.T_color_depth is not None:
        message.t_color_depth.CopyFrom(rigid_message(sensor.T_color_depth))
    return message


def _camera_message(camera: Camera) -> pb.Camera:
    message = pb.Camera(
        width=camera.width, height=camera.height, fx=camera.fx, fy=camera.fy, cx=camera.cx, cy=camera.cy
    )
    if camera.distortion.model != "none":
        lens = camera.distortion
        message.distortion.model = DISTORTION_MODELS.number(lens.model)
        message.distortion.coefficients.extend(lens.coefficients)
    return message


def rigid_message(transform: NDArray[np.float64]) -> pb.RigidTransform:
    """A (4, 4) transform as a message."""
    return pb.RigidTransform(matrix=np.asarray(transform, dtype=np.float64).ravel().tolist())


def _depth_message(depth: NDArray[np.float32], packing: DepthPacking) -> pb.DepthImage:
    raw = np.ascontiguousarray(depth, dtype="<f4")
    if packing == "raw":
        return pb.DepthImage(encoding=pb.DEPTH_ENCODING_RAW_FLOAT32, data=raw.tobytes())
    if packing != "zstd":
        raise FrameError("depth", "zstd or raw", repr(packing))
    return pb.DepthImage(encoding=pb.DEPTH_ENCODING_ZSTD_FLOAT32, data=compressed(raw.tobytes()))


def _color_message(color: NDArray[np.uint8], packing: ColorPacking) -> pb.ColorImage:
    if packing == "raw":
        return pb.ColorImage(encoding=pb.COLOR_ENCODING_RAW_RGB8, data=np.ascontiguousarray(color).tobytes())
    if packing == "png":
        return pb.ColorImage(encoding=pb.COLOR_ENCODING_PNG, data=_encode(".png", color[..., ::-1]))
    if packing == "jpeg":
        return pb.ColorImage(encoding=pb.COLOR_ENCODING_JPEG, data=_encode(".jpg", color[..., ::-1]))
    raise FrameError("color", "png, jpeg or raw", repr(packing))


def _encode(suffix: str, image: NDArray) -> bytes:
    import cv2  # late: importing it takes 0.2 s

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    return encoded.tobytes()
