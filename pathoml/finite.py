"""Whether all numbers of an array are finite, told piece by piece, as they are read."""

from typing import Any

import numpy as np

from pathoml.units import AnyArray

_BITS: dict[int, tuple[type[np.signedinteger[Any]], type[np.unsignedinteger[Any]], int, int]] = {
    2: (np.int16, np.uint16, 0x7C00, 0xFC00),
    4: (np.int32, np.uint32, 0x7F800000, 0xFF800000),
}
"""By bytes of a number: its bits as integers with and without sign, and the bits of infinity and of its negative. Above
either, among numbers of the same sign, there is only NaN; and negative numbers are small with a sign and large without."""
_PIECE = 1 << 18
"""Numbers looked at at a time: half a megabyte of float16 stays in a core's cache, and a call costs little beside it."""


class FiniteLook:
    """A look at float16 or float32 numbers: by their bits, in pieces that stay in cache, many times faster than isfinite.

    Attributes
    ----------
    all_finite : bool
        Whether no NaN and no infinity was seen so far.
    """

    def __init__(self) -> None:
        self.all_finite = True

    def see(self, numbers: AnyArray) -> None:
        """Look at some of the numbers; several threads may do so at once.

        Parameters
        ----------
        numbers : ndarray, one-dimensional
            Nothing is said of other formats than float16 and float32, which nobody takes for features.
        """
        if numbers.dtype.kind != "f" or numbers.itemsize not in _BITS:
            return
        native = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
        signed, unsigned, infinity, negative = _BITS[numbers.itemsize]
        for start in range(0, len(native), _PIECE):
            piece = native[start : start + _PIECE]
            if piece.view(signed).max() >= infinity or piece.view(unsigned).max() >= negative:
                self.all_finite = False
                return
