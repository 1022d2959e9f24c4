"""frames.csv: which instants a recording has, and when each stream took them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import RecordingError
from bodyfit.recording.files import read_file

FILE = "frames.csv"
MAX_FILE_BYTES = 32 << 20
MAX_INDEX = 999_999
STREAMS = ("depth_s", "color_s")

_INDEX = re.compile(r"[0-9]{1,6}\Z", re.ASCII)
_SECONDS = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z", re.ASCII)


@dataclass(frozen=True)
class Timeline:
    """The instants of a recording.

    Attributes:
        indices: (T,) int64, rising: the numbers in the file names.
        timestamps_s: (T,) float64, rising.
        stream_timestamps_s: `<sensor>.depth_s` or `<sensor>.color_s` to (T,) float64, NaN where the stream has none.
    """

    indices: NDArray[np.int64]
    timestamps_s: NDArray[np.float64]
    stream_timestamps_s: dict[str, NDArray[np.float64]]


def check_timeline(where: str, timeline: Timeline) -> None:
    """Refuses no instants at all, and numbers or times that do not rise.

    Raises:
        RecordingError: which instant, and why.
    """
    indices, times = timeline.indices, timeline.timestamps_s
    if len(indices) == 0 or times.shape != indices.shape:
        raise RecordingError(f"{where}: instants", "at least one", "none")
    if not np.isfinite(times).all():
        raise RecordingError(f"{where}: instants", "finite times", f"{times[~np.isfinite(times)][0]}")
    wrong = np.flatnonzero((np.diff(indices) <= 0) | (np.diff(times) <= 0))
    if len(wrong):
        t = int(wrong[0])
        found = f"{indices[t + 1]} at {times[t + 1]:g} s after {indices[t]} at {times[t]:g} s"
        raise RecordingError(f"{where}: instants", "numbers and times that rise", found)


def read_timeline(root: Path, sensor_names: Sequence[str], *, unfinished: bool = False) -> Timeline:
    """Read frames.csv of the recording in folder `root`.

    Args:
        unfinished: it is being written, or whoever wrote it was cut off: only lines that have their end count.

    Raises:
        RecordingError: no file, no rows, a column that nobody defined, a value that is no number, or time or index
            that does not rise; the row is named, counted as an editor counts lines.
    """
    try:
        text = read_file(root, FILE, MAX_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise RecordingError(FILE, "text in UTF-8", f"byte {problem.start} that is not UTF-8") from None
    if unfinished:
        text = text[: text.rfind("\n") + 1]
    try:
        return _timeline(csv.reader(io.StringIO(text, newline=""), strict=True), sensor_names)
    except csv.Error as problem:
        raise RecordingError(FILE, "comma-separated values", str(problem)) from None


def _timeline(rows: Iterator[list[str]], sensor_names: Sequence[str]) -> Timeline:
    header = [column.strip() for column in next(rows, [])]
    _check_header(header, sensor_names)
    indices: list[int] = []
    columns: list[list[float]] = [[] for _ in header[1:]]
    last = [-math.inf] * len(columns)
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        where = f"{FILE}: line {line}"
        if len(row) != len(header):
            raise RecordingError(where, f"{len(header)} values", f"{len(row)}")
        indices.append(_index(f"{where}, index", row[0].strip(), indices[-1] if indices else -1))
        for i, (column, text) in enumerate(zip(header[1:], row[1:], strict=True)):
            seconds = _time(f"{where}, {column}", text.strip(), last[i], is_instant=i == 0)
            columns[i].append(seconds)
            last[i] = last[i] if math.isnan(seconds) else seconds
    if not indices:
        raise RecordingError(FILE, "at least one frame", "none")
    times = [np.array(column, dtype=np.float64) for column in columns]
    return Timeline(np.array(indices, dtype=np.int64), times[0], dict(zip(header[2:], times[1:], strict=True)))


def _check_header(header: list[str], sensor_names: Sequence[str]) -> None:
    if header[:2] != ["index", "timestamp_s"]:
        raise RecordingError(f"{FILE}: line 1", "a header that starts index,timestamp_s", repr(",".join(header)[:60]))
    known = {f"{name}.{stream}" for name in sensor_names for stream in STREAMS}
    for i, column in enumerate(header[2:], start=2):
        if column not in known:
            raise RecordingError(f"{FILE}: column {i + 1}", "<sensor>.depth_s or <sensor>.color_s", repr(column[:60]))
        if column in header[:i]:
            raise RecordingError(f"{FILE}: column {i + 1}", "each column once", f"{column} twice")


def _index(where: str, text: str, last: int) -> int:
    if not _INDEX.match(text):
        raise RecordingError(where, f"a whole number from 0 to {MAX_INDEX}", repr(text[:40]))
    if int(text) <= last:
        raise RecordingError(where, f"more than {last}, the index before it", text)
    return int(text)


def _time(where: str, text: str, last: float, *, is_instant: bool) -> float:
    """A time in seconds. The instants' own clock rises; a stream may lack a time, or repeat one with its image."""
    if not text and not is_instant:
        return math.nan
    seconds = float(text) if _SECONDS.match(text) else math.nan
    if not math.isfinite(seconds):
        raise RecordingError(where, "a finite number of seconds", repr(text[:40]))
    if seconds < last or (is_instant and seconds == last):
        raise RecordingError(where, f"a time after {last:g} s, the one before it", f"{seconds:g} s")
    return seconds
