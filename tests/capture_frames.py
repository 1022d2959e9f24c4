"""Frames for the tests of capture: a small sensor whose images say which frame they are, and sources that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from bodyfit.camera import Camera, Distortion
from bodyfit.capture.source import Captured, PlayedSource
from bodyfit.recording.description import Sensor

FPS = 30.0


def small_sensor(width: int = 64, height: int = 48) -> Sensor:
    """With distortion in both lenses."""
    s, T = width / 64, np.eye(4)
    lens = Distortion("brown_conrady", (0.1, -0.05, 0.001, -0.002, 0.01))
    T[:3, 3] = [-0.03, 0.002, 0.001]
    return Sensor(
        "cam",
        Camera(width, height, 60 * s, 60.5 * s, 31.2 * s, 23.4 * s, lens),
        np.eye(4),
        Camera(80, 45, 70.0, 70.0, 39.5, 22.0, Distortion("rational", (0.1, 0.02, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0))),
        T,
        0.00025,
    )


def captured(
    k: int, sensor: Sensor | None = None, *, time_s: float | None = None, number: int | None = None
) -> Captured:
    """The k-th frame: noise of its own, so that no file of it is like another's, with k in the first pixel."""
    sensor = sensor or small_sensor()
    rng = np.random.default_rng(k)
    c, d = sensor.color_camera, sensor.depth_camera
    depth = rng.integers(4000, 12000, (d.height, d.width)).astype(np.uint16)
    depth[0, 0] = k
    color = None if c is None else np.full((c.height, c.width, 3), k % 256, np.uint8)
    at = 100.0 + k / FPS if time_s is None else time_s
    return Captured(depth, at, color, at + 0.004, k if number is None else number)


class ScriptedSource(PlayedSource):
    """Plays frames as fast as they are read; where a script has an exception instead of a frame, it is raised."""

    def __init__(self, script: Iterable[Captured | Exception], sensor: Sensor | None = None) -> None:
        super().__init__("scripted", sensor or small_sensor(), (), speed=0)
        self._script = iter(script)

    def read(self, timeout_s: float) -> Captured | None:
        """The next one."""
        item = next(self._script, None)
        if isinstance(item, Exception):
            raise item
        if item is None:
            time.sleep(0.001)
            self._ended = True
        return item
