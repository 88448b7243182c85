"""How much of a step's graphs may be kept from its first pass to its second."""

import math
from collections.abc import Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_ALIGNED = 64
_current: ContextVar["Room | None"] = ContextVar("room", default=None)


class Room:
    """Memory for graphs that wait for their gradient, counted while they are made.

    Inside ``with room:`` every tensor that a graph saves is counted once, and `pathoml.mil.pieces` keeps of tiles what is
    dear to compute again as long as that fits, and nothing else.

    Parameters
    ----------
    size : float
        Bytes.
    free : iterable of Tensor, optional
        Tensors that are in memory anyway.

    Attributes
    ----------
    left : float
        Bytes that are not taken yet; below 0 when there was not enough.
    """

    def __init__(self, size: float, free: Iterable[Tensor] = ()) -> None:
        self.left = size
        self._counted = {_storage(one) for one in free}
        self._hooks = saved_tensors_hooks(self._count, lambda saved: saved)
        self._outer: Token[Room | None] | None = None
        self._shelf: Tensor | None = None
        self._used = 0

    @property
    def is_full(self) -> bool:
        """Whether graphs hold more than there was room for."""
        return self.left < 0

    def holds(self, size: float) -> bool:
        """Tell whether so much still fits.

        Parameters
        ----------
        size : float
            Bytes.

        Returns
        -------
        bool
            Nothing is counted until a graph saves it.
        """
        return size <= self.left

    def keep(self, tensor: Tensor) -> Tensor:
        """Put a tensor where it lies beside others that are kept, so that what is freed between them leaves no holes.

        Parameters
        ----------
        tensor : Tensor
            For which there is room.

        Returns
        -------
        Tensor
            The same numbers; on a GPU, whose memory is handed out in another way, or where there is no limit, the same tensor.
        """
        if math.isinf(self.left) or tensor.device.type != "cpu":
            return tensor
        if self._shelf is None:
            self._shelf = torch.empty(
                int(self.left) + _ALIGNED, dtype=torch.uint8
            )  # the system gives pages when they are used
            self._counted.add(_storage(self._shelf))
        start, size = self._used, tensor.numel() * tensor.element_size()
        if start + size > len(self._shelf):
            return tensor
        self._used += -(-size // _ALIGNED) * _ALIGNED
        self.left -= size
        return self._shelf[start : start + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def __enter__(self) -> Self:
        self._outer = _current.set(self)
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        if self._outer is not None:
            _current.reset(self._outer)

    def _count(self, saved: Tensor) -> Tensor:
        place = _storage(saved)
        if place not in self._counted:
            self._counted.add(place)
            self.left -= saved.untyped_storage().nbytes()
        return saved


def current_room() -> Room | None:
    """Return the room of the step that is being taken in two passes, if one is.

    Returns
    -------
    Room or None
        None where everything may be kept.
    """
    return _current.get()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
