"""Writes a native recording while frames come: nothing waits in the reading thread, and nothing vanishes unsaid.

The folder has its own name from the start and can be read at any time: recording.json first; then, for every frame, its
images under a temporary name and renamed; then the frame's line in frames.csv, in one write. capture.json says
`"finished": false` until the end, and so long the reader leaves out a last line without its end. Some kilobytes are
set aside at the beginning (`.reserve`) and given back when the disk is full, so that the last lines still fit.
"""

from __future__ import annotations

import math
import os
import queue
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.capture.clock import CaptureClock
from bodyfit.capture.counts import Cause, Counts, capture_text
from bodyfit.capture.source import Captured
from bodyfit.errors import OutputError
from bodyfit.recording import description, timeline
from bodyfit.recording.description import Sensor
from bodyfit.recording.native import CAPTURE_FILE
from bodyfit.recording.native_files import description_text, write_text
from bodyfit.recording.undistort import check_invertible

RESERVE_FILE = ".reserve"
RESERVE_BYTES = 256 << 10
"""room for capture.json and some hundred lines of frames.csv, each of which may need a block of its own"""
TELL_EVERY_S = 1.0
HURRY_PART = 4
"""with more than this part of the queue waiting, depth is stored without being packed"""
LONGEST_ROW = 200


@dataclass(frozen=True)
class _Job:
    place: int
    index: int
    time_s: float
    color_s: float | None
    captured: Captured


class Recorder:
    """A recording that grows.

    Args:
        path: the folder to make; nothing may be there, and its parent must exist.
        sensor: as recording.json shall describe it.
        gravity_world: (3,) unit vector, or None where unknown.
        device, settings, notes: what capture.json says of them.
        queue_frames: so many frames may wait: 45 are 1.5 s at 30 frames a second, and 150 MB with 720p colour.
        writers: threads that encode and write. One keeps up with 30 frames a second (see docs/capture.md); the second
            bridges a slow write.
        jpeg_quality: of colour that does not come as JPEG.

    Raises:
        OutputError: something is in the way, or the disk does not take it.
        RecordingError, CameraError: a sensor or gravity that a reader would refuse.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sensor: Sensor,
        *,
        gravity_world: NDArray[np.float64] | None = None,
        device: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
        queue_frames: int = 45,
        writers: int = 2,
        jpeg_quality: int = 95,
    ) -> None:
        check_sensor(sensor)
        self.path, self.sensor = Path(path), sensor
        self.counts, self.clock = Counts(), CaptureClock()
        self.problem: str | None = None
        """why it stopped writing; None while it writes"""
        self.views: list[dict[str, Any]] = []
        self.spans: dict[int, tuple[int, int]] = {}
        """by view, the numbers of its first and last frame"""
        self._device, self._settings, self._notes = dict(device or {}), dict(settings or {}), list(notes)
        self._settings |= {"queue_frames": queue_frames, "writers": writers, "jpeg_quality": jpeg_quality}
        self._quality = jpeg_quality
        self._lock = threading.Lock()
        self._queue: queue.Queue[_Job | None] = queue.Queue(queue_frames)
        self._done: dict[int, str | None] = {}
        self._next, self._places, self._row_bytes = 0, 0, 0
        self._number: tuple[int, int] | None = None
        self._told_at = time.monotonic()
        self._reserved = False
        gravity = description.check_gravity("gravity_world", gravity_world)
        try:
            self._rows = self._begin(gravity)
        except OSError as problem:
            raise OutputError(str(path), "a place to write to", problem.strerror or str(problem)) from None
        self._threads = [threading.Thread(target=self._work, name=f"writer-{i}", daemon=True) for i in range(writers)]
        for thread in self._threads:
            thread.start()

    # what the reading thread calls

    def offer(self, captured: Captured, *, wanted: bool = True, view: int | None = None) -> int | None:
        """Takes a frame, at once: it is queued, or dropped and counted.

        Args:
            wanted: it shall be recorded; else it is counted as not asked for.
            view: of a guided capture, whose first and last frame are kept in `spans`.

        Returns:
            Its number in the recording; None where it was dropped.
        """
        with self._lock:
            counts = self.counts
            index = counts.read
            counts.read += 1
            if not math.isfinite(captured.depth_time_s):
                counts.drop(Cause.BROKEN, index, self.clock.now_s)
                return None
            time_s = self.clock.instant(captured.depth_time_s, captured.arrived_s)
            color_s = self.clock.of_color(captured.color_time_s)
            cause = self._refusal(captured, index, time_s, wanted)
            if cause is None and time_s is not None:
                try:
                    self._queue.put_nowait(_Job(self._places, index, time_s, color_s, captured))
                    self._places += 1
                except queue.Full:
                    cause = Cause.QUEUE_FULL
            if cause is not None:
                counts.drop(cause, index, self.clock.now_s)
                return None
            if view is not None:
                first = self.spans.get(view, (index, index))[0]
                self.spans[view] = (first, index)
        return index

    @property
    def waiting(self) -> int:
        """Frames that are read and neither written nor dropped yet."""
        return self._places - self._next

    def mark_view(self, view: Mapping[str, Any]) -> None:
        """Notes a view of a guided capture: its number, heading, first and last index."""
        with self._lock:
            self.views.append(dict(view))

    def finish(self, ended: str) -> Counts:
        """Writes what waits, and closes. A folder without a single frame is taken away again.

        Args:
            ended: why it ended, for capture.json.
        """
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
        if self._rows >= 0:
            os.close(self._rows)
            self._rows = -1
            if not self.counts.written:
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self._release()
                self._tell(finished=True, ended=self.problem or ended)
        return self.counts

    # the parts of it

    def _begin(self, gravity: NDArray[np.float64] | None) -> int:
        if os.path.lexists(self.path):
            raise OutputError(str(self.path), "a name that is free", "something in its place")
        if not self.path.parent.is_dir():
            raise OutputError(str(self.path), "a parent folder that exists", f"no folder {self.path.parent}")
        self.path.mkdir()
        try:
            for kind in ("depth", "color") if self.sensor.color_camera else ("depth",):
                (self.path / self.sensor.name / kind).mkdir(parents=True)
            write_text(self.path / description.FILE, description_text([self.sensor], gravity))
            (self.path / RESERVE_FILE).write_bytes(os.urandom(RESERVE_BYTES))  # no file system packs it
            self._reserved = True
            write_text(self.path / CAPTURE_FILE, self._document(finished=False, ended=""))
            name = self.sensor.name
            columns = ["index", "timestamp_s", f"{name}.depth_s"]
            columns += [f"{name}.color_s"] if self.sensor.color_camera else []
            rows = os.open(self.path / timeline.FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            header = ",".join(columns) + "\n"
            os.write(rows, header.encode())
            self._row_bytes = len(header)
            return rows
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _refusal(self, captured: Captured, index: int, time_s: float | None, wanted: bool) -> Cause | None:
        """Why a frame is not even queued; called under the lock."""
        if captured.number is not None:
            before, self._number = self._number, (captured.number, index)
            if before is not None and captured.number > before[0] + 1:
                self.counts.lose(captured.number - before[0] - 1, index, self.clock.now_s)
        if time_s is None:
            return Cause.REPEATED
        if not wanted:
            return Cause.NOT_ASKED
        if self.problem is not None:
            return Cause.DISK
        full = self._row_bytes + LONGEST_ROW * (self.waiting + 1) > timeline.MAX_FILE_BYTES
        if index > timeline.MAX_INDEX or full:
            return Cause.TOO_LONG
        camera, color = self.sensor.depth_camera, self.sensor.color_camera
        if captured.depth.dtype != np.uint16 or captured.depth.shape != (camera.height, camera.width):
            return Cause.BROKEN
        if isinstance(captured.color, np.ndarray) and (
            color is None or captured.color.shape != (color.height, color.width, 3) or captured.color.dtype != np.uint8
        ):
            return Cause.BROKEN
        return None

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            cause: Cause | None = Cause.DISK
            if self.problem is None:
                try:
                    self._write_images(job)
                    cause = None
                except OSError as problem:
                    self._stop_writing(problem)
                except Exception:  # whatever an encoder throws costs its frame, and no more
                    cause = Cause.ENCODER
            self._commit(job, cause)

    def _write_images(self, job: _Job) -> None:
        folder, name = self.path / self.sensor.name, f"{job.index:06d}"
        written: list[Path] = []
        try:
            color = job.captured.color if self.sensor.color_camera else None
            if color is not None:
                data = color if isinstance(color, bytes) else encoded_color(color, self._quality)
                written.append(folder / "color" / f"{name}.jpg")
                write_whole(written[-1], data)
            # what is behind hurries: larger files rather than lost frames
            hurry = self._queue.qsize() > self._queue.maxsize // HURRY_PART
            data = encoded_depth(job.captured.depth, packed=not hurry)
            with self._lock:
                self.counts.unpacked += hurry
            written.append(folder / "depth" / f"{name}.png")
            write_whole(written[-1], data)
        except BaseException:
            for file in written:
                file.unlink(missing_ok=True)
            raise

    def _commit(self, job: _Job, cause: Cause | None) -> None:
        """Puts down the lines of all frames that are done, in their order."""
        with self._lock:
            line = None
            if cause is None:
                times = [repr(job.time_s), repr(job.time_s)]
                if self.sensor.color_camera:
                    times.append("" if job.color_s is None else repr(job.color_s))
                line = ",".join([str(job.index), *times]) + "\n"
            else:
                self.counts.drop(cause, job.index, job.time_s)
            self._done[job.place] = line
            while self._next in self._done:
                line = self._done.pop(self._next)
                self._next += 1
                if line is None:
                    continue
                if self._append(line.encode()):
                    self.counts.written += 1
                else:
                    self.counts.drop(Cause.DISK, int(line.split(",")[0]), float(line.split(",")[1]))
            if time.monotonic() - self._told_at > TELL_EVERY_S:
                self._told_at = time.monotonic()
                self._tell(finished=False, ended="")

    def _append(self, row: bytes) -> bool:
        """A line of frames.csv, whole or not at all; where the disk is full the reserve is given back first."""
        for attempt in range(2):
            try:
                if os.write(self._rows, row) == len(row):
                    self._row_bytes += len(row)
                    return True
                problem: OSError = OSError(0, "a line was cut short")
            except OSError as refused:
                problem = refused
            os.ftruncate(self._rows, self._row_bytes)
            os.lseek(self._rows, self._row_bytes, os.SEEK_SET)
            self._stop_writing(problem)
            if attempt == 0:
                self._release()
        return False

    def _stop_writing(self, problem: OSError) -> None:
        if self.problem is None:
            self.problem = f"the disk does not take any more: {problem.strerror or problem}"
        self._release()

    def _release(self) -> None:
        if self._reserved:
            self._reserved = False
            (self.path / RESERVE_FILE).unlink(missing_ok=True)

    def _tell(self, *, finished: bool, ended: str) -> None:
        """Replaces capture.json; where the disk does not take it, the one before stays."""
        file = self.path / CAPTURE_FILE
        try:
            write_whole(file, self._document(finished=finished, ended=ended).encode())
        except OSError as problem:
            if finished:
                # an unfinished mark on a closed recording costs nothing: all lines have their ends
                self.problem = self.problem or f"{file.name} could not be brought up to date: {problem.strerror}"

    def _document(self, *, finished: bool, ended: str) -> str:
        clock = {"first_device_s": self.clock.first_s, "jumps": self.clock.jumps, "events": self.clock.events}
        return capture_text(
            self.counts, finished=finished, ended=ended, device=self._device, settings=self._settings,
            notes=self._notes, clock=clock, views=self.views,
        )  # fmt: skip


def check_sensor(sensor: Sensor) -> None:
    """Refuses before the first frame what a reader would refuse afterwards.

    Raises:
        RecordingError: a name or unit that is none. CameraError: transforms and lenses that make no sense.
    """
    sensor.check("sensor")
    check_invertible("sensor.depth_camera", sensor.depth_camera)
    if sensor.color_camera is not None:
        check_invertible("sensor.color_camera", sensor.color_camera)


def encoded_depth(counts: NDArray[np.uint16], *, packed: bool = True) -> bytes:
    """A 16-bit PNG file.

    Packed by run lengths alone it takes 14 ms of a core for 640×576 and 310 kB; level 3 takes 31 ms for 300 kB. Not
    packed it takes 2 ms and 740 kB.
    """
    import cv2

    options = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    if not packed:
        options = [cv2.IMWRITE_PNG_COMPRESSION, 0]
        if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # OpenCV before 4.12 filters all the same, which takes 8 ms
            options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    ok, data = cv2.imencode(".png", counts, options)
    if not ok:
        raise ValueError("depth was not encoded")
    return data.tobytes()


def encoded_color(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG file."""
    import cv2

    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError("colour was not encoded")
    return data.tobytes()


def write_whole(file: Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    temporary = file.parent / f".{file.name}.part"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
