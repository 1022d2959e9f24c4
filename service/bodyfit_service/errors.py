"""What goes wrong between a client and a server, beside bad input: each has one gRPC code (see status.py)."""

from __future__ import annotations

from bodyfit.errors import BodyfitError


class ServiceError(BodyfitError):
    """The server refused, could not be reached, or did not end what it began."""

    exit_code = 5


class UnavailableError(ServiceError):
    """The server cannot be reached, or the connection broke."""


class QueueFullError(ServiceError):
    """The server has no room: its queue, the caller's limit, or the memory for recordings is used up.

    Args:
        message: what is full.
        retry_after_s: when to come back, seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class WorkerDiedError(ServiceError):
    """The process that computed died; the same request may do so again."""


class DeadlineError(ServiceError):
    """The call's deadline has passed; what it computed was stopped."""


class CancelledError(ServiceError):
    """The call was cancelled; what it computed was stopped."""


class DrainingError(ServiceError):
    """The server is going away and takes no new calls."""


class UnauthenticatedError(ServiceError):
    """No token, or one that the server does not know."""


class PermissionDeniedError(ServiceError):
    """The caller is known and may not do that."""


class NotFoundError(ServiceError):
    """What the request names is not there (any more): a recording whose upload was not finished."""


class TooLargeError(ServiceError):
    """More than the server takes: a message, a recording, a result."""
