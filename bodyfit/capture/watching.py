"""Looks at the newest frames while they are recorded: what to say to the person, and what the tracker makes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.capture.guidance import Advice, Sight, advise, look
from bodyfit.capture.session import Newest, Session
from bodyfit.capture.source import FrameMaker
from bodyfit.errors import BodyfitError
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_estimate import TrackEstimate, TrackState
from bodyfit.frame import Frame
from bodyfit.rotation import matrix_from_axis_angle

LOOKS_HZ = 5.0
"""a look takes 0.08 s of a core (640×576), a followed frame 0.015 s; the writer needs half a core at 30 frames/s"""

OLD_S = 0.7
"""an estimate that is older tells nothing of which way the person faces now"""


@dataclass(frozen=True, eq=False)
class Look:
    """What the last look found.

    Attributes:
        newest: the frame. frame: it, undistorted. sight, advice: what is seen. estimate: the tracker's, or None.
    """

    newest: Newest
    frame: Frame
    sight: Sight
    advice: tuple[Advice, ...]
    estimate: TrackEstimate | None


class Watcher:
    """Looks at a session's newest frame some times a second, in threads of its own.

    Args:
        session: was started.
        gravity_world: (3,) or None.
        model: body for the tracker, which tells which way the person faces; None: nobody is followed.
    """

    def __init__(
        self, session: Session, gravity_world: NDArray[np.float64] | None, model: BodyModel | None = None
    ) -> None:
        self._session, self._gravity = session, gravity_world
        self._lock = threading.Lock()
        self._maker = FrameMaker(session.source.sensor)
        self._tracker = None if model is None else Tracker(model, gravity_world=gravity_world)
        self.latest: Look | None = None
        self.problem: BaseException | None = None
        """why it looks no more, where something of it failed"""
        self._estimate: TrackEstimate | None = None
        self._threads = [threading.Thread(target=self._run, args=(self._look,), name="watch", daemon=True)]
        if self._tracker is not None:
            # a search takes seconds, in which advice goes on
            self._threads.append(threading.Thread(target=self._run, args=(self._follow,), name="follow", daemon=True))

    def start(self) -> None:
        """Begins to look."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Waits until it has ended, after the session has; not for a search that takes longer."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def _run(self, each: Callable[[Newest], None]) -> None:
        try:
            count = -1
            while not self._session.over.is_set():
                newest = self._session.newest(count, 0.5)
                if newest is None:
                    continue
                count = newest.count
                each(newest)
                self._session.over.wait(1 / LOOKS_HZ)
        except Exception as problem:  # advice is lost, the recording goes on
            self.problem = problem

    def _look(self, newest: Newest) -> None:
        frame, estimate = self._frame(newest), self._estimate
        turned = place = None
        if estimate is not None and abs(frame.timestamp_s - estimate.timestamp_s) > OLD_S:
            estimate = None
        if estimate is not None and estimate.state in (TrackState.FOUND, TrackState.TRACKED):
            turned, place = matrix_from_axis_angle(estimate.pose[0]), estimate.joints_world[0]
        before = None if self.latest is None else self.latest.sight
        sight = look(frame, self._gravity, before, root_rotation=turned, place_world=place)
        self.latest = Look(newest, frame, sight, advise(sight), estimate)

    def _follow(self, newest: Newest) -> None:
        assert self._tracker is not None
        # a frame without depth, or a device's clock that went back
        with suppress(BodyfitError):
            self._estimate = self._tracker.update([self._frame(newest, color=False)])

    def _frame(self, newest: Newest, *, color: bool = True) -> Frame:
        captured = newest.captured
        with self._lock:  # its lens tables are made once
            return self._maker.frame(captured, index=newest.count, timestamp_s=captured.depth_time_s, color=color)
