"""FitRecording's client side without a wire: whatever breaks, each instant arrives once and whole; and when a client
tries again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.retries import NEVER, Retries, asked_wait_s
from bodyfit_service.sending import ProtocolError, Upload


def instants(count: int, most_bytes: int = 4000) -> list[pb.Instant]:
    """Instants of all sizes."""
    rng = random.Random(count)
    out = []
    for i in range(count):
        data = rng.randbytes(rng.randrange(most_bytes))
        frame = pb.SensorFrame(sensor="s", depth=pb.DepthImage(encoding=pb.DEPTH_ENCODING_PNG16, data=data))
        out.append(pb.Instant(index=3 * i, timestamp_s=0.1 * i + 0.05, frames=[frame]))
    return out


class Receiver:
    """What a server does with an upload, by the .proto's words; it refuses what they do not allow."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.partial = b""
        self.finished: int | None = None
        self.bytes_taken = 0

    def open(self, message: pb.FitRecordingRequest, known: bool) -> pb.FitRecordingAccepted:
        assert message.WhichOneof("message") == ("resume" if known else "start")
        if known:
            assert message.resume.recording_id == "r"
        self.partial = b""
        return pb.FitRecordingAccepted(
            recording_id="r", next_position=len(self.held), finished=self.finished is not None
        )

    def take(self, message: pb.FitRecordingRequest) -> None:
        assert self.finished is None
        if message.WhichOneof("message") == "finish":
            assert not self.partial
            assert message.finish.num_instants == len(self.held)
            self.finished = message.finish.num_instants
            return
        chunk = message.chunk
        assert (chunk.position, chunk.offset) == (len(self.held), len(self.partial))
        self.partial += chunk.data
        self.bytes_taken += len(chunk.data)
        if chunk.last:
            self.held.append(self.partial)
            self.partial = b""


def test_an_unbroken_upload_sends_every_byte_once() -> None:
    sent = instants(7)
    upload, server = Upload(pb.FitRecordingStart(), lambda: iter(sent), chunk_bytes=500), Receiver()
    upload.accepted(server.open(upload.opening(), known=False))
    for message in upload.messages():
        assert len(message.chunk.data) <= 500
        server.take(message)
    assert [pb.Instant.FromString(b) for b in server.held] == sent
    assert upload.sent_bytes == server.bytes_taken == sum(i.ByteSize() for i in sent)
    assert server.finished == 7 and upload.resumes == upload.restarts == 0


@given(
    count=st.integers(1, 6),
    chunk=st.integers(1, 900),
    breaks=st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.integers(0, 6)), max_size=6),
)
@settings(max_examples=80, deadline=None)
def test_however_streams_break_each_instant_arrives_once(
    count: int, chunk: int, breaks: list[tuple[int, bool, int]]
) -> None:
    sent = instants(count, 1500)
    draws = 0

    def source() -> Iterator[pb.Instant]:
        nonlocal draws
        for instant in sent:
            draws += 1
            yield instant

    upload, server, known = Upload(pb.FitRecordingStart(), source, chunk_bytes=chunk), Receiver(), False
    for after, forgets, lost in [*breaks, (10**9, False, 0)]:
        if forgets and known:
            # the upload is gone: the server's answer to `resume` is NOT_FOUND
            upload.opening()
            upload.start_over()
            server, known = Receiver(), False
        upload.accepted(server.open(upload.opening(), known))
        known = True
        taken = []
        for n, message in enumerate(upload.messages()):
            taken.append(message)
            if n >= after:
                break
        # the last messages may have left here and never arrived
        for message in taken[: max(0, len(taken) - lost)] if after < 10**9 else taken:
            server.take(message)
        if not breaks and server.held:
            upload.acknowledge(len(server.held))
    assert [pb.Instant.FromString(b) for b in server.held] == sent
    assert server.finished == count
    # the recording is read again only where all is sent again
    assert draws <= count * (1 + upload.restarts)


def test_only_what_was_not_acknowledged_is_sent_again() -> None:
    sent = instants(5)
    upload, server = Upload(pb.FitRecordingStart(), lambda: iter(sent), chunk_bytes=1 << 20), Receiver()
    upload.accepted(server.open(upload.opening(), known=False))
    messages = upload.messages()
    for _ in range(3):
        server.take(next(messages))
    assert upload.acknowledge(2) and not upload.acknowledge(2)
    del server.held[2:]  # the third instant was sent, and was lost with the stream
    upload.accepted(server.open(upload.opening(), known=True))
    assert list(messages) == []  # the old stream's messages end where they are drawn further
    for message in upload.messages():
        server.take(message)
    assert [pb.Instant.FromString(b) for b in server.held] == sent
    assert upload.sent_bytes == sum(i.ByteSize() for i in sent) + sent[2].ByteSize()
    assert upload.resumes == 1


def test_after_finish_nothing_is_sent_again() -> None:
    upload, server = Upload(pb.FitRecordingStart(), lambda: iter(instants(2))), Receiver()
    upload.accepted(server.open(upload.opening(), known=False))
    for message in upload.messages():
        server.take(message)
    upload.accepted(server.open(upload.opening(), known=True))
    assert list(upload.messages()) == []


@pytest.mark.parametrize(
    "answer",
    [
        pb.FitRecordingAccepted(recording_id="", next_position=0),
        pb.FitRecordingAccepted(recording_id="r", next_position=4),
    ],
)
def test_a_server_that_accepts_what_cannot_be_is_refused(answer: pb.FitRecordingAccepted) -> None:
    upload = Upload(pb.FitRecordingStart(), lambda: iter(instants(3)))
    upload.opening()
    with pytest.raises(ProtocolError):
        upload.accepted(answer)


def test_a_server_that_lost_acknowledged_instants_is_refused() -> None:
    upload, server = Upload(pb.FitRecordingStart(), lambda: iter(instants(3))), Receiver()
    upload.accepted(server.open(upload.opening(), known=False))
    for message in upload.messages():
        server.take(message)
    upload.acknowledge(3)
    with pytest.raises(ProtocolError, match="acknowledged"):
        upload.acknowledge(1)
    with pytest.raises(ProtocolError, match="another"):
        upload.accepted(pb.FitRecordingAccepted(recording_id="q", next_position=3))


class Ended(grpc.RpcError):
    """A call's end as grpc raises it."""

    def __init__(self, code: Any, *, retry_after_s: float | None = None, initial: tuple = ()) -> None:
        from google.protobuf import any_pb2, duration_pb2
        from google.rpc import error_details_pb2, status_pb2

        self._code, self._initial, self._trailing = code, initial, ()
        if retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(1e9 * retry_after_s))
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            status = status_pb2.Status(code=code.value[0], message="told", details=[detail])
            self._trailing = (("grpc-status-details-bin", status.SerializeToString()),)

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return "told"

    def initial_metadata(self) -> tuple:
        return self._initial

    def trailing_metadata(self) -> tuple:
        return self._trailing


SAFE = Retries(attempts=4, first_wait_s=0.5, longest_wait_s=2.0, longest_asked_s=10.0)


def test_only_what_was_plainly_not_done_is_tried_again() -> None:
    code = grpc.StatusCode
    for never in (code.ABORTED, code.INTERNAL, code.INVALID_ARGUMENT, code.DEADLINE_EXCEEDED, code.UNAUTHENTICATED,
                  code.NOT_FOUND, code.UNKNOWN, code.CANCELLED, code.UNIMPLEMENTED):  # fmt: skip
        assert SAFE.wait_s(Ended(never), 1, accepted=False) is None, never
    assert SAFE.wait_s(Ended(code.UNAVAILABLE), 1, accepted=True) is None
    # a message that is too large is RESOURCE_EXHAUSTED too, and no time makes it smaller
    assert SAFE.wait_s(Ended(code.RESOURCE_EXHAUSTED), 1, accepted=False) is None
    assert NEVER.wait_s(Ended(code.UNAVAILABLE), 1, accepted=False) is None


def test_waits_grow_to_a_bound_and_are_spread_out() -> None:
    unavailable = Ended(grpc.StatusCode.UNAVAILABLE)
    for attempt, most in ((1, 0.5), (2, 1.0), (3, 2.0)):
        waits = [SAFE.wait_s(unavailable, attempt, accepted=False) for _ in range(200)]
        assert all(w is not None and 0.5 * most <= w <= most for w in waits)
        assert len(set(waits)) > 100
    assert SAFE.wait_s(unavailable, 4, accepted=False) is None


def test_a_full_server_is_waited_for_as_long_as_it_asks() -> None:
    full = Ended(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=3.25)
    assert asked_wait_s(full) == 3.25
    waits = [SAFE.wait_s(full, 1, accepted=False) for _ in range(100)]
    assert all(w is not None and 3.25 <= w <= 3.25 * 1.25 for w in waits)
    assert SAFE.wait_s(Ended(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=11.0), 1, accepted=False) is None


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_wait_s": -1.0}, {"restarts": -1}])
def test_retries_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="retries"):
        Retries(**wrong)
