"""The asyncio client: `async with AsyncBodyFitClient("localhost:50051") as c: result = await c.fit(recording)`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bodyfit_service.channel import ClientTls, credentials, grpc_module, make_target, new_request_id, options
from bodyfit_service.client import Progress, _left
from bodyfit_service.received import (
    Departures,
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
    from bodyfit_service.questions import FitQuestion, LiveMessages
    from bodyfit_service.sending import Upload

__all__ = ["AsyncBodyFitClient", "ClientTls", "Retries"]

Item = TypeVar("Item")


class AsyncBodyFitClient:
    """A connection to a bodyfit server, for one event loop; images are read and packed in threads.

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

    async def __aenter__(self) -> AsyncBodyFitClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls that are under way are cancelled."""
        await self._channel.close()

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
            return await self._fit_recording(question, progress, end)
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
        from bodyfit_service.questions import LiveMessages, is_recording, live_messages, recorded_messages, track_start

        every = is_recording(recording) and not paced if every_instant is None else every_instant
        start = track_start(every_instant=every, **asked)
        source: Any = recording
        if isinstance(recording, AsyncIterable):
            messages = live_in_threads(recording, LiveMessages(start, gravity_world))
        elif is_recording(recording):
            opened = await asyncio.to_thread(recorded_messages, start, source, frames, sensors, paced=paced)
            messages = in_threads(opened)
        else:
            messages = in_threads(live_messages(start, source, gravity_world))
        departures = Departures()
        call = self._stub.Track(timeout=_left(self._end(timeout_s)), metadata=self._target.metadata(new_request_id()))

        async def feed() -> None:
            async for message in messages:
                departures.note(message)
                await call.write(message)
            await call.done_writing()

        from bodyfit_service.status import error_of

        try:
            async for response in _talk(call, feed()):
                yield departures.answer(response)
        except grpc_module().RpcError as error:
            raise error_of(error) from None

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
            call = method(request, timeout=_left(end), metadata=metadata)
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

    async def _fit_recording(self, question: FitQuestion, progress: Progress | None, end: float | None) -> FitAnswer:
        """FitRecording, gone on with where its stream breaks."""
        import grpc

        from bodyfit_service.sending import Upload, is_lost, progress_of

        start = await asyncio.to_thread(question.start)
        upload = Upload(start, question.material.instants)
        request_id = new_request_id()
        attempt = 0
        while True:
            attempt += 1
            held = upload.acknowledged
            try:
                result, trailing = await self._converse(upload, request_id, end, progress_of(progress))
                return await self._answer(result, question, request_id, trailing)
            except grpc.RpcError as error:
                if is_lost(error, upload) and upload.restarts < self._retries.restarts:
                    upload.start_over()
                    continue
                if upload.acknowledged > held:
                    attempt = 1
                await self._wait_or_raise(error, self._retries.wait_s(error, attempt, accepted=False), end)

    async def _converse(
        self, upload: Upload, request_id: str, end: float | None, progress: Callable[[pb.FitProgress], None]
    ) -> Any:
        """One stream of FitRecording, to its result and trailing metadata."""
        from bodyfit_service.sending import ProtocolError

        call = self._stub.FitRecording(timeout=_left(end), metadata=self._target.metadata(request_id))
        go = asyncio.Event()

        async def feed() -> None:
            await call.write(upload.opening())
            await go.wait()
            async for message in in_threads(upload.messages()):
                await call.write(message)
            await call.done_writing()

        result = None
        async for response in _talk(call, feed()):
            kind = response.WhichOneof("message")
            if kind == "accepted":
                upload.accepted(response.accepted)
                go.set()
            elif kind == "acknowledged":
                upload.acknowledge(response.acknowledged.next_position)
            elif kind == "progress":
                progress(response.progress)
            elif kind == "result":
                result = response.result
        if result is None:
            raise ProtocolError("the server ended the stream without a result")
        return result, await call.trailing_metadata()


async def _talk(call: Any, feed: Any) -> AsyncIterator[Any]:
    """The answers of a stream while `feed` writes to it.

    What breaks in making the messages, as a broken file of the recording, is raised instead of what becomes of the
    stream; what breaks in writing them is the stream's own trouble, which reading it tells.
    """
    import grpc

    problem: list[BaseException] = []

    async def write() -> None:
        try:
            await feed
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        except Exception as error:
            problem.append(error)
            call.cancel()

    writer = asyncio.create_task(write())
    try:
        async for response in call:
            yield response
    except grpc.RpcError:
        if problem:
            raise problem[0] from None
        raise
    except asyncio.CancelledError:
        if problem:
            raise problem[0] from None
        raise
    finally:
        call.cancel()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer


_END: Any = object()


async def in_threads(items: Iterator[Item]) -> AsyncIterator[Item]:
    """The items, each made in a thread, so that decoding and packing do not hold up the loop."""
    while (item := await asyncio.to_thread(next, items, _END)) is not _END:
        yield item


async def live_in_threads(instants: AsyncIterable[Any], live: LiveMessages) -> AsyncIterator[pb.TrackRequest]:
    """Messages of instants that come from the loop, packed in threads."""
    async for instant in instants:
        for message in await asyncio.to_thread(live.of, instant):
            yield message
