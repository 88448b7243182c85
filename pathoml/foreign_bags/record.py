"""A bag of another tool, once read: the same words for every layout."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathoml.errors import BadMppError, BagFormatError, MissingMppError, NoTissueError
from pathoml.slides.base import MPP_RANGE
from pathoml.units import AnyArray, IntArray

MPP_ATTRIBUTE = "level0_mpp"
"""Our addition to every layout: microns per level-0 pixel in x and y. The layouts' own readers pass it over."""
TILE_PX_ATTRIBUTE = "tile_px"
"""Our addition to CLAM's layout: side of a tile as the encoder's input was read, where patches are only known at level 0."""
_MAX_LEVEL0_PX = float(np.iinfo(np.int32).max)
_REFUSED = "refused"


@dataclass(frozen=True)
class Known:
    """What is known of a slide beside its foreign file.

    Parameters
    ----------
    encoder : str or None
        Name of the encoder, as the user gives it.
    mpp : tuple of float or None
        Microns per level-0 pixel in x and y; wins over what the file says.
    mpp_from : str
        ``option`` or ``manifest``.
    metadata_mpp : tuple of float or None
        The same from the slide's own metadata; taken where nothing else says it.
    """

    encoder: str | None = None
    mpp: tuple[float, float] | None = None
    mpp_from: str = "option"
    metadata_mpp: tuple[float, float] | None = None


@dataclass(frozen=True)
class ForeignBag:
    """The bag of one slide as another tool wrote it, in level-0 pixels.

    Parameters
    ----------
    layout : str
        ``trident``, ``clam`` or ``stamp``.
    features : ndarray of float, shape (tiles, dim)
        One row per tile, in the file's order.
    coords : ndarray of int64, shape (tiles, 2)
        Top-left corner (x, y) in level-0 pixels.
    footprint_level0_px : tuple of float
        Width and height of a tile in level-0 pixels.
    step_level0_px : tuple of float or None
        Distance of neighbouring tiles in x and y; None where the layout does not say it.
    tile_px : int
        Side of a tile in pixels, as it was read.
    encoder : str
        What the layout, or the user, calls the encoder.
    mpp : tuple of float
        Microns per level-0 pixel in x and y.
    mpp_from : str
        ``option``, ``manifest``, ``file`` or ``metadata``.
    asked_mpp : float or None
        Resolution that was asked for, where the layout says one.
    extent_px : tuple of int
        Width and height of level 0; zeros where the layout does not say it.
    """

    layout: str
    features: AnyArray
    coords: IntArray
    footprint_level0_px: tuple[float, float]
    step_level0_px: tuple[float, float] | None
    tile_px: int
    encoder: str
    mpp: tuple[float, float]
    mpp_from: str
    asked_mpp: float | None
    extent_px: tuple[int, int]

    @property
    def mpp_read(self) -> tuple[float, float]:
        """Microns per pixel of the tiles in x and y."""
        x, y = (side * mpp / self.tile_px for side, mpp in zip(self.footprint_level0_px, self.mpp, strict=True))
        return x, y


def resolve_mpp(name: str, known: Known, in_file: tuple[float, ...] | None) -> tuple[tuple[float, float], str]:
    """Return the resolution of level 0 and who says it; it is never guessed.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    known : Known
        What the user, the manifest and the slide say.
    in_file : tuple of float or None
        What the file says.

    Returns
    -------
    tuple of (tuple of float, str)
        Microns per pixel in x and y; ``option``, ``manifest``, ``file`` or ``metadata``.

    Raises
    ------
    MissingMppError
        If nobody says it.
    BadMppError
        If what is said is implausible.
    """
    if in_file is not None and len(in_file) != 2:
        raise BagFormatError(
            f"{name}: attribute '{MPP_ATTRIBUTE}' holds {len(in_file)} values, expected x and y; {_REFUSED}"
        )
    said = [
        (known.mpp, known.mpp_from),
        (None if in_file is None else (in_file[0], in_file[1]), "file"),
        (known.metadata_mpp, "metadata"),
    ]
    found = next(((mpp, source) for mpp, source in said if mpp is not None), None)
    if found is None:
        raise MissingMppError(
            f"{name}: microns per pixel of the slide are not in the file, and a magnification does not say them;"
            " give --mpp, or a --manifest whose column mpp has them or whose slides are there"
        )
    low, high = MPP_RANGE
    if not all(low <= value <= high for value in found[0]):
        raise BadMppError(
            f"{name}: microns per pixel {found[0]} ({found[1]}) are outside {low}-{high}; give the right value with --mpp"
        )
    return found


def resolve_encoder(name: str, *names: str | None) -> str:
    """Return the first name that somebody gives the encoder.

    Parameters
    ----------
    name : str
        Of the file, for the message.
    *names : str or None
        From the user, the file, its folder, in this order.

    Returns
    -------
    str
        The encoder's name.

    Raises
    ------
    BagFormatError
        If nobody names it.
    """
    for one in names:
        if one and one.isprintable():
            return one
    raise BagFormatError(f"{name}: the encoder is not named in the file; give --encoder")


def checked_arrays(name: str, features: AnyArray, coords: AnyArray) -> tuple[AnyArray, IntArray]:
    """Refuse tiles that are none, not finite, or nowhere on a slide.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    features : ndarray, shape (tiles, dim)
        As read.
    coords : ndarray, shape (tiles, 2)
        Corners in level-0 pixels, as read or converted.

    Returns
    -------
    tuple of ndarray
        Features as they are; coordinates as whole pixels.

    Raises
    ------
    NoTissueError
        If there is no tile.
    BagFormatError
        If shapes disagree, or values are not finite or out of range.
    """
    if features.ndim != 2 or features.dtype.kind != "f":
        raise BagFormatError(
            f"{name}: features are {features.dtype} of shape {features.shape}, expected floats (tiles, columns); {_REFUSED}"
        )
    if coords.shape != (len(features), 2):
        raise BagFormatError(
            f"{name}: coordinates have shape {coords.shape} for {len(features)} tiles, expected ({len(features)}, 2); {_REFUSED}"
        )
    if len(features) == 0:
        raise NoTissueError(f"{name}: no tiles, that is no tissue was found; there is no bag to make")
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise BagFormatError(
            f"{name}: features of {broken.sum()} of {len(features)} tiles hold NaN or infinity; make the file again"
        )
    if not np.isfinite(coords).all() or coords.min() < 0 or coords.max() > _MAX_LEVEL0_PX:
        raise BagFormatError(f"{name}: coordinates are not finite, negative or too large for a slide; {_REFUSED}")
    whole: NDArray[np.int64] = np.rint(coords).astype(np.int64)
    return features, whole


def required(name: str, attribute: str, value: float | None) -> float:
    """Return a number that a layout always has.

    Parameters
    ----------
    name : str
        Of the file, for the message.
    attribute : str
        Of the number.
    value : float or None
        As read.

    Returns
    -------
    float
        Above zero.

    Raises
    ------
    BagFormatError
        If it is missing or not above zero.
    """
    if value is None or value <= 0:
        found = "missing" if value is None else f"{value:g}"
        raise BagFormatError(f"{name}: attribute '{attribute}' is {found}, expected a number above zero; {_REFUSED}")
    return value


def required_px(name: str, attribute: str, value: float | None) -> int:
    """Return a whole number of pixels that a layout always has.

    Parameters
    ----------
    name : str
        Of the file, for the message.
    attribute : str
        Of the number.
    value : float or None
        As read.

    Returns
    -------
    int
        Above zero.

    Raises
    ------
    BagFormatError
        If it is missing, not whole or not above zero.
    """
    number = required(name, attribute, value)
    if number != int(number):
        raise BagFormatError(f"{name}: attribute '{attribute}' is {number:g}, expected whole pixels; {_REFUSED}")
    return int(number)
