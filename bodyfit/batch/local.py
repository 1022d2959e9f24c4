"""Workers of a batch on this machine: processes that fit one recording after the other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bodyfit.batch.work import Outcome, Task, do
from bodyfit.errors import DeviceLostError
from bodyfit.fit.device_host import DeviceHost

LOOK_EVERY_S = 0.5


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    since_s: float = 0.0
    device_start: int = 0


class LocalEngine:
    """So many processes, each of which does one task at a time.

    A process that dies, by itself or because a task took too long, costs that task this attempt; another takes its
    place. When the process that made the engine is gone, however it went, its workers end too.

    Args:
        workers: how many.
        limit_s: seconds that a task may take.
        progress: called with a task's name, what is done in it, and its fraction.
        device: what computes. Anything but cpu is a process of its own, which all workers ask: what several of them
            need at the same time is done together.

    Raises:
        DeviceError: the device cannot be used.
    """

    def __init__(
        self,
        workers: int,
        limit_s: float,
        progress: Callable[[str, str, float], None] | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        self._host = None if device == "cpu" else DeviceHost(device)
        if self._host is not None:
            try:
                self._host.start_and_wait()
            except BaseException:
                self._host.close()
                raise
        self._context = multiprocessing.get_context("spawn")
        self._limit_s, self._progress = limit_s, progress
        self._workers = [self._start() for _ in range(workers)]

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            _end(worker)
        if self._host is not None:
            self._host.close()

    @property
    def free(self) -> int:
        """How many more tasks can be begun now."""
        return sum(worker.task is None for worker in self._workers)

    @property
    def busy(self) -> int:
        """How many tasks are being done."""
        return len(self._workers) - self.free

    def begin(self, task: Task) -> None:
        """Gives a task to a worker that is free."""
        n, worker = next((n, worker) for n, worker in enumerate(self._workers) if worker.task is None)
        if not worker.process.is_alive():
            # it died while it had nothing to do, which is no attempt of this task
            _end(worker)
            self._workers[n] = worker = self._start()
        if self._host is not None:
            if not self._host.alive:
                # it was lost, and tasks with it, which are tried again
                self._host.start_and_wait()
            task = replace(task, device_address=self._host.address)
            worker.device_start = self._host.starts
        worker.task, worker.since_s = task, time.monotonic()
        try:
            worker.pipe.send(task)
        except OSError:
            return  # it died just now; `ended` sees that, and the task is tried again

    def ended(self) -> Iterator[Outcome]:
        """Waits a little, and gives what has ended by then."""
        waiting: list[Any] = [worker.pipe for worker in self._workers if worker.task is not None]
        ready = wait(waiting, timeout=LOOK_EVERY_S) if waiting else []
        for n, worker in enumerate(self._workers):
            task = worker.task
            if task is None:
                continue
            seconds = time.monotonic() - worker.since_s
            said = _received(worker) if worker.pipe in ready else ("", 0.0)
            if isinstance(said, Outcome):
                worker.task = None
                if said.error == DeviceLostError.__name__:
                    self._give_up_device(worker.device_start)
                yield said
                continue
            if said is None:
                worker.process.join(5)
                kind, why = "WorkerDied", _death(worker.process.exitcode)
            elif seconds > self._limit_s:
                kind, why = "TimeLimit", f"took longer than {self._limit_s:g} s"
            else:
                if said[0] and self._progress is not None:
                    self._progress(task.name, *said)
                continue
            _end(worker)
            self._workers[n] = self._start()
            yield Outcome(task.name, "failed", seconds, kind, why)

    def _give_up_device(self, start: int) -> None:
        """Ends a device's process that a worker lost, if no other has taken its place: it may take seconds to die, in
        which all attempts of a task would go to it."""
        if self._host is not None and self._host.starts == start and self._host.process is not None:
            self._host.process.kill()
            self._host.process.join(10)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _received(worker: _Worker) -> Outcome | tuple[str, float] | None:
    """What a worker said: an outcome or its progress; None where it is gone."""
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        return None


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"the worker ended with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    hint = ": out of memory, or killed by hand" if name == "SIGKILL" else ""
    return f"the worker was ended by {name}{hint}"


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join(10)
    worker.pipe.close()


def _work(pipe: Connection, parent: int) -> None:
    """A worker's life."""
    # Ctrl-C goes to the whole group of processes; the parent decides what becomes of tasks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    last = 0.0

    def say(stage: str, fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > LOOK_EVERY_S:
            last = now
            with contextlib.suppress(OSError):
                pipe.send((stage, fraction))

    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = do(task, say)
        try:
            pipe.send(outcome)
        except OSError:
            return


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: what it would write belongs to nobody, and another batch may be at it
    by then."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
