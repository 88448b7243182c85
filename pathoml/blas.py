"""Threads of numpy's matrix products."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep numpy's matrix products on one thread, as a context or a decorator.

    Statistics of a cohort multiply many small matrices: threads that wait for one another at each of them take many times as
    long as one that does the work (fifteen times where something else runs beside), and none is won. It holds for the whole
    process: to be entered where one thread leads, not inside threads that come and go.

    Yields
    ------
    None
        While at most one thread multiplies.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  its library has threads of its own, and is known only once it is loaded

    return ThreadpoolController().select(internal_api="openblas")
