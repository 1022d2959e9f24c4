"""Who runs a fit may watch its steps, and end it between any two of them.

`fit(..., cancelled=)` ends a fit softly, with what it has. A service wants none of it any more when its client has
gone: what the watcher raises goes through the library as it is, from the next checkpoint, which is some ten
milliseconds away wherever a fit in one thread is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[["float | None"], None]
"""Called with the cost after a step of an optimiser (half a sum of squared residuals over their sigmas, without unit),
with None between steps; may raise."""

_watcher: ContextVar[Watcher | None] = ContextVar("bodyfit_watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Has `watcher` called at every checkpoint that this thread passes inside of the `with`."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def checkpoint(cost: float | None = None) -> None:
    """A place where a fit can be ended: called between parts of the work that take some ten milliseconds."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(cost)
