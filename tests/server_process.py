"""A real server in a process of its own, on the loopback, for the tests of the service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_S = 180.0
SERVING = health_pb2.HealthCheckResponse.SERVING


class ServerProcess:
    """`bodyfit serve` with some flags; use it in a `with`.

    Attributes:
        address: HOST:PORT.
        logs: what it logged, one record a line.
    """

    def __init__(self, *flags: str, address: str = "127.0.0.1:0", wait: bool = True, **environment: str) -> None:
        command = [sys.executable, "-m", "bodyfit.cli.main", "serve", "--address", address, "--metrics-address", ""]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment}
        self.process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        self.logs: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.printed: list[str] = []
        self._listening = threading.Event()
        self.address = ""
        for stream, take in ((self.process.stdout, self._printed), (self.process.stderr, self._logged)):
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()
        if wait:
            self.wait_serving()

    def _read(self, stream: Any, take: Any) -> None:
        for line in stream:
            take(line.rstrip("\n"))
        self._listening.set()

    def _printed(self, line: str) -> None:
        self.printed.append(line)
        if line.startswith("listening on "):
            self.address = line.removeprefix("listening on ")
            self._listening.set()

    def _logged(self, line: str) -> None:
        self.lines.append(line)
        try:
            record = json.loads(line)
        except ValueError:
            return
        if isinstance(record, dict):
            self.logs.append(record)

    def wait_listening(self) -> str:
        """Waits for the port."""
        self._listening.wait(START_S)
        assert self.address, self.told()
        return self.address

    def wait_serving(self) -> None:
        """Waits until health says SERVING."""
        self.wait_listening()
        with grpc.insecure_channel(self.address) as channel:
            wait_for(lambda: self.process.poll() is not None or status(channel) == SERVING, START_S)
        assert self.process.poll() is None, self.told()

    def told(self) -> str:
        """All it said."""
        return "\n".join([f"exit {self.process.poll()}", *self.printed[-30:], *self.lines[-30:]])

    def records(self, message: str) -> list[dict[str, Any]]:
        """What it logged with that message."""
        return [r for r in list(self.logs) if r.get("message") == message]

    def worker_pid(self, name: str) -> int:
        """Of the worker of that name which became ready last."""
        return [int(r["pid"]) for r in self.records("worker ready") if r["worker"] == name][-1]

    def signal(self, number: int) -> None:
        """Sends the server a signal."""
        os.kill(self.process.pid, number)

    def stop(self) -> int:
        """Ends it as an operator does; its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server does not end:\n{self.told()}") from None

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def status(channel: grpc.Channel) -> int | None:
    """What health says; None where nobody answers."""
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)  # pyright: ignore[reportAttributeAccessIssue]
        return answer.status
    except grpc.RpcError:
        return None


def wait_for(true: Any, seconds: float, every: float = 0.02) -> bool:
    """Whether it became true in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(every)
    return bool(true())


DEMO = Path(__file__).resolve().parents[1] / "bodyfit" / "data" / "demo"
