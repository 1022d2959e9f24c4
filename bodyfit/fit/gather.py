"""Jobs of many fits gathered into batches for one device.

Whoever asks waits; one thread owns the device, takes what has come and can be in one batch, and hands each its own
result. Where nobody else has asked lately nothing is waited for, so that a fit alone loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bodyfit.errors import DeviceLostError, DeviceMemoryError
from bodyfit.fit.device import WAIT_S, Backend, CpuBackend, DescendJob, Descent, LinearizeJob, SolveJob
from bodyfit.fit.problem import Linearization, Problem
from bodyfit.fit.solver import Solution, solve_here
from bodyfit.watch import checkpoint

RECENT_S = 0.25
"""who asked within so long is taken to ask again soon"""
LOOK_S = 0.02
"""how often who waits looks whether the result is still wanted"""
SOLVE, LINEARIZE, DESCEND = "solve", "linearize", "descend"


@dataclass(frozen=True)
class GatherCounts:
    """What was done until now.

    Attributes:
        batches: calls of the backend that gave results.
        jobs: jobs that those had.
        largest: jobs of the largest.
        splits: how often a batch did not fit into the memory and was halved.
        on_cpu: jobs that did not fit alone.
    """

    batches: int = 0
    jobs: int = 0
    largest: int = 0
    splits: int = 0
    on_cpu: int = 0


@dataclass(eq=False)
class _Asked:
    """A job, who waits for it, and what came of it."""

    kind: str
    key: Hashable
    job: Any
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None
    too_large: bool = False
    withdrawn: bool = False

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        self.result, self.error = result, error
        self.done.set()


class Gatherer:
    """Implements `bodyfit.fit.device.Solver` over a backend, for any number of threads.

    Args:
        backend: what does a batch.
        wait_s: how long a job waits for others, while there are others that asked lately.
        most: jobs of one batch at most.
    """

    def __init__(self, backend: Backend, *, wait_s: float = WAIT_S, most: int = 256) -> None:
        self._backend, self._wait_s, self._most = backend, wait_s, most
        self._changed = threading.Condition()
        self._queue: list[_Asked] = []
        self._askers: dict[int, float] = {}
        self._thread: threading.Thread | None = None
        self._lost: DeviceLostError | None = None
        self._closed = False
        self._counts = [0] * 5

    @property
    def name(self) -> str:
        """As the backend's."""
        return self._backend.name

    @property
    def counts(self) -> GatherCounts:
        """What was done until now."""
        with self._changed:
            return GatherCounts(*self._counts)

    def takes(self, problem: Problem) -> bool:
        """As the backend's."""
        return self._backend.takes(problem)

    def solve(self, job: SolveJob) -> Solution:
        """Waits for the solution; a job that is cancelled before its batch begins ends as `solve_here` ends it.

        Raises:
            DeviceLostError: the device does not answer any more.
        """
        found = self._ask(SOLVE, job, job.cancelled)
        if found is None:
            return solve_here(job.problem, job.state, iterations=job.iterations, cancelled=lambda: True)
        return found

    def linearize(self, job: LinearizeJob) -> Linearization:
        """Waits for the equations.

        Raises:
            DeviceLostError: the device does not answer any more.
        """
        return self._ask(LINEARIZE, job, None)

    def descend(self, job: DescendJob) -> Descent:
        """Waits for the end.

        Raises:
            DeviceLostError: the device does not answer any more.
        """
        return self._ask(DESCEND, job, None)

    def close(self) -> None:
        """Ends the thread once its batch is done; who waits gets a DeviceLostError."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _ask(self, kind: str, job: Any, cancelled: Callable[[], bool] | None) -> Any:
        """The result; None for a job that is cancelled."""
        asked = _Asked(kind, self._backend.key(job.problem), job)
        with self._changed:
            if self._closed:
                raise DeviceLostError(f"{self.name}: closed")
            if self._lost is not None:
                raise DeviceLostError(*self._lost.args)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"bodyfit-{self.name}", daemon=True)
                self._thread.start()
            self._askers[threading.get_ident()] = time.monotonic()
            self._queue.append(asked)
            self._changed.notify_all()
        try:
            while not asked.done.wait(LOOK_S):
                checkpoint()
                if cancelled is not None and cancelled() and self._withdraw(asked):
                    return None
        except BaseException:
            self._withdraw(asked)
            raise
        if asked.too_large:
            # in the thread of who asked: the device's goes on
            return _alone(CpuBackend(), kind, job)
        if isinstance(asked.error, DeviceLostError):
            # one of his own for each: an exception that many raise collects the frames, and so the jobs, of all
            raise DeviceLostError(*asked.error.args)
        if asked.error is not None:
            raise asked.error
        return None if asked.withdrawn else asked.result

    def _withdraw(self, asked: _Asked) -> bool:
        """Takes a job out, if its batch has not begun."""
        with self._changed:
            if asked in self._queue:
                self._queue.remove(asked)
                return True
            return False

    # the device's thread

    def _work(self) -> None:
        while True:
            batch = self._next()
            if not batch:
                return
            try:
                self._do([asked for asked in batch if self._wanted(asked)])
            except DeviceLostError as error:
                self._lose(error, batch)
                return

    @staticmethod
    def _wanted(asked: _Asked) -> bool:
        """Whether a job is still to be done; who asked is told if not. What a job's own question raises is its own."""
        try:
            if asked.kind != SOLVE or asked.job.cancelled is None or not asked.job.cancelled():
                return True
        except Exception as error:
            asked.end(error=error)
            return False
        asked.withdrawn = True
        asked.end()
        return False

    def _next(self) -> list[_Asked]:
        """Jobs that can be one batch; none: closed."""
        with self._changed:
            # all of them may be withdrawn while others are waited for
            while not self._queue and not self._closed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                end = time.monotonic() + self._wait_s
                while not self._closed and self._queue and (left := end - time.monotonic()) > 0:
                    if len(self._queue) >= min(self._most, self._num_recent()):
                        break
                    self._changed.wait(left)
            if self._closed:
                self._thread = None
                error = DeviceLostError(f"{self.name}: closed")
                for asked in self._queue:
                    asked.end(error=error)
                self._queue.clear()
                return []
            first = self._queue[0]
            batch = [a for a in self._queue if (a.kind, a.key) == (first.kind, first.key)][: self._most]
            self._queue = [a for a in self._queue if a not in batch]
            return batch

    def _num_recent(self) -> int:
        now = time.monotonic()
        self._askers = {who: at for who, at in self._askers.items() if now - at < RECENT_S}
        return len(self._askers)

    def _do(self, batch: Sequence[_Asked]) -> None:
        """Does a batch; halves it where the memory is too small, and tries each alone where one of them is bad."""
        if not batch:
            return
        try:
            results = getattr(self._backend, batch[0].kind)([a.job for a in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{self.name}: {len(results)} results of {len(batch)} jobs")
        except DeviceMemoryError:
            if len(batch) == 1:
                self._count(on_cpu=1)
                batch[0].too_large = True
                batch[0].end()
                return
            self._count(splits=1)
            half = len(batch) // 2
            self._do(batch[:half])
            self._do(batch[half:])
            return
        except DeviceLostError:
            raise
        except Exception as error:
            if len(batch) == 1:
                batch[0].end(error=error)
                return
            for asked in batch:
                self._do([asked])
            return
        self._count(batches=1, jobs=len(batch), largest=len(batch))
        for asked, result in zip(batch, results, strict=True):
            asked.end(result)

    def _count(self, *, batches: int = 0, jobs: int = 0, largest: int = 0, splits: int = 0, on_cpu: int = 0) -> None:
        with self._changed:
            old = self._counts
            self._counts = [
                old[0] + batches, old[1] + jobs, max(old[2], largest), old[3] + splits, old[4] + on_cpu
            ]  # fmt: skip

    def _lose(self, error: DeviceLostError, batch: Sequence[_Asked]) -> None:
        with self._changed:
            self._lost, self._thread = error, None
            for asked in (*batch, *self._queue):
                if not asked.done.is_set():
                    asked.end(error=error)
            self._queue.clear()


def _alone(backend: Backend, kind: str, job: Any) -> Any:
    return getattr(backend, kind)([job])[0]
