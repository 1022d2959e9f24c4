"""RealSense recordings: made by librealsense and in its layout, read by bodyfit and played by librealsense."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from format_damage import survey
from format_writers import realsense
from format_writers.realsense import START_MS, Lens
from small_recording import transform

from bodyfit.camera import Camera
from bodyfit.errors import CameraError, RecordingError
from bodyfit.frame import Frame
from bodyfit.recording import Recording, Sensor, open_recording
from bodyfit.recording.encoded import Coding, EncodedImage
from bodyfit.recording.realsense_bag import modified_brown_conrady, nearest_brown_conrady
from bodyfit.recording.undistort import undistort_pixels

COEFFICIENTS = (-0.055, 0.068, -0.0008, 0.0012, -0.021)
"""of the size that colour cameras of this maker have"""


def sensor(*, with_color: bool = True) -> Sensor:
    made = Sensor(
        "realsense",
        Camera(64, 48, 60.0, 60.5, 31.75, 23.5),
        np.eye(4),
        Camera(80, 60, 70.0, 71.0, 39.5, 29.0),
        transform((0.02, -0.1, 0.05), (0.015, 0.001, -0.002)),
        0.00025,
    )
    return made if with_color else dataclasses.replace(made, color_camera=None, T_color_depth=None)


def frames(count: int = 4) -> list[Frame]:
    rng = np.random.default_rng(5)
    out = []
    for i in range(count):
        counts = rng.integers(0, 20000, (48, 64))
        out.append(
            Frame(
                depth=counts.astype(np.float32) * np.float32(0.00025),
                depth_camera=sensor().depth_camera,
                T_world_depth=np.eye(4),
                timestamp_s=i / 30,
                color=rng.integers(0, 255, (60, 80, 3)).astype(np.uint8),
                color_camera=sensor().color_camera,
                T_color_depth=sensor().T_color_depth,
                sensor="realsense",
                index=i,
            )
        )
    return out


def pixels(image: EncodedImage) -> np.ndarray:
    """Counts or RGB, however they are stored."""
    if image.coding is Coding.FILE:
        read = cv2.imdecode(np.frombuffer(image.load(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert read is not None
        return read if read.ndim == 2 else read[..., ::-1]
    return np.frombuffer(image.load(), "<u2" if image.coding is Coding.UINT16 else np.uint8)


def check_equal(recording: Recording) -> None:
    assert recording.format == "realsense" and [s.name for s in recording.sensors] == ["realsense"]
    (ours,) = recording.sensors
    theirs = sensor()
    assert ours.color_camera is not None and theirs.color_camera is not None
    assert ours.T_color_depth is not None and theirs.T_color_depth is not None
    for mine, wanted in ((ours.depth_camera, theirs.depth_camera), (ours.color_camera, theirs.color_camera)):
        numbers = [[c.width, c.height, c.fx, c.fy, c.cx, c.cy] for c in (mine, wanted)]
        assert np.allclose(*numbers, rtol=1e-6)
    assert ours.depth_camera.distortion.is_none
    assert ours.depth_unit_m == 0.00025
    # 32-bit floats on their way, and a quaternion of them
    assert np.allclose(ours.T_color_depth, theirs.T_color_depth, atol=1e-6)
    assert recording.num_frames == 4 and np.allclose(recording.timestamps_s, np.arange(4) / 30, atol=1e-6)
    times = recording.stream_timestamps_s["realsense.depth_s"]
    assert np.allclose(times, START_MS / 1000 + np.arange(4) / 30, atol=1e-6)
    assert np.array_equal(recording.stream_timestamps_s["realsense.color_s"], times)
    for i in (2, 0, 3, 1):
        encoded = recording.encoded(i, "realsense")
        assert encoded is not None and encoded.color is not None
        counts, color = pixels(encoded.depth).reshape(48, 64), pixels(encoded.color).reshape(60, 80, 3)
        assert np.array_equal(counts.astype(np.float32) * np.float32(0.00025), frames()[i].depth)
        wanted = frames()[i].color
        assert wanted is not None and np.array_equal(color, wanted)
        assert recording.frame(i, "realsense") is not None


PLAYER = """
import json, sys
import pyrealsense2 as rs
import numpy as np
playback = rs.context().load_device(sys.argv[1]).as_playback()
playback.set_real_time(False)
said, images, profiles = {}, [], {}
queues = []
for sensor in playback.query_sensors():
    for profile in sensor.get_stream_profiles():
        kind = str(profile.stream_type()).split(".")[-1]
        i = profile.as_video_stream_profile().get_intrinsics()
        said[kind] = [i.width, i.height, i.fx, i.fy, i.ppx, i.ppy, str(i.model).split(".")[-1], list(i.coeffs)]
        profiles[kind] = profile
        if kind == "color":
            # where points of space are seen, by librealsense's own projection
            said["seen"] = [rs.rs2_project_point_to_pixel(i, [x, y, 1.0]) for x in (-.4, 0, .3) for y in (-.3, 0, .35)]
    if sensor.supports(rs.option.depth_units):
        said["unit"] = sensor.get_option(rs.option.depth_units)
    queue = rs.frame_queue(100, True)
    sensor.open(sensor.get_stream_profiles())
    queues.append((sensor, queue))
# all are started before anything is read: frames of one that has not started are dropped
playback.pause()
for sensor, queue in queues:
    sensor.start(queue)
playback.resume()
if "color" in profiles:
    e = profiles["depth"].get_extrinsics_to(profiles["color"])
    said["rotation"], said["translation"] = list(e.rotation), list(e.translation)
for sensor, queue in queues:
    for _ in range(int(sys.argv[2])):
        found, frame = queue.try_wait_for_frame(10000)
        if not found:
            break
        kind = str(frame.get_profile().stream_type()).split(".")[-1]
        data = np.asanyarray(frame.get_data())
        images.append([kind, frame.get_timestamp(), data.ravel().astype(int).tolist()])
said["images"] = images
print(json.dumps(said))
import os
sys.stdout.flush()
os._exit(0)
"""


def played(path: Path) -> dict[str, Any]:
    """What librealsense's playback makes of a file, in a process of its own."""
    pytest.importorskip("pyrealsense2")
    done = subprocess.run(
        [sys.executable, "-c", PLAYER, str(path), str(len(frames()))], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_as_played(path: Path) -> None:
    """Read by bodyfit, and played by librealsense: the same."""
    said = played(path)
    with open_recording(path) as recording:
        (ours,) = recording.sensors
        assert ours.color_camera is not None and ours.T_color_depth is not None
        for camera, key in ((ours.depth_camera, "depth"), (ours.color_camera, "color")):
            numbers = [camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy]
            assert np.allclose(numbers, said[key][:6], rtol=1e-5)
        assert abs(ours.depth_unit_m - said["unit"]) < 1e-9
        R, t = np.reshape(said["rotation"], (3, 3)).T, said["translation"]
        assert np.allclose(ours.T_color_depth[:3, :3], R, atol=2e-6)
        assert np.allclose(ours.T_color_depth[:3, 3], t, atol=2e-6)
        # the same points of space at the same pixels
        seen = undistort_pixels(ours.color_camera, np.array(said["seen"]))
        space = np.array([(x, y, 1.0) for x in (-0.4, 0, 0.3) for y in (-0.3, 0, 0.35)])
        assert np.abs(seen - ours.color_camera.pinhole.project(space)).max() < 0.02
        for kind in ("depth", "color"):
            theirs = [image for image in said["images"] if image[0] == kind]
            assert len(theirs) == recording.num_frames
            times = recording.stream_timestamps_s[f"realsense.{kind}_s"]
            assert np.allclose(times, [image[1] / 1000 for image in theirs], atol=1e-6)
            for i, (_, _, values) in enumerate(theirs):
                encoded = recording.encoded(i, "realsense")
                assert encoded is not None and encoded.color is not None
                image = encoded.depth if kind == "depth" else encoded.color
                assert np.array_equal(pixels(image).ravel(), values)


@pytest.mark.parametrize("suffix", ["bag", "db3"])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_what_librealsense_recorded(tmp_path: Path, suffix: str, reference: bool, compress: bool) -> None:
    """A software device's streams, recorded by librealsense, are read as they were sent and as it plays them."""
    pytest.importorskip("pyrealsense2")
    path = tmp_path / f"recorded.{suffix}"
    try:
        realsense.record(path, sensor(), frames(), reference=reference, compress=compress)
    except RuntimeError as problem:
        if "extension" not in str(problem):
            raise
        pytest.skip(f"this version of librealsense does not record .{suffix}")
    with open_recording(path) as recording:
        check_equal(recording)
        assert "Hardware Clock" in " ".join(recording.notes)
    check_as_played(path)


@pytest.mark.parametrize("model", ["brown_conrady", "inverse_brown_conrady", "modified_brown_conrady"])
@pytest.mark.parametrize("recorded", [False, True])
def test_lens_models(tmp_path: Path, model: str, recorded: bool) -> None:
    """Points of space are seen where librealsense's own projection puts them."""
    pytest.importorskip("pyrealsense2")
    lens = Lens(model, COEFFICIENTS)
    if recorded:
        path = realsense.record(tmp_path / "made.db3", sensor(), frames(), color_lens=lens)
    else:
        path = realsense.write(tmp_path / "made.bag", sensor(), frames(), color_lens=lens)
    with open_recording(path) as recording:
        color_camera = recording.sensors[0].color_camera
        assert color_camera is not None and color_camera.distortion.model == "brown_conrady"
        is_exact = np.allclose(color_camera.distortion.coefficients, COEFFICIENTS, rtol=1e-5)
        assert is_exact == (model == "brown_conrady")
        assert ("nearest Brown-Conrady" in " ".join(recording.notes)) == (model != "brown_conrady")
    check_as_played(path)


@pytest.mark.parametrize("container", ["", "lz4"])
def test_a_bag_in_librealsense_layout(tmp_path: Path, container: str) -> None:
    """`.bag` as versions before 2.57 write it: read, and played by librealsense with the same result."""
    if container:
        pytest.importorskip("lz4")
    path = realsense.write(tmp_path / "made.bag", sensor(), frames(), container=container)
    with open_recording(path) as recording:
        check_equal(recording)
    if not container:  # librealsense does not take the LZ4 frames of other writers
        check_as_played(path)


def test_streams_of_different_clocks(tmp_path: Path) -> None:
    """They are paired by when they were recorded, and that is said."""
    path = realsense.write(tmp_path / "made.bag", sensor(), frames(), domains=("Hardware Clock", "System Time"))
    with open_recording(path) as recording:
        assert "depth is timed by Hardware Clock, colour by System Time" in " ".join(recording.notes)
        assert np.allclose(recording.timestamps_s, np.arange(4) / 30, atol=1e-6)
        read = recording.frame(2, "realsense")
        wanted = frames()[2].color
        assert read is not None and read.color is not None and wanted is not None
        assert np.array_equal(read.color, wanted)


def test_without_colour(tmp_path: Path) -> None:
    path = realsense.write(tmp_path / "made.bag", sensor(with_color=False), frames())
    with open_recording(path) as recording:
        assert recording.sensors[0].color_camera is None and "no colour" in " ".join(recording.notes)
        read = recording.frame(3, "realsense")
        assert read is not None and np.array_equal(read.depth, frames()[3].depth) and read.color is None


def test_a_depth_lens_that_is_not_known(tmp_path: Path) -> None:
    """What cannot be read of the colour camera leaves the depth; the depth camera itself is refused."""
    path = realsense.write(tmp_path / "made.bag", sensor(), frames(), color_lens=Lens("none", COEFFICIENTS))
    data = path.read_bytes()
    (tmp_path / "color.bag").write_bytes(data.replace(b"\x04\x00\x00\x00None", b"\x04\x00\x00\x00Fish"))
    with open_recording(tmp_path / "color.bag") as recording:
        assert recording.sensors[0].color_camera is None and "'Fish'" in " ".join(recording.notes)
    lens = b"\x0d\x00\x00\x00Brown Conrady\x05\x00\x00\x00"
    assert data.count(lens) == 1
    bent = data.replace(lens + bytes(8), b"\x0d\x00\x00\x00Kannala Brand\x05\x00\x00\x00" + np.float64(0.1).tobytes())
    (tmp_path / "depth.bag").write_bytes(bent)
    with pytest.raises(CameraError, match="Kannala"):
        open_recording(tmp_path / "depth.bag")


def test_a_bag_without_depth(tmp_path: Path) -> None:
    path = realsense.write(tmp_path / "made.bag", sensor(), frames())
    (tmp_path / "none.bag").write_bytes(path.read_bytes().replace(b"/Depth_0/image/data", b"/Death_0/image/data"))
    with pytest.raises(RecordingError, match=r"a stream Depth, found .*Death_0"):
        open_recording(tmp_path / "none.bag")


def test_the_nearest_lens() -> None:
    """OpenCV's model through librealsense's: far below a pixel for coefficients of real lenses."""
    camera = Camera(1280, 720, 640.0, 640.0, 639.5, 359.5)
    lens, worst_px = nearest_brown_conrady(camera, COEFFICIENTS)
    assert worst_px < 0.2
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, 7), np.linspace(-0.5, 0.5, 5))
    xd, yd = modified_brown_conrady(x.ravel(), y.ravel(), COEFFICIENTS)
    pixels = np.stack([camera.fx * xd + camera.cx, camera.fy * yd + camera.cy], -1)
    found = undistort_pixels(dataclasses.replace(camera, distortion=lens), pixels)
    wanted = np.stack([camera.fx * x.ravel() + camera.cx, camera.fy * y.ravel() + camera.cy], -1)
    assert np.abs(found - wanted).max() < 0.3


def test_damaged_bags(tmp_path: Path) -> None:
    """Cut and changed at random: read, or refused by an error of ours."""
    found = survey(realsense.write(tmp_path / "made.bag", sensor(), frames()), tmp_path / "scratch")
    assert not found.wrong, found.wrong[:5]
    assert found.cases == 221


def test_damaged_databases(tmp_path: Path) -> None:
    """The same of `.db3`."""
    pytest.importorskip("pyrealsense2")
    found = survey(realsense.record(tmp_path / "made.db3", sensor(), frames()), tmp_path / "scratch")
    assert not found.wrong, found.wrong[:5]
    assert found.cases == 221
