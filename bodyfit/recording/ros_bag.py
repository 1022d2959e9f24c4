"""ROS 1 bags (`.bag`) and ROS 2 bags (folders, `.mcap`, `.db3`) with depth images.

- Sensors: each topic of depth images (sensor_msgs/Image or CompressedImage) that has a camera_info beside it, in the
  same namespace, is one; named after the namespace above. Where depth registered to the colour camera
  (`aligned_depth_to_color`, `depth_registered`) stands beside the raw depth, the raw one is taken if tf says where the
  colour camera is.
- Colour: the topic of colour images with a camera_info whose name has most in common with the depth's; where it stands
  is told by tf between the frames that the messages name. One frame for both: T_color_depth is the identity.
- Depth units, encodings, row steps: ros_images.py. Intrinsics, lens models, axes, tf: ros_cameras.py.
- World: `map`, `world` or `odom` where tf connects it with the depth camera, which then tells gravity too; else the
  topmost frame that it is connected with.
- Times: those in the messages' headers, where there are any; else the recorder's. Timestamps count from the first depth
  image; `stream_timestamps_s` has the headers' times.
- Containers: rosbag1.py, rosbag2.py, mcap.py. Recordings of RealSense's own software: realsense_bag.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import BodyfitError, CameraError, RecordingError
from bodyfit.recording.bag import Bag
from bodyfit.recording.bag_recording import BagImages, common_times, instants, sensor_images
from bodyfit.recording.description import MAX_SENSORS, Sensor
from bodyfit.recording.realsense_bag import is_realsense, open_realsense
from bodyfit.recording.recording import Recording
from bodyfit.recording.ros_cameras import UPRIGHT_FRAMES, FrameTree, camera_infos, camera_of, frame_tree
from bodyfit.recording.ros_images import COMPRESSED, GREY, IMAGE, ImageTopic, image_topic
from bodyfit.recording.ros_messages import CameraInfo
from bodyfit.recording.rosbag1 import MAGIC as ROSBAG1_MAGIC
from bodyfit.recording.rosbag1 import Rosbag1
from bodyfit.recording.rosbag2 import open_rosbag2

_NOT_DEPTH = re.compile(r"(^|[/_])(ir|infra\w*|confidence|disparity|mask|label\w*)([/_0-9]|$)", re.IGNORECASE)
_REGISTERED = re.compile(r"aligned|registered|depth_to_(rgb|color)", re.IGNORECASE)
_RECTIFIED = re.compile(r"image_rect(_color)?$")
_NAMED_COLOR = re.compile(r"(^|[/_])(color|colour|rgb)", re.IGNORECASE)
GRAVITY = (0.0, 0.0, -1.0)


def open_bag(path: Path) -> Bag:
    """Opens whatever kind of bag lies at `path`.

    Raises:
        RecordingError: none, or a damaged one.
        MissingExtraError: a compression whose package is not installed.
    """
    if not path.is_dir():
        try:
            with open(path, "rb") as file:
                head = file.read(len(ROSBAG1_MAGIC))
        except OSError as problem:
            raise RecordingError(path.name, "a readable file", problem.strerror or str(problem)) from None
        if head.startswith(b"#ROSBAG"):
            return Rosbag1(path)
    return open_rosbag2(path)


def open_ros(path: Path) -> Recording:
    """Opens the bag at `path`: reads its index, the cameras, tf, and the headers of its images.

    Raises:
        RecordingError: no bag, a damaged one, no depth images, or none with a camera_info.
        CameraError: a calibration that makes no sense.
        MissingExtraError: a compression whose package is not installed.
    """
    bag = open_bag(path)
    try:
        return open_realsense(path, bag) if is_realsense(bag) else _open(path, bag)
    except BaseException:
        bag.close()
        raise


def _open(path: Path, bag: Bag) -> Recording:
    notes = list(bag.notes)
    images = _image_topics(bag, notes)
    infos = camera_infos(bag, notes)
    tree = frame_tree(bag, notes)
    cameras: dict[str, Camera] = {}
    why_not: list[BodyfitError] = []
    for one in images:
        try:
            cameras[one.topic.name] = _camera(bag, one, infos, notes)
        except (RecordingError, CameraError) as problem:
            if one.is_depth:
                why_not.append(problem)
    depth = _one_of_each([one for one in images if one.is_depth and one.topic.name in cameras], notes)
    colors = [one for one in images if one.is_color and one.topic.name in cameras]
    if not depth:
        if why_not:
            raise why_not[0]
        names = ", ".join(f"{topic.name} ({topic.type})" for topic in list(bag.topics.values())[:8])
        raise RecordingError(f"{bag.name}: topics", "depth images (16UC1 or 32FC1) of sensor_msgs/Image", names)
    notes.extend(f"A depth topic is left out: {problem}." for problem in why_not)
    chosen = _without_registered([(one, _color_of(one, colors, tree, len(depth))) for one in depth], tree, notes)
    roots = {one.topic.name: _world(one.frame, tree) for one, _ in chosen}
    described: list[tuple[Sensor, ImageTopic, ImageTopic | None]] = []
    for (one, color), name in zip(chosen, _names([one for one, _ in chosen]), strict=True):
        T_color_depth = _color_place(name, one, color, tree, notes) if color is not None else None
        if T_color_depth is None:
            color = None
        color_camera = cameras[color.topic.name] if color is not None else None
        place = roots[one.topic.name][1]
        sensor = Sensor(name, cameras[one.topic.name], place, color_camera, T_color_depth)
        described.append((sensor, one, color))
        notes.append(
            f"{name}: depth of {one.topic.name}, " + (f"colour of {color.topic.name}." if color else "no colour.")
        )
    topics = [topic for _, *pair in described for topic in pair if topic is not None]
    times = dict(zip((topic.topic.name for topic in topics), common_times(topics, notes), strict=True))
    every = [
        sensor_images(sensor, one, times[one.topic.name], color, times[color.topic.name] if color else None, notes)
        for sensor, one, color in described
    ]
    gravity = _gravity({root for root, _ in roots.values()}, notes)
    timeline, table = instants(every, notes)
    sensors = [one.sensor for one in every]
    return Recording(path, "ros", sensors, timeline, gravity, BagImages(bag, every, table), notes)


def _image_topics(bag: Bag, notes: list[str]) -> list[ImageTopic]:
    """The topics of depth and colour, raw ones before compressed ones of the same images."""
    found: list[ImageTopic] = []
    for topic in sorted(bag.topics.values(), key=lambda one: (one.type != IMAGE, one.name)):
        if topic.type not in (IMAGE, COMPRESSED) or not len(topic) or topic.name.endswith("/theora"):
            continue
        try:
            one = image_topic(bag, topic)
        except RecordingError as problem:
            notes.append(f"{topic.name} is left out: {problem}.")
            continue
        if _NOT_DEPTH.search(one.name) or (one.encoding == "mono16" and "depth" not in one.name.lower()):
            continue
        if any(other.name == one.name and other.is_depth == one.is_depth for other in found):
            continue
        if one.is_depth or one.is_color:
            found.append(one)
        else:
            notes.append(f"{topic.name} is left out: encoding {one.encoding[:40]!r} is not read.")
    return found


def _camera(bag: Bag, images: ImageTopic, infos: dict[str, CameraInfo], notes: list[str]) -> Camera:
    """The camera of a topic's images, by the calibration in its namespace, or the only one of its frame and size."""
    wanted = f"{images.namespace}/camera_info"
    info = infos.get(wanted) or infos.get(f"{images.name}/camera_info")
    if info is None:
        same = [
            name
            for name, one in infos.items()
            if one.header.frame == images.frame and images.size in (None, (one.width, one.height))
        ]
        if len(same) != 1 or not images.frame:
            names = ", ".join(list(infos)[:6]) or "no camera_info at all"
            hint = f"rosbag info {bag.name}; record {wanted} too"
            raise RecordingError(f"{bag.name}: {images.name}", f"its calibration in {wanted}", names, hint)
        info = infos[same[0]]
        notes.append(f"{images.name} has no camera_info beside it: {same[0]}, of the same frame and size, is used.")
    is_rectified = bool(_RECTIFIED.search(images.name))
    return camera_of(f"{bag.name}: {wanted}", info, images.size, is_rectified=is_rectified)


def _one_of_each(depth: list[ImageTopic], notes: list[str]) -> list[ImageTopic]:
    """One topic of each namespace: `image_rect` and `image_raw` are the same camera's."""
    by_namespace: dict[str, ImageTopic] = {}
    for one in depth:
        kept = by_namespace.setdefault(one.namespace, one)
        if kept is not one:
            notes.append(f"{one.topic.name} is not read: {kept.topic.name} is of the same camera.")
    if len(by_namespace) > MAX_SENSORS:
        raise RecordingError("depth topics", f"at most {MAX_SENSORS}", f"{len(by_namespace)}")
    return list(by_namespace.values())


def _parts(images: ImageTopic) -> list[str]:
    return [part for part in images.namespace.split("/") if part]


def _in_common(a: ImageTopic, b: ImageTopic) -> int:
    """How many leading parts two namespaces share."""
    pairs = list(zip(_parts(a), _parts(b), strict=False))
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))


def _color_of(depth: ImageTopic, colors: list[ImageTopic], tree: FrameTree, sensors: int) -> ImageTopic | None:
    """The colour topic that goes with a depth topic."""
    candidates = [one for one in colors if sensors == 1 or _in_common(depth, one) or one.frame == depth.frame]

    def rank(one: ImageTopic) -> tuple:
        place = one.frame == depth.frame or tree.between(one.frame, depth.frame) is not None
        is_grey = one.encoding in GREY
        rectified = bool(_RECTIFIED.search(one.name))
        return (
            place,
            _in_common(depth, one),
            not is_grey,
            bool(_NAMED_COLOR.search(one.name)),
            not rectified,
            one.name,
        )

    return max(candidates, key=rank, default=None)


def _without_registered(
    pairs: list[tuple[ImageTopic, ImageTopic | None]], tree: FrameTree, notes: list[str]
) -> list[tuple[ImageTopic, ImageTopic | None]]:
    """Depth that was registered to colour and depth as it was taken, of one camera: one of the two."""
    dropped: set[str] = set()
    for one, color in pairs:
        is_registered = bool(_REGISTERED.search(one.name)) or (color is not None and color.frame == one.frame)
        if not is_registered:
            continue
        for raw, raw_color in pairs:
            same_device = raw is not one and _in_common(raw, one) >= len(_parts(one)) - 1
            if same_device and not _REGISTERED.search(raw.name) and raw.frame != one.frame:
                has_place = raw_color is not None and tree.between(raw_color.frame, raw.frame) is not None
                loser = one if has_place or color is None else raw
                winner = raw if loser is one else one
                dropped.add(loser.topic.name)
                notes.append(f"{loser.topic.name} is not read: {winner.topic.name} is of the same camera.")
                break
    return [pair for pair in pairs if pair[0].topic.name not in dropped]


def _color_place(
    name: str, depth: ImageTopic, color: ImageTopic, tree: FrameTree, notes: list[str]
) -> NDArray[np.float64] | None:
    """T_color_depth by the frames that the messages name; None, and a note, where tf does not connect them."""
    if depth.frame == color.frame:
        notes.append(f"{name}: depth and colour are of one frame, {depth.frame!r}: depth is registered to colour.")
        return np.eye(4)
    T_color_depth = tree.between(color.frame, depth.frame)
    if T_color_depth is None:
        notes.append(
            f"{name}: the colour of {color.topic.name} is left out: no tf_static leads from {depth.frame!r} to"
            f" {color.frame!r}."
        )
    return T_color_depth


def _world(frame: str, tree: FrameTree) -> tuple[str, NDArray[np.float64]]:
    """The world's frame and T_world_depth: a frame that stands upright, or the topmost one."""
    chain = tree.chain(frame)
    for upright in UPRIGHT_FRAMES:
        for name, T in chain:
            if name == upright:
                return name, T
    return chain[-1]


def _gravity(roots: set[str], notes: list[str]) -> NDArray[np.float64] | None:
    if len(roots) > 1:
        notes.append(
            f"No tf_static connects the depth cameras ({', '.join(sorted(roots))}): where they stand to each other is"
            " not known, and each has a world of its own."
        )
        return None
    root = next(iter(roots))
    if root in UPRIGHT_FRAMES:
        notes.append(f"The world is the frame {root!r}, whose z axis points up.")
        return np.array(GRAVITY)
    notes.append(f"The world is the frame {root!r}; where down is there is not told.")
    return None


def _names(depth: list[ImageTopic]) -> list[str]:
    """Short names of the sensors: what stands above `depth` in their topics' names."""
    names: list[str] = []
    for one in depth:
        parts = _parts(one) or ["depth"]
        above = parts[:-1] or parts
        short = "_".join(part for i, part in enumerate(above) if i == 0 or part != above[i - 1])
        names.append(re.sub(r"[^A-Za-z0-9_.-]", "_", short).lstrip(".-")[:48] or "depth")
    folded = [name.casefold() for name in names]
    return [
        f"{name}_{folded[:i].count(name.casefold())}" if folded.count(name.casefold()) > 1 else name
        for i, name in enumerate(names)
    ]
