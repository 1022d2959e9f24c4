"""The server process: opens the port, keeps the workers, tells its health, and ends without losing what it accepted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health  # pyright: ignore[reportAttributeAccessIssue]
from grpc_reflection.v1alpha import reflection

from bodyfit import __version__
from bodyfit_service.answers import Doors
from bodyfit_service.device_pool import DevicePool
from bodyfit_service.interceptors import make_interceptors
from bodyfit_service.limits import Limits
from bodyfit_service.live import Live
from bodyfit_service.metrics import Metrics, serve_metrics
from bodyfit_service.pool import Pool
from bodyfit_service.servicer import SERVICE, Servicer
from bodyfit_service.tls import server_credentials
from bodyfit_service.upload import Uploads
from bodyfit_service.worker import FIT, TRACK, WorkerSetup

if TYPE_CHECKING:
    from bodyfit.fit.device_host import DeviceHost
    from bodyfit_service.settings import Settings

log = logging.getLogger("bodyfit.service")

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
LAST_WORDS_S = 1.0
"""so long answers that are ready may take to leave"""


def limits_of(settings: Settings) -> Limits:
    """What a request may hold."""
    return Limits(
        max_image_pixels=settings.max_image_pixels,
        max_instants=settings.max_instants,
        max_message_bytes=settings.max_message_bytes,
    )


def worker_setups(settings: Settings, devices: Sequence[DeviceHost] = ()) -> list[WorkerSetup]:
    """One for each worker process, each with one of the devices in turn."""
    roles = [FIT] * settings.num_fit_workers + [TRACK] * settings.track_workers
    memory = settings.worker_memory_mb << 20
    limits = limits_of(settings)
    plain = [WorkerSetup(role, settings.model, settings.threads_per_worker, memory, limits) for role in roles]
    return (
        [
            replace(setup, device=d.device, device_address=d.address, failover=settings.device_failover)
            for setup, d in zip(plain, itertools.cycle(devices), strict=False)
        ]
        if devices
        else plain
    )


def options_of(settings: Settings) -> list[tuple[str, int]]:
    """grpc's own settings: how long a message may be, and how a connection is noticed to be dead."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 4),
        # a second server on the same port would take half of the clients, unnoticed
        ("grpc.so_reuseport", 0),
    ]


class Server:
    """One server; `start`, then `wait`, and `drain` from a signal."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(__version__)
        self.metrics.queue_size(settings.queue_size)
        self.limits = limits_of(settings)
        self.devices = DevicePool(
            settings.devices,
            batch_s=1e-3 * settings.device_batch_ms,
            on_restart=self.metrics.restarted,
            on_change=self._devices_changed,
            on_counts=self.metrics.device,
        )
        if settings.device == "auto":
            log.info("device", extra={"asked": "auto", "chosen": ", ".join(settings.devices) or "cpu"})
        self.pool = Pool(
            worker_setups(settings, self.devices.hosts),
            queue_size=settings.queue_size,
            streams_per_worker=settings.streams_per_worker,
            on_restart=self.metrics.restarted,
            on_change=self._changed,
            can_work=lambda setup: settings.device_failover or self.devices.there(setup.device_address),
        )
        self.doors = Doors(settings.per_client)
        self.uploads = Uploads(settings, self.limits, self.pool, self.doors, self.metrics)
        live = Live(self.pool, self.limits, self.doors, self.metrics, settings.stream_idle_s)
        self.servicer = Servicer(settings, self.limits, self.pool, self.metrics, self.doors, self.uploads, live)
        self.health = health.HealthServicer()
        self._grpc: grpc.aio.Server | None = None
        self._metrics_server: Callable[[], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()
        self._told: int | None = None
        self.port = 0

    async def start(self) -> int:
        """Opens the port and starts the workers; health says when they are ready. Gives the port.

        Raises:
            InputError: an address that cannot be bound, or certificates that cannot be read.
        """
        from bodyfit.errors import InputError

        server = grpc.aio.server(
            interceptors=make_interceptors(self.settings, self.metrics), options=options_of(self.settings)
        )
        server.add_generic_rpc_handlers((self.servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
        credentials = server_credentials(self.settings)
        try:
            if credentials is None:
                self.port = server.add_insecure_port(self.settings.address)
            else:
                self.port = server.add_secure_port(self.settings.address, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise InputError("address", "an address and a free port of this machine", repr(self.settings.address))
        if self.settings.metrics_address:
            self._metrics_server = serve_metrics(self.metrics, self.settings.metrics_address)
        await self._tell(NOT_SERVING)
        self._grpc = server
        await server.start()
        self.devices.start()
        self._spawn(self._start_workers())
        self._spawn(self.uploads.forget_old())
        log.info("listening", extra={"address": self.settings.address, "port": self.port})
        return self.port

    async def _start_workers(self) -> None:
        """Their tests need the devices."""
        await self.devices.ready()
        if not self._draining.is_set():
            self.pool.start()

    def _devices_changed(self) -> None:
        self.pool.look_again()

    def _changed(self) -> None:
        pool = self.pool
        self.metrics.observe(
            queued=len(pool.waiting),
            busy=pool.num_busy,
            ready=pool.num_ready,
            streams=pool.num_streams,
            upload_bytes=self.uploads.num_bytes,
        )
        if self._draining.is_set():
            return
        # all workers the first time; afterwards one is enough: the others come back by themselves
        ready = pool.all_ready if self._told != SERVING else pool.num_ready > 0
        now = SERVING if ready else NOT_SERVING
        self.servicer.state = "SERVING" if ready else "STARTING"
        if now != self._told:
            self._told = now
            log.info("health", extra={"serving": ready})
            self._spawn(self._tell(now))

    async def _tell(self, status: int) -> None:
        self.metrics.serving(status == SERVING)
        for name in ("", SERVICE):
            await self.health.set(name, status)

    async def drain(self) -> bool:
        """Takes nothing new, finishes what was accepted, and ends; False where the grace period was too short."""
        if self._draining.is_set():
            await self._ended.wait()
            return True
        self._draining.set()
        self.servicer.state, self.doors.closed = "DRAINING", True
        await self._tell(NOT_SERVING)
        log.info("draining", extra={"queued": len(self.pool.waiting), "busy": self.pool.num_busy})
        done = await self.pool.drain(self.settings.grace_s)
        assert self._grpc is not None
        # what is left after the grace period is cancelled; answers that are ready leave first
        await self._grpc.stop(LAST_WORDS_S)
        await self.pool.close()
        await self.devices.close()
        for task in self._tasks:
            task.cancel()
        if self._metrics_server is not None:
            self._metrics_server()
        log.info("ended", extra={"nothing_lost": done})
        self._ended.set()
        return done

    async def wait(self) -> None:
        """Until it was drained."""
        await self._ended.wait()

    def _spawn(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(settings: Settings, started: Callable[[int], None]) -> int:
    server = Server(settings)
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[bool]] = []

    def drain() -> None:
        if not draining:
            draining.append(loop.create_task(server.drain()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    try:
        started(await server.start())
        await server.wait()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            if not draining:
                await server.pool.close()
                await server.devices.close()
    return 0 if await draining[0] else 1


def serve(settings: Settings, started: Callable[[int], None] = lambda _port: None) -> int:
    """Serves until SIGTERM or SIGINT; 0 where nothing that was accepted was lost, else 1.

    Args:
        settings: checked ones.
        started: called with the port once the server listens.

    Raises:
        InputError: an address that cannot be bound, or certificates that cannot be read.
    """
    return asyncio.run(_run(settings, started))
