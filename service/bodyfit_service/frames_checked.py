"""What messages of frames say of themselves, checked before anything in them is decoded: an image's header must have
its camera's size, and a compressed one must declare it, so that no small message fills the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import DISTORTION_COEFFICIENTS, Camera, Distortion
from bodyfit.errors import CameraError, ImageError, InputError, RecordingError
from bodyfit.frame import Keypoints
from bodyfit.recording.description import Sensor, check_names
from bodyfit.recording.encoded import Coding
from bodyfit.recording.images import COLOR, DEPTH, MASK, ImageKind, check_image, max_file_bytes, read_header
from bodyfit.recording.keypoints import NAMES, checked_keypoints
from bodyfit.recording.memory import unit_gravity
from bodyfit.recording.undistort import check_invertible
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.enums import DISTORTION_MODELS
from bodyfit_service.errors import TooLargeError
from bodyfit_service.limits import Limits
from bodyfit_service.zstd import check_frame

T = TypeVar("T")

MAX_TIME_S = 1e11
"""some thousand years: what is beyond is milliseconds, or no time at all"""
MIN_STEP_S = 1e-6
"""no sensor takes a million images a second, and speeds are differences over this"""

RAW_DEPTH = {pb.DEPTH_ENCODING_RAW_UINT16: Coding.UINT16, pb.DEPTH_ENCODING_RAW_FLOAT32: Coding.FLOAT32}
ZSTD_DEPTH = {pb.DEPTH_ENCODING_ZSTD_UINT16: Coding.UINT16, pb.DEPTH_ENCODING_ZSTD_FLOAT32: Coding.FLOAT32}
COUNT_BYTES = {Coding.UINT16: 2, Coding.FLOAT32: 4}
COLOR_FILES = {pb.COLOR_ENCODING_JPEG: "JPEG", pb.COLOR_ENCODING_PNG: "PNG"}


def check_header(header: pb.RecordingHeader, limits: Limits, field: str = "header") -> tuple[Sensor, ...]:
    """The sensors of a recording that was sent, each looked at; their lenses are left to check_lenses.

    Args:
        header: as it came.
        limits: the most sensors and pixels.
        field: what errors call the header.

    Raises:
        RecordingError: no sensors, names that are none or come twice, a unit that no sensor has.
        CameraError: intrinsics or transforms that make no sense.
        TooLargeError: more sensors, or more pixels, than allowed.
    """
    if len(header.sensors) > limits.max_sensors:
        raise TooLargeError(f"{field}.sensors", f"at most {limits.max_sensors}", str(len(header.sensors)))
    check_names(f"{field}.sensors", [sensor.name for sensor in header.sensors])
    sensors = tuple(_sensor(s, f"{field}.sensors[{i}]", limits) for i, s in enumerate(header.sensors))
    gravity_of(header, field)
    return sensors


def check_lenses(sensors: Sequence[Sensor], field: str = "header") -> None:
    """Refuses lenses that cannot be undistorted. Some ten milliseconds for each camera that was not looked at
    lately: no work for a process that other requests wait for.

    Raises:
        CameraError: with the field's name.
    """
    for i, sensor in enumerate(sensors):
        check_invertible(f"{field}.sensors[{i}].depth_camera", sensor.depth_camera)
        if sensor.color_camera is not None:
            check_invertible(f"{field}.sensors[{i}].color_camera", sensor.color_camera)


def gravity_of(header: pb.RecordingHeader, field: str = "header") -> NDArray[np.float64] | None:
    """(3,) unit vector in world coordinates, or None where it was not sent.

    Raises:
        RecordingError: not a unit vector.
    """
    if not header.HasField("gravity_world"):
        return None
    gravity = header.gravity_world
    return unit_gravity(f"{field}.gravity_world", (gravity.x, gravity.y, gravity.z))


def _sensor(message: pb.Sensor, field: str, limits: Limits) -> Sensor:
    depth_camera = _camera(message, "depth_camera", field, limits)
    if depth_camera is None:
        raise CameraError(f"{field}.depth_camera", "a camera", "none")
    color_camera = _camera(message, "color_camera", field, limits)
    T_color_depth = _matrix(message.t_color_depth, f"{field}.t_color_depth")
    T_world_depth = _matrix(message.t_world_depth, f"{field}.t_world_depth")
    if color_camera is not None and T_color_depth is None:
        raise CameraError(f"{field}.t_color_depth", "a 4×4 matrix beside color_camera", "none")
    sensor = Sensor(
        message.name,
        depth_camera,
        np.eye(4) if T_world_depth is None else T_world_depth,
        color_camera,
        T_color_depth,
        message.depth_unit_m if message.depth_unit_m != 0 else 0.001,
    )
    _told_as(f"{field}.", lambda: sensor.check(""))
    return sensor


def _camera(message: pb.Sensor, key: str, field: str, limits: Limits) -> Camera | None:
    if not message.HasField(key):  # pyright: ignore[reportArgumentType] - one of two names
        return None
    field = f"{field}.{key}"
    camera: pb.Camera = getattr(message, key)
    lens = camera.distortion
    model = DISTORTION_MODELS.name(f"{field}.distortion.model", lens.model)
    if len(lens.coefficients) > max(DISTORTION_COEFFICIENTS.values()):
        n = DISTORTION_COEFFICIENTS[model]
        raise CameraError(f"{field}.distortion.coefficients", f"{n} numbers for {model}", f"{len(lens.coefficients)}")
    distortion = _told_as(f"{field}.", lambda: Distortion(model, tuple(lens.coefficients)))
    made = _told_as(
        f"{field}.",
        lambda: Camera(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, distortion),
    )
    if made.width * made.height > limits.max_image_pixels:
        found = f"{made.width} × {made.height}"
        raise TooLargeError(field, f"at most {limits.max_image_pixels} pixels", found)
    return made


def _matrix(message: pb.RigidTransform, field: str) -> NDArray[np.float64] | None:
    if not message.matrix:
        return None
    if len(message.matrix) != 16:
        raise CameraError(f"{field}.matrix", "16 numbers", str(len(message.matrix)))
    return np.array(message.matrix, dtype=np.float64).reshape(4, 4)


def _told_as(field: str, make: Callable[[], T]) -> T:
    """What `make` makes; a refusal is told again with the field's name in the message."""
    try:
        return make()
    except InputError as problem:
        name = problem.field.removeprefix("camera.").lstrip(".")
        name = {"T_world_depth": "t_world_depth", "T_color_depth": "t_color_depth"}.get(name, name)
        raise type(problem)(f"{field}{name}", problem.expected, problem.found, problem.hint) from None


def check_instant(
    instant: pb.Instant,
    sensors: Sequence[Sensor],
    limits: Limits,
    field: str = "instant",
    after_s: float | None = None,
    after_index: int | None = None,
) -> int:
    """Refuses an instant by what its parts say of themselves; nothing is decoded.

    Args:
        instant: as it came.
        sensors: of its recording.
        limits: the most bytes.
        field: what errors call the instant.
        after_s, after_index: time and number of the instant before, where there is one.

    Returns:
        How many pixels its depth and colour images have.

    Raises:
        RecordingError: a number or time that does not rise, a sensor that does not exist or comes twice, keypoints.
        ImageError: an image of another kind or size than its camera's.
        TooLargeError: more bytes than allowed.
    """
    if instant.ByteSize() > limits.max_message_bytes:
        found = f"{instant.ByteSize()} bytes"
        raise TooLargeError(field or "instant", f"at most {limits.max_message_bytes} bytes", found)
    _check_time(below(field, "timestamp_s"), instant.timestamp_s, after_s)
    if after_index is not None and instant.index <= after_index:
        raise RecordingError(below(field, "index"), f"more than {after_index}, the index before it", str(instant.index))
    by_name = {sensor.name: sensor for sensor in sensors}
    seen: set[str] = set()
    pixels = 0
    for n, frame in enumerate(instant.frames):
        where = below(field, f"frames[{n}]")
        if frame.sensor not in by_name:
            names = ", ".join(by_name)
            raise RecordingError(f"{where}.sensor", f"one of the header's sensors ({names})", repr(frame.sensor)[:80])
        if frame.sensor in seen:
            raise RecordingError(f"{where}.sensor", "each sensor once", repr(frame.sensor))
        seen.add(frame.sensor)
        pixels += _check_frame(frame, by_name[frame.sensor], where)
    return pixels


class InstantsCheck:
    """Looks through a recording's instants as they come, and how much they are together.

    Args:
        sensors, limits: of the recording.
        field: what errors call its instants.
    """

    def __init__(self, sensors: Sequence[Sensor], limits: Limits, field: str = "instants") -> None:
        self._sensors, self._limits, self.field = sensors, limits, field
        self._last: tuple[float | None, int | None] = (None, None)
        self.count, self._pixels = 0, 0

    @property
    def next_field(self) -> str:
        """What errors call the next instant."""
        return f"{self.field}[{self.count}]"

    def take(self, instant: pb.Instant) -> None:
        """Refuses the next instant, or one instant too many.

        Raises:
            InputError: as of check_instant.
            TooLargeError: more instants or pixels than one fit may have.
        """
        if self.count >= self._limits.max_instants:
            raise TooLargeError(self.field, f"at most {self._limits.max_instants} instants", "more")
        pixels = self._pixels + check_instant(instant, self._sensors, self._limits, self.next_field, *self._last)
        if pixels > self._limits.max_total_pixels:
            expected = f"at most {self._limits.max_total_pixels} pixels in all images together"
            raise TooLargeError(self.next_field, expected, "more")
        self._last, self._pixels = (instant.timestamp_s, instant.index), pixels
        self.count += 1


def below(field: str, name: str) -> str:
    """The name of a field of a field; of the message itself where that has no name."""
    return f"{field}.{name}" if field else name


def _check_time(field: str, time_s: float, after_s: float | None) -> None:
    if not abs(time_s) <= MAX_TIME_S:
        raise RecordingError(field, "a finite number of seconds", f"{time_s:g}")
    if after_s is not None and time_s < after_s + MIN_STEP_S:
        raise RecordingError(field, f"a time after {after_s:g} s, the one before it", f"{time_s:g} s")


def _check_frame(frame: pb.SensorFrame, sensor: Sensor, where: str) -> int:
    if not frame.HasField("depth"):
        raise ImageError(f"{where}.depth", "a depth image", "none")
    camera = sensor.depth_camera
    _check_depth(f"{where}.depth", frame.depth, camera)
    pixels = camera.width * camera.height
    if frame.HasField("color"):
        if sensor.color_camera is None:
            raise ImageError(f"{where}.color", "no colour of a sensor without color_camera", "an image")
        _check_color(f"{where}.color", frame.color, sensor.color_camera)
        pixels += sensor.color_camera.width * sensor.color_camera.height
    if frame.HasField("mask"):
        _check_mask(f"{where}.mask", frame.mask, camera)
    if frame.HasField("keypoints"):
        keypoints_of(f"{where}.keypoints", frame.keypoints, sensor)
    if frame.HasField("depth_timestamp_s"):
        _check_time(f"{where}.depth_timestamp_s", frame.depth_timestamp_s, None)
    return pixels


def _check_depth(field: str, image: pb.DepthImage, camera: Camera) -> None:
    pixels, coding = camera.width * camera.height, image.encoding
    if coding == pb.DEPTH_ENCODING_PNG16:
        _check_file(DEPTH, field, image.data, camera, "PNG")
    elif coding in RAW_DEPTH:
        _check_bytes(field, image.data, pixels * COUNT_BYTES[RAW_DEPTH[coding]], camera)
    elif coding in ZSTD_DEPTH:
        check_frame(field, image.data, pixels * COUNT_BYTES[ZSTD_DEPTH[coding]])
    else:
        raise ImageError(f"{field}.encoding", "one of DepthEncoding", _number(coding))


def _check_color(field: str, image: pb.ColorImage, camera: Camera) -> None:
    if image.encoding in COLOR_FILES:
        _check_file(COLOR, field, image.data, camera, COLOR_FILES[image.encoding])
    elif image.encoding == pb.COLOR_ENCODING_RAW_RGB8:
        _check_bytes(field, image.data, camera.width * camera.height * 3, camera)
    else:
        raise ImageError(f"{field}.encoding", "one of ColorEncoding", _number(image.encoding))


def _check_mask(field: str, image: pb.MaskImage, camera: Camera) -> None:
    if image.encoding == pb.MASK_ENCODING_PNG:
        _check_file(MASK, field, image.data, camera, "PNG")
    elif image.encoding == pb.MASK_ENCODING_RAW_UINT8:
        _check_bytes(field, image.data, camera.width * camera.height, camera)
    else:
        raise ImageError(f"{field}.encoding", "one of MaskEncoding", _number(image.encoding))


def _number(value: int) -> str:
    return f"the unknown number {value}" if value else "none"


def _check_file(kind: ImageKind, field: str, data: bytes, camera: Camera, wanted: str) -> None:
    if len(data) > max_file_bytes(camera):
        raise ImageError(field, f"at most {max_file_bytes(camera)} bytes for this camera", f"{len(data)} bytes")
    found = read_header(field, data).kind
    if found != wanted:
        raise ImageError(field, f"a {wanted} as its encoding says", f"a {found}")
    check_image(kind, field, data, camera)


def _check_bytes(field: str, data: bytes, wanted: int, camera: Camera) -> None:
    if len(data) != wanted:
        expected = f"{wanted} bytes for {camera.width} × {camera.height} pixels"
        raise ImageError(field, expected, f"{len(data)} bytes")


def keypoints_of(field: str, message: pb.Keypoints, sensor: Sensor) -> Keypoints:
    """Keypoints that were sent, in pixels as recorded.

    Raises:
        RecordingError: lengths that differ, an unknown name, a pixel far outside of the image, no confidence.
    """
    n = len(message.names)
    if n > len(NAMES):
        raise RecordingError(f"{field}.names", f"at most {len(NAMES)} names", str(n))
    if len(message.xy) != 2 * n:
        raise RecordingError(f"{field}.xy", f"{2 * n} numbers for {n} names", str(len(message.xy)))
    xy = np.array(message.xy, dtype=np.float64).reshape(n, 2)
    camera = sensor.color_camera or sensor.depth_camera
    return checked_keypoints(f"{field}.", list(message.names), xy, list(message.confidence), camera)
