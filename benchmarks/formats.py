"""Reading speed of every format, at sensor size: `python benchmarks/formats.py [--frames N] [--markdown]`.

Files are written by the tests' writers (tests/format_writers) from a noisy scene with 640 × 480 depth and colour
(phones: 256 × 192 depth, 1280 × 960 colour; Azure Kinect: 640 × 576 and 1280 × 720), then read in a process of their
own. Milliseconds of CPU a frame (median), as images are stored, as following by depth reads them (no colour decoded)
and as whole frames (decoded, undistorted); to open; and how much the process grows while it reads. Beside them, in the
same run, what following one frame takes, and how much reading is of that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def scene(depth: tuple[int, int], color: tuple[int, int], count: int) -> tuple[Any, list[Any]]:
    """A sensor and frames: a slanted wall with noise, a textured colour image."""
    from bodyfit.camera import Camera
    from bodyfit.frame import Frame
    from bodyfit.recording.description import Sensor

    cameras = [Camera(w, h, 0.79 * w, 0.79 * w, (w - 1) / 2, (h - 1) / 2) for w, h in (depth, color)]
    sensor = Sensor("bench", cameras[0], np.eye(4), cameras[1], np.eye(4))
    rng = np.random.default_rng(0)
    v, u = np.mgrid[0 : depth[1], 0 : depth[0]]
    y, x = np.mgrid[0 : color[1], 0 : color[0]]
    frames = []
    for n in range(count):
        metres = 2.0 + 0.002 * u + 0.001 * v + rng.normal(0, 0.004, u.shape)
        metres[rng.uniform(size=u.shape) < 0.1] = 0
        image = np.stack([x * 255 // color[0], y * 255 // color[1], (x + y + 9 * n) % 256], -1)
        image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255)
        frames.append(
            Frame(
                depth=(np.rint(metres * 1000) * 0.001).astype(np.float32),
                depth_camera=cameras[0],
                T_world_depth=np.eye(4),
                timestamp_s=n / 30,
                color=image.astype(np.uint8),
                color_camera=cameras[1],
                T_color_depth=np.eye(4),
                sensor=sensor.name,
                index=n,
            )
        )
    return sensor, frames


def writers() -> dict[str, tuple[tuple[int, int], tuple[int, int], Callable[[Path, Any, list[Any]], Path]]]:
    """By name: depth's and colour's size, and what writes a recording into a folder."""
    from format_writers import handheld  # pyright: ignore[reportMissingImports]

    from bodyfit.recording import write_recording

    def of(module: str, name: str, **options: Any) -> Callable[[Path, Any, list[Any]], Path]:
        def write(folder: Path, sensor: Any, frames: list[Any]) -> Path:
            from importlib import import_module

            return import_module(f"format_writers.{module}").write(folder / name, [sensor], frames, **options)

        return write

    def recorded(folder: Path, sensor: Any, frames: list[Any]) -> Path:
        from format_writers.realsense import record  # pyright: ignore[reportMissingImports]

        return record(folder / "r.db3", sensor, frames)

    def packed_by_bz2(folder: Path, sensor: Any, frames: list[Any]) -> Path:
        from format_writers import ros1  # pyright: ignore[reportMissingImports]

        return ros1.write(folder / "r.bag", [sensor], frames, ros1.Layout(container="bz2"))

    vga, phone = (640, 480), ((256, 192), (1280, 960))
    return {
        "native": (vga, vga, lambda folder, sensor, frames: write_recording(folder / "r", [sensor], frames)),
        "Azure Kinect .mkv": ((640, 576), (1280, 720), of("azure_mkv", "r.mkv")),
        "ROS 1 .bag": (vga, vga, of("ros1", "r.bag")),
        "ROS 1 .bag, bz2": (vga, vga, packed_by_bz2),
        "ROS 2 .mcap": (vga, vga, of("ros2", "r", storage="mcap")),
        "ROS 2 .db3": (vga, vga, of("ros2", "r", storage="sqlite3")),
        "RealSense .db3": (vga, vga, recorded),
        "TUM": (vga, vga, lambda folder, sensor, frames: handheld.write_tum(folder / "r", frames)),
        "Open3D": (vga, vga, lambda folder, sensor, frames: handheld.write_open3d(folder / "r", frames)),
        "ScanNet .sens": (vga, vga, lambda folder, sensor, frames: handheld.write_sens(folder / "r.sens", frames)),
        "Record3D .r3d": (*phone, lambda folder, sensor, frames: handheld.write_r3d(folder / "r.r3d", frames)),
        "Stray Scanner": (*phone, lambda folder, sensor, frames: handheld.write_stray(folder / "r", frames, crf=26)),
    }


def most_kb() -> int:
    """The most memory that this process had (Linux: VmHWM, which begins anew with each program)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def read(path: Path) -> dict[str, float]:
    """Opens and reads a recording: CPU seconds and megabytes."""
    from bodyfit.recording import open_recording

    def cpu(action: Callable[[], Any]) -> float:
        began = time.process_time()
        action()
        return time.process_time() - began

    began = time.process_time()
    recording = open_recording(path)
    opening = time.process_time() - began
    name, count = recording.sensors[0].name, recording.num_frames

    def stored(i: int) -> None:
        encoded = recording.encoded(i, name)
        assert encoded is not None
        for image in (encoded.depth, encoded.color):
            if image is not None:
                image.load()

    stored(0), recording.frame(0, name)
    grown_from = most_kb()
    as_stored = [cpu(lambda i=i: stored(i)) for i in range(count)]
    depth = [cpu(lambda i=i: recording.frame(i, name, color=False)) for i in range(count)]
    whole = [cpu(lambda i=i: recording.frame(i, name)) for i in range(count)]
    peak = most_kb()
    return {
        "open_ms": opening * 1e3,
        "stored_ms": float(np.median(as_stored)) * 1e3,
        "depth_ms": float(np.median(depth)) * 1e3,
        "frame_ms": float(np.median(whole)) * 1e3,
        "grown_mb": (peak - grown_from) / 1024,
        "peak_mb": peak / 1024,
    }


def follow_ms() -> float:
    """Milliseconds of CPU that following takes, median of 30 frames of the shipped instant, which comes again."""
    from bodyfit.body.model import load_body_model
    from bodyfit.fit.track import Tracker
    from bodyfit.recording import open_recording
    from bodyfit.synthetic.demo import demo_recording_path

    recording = open_recording(demo_recording_path())
    seen = [f for s in recording.sensors if (f := recording.frame(0, s.name, color=False)) is not None]
    tracker = Tracker(load_body_model(), gravity_world=recording.gravity_world)
    times = []
    for n in range(40):
        began = time.process_time()
        tracker.update([replace(f, index=n, timestamp_s=n / 30) for f in seen], index=n)
        times.append(time.process_time() - began)
    return float(np.median(times[10:])) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--markdown", action="store_true", help="a table for RESULTS.md")
    parser.add_argument("--read", type=Path, help="(used by the benchmark itself)")
    asked = parser.parse_args()
    if asked.read is not None:
        print(json.dumps(read(asked.read)))
        return
    found: dict[str, dict[str, float] | str] = {}
    for name, (depth, color, write) in writers().items():
        with tempfile.TemporaryDirectory() as folder:
            sensor, frames = scene(depth, color, asked.frames)
            if name in ("TUM", "Open3D"):
                frames = [replace(frame, color_camera=frame.depth_camera) for frame in frames]
            try:
                path = write(Path(folder), sensor, frames)
            except ImportError as missing:
                found[name] = str(missing)
                continue
            command = [sys.executable, __file__, "--read", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout)
    if not asked.markdown:
        print(json.dumps(found, indent=1))
        return
    following = follow_ms()
    print(f"Following a frame by depth: {following:.1f} ms of CPU (median).\n")
    heads = (
        "opening, ms",
        "as stored, ms",
        "depth alone, ms",
        "of following",
        "whole frame, ms",
        "grows by, MB",
        "peak, MB",
    )
    print(f"| format | {' | '.join(heads)} |")
    print(f"|---|{'--:|' * len(heads)}")
    for name, row in found.items():
        if isinstance(row, str):
            print(f"| {name} | not run: {row} | | | | | | |")
            continue
        cells = [f"{row['open_ms']:.0f}", f"{row['stored_ms']:.2f}", f"{row['depth_ms']:.1f}"]
        cells += [f"{100 * row['depth_ms'] / following:.0f} %", f"{row['frame_ms']:.1f}"]
        cells += [f"{row['grown_mb']:.1f}", f"{row['peak_mb']:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
