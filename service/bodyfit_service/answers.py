"""What every method of the service does around its own work: errors into statuses, a place in the caller's share, and
the time that is left."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from bodyfit.errors import InputError
from bodyfit_service.errors import DeadlineError, DrainingError, QueueFullError
from bodyfit_service.interceptors import CALLER, REQUEST_ID
from bodyfit_service.pool import RefusedError

log = logging.getLogger("bodyfit.service")

Context = Any  # grpc.aio.ServicerContext[bytes, bytes]; grpc has no types of its own
TIMES_KEY = "x-bodyfit-times"
REQUEST_KEY = "x-request-id"


class Doors:
    """Who may come in: nobody while the server drains, and no caller more often at once than their share.

    Args:
        per_caller: calls that fit, follow or upload, at once.
    """

    def __init__(self, per_caller: int) -> None:
        self.per_caller = per_caller
        self.closed = False
        self._inside: Counter[str] = Counter()

    @contextmanager
    def enter(self, context: Context) -> Iterator[str]:
        """Counts a caller in and out again; gives the caller's name.

        Raises:
            DrainingError: the server takes nothing new.
            QueueFullError: so many of the caller's calls are inside already.
        """
        if self.closed:
            raise DrainingError("the server is about to end and takes nothing new")
        caller = CALLER.get()
        name = caller.name if caller is not None else host_of(context.peer())
        limit = self.per_caller if caller is None or caller.concurrent is None else caller.concurrent
        if self._inside[name] >= limit:
            raise QueueFullError(f"{limit} requests of this client are being worked on already", retry_after_s=1.0)
        self._inside[name] += 1
        try:
            yield name
        finally:
            self._inside[name] -= 1
            if not self._inside[name]:
                del self._inside[name]


def host_of(peer: str) -> str:
    """`ipv4:10.0.0.7:41234` without its port: a client's calls come from many."""
    return peer.rsplit(":", 1)[0]


def parse(kind: Any, data: bytes, field: str) -> Any:
    """A message from its bytes.

    Raises:
        InputError: they are none.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InputError(field, f"a serialized {kind.DESCRIPTOR.full_name}", "bytes that are none") from None


async def _refused(context: Context, problem: RefusedError) -> None:
    """Ends a call as the worker says; what is wrong with ourselves stays in the log."""
    if problem.traceback:
        values = {"request_id": REQUEST_ID.get(), "traceback": problem.traceback}
        log.error("internal error in a worker", extra=values)
    await context.abort_with_status(rpc_status.to_status(Status.FromString(problem.status)))


def unary(work: Callable[[bytes, Context], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
    """A method of one request and one answer, both as bytes."""

    async def handle(request: bytes, context: Context) -> bytes | None:
        try:
            return await work(request, context)
        except RefusedError as problem:
            await _refused(context, problem)
            return None

    return grpc.unary_unary_rpc_method_handler(handle)


def streaming(work: Callable[[AsyncIterator[bytes], Context], AsyncGenerator[bytes, None]]) -> grpc.RpcMethodHandler:
    """A method of many requests and many answers, all as bytes."""

    async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        answers = work(requests, context)
        try:
            async for answer in answers:
                yield answer
        except RefusedError as problem:
            await _refused(context, problem)
        finally:
            await answers.aclose()

    return grpc.stream_stream_rpc_method_handler(handle)


async def within(work: Awaitable[Any], context: Context, longest_s: float) -> Any:
    """What the work gives, if it comes in time: the client's deadline, and never longer than the server allows.

    Raises:
        DeadlineError: it does not; the work was cancelled.
    """
    left = context.time_remaining()
    try:
        return await asyncio.wait_for(work, longest_s if left is None else min(left, longest_s))
    except TimeoutError:
        raise DeadlineError(f"the answer was not there in {longest_s:g} s or before the client's deadline") from None


def times_metadata(laps: dict[str, float]) -> tuple[tuple[str, str], ...]:
    """Trailing metadata that says where the time went: milliseconds by part."""
    return ((TIMES_KEY, json.dumps({name: round(ms, 2) for name, ms in laps.items()})),)
