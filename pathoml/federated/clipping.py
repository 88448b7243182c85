"""How long an update is, and the same update no longer than a limit; pure functions of named arrays."""

import math
from collections.abc import Mapping

import numpy as np

from pathoml.errors import FederationError
from pathoml.units import AnyArray


def update_norm(arrays: Mapping[str, AnyArray]) -> float:
    """Return the length of all floating-point arrays together.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        An update: new weights less old ones. Whole numbers are no part of it.

    Returns
    -------
    float
        Euclidean norm, summed in float64; infinite if a value is, or if squares are too large to add up; NaN if a value is.
    """
    with np.errstate(over="ignore"):
        squares = [float(np.square(one.astype(np.float64)).sum()) for one in arrays.values() if _is_float(one)]
        total = sum(squares)
    return math.sqrt(math.fsum(squares)) if math.isfinite(total) else total


def change_norm(before: Mapping[str, AnyArray], after: Mapping[str, AnyArray]) -> float:
    """Return the length of a model's change, over all of its arrays together.

    Parameters
    ----------
    before, after : mapping of str to ndarray
        The same names and shapes.

    Returns
    -------
    float
        Of `update_norm`: infinite where it cannot be added up, so that no limit lets it through.
    """
    return update_norm(
        {name: np.asarray(after[name], dtype=np.float64) - one.astype(np.float64) for name, one in before.items()}
    )


def clip_update(arrays: Mapping[str, AnyArray], limit: float) -> dict[str, AnyArray]:
    """Shorten an update that is longer than a limit; its direction stays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        An update: new weights less old ones; not changed.
    limit : float
        Longest that may leave.

    Returns
    -------
    dict of str to ndarray
        Arrays of the same names and types, together no longer than the limit but for the rounding of their type.

    Raises
    ------
    FederationError
        If a value is not a finite number: no factor makes such an update fit.
    """
    norm = update_norm(arrays)
    if not math.isfinite(norm):
        bad = sorted(name for name, one in arrays.items() if _is_float(one) and not np.isfinite(one).all())
        raise FederationError(
            f"update with values that are no finite numbers, or too large to add up: {', '.join(bad)}"
        )
    if norm <= limit:
        return dict(arrays)
    return {name: _shortened(one, limit / norm) if _is_float(one) else one for name, one in arrays.items()}


def _shortened(array: AnyArray, factor: float) -> AnyArray:
    return (array.astype(np.float64) * factor).astype(array.dtype)


def _is_float(array: AnyArray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))
