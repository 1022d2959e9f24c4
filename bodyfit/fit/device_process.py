"""A process that owns a device and solves for many others: one per device, so that all of their jobs share batches.

`device_main` is what the process runs; `RemoteSolver` is who asks it, in as many processes and threads as there are.
Between them is a Unix socket in a folder that nobody else may enter. A process that asks and dies takes nothing with
it; when the device's process dies, who asks gets a `DeviceLostError`, until another one listens at the same address.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from bodyfit.errors import BodyfitError, DeviceError, DeviceLostError, InputError
from bodyfit.fit.blas import one_blas_thread
from bodyfit.fit.device import LOST, WAIT_S, Backend, CpuBackend, DescendJob, Descent, LinearizeJob, SolveJob
from bodyfit.fit.device_wire import MOST_BYTES, Incoming, Outgoing, Unknown
from bodyfit.fit.gather import DESCEND, LINEARIZE, LOOK_S, SOLVE, Gatherer
from bodyfit.fit.problem import Linearization, Problem
from bodyfit.fit.solver import Solution
from bodyfit.watch import checkpoint

GATHERED = "cpu-gathered"
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EINTR)
"""why a connection is not accepted now, and the next may be"""
ASKS = {SOLVE: SolveJob, LINEARIZE: LinearizeJob, DESCEND: DescendJob}


def backend_for(device: str) -> Backend:
    """cuda or cuda:N; or cpu-gathered, the CPU's launchers in the place of a device, which cpu-gathered:K lets have
    memory for K jobs at once.

    Raises:
        DeviceError: there is no such device.
        MissingExtraError: what it needs is not installed.
    """
    if device == GATHERED:
        return CpuBackend()
    if device.startswith(GATHERED + ":"):
        jobs = device.partition(":")[2]
        if not jobs.isdecimal() or int(jobs) < 1:
            raise DeviceError("device", f"{GATHERED} or {GATHERED}:JOBS", repr(device))
        return CpuBackend(most_jobs=int(jobs))
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdecimal()):
        raise DeviceError("device", "cuda or cuda:N", repr(device))
    from bodyfit.fit.cuda_backend import CudaBackend

    return CudaBackend(device)


def device_main(address: str, device: str, ready: Connection, wait_s: float = WAIT_S) -> None:
    """Owns the device and serves whoever connects, until it is killed, the device is lost (exit status 4) or who
    started it is gone, however that went.

    Sends `ready` one message: b"ready" once kernels are compiled and a first fit has been right, or b"unfit" and why
    not, and ends then.
    """
    import signal

    from bodyfit.fit.device_warmup import warm_up

    threading.Thread(target=_end_with_parent, daemon=True).start()

    # who started this decides when it ends: a Ctrl-C goes to the whole group of processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        backend = backend_for(device)
        warm_up(backend)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        listener = Listener(address, "AF_UNIX", backlog=64)
    except Exception as error:
        ready.send_bytes(f"unfit {error}".encode())
        raise SystemExit(1) from None
    ready.send_bytes(b"ready")
    # as a fit does in its own process: how many threads BLAS has decides the last bits
    with one_blas_thread():
        DeviceServer(backend, wait_s).serve(listener)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went: nobody would ever end it, and its
    device's memory would be gone for good."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


class DeviceServer:
    """One gatherer over a backend, and a thread for each connection."""

    def __init__(self, backend: Backend, wait_s: float = WAIT_S) -> None:
        self.gatherer, self._incoming, self._backend = Gatherer(backend, wait_s=wait_s), Incoming(), backend

    def serve(self, listener: Listener) -> None:
        """Until the listener is closed."""
        while True:
            try:
                connection = listener.accept()
            except EOFError:
                continue
            except OSError as error:
                if error.errno not in FULL:
                    return
                time.sleep(LOOK_S)
                continue
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: Any) -> None:
        outgoing = Outgoing()
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                try:
                    taken = self._incoming.take(connection.recv_bytes(MOST_BYTES))
                except Unknown as unknown:
                    _send(connection, outgoing, {"what": "unknown", "names": unknown.names})
                    continue
                except InputError as error:
                    # whoever sends this is none of ours
                    _send(connection, outgoing, {"what": "failed", "kind": "input", "text": str(error)})
                    return
                if taken is not None and taken[0].get("what") != "cancel":
                    self._answer(connection, outgoing, *taken)

    def _answer(self, connection: Any, outgoing: Outgoing, header: dict[str, Any], job: Any) -> None:
        what = header.get("what")
        try:
            if what == "counts":
                _send(connection, outgoing, {"what": "counts", "counts": self._counts()})
            elif what in ASKS and isinstance(job, ASKS[what]):
                result = getattr(self, f"_{what}")(connection, job)
                _send(connection, outgoing, {"what": "done"}, result)
            else:
                raise InputError("message", f"one of {', '.join(ASKS)}, counts, cancel", repr(what))
        except DeviceLostError as error:
            with contextlib.suppress(OSError):
                _send(connection, outgoing, {"what": "failed", "kind": "lost", "text": str(error)})
            # nothing in this process can be trusted with the device any more
            os._exit(LOST)
        except Exception as error:
            kind = "input" if isinstance(error, BodyfitError) else "bug"
            text = str(error) if kind == "input" else f"{type(error).__name__}: {error}"
            _send(connection, outgoing, {"what": "failed", "kind": kind, "text": text})

    def _solve(self, connection: Any, job: SolveJob) -> Solution:
        """The gatherer asks now and then whether the job is still wanted: not, once anything comes, or nobody is
        there."""

        def cancelled() -> bool:
            try:
                return connection.poll()
            except OSError:
                return True

        return self.gatherer.solve(SolveJob(job.problem, job.state, job.iterations, cancelled))

    def _linearize(self, connection: Any, job: LinearizeJob) -> Linearization:
        del connection
        return self.gatherer.linearize(job)

    def _descend(self, connection: Any, job: DescendJob) -> Descent:
        del connection
        return self.gatherer.descend(job)

    def _counts(self) -> dict[str, int]:
        c = self.gatherer.counts
        memory = getattr(self._backend, "memory_bytes", None)
        return {
            "batches": c.batches, "jobs": c.jobs, "largest": c.largest, "splits": c.splits, "on_cpu": c.on_cpu,
            "memory_bytes": memory() if memory is not None else 0,
        }  # fmt: skip


def _send(connection: Any, outgoing: Outgoing, header: dict[str, Any], value: Any = None) -> None:
    for message in outgoing.message(header, value):
        connection.send_bytes(message)


class RemoteSolver:
    """Implements `bodyfit.fit.device.Solver` by asking a device's process; each thread has a connection of its own.

    Args:
        address: where the process listens.
        name: what results say they were made on.
    """

    def __init__(self, address: str, name: str) -> None:
        self.address, self._name = address, name
        self._own = threading.local()
        self._incoming = Incoming()

    @property
    def name(self) -> str:
        """The device's."""
        return self._name

    def takes(self, problem: Problem) -> bool:
        """As `CudaBackend.takes`: what has colours or moving sensors stays here."""
        from bodyfit.fit.follow import Expected

        return (
            type(problem) in (Problem, Expected) and not problem.colors and not problem.pulls and len(problem.items) > 0
        )

    def solve(self, job: SolveJob) -> Solution:
        """Waits for the solution.

        Raises:
            DeviceLostError: the process is gone, or its device.
        """
        return self._ask(SOLVE, job, job.cancelled)

    def linearize(self, job: LinearizeJob) -> Linearization:
        """Waits for the equations; raises as `solve`."""
        return self._ask(LINEARIZE, job, None)

    def descend(self, job: DescendJob) -> Descent:
        """Waits for the end; raises as `solve`."""
        return self._ask(DESCEND, job, None)

    def counts(self) -> dict[str, int]:
        """What the process has done: batches, jobs, largest, splits, on_cpu, memory_bytes.

        Raises:
            DeviceLostError: it is gone.
        """
        header, _ = self._talk("counts", None, None)
        return {str(k): int(v) for k, v in header["counts"].items()}

    def _ask(self, what: str, job: Any, cancelled: Callable[[], bool] | None) -> Any:
        return self._talk(what, job, cancelled)[1]

    def _talk(self, what: str, job: Any, cancelled: Callable[[], bool] | None) -> tuple[dict[str, Any], Any]:
        try:
            for _ in range(3):
                connection, outgoing = self._connection()
                _send(connection, outgoing, {"what": what}, job)
                header, value = self._answer(connection, outgoing, cancelled)
                if header.get("what") != "unknown":
                    break
                outgoing.forget([str(n) for n in header["names"]])
            else:
                raise DeviceLostError(f"{self._name}: what it is sent does not stay there")
        except (EOFError, OSError) as error:
            self._hang_up()
            raise DeviceLostError(f"{self._name}: its process is gone ({type(error).__name__})") from None
        except BaseException:
            # an answer may still come that nobody wants
            self._hang_up()
            raise
        if header["what"] != "failed":
            return header, value
        self._hang_up()
        if header["kind"] == "lost":
            raise DeviceLostError(header["text"])
        raise RuntimeError(f"{self._name}: {header['text']}")

    def _answer(
        self, connection: Connection, outgoing: Outgoing, cancelled: Callable[[], bool] | None
    ) -> tuple[dict[str, Any], Any]:
        told = False
        while True:
            while not connection.poll(LOOK_S):
                checkpoint()
                if not told and cancelled is not None and cancelled():
                    told = True
                    _send(connection, outgoing, {"what": "cancel"})
            taken = self._incoming.take(connection.recv_bytes(MOST_BYTES))
            if taken is not None:
                return taken

    def _connection(self) -> tuple[Any, Outgoing]:
        if (idle := getattr(self._own, "connection", None)) is not None and idle.poll():
            # nothing is to be told between two jobs: the process has ended, and another may listen there by now
            self._hang_up()
        if getattr(self._own, "connection", None) is None:
            self._own.connection, self._own.outgoing = Client(self.address, "AF_UNIX"), Outgoing()
        return self._own.connection, self._own.outgoing

    def _hang_up(self) -> None:
        connection = getattr(self._own, "connection", None)
        self._own.connection = None
        if connection is not None:
            connection.close()
