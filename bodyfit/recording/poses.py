"""<sensor>/poses.csv: where a sensor stood at each instant, where it moved while it recorded."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import check_rigid
from bodyfit.errors import CameraError, RecordingError
from bodyfit.recording.files import read_file
from bodyfit.recording.timeline import MAX_FILE_BYTES, MAX_INDEX

FILE = "poses.csv"
HEADER = ("index", *(f"T_world_depth_{row}{column}" for row in range(3) for column in range(4)))


def read_poses(root: Path, sensor_name: str) -> dict[int, NDArray[np.float64]]:
    """`T_world_depth` (4, 4), metres, by the instant's number; empty where the sensor has no poses.csv.

    Raises:
        RecordingError: another header, a value that is no number, a number that comes twice; the line is named.
        CameraError: a transform that is not rigid.
    """
    relative = f"{sensor_name}/{FILE}"
    if not os.path.lexists(root / relative):
        return {}
    try:
        text = read_file(root, relative, MAX_FILE_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as problem:
        raise RecordingError(relative, "comma-separated values in UTF-8", str(problem)[:80]) from None
    if not rows or tuple(column.strip() for column in rows[0]) != HEADER:
        raise RecordingError(f"{relative}: line 1", ",".join(HEADER), repr(",".join(rows[0] if rows else [])[:60]))
    poses: dict[int, NDArray[np.float64]] = {}
    for line, row in enumerate(rows[1:], start=2):
        where = f"{relative}: line {line}"
        if not row:
            continue
        if len(row) != len(HEADER):
            raise RecordingError(where, f"{len(HEADER)} values", f"{len(row)}")
        index, T = _pose(where, row)
        if index in poses:
            raise RecordingError(where, "each instant once", f"{index} twice")
        poses[index] = T
    return poses


def poses_text(poses: Mapping[int, NDArray[np.float64]]) -> str:
    """The same as a file's text."""
    lines = [",".join(HEADER)]
    lines += [
        ",".join([str(index), *(repr(float(v)) for v in np.asarray(T)[:3].ravel())])
        for index, T in sorted(poses.items())
    ]
    return "\n".join(lines) + "\n"


def _pose(where: str, row: list[str]) -> tuple[int, NDArray[np.float64]]:
    text = row[0].strip()
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= MAX_INDEX):
        raise RecordingError(f"{where}, index", f"a whole number from 0 to {MAX_INDEX}", repr(text[:40]))
    try:
        values = [float(value) for value in row[1:]]
    except ValueError as problem:
        raise RecordingError(where, "numbers", str(problem)[:80]) from None
    T = np.vstack([np.array(values, dtype=np.float64).reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
    try:
        return int(text), check_rigid(where, T)
    except CameraError as problem:
        raise RecordingError(where, problem.expected, problem.found) from None
