"""Errors as statuses and back, by hand and over a real connection."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from bodyfit import errors
from bodyfit_service import errors as service
from bodyfit_service.status import TABLE, error_of, error_of_status, row_of, status_of

ID = "request-17"
INPUT_KINDS = [
    errors.InputError, errors.RecordingError, errors.ImageError, errors.CameraError, errors.FrameError,
    errors.DepthUnitError, errors.PersonNotFoundError, service.TooLargeError,
]  # fmt: skip
SERVICE_KINDS = [
    service.WorkerDiedError, service.DeadlineError, service.CancelledError, service.DrainingError,
    service.UnavailableError, service.UnauthenticatedError, service.PermissionDeniedError, service.NotFoundError,
]  # fmt: skip


def over(error: BaseException) -> errors.BodyfitError:
    return error_of_status(Status.FromString(status_of(error, ID).SerializeToString()))


def detail(status: Status, kind: type) -> Any:
    return next((d for part in status.details if part.Unpack(d := kind())), None)


@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("hint", [None, "try metres"])
def test_bad_input_comes_back_as_it_was_raised(kind: type[errors.InputError], hint: str | None) -> None:
    error = kind("instants[3].frames[0].depth", "640 × 480", "12", hint)
    got = over(error)
    assert type(got) is kind and str(got) == str(error) and isinstance(got, errors.InputError)
    assert (got.field, got.expected, got.found, got.hint) == (error.field, error.expected, error.found, hint)
    status = status_of(error, ID)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    (violation,) = detail(status, details.BadRequest).field_violations
    assert violation.field == error.field and "640 × 480" in violation.description


def test_several_people_are_counted() -> None:
    got = over(errors.SeveralPeopleError("person", "one", "3", count=3))
    assert isinstance(got, errors.SeveralPeopleError) and got.count == 3


@pytest.mark.parametrize("kind", SERVICE_KINDS)
def test_what_the_service_says_comes_back(kind: type[service.ServiceError]) -> None:
    got = over(kind("so it was"))
    assert type(got) is kind and str(got) == "so it was" and got.request_id == ID and got.exit_code == 5


def test_a_full_queue_says_when_to_come_again() -> None:
    error = service.QueueFullError("no room", retry_after_s=1.25)
    got = over(error)
    assert isinstance(got, service.QueueFullError) and got.retry_after_s == 1.25
    assert detail(status_of(error, ID), details.RetryInfo).retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize(
    "error", [RuntimeError("secret /srv/x"), MemoryError(), errors.ModelFileError("/srv/x/a.npz: faces", "secret", "0")]
)
def test_what_is_the_servers_own_trouble_is_not_told(error: Exception) -> None:
    status = status_of(error, ID)
    data = status.SerializeToString()
    assert b"secret" not in data and b"/srv" not in data and ID in status.message
    assert detail(status, details.RequestInfo).request_id == ID
    got = error_of_status(status)
    assert isinstance(got, service.ServiceError) and got.request_id == ID


def test_bytes_that_are_no_message_are_bad_input() -> None:
    got = over(DecodeError("Error parsing message"))
    assert isinstance(got, errors.InputError) and got.field == "request"


def kinds_below(kind: type) -> Iterator[type]:
    for below in kind.__subclasses__():
        if below.__module__ in (errors.__name__, service.__name__):
            yield below
            yield from kinds_below(below)


def test_every_error_has_its_row_and_the_special_stand_before_the_general() -> None:
    for kind in kinds_below(errors.BodyfitError):
        if kind is not service.ServiceError:
            assert any(row.kind in kind.__mro__ for row in TABLE), kind
    for i, row in enumerate(TABLE):
        assert not any(issubclass(row.kind, before.kind) for before in TABLE[:i]), row
    assert row_of(ValueError()).reason == "SERVER_FAILED"


def test_long_texts_are_cut() -> None:
    assert len(status_of(errors.InputError("f" * 9000, "e" * 9000, "x" * 9000), ID).SerializeToString()) < 14_000


# over a connection


class Answering(grpc.GenericRpcHandler):
    """Ends every call with the error that its method names."""

    def __init__(self, raised: dict[str, BaseException | None]) -> None:
        self.raised = raised

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method

        def end(_request: bytes, context: Any) -> bytes:
            error = self.raised[name]
            if error is None:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "somebody between")
            else:
                context.abort_with_status(rpc_status.to_status(status_of(error, ID)))
            return b""

        return grpc.unary_unary_rpc_method_handler(end) if name in self.raised else None


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    raised = {
        "/t/Image": errors.ImageError("instants[0].frames[0].depth", "a zstd frame", "größer als erwartet"),
        "/t/Full": service.QueueFullError("no room", retry_after_s=0.5),
        "/t/Between": None,
    }
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 1000)])
    server.add_generic_rpc_handlers((Answering(raised),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def called(address: str, method: str, data: bytes = b"") -> errors.BodyfitError:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(method)(data, timeout=20)
    return error_of(failed.value)


def test_errors_cross_a_connection(address: str) -> None:
    image = called(address, "/t/Image")
    assert type(image) is errors.ImageError and image.found == "größer als erwartet"
    full = called(address, "/t/Full")
    assert isinstance(full, service.QueueFullError) and full.retry_after_s == 0.5 and full.request_id == ID
    between = called(address, "/t/Between")
    assert isinstance(between, service.QueueFullError) and "somebody between" in str(between)
    assert isinstance(called(address, "/t/Image", bytes(5000)), service.TooLargeError)
    assert "not found" in str(called(address, "/t/Other")).lower()


def test_nobody_listens() -> None:
    assert type(called("127.0.0.1:1", "/t/Image")) is service.UnavailableError
