"""calibration.json of Azure Kinect and Orbbec Femto recordings: the cameras of a mode, as the Sensor SDK makes them.

Sources: the Azure Kinect Sensor SDK (github.com/microsoft/Azure-Kinect-Sensor-SDK).

- src/calibration/calibration.c: the file's keys; translations in metres; MetricRadius 0 = unknown, then 1.7.
- include/k4a/k4atypes.h: ModelParameters are cx cy fx fy k1 k2 k3 k4 k5 k6 codx cody p2 p1 (p2 before p1).
- src/transformation/mode_specific_calibration.c: cx and fx are parts of the width, cy and fy of the height, of the
  *whole* sensor's image with (0, 0) at the corner of the first pixel. A mode's image is the whole one binned, then cut:
  c = c_unit · binned size - offset - 0.5, f = f_unit · binned size, and pixel (0, 0) is centred at (0, 0). Colour
  sizes of 16:9 are the middle of a 4:3 image; a calibration of a 16:9 image (early devices) is that middle, too.
- src/transformation/intrinsic_transformation.c: `BrownConrady` there is the rational model with the tangential terms of
  OpenCV; beyond MetricRadius (on the plane z = 1) it has no meaning. `Rational6KT` halves two tangential terms.
- src/transformation/extrinsic_transformation.c: each Rt takes the device's common frame (the depth camera's) to the
  sensor's, so T_color_depth = T_color T_depth⁻¹; the accelerometer's likewise.
- An accelerometer at rest reads 9.81 m/s² *upwards* (Azure-Kinect-Samples, floor_detector_sample/FloorDetector.cpp).

What the files of Femto cameras say was not compared with a camera's own: Orbbec's K4A wrapper is a fork of this SDK and
writes the same keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion, check_rigid
from bodyfit.errors import CameraError, RecordingError
from bodyfit.recording.document import Field, parse_json
from bodyfit.recording.undistort import undistort_pixels

MAX_FILE_BYTES = 4 << 20
DEFAULT_METRIC_RADIUS = 1.7
DEPTH_SENSOR_PX = (1024, 1024)
GRAVITY_M_S2 = 9.81

_BROWN, _RATIONAL = "CALIBRATION_LensDistortionModelBrownConrady", "CALIBRATION_LensDistortionModelRational6KT"
# the SDK goes by the location; the purpose says the same
_DEPTH = ("CALIBRATION_CameraLocationD0", "CALIBRATION_CameraPurposeDepth")
_COLOR = ("CALIBRATION_CameraLocationPV0", "CALIBRATION_CameraPurposePhotoVideo")
_ACCELEROMETER = "CALIBRATION_InertialSensorType_Accelerometer"
# how far the mean may be from g, and the readings from their mean, for the camera to have stood still
_MAX_G_ERROR_M_S2, _MAX_SPREAD_M_S2 = 0.5, 0.3


@dataclass(frozen=True)
class DepthMode:
    """One of the depth sensor's modes: its image is the sensor's at `binned` size, cut from `offset`; all (x, y)."""

    name: str
    size: tuple[int, int]
    binned: tuple[int, int]
    offset: tuple[int, int]


DEPTH_MODES = (
    DepthMode("NFOV_2X2BINNED", (320, 288), (512, 512), (96, 90)),
    DepthMode("NFOV_UNBINNED", (640, 576), (1024, 1024), (192, 180)),
    DepthMode("WFOV_2X2BINNED", (512, 512), (512, 512), (0, 0)),
    DepthMode("WFOV_UNBINNED", (1024, 1024), (1024, 1024), (0, 0)),
)


@dataclass(frozen=True)
class Lens:
    """One camera of the file, in parts of its sensor's sides.

    Attributes:
        where: its place in the file, for errors.
        sensor_px: (width, height) of the sensor.
        cx, cy, fx, fy: in parts of the width and the height; (0, 0) is the corner of the first pixel.
        distortion: OpenCV's rational model.
        metric_radius: where the model ends, on the plane z = 1.
        T_camera_device: (4, 4) the device's frame to the camera's, metres.
    """

    where: str
    sensor_px: tuple[int, int]
    cx: float
    cy: float
    fx: float
    fy: float
    distortion: Distortion
    metric_radius: float
    T_camera_device: NDArray[np.float64]

    def camera(self, size: tuple[int, int], binned: tuple[float, float], offset: tuple[float, float]) -> Camera:
        """The camera, in pixels, of the whole image at `binned` size, of which `size` is cut from `offset`."""
        return Camera(
            *size,
            fx=self.fx * binned[0],
            fy=self.fy * binned[1],
            cx=self.cx * binned[0] - offset[0] - 0.5,
            cy=self.cy * binned[1] - offset[1] - 0.5,
            distortion=self.distortion,
        )

    def kept_share(self, camera: Camera) -> float:
        """How much of what a camera of this lens records is inside of its undistorted image, from 0 to 1.

        What lies beyond the metric radius is dark, and counts as not recorded.
        """
        v, u = (side.ravel() for side in np.mgrid[: camera.height : 8, : camera.width : 8].astype(np.float64))
        pixels = undistort_pixels(camera, np.stack([u, v], -1))
        size, centre = np.array([camera.width, camera.height]), np.array([camera.cx, camera.cy])
        focal = np.array([camera.fx, camera.fy])
        with np.errstate(invalid="ignore"):
            seen = np.hypot(*((pixels - centre) / focal).T) < self.metric_radius
            kept = seen & (pixels > -0.5).all(axis=1) & (pixels < size - 0.5).all(axis=1)
        return float(kept.sum() / max(1, seen.sum()))


@dataclass(frozen=True)
class Calibration:
    """What calibration.json says.

    Attributes:
        depth: the depth camera.
        color: the colour camera; None where the file has none.
        R_accelerometer_device: (3, 3) the device's frame to the accelerometer's; None where the file has none.
    """

    depth: Lens
    color: Lens | None
    R_accelerometer_device: NDArray[np.float64] | None

    def depth_camera(self, mode: DepthMode) -> Camera:
        """The depth camera of a mode.

        Raises:
            RecordingError: a calibration of another sensor than the modes are of.
            CameraError: intrinsics that make no sense.
        """
        if self.depth.sensor_px != DEPTH_SENSOR_PX:
            expected = "a depth sensor of {} × {} pixels".format(*DEPTH_SENSOR_PX)
            raise RecordingError(f"{self.depth.where}.SensorWidth, SensorHeight", expected, _by(self.depth.sensor_px))
        return self.depth.camera(mode.size, mode.binned, mode.offset)

    def color_camera(self, size: tuple[int, int]) -> Camera:
        """The colour camera of images of `size` (width, height): 4:3, or the middle of that, 16:9.

        Raises:
            RecordingError: no such camera in the file, or sides of another ratio.
            CameraError: intrinsics that make no sense.
        """
        if self.color is None:
            raise RecordingError("calibration.json: CalibrationInformation.Cameras", "a colour camera", "none")
        lens, (sensor_width, sensor_height) = self.color, self.color.sensor_px
        width, height = size
        whole_height = width * 3 / 4
        if width * 3 != height * 4 and width * 9 != height * 16:
            raise RecordingError("COLOR: size", "4:3 or 16:9", _by(size))
        offset, binned = (0.0, (whole_height - height) / 2), (width, whole_height)
        if sensor_width * 9 == sensor_height * 16:  # calibrated in the middle of the 4:3 image
            binned = (width, width * 9 / 16)
            offset = (0.0, offset[1] - (whole_height - binned[1]) / 2)
        elif sensor_width * 3 != sensor_height * 4:
            raise RecordingError(f"{lens.where}.SensorWidth, SensorHeight", "4:3 or 16:9", _by(lens.sensor_px))
        return lens.camera(size, binned, offset)

    @property
    def T_color_depth(self) -> NDArray[np.float64]:  # noqa: N802 - the project's name
        """(4, 4) depth-camera to colour-camera coordinates, metres; the identity without a colour camera."""
        if self.color is None:
            return np.eye(4)
        return self.color.T_camera_device @ np.linalg.inv(self.depth.T_camera_device)

    def gravity_depth(self, accelerations: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, str]:
        """(3,) direction of gravity in the depth camera's coordinates, or None; and a sentence that says why.

        Args:
            accelerations: (N, 3) m/s² in the accelerometer's coordinates, over the whole recording.
        """
        if self.R_accelerometer_device is None:
            return None, "calibration.json does not place the accelerometer: the direction of gravity is not known."
        if not len(accelerations):
            return None, "The accelerometer was not recorded: the direction of gravity is not known."
        mean = accelerations.mean(axis=0)
        spread = float(np.sqrt(np.square(accelerations - mean).sum(axis=1).mean()))
        length = float(np.linalg.norm(mean))
        if not (abs(length - GRAVITY_M_S2) <= _MAX_G_ERROR_M_S2 and spread <= _MAX_SPREAD_M_S2):
            moved = f"the accelerometer reads {length:.2f} ± {spread:.2f} m/s², so the camera did not stand still"
            return None, f"The direction of gravity is not known: {moved}."
        R_depth_device = self.depth.T_camera_device[:3, :3]
        up_depth = R_depth_device @ self.R_accelerometer_device.T @ (mean / length)
        note = f"Gravity is the mean of {len(accelerations)} readings of the accelerometer."
        return -up_depth / np.linalg.norm(up_depth), note


def read_calibration(name: str, data: bytes) -> Calibration:
    """Reads the attached file.

    Args:
        name: what errors call it.
        data: JSON; a zero byte may end it.

    Raises:
        RecordingError: no JSON, a key that is missing or of the wrong type, no depth camera, or a lens model that
            the SDK does not project with either.
        CameraError: a transform that is not rigid.
    """
    top = Field(name, "", parse_json(name, data.rstrip(b"\0"))).key("CalibrationInformation")
    cameras = top.key("Cameras").items(at_most=16)
    depth, color = (_camera_of(cameras, signs) for signs in (_DEPTH, _COLOR))
    if depth is None:
        raise RecordingError(f"{name}: {top.path}.Cameras", f"a camera {' or '.join(_DEPTH)}", "none")
    rotation = None
    sensors = top.key("InertialSensors", [])
    for entry in sensors.items(at_most=16) if sensors.value is not None else []:
        if entry.key("SensorType", None).value == _ACCELEROMETER:
            rotation = _transform(entry.key("Rt"))[:3, :3]
    return Calibration(_lens(depth), None if color is None else _lens(color), rotation)


def _camera_of(cameras: list[Field], signs: tuple[str, str]) -> Field | None:
    for key, wanted in zip(("Location", "Purpose"), signs, strict=True):
        for camera in cameras:
            if camera.key(key, None).value == wanted:
                return camera
    return None


def _lens(entry: Field) -> Lens:
    model = entry.key("Intrinsics")
    kind = model.key("ModelType")
    values_field = model.key("ModelParameters")
    values = values_field.numbers(at_most=64)
    if len(values) < 14:
        raise RecordingError(values_field.name, "14 numbers", f"{len(values)}")
    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, codx, cody, p2, p1 = values[:14]
    if kind.value not in (_BROWN, _RATIONAL):
        kind.refuse(f"{_BROWN}, which is the model that the recorder's own SDK projects with")
    if kind.value == _RATIONAL and (p1 or p2):
        kind.refuse(f"{_BROWN}: the deprecated model's tangential terms are not OpenCV's")
    if codx or cody:
        raise RecordingError(f"{values_field.name}[10], [11]", "no centre of distortion (0, 0)", f"{codx:g}, {cody:g}")
    width, height = (entry.key(key) for key in ("SensorWidth", "SensorHeight"))
    for side in (width, height):
        if not 1 <= side.integer() <= 1 << 16:
            side.refuse("a number of pixels")
    radius = entry.key("MetricRadius", 0.0).number()
    return Lens(
        entry.name,
        (width.integer(), height.integer()),
        cx,
        cy,
        fx,
        fy,
        Distortion("rational", (k1, k2, p1, p2, k3, k4, k5, k6)),
        radius if radius > 1e-4 else DEFAULT_METRIC_RADIUS,
        _transform(entry.key("Rt")),
    )


def _transform(entry: Field) -> NDArray[np.float64]:
    """(4, 4) of nine numbers, by rows, and three."""
    rotation, translation = entry.key("Rotation").numbers(at_most=9), entry.key("Translation").numbers(at_most=3)
    if len(rotation) != 9 or len(translation) != 3:
        raise RecordingError(entry.name, "9 numbers and 3", f"{len(rotation)} and {len(translation)}")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.reshape(rotation, (3, 3)), translation
    try:
        return check_rigid(entry.name, T)
    except CameraError as problem:
        raise CameraError(entry.name, problem.expected, problem.found) from None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]} pixels"
