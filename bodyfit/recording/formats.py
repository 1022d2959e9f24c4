"""The formats of recordings that can be read, and how to tell them apart: by what they contain, not by their names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bodyfit.errors import RecordingError
from bodyfit.recording.recording import Recording

HEAD_BYTES = 4096
"""how much of a file the formats are told apart by"""


@dataclass(frozen=True)
class Format:
    """One format of recordings.

    Attributes:
        name: short, as `Recording.format` and tables have it.
        title: in words.
        module: in bodyfit.recording; imported when a recording of the format is opened.
        opener: its function that opens a path.
        matches: tells it by a path and the first bytes of a file (none of a folder); opens nothing large.
        extra: what of bodyfit's extras it needs, or none.
    """

    name: str
    title: str
    module: str
    opener: str
    matches: Callable[[Path, bytes], bool]
    extra: str = ""

    def open(self, path: Path) -> Recording:
        """Opens a recording of this format."""
        opener: Callable[[Path], Recording] = getattr(import_module(f"bodyfit.recording.{self.module}"), self.opener)
        return opener(path)


def _has_any(*names: str) -> Callable[[Path, bytes], bool]:
    """A folder in which one of these lies."""
    return lambda path, head: path.is_dir() and any(os.path.lexists(path / name) for name in names)


def _is_bag(path: Path, head: bytes) -> bool:
    """A ROS 1 bag, an MCAP or SQLite file, or a folder of a ROS 2 bag: one with a bag's metadata.yaml, or one that
    holds the files of one bag and nothing else, whose recorder died before it wrote that. (Many bags are no bag.)"""
    if path.is_dir():
        try:
            if (path / "metadata.yaml").is_file():
                return b"rosbag2_bagfile_information" in _head(path / "metadata.yaml")
            names = os.listdir(path)
        except (OSError, RecordingError):
            return False
        stems = {re.sub(r"(_[0-9]+)?\.(db3|mcap)(\.zstd)?(-wal|-shm)?\Z", "", name) for name in names}
        return len(stems) == 1 and stems.isdisjoint(names)
    # many things are SQLite files
    is_sqlite = head.startswith(b"SQLite format 3\0") and path.suffix == ".db3"
    return is_sqlite or head.startswith((b"#ROSBAG V", b"\x89MCAP"))


def _is_azure(path: Path, head: bytes) -> bool:
    """A Matroska file that an Azure Kinect's or Femto's recorder wrote, or that has a track of its kind: by the names
    in its first bytes, where the recorder's name, the tracks and the tags stand."""
    if not head.startswith(b"\x1a\x45\xdf\xa3") or b"matroska" not in head[:64]:
        return False
    # a track's name (RFC 9559, 5.1.4.1: element 536E), here of five letters
    return any(sign in head for sign in (b"\x53\x6e\x85DEPTH", b"k4arecord-", b"K4A_", b"Azure Kinect"))


def _is_sens(path: Path, head: bytes) -> bool:
    from bodyfit.recording.scannet_sens import is_sens

    return is_sens(path, head)


def _is_r3d(path: Path, head: bytes) -> bool:
    from bodyfit.recording.record3d import is_r3d

    return head.startswith(b"PK") and is_r3d(path, head)


def _is_stray(path: Path, head: bytes) -> bool:
    from bodyfit.recording.stray_scanner import is_stray

    return is_stray(path, head)


def _is_open3d(path: Path, head: bytes) -> bool:
    from bodyfit.recording.open3d_folder import is_open3d

    return is_open3d(path, head)


# In this order: a folder may hold what another format has too.
FORMATS: tuple[Format, ...] = (
    # either file: a recording that lost one of the two is a broken one of ours, and said to be
    Format("bodyfit", "bodyfit's own", "native", "open_native", _has_any("recording.json", "frames.csv")),
    Format("azure", "an Azure Kinect or Orbbec Femto .mkv", "azure_mkv", "open_azure_mkv", _is_azure),
    Format("scannet", "ScanNet .sens", "scannet_sens", "open_sens", _is_sens),
    Format("record3d", "Record3D .r3d", "record3d", "open_r3d", _is_r3d, "iphone"),
    Format("stray", "Stray Scanner", "stray_scanner", "open_stray", _is_stray, "video"),
    Format("tum", "TUM RGB-D", "tum", "open_tum", _has_any("depth.txt")),
    Format("open3d", "Open3D RGB-D folder", "open3d_folder", "open_open3d", _is_open3d),
    Format("ros", "a ROS or RealSense bag", "ros_bag", "open_ros", _is_bag, "ros"),
)


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open a recording of any format that bodyfit reads (`FORMATS`), and check all but its images.

    Args:
        path: a folder or a file.

    Raises:
        RecordingError: nothing there, or nothing that is a recording; a description or timeline that is missing, broken
            or of another version; a sensor without any depth.
        CameraError: intrinsics, distortion or transforms that make no sense.
        MissingExtraError: the format needs a package that is not installed.
    """
    place = _resolved(path)
    return format_of(place).open(place)


def format_of(path: Path) -> Format:
    """The format of what lies at `path`.

    Raises:
        RecordingError: nothing there, not readable, or no format that bodyfit knows.
    """
    head = b"" if path.is_dir() else _head(path)
    for one in FORMATS:
        if one.matches(path, head):
            return one
    expected = f"a recording ({', '.join(one.title for one in FORMATS)})"
    if path.is_dir():
        names = sorted(os.listdir(path))
        found = (
            f"a folder that holds {', '.join(names[:6])}{' …' if len(names) > 6 else ''}" if names else "nothing in it"
        )
    else:
        found = f"a file that starts {head[:16]!r}" if head else "an empty file"
    raise RecordingError(str(path), expected, found)


def _resolved(path: str | os.PathLike[str]) -> Path:
    try:
        place = Path(path).resolve()
        exists = place.exists()
    except (OSError, RuntimeError, ValueError) as problem:
        raise RecordingError(str(path), "a recording's folder or file", str(problem)) from None
    if not exists:
        raise RecordingError(str(path), "a recording's folder or file", "nothing of that name")
    return place


def _head(path: Path) -> bytes:
    """The first bytes of a regular file; a pipe might never give any."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RecordingError(str(path), "a recording's folder or file", "a pipe, device or other special file")
            return file.read(HEAD_BYTES)
    except OSError as problem:
        raise RecordingError(str(path), "a readable file", problem.strerror or str(problem)) from None
