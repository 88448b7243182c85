"""Threads of numpy's matrix products."""

import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep numpy's matrix products on one thread, as a context or a decorator.

    Statistics of a cohort multiply many small matrices: threads that wait for one another at each of them take many times as
    long as one that does the work (fifteen times where something else runs beside), and none is won. It holds for the whole
    process, from where the first thread enters to where the last one leaves. Other libraries than OpenBLAS, which numpy and
    scipy come with, are left as they are.

    Yields
    ------
    None
        While at most one thread multiplies.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


_lock = threading.Lock()
_inside = 0
_limited: AbstractContextManager[object] | None = None


def _enter() -> None:
    global _inside, _limited  # noqa: PLW0603 - threads of BLAS are the process's, and so is who has asked for one
    with _lock:
        if _inside == 0:
            _limited = _controller().limit(limits=1, user_api="blas")
            _limited.__enter__()
        _inside += 1


def _leave() -> None:
    global _inside, _limited  # noqa: PLW0603
    with _lock:
        _inside -= 1
        if _inside == 0 and _limited is not None:
            _limited.__exit__(None, None, None)
            _limited = None


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  its library has threads of its own, and is known only once it is loaded

    return ThreadpoolController().select(internal_api="openblas")
