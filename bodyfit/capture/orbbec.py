"""Orbbec cameras through Orbbec's SDK 2 (package `pyorbbecsdk2`, module `pyorbbecsdk`, extra `orbbec`).

Written after the package's examples (beginner/04_camera_calibration.py, quick_start.py, advanced/15 and 16) and its
type stubs, version 2.1; never tried on a camera. The transform and the pinhole camera are held against the SDK's own
functions by the tests; its lens models are not, since those functions leave distortion out.

- `OBExtrinsic`: p_color = R p_depth + t, `rot` by rows, `transform` in millimetres.
- `OBCameraDistortion` has its model; k1 k2 k3 p1 p2 of `BROWN_CONRADY` are OpenCV's, `BROWN_CONRADY_K6` with k4 k5 k6
  below the fraction line is OpenCV's rational one.
- A depth value times `get_depth_scale()` is millimetres.
- `get_timestamp_us`: microseconds of the device's clock; `get_index`: its count of frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion, check_rigid
from bodyfit.capture.source import UNTESTED, CameraSource, Captured
from bodyfit.errors import CameraError, DeviceError, MissingExtraError
from bodyfit.recording.description import Sensor

COLOR_SIZE = (1280, 720)
FPS = 30
FIRST_S = 10.0


class OrbbecSource(CameraSource):
    """One Orbbec camera: its default depth, and colour as MJPEG where it has that.

    Args:
        serial: the camera of that serial number; None: the first.
    """

    kind = "orbbec"

    def __init__(self, *, serial: str | None = None) -> None:
        self.device: Mapping[str, Any] = {}
        self.settings: Mapping[str, Any] = {}
        self.notes: tuple[str, ...] = (UNTESTED,)
        self._serial = serial
        self._ob: Any = None
        self._pipeline: Any = None
        super().__init__()

    def start(self) -> None:
        """Opens the camera; its calibration is complete once the first frames came."""
        ob = self._ob = orbbec_module()
        try:
            self._open(ob)
            first = None
            for _ in range(int(FIRST_S)):
                first = self._pipeline.wait_for_frames(1000)
                if first is not None and first.get_depth_frame() is not None:
                    break
            if first is None or first.get_depth_frame() is None:
                raise DeviceError(self.kind, "depth frames", f"none in {FIRST_S:g} s")
            scale_mm = float(first.get_depth_frame().get_depth_scale())
            self._sensor = sensor_of(ob, self._pipeline.get_camera_param(), scale_mm, self._has_color)
        except BaseException as problem:
            self.stop()
            if type(problem).__name__ == "OBError" or isinstance(problem, RuntimeError):
                raise DeviceError(self.kind, "an Orbbec camera", str(problem)[:200]) from None
            raise

    def _open(self, ob: Any) -> None:
        devices = ob.Context().query_devices()
        if devices.get_count() == 0:
            raise DeviceError(self.kind, "an Orbbec camera", "none connected")
        if self._serial is None:
            device = devices.get_device_by_index(0)
        else:
            device = devices.get_device_by_serial_number(self._serial)
        pipeline, config = ob.Pipeline(device), ob.Config()
        depth = pipeline.get_stream_profile_list(ob.OBSensorType.DEPTH_SENSOR).get_default_video_stream_profile()
        config.enable_stream(depth)
        color = _color_profile(ob, pipeline)
        if color is not None:
            config.enable_stream(color)
            config.set_frame_aggregate_output_mode(ob.OBFrameAggregateOutputMode.FULL_FRAME_REQUIRE)
            pipeline.enable_frame_sync()
        pipeline.start(config)
        self._pipeline, self._has_color = pipeline, color is not None
        info = device.get_device_info()
        self.device = {"name": info.get_name(), "firmware": info.get_firmware_version()}
        self.settings = {
            key: f"{p.get_width()}x{p.get_height()} at {p.get_fps()}"
            for key, p in (("depth", depth), ("color", color))
            if p is not None
        }

    def read(self, timeout_s: float) -> Captured | None:
        """The next pair of frames."""
        try:
            frames = self._pipeline.wait_for_frames(max(int(timeout_s * 1e3), 1))
            if frames is None or (depth := frames.get_depth_frame()) is None:
                return None
            color = frames.get_color_frame() if self._has_color else None
            return captured_of(self._ob, depth, color)
        except RuntimeError as problem:
            raise DeviceError(self.kind, "a camera that gives frames", str(problem)[:200]) from None

    def stop(self) -> None:
        """Closes the camera."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop()


def orbbec_module() -> Any:
    """`pyorbbecsdk`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyorbbecsdk  # type: ignore[import-not-found]
    except ImportError:
        raise MissingExtraError("pyorbbecsdk2", "orbbec", "capturing from an Orbbec camera") from None
    return pyorbbecsdk


def _color_profile(ob: Any, pipeline: Any) -> Any:
    """720p MJPEG, else RGB, else none: what is decoded here would have to be tried on a camera."""
    try:
        profiles = pipeline.get_stream_profile_list(ob.OBSensorType.COLOR_SENSOR)
    except Exception:  # a camera without colour
        return None
    for kind in (ob.OBFormat.MJPG, ob.OBFormat.RGB):
        for width, height in (COLOR_SIZE, (0, 0)):
            try:
                return profiles.get_video_stream_profile(width, height, kind, FPS)
            except Exception:
                continue
    return None


def captured_of(ob: Any, depth: Any, color: Any) -> Captured:
    """A depth frame and its colour frame or None."""
    shape = (depth.get_height(), depth.get_width())
    counts = np.array(np.frombuffer(depth.get_data(), dtype="<u2").reshape(shape), dtype=np.uint16)
    at = depth.get_timestamp_us() / 1e6
    if color is None:
        return Captured(counts, at, number=int(depth.get_index()))
    data = np.asarray(color.get_data(), dtype=np.uint8)
    if color.get_format() == ob.OBFormat.MJPG:
        image: NDArray[np.uint8] | bytes = data.tobytes()
    else:
        image = np.array(data.reshape(color.get_height(), color.get_width(), 3))
    return Captured(
        counts, at, image, color.get_timestamp_us() / 1e6, int(depth.get_index()), int(color.get_index())
    )  # fmt: skip


def sensor_of(ob: Any, param: Any, scale_mm: float, has_color: bool = True) -> Sensor:
    """The sensor of an `OBCameraParam`.

    Args:
        scale_mm: what a depth value is times to be millimetres.

    Raises:
        CameraError: mirrored images, or a lens model that bodyfit has not.
    """
    if getattr(param, "is_mirrored", False):
        raise CameraError("orbbec", "images that are not mirrored", "mirrored ones", "switch mirroring off")
    depth = camera_of(ob, "depth", param.depth_intrinsic, param.depth_distortion)
    unit_m = float(np.format_float_positional(np.float32(scale_mm), unique=True)) * 1e-3
    if not has_color:
        return Sensor("orbbec", depth, np.eye(4), depth_unit_m=unit_m)
    color = camera_of(ob, "color", param.rgb_intrinsic, param.rgb_distortion)
    return Sensor("orbbec", depth, np.eye(4), color, transform_of(param.transform), unit_m)


def camera_of(ob: Any, name: str, intrinsic: Any, distortion: Any) -> Camera:
    """A camera of the SDK's intrinsics and distortion.

    Raises:
        CameraError: a lens model that bodyfit has not.
    """
    i, d, models = intrinsic, distortion, ob.OBCameraDistortionModel
    numbers = (int(i.width), int(i.height), float(i.fx), float(i.fy), float(i.cx), float(i.cy))
    first, above, below = (float(d.k1), float(d.k2)), (float(d.p1), float(d.p2)), (d.k4, d.k5, d.k6)
    all_of = (*first, *above, float(d.k3), *map(float, below))
    if d.model == models.NONE or not any(all_of):
        return Camera(*numbers)
    if d.model == models.BROWN_CONRADY_K6:
        return Camera(*numbers, Distortion("rational", all_of))
    if d.model == models.BROWN_CONRADY:
        return Camera(*numbers, Distortion("brown_conrady", all_of[:5]))
    raise CameraError(f"orbbec {name} lens", "BROWN_CONRADY, BROWN_CONRADY_K6 or NONE", str(d.model))


def transform_of(extrinsic: Any) -> NDArray[np.float64]:
    """(4, 4) T_color_depth in metres of an `OBExtrinsic`."""
    T = np.eye(4)
    T[:3, :3] = np.asarray(extrinsic.rot, dtype=np.float64).reshape(3, 3)
    T[:3, 3] = np.asarray(extrinsic.transform, dtype=np.float64).ravel() * 1e-3
    return check_rigid("orbbec extrinsics", T)
