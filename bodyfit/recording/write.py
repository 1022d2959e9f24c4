"""Writing a recording, whole or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import check_rigid
from bodyfit.errors import FrameError
from bodyfit.frame import Frame
from bodyfit.recording import description, poses, timeline
from bodyfit.recording.description import Sensor
from bodyfit.recording.native_files import (
    depth_counts,
    description_text,
    encoded_image,
    folder_in_place,
    keypoints_text,
    timeline_text,
    write_bytes,
    write_text,
)


def write_recording(
    path: str | os.PathLike[str],
    sensors: Sequence[Sensor],
    frames: Iterable[Frame],
    gravity_world: Any = None,
    *,
    color_format: Literal["jpg", "png"] = "jpg",
    stream_timestamps_s: Mapping[str, NDArray[np.float64]] | None = None,
    moving: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write frames as a `bodyfit.recording/1` folder, which appears under its name only once it is complete.

    Images are stored as they come, so a frame's cameras must be its sensor's (for frames of an opened recording, whose
    images are undistorted: `sensor.undistorted`). Frames of one instant share index and timestamp. The same frames give
    the same bytes.

    Args:
        path: the folder to make; its parent must exist.
        sensors: as recording.json shall describe them; depth is rounded to their `depth_unit_m`.
        frames: in any order of sensors, instants rising; consumed one at a time.
        gravity_world: (3,) unit vector in world coordinates, or None where unknown.
        color_format: JPEG of quality 95, or PNG without loss.
        stream_timestamps_s: `<sensor>.depth_s` or `<sensor>.color_s` to one time for each instant, NaN where none.
        moving: the sensors moved: each frame's own `T_world_depth` is written where it is not its sensor's.
        overwrite: replace a recording that is there.

    Returns:
        The folder.

    Raises:
        OutputError: something is in the way, or the disk does not take it.
        FrameError: a frame that does not fit its sensor, comes twice, or holds depth that 16 bits cannot.
        RecordingError, CameraError: sensors or gravity that a reader would refuse.
    """
    target = Path(path)
    _check_sensors(sensors)
    gravity = description.check_gravity("gravity_world", gravity_world)
    if color_format not in ("jpg", "png"):
        raise FrameError("color_format", "jpg or png", repr(color_format))
    with folder_in_place(target, overwrite=overwrite) as building:
        rows = _write_images(building, {sensor.name: sensor for sensor in sensors}, frames, color_format, moving)
        write_text(building / timeline.FILE, timeline_text(rows, sensors, stream_timestamps_s or {}))
        write_text(building / description.FILE, description_text(sensors, gravity))
    return target


def _check_sensors(sensors: Sequence[Sensor]) -> None:
    description.check_names("sensors", [sensor.name for sensor in sensors])
    for i, sensor in enumerate(sensors):
        sensor.check(f"sensors[{i}]")


def _write_images(
    root: Path, sensors: dict[str, Sensor], frames: Iterable[Frame], color_format: str, moving: bool
) -> list[tuple[int, float]]:
    """Write every frame's files; the index and timestamp of each instant."""
    rows: list[tuple[int, float]] = []
    at_instant: set[str] = set()
    places: dict[str, dict[int, NDArray[np.float64]]] = {}
    seen: set[str] = set()
    for frame in frames:
        where = f"frame {frame.index} of sensor {frame.sensor}"
        if frame.sensor not in sensors:
            raise FrameError(f"{where}: sensor", f"one of {', '.join(sensors)}", repr(frame.sensor))
        if not 0 <= frame.index <= timeline.MAX_INDEX or not math.isfinite(frame.timestamp_s):
            expected = f"an index from 0 to {timeline.MAX_INDEX} and a finite time"
            raise FrameError(where, expected, f"{frame.index} at {frame.timestamp_s} s")
        if not rows or frame.index != rows[-1][0]:
            if rows and not (frame.index > rows[-1][0] and frame.timestamp_s > rows[-1][1]):
                expected = f"an instant after {rows[-1][0]} at {rows[-1][1]:g} s"
                raise FrameError(where, expected, f"{frame.index} at {frame.timestamp_s:g} s")
            rows.append((frame.index, float(frame.timestamp_s)))
            at_instant.clear()
        if frame.timestamp_s != rows[-1][1]:
            expected = f"{rows[-1][1]:g} s as the others of its instant"
            raise FrameError(f"{where}: timestamp_s", expected, f"{frame.timestamp_s:g} s")
        if frame.sensor in at_instant:
            raise FrameError(where, "one frame of a sensor for each instant", "two")
        at_instant.add(frame.sensor)
        seen.add(frame.sensor)
        sensor = sensors[frame.sensor]
        if moving:
            check_rigid(f"{where}: T_world_depth", frame.T_world_depth)
            if not np.array_equal(frame.T_world_depth, sensor.T_world_depth):
                places.setdefault(frame.sensor, {})[frame.index] = frame.T_world_depth
            frame = replace(frame, T_world_depth=sensor.T_world_depth)
        _write_frame(root / frame.sensor, where, sensor, frame, color_format)
    for name, by_index in places.items():
        write_text(root / name / poses.FILE, poses.poses_text(by_index))
    silent = sorted(set(sensors) - seen)
    if silent:
        raise FrameError("frames", "at least one frame of each sensor", f"none of {', '.join(silent)}")
    return rows


def _write_frame(folder: Path, where: str, sensor: Sensor, frame: Frame, color_format: str) -> None:
    for key in ("depth_camera", "color_camera"):
        if getattr(frame, key) != getattr(sensor, key):
            raise FrameError(f"{where}: {key}", f"its sensor's, {getattr(sensor, key)}", str(getattr(frame, key)))
    for key in ("T_world_depth", "T_color_depth"):
        ours, theirs = getattr(frame, key), getattr(sensor, key)
        if (ours is None) != (theirs is None) or (ours is not None and not np.allclose(ours, theirs, atol=1e-9)):
            raise FrameError(f"{where}: {key}", "its sensor's", "another")
    name = f"{frame.index:06d}"
    counts = depth_counts(where, frame.depth, sensor.depth_unit_m)
    write_bytes(folder / "depth" / f"{name}.png", encoded_image(".png", counts))
    if frame.color is not None:
        image = encoded_image(f".{color_format}", frame.color[..., ::-1])
        write_bytes(folder / "color" / f"{name}.{color_format}", image)
    if frame.mask is not None:
        values = frame.mask.astype(np.uint8) * np.uint8(255)
        write_bytes(folder / "mask" / f"{name}.png", encoded_image(".png", values))
    if frame.keypoints is not None:
        write_bytes(folder / "keypoints" / f"{name}.json", keypoints_text(frame.keypoints).encode())
