"""ROS 1 bags by the writer of `rosbags`: what a driver of depth cameras publishes, from frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bodyfit.camera import Camera
from bodyfit.frame import Frame
from bodyfit.recording import Sensor
from bodyfit.rotation import axis_angle_from_matrix

EPOCH_NS = 1_700_000_000_250_000_000
INVERSE_DEPTH = (1000.0, -10.0)
"""A and B of compressed depth in floats: depth = A / (c - B)"""


@dataclass(frozen=True)
class Layout:
    """How the messages are made.

    Attributes:
        depth: `16UC1`, `mono16`, `32FC1`, `compressedDepth` or `compressedDepth32`.
        color: an encoding of sensor_msgs/Image, `jpeg` or `png`.
        padding: bytes between rows.
        is_bigendian: of raw depth.
        bag_delay_ns: how much later than its stamp a message is recorded.
        world: name of the frame above the sensors; none where empty.
        with_tf, with_stamps, with_info: whether these are there.
        container: compression of chunks or messages, as the format's writer calls it.
    """

    depth: str = "16UC1"
    color: str = "rgb8"
    padding: int = 0
    is_bigendian: bool = False
    bag_delay_ns: int = 40_000_000
    world: str = "map"
    with_tf: bool = True
    with_stamps: bool = True
    with_info: bool = True
    container: str = ""


class Message(NamedTuple):
    """One message before it is coded."""

    topic: str
    type: str
    time_ns: int
    content: Any


class Maker:
    """Makes messages of a type store, which is that of ROS 1 or of ROS 2."""

    def __init__(self, store: Any, layout: Layout) -> None:
        self.types, self.layout = store.types, layout
        self.has_seq = "seq" in self.types["std_msgs/msg/Header"].__dataclass_fields__

    def messages(self, sensors: Sequence[Sensor], frames: Sequence[Frame]) -> list[Message]:
        """All that is recorded: tf first, then for each frame its images and calibrations."""
        out: list[Message] = []
        if self.layout.with_tf:
            content = self._kind("tf2_msgs/msg/TFMessage")(transforms=self.transforms(sensors))
            out.append(Message("/tf_static", "tf2_msgs/msg/TFMessage", EPOCH_NS - 1, content))
        by_name = {sensor.name: sensor for sensor in sensors}
        for frame in frames:
            sensor = by_name[frame.sensor]
            stamp = EPOCH_NS + round(frame.timestamp_s * 1e9)
            out += self.depth(sensor, frame, stamp)
            if frame.color is not None and sensor.color_camera is not None:
                out += self.color(sensor, frame, stamp + 3_000_000)
        return out

    def depth(self, sensor: Sensor, frame: Frame, stamp: int) -> list[Message]:
        header = self.header(stamp, f"{sensor.name}_depth_optical_frame")
        topic = f"/{sensor.name}/depth/image_rect_raw"
        if self.layout.depth.startswith("compressedDepth"):
            content = self.compressed_depth(header, frame.depth)
            image = Message(f"{topic}/compressedDepth", "sensor_msgs/msg/CompressedImage", stamp, content)
        else:
            if self.layout.depth == "32FC1":
                pixels = np.where(frame.depth > 0, frame.depth, np.float32(np.nan)).astype(np.float32)
            else:
                pixels = np.rint(frame.depth * 1000).astype(np.uint16)
            content = self.image(header, self.layout.depth, pixels)
            image = Message(topic, "sensor_msgs/msg/Image", stamp, content)
        return [image, *self.info(f"/{sensor.name}/depth", header, sensor.depth_camera, stamp)]

    def color(self, sensor: Sensor, frame: Frame, stamp: int) -> list[Message]:
        assert frame.color is not None and sensor.color_camera is not None
        header = self.header(stamp, f"{sensor.name}_color_optical_frame")
        topic = f"/{sensor.name}/color/image_raw"
        if self.layout.color in ("jpeg", "png"):
            done, data = cv2.imencode(f".{self.layout.color}", frame.color[..., ::-1])
            assert done
            content = self._kind("sensor_msgs/msg/CompressedImage")(
                header=header, format=f"rgb8; {self.layout.color} compressed bgr8", data=data.ravel()
            )
            image = Message(f"{topic}/compressed", "sensor_msgs/msg/CompressedImage", stamp, content)
        else:
            content = self.image(header, self.layout.color, coded_color(frame.color, self.layout.color))
            image = Message(topic, "sensor_msgs/msg/Image", stamp, content)
        return [image, *self.info(f"/{sensor.name}/color", header, sensor.color_camera, stamp)]

    def header(self, stamp: int, frame: str) -> Any:
        if not self.layout.with_stamps:
            stamp = 0
        time = self._kind("builtin_interfaces/msg/Time")(sec=stamp // 10**9, nanosec=stamp % 10**9)
        sequence = {"seq": 0} if self.has_seq else {}
        return self._kind("std_msgs/msg/Header")(stamp=time, frame_id=frame, **sequence)

    def image(self, header: Any, encoding: str, pixels: np.ndarray) -> Any:
        if self.layout.is_bigendian:
            pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
        rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(len(pixels), -1)
        rows = np.pad(rows, ((0, 0), (0, self.layout.padding)), constant_values=77)
        return self._kind("sensor_msgs/msg/Image")(
            header=header,
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=int(self.layout.is_bigendian),
            step=rows.shape[1],
            data=rows.ravel(),
        )

    def compressed_depth(self, header: Any, depth: np.ndarray) -> Any:
        """As compressed_depth_image_transport does it: a configuration, and a PNG of counts or of inverse depth."""
        a, b = INVERSE_DEPTH
        encoding, counts = "16UC1", np.rint(depth * 1000).astype(np.uint16)
        if self.layout.depth == "compressedDepth32":
            encoding = "32FC1"
            inverse = a / np.where(depth > 0, depth, 1.0) + b
            counts = np.where(depth > 0, np.rint(inverse), 0).astype(np.uint16)
        done, data = cv2.imencode(".png", counts)
        assert done
        packed = np.frombuffer(struct.pack("<iff", 0, a, b) + data.tobytes(), np.uint8)
        kind = self._kind("sensor_msgs/msg/CompressedImage")
        return kind(header=header, format=f"{encoding}; compressedDepth png", data=packed)

    def info(self, namespace: str, header: Any, camera: Camera, stamp: int) -> list[Message]:
        if not self.layout.with_info:
            return []
        content = self.camera_info(header, camera)
        return [Message(f"{namespace}/camera_info", "sensor_msgs/msg/CameraInfo", stamp, content)]

    def camera_info(self, header: Any, camera: Camera, model: str = "") -> Any:
        lens = camera.distortion
        D = np.array(lens.coefficients or (0.0,) * 5)
        P = np.zeros((3, 4))
        P[:, :3] = camera.K
        roi = self._kind("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        names = ("D", "K", "R", "P") if self.has_seq else ("d", "k", "r", "p")
        matrices = dict(zip(names, (D, camera.K.ravel(), np.eye(3).ravel(), P.ravel()), strict=True))
        return self._kind("sensor_msgs/msg/CameraInfo")(
            header=header,
            height=camera.height,
            width=camera.width,
            distortion_model=model or ("rational_polynomial" if lens.model == "rational" else "plumb_bob"),
            binning_x=0,
            binning_y=0,
            roi=roi,
            **matrices,
        )

    def transforms(self, sensors: Sequence[Sensor]) -> list[Any]:
        """world → link → depth and colour: the link is turned as ROS has it, x forward."""
        T_link_depth = np.eye(4)
        T_link_depth[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        out = []
        for sensor in sensors:
            link = f"{sensor.name}_link"
            if self.layout.world:
                T_world_link = sensor.T_world_depth @ np.linalg.inv(T_link_depth)
                out.append(self.transform(self.layout.world, link, T_world_link))
            out.append(self.transform(link, f"{sensor.name}_depth_optical_frame", T_link_depth))
            if sensor.T_color_depth is not None:
                T_link_color = T_link_depth @ np.linalg.inv(sensor.T_color_depth)
                out.append(self.transform(link, f"{sensor.name}_color_optical_frame", T_link_color))
        return out

    def transform(self, parent: str, child: str, T: np.ndarray) -> Any:
        return self._kind("geometry_msgs/msg/TransformStamped")(
            header=self.header(EPOCH_NS, parent), child_frame_id=child, transform=self.pose(T)
        )

    def pose(self, T: np.ndarray) -> Any:
        turn = axis_angle_from_matrix(T[:3, :3])
        angle = float(np.linalg.norm(turn))
        x, y, z = turn * (np.sin(angle / 2) / angle if angle > 1e-12 else 0.5)
        translation = self._kind("geometry_msgs/msg/Vector3")(*(float(v) for v in T[:3, 3]))
        rotation = self._kind("geometry_msgs/msg/Quaternion")(float(x), float(y), float(z), float(np.cos(angle / 2)))
        return self._kind("geometry_msgs/msg/Transform")(translation=translation, rotation=rotation)

    def _kind(self, name: str) -> Any:
        return self.types[name]


def coded_color(color: np.ndarray, encoding: str) -> np.ndarray:
    """(H, W, C) pixels of an encoding, of RGB."""
    alpha = np.full((*color.shape[:2], 1), 9, np.uint8)
    if encoding in ("yuv422", "yuv422_yuy2"):
        luma, chroma = color[..., :1], np.where(np.arange(color.shape[1])[None, :, None] % 2 == 0, 90, 160)
        pair = [chroma.astype(np.uint8) + np.zeros_like(luma), luma]
        return np.concatenate(pair if encoding == "yuv422" else pair[::-1], -1)
    return {
        "rgb8": lambda: color,
        "bgr8": lambda: color[..., ::-1],
        "rgba8": lambda: np.concatenate([color, alpha], -1),
        "bgra8": lambda: np.concatenate([color[..., ::-1], alpha], -1),
        "mono8": lambda: color[..., :1],
    }[encoding]()


def type_store() -> Any:
    """The messages of ROS Noetic, and tf's, which are not among those that `rosbags` brings."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
    return store


def write(path: Path, sensors: Sequence[Sensor], frames: Sequence[Frame], layout: Layout | None = None) -> Path:
    """Writes the bag `path`; chunks are compressed where `layout.container` is `bz2` or `lz4`."""
    layout = layout or Layout()
    store = type_store()
    return write_messages(path, store, Maker(store, layout).messages(sensors, frames), layout)


def write_messages(path: Path, store: Any, messages: Sequence[Message], layout: Layout) -> Path:
    """Writes messages that were made; small chunks, so that there are several."""
    from rosbags.rosbag1 import Writer

    writer = Writer(path)
    writer.chunk_threshold = 1 << 14
    if layout.container:
        writer.set_compression(Writer.CompressionFormat[layout.container.upper()])
    with writer:
        connections: dict[str, Any] = {}
        for message in messages:
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(message.topic, message.type, typestore=store)
            raw = message.content
            if not isinstance(raw, bytes):
                raw = store.serialize_ros1(raw, message.type)
            writer.write(connections[message.topic], message.time_ns + layout.bag_delay_ns, raw)
    return path


def not_closed(whole: Path, path: Path) -> Path:
    """The same bag as a recorder leaves it that died: no index at the end, and the header does not tell of one."""
    data = bytearray(whole.read_bytes())
    where = data.index(b"index_pos=") + len(b"index_pos=")
    end = int.from_bytes(data[where : where + 8], "little")
    data[where : where + 8] = bytes(8)
    path.write_bytes(data[:end])
    return path


def died_within_a_chunk(whole: Path, path: Path) -> Path:
    """The same of a recorder that died while it wrote a chunk: its length is not yet told, and nothing follows."""
    from rosbags.rosbag1 import Reader

    with Reader(whole) as reader:
        start = reader.chunk_infos[-1].pos
        chunk = reader.chunks[start]
    data = bytearray(not_closed(whole, path).read_bytes()[: chunk.datapos + chunk.datasize])
    size = data.index(b"size=", start) + len(b"size=")
    data[size : size + 4] = bytes(4)
    data[chunk.datapos - 4 : chunk.datapos] = bytes(4)
    path.write_bytes(data)
    return path
