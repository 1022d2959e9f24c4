"""What can go wrong between a client and a server; bad input is bodyfit.errors.InputError on both sides."""

from __future__ import annotations

from bodyfit.errors import BodyfitError, InputError


class ServiceError(BodyfitError):
    """The server refused, failed or could not be reached; the command line ends with exit code 5.

    Attributes:
        request_id: as the server's log names the request; empty where it is not known.
    """

    exit_code = 5
    request_id: str = ""


class QueueFullError(ServiceError):
    """The server has no room now: its queue, its streams or this client's share of them are used up.

    Args:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class WorkerDiedError(ServiceError):
    """The process that computed ended in the middle of it; the same request may end the next one too."""


class DeadlineError(ServiceError):
    """The call's deadline passed before it was done."""


class CancelledError(ServiceError):
    """The call was cancelled."""


class UnavailableError(ServiceError):
    """No server answers at that address, or the connection to it broke."""


class DrainingError(UnavailableError):
    """The server is about to end and takes no new requests."""


class UnauthenticatedError(ServiceError):
    """No token, or not one that the server knows."""


class PermissionDeniedError(ServiceError):
    """The token is known, but not allowed to do this."""


class NotFoundError(ServiceError):
    """No such recording_id: never given, or no longer kept."""


class TooLargeError(InputError, ServiceError):
    """More than the server's limits allow: see GetServerInfo."""


class ServerFailedError(ServiceError):
    """The server could not do it for reasons of its own; its log says more about `request_id`."""
