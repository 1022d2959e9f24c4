"""The files of a native recording as they are written: texts, encoded images, and the folder that appears whole."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import FrameError, OutputError
from bodyfit.frame import Keypoints
from bodyfit.recording import description, timeline
from bodyfit.recording.description import Sensor

JPEG_QUALITY = 95


@contextmanager
def folder_in_place(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which gets the name `target` when the block ends, and vanishes when the block fails.

    Raises:
        OutputError: something is in the way, or the disk does not take it.
    """
    _check_target(target, overwrite)
    # beside the target, so that the last step is a rename on one file system
    building = target.parent / f".{target.name}.{secrets.token_hex(6)}.part"
    try:
        building.mkdir()
        yield building
        _put_in_place(building, target, overwrite)
    except OSError as problem:
        raise OutputError(str(target), "a place to write to", problem.strerror or str(problem)) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


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


def depth_counts(where: str, depth: NDArray[Any], unit_m: float) -> NDArray[np.uint16]:
    """(H, W) metres as 16-bit counts, rounded.

    Raises:
        FrameError: negative, not finite, or too far for 16 bits.
    """
    if not np.isfinite(depth).all() or depth.min(initial=0.0) < 0:
        raise FrameError(f"{where}: depth", "finite metres from 0 up", "negative, NaN or infinite depth")
    counts = np.rint(np.asarray(depth, dtype=np.float64) / unit_m)
    if counts.max(initial=0.0) > 65535:
        expected = f"at most {65535 * unit_m:g} m in units of {unit_m:g} m"
        raise FrameError(f"{where}: depth", expected, f"{depth.max():g} m")
    return counts.astype(np.uint16)


def encoded_image(suffix: str, image: NDArray[Any]) -> bytes:
    """A file's bytes; colour is in the order that OpenCV takes, BGR; JPEG of quality 95."""
    import cv2  # late: importing it takes 0.2 s

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    _, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    return encoded.tobytes()


def write_bytes(file: Path, data: bytes) -> None:
    """A file with these bytes, its folder made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def write_text(file: Path, text: str) -> None:
    """The same of text, in UTF-8."""
    write_bytes(file, text.encode("utf-8"))


def keypoints_text(points: Keypoints) -> str:
    """What a keypoints file says."""
    document = {"names": points.names, "xy": points.xy.tolist(), "confidence": points.confidence.tolist()}
    return json.dumps(document) + "\n"


def timeline_text(
    rows: list[tuple[int, float]], sensors: Sequence[Sensor], streams: Mapping[str, NDArray[np.float64]]
) -> str:
    """What frames.csv says of instants (index, seconds) and of the streams\' own clocks."""
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


def description_text(sensors: Sequence[Sensor], gravity: NDArray[np.float64] | None) -> str:
    """What recording.json says."""
    document = {
        "format": description.FORMAT,
        "depth_unit_m": sensors[0].depth_unit_m,
        "gravity_world": None if gravity is None else gravity.tolist(),
        "sensors": [
            {
                "name": sensor.name,
                **({} if sensor.depth_unit_m == sensors[0].depth_unit_m else {"depth_unit_m": sensor.depth_unit_m}),
                "depth_camera": camera_document(sensor.depth_camera),
                "color_camera": camera_document(sensor.color_camera) if sensor.color_camera else None,
                "T_color_depth": None if sensor.T_color_depth is None else np.asarray(sensor.T_color_depth).tolist(),
                "T_world_depth": np.asarray(sensor.T_world_depth).tolist(),
            }
            for sensor in sensors
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def camera_document(camera: Camera) -> dict[str, Any]:
    """A camera as recording.json has it."""
    lens = {"model": camera.distortion.model, "coefficients": list(camera.distortion.coefficients)}
    return {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")} | {"distortion": lens}
