"""The shipped recording in every format: the same frame comes back, and the same body is fitted to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bodyfit
from bodyfit.frame import Frame
from bodyfit.recording import Recording, open_recording
from bodyfit.recording.convert import convert_recording
from bodyfit.recording.description import Sensor
from bodyfit.recording.formats import FORMATS
from bodyfit.synthetic.demo import demo_recording_path

GIRTHS = ("chest_girth", "waist_girth", "hip_girth", "stature")
SAME_M = 0.003
"""a fit of one frame moves by less where intrinsics are rounded to floats and gravity is found from the floor"""


@pytest.fixture(scope="module")
def source() -> tuple[Sensor, list[Frame]]:
    """The sensor with pinhole cameras and two frames, a thirtieth of a second apart; it stands at the origin."""
    recording = open_recording(demo_recording_path())
    sensor = replace(recording.sensors[0].undistorted, T_world_depth=np.eye(4))
    frames = []
    for n in range(2):
        frame = recording.frame(n, sensor.name)
        assert frame is not None
        frames.append(replace(frame, mask=None, index=n, timestamp_s=n / 30, T_world_depth=np.eye(4)))
    return sensor, frames


@pytest.fixture(scope="module")
def wanted(source: tuple[Sensor, list[Frame]], tmp_path_factory: pytest.TempPathFactory) -> bodyfit.FitResult:
    from bodyfit.recording import write_recording

    sensor, frames = source
    folder = write_recording(tmp_path_factory.mktemp("native") / "r", [sensor], frames, color_format="png")
    return bodyfit.fit(folder, frames=[0], clothing="tight")


def on_one_grid(sensor: Sensor, frames: list[Frame]) -> list[Frame]:
    from format_writers.handheld import registered

    return [replace(registered(sensor.depth_camera, frame), T_world_depth=frame.T_world_depth) for frame in frames]


def _azure(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    from format_writers.azure_mkv import write

    return write(path / "r.mkv", [sensor], frames)


def as_it_stood(sensor: Sensor, frames: list[Frame]) -> tuple[list[Sensor], list[Frame]]:
    """In a world whose z is up, as ROS has it (REP 103)."""
    T = open_recording(demo_recording_path()).sensors[0].T_world_depth
    return [replace(sensor, T_world_depth=T)], [replace(frame, T_world_depth=T) for frame in frames]


def _ros1(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    pytest.importorskip("rosbags")
    from format_writers.ros1 import write

    return write(path / "r.bag", *as_it_stood(sensor, frames))


def _ros2(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    pytest.importorskip("rosbags")
    from format_writers.ros2 import write

    return write(path / "r", *as_it_stood(sensor, frames), storage="mcap")


def _realsense(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    pytest.importorskip("pyrealsense2")
    from format_writers.realsense import record

    return record(path / "r.db3", sensor, frames)


def _tum(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    from format_writers.handheld import write_tum

    return write_tum(path / "r", on_one_grid(sensor, frames), poses=False)


def _open3d(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    from format_writers.handheld import write_open3d

    return write_open3d(path / "r", on_one_grid(sensor, frames), way=False)


def _scannet(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    from format_writers.handheld import write_sens

    return write_sens(path / "r.sens", on_one_grid(sensor, frames))


def _record3d(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    pytest.importorskip("lzfse")
    from format_writers.handheld import write_r3d

    return write_r3d(path / "r.r3d", on_one_grid(sensor, frames), without=["poses"])


def _stray(path: Path, sensor: Sensor, frames: list[Frame]) -> Path:
    pytest.importorskip("av")
    from format_writers.handheld import write_stray

    # the recording's world has z up, ARKit's y
    upright = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    T = upright @ open_recording(demo_recording_path()).sensors[0].T_world_depth
    return write_stray(path / "r", [replace(f, T_world_depth=T) for f in on_one_grid(sensor, frames)])


WRITERS: dict[str, Callable[[Path, Sensor, list[Frame]], Path]] = {
    "azure": _azure,
    "ros": _ros1,
    "ros 2": _ros2,
    "realsense": _realsense,
    "tum": _tum,
    "open3d": _open3d,
    "scannet": _scannet,
    "record3d": _record3d,
    "stray": _stray,
}


def test_every_format_is_here() -> None:
    assert {one.name for one in FORMATS} - {"bodyfit"} <= set(WRITERS)


def in_camera(result: bodyfit.FitResult, frame: Frame) -> np.ndarray:
    T = frame.T_world_depth
    return (result.vertices_world(0) - T[:3, 3]) @ T[:3, :3]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRITERS))
def test_the_same_frame_and_the_same_body(
    name: str, source: tuple[Sensor, list[Frame]], wanted: Any, tmp_path: Path
) -> None:
    """Read as it is and converted to a native recording: depth to its last count, intrinsics, times, and the fit."""
    sensor, frames = source
    recording = open_recording(WRITERS[name](tmp_path, sensor, frames))
    done = convert_recording(recording, tmp_path / "converted")
    for read in (recording, open_recording(done.path)):
        check_frames(read, frames, left_out_rows=3 if name in ("stray", "record3d") else 0)
    result = bodyfit.fit(recording, frames=[0], clothing="tight")
    seen = recording.frame(0, recording.sensors[0].name)
    assert seen is not None and result.converged
    apart = np.linalg.norm(in_camera(result, seen) - in_camera(wanted, frames[0]), axis=1)
    assert np.median(apart) < SAME_M, f"{1000 * np.median(apart):.2f} mm"
    for girth in GIRTHS:
        ours, theirs = result.measurements[girth], wanted.measurements[girth]
        assert abs(ours.value_m - theirs.value_m) < max(0.5 * theirs.sd_m, SAME_M), girth


def check_frames(recording: Recording, frames: list[Frame], *, left_out_rows: int) -> None:
    assert recording.num_frames == len(frames)
    assert np.allclose(np.diff(recording.timestamps_s), 1 / 30, atol=2e-3)
    for i, wanted in enumerate(frames):
        frame = recording.frame(i, recording.sensors[0].name)
        assert frame is not None and frame.color is not None
        height, width = wanted.depth.shape
        depth = frame.depth[:height, :width]
        assert np.abs(depth - wanted.depth)[left_out_rows:].max() < 0.00013
        for key in ("fx", "fy", "cx", "cy"):
            assert getattr(frame.depth_camera, key) == pytest.approx(getattr(wanted.depth_camera, key), abs=1e-3)
