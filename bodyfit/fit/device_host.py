"""Starts the process that owns a device, and starts it again when it has died: for a batch's workers and a server's."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from bodyfit.errors import DeviceError
from bodyfit.fit.device import WAIT_S

READY_S = 600.0
"""kernels that were never compiled take minutes"""


class DeviceHost:
    """One device's process, and the address at which it listens, which stays the same over restarts.

    Args:
        device: cuda, cuda:N, cpu-gathered or cpu-gathered:K (`bodyfit.fit.device_process.backend_for`).
        wait_s: how long a job waits for others, while there are others that asked lately.
    """

    def __init__(self, device: str, *, wait_s: float = WAIT_S) -> None:
        self.device, self._wait_s = device, wait_s
        # a short path: a socket's may have no more than a hundred characters
        self._folder = Path(tempfile.mkdtemp(prefix="bodyfit-"))
        self.address = str(self._folder / "device")
        self._process: BaseProcess | None = None
        self._says: Connection | None = None
        self.starts = 0

    def __enter__(self) -> DeviceHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process(self) -> BaseProcess | None:
        """The process, once it was started."""
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process runs; it need not be ready yet."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Starts the process; `ready` waits for it."""
        from bodyfit.fit.device_process import device_main

        context = multiprocessing.get_context("spawn")
        self._end()
        ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=device_main, args=(self.address, self.device, theirs, self._wait_s), name=f"bodyfit-{self.device}",
            daemon=True,
        )  # fmt: skip
        self._process.start()
        theirs.close()
        self._says = ours
        self.starts += 1

    def ready(self, timeout_s: float = READY_S) -> bool:
        """Whether it is ready, by then at the latest.

        Raises:
            DeviceError: the device cannot be used, or the process died before it was ready.
        """
        if self._says is None:
            return self.alive
        if not self._says.poll(timeout_s):
            return False
        says, self._says = self._says, None
        try:
            said = says.recv_bytes().decode()
        except (EOFError, OSError):
            said = "unfit its process ended"
        finally:
            says.close()
        if said != "ready":
            raise DeviceError("device", "one that can be used", f"{self.device!r}: {said.removeprefix('unfit ')}")
        return True

    def start_and_wait(self) -> None:
        """Starts it and waits until it is ready.

        Raises:
            DeviceError: it cannot be used, or is not ready in ten minutes.
        """
        self.start()
        if not self.ready():
            raise DeviceError("device", f"one that is ready within {READY_S:g} s", repr(self.device))

    def kill(self) -> None:
        """Ends the process at once; `start` makes another."""
        if self._process is not None:
            self._process.kill()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._process = None
        if self._says is not None:
            self._says.close()
            self._says = None
        with contextlib.suppress(FileNotFoundError):
            Path(self.address).unlink()

    def close(self) -> None:
        """Ends it."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)
