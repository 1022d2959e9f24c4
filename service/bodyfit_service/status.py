"""Errors as gRPC statuses and back: one table, read in both directions.

A status carries details as google.rpc describes them (google/rpc/error_details.proto): ErrorInfo with the reason and
what the library's own error consists of, BadRequest with the field, RetryInfo, RequestInfo.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from bodyfit import errors
from bodyfit_service import errors as service

DOMAIN = "bodyfit"
STATUS_KEY = "grpc-status-details-bin"
RETRY_LATER_S = 5.0
LONGEST_TEXT = 2000
"""a status travels in a header, for which clients have some kilobytes"""

# numbers of grpc.StatusCode and google/rpc/code.proto
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 2, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED = 7, 8, 9, 10
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16


@dataclass(frozen=True)
class Row:
    """One kind of error: its code, and its name in ErrorInfo.reason."""

    kind: type[BaseException]
    code: int
    reason: str


# an error is the first row's of which it is an instance: the special before the general
TABLE = (
    Row(service.TooLargeError, INVALID_ARGUMENT, "TOO_LARGE"),
    Row(service.QueueFullError, RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    Row(service.WorkerDiedError, ABORTED, "WORKER_DIED"),
    Row(service.DeadlineError, DEADLINE_EXCEEDED, "DEADLINE"),
    Row(service.CancelledError, CANCELLED, "CANCELLED"),
    Row(service.DrainingError, UNAVAILABLE, "DRAINING"),
    Row(service.UnavailableError, UNAVAILABLE, "UNAVAILABLE"),
    Row(service.UnauthenticatedError, UNAUTHENTICATED, "UNAUTHENTICATED"),
    Row(service.PermissionDeniedError, PERMISSION_DENIED, "PERMISSION_DENIED"),
    Row(service.NotFoundError, NOT_FOUND, "NOT_FOUND"),
    Row(service.ServerFailedError, INTERNAL, "SERVER_FAILED"),
    Row(errors.PersonNotFoundError, INVALID_ARGUMENT, "PERSON_NOT_FOUND"),
    Row(errors.SeveralPeopleError, INVALID_ARGUMENT, "SEVERAL_PEOPLE"),
    Row(errors.DepthUnitError, INVALID_ARGUMENT, "DEPTH_UNIT"),
    Row(errors.FrameError, INVALID_ARGUMENT, "FRAME"),
    Row(errors.ImageError, INVALID_ARGUMENT, "IMAGE"),
    Row(errors.RecordingError, INVALID_ARGUMENT, "RECORDING"),
    Row(errors.CameraError, INVALID_ARGUMENT, "CAMERA"),
    # the server's own files and devices: their names stay in its log
    Row(errors.ModelFileError, FAILED_PRECONDITION, "MODEL_FILE"),
    Row(errors.DeviceError, FAILED_PRECONDITION, "DEVICE"),
    Row(errors.DeviceLostError, UNAVAILABLE, "DEVICE_LOST"),
    # whoever gathers batches splits them: none of this reaches a client
    Row(errors.DeviceMemoryError, INTERNAL, "SERVER_FAILED"),
    Row(errors.OutputError, INTERNAL, "SERVER_FAILED"),
    Row(errors.InputError, INVALID_ARGUMENT, "INPUT"),
    Row(errors.MissingExtraError, UNIMPLEMENTED, "MISSING_EXTRA"),
    Row(DecodeError, INVALID_ARGUMENT, "MESSAGE"),
    Row(asyncio.CancelledError, CANCELLED, "CANCELLED"),
    Row(TimeoutError, DEADLINE_EXCEEDED, "DEADLINE"),
)
_FAILED = Row(BaseException, INTERNAL, "SERVER_FAILED")
_OWN_FILES = {
    "MODEL_FILE": "the body model's file on the server cannot be used",
    "DEVICE": "the server's device cannot be used",
    "SERVER_FAILED": "the server failed",
}
_INPUT_ERRORS: dict[str, type[errors.InputError]] = {
    row.reason: row.kind
    for row in TABLE
    if isinstance(row.kind, type) and issubclass(row.kind, errors.InputError) and row.code == INVALID_ARGUMENT
}
_SERVICE_ERRORS: dict[str, type[service.ServiceError]] = {
    "WORKER_DIED": service.WorkerDiedError,
    "DEADLINE": service.DeadlineError,
    "CANCELLED": service.CancelledError,
    "DRAINING": service.DrainingError,
    "UNAVAILABLE": service.UnavailableError,
    "DEVICE_LOST": service.UnavailableError,
    "UNAUTHENTICATED": service.UnauthenticatedError,
    "PERMISSION_DENIED": service.PermissionDeniedError,
    "NOT_FOUND": service.NotFoundError,
}
# what a code means that came without our details: from gRPC itself, or from something between
_BY_CODE: dict[int, type[service.ServiceError]] = {
    CANCELLED: service.CancelledError,
    DEADLINE_EXCEEDED: service.DeadlineError,
    NOT_FOUND: service.NotFoundError,
    PERMISSION_DENIED: service.PermissionDeniedError,
    UNAUTHENTICATED: service.UnauthenticatedError,
    UNAVAILABLE: service.UnavailableError,
    ABORTED: service.WorkerDiedError,
}


def row_of(error: BaseException) -> Row:
    """The table's row of an error; INTERNAL for what is in none."""
    return next((row for row in TABLE if isinstance(error, row.kind)), _FAILED)


def status_of(error: BaseException, request_id: str) -> Status:
    """The status that an error becomes. What nobody foresaw is INTERNAL, with the request's id and no word about it:
    the server's log has the rest.

    Args:
        error: any.
        request_id: as the log names the request.
    """
    row = row_of(error)
    info: dict[str, str] = {}
    parts: list[Message] = []
    if isinstance(error, errors.InputError) and row.code == INVALID_ARGUMENT:
        text = str(error)
        info = {"field": error.field, "expected": error.expected, "found": error.found}
        if error.hint is not None:
            info["hint"] = error.hint
        if isinstance(error, errors.SeveralPeopleError):
            info["count"] = str(error.count)
        violation = details.BadRequest.FieldViolation(
            field=_short(error.field), description=_short(f"expected {error.expected}, found {error.found}")
        )
        parts.append(details.BadRequest(field_violations=[violation]))
    elif row.reason == "MESSAGE":
        text = "request: expected a message of bodyfit.v1, found bytes that are none"
        info = {"field": "request", "expected": "a message of bodyfit.v1", "found": "bytes that are none"}
        violation = details.BadRequest.FieldViolation(field="request", description=text)
        parts.append(details.BadRequest(field_violations=[violation]))
    elif row.reason in _OWN_FILES:
        text = f"{_OWN_FILES[row.reason]}; its log says more about request {request_id}"
    elif isinstance(error, errors.MissingExtraError):
        text = str(error)
        info = {"package": error.package, "extra": error.extra}
    else:
        text = str(error) or row.reason.lower()
    if isinstance(error, service.QueueFullError):
        parts.append(_retry(error.retry_after_s))
    elif isinstance(error, (service.DrainingError, errors.DeviceLostError)):
        parts.append(_retry(RETRY_LATER_S))
    shortened = {key: _short(value) for key, value in info.items()}
    parts.insert(0, details.ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=shortened))
    parts.append(details.RequestInfo(request_id=request_id))
    status = Status(code=row.code, message=_short(text))
    for part in parts:
        status.details.add().Pack(part)
    return status


def _retry(seconds: float) -> details.RetryInfo:
    info = details.RetryInfo()
    info.retry_delay.FromNanoseconds(round(max(0.0, seconds) * 1e9))
    return info


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def error_of(rpc_error: Any) -> errors.BodyfitError:
    """On a client: what a failed call's error means, in the library's own types.

    Args:
        rpc_error: a grpc.RpcError of a call (it has `code`, `details` and `trailing_metadata`), sync or asyncio.
    """
    code = rpc_error.code()
    number = int(code.value[0]) if code is not None else UNKNOWN
    text = rpc_error.details() or ""
    status = _attached(rpc_error)
    if status is not None:
        return error_of_status(status)
    return _made(number, text, {}, "", None, "")


def _attached(rpc_error: Any) -> Status | None:
    for key, value in rpc_error.trailing_metadata() or ():
        if key == STATUS_KEY:
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def error_of_status(status: Status) -> errors.BodyfitError:
    """The error that a status was made of."""
    info, retry, request = details.ErrorInfo(), details.RetryInfo(), details.RequestInfo()
    retry_s: float | None = None
    for part in status.details:
        _unpack(part, info)
        _unpack(part, request)
        if _unpack(part, retry):
            retry_s = retry.retry_delay.ToNanoseconds() / 1e9
    reason = info.reason if info.domain == DOMAIN else ""
    return _made(status.code, status.message, dict(info.metadata), reason, retry_s, request.request_id)


def _unpack(part: AnyMessage, into: Message) -> bool:
    try:
        return part.Unpack(into)  # False where it is another kind
    except DecodeError:
        return False


def _made(
    code: int, text: str, info: dict[str, str], reason: str, retry_s: float | None, request_id: str
) -> errors.BodyfitError:
    error = _by_reason(text, info, reason, retry_s)
    if error is None:
        if code == RESOURCE_EXHAUSTED and retry_s is None and "larger than max" in text:
            # gRPC's own refusal, before the server saw the message
            error = service.TooLargeError("message", "no more bytes than the limit", text)
        elif code == RESOURCE_EXHAUSTED:
            error = service.QueueFullError(text, retry_after_s=RETRY_LATER_S if retry_s is None else retry_s)
        elif code in _BY_CODE:
            error = _BY_CODE[code](text)
        elif code == INTERNAL:
            error = service.ServerFailedError(text)
        else:
            error = service.ServiceError(text or f"the call ended with status {code}")
    if isinstance(error, service.ServiceError):
        error.request_id = request_id
    return error


def _by_reason(text: str, info: dict[str, str], reason: str, retry_s: float | None) -> errors.BodyfitError | None:
    if reason == "MESSAGE":
        reason = "INPUT"
    if reason in _INPUT_ERRORS and {"field", "expected", "found"} <= info.keys():
        given = (info["field"], info["expected"], info["found"], info.get("hint"))
        kind = _INPUT_ERRORS[reason]
        if kind is errors.SeveralPeopleError:
            count = info.get("count", "")
            return errors.SeveralPeopleError(*given, count=int(count) if count.isdecimal() else 0)
        return kind(*given)
    if reason == "MISSING_EXTRA":
        return service.ServiceError(f"on the server: {text}")
    if reason == "QUEUE_FULL":
        return service.QueueFullError(text, retry_after_s=RETRY_LATER_S if retry_s is None else retry_s)
    if reason in _SERVICE_ERRORS:
        return _SERVICE_ERRORS[reason](text)
    return None
