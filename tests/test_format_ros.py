"""ROS 1 and ROS 2 bags, written by `rosbags`, read by bodyfit."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

from format_damage import survey
from format_writers import ros1, ros2
from format_writers.ros1 import EPOCH_NS, Layout, Maker, Message
from small_recording import transform

from bodyfit.camera import Camera, Distortion
from bodyfit.errors import CameraError, ImageError, InputError, MissingExtraError, RecordingError
from bodyfit.frame import Frame
from bodyfit.recording import Recording, Sensor, open_recording
from bodyfit.recording.encoded import Coding
from bodyfit.recording.ros_messages import read_camera_info, read_image, read_transforms

CONTAINERS = ["bag", "bag-bz2", "bag-lz4", "sqlite3", "sqlite3-message", "mcap", "mcap-storage"]


def sensors() -> tuple[Sensor, Sensor]:
    left = Sensor(
        "left",
        Camera(64, 48, 60.0, 60.5, 31.6, 23.4),
        transform((-1.7, 0.1, 0.2), (0.1, -2.0, 1.3)),
        Camera(80, 60, 70.0, 71.0, 39.5, 29.0),
        transform((0.01, 0.0, -0.02), (0.03, 0.0, 0.0)),
    )
    right = Sensor("right", Camera(40, 30, 40.0, 40.0, 19.5, 14.5), transform((0, 2, 0), (1, 2, 1)))
    return left, right


def frames(count: int = 4) -> list[Frame]:
    """The right sensor sees every other instant only, 5 ms later."""
    rng = np.random.default_rng(3)
    out = []
    for i in range(count):
        for sensor in sensors():
            if sensor.name == "right" and i % 2:
                continue
            camera = sensor.depth_camera
            counts = rng.integers(400, 6000, (camera.height, camera.width))
            counts[rng.uniform(size=counts.shape) < 0.1] = 0
            color = None
            if sensor.color_camera is not None:
                color = rng.integers(0, 255, (sensor.color_camera.height, sensor.color_camera.width, 3)).astype(
                    np.uint8
                )
            out.append(
                Frame(
                    depth=counts.astype(np.float32) * np.float32(0.001),
                    depth_camera=camera,
                    T_world_depth=sensor.T_world_depth,
                    timestamp_s=i / 30 + (0.005 if sensor.name == "right" else 0.0),
                    color=color,
                    color_camera=sensor.color_camera,
                    T_color_depth=sensor.T_color_depth,
                    sensor=sensor.name,
                    index=i,
                )
            )
    return out


def write(folder: Path, container: str, layout: Layout | None = None) -> Path:
    kind, _, compression = container.partition("-")
    layout = dataclasses.replace(layout or Layout(), container=compression)
    if kind == "bag":
        return ros1.write(folder / "made.bag", sensors(), frames(), layout)
    return ros2.write(folder / "made", sensors(), frames(), layout, storage=kind)


def said(recording: Recording) -> str:
    return " ".join(recording.notes)


def check_equal(recording: Recording, *, depth_error: float = 0.0, has_color: bool = True) -> None:
    """All that was written is there again."""
    assert [s.name for s in recording.sensors] == ["left", "right"]
    for ours, theirs in zip(recording.sensors, sensors(), strict=True):
        assert ours.depth_camera == theirs.depth_camera and ours.depth_unit_m == 0.001
        assert np.allclose(ours.T_world_depth, theirs.T_world_depth, atol=1e-9)
        if has_color:
            assert ours.color_camera == theirs.color_camera
            if theirs.T_color_depth is not None:
                assert ours.T_color_depth is not None
                assert np.allclose(ours.T_color_depth, theirs.T_color_depth, atol=1e-9)
    assert recording.num_frames == 4
    assert np.allclose(recording.timestamps_s, np.arange(4) / 30, atol=2e-9)
    own = recording.stream_timestamps_s
    assert np.allclose(own["left.depth_s"], EPOCH_NS / 1e9 + np.arange(4) / 30, atol=1e-6)
    assert np.allclose(own["left.color_s"] - own["left.depth_s"], 0.003, atol=1e-6)
    assert np.isnan(own["right.depth_s"]).tolist() == [False, True, False, True]
    for frame in reversed(frames()):
        read = recording.frame(frame.index, frame.sensor)
        assert read is not None
        assert np.abs(read.depth - frame.depth).max() <= depth_error
        if frame.color is not None and has_color:
            assert read.color is not None and np.array_equal(read.color, frame.color)
    assert recording.frame(1, "right") is None


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


def test_a_folder_of_bags_is_no_bag(tmp_path: Path) -> None:
    for storage in ("mcap", "sqlite3"):
        (file,) = [
            f
            for f in ros2.write(tmp_path / storage, sensors(), frames(1), storage=storage).iterdir()
            if f.stem != "metadata"
        ]
        shutil.copy(file, tmp_path / f"{storage}{file.suffix}")
        shutil.rmtree(tmp_path / storage)
    with pytest.raises(RecordingError, match="a folder that holds"):
        open_recording(tmp_path)
    (tmp_path / "metadata.yaml").write_text("title: something else")
    with pytest.raises(RecordingError, match="a folder that holds"):
        open_recording(tmp_path)


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


def test_a_clock_that_was_set(tmp_path: Path) -> None:
    """Times that jump back are not believed, and then those of the other topics are not either."""

    def change(maker: Maker, messages: list[Message]) -> list[Message]:
        late = [message for message in messages if message.topic == "/left/depth/image_rect_raw"][2:]
        for message in late:
            message.content.header = maker.header(message.time_ns - 4_294_967_296_000, "left_depth_optical_frame")
        return messages

    with open_recording(made(tmp_path, change)) as recording:
        assert "jump back by 4295 s" in said(recording)
        assert np.allclose(recording.timestamps_s, np.arange(4) / 30, atol=2e-9)
        own = recording.stream_timestamps_s
        assert np.allclose(own["left.color_s"] - own["left.depth_s"], 0.003, atol=1e-6)
        for i, wanted in enumerate(f for f in frames() if f.sensor == "left"):
            read = recording.frame(i, "left")
            assert read is not None and np.array_equal(read.depth, wanted.depth) and read.color is not None


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


def made(tmp_path: Path, change: Any, layout: Layout | None = None) -> Path:
    """A ROS 1 bag of messages that `change(maker, messages)` has had its way with."""
    layout = layout or Layout()
    store = ros1.type_store()
    maker = Maker(store, layout)
    changed = change(maker, maker.messages(sensors()[:1], [f for f in frames() if f.sensor == "left"]))
    return ros1.write_messages(tmp_path / "changed.bag", store, changed, layout)


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


def test_bags_that_were_not_closed(tmp_path: Path) -> None:
    """ROS 1: no index; MCAP: no summary. What is there is read, and said to be not all."""
    whole = write(tmp_path, "bag")
    with open_recording(ros1.not_closed(whole, tmp_path / "open.bag")) as recording:
        check_equal(recording)
        assert "rosbag reindex" in said(recording)
    with open_recording(ros1.died_within_a_chunk(whole, tmp_path / "died.bag")) as recording:
        check_equal(recording)
        assert "rosbag reindex" in said(recording)
    for container in ("bag", "bag-bz2"):
        (tmp_path / container).mkdir()
        data = write(tmp_path / container, container).read_bytes()
        (tmp_path / "cut.bag").write_bytes(data[: len(data) // 2])
        with open_recording(tmp_path / "cut.bag") as recording:
            assert 1 <= recording.num_frames < 4 and "bytes from there are not read" in said(recording)
            assert recording.frame(0, "left") is not None
    (file,) = write(tmp_path, "mcap-storage").glob("*.mcap")
    data = file.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: data.index(b"/left/color/image_raw", len(data) * 3 // 4) - 400])
    with open_recording(tmp_path / "cut.mcap") as recording:
        check_equal(recording)
        assert "mcap recover" in said(recording)


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain bags are read without any; a compressed one says what to install."""
    packed: list[tuple[Path, str, Path]] = []
    for container, package in (("bag-lz4", "lz4"), ("mcap-storage", "zstandard"), ("sqlite3-message", "zstandard")):
        for folder in (tmp_path / container, tmp_path / f"{container}_plain"):
            folder.mkdir()
        plain = write(tmp_path / f"{container}_plain", container.partition("-")[0])
        packed.append((write(tmp_path / container, container), package, plain))
    for name in ("rosbags", "lz4", "lz4.frame", "zstandard", "apsw", "yaml"):
        monkeypatch.setitem(sys.modules, name, None)
    for path, package, plain in packed:
        with pytest.raises(MissingExtraError, match=rf"needs {package}.*bodyfit\[ros\]"):
            open_recording(path)
        with open_recording(plain) as recording:
            check_equal(recording)


def test_messages_of_the_other_byte_order() -> None:
    """CDR tells its byte order; a computer of the other one may have recorded."""
    from rosbags.typesys import Stores, get_typestore

    store: Any = get_typestore(Stores.ROS2_HUMBLE)
    maker = Maker(store, Layout())
    left = sensors()[0]
    header = maker.header(EPOCH_NS, "a_frame")
    camera = dataclasses.replace(left.depth_camera, distortion=Distortion("brown_conrady", (0.1, 0.2, 0.3, 0.4, 0.5)))
    info, tf = maker.camera_info(header, camera), store.types["tf2_msgs/msg/TFMessage"](maker.transforms([left]))
    image = maker.image(header, "16UC1", np.arange(6, dtype=np.uint16).reshape(2, 3))
    for message, read in ((info, read_camera_info), (tf, read_transforms), (image, read_image)):
        little, big = (
            read("message", bytes(store.serialize_cdr(message, message.__msgtype__, little_endian=one)), True)
            for one in (True, False)
        )
        assert repr(little) == repr(big) and "a_frame" in repr(little) + repr(header)
    assert (
        read_camera_info("info", bytes(store.serialize_cdr(info, info.__msgtype__)), True).header.stamp_ns == EPOCH_NS
    )
    with pytest.raises(RecordingError, match="plain CDR"):
        read_image("image", b"\x00\x03\x00\x00" + bytes(100), True)


def test_one_broken_message(tmp_path: Path) -> None:
    """It is left out, the others are read; an image whose pixels are cut is refused when it is read."""

    def change(maker: Maker, messages: list[Message]) -> list[Message]:
        store = ros1.type_store()
        depth = [k for k, message in enumerate(messages) if message.topic.endswith("image_rect_raw")]
        for k, keep in ((depth[1], 10), (depth[2], 500)):
            raw = bytes(store.serialize_ros1(messages[k].content, messages[k].type))
            messages[k] = messages[k]._replace(content=raw[:keep])
        return messages

    with open_recording(made(tmp_path, change)) as recording:
        assert recording.num_frames == 3 and "1 messages are broken" in said(recording)
        with pytest.raises(ImageError, match=r"message 2.*bytes of pixels"):
            recording.frame(1, "left")
        for i, wanted in ((0, 0), (2, 3)):
            read = recording.frame(i, "left")
            assert read is not None
            assert np.array_equal(read.depth, [f for f in frames() if f.sensor == "left"][wanted].depth)


def test_files_that_are_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V1.2\n" + bytes(100))
    with pytest.raises(RecordingError, match=r"format 2\.0"):
        open_recording(tmp_path / "old.bag")
    (tmp_path / "empty.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(RecordingError, match="none that can be read"):
        open_recording(tmp_path / "empty.bag")
    with sqlite3.connect(tmp_path / "other.db3") as database:
        database.execute("CREATE TABLE people (name TEXT)")
    with pytest.raises(RecordingError, match="with a table topics, found people"):
        open_recording(tmp_path / "other.db3")
    with sqlite3.connect(tmp_path / "endless.db3") as database:
        database.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute(
            "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS topic_id, i AS timestamp, i AS data FROM n"
        )
    with pytest.raises(RecordingError, match="with a table messages"):
        open_recording(tmp_path / "endless.db3")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.db3.zstd").write_bytes(b"")
    with pytest.raises(RecordingError, match="zstd -d"):
        open_recording(tmp_path / "packed")
    (tmp_path / "no_files").mkdir()
    (tmp_path / "no_files" / "metadata.yaml").write_text("rosbag2_bagfile_information:\n")
    with pytest.raises(RecordingError, match=r"beside metadata\.yaml"):
        open_recording(tmp_path / "no_files")


def test_a_bag_without_depth(tmp_path: Path) -> None:
    def change(_: Maker, messages: list[Message]) -> list[Message]:
        return [message for message in messages if "depth" not in message.topic]

    with pytest.raises(RecordingError, match=r"depth images .* found .*/left/color/image_raw"):
        open_recording(made(tmp_path, change))


@pytest.mark.parametrize("container", ["bag", "bag-lz4", "sqlite3", "mcap-storage"])
def test_damaged_bags(tmp_path: Path, container: str) -> None:
    """Cut and changed at random: read, or refused by an error of ours."""
    found = survey(write(tmp_path, container), tmp_path / "scratch")
    assert not found.wrong, found.wrong[:5]
    assert found.cases == 221
