"""One BLAS thread while a fit runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Holds numpy's and scipy's BLAS to one thread: theirs would fight with the fit's own for the same cores, and how
    many there are would decide the last bits of a result."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
