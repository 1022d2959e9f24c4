"""Two depth cameras as ROS recordings: what is written, and the check that it is there again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from format_writers import ros1, ros2
from format_writers.ros1 import EPOCH_NS, Layout, Maker
from small_recording import transform

from bodyfit.camera import Camera
from bodyfit.frame import Frame
from bodyfit.recording import Recording, Sensor


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


def made(tmp_path: Path, change: Any, layout: Layout | None = None) -> Path:
    """A ROS 1 bag of messages that `change(maker, messages)` has had its way with."""
    layout = layout or Layout()
    store = ros1.type_store()
    maker = Maker(store, layout)
    changed = change(maker, maker.messages(sensors()[:1], [f for f in frames() if f.sensor == "left"]))
    return ros1.write_messages(tmp_path / "changed.bag", store, changed, layout)
