"""Capturing at 30 frames a second: what is read, written and dropped, and what a frame costs.

`python benchmarks/capture.py [--seconds 30] [--keep DIR] [--fit]` captures from librealsense's software device (848×480
depth, 1280×720 colour, fed with the images of a synthetic sensor; left out where pyrealsense2 is not installed) and
from the synthetic sensor (640×576 depth, 960×540 colour). CPU time is that of the capturing process's threads without
the one that feeds the device; `--fit` fits what was recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bodyfit.body.model import load_body_model
from bodyfit.capture.recorder import Recorder, encoded_color, encoded_depth
from bodyfit.capture.replay import back_and_forth, captured_of
from bodyfit.capture.session import Session
from bodyfit.capture.source import Captured, PlayedSource, Source
from bodyfit.recording.description import Sensor
from bodyfit.recording.formats import open_recording
from bodyfit.synthetic.motion import plan_film
from bodyfit.synthetic.sensor import azure_kinect, realsense_d435

FPS = 30.0
ROUNDS = 20


def rendered(name: str, seconds: float) -> tuple[Sensor, list[Captured]]:
    """Frames of a person who lifts their arms, in full colour."""
    device = realsense_d435() if name == "realsense" else azure_kinect()
    if name == "realsense":
        f = 920.0
        device = replace(
            device, color_camera=replace(device.color_camera, width=1280, height=720, fx=f, fy=f, cx=639.5, cy=359.5)
        )
    film = plan_film(
        load_body_model(), 5, motion="arms", seconds=seconds, fps=FPS, sensor=device, color=True, color_stride=1,
        heading_deg=0.0,
    )  # fmt: skip
    frames = [frame for instant in film for frame in instant.frames.values()]
    f = frames[0]
    sensor = Sensor(f.sensor, f.depth_camera, f.T_world_depth, f.color_camera, f.T_color_depth, 0.001)
    return sensor, [captured_of(frame, sensor) for frame in frames]


def encoding(frames: list[Captured]) -> dict[str, float]:
    """CPU milliseconds and kilobytes of one frame's files."""
    out: dict[str, float] = {}
    for name, encode in (
        ("depth_png", lambda c: encoded_depth(c.depth)),
        ("color_jpg", lambda c: encoded_color(c.color, 95)),
    ):
        encode(frames[0])
        times, sizes = [], []
        for k in range(ROUNDS):
            began = time.thread_time()
            sizes.append(len(encode(frames[k % len(frames)])))
            times.append(time.thread_time() - began)
        out |= {
            f"{name}_ms": round(float(np.median(times)) * 1e3, 2),
            f"{name}_kb": round(float(np.mean(sizes)) / 1e3, 1),
        }
    return out


def capture(source: Source, out: Path, seconds: float, feeder: Feeder | None = None) -> dict[str, Any]:
    """Captures so long; counts, and CPU milliseconds a frame."""
    source.start()
    recorder = Recorder(out, source.sensor, gravity_world=source.gravity_world, device={"kind": source.kind})
    session = Session(source, recorder=recorder, seconds=seconds)
    cpu = time.process_time()
    session.start()
    if feeder is not None:
        feeder.start()
    session.over.wait(seconds + 20)
    session.stop("asked")
    if feeder is not None:
        feeder.stop()
        cpu += feeder.cpu_s
    source.stop()
    counts = recorder.finish(session.ended)
    cpu = time.process_time() - cpu
    with open_recording(out) as recording:
        steps = np.diff(recording.timestamps_s)
        kept, longest = recording.num_frames, float(steps.max())
        monotonic = bool((steps > 0).all())
    document = json.loads((out / "capture.json").read_text())
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return {
        **counts.document(),
        "fed": None if feeder is None else feeder.count,
        "sum_adds_up": counts.read == counts.written + sum(counts.dropped.values()) and kept == counts.written,
        "timestamps_rise": monotonic,
        "longest_gap_s": round(longest, 4),
        "finished": document["finished"],
        "cpu_ms_a_frame": round(1e3 * cpu / max(counts.read, 1), 2),
        "mb_a_second": round(size / 1e6 / max(counts.written / FPS, 1e-9), 2),
    }


class Feeder:
    """Puts frames into a software device, 30 a second, until it is stopped."""

    def __init__(self, device: Any, frames: list[Captured]) -> None:
        self._device, self._frames = device, frames
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.count, self.cpu_s = 0, 0.0

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        for c in back_and_forth(self._frames, FPS):
            if self._over.wait(max(began + self.count / FPS - time.monotonic(), 0)):
                break
            assert isinstance(c.color, np.ndarray)
            self.count += 1
            self._device.put(self.count, c.depth_time_s, c.depth, c.color)
        self.cpu_s = time.thread_time()


def fitted(path: Path) -> dict[str, Any]:
    """The fit of four instants of what was recorded."""
    from bodyfit import fit

    with open_recording(path) as recording:
        n = recording.num_frames
        result = fit(recording, frames=[0, n // 3, 2 * n // 3, n - 1])
    stature = result.measurements["stature"]
    return {
        "converged": result.converged,
        "stature_m": round(stature.value_m, 4),
        "stature_sd_m": round(stature.sd_m, 4),
        "residual_mm": round(1e3 * float(np.mean([q.depth_residual_m for q in result.frames])), 2),
    }


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--keep", type=Path, help="keep the recordings here")
    parser.add_argument("--fit", action="store_true")
    asked = parser.parse_args()
    answer: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = asked.keep or Path(folder)
        for name in ("realsense", "synthetic"):
            if name == "realsense":
                try:
                    import pyrealsense2  # noqa: F401
                    from software_realsense import SoftwareRealSense  # pyright: ignore[reportMissingImports]
                except ImportError:
                    answer[name] = "pyrealsense2 is not installed"
                    continue
            sensor, frames = rendered(name, 1.0)
            feeder = None
            if name == "realsense":
                from bodyfit.capture.realsense import RealSenseSource

                device = SoftwareRealSense(sensor)
                source: Source = RealSenseSource(device=device.device)
                feeder = Feeder(device, frames)
            else:
                source = PlayedSource(name, sensor, back_and_forth(frames, FPS), gravity_world=np.array([0, 0, -1.0]))
            answer[name] = {**encoding(frames), **capture(source, root / name, asked.seconds, feeder)}
            if asked.fit:
                answer[name]["fit"] = fitted(root / name)
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
