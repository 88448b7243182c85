"""Answers kept for the next time, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """Keeps the answers used last.

    Parameters
    ----------
    limit_bytes : int
        Of all of them together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held = limit_bytes, 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return an answer, made if it is not there; two threads may make the same one.

        Parameters
        ----------
        key : hashable
            Names it.
        make : callable
            Makes it.

        Returns
        -------
        bytes
            The answer.
        """
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = make()
        with self._lock:
            if key not in self._kept and len(made) <= self._limit:
                self._kept[key] = made
                self._held += len(made)
            while self._held > self._limit:
                self._held -= len(self._kept.popitem(last=False)[1])
        return made
