"""librealsense's software device: real librealsense from the injected images on, without a camera."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.recording.description import Sensor


class SoftwareRealSense:
    """A depth and a colour stream of a sensor's cameras; frames are put in one by one.

    Args:
        sensor: what librealsense shall say of its calibration; lenses are Brown-Conrady or none.
    """

    def __init__(self, sensor: Sensor, fps: int = 30) -> None:
        import pyrealsense2

        rs: Any = pyrealsense2  # its stubs name nothing

        self._rs, self.sensor = rs, sensor
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Software device")
        self.device.register_info(rs.camera_info.serial_number, "123456")
        assert sensor.color_camera is not None and sensor.T_color_depth is not None
        self._depth = self.device.add_sensor("Depth")
        self._color = self.device.add_sensor("Color")
        self._depth.add_read_only_option(rs.option.depth_units, sensor.depth_unit_m)
        depth, color = (rs.stream.depth, 1, 2, rs.format.z16), (rs.stream.color, 2, 3, rs.format.rgb8)
        profiles = []
        for owner, camera, (kind, uid, bpp, coding) in (
            (self._depth, sensor.depth_camera, depth),
            (self._color, sensor.color_camera, color),
        ):
            i = rs.intrinsics()
            i.width, i.height, i.fx, i.fy = camera.width, camera.height, camera.fx, camera.fy
            i.ppx, i.ppy = camera.cx, camera.cy
            i.model = rs.distortion.none if camera.distortion.is_none else rs.distortion.brown_conrady
            i.coeffs = [*camera.distortion.coefficients, 0, 0, 0, 0, 0][:5]
            v = rs.video_stream()
            v.type, v.index, v.uid, v.width, v.height = kind, 0, uid, camera.width, camera.height
            v.fps, v.bpp, v.fmt, v.intrinsics = fps, bpp, coding, i
            profiles.append(owner.add_video_stream(v, True))
        self._profiles = profiles
        e = rs.extrinsics()
        T = sensor.T_color_depth
        e.rotation = T[:3, :3].T.ravel().tolist()  # by columns
        e.translation = T[:3, 3].tolist()
        profiles[0].register_extrinsics_to(profiles[1], e)
        self.device.create_matcher(rs.matchers.dlr_c)
        self._keep: list[Any] = []

    def put(self, number: int, time_s: float, depth: NDArray[np.uint16], color: NDArray[np.uint8]) -> None:
        """One pair of images, taken at that time of the device's clock."""
        rs = self._rs
        for owner, profile, pixels in (
            (self._color, self._profiles[1], np.ascontiguousarray(color)),
            (self._depth, self._profiles[0], np.ascontiguousarray(depth)),
        ):
            f = rs.software_video_frame()
            f.pixels, f.stride, f.bpp = pixels, pixels.strides[0], pixels.strides[1]
            f.timestamp, f.domain, f.frame_number = time_s * 1e3, rs.timestamp_domain.hardware_clock, number
            f.profile = profile.as_video_stream_profile()
            if owner is self._depth:
                f.depth_units = self.sensor.depth_unit_m
            owner.on_video_frame(f)
            self._keep = [*self._keep[-256:], pixels]
