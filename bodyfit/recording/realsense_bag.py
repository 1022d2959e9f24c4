"""Recordings of librealsense (RealSense Viewer, `rs-record`, `rs.recorder`): `.bag`, and `.db3` since version 2.59.

Read without librealsense. The layout, after librealsense's src/media/ros/ros_file_format.h and ros_writer.cpp, and
after files that `pyrealsense2` 2.55 (`.bag`) and 2.59 (`.db3`) wrote, which the tests make anew:

- `/device_0/sensor_0/Depth_0/image/data`: sensor_msgs/Image, `mono16` for Z16; colour `rgb8`, `bgr8`, `yuyv` …; in
  `.db3`, unless the recorder was told not to compress, PNG files: `…/data/compressedDepth` and `…/data/compressed`.
- Intrinsics: `…/info/camera_info`, a sensor_msgs/CameraInfo whose distortion_model is librealsense's name for it;
  in `.db3` `…/camera_info`, `model=…;coeffs=…`, and the numbers in `…/image/camera_info`. Pixel (0, 0) is centred at
  (0, 0) (rs2_deproject_pixel_to_point subtracts ppx as it is); axes are OpenCV's.
- Lens models, after rs2_project_point_to_pixel (rsutil.h): `Brown Conrady` is OpenCV's. `Modified` and `Inverse Brown
  Conrady` apply the tangential part to points that the radial part has moved already; they are taken as the nearest
  Brown-Conrady model, by least squares over the image, and a note says how near. (Real D400 depth has none, and their
  colour cameras' coefficients are zero, or `Inverse` in name.)
- `…/tf/N` in `.bag`: geometry_msgs/Transform from the reference stream of group N to this one,
  p_stream = R p_reference + t; in `.db3` /tf_static, as ROS has it, p_ref = T_ref_stream p_stream.
- `…/option/Depth_Units/value`: metres per count.
- Times: a frame's own clock, in `.bag` the image's header stamp, in `.db3` `timestamp=` (ms) among `…/image/metadata`;
  `timestamp_domain` says which clock it is. Depth and colour of different clocks are paired by when they were recorded.
- A software device's or a camera's own world: none. It is the depth camera's frame.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion
from bodyfit.errors import CameraError, RecordingError
from bodyfit.recording.bag import Bag, Topic
from bodyfit.recording.bag_recording import (
    BagImages,
    SensorImages,
    Times,
    header_times,
    instants,
    recorder_times,
    rising_times,
    sensor_images,
)
from bodyfit.recording.description import Sensor
from bodyfit.recording.recording import Recording
from bodyfit.recording.ros_cameras import camera_of, frame_tree
from bodyfit.recording.ros_images import COMPRESSED, IMAGE, ImageTopic, image_topic
from bodyfit.recording.ros_messages import Cursor, read_camera_info, read_transform
from bodyfit.recording.undistort import undistort_pixels

_DATA = re.compile(r"(/device_\d+)(/sensor_\d+)/(\w+)_(\d+)/image/data(?:/compressed|/compressedDepth)?$", re.ASCII)
_MODELS = {
    "none": "none",
    "brown conrady": "brown_conrady",
    "plumb_bob": "brown_conrady",
    "modified brown conrady": "modified",
    "inverse brown conrady": "modified",
}
DEFAULT_DEPTH_UNIT_M = 0.001
RECORDERS_CLOCK = "the recorder's clock"
_MAX_TEXT_BYTES = 1 << 16
_GRID = 25


def is_realsense(bag: Bag) -> bool:
    """True where librealsense wrote the bag."""
    return any(_DATA.match(name) for name in bag.topics)


def open_realsense(path: Path, bag: Bag) -> Recording:
    """Makes a recording of a bag that librealsense wrote.

    Raises:
        RecordingError: no depth images, an encoding that is not read, or streams without a calibration.
        CameraError: a calibration that makes no sense.
    """
    notes = list(bag.notes)
    every: list[SensorImages] = []
    devices = sorted({match[1] for name in bag.topics if (match := _DATA.match(name))})
    for device in devices:
        depth_topics = _streams(bag, device, "Depth")
        if not depth_topics:
            notes.append(f"{device} has no depth images and is left out.")
            continue
        name = "realsense" if len(devices) == 1 else f"realsense_{device.rsplit('_', 1)[-1]}"
        every.append(_sensor(bag, device, name, depth_topics[0], notes))
    if not every:
        names = ", ".join(name for name in bag.topics if _DATA.match(name))
        raise RecordingError(f"{bag.name}: topics", "a stream Depth", names)
    if len(every) > 1:
        notes.append("Where the devices stand to each other is not known: each has a world of its own.")
    timeline, table = instants(every, notes)
    sensors = [one.sensor for one in every]
    return Recording(path, "realsense", sensors, timeline, None, BagImages(bag, every, table), notes)


def _streams(bag: Bag, device: str, kind: str) -> list[Topic]:
    """The image topics of a device's streams of a kind, in the order of their numbers."""
    found = []
    for topic in bag.topics.values():
        match = _DATA.match(topic.name)
        if match and match[1] == device and match[3] == kind and topic.type in (IMAGE, COMPRESSED) and len(topic):
            found.append((int(match[4][:6]), topic.name, topic))
    return [topic for _, _, topic in sorted(found, key=lambda one: one[:2])]


def _sensor(bag: Bag, device: str, name: str, depth_topic: Topic, notes: list[str]) -> SensorImages:
    depth = image_topic(bag, depth_topic)
    if not depth.is_depth:
        raise RecordingError(f"{bag.name}: {depth_topic.name}: encoding", "mono16 (Z16)", repr(depth.encoding[:40]))
    depth_camera = _camera(bag, depth, notes)
    unit_m = _depth_unit(bag, depth, notes)
    color, color_camera, T_color_depth = _color(bag, device, name, depth, notes)
    sensor = Sensor(name, depth_camera, np.eye(4), color_camera, T_color_depth, unit_m)
    depth_times, domain = _times(bag, depth, notes)
    color_times = None
    if color is not None:
        color_times, color_domain = _times(bag, color, notes)
        if domain != color_domain or not _overlap(depth_times, color_times):
            notes.append(
                f"{name}: depth is timed by {domain or 'an unknown clock'}, colour by"
                f" {color_domain or 'an unknown clock'}: they are paired by when the computer recorded them."
            )
            domain = RECORDERS_CLOCK
            depth_times = recorder_times(depth, notes)
            color_times = recorder_times(color, notes)
    notes.append(f"{name}: times are of {domain or 'a clock that is not told'}; the world is the depth camera's frame.")
    return sensor_images(sensor, depth, depth_times, color, color_times, notes)


def _color(
    bag: Bag, device: str, name: str, depth: ImageTopic, notes: list[str]
) -> tuple[ImageTopic | None, Camera | None, NDArray[np.float64] | None]:
    """The colour stream, its camera and T_color_depth; a note where the recording opens without."""
    topics = _streams(bag, device, "Color")
    if not topics:
        notes.append(f"{name}: the recording has no colour.")
        return None, None, None
    try:
        color = image_topic(bag, topics[0])
        if not color.is_color:
            raise RecordingError(
                f"{topics[0].name}: encoding", "rgb8, bgr8, rgba8, bgra8 or yuyv", repr(color.encoding[:40])
            )
        T_color_depth = _between(bag, color, depth)
        if T_color_depth is None:
            raise RecordingError(f"{topics[0].name}: tf", "where colour stands to depth", "nothing that tells it")
        return color, _camera(bag, color, notes), T_color_depth
    except (RecordingError, CameraError) as problem:
        notes.append(f"{name}: colour is left out: {problem}.")
        return None, None, None


def _stream(images: ImageTopic) -> str:
    """A stream's topic without what comes behind it: /device_0/sensor_0/Depth_0."""
    return images.name.removesuffix("/image/data")


def _first(bag: Bag, name: str, kind: str) -> bytes | None:
    """The first message of a topic, or None where there is none of this type."""
    topic = bag.topics.get(name)
    return bag.message(topic, 0) if topic is not None and topic.type == kind and len(topic) else None


def _text_of(bag: Bag, name: str) -> dict[str, str]:
    """A std_msgs/String of `key=value;…`."""
    data = _first(bag, name, "std_msgs/String")
    return (
        {}
        if data is None
        else _values(Cursor(f"{bag.name}: {name}", data, bag.topics[name].is_cdr).text(_MAX_TEXT_BYTES))
    )


def _values(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _camera(bag: Bag, images: ImageTopic, notes: list[str]) -> Camera:
    stream = _stream(images)
    for name in (f"{stream}/info/camera_info", f"{stream}/image/camera_info"):
        data = _first(bag, name, "sensor_msgs/CameraInfo")
        if data is None:
            continue
        where = f"{bag.name}: {name}"
        info = read_camera_info(where, data, bag.topics[name].is_cdr)
        model = _text_of(bag, f"{stream}/camera_info").get("model", info.model)
        camera = camera_of(where, info._replace(D=()), images.size, is_rectified=False)
        return _with_lens(where, camera, model, info.D, notes)
    raise RecordingError(f"{bag.name}: {stream}/info/camera_info", "the stream's intrinsics", "no such message")


def _with_lens(where: str, camera: Camera, model: str, D: tuple[float, ...], notes: list[str]) -> Camera:
    """The camera with librealsense's lens model, as bodyfit has it."""
    if not any(D):
        return camera
    kind = _MODELS.get(model.replace("_", " ").lower()) or _MODELS.get(model.lower())
    if kind is None or len(D) < 5 or not all(math.isfinite(value) for value in D[:5]):
        raise CameraError(f"{where}: distortion_model", "Brown Conrady or no distortion", f"{model[:40]!r} with {D}")
    if kind == "none":
        return camera
    if kind == "brown_conrady":
        return replace(camera, distortion=Distortion("brown_conrady", tuple(D[:5])))
    lens, worst_px = nearest_brown_conrady(camera, D)
    notes.append(f"{where}: {model} is read as the nearest Brown-Conrady model: {worst_px:.3f} pixels off at most.")
    return replace(camera, distortion=lens)


def modified_brown_conrady(x: NDArray[np.float64], y: NDArray[np.float64], D: tuple[float, ...]) -> tuple:
    """librealsense's distortion of points on the plane z = 1: the tangential part of what the radial part moved."""
    k1, k2, p1, p2, k3 = D[:5]
    s = x * x + y * y
    f = 1 + s * (k1 + s * (k2 + s * k3))
    x, y = x * f, y * f
    s = x * x + y * y
    return x + 2 * p1 * x * y + p2 * (s + 2 * x * x), y + 2 * p2 * x * y + p1 * (s + 2 * y * y)


def nearest_brown_conrady(camera: Camera, D: tuple[float, ...]) -> tuple[Distortion, float]:
    """OpenCV's coefficients nearest to librealsense's modified model over an image, and the largest error in pixels.

    The model is linear in its coefficients: one least-squares solution, on the directions of a grid of pixels.
    """
    u, v = np.meshgrid(np.linspace(0, camera.width - 1, _GRID), np.linspace(0, camera.height - 1, _GRID))
    pixels = np.stack([u.ravel(), v.ravel()], -1)
    # where the pixels look, nearly: the two models differ by second-order terms only
    rough = undistort_pixels(replace(camera, distortion=Distortion("brown_conrady", tuple(D[:5]))), pixels)
    rough = rough[np.isfinite(rough).all(axis=-1)]
    if len(rough) < len(pixels) // 2:
        raise CameraError("distortion.coefficients", "a lens model that can be inverted over the image", str(D[:5]))
    x, y = (rough[:, 0] - camera.cx) / camera.fx, (rough[:, 1] - camera.cy) / camera.fy
    xd, yd = modified_brown_conrady(x, y, D)
    s = x * x + y * y
    rows_x = np.stack([x * s, x * s**2, 2 * x * y, s + 2 * x * x, x * s**3], -1) * camera.fx
    rows_y = np.stack([y * s, y * s**2, s + 2 * y * y, 2 * x * y, y * s**3], -1) * camera.fy
    wanted = np.concatenate([(xd - x) * camera.fx, (yd - y) * camera.fy])
    rows = np.concatenate([rows_x, rows_y])
    found = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    worst = float(np.abs(rows @ found - wanted).max())
    return Distortion("brown_conrady", tuple(float(value) for value in found)), worst


def _depth_unit(bag: Bag, depth: ImageTopic, notes: list[str]) -> float:
    """Metres per count, of the sensor that the stream belongs to."""
    name = f"{_stream(depth).rsplit('/', 1)[0]}/option/Depth_Units/value"
    data = _first(bag, name, "std_msgs/Float32")
    unit = math.nan
    if data is not None:
        unit = float(Cursor(f"{bag.name}: {name}", data, bag.topics[name].is_cdr).numbers("f")[0])
    elif (data := _first(bag, name, "std_msgs/String")) is not None:
        unit = _number(Cursor(f"{bag.name}: {name}", data, bag.topics[name].is_cdr).text())
    else:
        notes.append(f"The depth's unit is not told; {DEFAULT_DEPTH_UNIT_M * 1000:g} mm, most cameras', is assumed.")
        return DEFAULT_DEPTH_UNIT_M
    # the file has 32 bits of it: 0.0002500000118743628 is meant to be 0.00025
    return float(f"{unit:.7g}")


def _number(text: str) -> float:
    try:
        return float(text[:64])
    except ValueError:
        return math.nan


def _between(bag: Bag, color: ImageTopic, depth: ImageTopic) -> NDArray[np.float64] | None:
    """T_color_depth: the same one where the extrinsics of the two streams name the same group."""
    tree = frame_tree(bag, [])
    T = tree.between(color.frame, depth.frame) if color.frame != depth.frame else None
    if T is not None:
        return T
    to_color, to_depth = _to_streams(bag, _stream(color)), _to_streams(bag, _stream(depth))
    for group, T_color_reference in to_color.items():
        if group in to_depth:
            return T_color_reference @ np.linalg.inv(to_depth[group])
    return None


def _to_streams(bag: Bag, stream: str) -> dict[str, NDArray[np.float64]]:
    """T_stream_reference by group."""
    found: dict[str, NDArray[np.float64]] = {}
    for topic in bag.topics.values():
        if topic.name.startswith(f"{stream}/tf/") and topic.type == "geometry_msgs/Transform" and len(topic):
            where = f"{bag.name}: {topic.name}"
            cursor = Cursor(where, bag.message(topic, 0), topic.is_cdr)
            found[topic.name.rsplit("/", 1)[-1]] = read_transform(where, cursor)
    return found


def _times(bag: Bag, images: ImageTopic, notes: list[str]) -> tuple[Times, str]:
    """A stream's times, and the name of their clock."""
    name = f"{_stream(images)}/image/metadata"
    topic = bag.topics.get(name)
    if topic is None or not len(topic):
        times = header_times(images, notes)
        return times, RECORDERS_CLOCK if times.is_recorders else ""
    where = f"{bag.name}: {name}"
    if topic.type == "diagnostic_msgs/KeyValue":
        domain = ""
        # one message for each value; the clock does not change within a recording
        for k in range(min(len(topic), 100)):
            cursor = Cursor(where, bag.head(topic, k, 1024), topic.is_cdr)
            if cursor.text() == "timestamp_domain":
                domain = cursor.text()
                break
        times = header_times(images, notes)
        return times, RECORDERS_CLOCK if times.is_recorders else domain
    if topic.type != "std_msgs/String" or len(topic) != len(images.topic):
        notes.append(f"{images.topic.name}: the images' metadata is not complete; the recorder's times are used.")
        return recorder_times(images, notes), RECORDERS_CLOCK
    stamps = np.zeros(len(topic), np.int64)
    domain = ""
    for k in range(len(topic)):
        values = _values(Cursor(where, bag.message(topic, k), topic.is_cdr).text(_MAX_TEXT_BYTES))
        milliseconds = _number(values.get("timestamp", ""))
        domain = domain or values.get("timestamp_domain", "")
        if not 0 <= milliseconds < 1e14:
            notes.append(f"{images.topic.name}: images without a time of their own; the recorder's times are used.")
            return recorder_times(images, notes), RECORDERS_CLOCK
        stamps[k] = round(milliseconds * 1e6)
    times = rising_times(images, stamps, notes)
    return times, RECORDERS_CLOCK if times.is_recorders else domain


def _overlap(a: Times, b: Times) -> bool:
    """Whether two streams were taken at the same time, within a period."""
    slack = max(a.period_ns, b.period_ns)
    return bool(a.ns[0] <= b.ns[-1] + slack and b.ns[0] <= a.ns[-1] + slack)
