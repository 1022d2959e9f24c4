"""Writing a recording, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import FrameError, OutputError
from bodyfit.frame import Frame
from bodyfit.recording import description, timeline
from bodyfit.recording.description import Sensor

JPEG_QUALITY = 95


def write_recording(
    path: str | os.PathLike[str],
    sensors: Sequence[Sensor],
    frames: Iterable[Frame],
    gravity_world: Any = None,
    *,
    color_format: Literal["jpg", "png"] = "jpg",
    stream_timestamps_s: Mapping[str, NDArray[np.float64]] | None = None,
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
    _check_target(target, overwrite)
    # beside the target, so that the last step is a rename on one file system
    building = target.parent / f".{target.name}.{secrets.token_hex(6)}.part"
    try:
        building.mkdir()
        rows = _write_images(building, {sensor.name: sensor for sensor in sensors}, frames, color_format)
        _write_text(building / timeline.FILE, _timeline_text(rows, sensors, stream_timestamps_s or {}))
        _write_text(building / description.FILE, _description_text(sensors, gravity))
        _put_in_place(building, target, overwrite)
    except OSError as problem:
        raise OutputError(str(target), "a place to write to", problem.strerror or str(problem)) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _check_sensors(sensors: Sequence[Sensor]) -> None:
    description.check_names("sensors", [sensor.name for sensor in sensors])
    for i, sensor in enumerate(sensors):
        sensor.check(f"sensors[{i}]")


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.name or target.name == "..":
        raise OutputError(str(target), "the name of a folder to make", "none")
    if not target.parent.is_dir():
        raise OutputError(str(target), "a parent folder that exists", f"no folder {target.parent}")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise OutputError(str(target), "a name that is free", "something in its place", "ask to overwrite it")
    if target.is_symlink() or not target.is_dir():
        raise OutputError(str(target), "a recording to overwrite", "a link or a file")
    # never sweep away a folder that is something else
    if any(target.iterdir()) and not (target / description.FILE).is_file():
        raise OutputError(str(target), "a recording to overwrite", "a folder with other things in it")


def _put_in_place(building: Path, target: Path, overwrite: bool) -> None:
    _check_target(target, overwrite)
    if not os.path.lexists(target):
        os.rename(building, target)
        return
    old = target.parent / f".{target.name}.{secrets.token_hex(6)}.old"
    os.rename(target, old)
    try:
        os.rename(building, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_images(
    root: Path, sensors: dict[str, Sensor], frames: Iterable[Frame], color_format: str
) -> list[tuple[int, float]]:
    """Write every frame's files; the index and timestamp of each instant."""
    rows: list[tuple[int, float]] = []
    at_instant: set[str] = set()
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
        _write_frame(root / frame.sensor, where, sensors[frame.sensor], frame, color_format)
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
    _write_bytes(folder / "depth" / f"{name}.png", _encode(".png", _counts(where, frame.depth, sensor.depth_unit_m)))
    if frame.color is not None:
        _write_bytes(folder / "color" / f"{name}.{color_format}", _encode(f".{color_format}", frame.color[..., ::-1]))
    if frame.mask is not None:
        _write_bytes(folder / "mask" / f"{name}.png", _encode(".png", frame.mask.astype(np.uint8) * np.uint8(255)))
    if frame.keypoints is not None:
        points = frame.keypoints
        document = {"names": points.names, "xy": points.xy.tolist(), "confidence": points.confidence.tolist()}
        _write_bytes(folder / "keypoints" / f"{name}.json", (json.dumps(document) + "\n").encode())


def _counts(where: str, depth: NDArray[Any], unit_m: float) -> NDArray[np.uint16]:
    if not np.isfinite(depth).all() or depth.min(initial=0.0) < 0:
        raise FrameError(f"{where}: depth", "finite metres from 0 up", "negative, NaN or infinite depth")
    counts = np.rint(np.asarray(depth, dtype=np.float64) / unit_m)
    if counts.max(initial=0.0) > 65535:
        expected = f"at most {65535 * unit_m:g} m in units of {unit_m:g} m"
        raise FrameError(f"{where}: depth", expected, f"{depth.max():g} m")
    return counts.astype(np.uint16)


def _encode(suffix: str, image: NDArray[Any]) -> bytes:
    import cv2  # late: importing it takes 0.2 s

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    _, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    return encoded.tobytes()


def _write_bytes(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _write_text(file: Path, text: str) -> None:
    _write_bytes(file, text.encode("utf-8"))


def _timeline_text(
    rows: list[tuple[int, float]], sensors: Sequence[Sensor], streams: Mapping[str, NDArray[np.float64]]
) -> str:
    known = {f"{sensor.name}.{stream}" for sensor in sensors for stream in timeline.STREAMS}
    for column, times in streams.items():
        if column not in known or np.shape(times) != (len(rows),):
            found = f"{column!r} of shape {np.shape(times)}"
            raise FrameError("stream_timestamps_s", f"<sensor>.depth_s or .color_s of shape ({len(rows)},)", found)
    lines = [",".join(["index", "timestamp_s", *streams])]
    for t, (index, timestamp_s) in enumerate(rows):
        times = (float(column[t]) for column in streams.values())
        lines.append(",".join([str(index), repr(timestamp_s), *("" if math.isnan(s) else repr(s) for s in times)]))
    return "\n".join(lines) + "\n"


def _description_text(sensors: Sequence[Sensor], gravity: NDArray[np.float64] | None) -> str:
    document = {
        "format": description.FORMAT,
        "depth_unit_m": sensors[0].depth_unit_m,
        "gravity_world": None if gravity is None else gravity.tolist(),
        "sensors": [
            {
                "name": sensor.name,
                **({} if sensor.depth_unit_m == sensors[0].depth_unit_m else {"depth_unit_m": sensor.depth_unit_m}),
                "depth_camera": _camera_document(sensor.depth_camera),
                "color_camera": _camera_document(sensor.color_camera) if sensor.color_camera else None,
                "T_color_depth": None if sensor.T_color_depth is None else np.asarray(sensor.T_color_depth).tolist(),
                "T_world_depth": np.asarray(sensor.T_world_depth).tolist(),
            }
            for sensor in sensors
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _camera_document(camera: Camera) -> dict[str, Any]:
    lens = {"model": camera.distortion.model, "coefficients": list(camera.distortion.coefficients)}
    return {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")} | {"distortion": lens}
