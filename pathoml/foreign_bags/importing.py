"""A foreign bag -> a bag that trains, and what was decided on the way."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pathoml.bags import Bag, BagHeader
from pathoml.errors import BagFormatError
from pathoml.foreign_bags.lattice import Lattice, find_lattice
from pathoml.foreign_bags.record import ForeignBag
from pathoml.provenance import digest_of, pathoml_version
from pathoml.units import AnyArray, IntArray

IMPORT_READER = "import"
"""What an imported bag gives as its reader."""
_NOT_KNOWN = "imported"
_MPP_FACTOR = 4 / 3
"""Tiles that are this much finer or coarser than asked for were given a wrong resolution."""


@dataclass(frozen=True)
class SlideFacts:
    """What an imported bag says of its slide.

    Parameters
    ----------
    slide_id : str
        Name of the slide.
    fingerprint, digest : str, optional
        Fast and full SHA-256 of its files; empty where it is not at hand.
    extent_px : tuple of int, optional
        Width and height of level 0; zeros where it is not at hand.
    """

    slide_id: str
    fingerprint: str = ""
    digest: str = ""
    extent_px: tuple[int, int] = (0, 0)


class ImportedBag(NamedTuple):
    """A bag and what has to be said of how it came about.

    Parameters
    ----------
    bag : Bag
        Ready to be written.
    notes : tuple of str
        Half sentences.
    """

    bag: Bag
    notes: tuple[str, ...]


def import_bag(
    foreign: ForeignBag, slide: SlideFacts, *, target_mpp: float | None = None, weights_digest: str = ""
) -> ImportedBag:
    """Turn a foreign bag into one of ours.

    Parameters
    ----------
    foreign : ForeignBag
        As its layout's reader gives it.
    slide : SlideFacts
        The slide it belongs to.
    target_mpp : float, optional
        Resolution that was asked for; by default what the layout says, or the tiles' own.
    weights_digest : str, optional
        SHA-256 of the encoder's weights, where the user knows it.

    Returns
    -------
    ImportedBag
        Tiles sorted by row and column.

    Raises
    ------
    BagFormatError
        If tiles lie outside of the slide, or their resolution is far from the one asked for.
    """
    extent = slide.extent_px if all(slide.extent_px) else foreign.extent_px
    _check_inside(slide.slide_id, foreign.coords, extent)
    asked = _asked_mpp(slide.slide_id, foreign, target_mpp)
    lattice = find_lattice(foreign.coords, foreign.footprint_level0_px, foreign.step_level0_px)
    features, narrow = _narrowed(foreign.features)
    order = np.lexsort((lattice.grid[:, 1], lattice.grid[:, 0]))
    count = len(order)
    bag = Bag(
        _header(foreign, slide, extent, asked, lattice, weights_digest),
        features[order],
        foreign.coords[order].astype(np.int32),
        lattice.grid[order],
        np.ones(count, dtype=np.float32),
        np.zeros(count, dtype=np.uint8),
    )
    notes = [] if narrow else ["features stay float32, since some do not fit float16"]
    if not lattice.regular:
        notes.append("tiles lie on no regular grid, so rows and columns are their corners in pixels")
    return ImportedBag(bag, tuple(notes))


def _header(
    foreign: ForeignBag, slide: SlideFacts, extent: tuple[int, int], asked_mpp: float, lattice: Lattice, weights_digest: str
) -> BagHeader:  # fmt: skip
    return BagHeader(
        slide_id=slide.slide_id,
        slide_fingerprint=slide.fingerprint,
        slide_digest=slide.digest,
        width_px=extent[0],
        height_px=extent[1],
        slide_mpp=foreign.mpp,
        mpp_from=foreign.mpp_from,
        target_mpp=asked_mpp,
        mpp_read=foreign.mpp_read,
        tile_px=foreign.tile_px,
        footprint_level0_px=foreign.footprint_level0_px,
        stride_level0_px=lattice.stride,
        origin_level0_px=lattice.origin,
        encoder=f"imported-{foreign.layout}-{foreign.encoder}",
        weights_digest=weights_digest,
        precision_asked=_NOT_KNOWN,
        precision_used=_NOT_KNOWN,
        reader=IMPORT_READER,
        decode=_NOT_KNOWN,
        batch_tiles=0,
        batch_used=0,
        settings_digest=digest_of([foreign.layout, foreign.encoder, foreign.tile_px, asked_mpp]),
        lost_tiles=0,
        rejected={},
        regions_digest="",
        stain=_NOT_KNOWN,
        optical_density={},
        pathoml_version=pathoml_version(),
    )


def _check_inside(slide_id: str, coords: IntArray, extent: tuple[int, int]) -> None:
    if all(extent) and (coords.max(axis=0) >= np.asarray(extent)).any():
        x, y = coords.max(axis=0)
        raise BagFormatError(
            f"{slide_id}: a tile at ({x}, {y}) lies outside of the slide of {extent[0]} x {extent[1]} pixels;"
            " give the right slide and the right microns per pixel"
        )


def _asked_mpp(slide_id: str, foreign: ForeignBag, given: float | None) -> float:
    """Return the resolution asked for, which all bags of a cohort have to share, once it fits that of the tiles."""
    read = sum(foreign.mpp_read) / 2
    asked = given or foreign.asked_mpp or read
    if not 1 / _MPP_FACTOR <= read / asked <= _MPP_FACTOR:
        raise BagFormatError(
            f"{slide_id}: its tiles are {read:.4g} microns per pixel at {foreign.mpp[0]:.4g} of the slide ({foreign.mpp_from}),"
            f" but {asked:.4g} were asked for; give the right --mpp, or the right --target-mpp"
        )
    return round(asked, 6)


def _narrowed(features: AnyArray) -> tuple[NDArray[np.floating], bool]:
    """Return features as float16, as bags hold them, or as float32 where float16 cannot hold one of them."""
    with np.errstate(over="ignore"):  # what overflows stays as it is
        narrow = features.astype(np.float16)
        wide = features.astype(np.float32)
    return (narrow, True) if np.isfinite(narrow).all() else (wide, False)
