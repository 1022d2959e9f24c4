"""What every call goes through before and after the servicer: id, token, limits, errors, log, metrics, trace.

Handlers find who calls in CALLER and the call's id in REQUEST_ID. What they raise becomes google.rpc.Status here, where
they have not made it one themselves.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2

from bodyfit.errors import InputError
from bodyfit_service.auth import Authenticator, Caller
from bodyfit_service.metrics import Metrics
from bodyfit_service.rates import Rates
from bodyfit_service.settings import Settings
from bodyfit_service.traces import Traces

log = logging.getLogger("bodyfit.service")

CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""who calls; None where no tokens are asked for"""
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""the call's id, as the client gave it or as it was made"""
ID_KEY = "x-request-id"
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN_TO_ALL = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""what is answered without a token: probes and balancers have none, and learn only whether the server is ready"""
UNKNOWN_METHOD = "unknown"
"""stands for every method that is not there: labels made of what strangers send would have no end"""

StatusOf = Callable[[BaseException, str], status_pb2.Status]


def make_interceptors(settings: Settings, metrics: Metrics) -> list[grpc.aio.ServerInterceptor]:
    """What a server with these settings puts around its methods.

    Raises:
        InputError: the file of tokens cannot be read or is wrong.
        MissingExtraError: traces are asked for and OpenTelemetry is not installed.
    """
    from bodyfit_service.status import status_of

    auth, traces = Authenticator(settings.tokens), Traces(settings.otel_endpoint)
    return [Interceptor(status_of, auth, Rates(), metrics, traces)]


@dataclass
class _Call:
    request_id: str
    method: str
    caller: str = ""
    code: str = "OK"
    error: BaseException | None = None
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class _Undecodable:
    """Stands for a message whose bytes are none of the method's."""


class _Context:
    """gRPC's context of a call; the call's id goes out with the first thing that does.

    A handler that sends initial metadata itself says with it that it took the call on.
    """

    def __init__(self, context: Any, request_id: str) -> None:
        self._context, self._request_id, self._told = context, request_id, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """As gRPC's; the id is added where it is not in it."""
        if not any(key == ID_KEY for key, _ in metadata):
            metadata = (*metadata, (ID_KEY, self._request_id))
        self._told = True
        await self._context.send_initial_metadata(metadata)

    async def tell_id(self) -> None:
        """Sends the id, unless it is sent."""
        if not self._told:
            await self.send_initial_metadata(())

    async def write(self, message: Any) -> None:
        """As gRPC's, after the id."""
        await self.tell_id()
        await self._context.write(message)


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of the server.

    Args:
        status_of: an exception and the call's id → google.rpc.Status (status.py's table).
        auth: who calls.
        rates: how often they may.
        metrics: counts calls.
        traces: spans.
    """

    def __init__(
        self,
        status_of: StatusOf,
        auth: Authenticator,
        rates: Rates,
        metrics: Metrics,
        traces: Traces | None = None,
    ) -> None:
        self._status_of, self._auth, self._rates = status_of, auth, rates
        self._metrics, self._traces = metrics, traces or Traces()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """The method's handler, wrapped; one that refuses where there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(self._one_answer(_not_there, UNKNOWN_METHOD))
        return self._wrapped(handler, handler_call_details.method)

    def _wrapped(self, handler: Any, method: str) -> grpc.RpcMethodHandler:
        words = ("unary", "stream")
        name = f"{words[handler.request_streaming]}_{words[handler.response_streaming]}"
        inner = getattr(handler, name)
        if inspect.isasyncgenfunction(inner):
            wrapped = self._many_answers(inner, method)
        elif inspect.iscoroutinefunction(inner):
            wrapped = self._one_answer(inner, method)
        else:
            raise TypeError(f"{method} is answered by a function that is not async")
        make = getattr(grpc, f"{name}_rpc_method_handler")
        return make(wrapped, _decoder(handler.request_deserializer), handler.response_serializer)

    def _one_answer(self, inner: Callable[..., Any], method: str) -> Callable[..., Any]:
        """Around a coroutine: it returns the one answer, or writes many to the context and returns None."""

        async def answer(request: Any, context: Any) -> Any:
            with self._one_call(method, context) as call:
                telling = _Context(context, call.request_id)
                try:
                    self._admit(method, context, call)
                    given = await inner(_checked(request), telling)
                    if given is not None:
                        await telling.tell_id()
                    call.code = _code_name(context.code())
                    return given
                except Exception as e:
                    await self._refuse(e, context, call)

        return answer

    def _many_answers(self, inner: Callable[..., Any], method: str) -> Callable[..., Any]:
        """Around an async generator of answers."""

        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._one_call(method, context) as call:
                telling = _Context(context, call.request_id)
                answers = None
                try:
                    self._admit(method, context, call)
                    answers = inner(_checked(request), telling)
                    async for given in answers:
                        await telling.tell_id()
                        yield given
                    call.code = _code_name(context.code())
                except Exception as e:
                    await self._refuse(e, context, call)
                finally:
                    # a generator that is left half-way would end when it is collected, whenever that is
                    if answers is not None:
                        await answers.aclose()

        return answer

    def _admit(self, method: str, context: Any, call: _Call) -> None:
        """Finds out who calls, and whether they may call now."""
        caller = None if method in OPEN_TO_ALL else self._auth.client_of(context.invocation_metadata())
        CALLER.set(caller)
        if caller is not None:
            call.caller = caller.name
            self._rates.begin(caller)

    @contextmanager
    def _one_call(self, method: str, context: Any) -> Iterator[_Call]:
        """Counts, times, traces and logs a call, however it ends."""
        metadata = [(str(key), value) for key, value in context.invocation_metadata() or ()]
        sent = [value for key, value in metadata if key == ID_KEY and isinstance(value, str) and ID.fullmatch(value)]
        call = _Call(sent[0] if sent else uuid.uuid4().hex, method)
        REQUEST_ID.set(call.request_id)
        short = method.rpartition("/")[2]
        self._metrics.call_began(short)
        with self._traces.call(short, metadata, call.request_id) as span:
            try:
                yield call
            except (asyncio.CancelledError, GeneratorExit):
                left = context.time_remaining()
                call.code = "DEADLINE_EXCEEDED" if left is not None and left <= 0 else "CANCELLED"
                raise
            finally:
                seconds = time.perf_counter() - call.began
                self._metrics.call_ended(short, call.code, seconds)
                self._traces.ended(span, call.code, call.caller)
                _log_call(call, seconds)

    async def _refuse(self, error: Exception, context: Any, call: _Call) -> None:
        """Ends the call with the status of the error, unless its handler has ended it."""
        if isinstance(error, grpc.aio.AbortError):
            call.code = _code_name(context.code())
            raise error
        status = self._status_of(error, call.request_id)
        call.code, call.error = code_pb2.Code.Name(status.code), error
        trailing = (
            *(context.trailing_metadata() or ()),
            ("grpc-status-details-bin", status.SerializeToString()),
            (ID_KEY, call.request_id),
        )
        await context.abort(_CODES[status.code], status.message, trailing)


_CODES: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def _log_call(call: _Call, seconds: float) -> None:
    """The call's one line: who, what, how long, how it ended; nothing of what was sent or answered."""
    broken = call.code in ("INTERNAL", "UNKNOWN")
    level = logging.ERROR if broken else logging.DEBUG if call.method in OPEN_TO_ALL else logging.INFO
    if not log.isEnabledFor(level):
        return
    values = {"request_id": call.request_id, "method": call.method, "code": call.code, "ms": round(1000 * seconds, 2)}
    if call.caller:
        values["caller"] = call.caller
    log.log(level, "call", extra=values, exc_info=call.error if broken else None)


async def _not_there(request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")


def _code_name(code: Any) -> str:
    """The name of what a context says its code is: nothing, a number or a grpc.StatusCode."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODES[code].name if code in _CODES else "OK"


def _decoder(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """As `decode`, but what cannot be decoded is said by the call and not by gRPC, which would say UNKNOWN."""
    if decode is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception:  # protobuf's own error, whichever of its implementations is at work
            return _Undecodable()

    return read


def _checked(request: Any) -> Any:
    """The request, or the stream of requests, without what could not be decoded."""
    if isinstance(request, _Undecodable):
        raise InputError("request", "a serialized message of this method", "bytes that are none")
    return _checked_stream(request) if hasattr(request, "__aiter__") else request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)
