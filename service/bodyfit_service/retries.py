"""When a client tries again, and after how long.

Every call of this service computes something and changes nothing that another call sees, so that doing it twice costs
time alone. Still only what was plainly not done is sent again: a server that could not be reached or is going away, and
one that is full and says when to come back. What died or failed while it was computed (ABORTED, INTERNAL) would do
so again: it is for the caller to decide.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bodyfit.errors import InputError

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True)
class Retries:
    """How often and after how long.

    Attributes:
        attempts: calls in all, the first included; 1 never tries again.
        first_wait_s: before the second attempt; each later wait is twice as long.
        longest_wait_s: no wait of the client's own is longer; what the server asks for is waited up to
            `longest_asked_s`, and where it asks for more the error is handed on.
        restarts: how often a recording whose upload the server no longer has is sent from its start again.
    """

    attempts: int = 5
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    longest_asked_s: float = 60.0
    restarts: int = 2

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.restarts < 0:
            raise InputError("retries", "one attempt at least, no fewer than 0 restarts", str(self))
        if not (self.first_wait_s >= 0 and self.longest_wait_s >= 0 and self.longest_asked_s >= 0):
            raise InputError("retries", "waits of 0 s or more", str(self))

    def wait_s(self, error: grpc.RpcError, attempt: int, *, accepted: bool) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none.

        Args:
            error: what the attempt ended with.
            attempt: how many there were.
            accepted: whether the server had taken the call on.
        """
        import grpc

        if attempt >= self.attempts:
            return None
        code = code_of(error)
        own = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        # spread out, so that clients that were refused together do not come back together
        if code is grpc.StatusCode.UNAVAILABLE and not accepted:
            return own * random.uniform(0.5, 1.0)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            asked = asked_wait_s(error)
            # without a time it is no matter of waiting: the message was too large
            if asked is None or asked > self.longest_asked_s:
                return None
            return asked + max(asked, own) * random.uniform(0.0, 0.25)
        return None


NEVER = Retries(attempts=1, restarts=0)
"""Every error is handed on at once."""


def code_of(error: Any) -> Any:
    """grpc.StatusCode of what a call raised; UNKNOWN where it has none."""
    import grpc

    code = error.code() if hasattr(error, "code") else None
    return grpc.StatusCode.UNKNOWN if code is None else code


def was_accepted(error: Any) -> bool:
    """Whether the server had said that it took the call on: it names the request in initial metadata then."""
    from bodyfit_service.channel import REQUEST_ID

    initial = error.initial_metadata() if hasattr(error, "initial_metadata") else None
    return any(key == REQUEST_ID for key, _ in initial or ())


def asked_wait_s(error: Any) -> float | None:
    """Seconds that the server asks to wait (google.rpc.RetryInfo); None where it does not."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    try:
        status = rpc_status.from_call(error)
    except ValueError:  # code and details of the two statuses differ: somebody else's
        return None
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None
