"""OpenTelemetry traces of calls, behind the extra `otel`; without an endpoint nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bodyfit.errors import MissingExtraError


class Traces:
    """Spans for calls and their stages.

    Args:
        endpoint: where spans go by OTLP over gRPC; empty: nowhere.
        exporter: takes the place of the one that sends, for tests.

    Raises:
        MissingExtraError: an endpoint is set and OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str = "", *, exporter: Any = None) -> None:
        self._tracer: Any = None
        if not endpoint and exporter is None:
            return
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise MissingExtraError("opentelemetry-sdk", "otel", "sending traces") from None
        self._provider = TracerProvider(resource=Resource.create({"service.name": "bodyfit"}))
        exporter = exporter or OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bodyfit_service")

    @contextmanager
    def call(self, method: str, metadata: Iterable[tuple[str, str | bytes]], request_id: str) -> Iterator[Any]:
        """A span around a call; it goes on with the trace that the client's `traceparent` names.

        Yields:
            The span, None without an endpoint.
        """
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {k: v for k, v in metadata if k in ("traceparent", "tracestate") and isinstance(v, str)}
        parent = TraceContextTextMapPropagator().extract(carrier)
        values = {"rpc.system": "grpc", "rpc.method": method, "bodyfit.request_id": request_id}
        with self._tracer.start_as_current_span(
            method, context=parent, kind=SpanKind.SERVER, attributes=values,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            yield span

    def stage(self, name: str, began_ns: int, ended_ns: int) -> None:
        """A part of the call that is current, by wall-clock nanoseconds (time.time_ns)."""
        if self._tracer is not None:
            self._tracer.start_span(name, start_time=began_ns).end(ended_ns)

    def ended(self, span: Any, code: str, caller: str) -> None:
        """What came of the call."""
        if span is None:
            return
        from opentelemetry.trace import StatusCode

        span.set_attribute("rpc.grpc.status_code", code)
        span.set_attribute("bodyfit.caller", caller)
        if code in ("INTERNAL", "UNKNOWN", "ABORTED", "UNAVAILABLE"):
            span.set_status(StatusCode.ERROR, code)

    def close(self) -> None:
        """Sends what is left."""
        if self._tracer is not None:
            self._provider.shutdown()
