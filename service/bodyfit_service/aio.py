"""The asyncio client: `async with AsyncBodyFitClient("localhost:50051") as c: result = await c.fit(recording)`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bodyfit_service.channel import ClientTls, credentials, grpc_module, make_target, new_request_id, options
from bodyfit_service.client import BodyFitClient, Progress, Stop, left
from bodyfit_service.received import (
    FitAnswer,
    LocalModels,
    ServedModel,
    ServerInfo,
    TrackAnswer,
    fit_answer,
    measured,
    served_models,
    server_info,
)
from bodyfit_service.retries import Retries, was_accepted

if TYPE_CHECKING:
    from bodyfit.body.measure import Measurement
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.frame import Frame
    from bodyfit.recording.source import FrameSource
    from bodyfit_protos.v1 import bodyfit_pb2 as pb
    from bodyfit_service.questions import FitQuestion

__all__ = ["AsyncBodyFitClient", "ClientTls", "Retries"]

Item = TypeVar("Item")


class AsyncBodyFitClient:
    """A connection to a bodyfit server, for one event loop.

    Images are read and packed in threads; each stream has a thread of its own.

    Args and errors are those of `bodyfit_service.client.BodyFitClient`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
        timeout_s: float | None = None,
        retries: Retries | None = None,
        plain_token: bool = False,
    ) -> None:
        grpc_module()
        from grpc import aio

        from bodyfit_protos.v1 import bodyfit_pb2_grpc

        self._target = make_target(address, token, tls, plain_token=plain_token)
        self._timeout_s, self._retries = timeout_s, retries or Retries()
        if tls is None:
            self._channel = aio.insecure_channel(address, options(None))
        else:
            self._channel = aio.secure_channel(address, credentials(tls), options(tls))
        self._stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(self._channel)  # type: ignore[arg-type]
        self._models = LocalModels()
        self._info: ServerInfo | None = None
        self._streams = BodyFitClient(
            address, token=token, tls=tls, timeout_s=timeout_s, retries=retries, plain_token=plain_token
        )

    async def __aenter__(self) -> AsyncBodyFitClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls that are under way are cancelled."""
        await self._channel.close()
        self._streams.close()

    async def fit(
        self,
        recording: FrameSource | str | Path | Sequence[Frame],
        *,
        progress: Progress | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> FitResult:
        """Fits one person's shape and poses to a recording; arguments, result and errors as `BodyFitClient.fit`.

        When the awaiting task is cancelled, so is the fit on the server.
        """
        return (await self.fit_answer(recording, progress=progress, timeout_s=timeout_s, **asked)).result

    async def fit_answer(
        self,
        recording: FrameSource | str | Path | Sequence[Frame],
        *,
        progress: Progress | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> FitAnswer:
        """As `fit`, with what else is asked for: joints=True, vertices=True, mesh="ply" or "glb", overlays=True."""
        from bodyfit_service.questions import fit_question

        question = await asyncio.to_thread(fit_question, recording, **asked)
        end = self._end(timeout_s)
        request = None
        if question.stream is not None or progress is None:
            limits = await self._limits() if question.stream is None else None
            request = await asyncio.to_thread(question.request, limits)
        if request is None:
            return await self._fit_streamed(question, progress, end)
        request_id = new_request_id()
        response, trailing = await self._call(self._stub.Fit, request, end, request_id)
        return await self._answer(response.result, question, request_id, trailing)

    async def track(
        self,
        recording: FrameSource
        | str
        | Path
        | Iterable[Sequence[Frame] | Frame]
        | AsyncIterable[Sequence[Frame] | Frame],
        *,
        frames: Sequence[int] | None = None,
        sensors: Sequence[str] | None = None,
        gravity_world: Any = None,
        every_instant: bool | None = None,
        paced: bool = False,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> AsyncIterator[TrackAnswer]:
        """Follows one person; arguments and errors as `BodyFitClient.track`; instants may come from an async iterable.

        An iterable that is not async is drawn in threads.
        """
        from bodyfit_service.questions import is_recording, live_messages, recorded_messages, track_start

        every = is_recording(recording) and not paced if every_instant is None else every_instant
        start = track_start(every_instant=every, **asked)
        source: Any = recording
        if is_recording(recording):
            messages = await asyncio.to_thread(recorded_messages, start, source, frames, sensors, paced=paced)
        else:
            here = Drawn(source) if isinstance(recording, AsyncIterable) else source
            messages = live_messages(start, here, gravity_world)
        answers = Thread(lambda stop: self._streams.track_messages(messages, self._end(timeout_s), stop))
        try:
            async for answer in answers:
                yield answer
        finally:
            answers.stop()

    async def measure(
        self, betas: Any, betas_cov: Any = None, *, model: str | BodyModel | None = None
    ) -> dict[str, Measurement]:
        """Measurements of a body of given shape: betas (S,) or fewer, betas_cov (S, S) for standard deviations."""
        from bodyfit_service.questions import measure_question

        request = measure_question(betas, betas_cov, model)
        return measured((await self._call(self._stub.Measure, request, self._end(None)))[0])

    async def local_model(self, name: str | None = None) -> BodyModel:
        """The server's body model of this name (its default where None), from this machine."""
        from bodyfit_service.questions import measure_question

        answer = (await self._call(self._stub.Measure, measure_question((), None, name), self._end(None)))[0]
        return await asyncio.to_thread(self._models.model_for, answer.model, name)

    async def healthy(self, timeout_s: float = 5.0) -> bool:
        """Whether the server says that it serves."""
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s, metadata=self._target.metadata(new_request_id())
            )
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def models(self) -> list[ServedModel]:
        """The body models that the server can fit."""
        from bodyfit_protos.v1 import bodyfit_pb2 as pb

        request = pb.ListBodyModelsRequest()
        return served_models((await self._call(self._stub.ListBodyModels, request, self._end(None)))[0])

    async def info(self) -> ServerInfo:
        """Version, limits and load of the server."""
        from bodyfit_protos.v1 import bodyfit_pb2 as pb

        request = pb.GetServerInfoRequest()
        return server_info((await self._call(self._stub.GetServerInfo, request, self._end(None)))[0])

    async def _limits(self) -> ServerInfo:
        if self._info is None:
            self._info = await self.info()
        return self._info

    def _end(self, timeout_s: float | None) -> float | None:
        seconds = self._timeout_s if timeout_s is None else timeout_s
        return None if seconds is None else time.monotonic() + seconds

    async def _answer(self, message: pb.FitResult, question: FitQuestion, request_id: str, trailing: Any) -> FitAnswer:
        body = await asyncio.to_thread(self._models.model_for, message.model, question.model)
        return fit_answer(message, body, request_id=request_id, metadata=trailing)

    async def _call(self, method: Any, request: Any, end: float | None, request_id: str | None = None) -> Any:
        """The answer of a unary call and its trailing metadata, tried again where that is safe."""
        import grpc

        metadata = self._target.metadata(request_id or new_request_id())
        attempt = 0
        while True:
            attempt += 1
            call = method(request, timeout=left(end), metadata=metadata)
            try:
                return await call, await call.trailing_metadata()
            except grpc.RpcError as error:
                wait = self._retries.wait_s(error, attempt, accepted=was_accepted(error))
                await self._wait_or_raise(error, wait, end)

    async def _wait_or_raise(self, error: Any, wait_s: float | None, end: float | None) -> None:
        from bodyfit_service.status import error_of

        if wait_s is None or (end is not None and time.monotonic() + wait_s >= end):
            raise error_of(error) from None
        await asyncio.sleep(wait_s)

    async def _fit_streamed(self, question: FitQuestion, progress: Progress | None, end: float | None) -> FitAnswer:
        loop = asyncio.get_running_loop()

        def tell(stage: str, fraction: float) -> None:
            assert progress is not None
            loop.call_soon_threadsafe(progress, stage, fraction)

        told = None if progress is None else tell
        work = Thread(lambda stop: iter([self._streams.fit_streamed(question, told, end, stop)]))
        try:
            async for answer in work:
                return answer
        finally:
            work.stop()
        raise AssertionError("a fit gives an answer or an error")


class Thread(Generic[Item]):
    """What an iterator gives in a thread of its own, for the loop; the iterator waits for who takes it.

    Streams go over gRPC's blocking calls: where a server ends a stream that is being written to, its asyncio calls may
    tell "Internal error from Core" instead of the server's own status (grpcio 1.85), and what to do would be a guess.

    Args:
        make: makes the iterator, in the thread; what it is given ends the stream.
    """

    AHEAD = 4

    def __init__(self, make: Callable[[Stop], Iterator[Item]]) -> None:
        self._make, self._stop = make, Stop()
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
        self._room = threading.Semaphore(self.AHEAD)
        self._left = False
        threading.Thread(target=self._work, name="bodyfit-stream", daemon=True).start()

    def _work(self) -> None:
        try:
            for item in self._make(self._stop):
                self._room.acquire()
                if self._left:
                    return
                self._put(True, item)
            self._put(False, None)
        except BaseException as error:
            self._put(False, error)

    def _put(self, more: bool, what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._came.put_nowait, (more, what))

    async def __aiter__(self) -> AsyncIterator[Item]:
        while True:
            more, what = await self._came.get()
            self._room.release()
            if more:
                yield what
            elif what is None:
                return
            else:
                raise what

    def stop(self) -> None:
        """Ends the stream and lets the thread go."""
        self._left = True
        self._stop.now()
        self._room.release()


class Drawn(Generic[Item]):
    """An async iterable of this loop as an iterator for another thread; it ends when the loop does."""

    def __init__(self, items: AsyncIterable[Item]) -> None:
        self._items = aiter(items)
        self._loop = asyncio.get_running_loop()

    def __iter__(self) -> Iterator[Item]:
        while (item := asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()) is not _END:
            yield item

    async def _next(self) -> Any:
        return await anext(self._items, _END)


_END: Any = object()
