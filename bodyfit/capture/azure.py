"""The Azure Kinect through `pyk4a` (extra `azure`), and Orbbec's Femto Bolt and Mega through Orbbec's K4A wrapper.

Written after pyk4a 1.5 (pyk4a.py, capture.py, calibration.py, pyk4a.cpp); never tried on a camera.

- `get_camera_matrix` and `get_distortion_coefficients` are OpenCV's, of the mode's images: k1 k2 p1 p2 k3 k4 k5 k6, the
  rational model; pixel (0, 0) is centred at (0, 0).
- `get_extrinsic_parameters(DEPTH, COLOR)`: p_color = R p_depth + t, metres (pyk4a divides the SDK's millimetres).
- Depth is millimetres. Times are microseconds of the camera's clock. There is no count of frames: what the camera
  loses shows as a gap in time alone.
- Colour comes as MJPEG, 720p: the camera encodes it anyway, and nobody has to do it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion, check_rigid
from bodyfit.capture.source import UNTESTED, CameraSource, Captured
from bodyfit.errors import DeviceError, MissingExtraError
from bodyfit.recording.description import Sensor

DEPTH_SIZE, COLOR_SIZE = (640, 576), (1280, 720)
"""of NFOV unbinned and 720p"""


class AzureSource(CameraSource):
    """One Azure Kinect: narrow field of view, unbinned, with colour at 720p, 30 frames a second.

    Args:
        serial: the camera of that serial number; None: the first.
    """

    kind = "azure"

    def __init__(self, *, serial: str | None = None) -> None:
        self.device: Mapping[str, Any] = {"name": "Azure Kinect"}
        self.settings: Mapping[str, Any] = {"depth": "NFOV_UNBINNED at 30", "color": "720P MJPG at 30"}
        self.notes: tuple[str, ...] = (UNTESTED,)
        self._serial = serial
        self._k4a: Any = None
        self._camera: Any = None
        super().__init__()

    def start(self) -> None:
        """Opens the camera."""
        k4a = self._k4a = azure_module()
        count = k4a.connected_device_count()
        if count == 0:
            raise DeviceError(self.kind, "an Azure Kinect", "none connected")
        config = k4a.Config(
            color_resolution=k4a.ColorResolution.RES_720P,
            color_format=k4a.ImageFormat.COLOR_MJPG,
            depth_mode=k4a.DepthMode.NFOV_UNBINNED,
            camera_fps=k4a.FPS.FPS_30,
            synchronized_images_only=True,
        )
        try:
            for i in range(count):
                camera = k4a.PyK4A(config, device_id=i)
                camera.open()
                if self._serial is None or camera.serial == self._serial:
                    self._camera = camera
                    break
                camera.close()
            if self._camera is None:
                raise DeviceError("--serial", f"one of {count} cameras", "none of that number")
            self._camera.start()
            self._sensor = sensor_of(k4a, self._camera.calibration)
        except k4a.K4AException as problem:
            self.stop()
            raise DeviceError(self.kind, "an Azure Kinect", str(problem)[:200] or "one that does not open") from None

    def read(self, timeout_s: float) -> Captured | None:
        """The next pair of images."""
        try:
            capture = self._camera.get_capture(timeout=max(int(timeout_s * 1e3), 1))
        except self._k4a.K4ATimeoutException:
            return None
        except self._k4a.K4AException as problem:
            found = str(problem)[:200] or "one that was lost"
            raise DeviceError(self.kind, "a camera that gives frames", found) from None
        return None if capture.depth is None else captured_of(capture)

    def stop(self) -> None:
        """Closes the camera."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with suppress(self._k4a.K4AException):  # it may be gone already
                camera.stop()  # closes it, too


def azure_module() -> Any:
    """`pyk4a`.

    Raises:
        MissingExtraError: it is not installed, or lacks the Sensor SDK's library.
    """
    try:
        import pyk4a  # type: ignore[import-not-found]
    except ImportError:
        raise MissingExtraError("pyk4a with libk4a", "azure", "capturing from an Azure Kinect") from None
    return pyk4a


def captured_of(capture: Any) -> Captured:
    """A capture's images; its memory is the SDK's and goes with it."""
    counts = np.array(capture.depth, dtype=np.uint16)
    color = capture.color
    if color is None:
        return Captured(counts, capture.depth_timestamp_usec / 1e6)
    return Captured(
        counts, capture.depth_timestamp_usec / 1e6, np.asarray(color, dtype=np.uint8).tobytes(),
        capture.color_timestamp_usec / 1e6,
    )  # fmt: skip


def sensor_of(k4a: Any, calibration: Any) -> Sensor:
    """The sensor of a pyk4a `Calibration`.

    Raises:
        CameraError: numbers that no camera has.
    """
    kinds = k4a.CalibrationType
    cameras = [
        camera_of(size, calibration.get_camera_matrix(kind), calibration.get_distortion_coefficients(kind))
        for size, kind in ((DEPTH_SIZE, kinds.DEPTH), (COLOR_SIZE, kinds.COLOR))
    ]
    T = transform_of(*calibration.get_extrinsic_parameters(kinds.DEPTH, kinds.COLOR))
    return Sensor("azure", cameras[0], np.eye(4), cameras[1], T, 0.001)


def camera_of(size: tuple[int, int], K: Any, coefficients: Any) -> Camera:  # noqa: N803 - the field's name
    """A camera of OpenCV's matrix and its eight rational coefficients."""
    lens = tuple(float(c) for c in np.asarray(coefficients).ravel())
    numbers = (*size, float(K[0][0]), float(K[1][1]), float(K[0][2]), float(K[1][2]))
    return Camera(*numbers, Distortion("rational", lens))


def transform_of(rotation: Any, translation_m: Any) -> NDArray[np.float64]:
    """(4, 4) T_color_depth."""
    T = np.eye(4)
    T[:3, :3] = np.asarray(rotation, dtype=np.float64).reshape(3, 3)
    T[:3, 3] = np.asarray(translation_m, dtype=np.float64).ravel()
    return check_rigid("azure extrinsics", T)
