"""Track: one person followed over a stream. The newest instant wins; what was passed over is counted and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import grpc

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.answers import REQUEST_KEY, Context, Doors, parse
from bodyfit_service.errors import DeadlineError, DrainingError
from bodyfit_service.frames_checked import check_header, check_instant
from bodyfit_service.interceptors import REQUEST_ID
from bodyfit_service.limits import Limits
from bodyfit_service.models import check_name
from bodyfit_service.options import track_arguments
from bodyfit_service.pool import LiveStream, Pool, answer_of

if TYPE_CHECKING:
    from bodyfit.recording.description import Sensor
    from bodyfit_service.metrics import Metrics


class Inbox:
    """What has come and was not followed yet: the newest instant, or all of them, one by one."""

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._waiting: tuple[bytes, float] | None = None
        self._ended = False
        self._changed = asyncio.Condition()
        self.dropped, self.dropped_in_all = 0, 0
        self.problem: BaseException | None = None

    async def put(self, data: bytes) -> None:
        """An instant has come; where every one is wanted, waits until there is room for it."""
        async with self._changed:
            if self._every:
                await self._changed.wait_for(lambda: self._waiting is None)
            elif self._waiting is not None:
                self.dropped += 1
                self.dropped_in_all += 1
            self._waiting = data, time.perf_counter()
            self._changed.notify_all()

    async def end(self, problem: BaseException | None = None) -> None:
        """Nothing more comes."""
        async with self._changed:
            self._ended, self.problem = True, problem
            self._changed.notify_all()

    async def take(self) -> tuple[bytes, float] | None:
        """The instant to follow next and when it came; None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting is not None or self._ended)
            found, self._waiting = self._waiting, None
            self._changed.notify_all()
            return found

    def told(self) -> int:
        """How many were dropped since this was asked last."""
        dropped, self.dropped = self.dropped, 0
        return dropped


class Live:
    """The method Track; a stream over which nothing has come for `idle_s` is ended: its place is another's."""

    def __init__(self, pool: Pool, limits: Limits, doors: Doors, metrics: Metrics, idle_s: float) -> None:
        self.pool, self.limits, self.doors, self.metrics, self.idle_s = pool, limits, doors, metrics, idle_s

    async def converse(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        """Answers a stream of TrackRequest with a stream of TrackResponse.

        Raises:
            InputError: the stream does not begin with a start that makes sense.
            QueueFullError: no room for another stream.
            WorkerDiedError: the process that followed this one ended.
        """
        with self.doors.enter(context):
            start, sensors = await self._start(requests)
            stream = self.pool.open_stream()
            inbox = Inbox(every=start.every_instant)
            reader = asyncio.create_task(self._read(requests, inbox))
            try:
                request_id = REQUEST_ID.get()
                await context.send_initial_metadata(((REQUEST_KEY, request_id),))
                answer_of(await stream.ask("open", payload=start.SerializeToString(), request_id=request_id))
                last_s: float | None = None
                while (found := await inbox.take()) is not None:
                    data, came = found
                    if self.doors.closed:
                        raise DrainingError("the server is about to end: follow on another")
                    response, last_s = await self._follow(stream, data, sensors, last_s, request_id)
                    response.dropped, response.dropped_in_all = inbox.told(), inbox.dropped_in_all
                    response.latency_ms = 1e3 * (time.perf_counter() - came)
                    self.metrics.drops(response.dropped)
                    yield response.SerializeToString()
                if inbox.problem is not None:
                    raise inbox.problem
            finally:
                reader.cancel()
                stream.close()

    async def _start(self, requests: AsyncIterator[bytes]) -> tuple[pb.TrackStart, tuple[Sensor, ...]]:
        first = await asyncio.wait_for(anext(requests, None), self.idle_s)
        if first is None:
            raise InputError("start", "a stream that begins with it", "an empty stream")
        request = parse(pb.TrackRequest, first, "request")
        if request.WhichOneof("message") != "start":
            raise InputError("start", "the stream's first message", str(request.WhichOneof("message")))
        start = request.start
        check_name(start.model, "start.model")
        track_arguments(start)
        return start, check_header(start.header, self.limits, "start.header")

    async def _read(self, requests: AsyncIterator[bytes], inbox: Inbox) -> None:
        try:
            while True:
                data = await asyncio.wait_for(anext(requests, None), self.idle_s)
                if data is None:
                    await inbox.end()
                    return
                await inbox.put(data)
        except TimeoutError:
            await inbox.end(DeadlineError(f"nothing came over the stream for {self.idle_s:g} s"))
        except grpc.aio.UsageError as problem:  # the call has ended
            await inbox.end(problem)

    async def _follow(
        self, stream: LiveStream, data: bytes, sensors: tuple[Sensor, ...], last_s: float | None, request_id: str
    ) -> tuple[pb.TrackResponse, float | None]:
        """The answer to one instant, without what the stream adds; and the time of the last one that was followed."""
        request = parse(pb.TrackRequest, data, "request")
        if request.WhichOneof("message") != "instant":
            raise InputError("instant", "every message after the first", str(request.WhichOneof("message")))
        instant = request.instant
        try:
            check_instant(instant, sensors, self.limits, "instant", last_s)
        except InputError as problem:
            error = pb.InstantError(index=instant.index, field=problem.field, description=str(problem))
            return pb.TrackResponse(error=error), last_s
        answer = await stream.ask("frame", shared=instant.SerializeToString(), request_id=request_id)
        payload = answer_of(answer)
        for name, ms in answer.values.get("times", {}).items():
            self.metrics.stage(f"track_{name}", 1e-3 * ms)
        return pb.TrackResponse.FromString(payload), instant.timestamp_s
