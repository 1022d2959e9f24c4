"""A worker process: decodes frames, fits them, packs the answer. What goes wrong in here costs one request.

A fit worker does one job after the other; a track worker follows several live streams, one instant at a time. Both
load the body model and pass a fit of the shipped recording before they say that they are ready: so kernels are compiled
and the library is known to work.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from ctypes import c_longlong
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from bodyfit_service.limits import Limits
from bodyfit_service.message import Message, read_shared, receive, send

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.device import Solver
    from bodyfit.fit.device_process import RemoteSolver
    from bodyfit.fit.track import Tracker
    from bodyfit.fit.track_config import TrackConfig
    from bodyfit_service.frames_wire import InstantDecoder

FIT, TRACK = "fit", "track"
PROGRESS_EVERY_S = 0.1


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is started with; plain data, since it goes to a new process.

    Attributes:
        role: FIT or TRACK.
        model: name of the default body model, the shipped one where empty.
        threads: of one fit.
        memory_bytes: of private memory that it may take; 0 for any.
        limits: of images and messages.
        device: what the inner loop is computed on, as results name it.
        device_address: where the process listens that owns it; empty: fits compute here.
        failover: whether they do while that process is away.
    """

    role: str
    model: str
    threads: int
    memory_bytes: int
    limits: Limits
    device: str = "cpu"
    device_address: str = ""
    failover: bool = False


class Stopped(BaseException):
    """The front wants nothing of this job any more."""


def main(pipe: Connection, stop: c_longlong, setup: WorkerSetup) -> None:
    """Runs until the pipe is closed."""
    # the front decides when a worker ends: a Ctrl-C or a drain goes to the whole group of processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if setup.memory_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (setup.memory_bytes, setup.memory_bytes))
    worker = Worker(pipe, stop, setup)
    try:
        worker.prepare()
        while True:
            worker.take(receive(pipe))
    except (EOFError, OSError):
        return


class Worker:
    """What a worker knows between jobs."""

    def __init__(self, pipe: Connection, stop: c_longlong, setup: WorkerSetup) -> None:
        self.pipe, self.stop, self.setup = pipe, stop, setup
        self._models: dict[str, BodyModel] = {}
        self._streams: dict[int, tuple[Tracker, InstantDecoder]] = {}
        self._remote = _remote_of(setup)

    def prepare(self) -> None:
        """Compiles, loads, and fits the shipped recording; says that it is ready, or why not, and ends then."""
        began = time.perf_counter()
        try:
            self._test()
        except Exception as problem:
            send(self.pipe, Message("unfit", 0, {"why": "".join(traceback.format_exception(problem))[-4000:]}))
            raise SystemExit(1) from None
        send(self.pipe, Message("ready", 0, {"seconds": time.perf_counter() - began}))

    def _test(self) -> None:
        from bodyfit_service.selftest import fit_shipped, follow_shipped

        if self.setup.role == TRACK:
            follow_shipped(self.model(""), self._track_config())
        else:
            fit_shipped(self.model(""), self._fit_config(), frames=[0])

    def _fit_config(self) -> FitConfig:
        from bodyfit.fit.config import FitConfig

        return FitConfig(threads=self.setup.threads, solver=self._solver())

    def _solver(self) -> Solver | None:
        """Who is asked by one fit or stream; None for fits on the CPU."""
        if self._remote is None or not self.setup.failover:
            return self._remote
        from bodyfit.fit.failover import FailoverSolver

        return FailoverSolver(self._remote)

    def _track_config(self) -> TrackConfig:
        from bodyfit.fit.track_config import TrackConfig

        fit = self._fit_config()
        config = TrackConfig(fit=fit)
        return replace(config, search=replace(config.search, solver=fit.solver))

    def model(self, name: str) -> BodyModel:
        """A body model by its name, which is never a path; kept once it was read.

        Raises:
            ModelFileError: no such model.
        """
        from bodyfit_service.models import default_name, named_model

        name = name or default_name(self.setup.model)
        if name not in self._models:
            self._models[name] = named_model(name)
        return self._models[name]

    # jobs

    def take(self, message: Message) -> None:
        """Does what the front wants; answers in any case, unless the job was withdrawn."""
        do: dict[str, Callable[[Message], Message]] = {
            "fit": self._fit, "measure": self._measure, "open": self._open, "frame": self._frame,
        }  # fmt: skip
        if message.what == "close":
            self._streams.pop(message.number, None)
            return
        number = message.number
        try:
            answer = do[message.what](message)
        except Stopped:
            answer = Message("stopped", number)
        except MemoryError:
            # what numpy could not have, the next native call may not survive: a fresh process is the sure way
            send(self.pipe, Message("dying", number, {"why": "out of memory"}))
            os._exit(1)
        except Exception as problem:
            answer = self._failed(number, message.values.get("request_id", ""), problem)
        send(self.pipe, answer)

    def _failed(self, number: int, request_id: str, problem: Exception) -> Message:
        from bodyfit.errors import BodyfitError
        from bodyfit_service.status import status_of

        values = {}
        if not isinstance(problem, BodyfitError):
            values["traceback"] = "".join(traceback.format_exception(problem))[-20_000:]
        return Message("failed", number, values, status_of(problem, request_id).SerializeToString())

    def _watch(self, message: Message) -> Callable[[float | None], None]:
        number, tell = message.number, bool(message.values.get("progress"))
        steps, told = 0, 0.0

        def watch(cost: float | None) -> None:
            nonlocal steps, told
            if self.stop.value >= number:
                raise Stopped
            if cost is None:
                return
            steps += 1
            now = time.perf_counter()
            if tell and now - told > PROGRESS_EVERY_S:
                told = now
                send(self.pipe, Message("step", number, {"step": steps, "cost": cost if cost < 1e300 else None}))

        return watch

    def _fit(self, message: Message) -> Message:
        from bodyfit.fit.fit import fit
        from bodyfit.watch import watched
        from bodyfit_protos.v1 import bodyfit_pb2 as pb
        from bodyfit_service.frames_wire import make_recording
        from bodyfit_service.options import fit_arguments
        from bodyfit_service.outputs import result_with_outputs

        clock = _Clock()
        watch = self._watch(message)
        request = pb.FitRequest.FromString(_handed(message))
        recording = make_recording(request.header, request.instants, self.setup.limits)
        clock.lap("transfer")

        def progress(stage: str, fraction: float) -> None:
            watch(None)
            if message.values.get("progress"):
                send(self.pipe, Message("stage", message.number, {"stage": stage, "fraction": fraction}))

        with watched(watch):
            watch(None)
            body = self.model(request.options.model)
            result = fit(
                recording, model=body, config=self._fit_config(), progress=progress, **fit_arguments(request.options)
            )
            clock.lap("fit")
            payload = result_with_outputs(result, request.outputs).SerializeToString()
            clock.lap("pack")
        return Message("done", message.number, {"times": clock.laps, "converged": result.converged}, payload)

    def _measure(self, message: Message) -> Message:
        from bodyfit.watch import watched
        from bodyfit_protos.v1 import bodyfit_pb2 as pb
        from bodyfit_service.outputs import measured

        request = pb.MeasureRequest.FromString(_handed(message))
        with watched(self._watch(message)):
            answer = measured(request, self.model(request.model))
        return Message("done", message.number, {}, answer.SerializeToString())

    # live streams

    def _open(self, message: Message) -> Message:
        from bodyfit.fit.track import Tracker
        from bodyfit_protos.v1 import bodyfit_pb2 as pb
        from bodyfit_service.frames_wire import InstantDecoder, check_header, gravity_of
        from bodyfit_service.options import track_arguments

        start = pb.TrackStart.FromString(message.payload)
        sensors = check_header(start.header, self.setup.limits, "start.header")
        tracker = Tracker(
            self.model(start.model),
            config=self._track_config(),
            gravity_world=gravity_of(start.header),
            **track_arguments(start),
        )
        self._streams[message.number] = tracker, InstantDecoder(sensors, self.setup.limits)
        return Message("opened", message.number)

    def _frame(self, message: Message) -> Message:
        from bodyfit.errors import InputError
        from bodyfit.watch import watched
        from bodyfit_protos.v1 import bodyfit_pb2 as pb
        from bodyfit_service.results_wire import estimate_message

        clock = _Clock()
        tracker, decoder = self._streams[message.number]
        instant = pb.Instant.FromString(_handed(message))
        clock.lap("transfer")
        watch = self._watch_stream(message.number)
        try:
            frames = decoder.frames(instant)
            clock.lap("decode")
            with watched(watch):
                estimate = tracker.update(frames, index=instant.index)
            clock.lap("fit")
            answer = pb.TrackResponse(estimate=estimate_message(estimate))
        except InputError as problem:
            error = pb.InstantError(index=instant.index, field=problem.field, description=str(problem))
            answer = pb.TrackResponse(error=error)
        return Message("estimate", message.number, {"times": clock.laps}, answer.SerializeToString())

    def _watch_stream(self, number: int) -> Callable[[float | None], None]:
        def watch(_cost: float | None) -> None:
            if self.stop.value == number:
                self._streams.pop(number, None)
                raise Stopped

        return watch


def _remote_of(setup: WorkerSetup) -> RemoteSolver | None:
    """Who asks the device's process; None for fits on the CPU."""
    if not setup.device_address:
        return None
    from bodyfit.fit.device_process import RemoteSolver

    return RemoteSolver(setup.device_address, setup.device)


def _handed(message: Message) -> bytes:
    """What the front put into shared memory for a job.

    Raises:
        Stopped: it is gone: the job was withdrawn before it was begun.
    """
    try:
        return read_shared(message.values)
    except FileNotFoundError:
        raise Stopped from None


class _Clock:
    """Milliseconds by part."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + 1e3 * (now - self._last)
        self._last = now


__all__ = ["FIT", "TRACK", "WorkerSetup", "main"]
