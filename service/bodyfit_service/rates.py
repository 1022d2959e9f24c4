"""How many calls each caller may begin in a minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bodyfit_service.auth import Caller
from bodyfit_service.errors import QueueFullError

MINUTE_S = 60.0


class Rates:
    """Keeps when each caller's calls of the last 60 seconds began; one thread (the server's event loop) uses it.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # one entry for each token of the file with a limit: it cannot grow without end
        self._begun: dict[str, deque[float]] = {}

    def begin(self, caller: Caller) -> None:
        """Counts a call.

        Raises:
            QueueFullError: the caller began as many in the last 60 seconds as they may; it says when the next one may.
        """
        if caller.per_minute is None:
            return
        now = self._clock()
        times = self._begun.setdefault(caller.name, deque())
        while times and times[0] <= now - MINUTE_S:
            times.popleft()
        if len(times) >= caller.per_minute:
            message = f"{caller.name} began {caller.per_minute} calls in the last minute, which is the limit"
            raise QueueFullError(message, retry_after_s=times[0] + MINUTE_S - now)
        times.append(now)
