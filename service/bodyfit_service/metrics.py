"""What the server counts and times, as Prometheus reads it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bodyfit.errors import InputError, MissingExtraError
from bodyfit_service.settings import split_address

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger("bodyfit.service")

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STAGES = ("queue", "transfer", "fit", "pack", "track_transfer", "track_decode", "track_fit")


DEVICE_GAUGES = {
    "batches": "Batches that a device's process has done since its start.",
    "jobs": "Jobs that those had.",
    "largest": "Jobs of the largest batch.",
    "splits": "Batches that were halved since they did not fit into the memory.",
    "on_cpu": "Jobs that did not fit alone and were the CPU's.",
    "memory_bytes": "Memory of the device that its process holds.",
}


class Metrics:
    """Counters, gauges and histograms in a registry of their own.

    What is told of devices is absent where fits compute on the CPU, which is not the same as 0.
    """

    def __init__(self, version: str = "") -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("prometheus-client", "service", "the service's metrics") from None

        self.registry: CollectorRegistry = prometheus.CollectorRegistry()

        def make(kind: Any, name: str, text: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
            return kind(f"bodyfit_{name}", text, labels, registry=self.registry, **more)

        counter, gauge, histogram = prometheus.Counter, prometheus.Gauge, prometheus.Histogram
        self._requests = make(
            counter, "requests_total", "Calls that ended, by method and gRPC code.", ("method", "code")
        )
        self._request_s = make(
            histogram, "request_seconds", "From a call's arrival to its end.", ("method",), buckets=SECONDS
        )
        self._stage_s = make(
            histogram,
            "stage_seconds",
            "What the time of a fit or a followed instant is.",
            ("stage",),
            buckets=SECONDS,
        )
        self._open = make(gauge, "open_calls", "Calls that are being answered.", ("method",))
        self._queue = make(gauge, "queue_length", "Fits that wait for a worker.")
        self._queue_size = make(gauge, "queue_size", "Fits that may wait for a worker.")
        self._drops = make(counter, "dropped_instants_total", "Instants of live streams that a newer one overtook.")
        self._restarts = make(
            counter, "worker_restarts_total", "Worker processes that were replaced, by reason.", ("role", "reason")
        )
        self._ready = make(gauge, "workers_ready", "Worker processes for fits that are loaded and tested.")
        self._busy = make(gauge, "workers_busy", "Worker processes that fit now.")
        self._streams = make(gauge, "streams", "Live streams that are being followed.")
        self._uploads = make(gauge, "upload_bytes", "Memory that recordings take that are being received.")
        self._serving = make(gauge, "serving", "1 while health says SERVING, else 0.")
        self._device: dict[str, Any] = {}
        self._gauge = lambda name, text, labels: make(gauge, name, text, labels)
        make(prometheus.Info, "build", "Version of bodyfit.").info({"version": version})
        prometheus.ProcessCollector(registry=self.registry)
        # what has not happened yet is 0, not absent: rates and alerts begin with the first event
        for stage in STAGES:
            self._stage_s.labels(stage)

    def call_began(self, method: str) -> None:
        """A call of this method (its short name, or "unknown") arrived."""
        self._open.labels(method).inc()

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """It ended with this gRPC code after so long."""
        self._open.labels(method).dec()
        self._requests.labels(method, code).inc()
        self._request_s.labels(method).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A fit (or, track_…, a followed instant) spent so long in this stage."""
        self._stage_s.labels(name).observe(seconds)

    def drops(self, instants: int) -> None:
        """Instants of a live stream were overtaken."""
        self._drops.inc(instants)

    def restarted(self, role: str, reason: str) -> None:
        """A worker of this role (fit, track) had to be replaced: `signal 9`, `exit status 1`, never a message."""
        self._restarts.labels(role, reason).inc()

    def observe(self, *, queued: int, busy: int, ready: int, streams: int, upload_bytes: int) -> None:
        """How it stands now: fits that wait, workers that fit and that can, live streams, bytes of recordings."""
        self._queue.set(queued)
        self._busy.set(busy)
        self._ready.set(ready)
        self._streams.set(streams)
        self._uploads.set(upload_bytes)

    def queue_size(self, size: int) -> None:
        """So many fits may wait."""
        self._queue_size.set(size)

    def serving(self, yes: bool) -> None:
        """What health says."""
        self._serving.set(1 if yes else 0)

    def device(self, name: str, counts: Mapping[str, int]) -> None:
        """What a device's process has done since it was started; the gauges are there from the first call on."""
        if not self._device:
            self._device = {key: self._gauge(f"device_{key}", text, ("device",)) for key, text in DEVICE_GAUGES.items()}
        for key, gauge in self._device.items():
            gauge.labels(name).set(counts[key])

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()


def serve_metrics(metrics: Metrics, address: str) -> Callable[[], None]:
    """Answers GET /metrics at HOST:PORT in a thread; returns what ends it.

    Raises:
        InputError: the address cannot be listened at.
    """
    from prometheus_client import start_http_server

    host, port = split_address(address, "metrics_address")
    try:
        server, _ = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as e:
        raise InputError("metrics_address", "an address that is free", f"{address}: {e.strerror or e}") from None
    log.info("metrics", extra={"address": host, "port": server.server_port})

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
