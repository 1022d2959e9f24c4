"""TUM, ScanNet, Record3D, Open3D and Stray Scanner: written as their specifications say, told apart, read, damaged."""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_damage import survey
from format_writers.handheld import write_open3d, write_r3d, write_sens, write_stray, write_tum
from small_recording import transform

from bodyfit.camera import Camera
from bodyfit.errors import InputError, RecordingError
from bodyfit.frame import Frame
from bodyfit.recording import Recording, open_recording
from bodyfit.recording.convert import convert_recording
from bodyfit.recording.formats import format_of
from bodyfit.recording.handheld import nearest_in_time, rising, scaled_camera

DEPTH = Camera(64, 48, 60.5, 61.25, 31.0, 24.5)
COLOR = scaled_camera(DEPTH, 128, 96)
TIMES = (0.0, 0.0335, 0.0665, 0.1005, 0.134)


def frames(color_camera: Camera) -> list[Frame]:
    """Smooth colours, depth with holes, a sensor that walks and turns."""
    rng = np.random.default_rng(3)
    out = []
    for n, time_s in enumerate(TIMES):
        depth = np.rint(rng.uniform(600, 4000, (DEPTH.height, DEPTH.width))) * 0.001
        depth[rng.uniform(size=depth.shape) < 0.1] = 0
        v, u = np.mgrid[0 : color_camera.height, 0 : color_camera.width]
        color = np.stack([2 * u % 200, 2 * v % 180, np.full_like(u, 20 * n)], -1).astype(np.uint8)
        out.append(
            Frame(
                depth=depth.astype(np.float32),
                depth_camera=DEPTH,
                T_world_depth=transform((0.1 + 0.05 * n, -0.2, 0.02 * n), (0.3 * n, -1.0, 1.4)),
                timestamp_s=time_s,
                color=color,
                color_camera=color_camera,
                T_color_depth=np.eye(4),
                index=n,
            )
        )
    return out


ON_ONE_GRID, ON_TWO = frames(DEPTH), frames(COLOR)


def opened(path: Path, name: str) -> Recording:
    assert format_of(path).name == name
    return open_recording(path)


def check(
    recording: Recording, wanted: list[Frame], *, depth_m: float, color: float, pose: float = 1e-6, rows: int = 0
) -> None:
    """The same frames: depth and colour as near as the format allows; `rows` of the depth's top were left out."""
    assert recording.num_frames == len(wanted) and len(recording.sensors) == 1
    assert np.allclose(recording.timestamps_s, [f.timestamp_s for f in wanted], atol=2e-6)
    name = recording.sensors[0].name
    for i in reversed(range(len(wanted))):  # not in the order in which a film runs
        frame = recording.frame(i, name)
        assert frame is not None and frame.color is not None and frame.color_camera is not None
        for ours, theirs in [
            (frame.depth_camera, wanted[i].depth_camera), (frame.color_camera, wanted[i].color_camera)
        ]:  # fmt: skip
            assert theirs is not None
            assert (ours.width, ours.height) == (theirs.width, theirs.height)
            for key in ("fx", "fy", "cx", "cy"):
                assert getattr(ours, key) == pytest.approx(getattr(theirs, key), abs=2e-5)
        seen = wanted[i].depth.copy()
        seen[:rows] = 0
        assert np.array_equal(frame.depth > 0, seen > 0)
        assert np.abs(frame.depth - seen).max() <= depth_m
        theirs = wanted[i].color
        assert theirs is not None and frame.color.shape == theirs.shape
        assert np.abs(frame.color.astype(float) - theirs).mean() <= color
        assert np.abs(frame.T_world_depth - wanted[i].T_world_depth).max() <= pose
        assert frame.T_color_depth is not None and np.array_equal(frame.T_color_depth, np.eye(4))


def test_tum(tmp_path: Path) -> None:
    recording = opened(write_tum(tmp_path / "tum", ON_ONE_GRID), "tum")
    check(recording, ON_ONE_GRID, depth_m=1e-6, color=0.0)
    assert recording.gravity_world is not None and recording.gravity_world.tolist() == [0, 0, -1]
    assert recording.stream_timestamps_s["rgbd.depth_s"][0] == pytest.approx(1305031102.0)
    assert recording.stream_timestamps_s["rgbd.color_s"][0] == pytest.approx(1305031102.004)
    assert recording.notes == ()


def test_tum_without_intrinsics_or_way(tmp_path: Path) -> None:
    """Published values by the folder's name, ROS's default without one, and only for 640 × 480."""
    with pytest.raises(RecordingError, match="64 × 48"):
        open_recording(write_tum(tmp_path / "tum", ON_ONE_GRID, calibration=False))
    large = Camera(640, 480, 500.0, 500.0, 320.0, 240.0)
    big = [
        dataclasses.replace(
            f, depth=np.full((480, 640), 2.0, np.float32), depth_camera=large,
            color=np.zeros((480, 640, 3), np.uint8), color_camera=large,
        )
        for f in ON_ONE_GRID[:2]
    ]  # fmt: skip
    folder = write_tum(tmp_path / "rgbd_dataset_freiburg1_x", big, calibration=False, poses=False)
    recording = open_recording(folder)
    sensor = recording.sensors[0]
    assert sensor.depth_camera.fx == 517.3 and sensor.depth_camera.distortion.model == "none"
    assert sensor.color_camera is not None and sensor.color_camera.distortion.coefficients[0] == 0.2624
    assert recording.gravity_world is None and "freiburg1" in recording.notes[0]
    other = open_recording(write_tum(tmp_path / "mine", big, calibration=False))
    assert other.sensors[0].depth_camera.fx == 525.0 and "ROS" in other.notes[0]


def test_tum_places_between_stamps_and_in_gaps(tmp_path: Path) -> None:
    """A place between two stamps lies between the two; beyond a gap there is none, and no frame."""
    folder = write_tum(tmp_path / "tum", ON_ONE_GRID)
    way = [line for line in (folder / "groundtruth.txt").read_text().splitlines() if not line.startswith("#")]
    # stamps on both sides of the third frame, none near the last
    a, b = (np.array(line.split(), float) for line in (way[1], way[3]))
    (folder / "groundtruth.txt").write_text("\n".join([way[0], way[1], way[3]]) + "\n")
    recording = open_recording(folder)
    frame = recording.frame(2, "rgbd")
    assert frame is not None
    share = (TIMES[2] - TIMES[1]) / (TIMES[3] - TIMES[1])
    assert frame.T_world_depth[:3, 3] == pytest.approx(a[1:4] + share * (b[1:4] - a[1:4]), abs=1e-6)
    assert recording.frame(4, "rgbd") is None and recording.frame(0, "rgbd") is not None
    assert "1 depth images" in recording.notes[0]


@pytest.mark.parametrize(("depth", "color", "off"), [("zlib", "jpeg", 4.0), ("raw", "raw", 0.0), ("zlib", "png", 0.0)])
def test_scannet(tmp_path: Path, depth: str, color: str, off: float) -> None:
    recording = opened(write_sens(tmp_path / "scan.sens", ON_TWO, depth=depth, color=color), "scannet")
    check(recording, ON_TWO, depth_m=1e-6, color=off)
    assert recording.gravity_world is None and recording.notes == ()


def test_scannet_that_lost_its_way_or_was_cut(tmp_path: Path) -> None:
    file = write_sens(tmp_path / "scan.sens", ON_TWO, lost=(2,))
    recording = open_recording(file)
    assert recording.frame(2, "scannet") is None and recording.frame(3, "scannet") is not None
    assert "1 frames have no pose" in recording.notes[0]
    recording.close()
    file.write_bytes(file.read_bytes()[:-2000])
    cut = open_recording(file)
    assert cut.num_frames == 4 and "after 4 of 5" in cut.notes[0]
    still = open_recording(write_sens(tmp_path / "still.sens", ON_TWO, lost=range(5)))
    assert still.frame(2, "scannet") is not None and "stand still" in still.notes[0]
    with pytest.raises(RecordingError, match="occi"):
        open_recording(write_sens(tmp_path / "occi.sens", ON_TWO, depth="occi"))


def test_scannet_bomb(tmp_path: Path) -> None:
    """Depth that unpacks to more than an image is refused once it is that much."""
    import zlib

    file = write_sens(tmp_path / "scan.sens", ON_TWO[:1])
    data = file.read_bytes()
    packed = zlib.compress((np.rint(ON_TWO[0].depth.astype(float) * 1000).astype("<u2")).tobytes())
    bomb = zlib.compress(b"\0" * 50_000_000)
    at = data.index(packed)
    sized = data[:at].replace(struct.pack("<Q", len(packed)), struct.pack("<Q", len(bomb)))
    file.write_bytes(sized + bomb + data[at + len(packed) :])
    with pytest.raises(RecordingError, match="more than 6144"):
        open_recording(file).frame(0, "scannet")


def test_record3d(tmp_path: Path) -> None:
    pytest.importorskip("lzfse")
    recording = opened(write_r3d(tmp_path / "a.r3d", ON_TWO), "record3d")
    check(recording, ON_TWO, depth_m=1e-6, color=4.0, rows=3)
    assert "confidence" in recording.notes[-1]
    # once more in the other order: any frame at any time
    assert recording.frame(0, "iphone") is not None
    done = convert_recording(recording, tmp_path / "native")
    native = open_recording(done.path)
    check(native, ON_TWO, depth_m=0.00013, color=4.0, rows=3)


def test_record3d_with_less(tmp_path: Path) -> None:
    """No sizes of depth but one that is known, no times, no poses, no intrinsics for each frame."""
    pytest.importorskip("lzfse")
    tall = Camera(192, 256, 210.0, 210.0, 95.5, 127.5)
    kept = [dataclasses.replace(f, depth=np.full((256, 192), 1.5, np.float32), depth_camera=tall) for f in ON_TWO]
    file = write_r3d(
        tmp_path / "a.r3d", kept, sizes=False, without=["frameTimestamps", "poses", "perFrameIntrinsicCoeffs"]
    )
    recording = open_recording(file)
    assert recording.sensors[0].depth_camera.width == 192
    assert recording.timestamps_s.tolist() == pytest.approx([n / 30 for n in range(5)])
    assert len(recording.notes) == 3
    frame = recording.frame(0, "iphone")
    assert frame is not None and np.array_equal(frame.T_world_depth, np.eye(4))


def test_record3d_bomb_and_wrong_members(tmp_path: Path) -> None:
    lzfse = pytest.importorskip("lzfse")
    file = write_r3d(tmp_path / "a.r3d", ON_TWO[:1])
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def with_changed(name: str, data: bytes | None) -> Path:
        changed = {**members, name: data}
        with zipfile.ZipFile(tmp_path / "b.r3d", "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in changed.items():
                if content is not None:
                    archive.writestr(member, content)
        return tmp_path / "b.r3d"

    bomb = lzfse.compress(b"\0" * 8_000_000)
    for name, data, says in [
        ("rgbd/0.depth", bomb, "12288 bytes once unpacked"),
        ("rgbd/0.depth", b"\0" * 90_000_000, "at most"),
        ("rgbd/0.depth", b"abcd", "LZFSE"),
        ("rgbd/0.depth", None, "depth images"),
        ("metadata", b"{", "JSON"),
        ("metadata", b"[]", "object"),
        ("rgbd/0.conf", members["rgbd/0.depth"], "3072 bytes once unpacked"),
    ]:
        with pytest.raises(InputError, match=says):
            open_recording(with_changed(name, data)).frame(0, "iphone")


@pytest.mark.parametrize("nested", [False, True])
def test_open3d(tmp_path: Path, nested: bool) -> None:
    recording = opened(write_open3d(tmp_path / "o", ON_ONE_GRID, nested=nested), "open3d")
    rate = 15.0 if nested else 30.0
    wanted = [dataclasses.replace(f, timestamp_s=n / rate) for n, f in enumerate(ON_ONE_GRID)]
    check(recording, wanted, depth_m=1e-6, color=0.0)
    assert len(recording.notes) == (0 if nested else 2)


def test_stray_scanner(tmp_path: Path) -> None:
    pytest.importorskip("av")
    recording = opened(write_stray(tmp_path / "s", ON_TWO), "stray")
    check(recording, ON_TWO, depth_m=1e-6, color=12.0, rows=3)
    assert recording.gravity_world is not None and recording.gravity_world.tolist() == [0, -1, 0]
    for i in (3, 1, 4, 0):
        frame = recording.frame(i, "iphone")
        # each frame's blue tells which it is
        assert frame is not None and frame.color is not None
        assert abs(float(np.median(frame.color[..., 2])) - 20 * i) < 8
    recording.close()


WRITERS: dict[str, tuple[str, Callable[[Path, Any], Path]]] = {
    "tum": ("folder", lambda path, color: write_tum(path, ON_ONE_GRID)),
    "scannet": ("scan.sens", lambda path, color: write_sens(path, ON_TWO)),
    "record3d": ("scan.r3d", lambda path, color: write_r3d(path, ON_TWO)),
    "open3d": ("folder", lambda path, color: write_open3d(path, ON_ONE_GRID)),
    "stray": ("folder", lambda path, color: write_stray(path, ON_TWO)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRITERS))
def test_damaged(tmp_path: Path, name: str) -> None:
    """Cut at 20 places and changed 200 times: read, or refused by an error of ours; no crash, no hang."""
    pytest.importorskip({"record3d": "lzfse", "stray": "av"}.get(name, "numpy"))
    place, write = WRITERS[name]
    found = survey(write(tmp_path / place, None), tmp_path / "damaged")
    assert not found.wrong, "\n".join(found.wrong[:10])
    assert found.cases == 221 and found.counts["refused"] + found.counts["in part"] > 30
    assert found.counts["whole"] > 1


def test_bad_values_are_named(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "tum", ON_ONE_GRID)
    original = (folder / "depth.txt").read_text()
    for text, says in [
        (original + "x depth/a.png\n", "depth.txt: line 7"),
        (original + "9 ../../etc/passwd\n", "a file of this folder"),
        (original + "9999999999 depth/a.png extra\n", "3 words"),
        ("# nothing\n", "at least one image"),
    ]:
        (folder / "depth.txt").write_text(text)
        with pytest.raises(RecordingError, match=says):
            open_recording(folder)
    open3d = write_open3d(tmp_path / "o", ON_ONE_GRID)
    document = json.loads((open3d / "camera_intrinsic.json").read_text())
    for key, value, says in [
        ("intrinsic_matrix", [1.0] * 9, "no skew"),
        ("intrinsic_matrix", [1.0], "9 numbers"),
        ("width", "many", "width"),
    ]:
        (open3d / "camera_intrinsic.json").write_text(json.dumps({**document, key: value}))
        with pytest.raises(InputError, match=says):
            open_recording(open3d)


def test_association() -> None:
    times, others = np.array([0.0, 1.0, 2.0, 2.6]), np.array([0.1, 0.95, 2.5])
    assert nearest_in_time(times, others, 0.2).tolist() == [0, 1, -1, 2]
    assert nearest_in_time(times, np.zeros(0), 0.2).tolist() == [-1] * 4
    assert nearest_in_time(times, np.array([1.1]), 0.2).tolist() == [-1, 0, -1, -1]
    assert rising(np.array([1.0, 0.5, 2.0, 2.0, np.nan, 3.0])).tolist() == [0, 2, 5]
