"""Cameras and places of ROS recordings: sensor_msgs/CameraInfo and tf.

Sources: sensor_msgs/CameraInfo: K, D and P are of the full image; `roi` cuts it, in pixels of the full image, and
`binning` then makes it smaller (applied in this order by image_geometry's PinholeCameraModel, whose K is divided by the
binning without a half-pixel shift). `plumb_bob` is k1 k2 t1 t2 k3, `rational_polynomial` k1 k2 t1 t2 k3 k4 k5 k6, both
OpenCV's; so are pixel centres. Rectified images (topics `image_rect`) have P's intrinsics and no distortion (wiki of
image_proc). Optical frames: z forward, x right, y down (REP 103), which is bodyfit's camera; `world`, `map` and `odom`
have z up (REP 103, REP 105). tf: p_parent = T_parent_child p_child.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion
from bodyfit.errors import CameraError, RecordingError
from bodyfit.recording.bag import Bag
from bodyfit.recording.ros_messages import CameraInfo, Transform, read_camera_info, read_transforms

CAMERA_INFO = "sensor_msgs/CameraInfo"
TF_TYPES = ("tf2_msgs/TFMessage", "tf/tfMessage")
UPRIGHT_FRAMES = ("world", "map", "odom")
"""frames whose z axis points up"""
_MAX_TF_MESSAGES = 2000
_MAX_CHAIN = 100
_COUNTS = {"plumb_bob": 5, "rational_polynomial": 8}


def camera_of(where: str, info: CameraInfo, size: tuple[int, int] | None, *, is_rectified: bool) -> Camera:
    """The camera of images of a size (width, height), or of the size that the calibration says.

    Raises:
        CameraError: not calibrated, a lens model that is not read, another size, or numbers that make no sense.
    """
    fx, cx, fy, cy = info.K[0], info.K[2], info.K[4], info.K[5]
    distortion = Distortion()
    if is_rectified and info.P[0] > 0:
        fx, cx, fy, cy = info.P[0], info.P[2], info.P[5], info.P[6]
    elif not is_rectified:
        distortion = distortion_of(where, info.model, info.D)
    if fx == 0:
        raise CameraError(f"{where}: K", "a calibrated camera", "zeros")
    bin_x, bin_y = (max(1, factor) for factor in info.binning)
    x, y, height, width = info.roi
    if (height, width) == (0, 0):
        x, y, height, width = 0, 0, info.height, info.width
    width, height = width // bin_x, height // bin_y
    if size is not None and size != (width, height):
        raise CameraError(f"{where}: size", f"{size[0]} × {size[1]} pixels, as the images have", f"{width} × {height}")
    try:
        return Camera(width, height, fx / bin_x, fy / bin_y, (cx - x) / bin_x, (cy - y) / bin_y, distortion)
    except CameraError as problem:
        field = problem.field.removeprefix("camera.")
        raise CameraError(f"{where}: {field}", problem.expected, problem.found) from None


def distortion_of(where: str, model: str, D: tuple[float, ...]) -> Distortion:
    """A lens model by its name in ROS.

    Raises:
        CameraError: one that is not read and does something.
    """
    if not any(D):
        return Distortion()
    if model in _COUNTS or (not model and len(D) in (4, 5)):
        wanted = _COUNTS.get(model, 5)
        if len(D) >= 4 and not any(D[wanted:]):
            values = tuple((*D[:wanted], *(0.0,) * wanted)[:wanted])
            return Distortion("rational" if wanted == 8 else "brown_conrady", values)
        raise CameraError(f"{where}: D", f"4 to {wanted} coefficients of {model}", f"{len(D)}")
    expected = "plumb_bob or rational_polynomial, or no distortion"
    raise CameraError(f"{where}: distortion_model", expected, repr(model[:40]))


def camera_infos(bag: Bag, notes: list[str]) -> dict[str, CameraInfo]:
    """The calibrations of a bag by their topic: each one's first message; a note where a later one differs."""
    found: dict[str, CameraInfo] = {}
    for topic in bag.topics.values():
        if topic.type != CAMERA_INFO or not len(topic):
            continue
        where = f"{bag.name}: {topic.name}"
        try:
            first = read_camera_info(where, bag.message(topic, 0), topic.is_cdr)
            last = read_camera_info(where, bag.message(topic, len(topic) - 1), topic.is_cdr)
        except RecordingError as problem:
            notes.append(f"{topic.name} is left out: {problem}.")
            continue
        if first._replace(header=last.header) != last:
            notes.append(f"{topic.name} changes during the recording: its first message is used.")
        found[topic.name] = first
    return found


class FrameTree:
    """Coordinate frames that do not move against each other.

    Args:
        transforms: the later of two for one child counts.
    """

    def __init__(self, transforms: list[Transform]) -> None:
        self._parents = {one.child: (one.parent, one.T_parent_child) for one in transforms if one.child != one.parent}

    def __contains__(self, frame: str) -> bool:
        return frame in self._parents or any(parent == frame for parent, _ in self._parents.values())

    def chain(self, frame: str) -> list[tuple[str, NDArray[np.float64]]]:
        """A frame and those above it up to the root, each with T_it_frame."""
        T = np.eye(4)
        found = [(frame, T)]
        while frame in self._parents and len(found) < _MAX_CHAIN:
            frame, T_parent = self._parents[frame]
            T = T_parent @ T
            found.append((frame, T))
        return found

    def between(self, a: str, b: str) -> NDArray[np.float64] | None:
        """T_a_b, or None where nothing connects the two."""
        above_a = dict(self.chain(a))
        for frame, T_frame_b in self.chain(b):
            if frame in above_a:
                return np.linalg.inv(above_a[frame]) @ T_frame_b
        return None


def frame_tree(bag: Bag, notes: list[str]) -> FrameTree:
    """The fixed transforms of a bag: those of `tf_static`, and those of `tf` that are the same in all messages."""
    fixed: list[Transform] = []
    moving: set[tuple[str, str]] = set()
    for topic in bag.topics.values():
        if topic.type not in TF_TYPES or not len(topic):
            continue
        is_static = topic.name.rsplit("/", 1)[-1] == "tf_static"
        seen: dict[tuple[str, str], Transform] = {}
        # a recording's own transforms, spread over all of it where there are very many
        for k in np.unique(np.linspace(0, len(topic) - 1, min(len(topic), _MAX_TF_MESSAGES)).astype(int)):
            where = f"{bag.name}: {topic.name}"
            try:
                for one in read_transforms(where, bag.message(topic, int(k)), topic.is_cdr):
                    edge = (one.parent, one.child)
                    first = seen.setdefault(edge, one)
                    if is_static:
                        seen[edge] = one
                    elif not np.allclose(first.T_parent_child, one.T_parent_child, atol=1e-6):
                        moving.add(edge)
            except RecordingError as problem:
                notes.append(f"A message of {topic.name} is left out: {problem}.")
        # what tf_static says goes before what tf repeats
        fixed = [*fixed, *seen.values()] if is_static else [*seen.values(), *fixed]
    still = [one for one in fixed if (one.parent, one.child) not in moving]
    if moving:
        names = ", ".join(f"{parent} → {child}" for parent, child in sorted(moving)[:4])
        notes.append(f"Transforms that change during the recording ({names}) are not used: each sensor stands still.")
    return FrameTree(still)
