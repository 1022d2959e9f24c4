"""Workers of a batch on a Ray cluster (extra `ray`): the same tasks, wherever Ray places them.

OUT has to be a folder that all machines of the cluster share; recordings are read from where the driver found them, or
fetched from object storage by the worker (`bodyfit.batch.remote`).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from bodyfit.batch.work import Outcome, Task, do
from bodyfit.errors import DeviceError, MissingExtraError

LOOK_EVERY_S = 0.5


class RayEngine:
    """At most so many tasks at a time on a cluster; a local one is started where no address is given.

    Args:
        workers: how many tasks at a time.
        limit_s: seconds that a task may take, from when a worker begins it: waiting for a place is not counted.
        address: of a running cluster, as `ray start` prints it; "" starts one on this machine.
        num_gpus: of each task, as Ray counts them; 0: tasks are placed by cores alone.

    Raises:
        MissingExtraError: Ray is not installed.
        DeviceError: the cluster cannot be reached or started.
    """

    def __init__(
        self,
        workers: int,
        limit_s: float,
        *,
        address: str = "",
        num_gpus: float = 0.0,
        progress: Callable[[str, str, float], None] | None = None,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "--engine ray") from None
        # a cluster that is started here reports to nobody
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray: Any = ray
        self._limit_s, self._workers, self._progress = limit_s, workers, progress
        where: dict[str, Any] = {"address": address} if address else {"num_cpus": workers}
        try:
            ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, **where)
        except Exception as problem:
            expected = "a Ray cluster that can be reached" if address else "a Ray cluster on this machine"
            raise DeviceError("--ray-address" if address else "--engine", expected, str(problem)[:400]) from None
        # a task that failed is tried again by the batch, which counts
        self._do = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=0)(_done)
        self._tasks: dict[Any, tuple[Task, float]] = {}

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    @property
    def free(self) -> int:
        """How many more tasks can be begun now."""
        return self._workers - len(self._tasks)

    @property
    def busy(self) -> int:
        """How many tasks are being done."""
        return len(self._tasks)

    def begin(self, task: Task) -> None:
        """Gives a task to the cluster."""
        self._tasks[self._do.remote(task, self._limit_s)] = task, time.monotonic()

    def ended(self) -> Iterator[Outcome]:
        """Waits a little, and gives what has ended by then."""
        if not self._tasks:
            return
        ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=LOOK_EVERY_S)
        for reference in ready:
            task, since = self._tasks.pop(reference)
            try:
                yield self._ray.get(reference)
            except self._ray.exceptions.RayError as problem:
                # the worker's process died, or its machine went away
                seconds = time.monotonic() - since
                kind, why = type(problem).__name__, (str(problem).splitlines() or [""])[0][:300]
                if kind == "WorkerCrashedError" and seconds >= self._limit_s:
                    kind, why = "TimeLimit", f"took longer than {self._limit_s:g} s, or its worker died"
                yield Outcome(task.name, "failed", seconds, kind, why)


def _done(task: Task, limit_s: float) -> Outcome:
    """Does a task in a worker of the cluster, which ends with it where it takes too long: an alarm that nobody handles
    ends a process whatever it hangs in."""
    try:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        return do(task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
