"""RealSense recordings: by librealsense itself, from a software device; and `.bag` in its layout, by `rosbags`.

librealsense 2.59 records `.db3` only, and plays both; 2.56 and before record `.bag`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from format_writers.ros1 import Layout, Maker, Message, type_store, write_messages

from bodyfit.camera import Camera
from bodyfit.frame import Frame
from bodyfit.recording import Sensor

MODELS = {
    "none": "None",
    "brown_conrady": "Brown Conrady",
    "inverse_brown_conrady": "Inverse Brown Conrady",
    "modified_brown_conrady": "Modified Brown Conrady",
}
START_MS = 5000.25


@dataclass(frozen=True)
class Lens:
    """librealsense's lens model of a stream, and its coefficients."""

    model: str = "brown_conrady"
    coefficients: tuple[float, ...] = (0.0,) * 5


def record(
    path: Path,
    sensor: Sensor,
    frames: Sequence[Frame],
    *,
    color_lens: Lens | None = None,
    reference: bool = False,
    compress: bool = True,
) -> Path:
    """Records frames of a software device, by librealsense's own recorder.

    Args:
        path: ends in `.db3` or `.bag`.
        sensor: with a depth unit; where it stands is not recorded.
        frames: of that sensor.
        color_lens: of the colour stream.
        compress: as recorders do by default: chunks by LZ4 in `.bag`, images as PNG files in `.db3`.
        reference: an infrared stream comes first, so that neither depth nor colour is what places refer to.
    """
    import pyrealsense2

    rs: Any = pyrealsense2
    device = rs.software_device()
    device.register_info(rs.camera_info.name, "Software device")
    device.register_info(rs.camera_info.serial_number, "0001")
    stereo, rgb = device.add_sensor("Stereo Module"), device.add_sensor("RGB Camera")
    profiles: list[Any] = []
    if reference:
        infrared = _stream(rs, rs.stream.infrared, 2, sensor.depth_camera, rs.format.y8, 1, Lens())
        profiles.append(stereo.add_video_stream(infrared))
    depth = stereo.add_video_stream(_stream(rs, rs.stream.depth, 0, sensor.depth_camera, rs.format.z16, 2, Lens()))
    profiles.append(depth)
    stereo.add_read_only_option(rs.option.depth_units, sensor.depth_unit_m)
    color: Any = None
    if sensor.color_camera is not None and sensor.T_color_depth is not None:
        lens = color_lens or Lens()
        color = rgb.add_video_stream(_stream(rs, rs.stream.color, 1, sensor.color_camera, rs.format.rgb8, 3, lens))
        profiles.append(color)
        if reference:
            T_depth_infrared = np.eye(4)
            T_depth_infrared[:3, 3] = (-0.05, 0.002, 0.001)
            profiles[0].register_extrinsics_to(depth, _extrinsics(rs, T_depth_infrared))
            profiles[0].register_extrinsics_to(color, _extrinsics(rs, sensor.T_color_depth @ T_depth_infrared))
        else:
            depth.register_extrinsics_to(color, _extrinsics(rs, sensor.T_color_depth))
    recorder = rs.recorder(str(path), device, compress)
    queue = rs.frame_queue(100, True)
    opened = []
    for one, streams in zip(recorder.query_sensors(), ([p for p in profiles if p is not color], [color]), strict=True):
        if streams != [None]:
            wanted = {profile.unique_id() for profile in streams}
            one.open([p for p in one.get_stream_profiles() if p.unique_id() in wanted])
            one.start(queue)
            opened.append(one)
    for number, frame in enumerate(frames, start=1):
        counts = np.rint(frame.depth.astype(np.float64) / sensor.depth_unit_m).astype(np.uint16)
        _send(rs, stereo, depth, counts[..., None], number, frame.timestamp_s)
        if color is not None and frame.color is not None:
            _send(rs, rgb, color, frame.color, number, frame.timestamp_s)
        time.sleep(0.01)  # the recorder writes on a thread of its own
    for one in opened:
        one.stop()
        one.close()
    del recorder, opened, one
    return path


def _send(rs: Any, sensor: Any, profile: Any, pixels: np.ndarray, number: int, timestamp_s: float) -> None:
    frame = rs.software_video_frame()
    frame.pixels = np.ascontiguousarray(pixels)
    frame.bpp = pixels.shape[2] * pixels.itemsize
    frame.stride = pixels.shape[1] * frame.bpp
    frame.timestamp = START_MS + timestamp_s * 1000
    frame.domain = rs.timestamp_domain.hardware_clock
    frame.frame_number = number
    frame.profile = profile.as_video_stream_profile()
    sensor.on_video_frame(frame)


def _stream(rs: Any, kind: Any, uid: int, camera: Camera, form: Any, bytes_a_pixel: int, lens: Lens) -> Any:
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height = camera.width, camera.height
    intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy = camera.fx, camera.fy, camera.cx, camera.cy
    intrinsics.model, intrinsics.coeffs = getattr(rs.distortion, lens.model), list(lens.coefficients)
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid, stream.fmt = kind, 0, uid, form
    stream.width, stream.height, stream.fps, stream.bpp = camera.width, camera.height, 30, bytes_a_pixel
    stream.intrinsics = intrinsics
    return stream


def _extrinsics(rs: Any, T: np.ndarray) -> Any:
    """p_to = R p_from + t; the nine numbers go down the columns."""
    extrinsics = rs.extrinsics()
    extrinsics.rotation = T[:3, :3].T.ravel().tolist()
    extrinsics.translation = T[:3, 3].tolist()
    return extrinsics


def write(
    path: Path,
    sensor: Sensor,
    frames: Sequence[Frame],
    *,
    color_lens: Lens | None = None,
    container: str = "",
    domains: tuple[str, str] = ("Hardware Clock", "Hardware Clock"),
    tail: bytes = b"\x6f\x12\x83\x39",
) -> Path:
    """Writes a `.bag` as librealsense 2.55 does, with the writer of `rosbags`.

    Args:
        container: `lz4` or nothing.
        domains: clocks of depth and colour.
        tail: what librealsense has behind an image message's end.
    """
    from rosbags.typesys import get_types_from_msg

    store = type_store()
    info_definition = "uint32 fps\nstring encoding\nbool is_recommended"
    store.register(get_types_from_msg(info_definition, "realsense_msgs/msg/StreamInfo"))
    maker = Maker(store, Layout(bag_delay_ns=0))
    out = [Message("/file_version", "std_msgs/msg/UInt32", 1, maker.types["std_msgs/msg/UInt32"](data=4))]

    def say(topic: str, key: str, value: str, at: int = 1) -> None:
        content = maker.types["diagnostic_msgs/msg/KeyValue"](key=key, value=value)
        out.append(Message(topic, "diagnostic_msgs/msg/KeyValue", at, content))

    say("/device_0/info", "Name", "Software device")
    say("/device_0/info", "Serial Number", "0001")
    say("/device_0/sensor_0/info", "Name", "Stereo Module")
    say("/device_0/sensor_1/info", "Name", "RGB Camera")
    unit = maker.types["std_msgs/msg/Float32"](data=float(np.float32(sensor.depth_unit_m)))
    out.append(Message("/device_0/sensor_0/option/Depth_Units/value", "std_msgs/msg/Float32", 1, unit))
    text = maker.types["std_msgs/msg/String"](data="Number of meters represented by a single depth unit")
    out.append(Message("/device_0/sensor_0/option/Depth_Units/description", "std_msgs/msg/String", 1, text))
    streams = [("/device_0/sensor_0/Depth_0", "mono16", sensor.depth_camera, Lens(), np.eye(4), domains[0])]
    if sensor.color_camera is not None and sensor.T_color_depth is not None:
        lens = color_lens or Lens()
        streams.append(
            ("/device_0/sensor_1/Color_0", "rgb8", sensor.color_camera, lens, sensor.T_color_depth, domains[1])
        )
    for stream, encoding, camera, lens, T, _ in streams:
        kind = maker.types["realsense_msgs/msg/StreamInfo"]
        content = kind(fps=30, encoding=encoding, is_recommended=False)
        out.append(Message(f"{stream}/info", "realsense_msgs/msg/StreamInfo", 1, content))
        info = maker.camera_info(maker.header(0, ""), camera, MODELS[lens.model])
        info.D = np.array(lens.coefficients)
        out.append(Message(f"{stream}/info/camera_info", "sensor_msgs/msg/CameraInfo", 1, info))
        out.append(Message(f"{stream}/tf/1", "geometry_msgs/msg/Transform", 1, maker.pose(T)))
    for number, frame in enumerate(frames, start=1):
        at = 1_000_000 + round(frame.timestamp_s * 1e9)
        for stream, encoding, *_, domain in streams:
            pixels = frame.color if encoding == "rgb8" else None
            if encoding == "mono16":
                pixels = np.rint(frame.depth.astype(np.float64) / sensor.depth_unit_m).astype(np.uint16)
            if pixels is None:
                continue
            shift = 1.7e12 if domain == "System Time" else START_MS
            header = maker.header(round((shift + frame.timestamp_s * 1000) * 1e6), "0")
            header.seq = number
            image = store.serialize_ros1(maker.image(header, encoding, pixels), "sensor_msgs/msg/Image")
            out.append(Message(f"{stream}/image/data", "sensor_msgs/msg/Image", at, bytes(image) + tail))
            say(f"{stream}/image/metadata", "system_time", "0.000000", at)
            say(f"{stream}/image/metadata", "timestamp_domain", domain, at)
    return write_messages(path, store, out, Layout(bag_delay_ns=0, container=container))
