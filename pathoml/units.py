"""Names for the units that numbers carry, and aliases for the arrays that hold them."""

from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

Micrometres = NewType("Micrometres", float)
MicronsPerPixel = NewType("MicronsPerPixel", float)
Days = NewType("Days", float)

RgbImage = NDArray[np.uint8]  # (rows, columns, 3)
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
AnyArray = NDArray[Any]

DAYS_PER_UNIT: dict[str, float] = {"days": 1.0, "weeks": 7.0, "months": 365.25 / 12, "years": 365.25}

MPP_TOLERANCE = 0.02
"""Relative difference up to which two resolutions are taken as the same, unless settings say otherwise."""
