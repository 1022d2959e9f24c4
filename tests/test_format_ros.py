"""ROS 1 and ROS 2 bags, written by `rosbags`, read by bodyfit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

from format_writers import ros1, ros2
from format_writers.ros1 import EPOCH_NS, Layout, Maker, Message
from ros_recordings import check_equal, frames, made, said, sensors, write
from small_recording import transform

from bodyfit.camera import Distortion
from bodyfit.errors import CameraError, InputError, RecordingError
from bodyfit.recording import open_recording
from bodyfit.recording.encoded import Coding

CONTAINERS = ["bag", "bag-bz2", "bag-lz4", "sqlite3", "sqlite3-message", "mcap", "mcap-storage"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_was_written_is_read(tmp_path: Path, container: str) -> None:
    if container == "bag-lz4":
        pytest.importorskip("lz4")
    with open_recording(write(tmp_path, container)) as recording:
        assert recording.format == "ros"
        check_equal(recording)
        assert recording.gravity_world is not None and recording.gravity_world.tolist() == [0, 0, -1]
        assert "depth of /left/depth/image_rect_raw, colour of /left/color/image_raw" in said(recording)
        assert "headers" not in said(recording) and "closed" not in said(recording)
    with pytest.raises(InputError):
        frame = recording.frame(0, "left")
        assert frame is None, "a closed recording gives no images"


def test_single_files_of_a_folder(tmp_path: Path) -> None:
    for storage, suffix in (("sqlite3", "db3"), ("mcap", "mcap")):
        folder = ros2.write(tmp_path / storage, sensors(), frames(), storage=storage)
        (file,) = folder.glob(f"*.{suffix}")
        with open_recording(file) as recording:
            check_equal(recording)
        (folder / "metadata.yaml").unlink()
        with open_recording(folder) as recording:
            check_equal(recording)


def test_a_bag_of_several_files(tmp_path: Path) -> None:
    """Split by time as recorders do; the second file has no tf of its own."""
    whole = tmp_path / "split"
    whole.mkdir()
    for part, chosen in enumerate([frames()[:3], frames()[3:]]):
        layout = Layout(with_tf=part == 0)
        made = ros2.write(tmp_path / f"part{part}", sensors(), chosen, layout, storage="mcap")
        shutil.copy(next(made.glob("*.mcap")), whole / f"split_{part + 9}.mcap")
    with open_recording(whole) as recording:
        check_equal(recording)
    (whole / "split_10.mcap").write_bytes(b"")
    with open_recording(whole) as recording:
        assert recording.num_frames == 2 and "split_10.mcap: expected an MCAP or SQLite file, found an empty" in said(
            recording
        )


@pytest.mark.parametrize("container", ["bag", "mcap"])
@pytest.mark.parametrize(
    ("depth", "is_bigendian", "padding"),
    [("mono16", False, 0), ("16UC1", True, 6), ("32FC1", False, 4), ("32FC1", True, 0), ("compressedDepth", False, 0)],
)
def test_depth_encodings(tmp_path: Path, container: str, depth: str, is_bigendian: bool, padding: int) -> None:
    with open_recording(write(tmp_path, container, Layout(depth=depth, is_bigendian=is_bigendian))) as recording:
        check_equal(recording, has_color=False)
        encoded = recording.encoded(0, "left")
        coding = {"32FC1": Coding.FLOAT32, "compressedDepth": Coding.FILE}.get(depth, Coding.UINT16)
        assert encoded is not None and encoded.depth.coding is coding
    (tmp_path / "padded").mkdir()
    with open_recording(write(tmp_path / "padded", container, Layout(depth=depth, padding=padding))) as recording:
        check_equal(recording)


def test_inverse_depth(tmp_path: Path) -> None:
    """Floats that were compressed come back to the step of their quantisation: d² / A, half of it."""
    with open_recording(write(tmp_path, "bag", Layout(depth="compressedDepth32"))) as recording:
        check_equal(recording, depth_error=6.0**2 / ros1.INVERSE_DEPTH[0] / 2 * 1.02)
        read = recording.frame(0, "left")
        assert read is not None and np.array_equal(read.depth > 0, frames()[0].depth > 0)


@pytest.mark.parametrize("color", ["bgr8", "rgba8", "bgra8", "png"])
def test_colour_encodings(tmp_path: Path, color: str) -> None:
    with open_recording(write(tmp_path, "sqlite3", Layout(color=color, padding=5))) as recording:
        check_equal(recording)


@pytest.mark.parametrize("color", ["mono8", "jpeg", "yuv422", "yuv422_yuy2"])
def test_colour_that_is_not_kept_exactly(tmp_path: Path, color: str) -> None:
    with open_recording(write(tmp_path, "bag", Layout(color=color))) as recording:
        check_equal(recording, has_color=False)
        encoded, read, wanted = recording.encoded(0, "left"), recording.frame(0, "left"), frames()[0].color
        assert encoded is not None and encoded.color is not None and read is not None and read.color is not None
        assert encoded.color.coding is (Coding.FILE if color == "jpeg" else Coding.UINT8) and wanted is not None
        if color == "mono8":
            assert np.array_equal(read.color, np.repeat(wanted[..., :1], 3, -1))
        elif color == "jpeg":
            assert np.abs(read.color.mean((0, 1)) - wanted.mean((0, 1))).max() < 3
        else:
            # green follows the luma that was written
            slope = np.polyfit(wanted[..., 0].ravel(), read.color[..., 1].ravel().astype(float), 1)[0]
            assert slope > 0.7


def test_recorders_times_where_headers_have_none(tmp_path: Path) -> None:
    with open_recording(write(tmp_path, "bag", Layout(with_stamps=False))) as recording:
        assert "no times in the messages' headers" in said(recording)
        assert np.allclose(recording.stream_timestamps_s["left.depth_s"], EPOCH_NS / 1e9 + 0.04 + np.arange(4) / 30)


def test_without_a_world_or_tf(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with open_recording(write(tmp_path / "a", "bag", Layout(world=""))) as recording:
        assert recording.gravity_world is None and "where they stand to each other is not known" in said(recording)
        T_color_depth, wanted = recording.sensors[0].T_color_depth, sensors()[0].T_color_depth
        assert T_color_depth is not None and wanted is not None and np.allclose(T_color_depth, wanted)
    (tmp_path / "b").mkdir()
    with open_recording(write(tmp_path / "b", "bag", Layout(with_tf=False))) as recording:
        assert recording.sensors[0].color_camera is None and "no tf_static leads from 'left_depth" in said(recording)
        assert np.array_equal(recording.sensors[0].T_world_depth, np.eye(4))
    (tmp_path / "c").mkdir()
    with pytest.raises(RecordingError, match="calibration in /left/depth/camera_info"):
        open_recording(write(tmp_path / "c", "mcap", Layout(with_info=False)))


def with_infos(edit: Any) -> Any:
    def change(_: Maker, messages: list[Message]) -> list[Message]:
        for message in messages:
            if message.topic == "/left/depth/camera_info":
                edit(message.content)
        return messages

    return change


@pytest.mark.parametrize(
    ("model", "D", "wanted"),
    [
        ("plumb_bob", (0.1, -0.05, 0.001, 0.002, 0.01), Distortion("brown_conrady", (0.1, -0.05, 0.001, 0.002, 0.01))),
        ("plumb_bob", (0.1, -0.05, 0.001, 0.002), Distortion("brown_conrady", (0.1, -0.05, 0.001, 0.002, 0.0))),
        ("", (0.1, -0.05, 0.0, 0.0, 0.0), Distortion("brown_conrady", (0.1, -0.05, 0.0, 0.0, 0.0))),
        ("plumb_bob", (0.0,) * 5, Distortion()),
        ("equidistant", (0.0,) * 4, Distortion()),
        ("plumb_bob", (), Distortion()),
        (
            "rational_polynomial",
            (0.2, 0.1, 0.001, 0.002, 0.01, 0.3, 0.05, 0.005),
            Distortion("rational", (0.2, 0.1, 0.001, 0.002, 0.01, 0.3, 0.05, 0.005)),
        ),
    ],
)
def test_lens_models(tmp_path: Path, model: str, D: tuple[float, ...], wanted: Distortion) -> None:
    def edit(info: Any) -> None:
        info.distortion_model, info.D = model, np.array(D)

    with open_recording(made(tmp_path, with_infos(edit))) as recording:
        assert recording.sensors[0].depth_camera.distortion == wanted
        assert recording.frame(0, "left") is not None


def test_binning_and_region(tmp_path: Path) -> None:
    """The calibration is of the full image, of which the region is cut and then made smaller."""

    def edit(info: Any) -> None:
        info.width, info.height, info.binning_x, info.binning_y = 640, 480, 2, 3
        info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 128, 144
        info.K = np.array([120.0, 0, 163.2, 0, 181.5, 120.2, 0, 0, 1])

    with open_recording(made(tmp_path, with_infos(edit))) as recording:
        camera = recording.sensors[0].depth_camera
        assert np.allclose(
            [camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy], [64, 48, 60, 60.5, 31.6, 23.4]
        )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("distortion_model", "equidistant", "plumb_bob or rational_polynomial"),
        ("width", 65, "size: expected 64 × 48 pixels, as the images have, found 65 × 48"),
        ("K", np.zeros(9), "calibrated camera"),
        ("K", np.full(9, np.nan), "finite"),
        ("K", np.array([1e9, 0, 3, 0, 1e9, 3, 0, 0, 1.0]), "fx"),
        ("D", np.full(5, np.inf), "finite"),
    ],
)
def test_calibrations_that_are_refused(tmp_path: Path, field: str, value: Any, says: str) -> None:
    def edit(info: Any) -> None:
        info.D = np.array([0.1, 0, 0, 0, 0])
        setattr(info, field, value)

    with pytest.raises(CameraError, match=says):
        open_recording(made(tmp_path, with_infos(edit)))


def test_depth_registered_to_colour(tmp_path: Path) -> None:
    """Beside raw depth it is not read; alone it is, and colour is in its own frame."""

    def add(maker: Maker, messages: list[Message]) -> list[Message]:
        sensor = sensors()[0]
        assert sensor.color_camera is not None
        out = list(messages)
        for i in range(4):
            stamp = EPOCH_NS + round(i / 30 * 1e9)
            header = maker.header(stamp, "left_color_optical_frame")
            counts = np.full((60, 80), 1000 + i, np.uint16)
            content = maker.image(header, "16UC1", counts)
            out.append(Message("/left/aligned_depth_to_color/image_raw", "sensor_msgs/msg/Image", stamp, content))
            out += maker.info("/left/aligned_depth_to_color", header, sensor.color_camera, stamp)
        return sorted(out, key=lambda message: message.time_ns)

    with open_recording(made(tmp_path, add)) as recording:
        assert len(recording.sensors) == 1 and recording.sensors[0].depth_camera.width == 64
        assert "aligned_depth_to_color/image_raw is not read: /left/depth/image_rect_raw" in said(recording)
    (tmp_path / "changed.bag").unlink()

    def alone(maker: Maker, messages: list[Message]) -> list[Message]:
        return [message for message in add(maker, messages) if "/left/depth/" not in message.topic]

    with open_recording(made(tmp_path, alone)) as recording:
        (sensor,) = recording.sensors
        assert sensor.depth_camera.width == 80 and "of one frame" in said(recording)
        assert sensor.T_color_depth is not None and np.array_equal(sensor.T_color_depth, np.eye(4))
        read = recording.frame(2, "left")
        assert read is not None and np.allclose(read.depth, 1.002) and read.color is not None
    (tmp_path / "changed.bag").unlink()

    # without tf nothing is known of the raw depth's place: the registered one can be used with colour
    with open_recording(made(tmp_path, add, Layout(with_tf=False))) as recording:
        assert recording.sensors[0].depth_camera.width == 80 and recording.sensors[0].color_camera is not None


def test_transforms_that_move_are_not_used(tmp_path: Path) -> None:
    """A transform that `tf` repeats unchanged counts as fixed; one that changes does not."""

    def change(maker: Maker, messages: list[Message]) -> list[Message]:
        kind = maker.types["tf2_msgs/msg/TFMessage"]
        out = list(messages)
        for i in range(5):
            moved = maker.transform("odom", "map", transform((0, 0, 0.1 * i), (0.1 * i, 0.0, 0.0)))
            still = maker.transform("odom", "base", transform((0, 0, 0.1), (1.0, 0.0, 0.0)))
            content = kind(transforms=[moved, still])
            out.append(Message("/tf", "tf2_msgs/msg/TFMessage", EPOCH_NS + i, content))
        return out

    with open_recording(made(tmp_path, change)) as recording:
        assert "odom → map" in said(recording) and "'map', whose z axis points up" in said(recording)
        assert np.allclose(recording.sensors[0].T_world_depth, sensors()[0].T_world_depth)
