"""One capture: a thread reads the sensor and hands each frame on; whoever looks at frames takes the newest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bodyfit.capture.recorder import Recorder
from bodyfit.capture.source import Captured, Source
from bodyfit.errors import BodyfitError, DeviceError

READ_S = 0.2
SILENT_S = 5.0
"""a sensor that gives nothing for so long is lost: the slowest start up within two seconds"""
RATE_FRAMES = 30


@dataclass(frozen=True)
class Newest:
    """The frame that came last.

    Attributes:
        count: how many came before it. index: its number in the recording, None where it is not in it.
    """

    count: int
    index: int | None
    captured: Captured


class Session:
    """Reads a started source until it is stopped, has run its time, or ends.

    Args:
        source: was started.
        recorder: takes the frames; None: nothing is written.
        seconds: from the first frame on; None: until it is stopped.
        on_frame: is called with every frame in the reading thread, and must not wait.
    """

    def __init__(
        self,
        source: Source,
        *,
        recorder: Recorder | None = None,
        seconds: float | None = None,
        on_frame: Callable[[int, Captured], None] | None = None,
    ) -> None:
        self.source, self.recorder = source, recorder
        self.wanted = True
        """whether frames are recorded at present"""
        self.view: int | None = None
        """of a guided capture, which view they belong to"""
        self.ended = ""
        """why it ended"""
        self.problem: BodyfitError | None = None
        """the device's, where it was lost"""
        self.read = 0
        self.over = threading.Event()
        self._seconds, self._on_frame = seconds, on_frame
        self._newest: Newest | None = None
        self._came = threading.Condition()
        self._recent: list[float] = []
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self, why: str) -> None:
        """Ends it, and waits for the reading thread."""
        self.ended = self.ended or why
        self.over.set()
        with self._came:
            self._came.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def newest(self, after: int = -1, timeout_s: float = 0.0) -> Newest | None:
        """The frame that came last, if its count is above `after`; waits for one that long."""
        with self._came:
            self._came.wait_for(lambda: self.over.is_set() or self._is_after(after), timeout_s)
            return self._newest if self._is_after(after) else None

    @property
    def rate_hz(self) -> float:
        """Frames a second, over the last second or so."""
        recent = self._recent[-RATE_FRAMES:]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    def _is_after(self, count: int) -> bool:
        return self._newest is not None and self._newest.count > count

    def _run(self) -> None:
        try:
            self._read_all()
        except BodyfitError as problem:
            self.problem, self.ended = problem, self.ended or str(problem)
        except Exception as problem:  # a maker's package throws what it likes; the recording is closed all the same
            self.problem = DeviceError(self.source.kind, "a sensor that gives frames", f"{problem}"[:200])
            self.ended = self.ended or str(self.problem)
        finally:
            self.over.set()
            with self._came:
                self._came.notify_all()

    def _read_all(self) -> None:
        heard = time.monotonic()
        began: float | None = None
        while not self.over.is_set():
            captured = self.source.read(READ_S)
            now = time.monotonic()
            if captured is None:
                if self.source.ended:
                    self.ended = self.ended or "the source has no more frames"
                    return
                if now - heard > SILENT_S:
                    raise DeviceError(self.source.kind, "a sensor that gives frames", f"none for {SILENT_S:g} s")
                continue
            heard = now
            began = now if began is None else began
            if self._seconds is not None and now - began >= self._seconds:
                self.ended = self.ended or "its time was over"
                return
            self._hand_on(captured)
            if self.recorder is not None and self.recorder.problem is not None:
                self.ended = self.ended or self.recorder.problem
                return

    def _hand_on(self, captured: Captured) -> None:
        index = None
        if self.recorder is not None:
            index = self.recorder.offer(captured, wanted=self.wanted, view=self.view)
        if self._on_frame is not None:
            self._on_frame(self.read, captured)
        with self._came:
            self._newest = Newest(self.read, index, captured)
            self._came.notify_all()
        self.read += 1
        self._recent.append(captured.arrived_s)
        del self._recent[:-RATE_FRAMES]
