"""A small recording with everything a recording can have: two sensors, colour, masks, keypoints, own clocks."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bodyfit.camera import Camera
from bodyfit.frame import Frame, Keypoints
from bodyfit.recording import Recording, Sensor, write_recording
from bodyfit.rotation import matrix_from_axis_angle

GRAVITY = (0.0, 0.0, -1.0)
CLOCKS = {
    "left.depth_s": np.array([10.0, 10.5, 11.0]),
    "left.color_s": np.array([10.01, np.nan, 11.01]),
}


def transform(axis_angle: tuple[float, float, float], translation: tuple[float, float, float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = matrix_from_axis_angle(np.array(axis_angle))
    T[:3, 3] = translation
    return T


def sensors() -> tuple[Sensor, Sensor]:
    left = Sensor(
        "left",
        Camera(40, 32, 35.0, 35.5, 19.6, 15.4),
        transform((-1.7, 0.1, 0.2), (0.1, -2.0, 1.3)),
        Camera(48, 27, 40.0, 40.0, 23.5, 13.0),
        transform((0.01, 0.0, -0.02), (0.03, 0.0, 0.0)),
    )
    camera = Camera(36, 30, 30.0, 30.0, 17.5, 14.5)
    right = Sensor("right", camera, transform((0, 2, 0), (1, 2, 1)), depth_unit_m=0.00025)
    return left, right


def frames() -> list[Frame]:
    """Three instants; the right sensor saw the second one only."""
    rng = np.random.default_rng(7)
    left, right = sensors()
    out = []
    for i in range(3):
        depth = np.rint(rng.uniform(500, 5000, (32, 40))) * 0.001
        depth[rng.uniform(size=depth.shape) < 0.1] = 0
        ramp = np.linspace(0, 255, 48)[None, :, None] * np.array([1.0, 0.5, 0.1]) + np.zeros((27, 1, 1))
        points = Keypoints(("nose", "left_hip"), np.array([[20.25, 4.0], [23.0, 13.5]]), np.array([1.0, 0.25]))
        out.append(
            Frame(
                depth=depth.astype(np.float32),
                depth_camera=left.depth_camera,
                T_world_depth=left.T_world_depth,
                timestamp_s=0.1 * i,
                color=ramp.astype(np.uint8),
                color_camera=left.color_camera,
                T_color_depth=left.T_color_depth,
                mask=depth > 2.0,
                keypoints=points if i == 1 else None,
                sensor="left",
                index=10 * i,
            )
        )
        if i == 1:
            counts = rng.integers(1, 40000, (30, 36))
            out.append(
                Frame(
                    depth=(counts * 0.00025).astype(np.float32),
                    depth_camera=right.depth_camera,
                    T_world_depth=right.T_world_depth,
                    timestamp_s=0.1,
                    sensor="right",
                    index=10,
                )
            )
    return out


def write_small(folder: Path) -> Path:
    return write_recording(folder, sensors(), frames(), GRAVITY, stream_timestamps_s=CLOCKS)


def read_all(recording: Recording) -> int:
    """Read every frame of every sensor; how many there were."""
    found = [recording.frame(i, sensor.name) for i in range(recording.num_frames) for sensor in recording.sensors]
    return sum(frame is not None for frame in found)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place; NaN and infinity are written as Python's json writes them."""
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def png(width: int, height: int, bits: int, colour: int, raw: bytes = b"\0") -> bytes:
    """A PNG with any header, whatever its data; every checksum right."""

    def chunk(name: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
