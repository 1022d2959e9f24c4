"""ROS bags that are cut, damaged, never closed, or none at all."""

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
from ros_recordings import check_equal, frames, made, said, sensors, write

from bodyfit.camera import Distortion
from bodyfit.errors import ImageError, MissingExtraError, RecordingError
from bodyfit.recording import open_recording
from bodyfit.recording.ros_messages import read_camera_info, read_image, read_transforms


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
