"""Noise that nobody can foresee, and sums with so much of it that no single patient shows; torch-free."""

import math
import os
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from pathoml.errors import FederationError
from pathoml.units import FloatArray

Draw = Callable[[int], FloatArray]
"""Gives so many independent numbers, uniform between 0 and 1, neither of which it ever gives."""

_BITS = 52
_GRID = 2.0**-20
"""Released sums are rounded to so small a part of the noise: their last digits would tell what was added to what (Mironov 2012)."""


def system_draw(count: int) -> FloatArray:
    """Draw from the operating system's cryptographic source: no seed exists that could be guessed, found or replayed.

    Parameters
    ----------
    count : int
        How many.

    Returns
    -------
    ndarray of float64, shape (count,)
        Strictly between 0 and 1.
    """
    bits = np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(64 - _BITS)
    return (bits.astype(np.float64) + 0.5) * 2.0**-_BITS


def gaussian(count: int, draw: Draw) -> FloatArray:
    """Draw from the standard normal distribution.

    Parameters
    ----------
    count : int
        How many.
    draw : callable
        Source of chance.

    Returns
    -------
    ndarray of float64, shape (count,)
        Mean 0, standard deviation 1.
    """
    noise: FloatArray = ndtri(draw(count))
    return noise


def seeds(count: int, draw: Draw) -> list[int]:
    """Draw seeds for generators that have to have one.

    Parameters
    ----------
    count : int
        How many.
    draw : callable
        Source of chance.

    Returns
    -------
    list of int
        Below 2**52.
    """
    return [int(value * 2.0**_BITS) for value in draw(count)]


def release_sum(values: FloatArray, bound: float, noise_multiplier: float, draw: Draw = system_draw) -> float:
    """Sum one number a patient, each clipped, and add noise: what is left of a metric once it may leave.

    One patient more or less changes the sum by `bound` at most. To be counted as a release of sample rate 1.

    Parameters
    ----------
    values : ndarray, shape (patients,)
        One number a patient, for example its loss.
    bound : float
        Values are clipped to lie between -bound and bound.
    noise_multiplier : float
        Standard deviation of the noise in units of `bound`.
    draw : callable, optional
        Source of chance; anything but the default is for tests.

    Returns
    -------
    float
        The noised sum.

    Raises
    ------
    FederationError
        If a value, or the bound, is not a finite number.
    """
    if not (np.isfinite(values).all() and math.isfinite(bound)):
        raise FederationError("a metric that is not a finite number for every patient cannot be released with noise")
    deviation = noise_multiplier * bound
    total = float(np.clip(values, -bound, bound).sum()) + deviation * float(gaussian(1, draw)[0])
    if deviation == 0:
        return total
    grid = 2.0 ** math.floor(math.log2(deviation)) * _GRID
    return round(total / grid) * grid
