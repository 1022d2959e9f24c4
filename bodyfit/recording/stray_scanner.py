"""Stray Scanner folders (iPhone and iPad with LiDAR): a film, depth and confidence images, and the phone's way.

Conventions, from the app's "Data Specification" (docs.strayrobots.io/apps/scanner/format.html) and its "Data Model":

- `depth/000000.png`: 16-bit, millimetres, 256 × 192, one for each frame of `rgb.mp4`; registered to colour.
- `confidence/000000.png`: 0, 1 or 2 for each depth pixel.
- `camera_matrix.csv`: 3 × 3, of the film's resolution; a pixel's centre: the borders of both grids coincide, and the
  matrix is taken to count from the first pixel's centre.
- `odometry.csv`: `timestamp, frame, x, y, z, qx, qy, qz, qw` and, in newer versions, `fx, fy, cx, cy`; seconds, metres;
  the camera to the world of ARKit's session; the camera's z points forward, x to the right and y down in the film's
  landscape images (the bottom and the left edge of a phone held upright). ARKit's world has y up.

The film is decoded by PyAV (extra `video`). Readings of confidence 0 are left out.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_left, bisect_right
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import ImageError, MissingExtraError, RecordingError
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.files import read_file
from bodyfit.recording.handheld import ARKIT_GRAVITY, number, plain_camera, rigid_of, rising, scaled_camera
from bodyfit.recording.images import decode_depth, read_header, read_image_file
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import MAX_INDEX, Timeline

SENSOR_NAME = "iphone"
DEPTH_UNIT_M = 0.001
LEAST_CONFIDENCE = 1
FILM, MATRIX, WAY = "rgb.mp4", "camera_matrix.csv", "odometry.csv"
MAX_CSV_BYTES = 256 << 20


def is_stray(path: Path, head: bytes) -> bool:
    """A folder with the way, the camera's matrix and depth."""
    return not head and path.is_dir() and (path / WAY).is_file() and (path / "depth").is_dir()


def open_stray(root: Path) -> Recording:
    """Opens a Stray Scanner folder.

    Raises:
        RecordingError: a table or the film is missing or broken, or no depth image.
        MissingExtraError: PyAV is not installed.
    """
    notes: list[str] = []
    rows = _way(root)
    numbers = [n for n, _, _ in rows]
    seconds = np.array([time_s for _, time_s, _ in rows])
    there = {f.stem for f in (root / "depth").glob("*.png")}
    kept = [i for i in rising(seconds).tolist() if f"{numbers[i]:06d}" in there]
    if not kept:
        raise RecordingError(
            "depth", f"images 000000.png … of the frames that {WAY} names", f"{len(there)}, none of them"
        )
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} frames of {WAY} have no depth image, or repeat a time: left out.")
    film = _Film(root / FILM) if (root / FILM).is_file() else None
    if film is None:
        notes.append(f"There is no {FILM}: no colour.")
    try:
        first = f"depth/{numbers[kept[0]]:06d}.png"
        header = read_header(first, read_file(root, first, 64 << 20))
        K = _matrix(root)
        if film is not None:
            color = plain_camera(MATRIX, film.width, film.height, K)
        else:
            # the matrix is of the film, whose size its principal point tells well enough
            color = plain_camera(MATRIX, max(1, round(2 * K[2] + 1)), max(1, round(2 * K[3] + 1)), K)
        poses = [rigid_of(f"{WAY}: frame {n}", row[3:], row[:3]) for n, _, row in (rows[i] for i in kept)]
        sensor = Sensor(
            SENSOR_NAME, scaled_camera(color, header.width, header.height), poses[0],
            color if film is not None else None, np.eye(4) if film is not None else None, DEPTH_UNIT_M,
        )  # fmt: skip
        if (root / "confidence").is_dir():
            notes.append(f"Readings of a confidence below {LEAST_CONFIDENCE} (of 0 to 2) are left out.")
        timeline = Timeline(np.array([numbers[i] for i in kept]), seconds[kept] - seconds[kept[0]], {})
        images = _Images(root, [numbers[i] for i in kept], poses, film)
        return Recording(root, "stray", [sensor], timeline, np.array(ARKIT_GRAVITY), images, notes)
    except BaseException:
        if film is not None:
            film.close()
        raise


def _way(root: Path) -> list[tuple[int, float, list[float]]]:
    """Number, seconds, and place and quaternion of each frame."""
    table = _table(root, WAY)
    header = [column.strip() for column in table[0]] if table else []
    wanted = ("timestamp", "frame", "x", "y", "z", "qx", "qy", "qz", "qw")
    missing = [column for column in wanted if column not in header]
    if missing:
        raise RecordingError(f"{WAY}: line 1", f"columns {', '.join(wanted)}", f"none named {missing[0]}")
    at = [header.index(column) for column in wanted]
    out: list[tuple[int, float, list[float]]] = []
    for line, row in enumerate(table[1:], start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise RecordingError(f"{WAY}: line {line}", f"{len(header)} values", str(len(row)))
        values = [number(f"{WAY}: line {line}, {wanted[k]}", row[i].strip()) for k, i in enumerate(at)]
        n = int(values[1]) if values[1] == int(values[1]) else -1
        if not 0 <= n <= MAX_INDEX or (out and n <= out[-1][0]):
            raise RecordingError(
                f"{WAY}: line {line}, frame", f"a whole number from 0 to {MAX_INDEX} that rises", row[at[1]]
            )
        out.append((n, values[0], values[2:]))
    return out


def _matrix(root: Path) -> tuple[float, float, float, float]:
    rows = [row for row in _table(root, MATRIX) if row]
    if len(rows) != 3 or any(len(row) != 3 for row in rows):
        raise RecordingError(MATRIX, "3 lines of 3 numbers", f"{len(rows)} lines")
    K = [[number(f"{MATRIX}: line {n + 1}", word.strip()) for word in row] for n, row in enumerate(rows)]
    return K[0][0], K[1][1], K[0][2], K[1][2]


def _table(root: Path, name: str) -> list[list[str]]:
    try:
        text = read_file(root, name, MAX_CSV_BYTES).decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as problem:
        raise RecordingError(name, "text in UTF-8", f"byte {problem.start} that is not UTF-8") from None
    except csv.Error as problem:
        raise RecordingError(name, "comma-separated values", str(problem)[:80]) from None


class _Film:
    """Frames of a film by their number. Frames in order cost one decoding each; others begin again at the key frame
    before, which costs those between."""

    def __init__(self, path: Path) -> None:
        try:
            import av
            import av.error
        except ImportError:
            raise MissingExtraError("av", "video", "reading a Stray Scanner recording") from None
        self._av: Any = av
        self.name = path.name
        self._lock = Lock()
        try:
            self._container: Any = av.open(str(path))
            self._stream: Any = self._container.streams.video[0]
            self.width, self.height = int(self._stream.width), int(self._stream.height)
            # a film's frames in the order in which they are shown
            packets = [(p.pts, p.is_keyframe) for p in self._container.demux(self._stream) if p.pts is not None]
        except (av.error.FFmpegError, OSError, IndexError, ValueError) as problem:
            raise RecordingError(self.name, "a film that can be read", str(problem)[:100]) from None
        self._order = sorted(pts for pts, _ in packets)
        self._keys = sorted(pts for pts, key in packets if key)
        if not self._order or not self._keys or not (1 <= self.width <= 16384 and 1 <= self.height <= 16384):
            raise RecordingError(self.name, "a film with frames", f"{len(self._order)} of {self.width} × {self.height}")
        self._next: Any = None
        self._last = self._number = -1

    def frame(self, n: int) -> bytes:
        """RGB of the n-th frame, row by row.

        Raises:
            ImageError: no such frame, or one that cannot be decoded.
        """
        if n >= len(self._order):
            raise ImageError(f"{self.name}: frame {n}", f"one of {len(self._order)} frames", "none")
        try:
            with self._lock:
                return self._decoded(n)
        except (self._av.error.FFmpegError, OSError, ValueError, StopIteration, RuntimeError) as problem:
            self._next = None
            raise ImageError(f"{self.name}: frame {n}", "a frame that can be decoded", str(problem)[:100]) from None

    def _decoded(self, n: int) -> bytes:
        wanted = self._order[n]
        key = self._keys[max(bisect_right(self._keys, wanted) - 1, 0)]
        # frames in between are decoded on the way, unless a key frame lies among them
        if self._next is None or wanted <= self._last or bisect_left(self._order, key) > self._number + 1:
            self._container.seek(key, stream=self._stream, backward=True)
            self._next, self._last, self._number = self._container.decode(self._stream), -1, -1
        for picture in self._next:
            if picture.pts is None:
                continue
            self._last = picture.pts
            self._number = bisect_left(self._order, picture.pts)
            if picture.pts == wanted:
                pixels = picture.to_ndarray(format="rgb24")
                if pixels.shape != (self.height, self.width, 3):
                    break
                return np.ascontiguousarray(pixels).tobytes()
            if picture.pts > wanted:
                break
        self._next = None
        raise ImageError(f"{self.name}: frame {n}", "a frame that can be decoded", "none at its time")

    def close(self) -> None:
        """Closes the film."""
        self._container.close()


class _Images:
    def __init__(self, root: Path, numbers: list[int], poses: list[NDArray[np.float64]], film: _Film | None) -> None:
        self._root, self._numbers, self._poses, self._film = root, numbers, poses, film

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        n = self._numbers[i]
        depth = EncodedImage(f"depth/{n:06d}.png", Coding.UINT16, partial(self._load_depth, n, sensor.depth_camera))
        color = None
        if self._film is not None and sensor.color_camera is not None:
            color = EncodedImage(f"{FILM}: frame {n}", Coding.UINT8, partial(self._film.frame, n))
        return EncodedFrame(depth, color, T_world_depth=self._poses[i])

    def close(self) -> None:
        if self._film is not None:
            self._film.close()

    def _load_depth(self, n: int, camera: Camera) -> bytes:
        name = f"depth/{n:06d}.png"
        counts = decode_depth(name, read_image_file(self._root, name, camera), camera)
        sure = f"confidence/{n:06d}.png"
        if (self._root / sure).is_file():
            counts = np.where(self._confidence(sure, camera) < LEAST_CONFIDENCE, np.uint16(0), counts)
        return counts.astype("<u2").tobytes()

    def _confidence(self, name: str, camera: Camera) -> NDArray[np.uint8]:
        import cv2

        from bodyfit.recording.images import MASK, check_image

        data = read_image_file(self._root, name, camera)
        check_image(MASK, name, data, camera)
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if values is None or values.shape != (camera.height, camera.width):
            raise ImageError(name, "an 8-bit PNG of the depth images' size", "a broken one")
        return np.asarray(values, np.uint8)
