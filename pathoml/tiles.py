"""The tiles of an open slide: laid where its tissue is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pathoml.artefacts import (
    QualitySettings,
    TileFlag,
    find_blood_or_pigment,
    find_bubbles,
    find_folds,
    find_ink,
)
from pathoml.errors import NotBrightfieldError, NoTissueError
from pathoml.slides import Slide, whole_slide_image
from pathoml.tiling import TileGrid, TilingSettings, make_grid
from pathoml.tissue import ClassicalTissueSettings, TissueMask, find_tissue
from pathoml.units import BoolArray, RgbImage

_DARK, _MOSTLY = 40, 0.5
"""Glass is bright: a slide of which half is below this grey level was not seen against light."""

TissueFinder = Callable[[Slide, RgbImage, float, BoolArray], BoolArray]
"""(open slide, picture of it, the picture's microns per pixel, ink) -> tissue, of the picture's shape."""


def classical_finder(settings: ClassicalTissueSettings) -> TissueFinder:
    """Return the finder that needs nothing but the picture.

    Parameters
    ----------
    settings : ClassicalTissueSettings
        Thresholds.

    Returns
    -------
    TissueFinder
        `pathoml.tissue.find_tissue` with these settings.
    """

    def find(slide: Slide, picture: RgbImage, mpp: float, ink: BoolArray) -> BoolArray:
        return find_tissue(picture, mpp, settings, ink=ink)

    return find


_DEFAULT_TISSUE, _DEFAULT_QUALITY = ClassicalTissueSettings(), QualitySettings()
_DEFAULT_FINDER = classical_finder(_DEFAULT_TISSUE)


@dataclass(frozen=True)
class Look:
    """How a slide is looked at from afar.

    Parameters
    ----------
    mask_mpp : float
        Microns per pixel of the picture and its masks.
    find : TissueFinder
        Finds the tissue.
    quality : QualitySettings
        Which artefacts are found and dropped.
    """

    mask_mpp: float = _DEFAULT_TISSUE.mask_mpp
    find: TissueFinder = _DEFAULT_FINDER
    quality: QualitySettings = _DEFAULT_QUALITY


@dataclass(frozen=True)
class LaidTiles:
    """What was seen of a slide and where its tiles came to lie.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The whole slide at the resolution of the mask.
    mask : TissueMask
        Over the whole slide.
    grid : TileGrid
        Possibly empty.
    """

    picture: RgbImage
    mask: TissueMask
    grid: TileGrid


def lay_tiles(slide: Slide, look: Look, tiling: TilingSettings) -> LaidTiles:
    """Look at a slide from afar, find its tissue and what is wrong with it, and lay tiles over it.

    Parameters
    ----------
    slide : Slide
        Open.
    look : Look
        How tissue and artefacts are found.
    tiling : TilingSettings
        How tiles are laid.

    Returns
    -------
    LaidTiles
        Picture, mask and grid.

    Raises
    ------
    MissingMppError
        If the slide's resolution cannot be used.
    NotBrightfieldError
        If most of the slide is black.
    """
    picture = whole_slide_image(slide, look.mask_mpp)
    dark = float((picture.max(axis=-1) < _DARK).mean())
    if dark > _MOSTLY:
        raise NotBrightfieldError(
            f"{slide.path.name}: {dark:.0%} of the picture is black, as in fluorescence or with inverted colours; only "
            "brightfield slides (H&E, IHC) are read, take it out of the manifest"
        )
    mask = see_slide(slide, picture, look)
    grid = make_grid(slide.geometry, mask, tiling, slide.path.name, flag_share=look.quality.flag_share)
    return LaidTiles(picture, mask, grid)


def see_slide(slide: Slide, picture: RgbImage, look: Look) -> TissueMask:
    """Find tissue and artefacts in the picture of a slide.

    Parameters
    ----------
    slide : Slide
        Open.
    picture : ndarray of uint8, shape (rows, columns, 3)
        The whole slide at ``look.mask_mpp``.
    look : Look
        How they are found.

    Returns
    -------
    TissueMask
        Of the picture's shape; artefacts that are dropped are cut out of the tissue.
    """
    mpp, quality = look.mask_mpp, look.quality
    ink = find_ink(picture, mpp, quality)
    tissue = look.find(slide, picture, mpp, ink)
    bubbles = find_bubbles(picture, mpp, quality, ink=ink)
    clear = tissue & ~ink & ~bubbles
    artefacts = {
        TileFlag.PEN: ink,
        TileFlag.BUBBLE: bubbles,
        TileFlag.FOLD: find_folds(picture, clear, mpp, quality),
        TileFlag.BLOOD_OR_PIGMENT: find_blood_or_pigment(picture, clear, mpp, quality),
    }
    cut = [where for artefact, where in artefacts.items() if quality.drops(artefact)]
    return TissueMask(tissue & ~np.any(cut, axis=0) if cut else tissue, artefacts)


def tissue_grid(slide: Slide, look: Look, tiling: TilingSettings) -> TileGrid:
    """Lay tiles over the tissue of an open slide.

    Parameters
    ----------
    slide : Slide
        Open.
    look : Look
        How tissue is found.
    tiling : TilingSettings
        How tiles are laid.

    Returns
    -------
    TileGrid
        With at least one tile.

    Raises
    ------
    MissingMppError
        If the slide's resolution cannot be used.
    NoTissueError
        If no tile holds enough tissue.
    """
    return filled_grid(lay_tiles(slide, look, tiling), slide, tiling)


def filled_grid(laid: LaidTiles, slide: Slide, tiling: TilingSettings) -> TileGrid:
    """Return the grid if it holds a tile.

    Parameters
    ----------
    laid : LaidTiles
        The slide's tiles.
    slide : Slide
        For the message.
    tiling : TilingSettings
        For the message.

    Returns
    -------
    TileGrid
        With at least one tile.

    Raises
    ------
    NoTissueError
        If no tile holds enough tissue.
    """
    if len(laid.grid) == 0:
        raise NoTissueError(
            f"{slide.path.name}: no tile holds {tiling.min_tissue_share:.0%} tissue; look at its contact sheet, and if there "
            "is some, lower tissue.min_saturation"
        )
    return laid.grid
