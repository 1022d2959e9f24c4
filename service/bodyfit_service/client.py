"""The blocking client: `with BodyFitClient("localhost:50051") as c: result = c.fit(recording)`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bodyfit_service.channel import (
    ClientTls,
    credentials,
    grpc_module,
    make_target,
    new_request_id,
    options,
    read_token,
)
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
    from bodyfit_service.questions import FitQuestion
    from bodyfit_service.sending import Upload

__all__ = ["BodyFitClient", "ClientTls", "Retries", "read_token"]

Message = TypeVar("Message")
Progress = Callable[[str, float], None]


class BodyFitClient:
    """A connection to a bodyfit server; may be used by several threads.

    Args:
        address: HOST:PORT; dns:///HOST:PORT spreads calls over all addresses of the name.
        token: sent with every call; `read_token` reads it from a file.
        tls: how the server is believed, and the client's own certificate; None: plain text.
        timeout_s: how long a call may take, its retries included; None: no limit but the server's own.
        retries: when to try again.
        plain_token: lets the token go to another machine in plain text.

    Raises:
        InputError: an address, token or certificate that is none.
        MissingExtraError: grpcio is not installed.
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
        grpc = grpc_module()
        from bodyfit_protos.v1 import bodyfit_pb2_grpc

        self._target = make_target(address, token, tls, plain_token=plain_token)
        self._timeout_s, self._retries = timeout_s, retries or Retries()
        if tls is None:
            self._channel = grpc.insecure_channel(address, options(None))
        else:
            self._channel = grpc.secure_channel(address, credentials(tls), options(tls))
        self._stub = bodyfit_pb2_grpc.BodyFitServiceStub(self._channel)
        self._models = LocalModels()
        self._info: ServerInfo | None = None

    def __enter__(self) -> BodyFitClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls that are under way are cancelled."""
        self._channel.close()

    def fit(
        self,
        recording: FrameSource | str | Path | Sequence[Frame],
        *,
        model: str | BodyModel | None = None,
        sex: str = "neutral",
        clothing: str = "auto",
        frames: Sequence[int] | None = None,
        sensors: Sequence[str] | None = None,
        person: int | None = None,
        refine_extrinsics: bool = False,
        gravity_world: Any = None,
        stream: bool | None = None,
        progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> FitResult:
        """Fits one person's shape and poses to a recording, on the server.

        Args:
            recording: an open recording, its folder, or frames (undistorted, as they are everywhere in the library).
            model: a name of `models()`; the body has to be on this machine too.
            sex, clothing, frames, sensors, person, refine_extrinsics: as for `bodyfit.fit`.
            gravity_world: (3,) of frames; a recording has its own.
            stream: send it as a stream (FitRecording) or in one message (Fit); None: in one message where the server
                takes it so and no progress is wanted.
            progress: called with what is done and the fraction of the whole.
            timeout_s: instead of the client's.

        Returns:
            What `bodyfit.fit` gives for the same frames, without its observations. A fit that did not converge is a
            result that says so.

        Raises:
            InputError: what the server or this machine refuses, with the field's name.
            ServiceError: queue full, worker died, deadline, no such server: see `bodyfit_service.errors`.
        """
        return self.fit_answer(
            recording, model=model, sex=sex, clothing=clothing, frames=frames, sensors=sensors, person=person,
            refine_extrinsics=refine_extrinsics, gravity_world=gravity_world, stream=stream, progress=progress,
            timeout_s=timeout_s,
        ).result  # fmt: skip

    def fit_answer(
        self,
        recording: FrameSource | str | Path | Sequence[Frame],
        *,
        progress: Progress | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> FitAnswer:
        """As `fit`, with what else is asked for: joints=True, vertices=True, mesh="ply" or "glb", overlays=True."""
        from bodyfit_service.questions import fit_question

        question = fit_question(recording, **asked)
        end = self._end(timeout_s)
        request = None
        if question.stream is not None or progress is None:
            request = question.request(self._limits() if question.stream is None else None)
        if request is None:
            return self.fit_streamed(question, progress, end)
        request_id = new_request_id()
        response, call = self._call(self._stub.Fit, request, end, request_id)
        body = self._models.model_for(response.result.model, question.model)
        return fit_answer(response.result, body, request_id=request_id, metadata=call.trailing_metadata())

    def track(
        self,
        recording: FrameSource | str | Path | Iterable[Sequence[Frame] | Frame],
        *,
        model: str | BodyModel | None = None,
        sex: str = "neutral",
        clothing: str = "auto",
        frames: Sequence[int] | None = None,
        sensors: Sequence[str] | None = None,
        person: int | None = None,
        gravity_world: Any = None,
        every_instant: bool | None = None,
        paced: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[TrackAnswer]:
        """Follows one person; answers come as they are made, in the order of time.

        Args:
            recording: an open recording or its folder; or an iterable over instants, each a frame or the frames of
                several sensors: it is drawn in a thread of its own, as fast as the server takes them.
            every_instant: follow all, however late; False: the newest instant wins, and the dropped ones are counted.
                None: all of a recording, the newest of what comes live or paced.
            paced: send a recording's instants when their time has come, as if they came live.
            model, sex, clothing, person: as for `bodyfit.track`; frames, sensors: of a recording, as there.
            gravity_world: (3,) of frames; a recording has its own.

        Raises:
            InputError, ServiceError: as for `fit`; an instant that is refused is an answer that says so.
        """
        from bodyfit_service.questions import is_recording, live_messages, recorded_messages, track_start

        recorded = is_recording(recording)
        every = recorded and not paced if every_instant is None else every_instant
        start = track_start(model=model, sex=sex, clothing=clothing, person=person, every_instant=every)
        source: Any = recording
        if recorded:
            messages = recorded_messages(start, source, frames, sensors, paced=paced)
        else:
            messages = live_messages(start, source, gravity_world)
        return self.track_messages(messages, self._end(timeout_s))

    def measure(
        self, betas: Any, betas_cov: Any = None, *, model: str | BodyModel | None = None
    ) -> dict[str, Measurement]:
        """Measurements of a body of given shape: betas (S,) or fewer, betas_cov (S, S) for standard deviations."""
        from bodyfit_service.questions import measure_question

        return measured(self._call(self._stub.Measure, measure_question(betas, betas_cov, model), self._end(None))[0])

    def local_model(self, name: str | None = None) -> BodyModel:
        """The server's body model of this name (its default where None), from this machine.

        Raises:
            ModelFileError: it is not here, or is another file than the server's.
        """
        from bodyfit_service.questions import measure_question

        answer = self._call(self._stub.Measure, measure_question((), None, name), self._end(None))[0]
        return self._models.model_for(answer.model, name)

    def models(self) -> list[ServedModel]:
        """The body models that the server can fit."""
        from bodyfit_protos.v1 import bodyfit_pb2 as pb

        return served_models(self._call(self._stub.ListBodyModels, pb.ListBodyModelsRequest(), self._end(None))[0])

    def info(self) -> ServerInfo:
        """Version, limits and load of the server."""
        from bodyfit_protos.v1 import bodyfit_pb2 as pb

        return server_info(self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest(), self._end(None))[0])

    def healthy(self, timeout_s: float = 5.0) -> bool:
        """Whether the server says that it serves: model loaded, kernels compiled, a test fit passed."""
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        try:
            answer = health_pb2_grpc.HealthStub(self._channel).Check(  # pyright: ignore[reportAttributeAccessIssue]
                health_pb2.HealthCheckRequest(), timeout=timeout_s, metadata=self._target.metadata(new_request_id())
            )
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def _limits(self) -> ServerInfo:
        """The server's limits, asked for once."""
        if self._info is None:
            self._info = self.info()
        return self._info

    def _end(self, timeout_s: float | None) -> float | None:
        """When a call that begins now has to be done, by the monotonic clock."""
        seconds = self._timeout_s if timeout_s is None else timeout_s
        return None if seconds is None else time.monotonic() + seconds

    def _call(self, method: Any, request: Any, end: float | None, request_id: str | None = None) -> tuple[Any, Any]:
        """The answer of a unary call and the call, tried again where that is safe."""
        import grpc

        metadata = self._target.metadata(request_id or new_request_id())
        attempt = 0
        while True:
            attempt += 1
            try:
                return method.with_call(request, timeout=left(end), metadata=metadata)
            except grpc.RpcError as error:
                wait = self._retries.wait_s(error, attempt, accepted=was_accepted(error))
                self._wait_or_raise(error, wait, end)

    def _wait_or_raise(
        self, error: Any, wait_s: float | None, end: float | None, stop: Stop | None = None
    ) -> None:  # fmt: skip
        from bodyfit_service.status import error_of

        if wait_s is None or (end is not None and time.monotonic() + wait_s >= end):
            raise error_of(error) from None
        if (stop or Stop()).wait(wait_s):
            raise error_of(error) from None

    def fit_streamed(
        self, question: FitQuestion, progress: Progress | None, end: float | None, stop: Stop | None = None
    ) -> FitAnswer:
        """The fit as a stream (FitRecording), which goes on where it breaks.

        Args:
            end: by the monotonic clock; None: no limit.
            stop: ends it from another thread.
        """
        import grpc

        from bodyfit_service.sending import Upload, is_lost, progress_of

        upload = Upload(question.start(), question.material.instants)
        request_id = new_request_id()
        attempt = 0
        while True:
            attempt += 1
            held = upload.acknowledged
            stream = _UploadFeed(upload)
            try:
                result, trailing = self._converse(stream, request_id, end, progress_of(progress), stop)
                body = self._models.model_for(result.model, question.model)
                return fit_answer(result, body, request_id=request_id, metadata=trailing)
            except grpc.RpcError as error:
                if stream.problem is not None:
                    raise stream.problem from None
                if is_lost(error, upload) and upload.restarts < self._retries.restarts:
                    upload.start_over()
                    continue
                if upload.acknowledged > held:
                    attempt = 1  # it went on: a new trouble, not the old one
                # an upload that was accepted is there to be gone on with
                wait = self._retries.wait_s(error, attempt, accepted=False)
                self._wait_or_raise(error, wait, end, stop)

    def _converse(
        self, stream: _UploadFeed, request_id: str, end: float | None, progress: Callable[[pb.FitProgress], None],
        stop: Stop | None,
    ) -> tuple[pb.FitResult, Any]:  # fmt: skip
        """One stream of FitRecording, to its result."""
        from bodyfit_service.sending import ProtocolError

        metadata = self._target.metadata(request_id)
        call = self._stub.FitRecording(stream.messages(), timeout=left(end), metadata=metadata)
        stream.call = call
        if stop is not None:
            stop.ends(call)
        result = None
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "accepted":
                    stream.upload.accepted(response.accepted)
                    stream.go.set()
                elif kind == "acknowledged":
                    stream.upload.acknowledge(response.acknowledged.next_position)
                elif kind == "progress":
                    progress(response.progress)
                elif kind == "result":
                    result = response.result
        finally:
            stream.stop()
            call.cancel()
        if result is None:
            raise stream.problem or ProtocolError("the server ended the stream without a result")
        return result, call.trailing_metadata()

    def track_messages(
        self, messages: Iterator[pb.TrackRequest], end: float | None, stop: Stop | None = None
    ) -> Iterator[TrackAnswer]:
        """The answers of a track whose messages are there already; see `fit_streamed`."""
        import grpc

        from bodyfit_service.status import error_of

        feed = _TrackFeed(messages)
        metadata = self._target.metadata(new_request_id())
        call = feed.call = self._stub.Track(feed.messages(), timeout=left(end), metadata=metadata)
        feed.go.set()
        if stop is not None:
            stop.ends(call)
        try:
            for response in call:
                yield feed.departures.answer(response)
        except grpc.RpcError as error:
            raise (feed.problem or error_of(error)) from None
        finally:
            feed.stop()
            call.cancel()


class Stop:
    """Ends a stream that another thread waits for."""

    def __init__(self) -> None:
        self._asked, self._lock = threading.Event(), threading.Lock()
        self._call: Any = None

    def ends(self, call: Any) -> None:
        """This call is what is to be ended from now on."""
        with self._lock:
            self._call = call
            if self._asked.is_set():
                call.cancel()

    def now(self) -> None:
        """Ends it."""
        with self._lock:
            self._asked.set()
            if self._call is not None:
                self._call.cancel()

    def wait(self, seconds: float) -> bool:
        """Waits, unless it is to end; whether it is."""
        return self._asked.wait(seconds)


class _Feed:
    """What goes up one stream; drawn by gRPC in a thread of its own, which waits until `go` is set."""

    def __init__(self) -> None:
        self.go, self.stopped = threading.Event(), False
        self.problem: Exception | None = None
        self.call: Any = None

    def guarded(self, messages: Iterator[Message]) -> Iterator[Message]:
        """The messages until the stream is stopped. What breaks in making them, as a broken file of the recording, is
        kept for who asked, instead of what gRPC makes of it."""
        self.go.wait()
        if self.stopped:
            return
        try:
            for message in messages:
                if self.stopped:
                    return
                yield message
        except Exception as error:
            self.problem = error
            self.call.cancel()

    def stop(self) -> None:
        """Lets the thread go."""
        self.stopped = True
        self.go.set()


class _UploadFeed(_Feed):
    """The opening, and the rest once the server has accepted it."""

    def __init__(self, upload: Upload) -> None:
        super().__init__()
        self.upload = upload

    def messages(self) -> Iterator[pb.FitRecordingRequest]:
        yield self.upload.opening()
        yield from self.guarded(self.upload.messages())


class _TrackFeed(_Feed):
    """Instants, and when each was handed over."""

    def __init__(self, messages: Iterator[pb.TrackRequest]) -> None:
        super().__init__()
        self._messages, self.departures = messages, Departures()

    def messages(self) -> Iterator[pb.TrackRequest]:
        for message in self.guarded(self._messages):
            self.departures.note(message)
            yield message


def left(end: float | None) -> float | None:
    """Seconds that are left; never less than what lets the call end with its own deadline's error."""
    return None if end is None else max(1e-3, end - time.monotonic())
