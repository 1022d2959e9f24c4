"""One BLAS thread while a fit runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class Unheld:
    """Holds nothing: where threadpoolctl is missing, OPENBLAS_NUM_THREADS and the like are what holds threads."""

    def limit(self, *, limits: int, user_api: str) -> AbstractContextManager[None]:
        """Does nothing."""
        del limits, user_api
        return nullcontext()


def find_blas() -> ThreadpoolController | Unheld:
    """What holds the threads of the libraries that are loaded by now: looking for them takes 2 ms."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return Unheld()
    return ThreadpoolController()


@contextmanager
def one_blas_thread(found: ThreadpoolController | Unheld | None = None) -> Iterator[None]:
    """Holds numpy's and scipy's BLAS to one thread: theirs would fight with the fit's own for the same cores, and how
    many there are would decide the last bits of a result."""
    with (found or find_blas()).limit(limits=1, user_api="blas"):
        yield
