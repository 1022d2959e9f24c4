"""One BLAS thread while a fit runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


def find_blas() -> ThreadpoolController:
    """What holds the threads of the libraries that are loaded by now: looking for them takes 2 ms."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_blas_thread(found: ThreadpoolController | None = None) -> Iterator[None]:
    """Holds numpy's and scipy's BLAS to one thread: theirs would fight with the fit's own for the same cores, and how
    many there are would decide the last bits of a result."""
    with (found or find_blas()).limit(limits=1, user_api="blas"):
        yield
