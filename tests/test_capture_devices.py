"""Sensors through their makers' packages: librealsense with its software device, the whole way into a recording; of the
others what needs no camera, against the makers' own functions where their package is installed."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from capture_frames import captured, small_sensor

from bodyfit.camera import Camera, Distortion
from bodyfit.capture import azure, orbbec, realsense
from bodyfit.capture.realsense import Pairs, RealSenseSource
from bodyfit.capture.recorder import Recorder
from bodyfit.capture.session import Session
from bodyfit.cli.main import app
from bodyfit.errors import CameraError, DeviceError, MissingExtraError
from bodyfit.recording.formats import open_recording
from bodyfit.recording.images import decode_depth
from bodyfit.rotation import matrix_from_axis_angle

FRAMES = 45


def seen_at(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of points (N, 3) through the lens, by OpenCV."""
    import cv2

    pixels, _ = cv2.projectPoints(
        np.asarray(points, np.float64), np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion.coefficients)
    )
    return pixels[:, 0]


def turned(sensor=None):
    """A sensor whose colour camera is turned and moved, so that a wrong direction shows; Brown-Conrady lenses."""
    sensor = sensor or small_sensor()
    T = np.eye(4)
    T[:3, :3] = matrix_from_axis_angle(np.array([0.05, -0.1, 0.02]))
    T[:3, 3] = [-0.03, 0.004, 0.01]
    assert sensor.color_camera is not None
    lens = Distortion("brown_conrady", (0.08, -0.02, 0.002, -0.001, 0.005))
    return replace(sensor, color_camera=replace(sensor.color_camera, distortion=lens), T_color_depth=T)


def feed(device, sensor, numbers, pause_s: float) -> threading.Thread:
    def put() -> None:
        for k in numbers:
            c = captured(k, sensor)
            device.put(k + 1, c.depth_time_s, c.depth, c.color)
            time.sleep(pause_s)

    thread = threading.Thread(target=put)
    thread.start()
    return thread


def test_a_software_realsense_is_recorded_as_it_is(tmp_path: Path) -> None:
    rs = pytest.importorskip("pyrealsense2")
    from software_realsense import SoftwareRealSense

    asked = turned()
    device = SoftwareRealSense(asked)
    source = RealSenseSource(device=device.device)
    source.start()
    got = source.sensor
    assert got.depth_unit_m == asked.depth_unit_m
    for ours, theirs in ((got.depth_camera, asked.depth_camera), (got.color_camera, asked.color_camera)):
        assert ours is not None and theirs is not None
        np.testing.assert_allclose(
            [ours.fx, ours.fy, ours.cx, ours.cy, *ours.distortion.coefficients],
            [theirs.fx, theirs.fy, theirs.cx, theirs.cy, *theirs.distortion.coefficients], rtol=1e-6,
        )  # fmt: skip
    assert got.T_color_depth is not None
    np.testing.assert_allclose(got.T_color_depth, np.asarray(asked.T_color_depth), atol=1e-7)
    # the direction, by librealsense's own arithmetic
    (depth,), (color,) = (s.get_stream_profiles() for s in device.device.query_sensors())
    point = [0.3, -0.2, 1.7]
    theirs = rs.rs2_transform_point_to_point(depth.get_extrinsics_to(color), point)
    np.testing.assert_allclose(got.T_color_depth[:3, :3] @ point + got.T_color_depth[:3, 3], theirs, atol=1e-6)

    recorder = Recorder(tmp_path / "rec", got, device=source.device, settings=source.settings)
    session = Session(source, recorder=recorder)
    session.start()
    numbers = [k for k in range(FRAMES) if k not in (20, 21)]
    feed(device, asked, numbers, 0.008).join()
    end = time.monotonic() + 10
    while session.read < len(numbers) and time.monotonic() < end:
        time.sleep(0.02)
    session.stop("asked")
    source.stop()
    counts = recorder.finish(session.ended)
    assert (counts.read, counts.written, counts.failed, counts.lost_by_device) == (len(numbers), len(numbers), 0, 2)
    text = (tmp_path / "rec/capture.json").read_text()
    assert "Software device" in text and "123456" not in text
    with open_recording(tmp_path / "rec") as recording:
        assert recording.num_frames == len(numbers)
        np.testing.assert_allclose(recording.timestamps_s, np.array(numbers) / 30, atol=1e-6)
        for i, k in enumerate(numbers):
            encoded = recording.encoded(i, "realsense")
            assert encoded is not None and encoded.color is not None
            counts_of = decode_depth("depth", encoded.depth.load(), recording.sensors[0].depth_camera)
            np.testing.assert_array_equal(counts_of, captured(k, asked).depth)
            frame = recording.frame(i, "realsense")
            assert frame is not None and frame.color is not None
            assert abs(int(np.median(frame.color)) - k) <= 1


def test_lens_models_of_librealsense() -> None:
    rs = pytest.importorskip("pyrealsense2")
    i = rs.intrinsics()
    i.width, i.height, i.fx, i.fy, i.ppx, i.ppy = 1280, 720, 644.0, 643.0, 652.0, 352.0
    i.coeffs = [-0.0556, 0.0659, 5.7e-05, 0.00144, -0.0213]
    i.model = rs.distortion.brown_conrady
    camera, notes = realsense.camera_of(rs, "color", i)
    assert not notes and camera.distortion.model == "brown_conrady"
    points = np.array([[0.4, -0.3, 1.0], [-0.7, 0.4, 1.0], [0.9, 0.5, 1.0]])
    for point, pixel in zip(points, seen_at(camera, points), strict=True):
        np.testing.assert_allclose(rs.rs2_project_point_to_pixel(i, point.tolist()), pixel, atol=2e-3)
    i.model = rs.distortion.inverse_brown_conrady
    camera, notes = realsense.camera_of(rs, "color", i)
    off = realsense.modified_lens_error_px(camera)
    assert 0 < off < 0.3 and "inverse_brown_conrady" in notes[0]
    for point, pixel in zip(points, seen_at(camera, points), strict=True):
        theirs = np.array(rs.rs2_project_point_to_pixel(i, point.tolist()))
        assert np.linalg.norm(theirs - pixel) <= off + 2e-3
    i.model = rs.distortion.kannala_brandt4
    with pytest.raises(CameraError, match="Brown-Conrady"):
        realsense.camera_of(rs, "color", i)
    i.coeffs = [0.0] * 5
    assert realsense.camera_of(rs, "color", i)[0].distortion.is_none


def test_pairs_of_the_nearest_color() -> None:
    pairs = Pairs(0.5 / 30)
    assert pairs.take("d0", 0.0, is_depth=True) is None
    assert pairs.take("c0", 0.001, is_depth=False) == ("d0", "c0")
    # colour that is a little early, and the next one too late
    assert pairs.take("c1", 0.030, is_depth=False) is None
    assert pairs.take("d1", 0.033, is_depth=True) is None
    assert pairs.take("c2", 0.063, is_depth=False) == ("d1", "c1")
    # no colour at all: the next depth frame pushes it out
    assert pairs.take("d4", 0.133, is_depth=True) is None
    assert pairs.take("d5", 0.166, is_depth=True) == ("d4", None)
    assert pairs.rest() == ("d5", None) and pairs.rest() is None
    pairs.has_color = False
    assert pairs.take("d6", 0.2, is_depth=True) == ("d6", None)


def test_no_camera_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, module, make in (
        ("realsense", "pyrealsense2", RealSenseSource),
        ("orbbec", "pyorbbecsdk", orbbec.OrbbecSource),
        ("azure", "pyk4a", azure.AzureSource),
    ):
        try:
            __import__(module)
        except ImportError:
            with pytest.raises(MissingExtraError, match=rf"bodyfit\[{kind}\]"):
                make().start()
            assert app(["capture", kind, "-o", str(tmp_path / kind)]) == 3
        else:
            try:
                make().start()
            except DeviceError as problem:
                assert "none connected" in str(problem)
                assert app(["capture", kind, "-o", str(tmp_path / kind)]) == 2
            else:
                pytest.skip("a camera is connected")
        assert not (tmp_path / kind).exists()
    capsys.readouterr()


def test_an_orbbec_camera_by_the_sdks_own_arithmetic() -> None:
    ob = pytest.importorskip("pyorbbecsdk")
    extrinsic = ob.OBExtrinsic()
    R = matrix_from_axis_angle(np.array([0.05, -0.1, 0.02]))
    extrinsic.rot, extrinsic.transform = R.astype(np.float32), np.array([-32.0, 4.0, 10.0], np.float32)
    T = orbbec.transform_of(extrinsic)
    p = ob.transformation3dto3d(ob.OBPoint3f(300, -200, 1700), extrinsic)
    np.testing.assert_allclose(T[:3, :3] @ [0.3, -0.2, 1.7] + T[:3, 3], np.array([p.x, p.y, p.z]) / 1e3, atol=1e-5)
    i, d = ob.OBCameraIntrinsic(), ob.OBCameraDistortion()
    i.width, i.height, i.fx, i.fy, i.cx, i.cy = 1280, 720, 610.0, 611.0, 640.5, 358.0
    d.k1, d.k2, d.k3, d.k4, d.k5, d.k6, d.p1, d.p2 = 0.07, -0.05, 0.01, 0.02, 0.01, 0.003, 0.001, -0.002
    same = ob.OBExtrinsic()
    same.rot, same.transform = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    none = ob.OBCameraDistortion()
    none.model = ob.OBCameraDistortionModel.NONE
    # the SDK's own projection leaves distortion out: the pinhole part can be compared, the lens cannot
    for point in ([0.4, -0.3, 1.0], [-0.6, 0.3, 1.0]):
        theirs = ob.transformation3dto2d(ob.OBPoint3f(*(1000 * c for c in point)), i, none, same)
        camera = orbbec.camera_of(ob, "color", i, none)
        np.testing.assert_allclose(camera.project(np.array(point)), [theirs.x, theirs.y], atol=0.02)
    lenses = (
        (
            ob.OBCameraDistortionModel.BROWN_CONRADY_K6,
            "rational",
            (0.07, -0.05, 0.001, -0.002, 0.01, 0.02, 0.01, 0.003),
        ),
        (ob.OBCameraDistortionModel.BROWN_CONRADY, "brown_conrady", (0.07, -0.05, 0.001, -0.002, 0.01)),
    )
    for model, name, coefficients in lenses:
        d.model = model
        camera = orbbec.camera_of(ob, "color", i, d)
        assert camera.distortion.model == name
        np.testing.assert_allclose(camera.distortion.coefficients, coefficients, rtol=1e-5)
    d.model = ob.OBCameraDistortionModel.KANNALA_BRANDT4
    with pytest.raises(CameraError, match="BROWN_CONRADY"):
        orbbec.camera_of(ob, "color", i, d)


def test_an_azure_calibration() -> None:
    """Of numbers as pyk4a's methods return them; the SDK itself makes calibrations of cameras alone."""
    K = np.array([[505.0, 0, 320.5], [0, 505.2, 330.1], [0, 0, 1]])
    lens = np.array([0.5, -2.7, 0.0008, -0.0001, 1.5, 0.4, -2.5, 1.4])
    camera = azure.camera_of((640, 576), K, lens)
    assert camera == Camera(640, 576, 505.0, 505.2, 320.5, 330.1, Distortion("rational", tuple(lens)))
    R = matrix_from_axis_angle(np.array([0.1, 0, 0]))
    T = azure.transform_of(R, np.array([[-0.032, -0.002, 0.004]]))
    np.testing.assert_allclose(T[:3, :3], R)
    np.testing.assert_allclose(T[:3, 3], [-0.032, -0.002, 0.004])
    with pytest.raises(CameraError):
        azure.transform_of(2 * R, np.zeros(3))
    images = SimpleNamespace(
        depth=np.ones((576, 640), np.uint16), depth_timestamp_usec=1_500_000, color=None, color_timestamp_usec=0
    )
    alone = azure.captured_of(images)
    assert alone.depth_time_s == 1.5 and alone.color is None
