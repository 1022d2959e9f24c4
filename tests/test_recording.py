"""Recordings read as they were written, undistorted as OpenCV projects, and written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_recording import CLOCKS, GRAVITY, edit_json, frames, sensors, write_small

from bodyfit.camera import Camera, Distortion
from bodyfit.errors import CameraError, FrameError, InputError, OutputError, RecordingError
from bodyfit.frame import Frame, Keypoints
from bodyfit.recording import Sensor, open_recording, write_recording
from bodyfit.recording.undistort import check_invertible, fold_radius, make_undistorter, undistort_pixels

BROWN = Distortion("brown_conrady", (0.12, -0.31, 0.0011, -0.0008, 0.11))
# a time-of-flight camera's own calibration has this shape: large halves that nearly cancel
RATIONAL = Distortion("rational", (0.52, -2.61, 0.0007, -0.0004, 1.5, 0.4, -2.43, 1.43))
BARREL = Distortion("brown_conrady", (-0.28, 0.07, 0.0004, 0.0002, -0.008))
LENSES = pytest.mark.parametrize("lens", [BROWN, RATIONAL, BARREL], ids=["brown_conrady", "rational", "barrel"])


def camera(lens: Distortion) -> Camera:
    return Camera(320, 288, 252.3, 251.9, 160.4, 146.8, lens)


def project(points: np.ndarray, cam: Camera) -> np.ndarray:
    """(N, 2) pixels by OpenCV, lens included."""
    lens = np.array(cam.distortion.coefficients)
    return np.asarray(cv2.projectPoints(points, np.zeros(3), np.zeros(3), cam.K, lens)[0], np.float64)[:, 0]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_recording_reads_back_as_it_was_written(tmp_path: Path) -> None:
    recording = open_recording(write_small(tmp_path / "small"))
    assert [sensor.name for sensor in recording.sensors] == ["left", "right"]
    for ours, theirs in zip(sensors(), recording.sensors, strict=True):
        assert (ours.depth_camera, ours.color_camera) == (theirs.depth_camera, theirs.color_camera)
        assert ours.depth_unit_m == theirs.depth_unit_m
        np.testing.assert_array_equal(ours.T_world_depth, theirs.T_world_depth)
    assert recording.gravity_world is not None
    np.testing.assert_allclose(recording.gravity_world, GRAVITY)
    assert recording.num_frames == 3 and not recording.has_truth
    np.testing.assert_array_equal(recording.indices, [0, 10, 20])
    np.testing.assert_array_equal(recording.timestamps_s, [0.0, 0.1, 0.2])
    for column, times in CLOCKS.items():
        np.testing.assert_array_equal(recording.stream_timestamps_s[column], times)

    assert recording.frame(0, "right") is None and recording.frame(2, "right") is None
    read = [f for i in range(3) for name in ("left", "right") if (f := recording.frame(i, name)) is not None]
    for written, found in zip(frames(), read, strict=True):
        assert (found.sensor, found.index, found.timestamp_s) == (written.sensor, written.index, written.timestamp_s)
        assert found.depth.dtype == np.float32
        np.testing.assert_allclose(found.depth, written.depth, rtol=1e-6)
        np.testing.assert_array_equal(found.depth == 0, written.depth == 0)
        assert (found.mask is None) == (written.mask is None)
        if written.mask is not None and found.mask is not None:
            np.testing.assert_array_equal(found.mask, written.mask)
        if written.color is not None:
            assert found.color is not None and found.color.dtype == np.uint8
            # a smooth picture survives JPEG; red and blue exchanged would differ by 200
            assert np.abs(found.color.astype(int) - written.color).max() <= 12
        if written.keypoints is not None:
            assert found.keypoints is not None and found.keypoints.names == written.keypoints.names
            np.testing.assert_array_equal(found.keypoints.xy, written.keypoints.xy)
            np.testing.assert_array_equal(found.keypoints.confidence, written.keypoints.confidence)
        assert (found.keypoints is None) == (written.keypoints is None)


def test_the_same_frames_give_the_same_bytes_and_png_colour_is_exact(tmp_path: Path) -> None:
    assert everything(write_small(tmp_path / "a")) == everything(write_small(tmp_path / "b"))
    write_recording(tmp_path / "c", sensors(), frames(), None, color_format="png")
    recording = open_recording(tmp_path / "c")
    assert recording.gravity_world is None
    found = recording.frame(0, "left")
    assert found is not None and found.color is not None
    np.testing.assert_array_equal(found.color, frames()[0].color)


def test_depth_is_rounded_to_the_nearest_count(tmp_path: Path) -> None:
    sensor = Sensor("s", Camera(4, 1, 4.0, 4.0, 1.5, 0.0), np.eye(4))
    depth = np.array([[0.0, 1.2344, 1.2346, 65.535]], np.float32)
    write_recording(tmp_path / "r", [sensor], [Frame(depth, sensor.depth_camera, np.eye(4), sensor="s")])
    found = open_recording(tmp_path / "r").frame(0, "s")
    assert found is not None
    np.testing.assert_allclose(found.depth, [[0.0, 1.234, 1.235, 65.535]], atol=1e-5)


def test_opening_and_importing_leave_opencv_alone(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "small")
    code = f"import sys; from bodyfit.recording import open_recording; open_recording({str(folder)!r}); " \
           "print(sorted({'cv2', 'torch', 'open3d', 'scipy', 'numba'} & set(sys.modules)))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@LENSES
def test_undistorted_pixels_are_the_pinhole_projection(lens: Distortion) -> None:
    """Points projected by OpenCV with the lens, undistorted by us, lie where a pinhole sees them."""
    cam = camera(lens)
    rng = np.random.default_rng(3)
    points = np.column_stack([rng.uniform(-0.6, 0.6, (4000, 2)), np.ones(4000)]) * rng.uniform(0.5, 6, (4000, 1))
    recorded = project(points, cam)
    inside = (recorded > 0).all(1) & (recorded[:, 0] < cam.width - 1) & (recorded[:, 1] < cam.height - 1)
    assert inside.sum() > 2000
    found = undistort_pixels(cam, recorded[inside])
    assert np.abs(found - cam.project(points[inside])).max() < 1e-5


@LENSES
def test_images_are_undistorted_as_opencv_projects(lens: Distortion) -> None:
    """Both maps end where cv2.projectPoints puts the pixel's ray; depth takes the nearest pixel, colour blends."""
    cam = camera(lens)
    undistorter = make_undistorter("camera", cam)
    assert undistorter is not None
    v, u = np.mgrid[: cam.height, : cam.width].astype(np.float64)
    rays = np.stack([(u - cam.cx) / cam.fx, (v - cam.cy) / cam.fy, np.ones_like(u)], -1).reshape(-1, 3)
    source = project(rays, cam).reshape(cam.height, cam.width, 2)
    has_source = undistorter.has_source > 0
    inside = (source > 1).all(-1) & (source[..., 0] < cam.width - 2) & (source[..., 1] < cam.height - 2)
    assert has_source[inside].all() and inside.mean() > 0.6
    before, beyond = undistorter.between
    maps = before + np.stack([beyond % 32, beyond // 32], -1) / 32
    assert np.abs(maps - source)[inside].max() < 0.51 / 32

    # an image that says at every pixel where that pixel is
    counts = (np.arange(cam.height)[:, None] * 200 + np.arange(cam.width)[None] % 200).astype(np.uint16)
    taken = undistorter.image_nearest(counts)
    column, row = (np.rint(source[..., axis]).astype(int) for axis in (0, 1))
    surely = inside & (np.abs(source - np.floor(source) - 0.5) > 1e-6).all(-1)
    np.testing.assert_array_equal(taken[surely], counts[row[surely], column[surely]])
    assert not taken[~has_source].any()
    ramp = np.repeat((np.arange(cam.width) * 0.75).astype(np.uint8)[None, :, None], cam.height, 0).repeat(3, 2)
    blended = undistorter.image_linear(ramp)[..., 0].astype(float)
    assert np.abs(blended - source[..., 0] * 0.75)[inside].max() < 1.6
    assert not blended[~has_source].any()


@LENSES
def test_a_distorted_recording_comes_out_as_a_pinhole_saw_it(lens: Distortion, tmp_path: Path) -> None:
    """A disc of depth, mask and colour recorded through a lens, opened: at the place of the pinhole projection."""
    cam = camera(lens)
    centre = np.array([0.42, -0.3, 1.0])
    v, u = np.mgrid[: cam.height, : cam.width].astype(np.float64)
    pinhole = undistort_pixels(cam, np.stack([u.ravel(), v.ravel()], -1)).reshape(cam.height, cam.width, 2)
    disc = np.linalg.norm(np.nan_to_num(pinhole, nan=-1e3) - cam.project(centre), axis=-1) < 20
    depth = np.where(disc, 2.0, 4.0).astype(np.float32)
    color = np.where(disc[..., None], np.array([200, 40, 20]), 10).astype(np.uint8)
    at = project(centre[None], cam)
    sensor = Sensor("lens", cam, np.eye(4), cam, np.eye(4))
    frame = Frame(
        depth, cam, np.eye(4), 0.0, color, cam, np.eye(4), disc, Keypoints(("nose",), at, np.ones(1)), "lens", 0
    )
    write_recording(tmp_path / "r", [sensor], [frame], color_format="png")
    found = open_recording(tmp_path / "r").frame(0, "lens")
    assert found is not None and found.mask is not None and found.color is not None and found.keypoints is not None
    assert found.depth_camera == cam.pinhole and found.color_camera == cam.pinhole
    assert set(np.unique(found.depth)) <= {np.float32(0), np.float32(2), np.float32(4)}
    # a nearest neighbour may be half a pixel away, all over the disc; what is blended may not
    red = np.maximum(found.color[..., 0].astype(float) - 10, 0)
    for seen, tolerance in ((found.depth == 2, 0.6), (found.mask, 0.6), (red, 0.1)):
        middle = np.array([(seen * u).sum(), (seen * v).sum()]) / seen.sum()
        assert np.abs(middle - cam.project(centre)).max() < tolerance
    np.testing.assert_allclose(found.keypoints.xy[0], cam.project(centre), atol=1e-4)


def test_folds_are_found_and_refused_only_inside_the_image() -> None:
    # r (1 - r²) peaks at 1/√3
    assert fold_radius(camera(Distortion("brown_conrady", (-1.0, 0, 0, 0, 0)))) == pytest.approx(3**-0.5)
    assert fold_radius(camera(Distortion("brown_conrady", (0.1, 0, 0, 0, 0)))) == np.inf
    # the denominator 1 - 4 r² is zero at r = 1/2
    assert fold_radius(camera(Distortion("rational", (0, 0, 0, 0, 0, -4.0, 0, 0)))) == pytest.approx(0.5)
    for coefficients in ((-1.0, 0, 0, 0, 0), (1e5, -1e6, 0, 0, 0), (0, 0, 5.0, 0, 0), (1e300, 0, 0, 0, 0)):
        with pytest.raises(CameraError, match=r"depth_camera\.distortion\.coefficients"):
            check_invertible("depth_camera", camera(Distortion("brown_conrady", coefficients)))
    with pytest.raises(CameraError, match="empty"):
        check_invertible("c", camera(Distortion("rational", (0, 0, 0, 0, 0, -4.0, 0, 0))))
    with pytest.raises(CameraError, match="no direction"):
        check_invertible("c", camera(Distortion("brown_conrady", (-1.0, 0, 0, 0, 0))))
    for lens in (BROWN, RATIONAL, BARREL, Distortion()):
        check_invertible("c", camera(lens))


def test_no_ghost_beyond_the_fold() -> None:
    """The polynomial comes back into the image in its corners; undistorted pixels there show nothing."""
    lens = Distortion("brown_conrady", (1.0, -0.9, 0, 0, 0))
    cam = Camera(200, 200, 127.0, 127.0, 99.5, 99.5, lens)
    undistorter = make_undistorter("c", cam)
    assert undistorter is not None
    v, u = np.mgrid[:200, :200]
    rays = np.stack([(u - 99.5) / 127, (v - 99.5) / 127, np.ones_like(u, float)], -1)
    beyond = np.hypot(rays[..., 0], rays[..., 1]) > fold_radius(cam)
    naive = project(rays[beyond], cam)
    assert beyond.sum() > 500 and ((naive > 0) & (naive < 199)).all(axis=-1).sum() > 300
    assert (undistorter.nearest[beyond] < -1).all() and not undistorter.has_source[beyond].any()
    assert (undistorter.has_source > 0).mean() > 0.5


def test_writing_refuses_and_leaves_nothing_behind(tmp_path: Path) -> None:
    left, right = sensors()
    good = frames()

    def refused(error: type[InputError], field: str, **change: object) -> None:
        before = everything(tmp_path)
        arguments = {"path": tmp_path / "new", "sensors": (left, right), "frames": good, "gravity_world": None}
        with pytest.raises(error, match=field):
            write_recording(**(arguments | change))  # type: ignore[arg-type]
        assert everything(tmp_path) == before and not any(tmp_path.glob(".*"))

    negative, far = good[0].depth.copy(), good[0].depth.copy()
    negative[3, 3], far[3, 3] = -0.001, 65.6
    refused(FrameError, "depth", frames=[replace(good[0], depth=negative), *good[1:]])
    refused(FrameError, "65.535 m", frames=[replace(good[0], depth=far), *good[1:]])
    refused(FrameError, "sensor", frames=[replace(good[0], sensor="other")])
    refused(FrameError, "depth_camera", frames=[replace(good[0], depth_camera=replace(left.depth_camera, fx=34.0))])
    refused(FrameError, "T_world_depth", frames=[replace(good[0], T_world_depth=np.eye(4))])
    refused(FrameError, "two", frames=[good[0], good[0]])
    refused(FrameError, "instant", frames=[good[1], good[0]])
    refused(FrameError, "timestamp_s", frames=[good[1], replace(good[2], timestamp_s=0.11)])
    refused(FrameError, "right", frames=[good[0]])
    refused(FrameError, "at least one frame", frames=[])
    refused(FrameError, "stream_timestamps_s", stream_timestamps_s={"left.depth_s": np.zeros(2)})
    refused(FrameError, "color_format", color_format="bmp")
    refused(RecordingError, r"sensors\[0\].name", sensors=[replace(left, name="../left")])
    refused(RecordingError, r"sensors\[1\].name", sensors=[left, replace(right, name="LEFT")])
    refused(RecordingError, "gravity_world", gravity_world=(0, 0, -9.81))
    refused(CameraError, "T_world_depth", sensors=[replace(left, T_world_depth=2 * np.eye(4)), right])
    refused(OutputError, "parent", path=tmp_path / "no" / "new")

    def broken():
        yield good[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_recording(tmp_path / "new", (left, right), broken())
    assert not list(tmp_path.iterdir())


def test_overwriting_is_asked_for_and_spares_other_folders(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "r")
    with pytest.raises(OutputError, match="in its place"):
        write_small(folder)
    (folder / "left" / "color" / "000010.jpg").write_bytes(b"")
    write_recording(folder, sensors(), frames(), GRAVITY, overwrite=True)
    assert (folder / "left" / "color" / "000010.jpg").stat().st_size and list(tmp_path.iterdir()) == [folder]

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for other in (precious, tmp_path / "file"):
        with pytest.raises(OutputError):
            write_recording(other, sensors(), frames(), overwrite=True)
    assert (precious / "letter.txt").read_text() == "keep" and (tmp_path / "file").read_text() == "keep"


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    """The system refuses in the middle of a file: what was there stays, what was begun is gone."""
    resource = pytest.importorskip("resource")
    folder = write_small(tmp_path / "r")
    before = everything(tmp_path)
    largest = max(len(data) for data in before.values())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises(OutputError, match="too large"):
            write_small(tmp_path / "new")
        with pytest.raises(OutputError, match="too large"):
            write_recording(folder, sensors(), frames(), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything(tmp_path) == before and list(tmp_path.iterdir()) == [folder]


def test_links_inside_are_followed_and_out_of_it_refused(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "r")
    (tmp_path / "alias").symlink_to(folder)
    depth = folder / "left" / "depth"
    depth.rename(folder / "kept_elsewhere")
    depth.symlink_to(folder / "kept_elsewhere")
    assert open_recording(tmp_path / "alias").frame(0, "left") is not None
    image = folder / "kept_elsewhere" / "000000.png"
    image.rename(tmp_path / "outside.png")
    image.symlink_to(tmp_path / "outside.png")
    with pytest.raises(RecordingError, match="inside the recording"):
        open_recording(folder).frame(0, "left")


def test_soft_masks_are_cut_at_one_half(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "r")
    mask = np.zeros((32, 40), np.uint8)
    mask[4:8, 4:8], mask[5:7, 5:7] = 90, 255
    cv2.imwrite(str(folder / "left" / "mask" / "000000.png"), mask)
    found = open_recording(folder).frame(0, "left")
    assert found is not None and found.mask is not None and found.mask.sum() == 4


def test_turned_grey_and_palette_colour(tmp_path: Path) -> None:
    """Grey is spread over three channels; EXIF's wish to turn the picture is not heard."""
    folder = write_small(tmp_path / "r")
    file = folder / "left" / "color" / "000000.jpg"
    data = file.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    file.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    turned = open_recording(folder).frame(0, "left")
    assert turned is not None and turned.color is not None and turned.color.shape == (27, 48, 3)
    file.unlink()
    cv2.imwrite(str(file.with_suffix(".png")), np.full((27, 48), 77, np.uint8))
    grey = open_recording(folder).frame(0, "left")
    assert grey is not None and grey.color is not None and (grey.color == 77).all()
    file.with_suffix(".png").unlink()
    without = open_recording(folder).frame(0, "left")
    assert without is not None and without.color is None


def test_depth_without_any_reading_is_still_a_frame(tmp_path: Path) -> None:
    """Who looks for a person in it refuses it; one dark frame must not end a sequence."""
    folder = write_small(tmp_path / "r")
    cv2.imwrite(str(folder / "left" / "depth" / "000000.png"), np.zeros((32, 40), np.uint16))
    found = open_recording(folder).frame(0, "left")
    assert found is not None and not found.depth.any()


def test_frames_and_sensors_that_are_not_there(tmp_path: Path) -> None:
    recording = open_recording(write_small(tmp_path / "r"))
    with pytest.raises(RecordingError, match="left, right"):
        recording.frame(0, "top")
    for i in (-1, 3):
        with pytest.raises(IndexError):
            recording.frame(i, "left")


def test_the_common_depth_unit_holds_where_a_sensor_has_none(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "r")

    def change(document: dict) -> None:
        document["depth_unit_m"] = 0.002
        document["sensors"][0].pop("depth_unit_m", None)

    edit_json(folder / "recording.json", change)
    assert [sensor.depth_unit_m for sensor in open_recording(folder).sensors] == [0.002, 0.00025]


def test_every_shared_recording_reads(shared_recordings: Path) -> None:
    folders = sorted(file.parent for file in shared_recordings.glob("*/recording.json"))
    assert folders
    for folder in folders:
        recording = open_recording(folder)
        for sensor in recording.sensors:
            for i in {0, recording.num_frames - 1}:
                frame = recording.frame(i, sensor.name)
                assert frame is not None and frame.color is not None, folder
                near = frame.depth[frame.depth > 0]
                assert near.size > 0.1 * frame.depth.size and 0.3 < np.median(near) < 10
        assert recording.has_truth == (folder / "truth").is_dir()


def test_frames_without_colour_are_the_same_but_for_it(tmp_path: Path) -> None:
    """On disk and in memory; what is not asked for is not decoded either."""
    folder = tmp_path / "recording"
    write_small(folder)
    recording = open_recording(folder)
    whole, plain = recording.frame(1, "left"), recording.frame(1, "left", color=False)
    assert whole is not None and plain is not None and whole.color is not None
    assert plain.color is None and plain.color_camera == whole.color_camera
    np.testing.assert_array_equal(plain.depth, whole.depth)
    image = sorted(p for p in folder.rglob("*") if p.is_file() and "color" in p.relative_to(folder).as_posix())[1]
    image.write_bytes(b"no image")
    assert recording.frame(1, "left", color=False) is not None
    with pytest.raises(RecordingError, match=image.name):
        recording.frame(1, "left")
