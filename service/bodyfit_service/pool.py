"""The worker processes as the front sees them: who is ready, who does what, who has to be replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bodyfit_service.errors import QueueFullError, WorkerDiedError
from bodyfit_service.message import Message, Shared, receive, send
from bodyfit_service.worker import FIT, TRACK, WorkerSetup, main

log = logging.getLogger("bodyfit.service.pool")

UNRESPONSIVE_S = 5.0
"""a worker that does not answer so long after its job was withdrawn is killed"""
LONGEST_BACKOFF_S = 30.0
USUAL_FIT_S = 5.0
"""what a fit is taken to last before any has ended"""

ANSWERS = ("done", "opened", "estimate")
"""messages that hold what was asked for"""
Progress = Callable[[Message], None]


class RefusedError(Exception):
    """A worker refused a request, or failed at it.

    Attributes:
        status: serialized google.rpc.Status.
        traceback: where a bug of ours is to blame.
    """

    def __init__(self, status: bytes, traceback: str | None) -> None:
        super().__init__("refused by a worker")
        self.status, self.traceback = status, traceback


def answer_of(message: Message) -> bytes:
    """What a worker's answer holds.

    Raises:
        RefusedError: it says no.
        WorkerDiedError: it stopped though nobody had asked it to, or says what no worker does.
    """
    if message.what == "failed":
        raise RefusedError(message.payload, message.values.get("traceback"))
    if message.what not in ANSWERS:
        raise WorkerDiedError(f"the process that computed it gave it up ({message.what})")
    return message.payload


@dataclass(eq=False)
class Job:
    """Something that a fit worker is to do."""

    what: str
    number: int
    payload: bytes
    values: dict[str, Any]
    progress: Progress | None
    answer: asyncio.Future[Message]
    asked: float = field(default_factory=time.perf_counter)
    started: float | None = None


class Worker:
    """One process, its pipe and the thread that listens to it."""

    def __init__(self, pool: Pool, setup: WorkerSetup, name: str) -> None:
        self.pool, self.setup, self.name = pool, setup, name
        self.ready = False
        self.job: Job | None = None
        self.memory: Shared | None = None
        self.streams: dict[int, LiveStream] = {}
        context = multiprocessing.get_context("spawn")
        # without a lock: a worker that is killed while it holds one would hold up the front for ever
        self.stop = context.RawValue("q", -1)
        ours, theirs = context.Pipe()
        self.pipe = ours
        self.process = context.Process(target=main, args=(theirs, self.stop, setup), name=name, daemon=True)
        self.process.start()
        theirs.close()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, name=f"{name}-listens", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return self.process.pid

    def _listen(self) -> None:
        try:
            while True:
                message = receive(self.pipe)
                self._loop.call_soon_threadsafe(self.pool.heard, self, message)
        except (EOFError, OSError, ValueError):
            pass
        self.process.join()
        with contextlib.suppress(RuntimeError):  # the front has ended
            self._loop.call_soon_threadsafe(self.pool.died, self)

    def say(self, message: Message) -> None:
        """Sends it, if anyone is there: a worker's end is noticed by who listens."""
        try:
            send(self.pipe, message)
        except OSError:
            log.debug("%s no longer listens", self.name)

    def kill(self) -> None:
        """At once."""
        if self.process.is_alive():
            self.process.kill()


class LiveStream:
    """A tracker in a track worker; one instant at a time."""

    def __init__(self, pool: Pool, worker: Worker, number: int) -> None:
        self.pool, self.worker, self.number = pool, worker, number
        self.answer: asyncio.Future[Message] | None = None
        self.memory: Shared | None = None

    async def ask(self, what: str, *, payload: bytes = b"", shared: bytes | None = None, request_id: str) -> Message:
        """Sends a message and waits for its answer.

        Raises:
            WorkerDiedError: the process ended.
        """
        if self.worker not in self.pool.track_workers:
            raise WorkerDiedError("the process that followed this stream ended")
        self.answer = asyncio.get_running_loop().create_future()
        self.memory = None if shared is None else Shared(shared)
        values = {"request_id": request_id, **({} if self.memory is None else self.memory.values)}
        self.worker.say(Message(what, self.number, values, payload))
        return await self.answer

    def heard(self, message: Message | None) -> None:
        """The answer, or None where there will be none."""
        if self.memory is not None:
            self.memory.free()
            self.memory = None
        if self.answer is not None and not self.answer.done():
            if message is None:
                self.answer.set_exception(WorkerDiedError("the process that followed this stream ended"))
            else:
                self.answer.set_result(message)

    def close(self) -> None:
        """The tracker is forgotten, also in the middle of an instant."""
        if self.worker.streams.pop(self.number, None) is None:
            return
        self.worker.stop.value = self.number
        self.worker.say(Message("close", self.number))
        # an instant under way may still be read by the worker: its name goes, its pages live as long as they are used
        if self.memory is not None:
            self.memory.free()
            self.memory = None


class Pool:
    """Fit workers with one bounded queue, and track workers with their streams.

    Args:
        setups: what each worker is started with.
        queue_size: so many jobs may wait.
        streams_per_worker: so many live streams share a track worker.
        on_restart: told (role, reason) when a worker has to be replaced.
        on_change: called when readiness or the queue's length may have changed.
        can_work: whether what a worker needs beside itself is there (its device); others get nothing to do.
    """

    def __init__(
        self,
        setups: list[WorkerSetup],
        *,
        queue_size: int,
        streams_per_worker: int,
        on_restart: Callable[[str, str], None],
        on_change: Callable[[], None],
        can_work: Callable[[WorkerSetup], bool] = lambda _setup: True,
    ) -> None:
        self._can_work = can_work
        self.queue_size, self.streams_per_worker = queue_size, streams_per_worker
        self._setups, self._on_restart, self._on_change = setups, on_restart, on_change
        self.workers: list[Worker] = []
        self.waiting: deque[Job] = deque()
        self._numbers = 0
        self._failures: dict[int, int] = {}
        self._ending = False
        self._usual_s = USUAL_FIT_S
        self._tasks: set[asyncio.Task[None]] = set()
        self.why_unfit = ""

    # workers

    def start(self) -> None:
        """Starts every worker; they say themselves when they are ready."""
        for slot, setup in enumerate(self._setups):
            self.workers.append(Worker(self, setup, f"{setup.role}-{slot}"))

    @property
    def fit_workers(self) -> list[Worker]:
        """Those for fits, ready or not."""
        return [w for w in self.workers if w.setup.role == FIT]

    @property
    def track_workers(self) -> list[Worker]:
        """Those for live streams, ready or not."""
        return [w for w in self.workers if w.setup.role == TRACK]

    @property
    def num_ready(self) -> int:
        """Fit workers that can take or do a job."""
        return sum(w.ready and self._can_work(w.setup) for w in self.fit_workers)

    @property
    def num_busy(self) -> int:
        """Fit workers that do one."""
        return sum(w.job is not None for w in self.fit_workers)

    @property
    def all_ready(self) -> bool:
        """Whether every worker has passed its test, and has what it needs."""
        return all(w.ready and self._can_work(w.setup) for w in self.workers) and len(self.workers) == len(self._setups)

    @property
    def num_streams(self) -> int:
        """Live streams."""
        return sum(len(w.streams) for w in self.track_workers)

    def heard(self, worker: Worker, message: Message) -> None:
        """What a worker says."""
        if message.what == "ready":
            worker.ready = True
            self._failures.pop(self._slot(worker), None)
            log.info(
                "worker ready",
                extra={"worker": worker.name, "pid": worker.pid, "seconds": round(message.values["seconds"], 2)},
            )
            self._dispatch()
        elif message.what == "unfit":
            self.why_unfit = str(message.values.get("why"))
            log.error("worker failed its test", extra={"worker": worker.name, "why": self.why_unfit})
        elif worker.setup.role == TRACK:
            stream = worker.streams.get(message.number)
            if stream is not None:
                stream.heard(message)
        else:
            self._heard_of_job(worker, message)
        self._on_change()

    def _heard_of_job(self, worker: Worker, message: Message) -> None:
        job = worker.job
        if job is None or job.number != message.number:
            return
        if message.what in ("step", "stage"):
            if job.progress is not None and not job.answer.done():
                job.progress(message)
            return
        if message.what == "dying":
            log.error("worker is out of memory", extra={"worker": worker.name})
            return  # its end comes next
        self._release(worker)
        if message.what == "done" and job.started is not None:
            self._usual_s += 0.2 * (time.perf_counter() - job.started - self._usual_s)
        if not job.answer.done():
            job.answer.set_result(message)
        self._dispatch()

    def died(self, worker: Worker) -> None:
        """A worker's process has ended: its job ends with it, and another takes its place."""
        slot = self._slot(worker)
        if slot < 0:
            return
        job, worker.ready = worker.job, False
        self._release(worker)
        if job is not None and not job.answer.done():
            job.answer.set_exception(WorkerDiedError(f"the process that computed it ended ({_how(worker)})"))
        streams, worker.streams = list(worker.streams.values()), {}
        for stream in streams:
            stream.heard(None)
        worker.pipe.close()
        if self._ending:
            self.workers.remove(worker)
            self._on_change()
            return
        failures = self._failures[slot] = self._failures.get(slot, 0) + 1
        log.error("worker died", extra={"worker": worker.name, "how": _how(worker)})
        self._on_restart(worker.setup.role, _how(worker))
        # who dies young dies again: not in a tight loop
        wait = 0.0 if failures == 1 else min(LONGEST_BACKOFF_S, 0.5 * 2.0**failures)
        self._spawn(self._replace(slot, worker, wait))
        self._on_change()

    async def _replace(self, slot: int, worker: Worker, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if not self._ending and self.workers[slot] is worker:
            self.workers[slot] = Worker(self, worker.setup, worker.name)

    def _slot(self, worker: Worker) -> int:
        return next((i for i, w in enumerate(self.workers) if w is worker), -1)

    # jobs

    def submit(self, what: str, payload: bytes, *, request_id: str, progress: Progress | None = None) -> Job:
        """Puts something into the queue for a fit worker to do; `result` waits for it.

        Raises:
            QueueFullError: too many wait already.
        """
        idle = any(w.ready and w.job is None and self._can_work(w.setup) for w in self.fit_workers)
        if not idle and len(self.waiting) >= self.queue_size:
            raise QueueFullError(f"{len(self.waiting)} requests wait already", retry_after_s=self.retry_after_s())
        self._numbers += 1
        values = {"request_id": request_id, "progress": progress is not None}
        job = Job(what, self._numbers, payload, values, progress, asyncio.get_running_loop().create_future())
        self.waiting.append(job)
        self._dispatch()
        self._on_change()
        return job

    async def result(self, job: Job) -> tuple[bytes, dict[str, float]]:
        """A job's answer and the milliseconds of its parts; to cancel the task that waits is to stop the job.

        Raises:
            RefusedError: the worker refused the request; carries the status.
            WorkerDiedError: the process that did it ended.
        """
        try:
            answer = await job.answer
        finally:
            self.withdraw(job)
        waited_s = (job.started or job.asked) - job.asked
        return answer_of(answer), {"queue": 1e3 * waited_s, **answer.values.get("times", {})}

    def retry_after_s(self) -> float:
        """After about so long there is room in the queue."""
        return max(0.5, self._usual_s / max(1, len(self.fit_workers)))

    def position(self, job: Job) -> int:
        """Its place in the queue, from 1; 0 where it does not wait."""
        return self.waiting.index(job) + 1 if job in self.waiting else 0

    def look_again(self) -> None:
        """What workers need has come or gone."""
        self._dispatch()
        self._on_change()

    def _dispatch(self) -> None:
        for worker in self.fit_workers:
            if not self.waiting:
                return
            if not worker.ready or worker.job is not None or not self._can_work(worker.setup):
                continue
            job = self.waiting.popleft()
            try:
                worker.memory = Shared(job.payload)
            except QueueFullError as problem:
                if not job.answer.done():
                    job.answer.set_exception(problem)
                continue
            worker.job = job
            job.started, job.payload = time.perf_counter(), b""
            worker.say(Message(job.what, job.number, {**job.values, **worker.memory.values}))

    def withdraw(self, job: Job) -> None:
        """Nobody wants it any more: it leaves the queue, or is stopped."""
        if job in self.waiting:
            self.waiting.remove(job)
            self._on_change()
            return
        for worker in self.fit_workers:
            if worker.job is job:
                worker.stop.value = job.number
                self._spawn(self._kill_unresponsive(worker, job))

    async def _kill_unresponsive(self, worker: Worker, job: Job) -> None:
        await asyncio.sleep(UNRESPONSIVE_S)
        if worker.job is job:
            log.error("worker does not stop", extra={"worker": worker.name})
            worker.kill()

    def _release(self, worker: Worker) -> None:
        worker.job = None
        if worker.memory is not None:
            worker.memory.free()
            worker.memory = None

    # live streams

    def open_stream(self) -> LiveStream:
        """A place for a live stream, in the track worker that has most room.

        Raises:
            QueueFullError: there is no room.
        """
        able = [w for w in self.track_workers if w.ready and self._can_work(w.setup)]
        free = [w for w in able if len(w.streams) < self.streams_per_worker]
        if not free:
            raise QueueFullError(f"{self.num_streams} streams are followed already", retry_after_s=5.0)
        worker = min(free, key=lambda w: len(w.streams))
        self._numbers += 1
        stream = worker.streams[self._numbers] = LiveStream(self, worker, self._numbers)
        return stream

    # end

    async def drain(self, grace_s: float) -> bool:
        """Waits until nothing waits or runs; False where the time was too short."""
        end = time.perf_counter() + grace_s
        while self.waiting or self.num_busy or self.num_streams:
            if time.perf_counter() > end:
                return False
            await asyncio.sleep(0.02)
        return True

    async def close(self) -> None:
        """Ends every worker, whatever it does."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        workers = list(self.workers)
        for worker in workers:
            if worker.job is not None:
                worker.stop.value = worker.job.number
            worker.kill()
        for worker in workers:
            await asyncio.to_thread(worker.process.join, UNRESPONSIVE_S)
            self._release(worker)
            for stream in list(worker.streams.values()):
                stream.heard(None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _how(worker: Worker) -> str:
    code = worker.process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
