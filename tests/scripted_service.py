"""A server that speaks the real .proto over a real socket and fails on cue: for what clients do when things go wrong.

It computes nothing: a fit's answer is one that was given to it. What a real server does is tested with a real one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_protos.v1 import bodyfit_pb2_grpc
from bodyfit_service.channel import REQUEST_ID, TIMES


@dataclass
class Script:
    """What the server is to do.

    Attributes:
        result: the answer of every fit.
        failures: what the next calls of Fit end with, one each; then they are answered.
        accept_first: a failing Fit says that it took the call on before it fails.
        break_after: the next streams of FitRecording break once so many chunks came; then they go on to the end.
        forget: how often a resume finds that the recording is gone.
        die: a finished recording's fit ends with ABORTED.
        max_instants: of one Fit.
        wait_s: how long a fit takes.
    """

    result: pb.FitResult = field(default_factory=pb.FitResult)
    failures: list[status_pb2.Status] = field(default_factory=list)
    accept_first: bool = False
    break_after: list[int] = field(default_factory=list)
    forget: int = 0
    die: bool = False
    max_instants: int = 4
    wait_s: float = 0.0


def failure(code: int, message: str = "on cue", *details: Any) -> status_pb2.Status:
    """A status with details."""
    packed = []
    for detail in details:
        one = any_pb2.Any()
        one.Pack(detail)
        packed.append(one)
    return status_pb2.Status(code=code, message=message, details=packed)


def full(seconds: float) -> status_pb2.Status:
    """What a full queue says."""
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(1e9 * seconds))
    return failure(code_pb2.RESOURCE_EXHAUSTED, "full", error_details_pb2.RetryInfo(retry_delay=delay))


class ScriptedService(bodyfit_pb2_grpc.BodyFitServiceServicer):
    """The script's actor; counts what it sees."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[str] = []
        self.requests: list[pb.FitRequest] = []
        self.openings: list[str] = []
        self.held: list[bytes] = []
        self.chunks = 0
        self.finished = False
        self.metadata: list[dict[str, str]] = []
        self.cancelled = threading.Event()
        self.track_answer: Callable[[pb.Instant, int], pb.TrackResponse | None] = lambda instant, n: pb.TrackResponse(
            error=pb.InstantError(index=instant.index, field="frames[0].depth", description="told")
        )
        self.instants: list[pb.Instant] = []
        self.track_start: pb.TrackStart | None = None

    def _note(self, name: str, context: Any) -> None:
        self.calls.append(name)
        self.metadata.append(dict(context.invocation_metadata()))

    def GetServerInfo(self, request: Any, context: Any) -> pb.GetServerInfoResponse:  # noqa: N802 - the .proto's
        self._note("GetServerInfo", context)
        return pb.GetServerInfoResponse(
            version="0", state="SERVING", max_instants=self.script.max_instants, max_message_bytes=1 << 26
        )

    def Fit(self, request: pb.FitRequest, context: Any) -> pb.FitResponse:  # noqa: N802
        self._note("Fit", context)
        self.requests.append(request)
        if self.script.failures:
            status = self.script.failures.pop(0)
            if self.script.accept_first:
                context.send_initial_metadata(((REQUEST_ID, "taken"),))
            context.abort_with_status(rpc_status.to_status(status))
        context.send_initial_metadata(((REQUEST_ID, "taken"),))
        context.add_callback(self.cancelled.set)
        end = time.monotonic() + self.script.wait_s
        while time.monotonic() < end and context.is_active():
            time.sleep(0.01)
        context.set_trailing_metadata(((TIMES, '{"queue": 1.5, "fit": 20}'),))
        return pb.FitResponse(result=self.script.result)

    def FitRecording(self, requests: Iterator[pb.FitRecordingRequest], context: Any) -> Iterator[Any]:  # noqa: N802
        self._note("FitRecording", context)
        opening = next(requests)
        kind = opening.WhichOneof("message")
        self.openings.append(str(kind))
        if kind == "start":
            self.held, self.finished = [], False
        elif self.script.forget:
            self.script.forget -= 1
            context.abort(grpc.StatusCode.NOT_FOUND, "no such recording")
        yield pb.FitRecordingResponse(
            accepted=pb.FitRecordingAccepted(recording_id="r1", next_position=len(self.held), finished=self.finished)
        )
        breaks = self.script.break_after.pop(0) if self.script.break_after else None
        partial, here = b"", 0
        for request in requests:
            if request.HasField("finish"):
                assert request.finish.num_instants == len(self.held) and not partial
                self.finished = True
                break
            chunk = request.chunk
            assert (chunk.position, chunk.offset) == (len(self.held), len(partial)), "a gap, or twice the same"
            partial += chunk.data
            self.chunks, here = self.chunks + 1, here + 1
            if chunk.last:
                self.held.append(partial)
                partial = b""
                yield pb.FitRecordingResponse(acknowledged=pb.FitRecordingAcknowledged(next_position=len(self.held)))
            if breaks is not None and here >= breaks:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken on cue")
        if breaks is not None:  # after the last chunk: while the fit runs
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken on cue")
        yield pb.FitRecordingResponse(progress=pb.FitProgress(stage="waiting", queue_position=2))
        yield pb.FitRecordingResponse(progress=pb.FitProgress(stage="fine", fraction=0.5, step=7, cost=1.5))
        if self.script.die:
            died = error_details_pb2.ErrorInfo(reason="WORKER_DIED", domain="bodyfit")
            context.abort_with_status(rpc_status.to_status(failure(code_pb2.ABORTED, "a worker died", died)))
        yield pb.FitRecordingResponse(result=self.script.result)

    def Track(self, requests: Iterator[pb.TrackRequest], context: Any) -> Iterator[pb.TrackResponse]:  # noqa: N802
        self._note("Track", context)
        context.add_callback(self.cancelled.set)
        self.track_start = next(requests).start
        for n, request in enumerate(requests):
            self.instants.append(request.instant)
            answer = self.track_answer(request.instant, n)
            if answer is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken on cue")
            assert answer is not None  # abort raises
            yield answer


class ScriptedServer:
    """The service on a port of the loopback; use it in a `with`."""

    def __init__(self, script: Script | None = None) -> None:
        self.service = ScriptedService(script or Script())
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool)
        bodyfit_pb2_grpc.add_BodyFitServiceServicer_to_server(self.service, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()
