"""Captured frames to a server while they come, and what it answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bodyfit.capture.source import Captured, FrameMaker, Source
from bodyfit.errors import BodyfitError

if TYPE_CHECKING:
    from bodyfit.frame import Frame
    from bodyfit_service.client import BodyFitClient
    from bodyfit_service.received import TrackAnswer

WAITING = 2
"""frames that may wait for the connection: a newer one is worth more than an old one"""
MEASURED_EVERY = 30
"""so many answers lie between two questions for the stature"""


class LiveTrack:
    """A live track through captured frames.

    Args:
        client: the connection; stays open.
        source: was started.
    """

    def __init__(self, client: BodyFitClient, source: Source) -> None:
        self._client, self._maker = client, FrameMaker(source.sensor)
        self._gravity = source.gravity_world
        self._frames: queue.Queue[tuple[int, Captured] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self.answers: list[TrackAnswer] = []
        self.stature: tuple[float, float] | None = None
        """metres and their standard deviation, as of late"""
        self.offered = self.not_sent = self.sent = 0
        self.problem: BodyfitError | None = None
        self.over = False
        self._stopped = False

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def offer(self, count: int, captured: Captured) -> None:
        """Takes a frame at once; the oldest that waits gives way, and is counted."""
        if self.over or self._stopped:
            return
        self.offered += 1
        while True:
            try:
                self._frames.put_nowait((count, captured))
                return
            except queue.Full:
                try:
                    self._frames.get_nowait()
                    self.not_sent += 1
                except queue.Empty:
                    continue

    def stop(self, timeout_s: float = 20.0) -> None:
        """Sends no more, and waits for the last answers."""
        if self._stopped:
            return
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._frames.put(None, timeout=0.5)
                break
            except queue.Full:
                continue
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def line(self) -> str:
        """How it stands, in one line."""
        if not self.answers:
            return "server: no answer yet"
        last = self.answers[-1]
        state = "refused" if last.estimate is None else last.estimate.state.name.lower()
        return f"server: {state}, {self._stature()}{len(self.answers)} answers, {self.dropped} frames dropped"

    @property
    def dropped(self) -> int:
        """Frames that were not followed: not sent, since newer ones came, or dropped by the server for the same."""
        return self.not_sent + max((a.dropped_in_all for a in self.answers), default=0)

    def document(self) -> dict[str, Any]:
        """For --json."""
        states = [a.estimate.state.name.lower() for a in self.answers if a.estimate is not None]
        return {
            "offered": self.offered,
            "sent": self.sent,
            "not_sent": self.not_sent,
            "answered": len(self.answers),
            "dropped_by_server": max((a.dropped_in_all for a in self.answers), default=0),
            "refused": sum(a.error is not None for a in self.answers),
            "states": {s: states.count(s) for s in ("found", "tracked", "coasting", "lost")},
            "stature_m": None if self.stature is None else round(self.stature[0], 4),
            "stature_sd_m": None if self.stature is None else round(self.stature[1], 4),
        }

    def sentences(self) -> list[str]:
        """The same for people."""
        d = self.document()
        states = ", ".join(f"{n} {state}" for state, n in d["states"].items() if n)
        lines = [
            f"server: {d['sent']} frames sent, {d['not_sent']} not sent (newer ones came), {d['answered']} answered "
            f"({states}), {d['dropped_by_server']} dropped there, {d['refused']} refused"
        ]
        return lines + ([f"stature {self._stature().rstrip(', ')}"] if self.stature else [])

    def _stature(self) -> str:
        if self.stature is None:
            return ""
        return f"{self.stature[0] * 100:.1f} ± {self.stature[1] * 100:.1f} cm tall, "

    def _instants(self) -> Iterator[Frame]:
        last = -np.inf
        while (item := self._frames.get()) is not None:
            count, captured = item
            # a device's clock that goes back is put right as in a recording: time has to rise
            time_s = captured.depth_time_s if captured.depth_time_s > last else last + 1e-3
            last = time_s
            self.sent += 1
            yield self._maker.frame(captured, index=count, timestamp_s=time_s)

    def _run(self) -> None:
        try:
            for answer in self._client.track(self._instants(), gravity_world=self._gravity):
                self.answers.append(answer)
                if answer.estimate is not None and len(self.answers) % MEASURED_EVERY == 1:
                    self._measure(answer)
            if self.answers and self.answers[-1].estimate is not None:
                self._measure(self.answers[-1])
        except BodyfitError as problem:
            self.problem = problem
        finally:
            self.over = True

    def _measure(self, answer: TrackAnswer) -> None:
        e = answer.estimate
        if e is None or e.state.name == "LOST" or not np.isfinite(e.betas_sd).all():
            return
        # an estimate carries no correlations: the stature's own sd is a little larger or smaller
        found = self._client.measure(e.betas, np.diag(e.betas_sd**2))["stature"]
        self.stature = (found.value_m, found.sd_m)
