"""RealSense cameras through librealsense (`pyrealsense2`, extra `realsense`); tried with its software device.

Conventions, after librealsense's doc and rsutil.h:

- Axes are OpenCV's, metres; pixel (0, 0) is centred at (0, 0) ("Projection in RealSense SDK 2.0").
- `get_extrinsics_to`: p_to = R p_from + t, R stored by columns (rs2_transform_point_to_point), t in metres.
- Lens models (rs2_project_point_to_pixel): `brown_conrady` is OpenCV's k1 k2 p1 p2 k3. `modified_` and
  `inverse_brown_conrady` apply the tangential part to points that the radial part has moved; with the coefficients of
  real cameras that is less than a tenth of a pixel from OpenCV's, as which they are taken: a note says how much.
  `ftheta` and `kannala_brandt4` (fisheyes) are refused.
- A frame's time is milliseconds of the clock that its domain names: the camera's own (`hardware_clock`), that clock
  brought to this machine's (`global_time`), or this machine's (`system_time`, where the driver lacks metadata).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion, check_rigid
from bodyfit.capture.source import CameraSource, Captured
from bodyfit.errors import CameraError, DeviceError, MissingExtraError
from bodyfit.recording.description import Sensor

DEPTH_SIZES = ((848, 480), (640, 480))
"""the D400's best size, then one that all others have"""
COLOR_SIZE = (1280, 720)
FPS = 30
WORST_LENS_PX = 1.0


class RealSenseSource(CameraSource):
    """One RealSense camera: depth and colour at 30 frames a second, not aligned to each other.

    Args:
        serial: the camera of that serial number; None: the first.
        device: a `pyrealsense2` device to use instead, such as a software device; its default streams are taken.
    """

    kind = "realsense"

    def __init__(self, *, serial: str | None = None, device: Any = None) -> None:
        self.device: Mapping[str, Any] = {}
        self.settings: Mapping[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        self._serial, self._given = serial, device
        self._rs: Any = None
        self._pipeline: Any = None
        self._frames: Any = None
        self._pairs = Pairs(0.5 / FPS)
        self._opened: list[Any] = []
        super().__init__()

    def start(self) -> None:
        """Opens the camera and reads its calibration."""
        rs = self._rs = realsense_module()
        try:
            device, profiles = self._open_given() if self._given is not None else self._open_pipeline()
        except RuntimeError as problem:  # what all of librealsense's errors are
            self.stop()
            raise DeviceError(self.kind, "a RealSense camera", str(problem)[:200]) from None
        streams = {p.stream_type(): p.as_video_stream_profile() for p in profiles if p.is_video_stream_profile()}
        if rs.stream.depth not in streams:
            self.stop()
            raise DeviceError(self.kind, "a camera with depth", "one without")
        depth, color = streams[rs.stream.depth], streams.get(rs.stream.color)
        self._sensor, notes = sensor_of(rs, depth, color, depth_unit_m(rs, device))
        self.notes = notes
        about = {"name": rs.camera_info.name, "firmware": rs.camera_info.firmware_version}
        self.device = {key: device.get_info(info) for key, info in about.items() if device.supports(info)}
        self.settings = {
            key: f"{p.width()}x{p.height()} {str(p.format()).split('.')[-1]} at {p.fps()}"
            for key, p in (("depth", depth), ("color", color))
            if p is not None
        }

    def read(self, timeout_s: float) -> Captured | None:
        """The next depth image, with the colour image that librealsense pairs with it."""
        if self._pipeline is None:
            return self._read_given(timeout_s)
        try:
            came, frames = self._pipeline.try_wait_for_frames(max(int(timeout_s * 1e3), 1))
        except RuntimeError as problem:
            raise DeviceError(self.kind, "a camera that gives frames", str(problem)[:200]) from None
        if not came:
            return None
        frames = frames.as_frameset()
        depth, color = frames.get_depth_frame(), frames.get_color_frame()
        return captured_of(self._rs, depth, color) if depth else None

    def _read_given(self, timeout_s: float) -> Captured | None:
        """As `read`, of single frames, which are paired here."""
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            came, frame = self._frames.try_wait_for_frame(max(int(left * 1e3), 1))
            if came:
                is_depth = frame.get_profile().stream_type() == self._rs.stream.depth
                pair = self._pairs.take(frame, frame.get_timestamp() / 1e3, is_depth=is_depth)
            else:
                pair = self._pairs.rest()
            if pair is not None:
                return captured_of(self._rs, *pair)
            if not came and left <= 0:
                return None

    def stop(self) -> None:
        """Closes the camera."""
        pipeline, self._pipeline = self._pipeline, None
        opened, self._opened = self._opened, []
        try:
            if pipeline is not None:
                pipeline.stop()
            for sensor in opened:
                sensor.stop()
                sensor.close()
        except RuntimeError:
            pass  # it is gone already

    def _open_pipeline(self) -> tuple[Any, list[Any]]:
        rs = self._rs
        if len(rs.context().query_devices()) == 0:
            raise DeviceError(self.kind, "a RealSense camera", "none connected")
        pipeline = rs.pipeline()
        wrapper = rs.pipeline_wrapper(pipeline)
        for width, height in DEPTH_SIZES:
            config = rs.config()
            if self._serial is not None:
                config.enable_device(self._serial)
            config.enable_stream(rs.stream.depth, width, height, rs.format.z16, FPS)
            config.enable_stream(rs.stream.color, *COLOR_SIZE, rs.format.rgb8, FPS)
            if config.can_resolve(wrapper):
                break
        else:
            config = rs.config()
            if self._serial is not None:
                config.enable_device(self._serial)
            config.enable_stream(rs.stream.depth, rs.format.z16)
            config.enable_stream(rs.stream.color, rs.format.rgb8)
        started = pipeline.start(config)
        self._pipeline = pipeline
        return started.get_device(), list(started.get_streams())

    def _open_given(self) -> tuple[Any, list[Any]]:
        rs = self._rs
        self._frames = rs.frame_queue(64, True)
        profiles: list[Any] = []
        for sensor in self._given.query_sensors():
            own = [p for p in sensor.get_stream_profiles() if p.stream_type() in (rs.stream.depth, rs.stream.color)]
            chosen = [p for p in own if p.is_default()] or own[:1]
            if chosen:
                sensor.open(chosen)
                sensor.start(self._frames)
                self._opened.append(sensor)
                profiles += chosen
        self._pairs = Pairs(0.5 / (profiles[0].fps() or FPS) if profiles else 0.5 / FPS)
        self._pairs.has_color = any(p.stream_type() == rs.stream.color for p in profiles)
        return self._given, profiles


class Pairs:
    """Pairs depth with the colour nearest in time, where frames come one by one.

    A depth frame waits for colour that is as late as it is, but not for longer than to the next depth frame.

    Args:
        apart_s: colour further away than this belongs to another depth frame: half a frame's time.
    """

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self.has_color = True
        self._depth: tuple[Any, float] | None = None
        self._colors: list[tuple[Any, float]] = []

    def take(self, frame: Any, time_s: float, *, is_depth: bool) -> tuple[Any, Any] | None:
        """Takes a frame; a depth frame and its colour or None, once that is known."""
        out = None
        if is_depth:
            out = self.rest()
            self._depth = (frame, time_s)
        else:
            self._colors = [*self._colors[-3:], (frame, time_s)]
        if out is None and self._depth is not None:
            at = self._depth[1]
            if not self.has_color or any(t >= at - 1e-4 for _, t in self._colors):
                return self.rest()
        return out

    def rest(self) -> tuple[Any, Any] | None:
        """The depth frame that waits, with the nearest colour so far; None where none waits."""
        if self._depth is None:
            return None
        frame, at = self._depth
        self._depth = None
        near = min(self._colors, key=lambda c: abs(c[1] - at), default=None)
        if near is None or abs(near[1] - at) > self._apart_s:
            return frame, None
        return frame, near[0]


def realsense_module() -> Any:
    """`pyrealsense2`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyrealsense2 as rs
    except ImportError:
        raise MissingExtraError("pyrealsense2", "realsense", "capturing from a RealSense camera") from None
    return rs


def captured_of(rs: Any, depth: Any, color: Any) -> Captured:
    """A depth frame and its colour frame or an empty one, copied: librealsense has few buffers and uses them again."""
    counts = np.array(np.asanyarray(depth.get_data()), dtype=np.uint16)
    if color is None or not color:
        return Captured(counts, depth.get_timestamp() / 1e3, number=depth.get_frame_number())
    pixels = np.asanyarray(color.get_data())
    if color.get_profile().format() == rs.format.bgr8:
        pixels = pixels[..., ::-1]
    one_clock = color.get_frame_timestamp_domain() == depth.get_frame_timestamp_domain()
    return Captured(
        counts,
        depth.get_timestamp() / 1e3,
        np.array(pixels, dtype=np.uint8),
        color.get_timestamp() / 1e3 if one_clock else None,
        depth.get_frame_number(),
        color.get_frame_number(),
    )


def depth_unit_m(rs: Any, device: Any) -> float:
    """Metres per count.

    Raises:
        DeviceError: no sensor of the device tells it.
    """
    for sensor in device.query_sensors():
        if sensor.supports(rs.option.depth_units):
            # a float32: 0.001 comes as 0.0010000000474974513
            return float(np.format_float_positional(np.float32(sensor.get_option(rs.option.depth_units)), unique=True))
    raise DeviceError("realsense", "a depth sensor that tells its unit", "none")


def sensor_of(rs: Any, depth: Any, color: Any, unit_m: float) -> tuple[Sensor, tuple[str, ...]]:
    """The sensor of two video stream profiles (colour may be None), and what was assumed of their lenses.

    Raises:
        CameraError: a lens model that bodyfit has not, or extrinsics that are none.
        DeviceError: colour in an encoding that is not read.
    """
    depth_camera, notes = camera_of(rs, "depth", depth.get_intrinsics())
    color_camera = T = None
    if color is not None:
        if color.format() not in (rs.format.rgb8, rs.format.bgr8):
            raise DeviceError("realsense colour", "rgb8 or bgr8", str(color.format()))
        color_camera, more = camera_of(rs, "color", color.get_intrinsics())
        notes += more
        T = transform_of(depth.get_extrinsics_to(color))
        back = transform_of(color.get_extrinsics_to(depth))
        if not np.allclose(T @ back, np.eye(4), atol=1e-3):
            raise CameraError("realsense extrinsics", "depth to colour and back to be one another's inverse", "not so")
    return Sensor("realsense", depth_camera, np.eye(4), color_camera, T, unit_m), tuple(notes)


def camera_of(rs: Any, name: str, intrinsics: Any) -> tuple[Camera, list[str]]:
    """A camera of librealsense's intrinsics, and a note where its lens model is another.

    Raises:
        CameraError: a fisheye, or a model too far from OpenCV's.
    """
    i, models = intrinsics, rs.distortion
    coefficients = tuple(float(c) for c in i.coeffs[:5])
    numbers = (int(i.width), int(i.height), float(i.fx), float(i.fy), float(i.ppx), float(i.ppy))
    if i.model == models.none or not any(coefficients):
        return Camera(*numbers), []
    camera = Camera(*numbers, Distortion("brown_conrady", coefficients))
    if i.model == models.brown_conrady:
        return camera, []
    if i.model not in (models.modified_brown_conrady, models.inverse_brown_conrady):
        raise CameraError(f"{name} lens", "a Brown-Conrady model", str(i.model))
    off = modified_lens_error_px(camera)
    if off > WORST_LENS_PX:
        raise CameraError(
            f"{name} lens", f"within {WORST_LENS_PX:g} px of OpenCV's Brown-Conrady model", f"{off:.2f} px"
        )
    model = str(i.model).split(".")[-1]
    return camera, [f"the {name} camera's lens model {model} is taken as brown_conrady: at most {off:.3f} px off"]


def modified_lens_error_px(camera: Camera) -> float:
    """The most by which a lens that moves points radially, then tangentially, is from OpenCV's, in the image."""
    k1, k2, p1, p2, k3 = camera.distortion.coefficients
    u, v = np.meshgrid(np.linspace(0, camera.width - 1, 33), np.linspace(0, camera.height - 1, 33))
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    r2 = x * x + y * y
    f = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))

    def tangential(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # in both the radius is the one before anything was moved
        return 2 * p1 * a * b + p2 * (r2 + 2 * a * a), 2 * p2 * a * b + p1 * (r2 + 2 * b * b)

    (ax, ay), (bx, by) = tangential(x, y), tangential(x * f, y * f)
    return float(np.hypot((ax - bx) * camera.fx, (ay - by) * camera.fy).max())


def transform_of(extrinsics: Any) -> NDArray[np.float64]:
    """(4, 4) of librealsense's extrinsics: p_to = T p_from."""
    T = np.eye(4)
    T[:3, :3] = np.asarray(extrinsics.rotation, dtype=np.float64).reshape(3, 3).T
    T[:3, 3] = extrinsics.translation
    return check_rigid("realsense extrinsics", T)
