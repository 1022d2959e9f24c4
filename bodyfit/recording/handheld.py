"""What recordings of hand-held sensors have in common: poses as quaternions, cameras of other resolutions, and which
colour image belongs to which depth image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import RecordingError

ARKIT_GRAVITY = (0.0, -1.0, 0.0)
"""ARKit's world has y up where it is aligned with gravity (ARConfiguration.WorldAlignment.gravity)"""
GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])
"""a camera that looks along -z with y up, as OpenGL's and ARKit's do, in OpenCV's axes; its own inverse"""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z", re.ASCII)


def rigid_of(where: str, quaternion_xyzw: Sequence[float], translation_m: Sequence[float]) -> NDArray[np.float64]:
    """(4, 4) of a quaternion (x, y, z, w), of about unit length, and a translation in metres.

    Raises:
        RecordingError: numbers that are not finite, a quaternion that is none, a place kilometres away.
    """
    q, t = np.asarray(quaternion_xyzw, np.float64), np.asarray(translation_m, np.float64)
    length = float(np.sqrt(np.square(np.clip(q, -1e3, 1e3)).sum())) if np.isfinite(q).all() else math.nan
    if not abs(length - 1.0) < 0.05:
        raise RecordingError(where, "a quaternion of unit length", f"length {length:g}")
    if not np.isfinite(t).all() or np.abs(t).max() > 1000:
        raise RecordingError(where, "a place within 1000 m", str(t.tolist())[:80])
    x, y, z, w = (q / length).tolist()
    T = np.eye(4)
    T[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    T[:3, 3] = t
    return T


def scaled_camera(camera: Camera, width: int, height: int) -> Camera:
    """The same camera on a grid of another resolution. Borders of images coincide, so that a pixel's centre at (0, 0)
    lies half a pixel inside of both."""
    sx, sy = width / camera.width, height / camera.height
    return replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx * sx,
        fy=camera.fy * sy,
        cx=(camera.cx + 0.5) * sx - 0.5,
        cy=(camera.cy + 0.5) * sy - 0.5,
    )


def rising(times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the times that are later than all before them; what repeats or goes back is left out."""
    kept: list[int] = []
    last = -math.inf
    for i, time_s in enumerate(times_s.tolist()):
        if math.isfinite(time_s) and time_s > last:
            kept.append(i)
            last = time_s
    return np.array(kept, np.int64)


def nearest_in_time(times_s: NDArray[np.float64], others_s: NDArray[np.float64], within_s: float) -> NDArray[np.int64]:
    """For each time the position of the nearest of the others (rising), -1 where none is near enough."""
    if not len(others_s):
        return np.full(len(times_s), -1, np.int64)
    after = np.clip(np.searchsorted(others_s, times_s), 1, max(len(others_s) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(others_s) - 1)
    nearest = np.where(np.abs(others_s[after] - times_s) < np.abs(others_s[before] - times_s), after, before)
    return np.where(np.abs(others_s[nearest] - times_s) <= within_s, nearest, -1).astype(np.int64)


def half_a_period_s(times_s: NDArray[np.float64]) -> float:
    """Half of the usual interval; a sixtieth of a second where there is none."""
    return 0.5 * float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / 60


def number(where: str, text: str) -> float:
    """A finite number.

    Raises:
        RecordingError: it is none.
    """
    value = float(text) if _NUMBER.match(text) else math.nan
    if not math.isfinite(value):
        raise RecordingError(where, "a finite number", repr(text[:40]))
    return value


def plain_camera(where: str, width: int, height: int, K: Sequence[float]) -> Camera:
    """A pinhole camera of (fx, fy, cx, cy).

    Raises:
        RecordingError: a size that no sensor has.
    """
    if not (1 <= width <= 16384 and 1 <= height <= 16384):
        raise RecordingError(where, "a size from 1 to 16384 pixels a side", f"{width} × {height}")
    fx, fy, cx, cy = (float(value) for value in K)
    return Camera(width, height, fx, fy, cx, cy)
