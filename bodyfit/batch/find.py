"""The recordings under a folder, of every kind that can be read, in one order."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bodyfit.errors import InputError, RecordingError
from bodyfit.recording.formats import format_of

CONTAINERS = re.compile(r".*\.(mkv|bag|mcap|db3|sens|r3d)\Z", re.IGNORECASE)
"""files that are taken for recordings even where they cannot be told by what they contain: broken ones are reported"""
UNKNOWN = "unknown"
RESERVED = {
    "manifest.sqlite", "manifest.sqlite-journal", "manifest.lock", "measurements.csv", "measurements.parquet",
    "summary.html",
}  # fmt: skip
"""what lies in OUT besides results"""
MOST_FILES = 200_000
"""of one recording's files so many are looked at to see whether it has changed"""


@dataclass(frozen=True)
class Found:
    """A recording under the root.

    Attributes:
        name: where its results go, within OUT: its path within the root.
        source: its path within the root; "." is the root itself.
        format: name of its format, or "unknown" where it can only be refused.
        signature: a hash of its files' names, sizes and times: another where it has changed.
    """

    name: str
    source: str
    format: str
    signature: str


def find_recordings(root: Path, *, leave_out: Path | None = None) -> list[Found]:
    """All recordings under a folder, or the one that it is, sorted by name.

    Links and hidden entries are not followed; what lies in a recording belongs to it. A file is a recording when its
    content says so, or when its name says so (`CONTAINERS`): a broken one is told of rather than passed over, and so is
    a folder that cannot be looked into.

    Args:
        root: a folder, or one recording's file.
        leave_out: a folder that is not looked into: where results go.

    Raises:
        InputError: no such place.
    """
    if not root.exists():
        raise InputError(str(root), "a folder with recordings", "nothing of that name")
    base = root if root.is_dir() else root.parent
    out = []
    for path, kind in _walk(root, leave_out.resolve() if leave_out else None):
        relative = _as_text(path.relative_to(base).as_posix())
        name = relative if relative != "." else _as_text(root.resolve().name or "recording")
        # a name of ours within OUT is given to no recording
        name = f"{name}.recording" if name in RESERVED else name
        out.append(Found(name, relative, kind, signature_of(path)))
    return sorted(out, key=lambda found: found.name)


def _as_text(name: str) -> str:
    """A name whose bytes are not UTF-8 as one that can be written down; such a recording is not found under it, and the
    batch says so."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk(path: Path, leave_out: Path | None, *, top: bool = True) -> Iterator[tuple[Path, str]]:
    kind = _kind(path)
    if kind is not None:
        yield path, kind
        return
    if not path.is_dir():
        return
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as problem:
        if top:
            raise InputError(str(path), "a folder that can be read", problem.strerror or str(problem)) from None
        yield path, UNKNOWN
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        place = Path(entry.path)
        if leave_out is not None and entry.is_dir() and place.resolve() == leave_out:
            continue
        if entry.is_dir() or entry.is_file():
            yield from _walk(place, leave_out, top=False)


def _kind(path: Path) -> str | None:
    """Name of the format; None of what is no recording."""
    try:
        return format_of(path).name
    except RecordingError:
        return UNKNOWN if path.is_file() and CONTAINERS.match(path.name) else None
    except OSError:
        return None  # a folder that cannot be listed: `_walk` says so


def signature_of(path: Path) -> str:
    """A hash of a recording's files: names, sizes, and when they were written."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(_files(path))
    for file in files[:MOST_FILES]:
        try:
            status = file.stat()
            what = f"{file.relative_to(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError as problem:
            what = f"{file}\0{problem.errno}\n"
        digest.update(what.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        folders.sort()
        yield from (Path(folder) / name for name in files)
