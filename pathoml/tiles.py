"""The tiles of an open slide: laid where its tissue is."""

from dataclasses import dataclass

from pathoml.errors import NotBrightfieldError, NoTissueError
from pathoml.slides import Slide, whole_slide_image
from pathoml.tiling import TileGrid, TilingSettings, make_grid
from pathoml.tissue import TissueMask, TissueSettings, find_tissue
from pathoml.units import RgbImage

_DARK, _MOSTLY = 40, 0.5
"""Glass is bright: a slide of which half is below this grey level was not seen against light."""


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


def lay_tiles(slide: Slide, tissue: TissueSettings, tiling: TilingSettings) -> LaidTiles:
    """Look at a slide from afar, find its tissue and lay tiles over it.

    Parameters
    ----------
    slide : Slide
        Open.
    tissue : TissueSettings
        How tissue is found.
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
    picture = whole_slide_image(slide, tissue.mask_mpp)
    dark = float((picture.max(axis=-1) < _DARK).mean())
    if dark > _MOSTLY:
        raise NotBrightfieldError(
            f"{slide.path.name}: {dark:.0%} of the picture is black, as in fluorescence or with inverted colours; only "
            "brightfield slides (H&E, IHC) are read, take it out of the manifest"
        )
    mask = find_tissue(picture, tissue.mask_mpp, tissue)
    return LaidTiles(picture, mask, make_grid(slide.geometry, mask, tiling, slide.path.name))


def tissue_grid(slide: Slide, tissue: TissueSettings, tiling: TilingSettings) -> TileGrid:
    """Lay tiles over the tissue of an open slide.

    Parameters
    ----------
    slide : Slide
        Open.
    tissue : TissueSettings
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
    return filled_grid(lay_tiles(slide, tissue, tiling), slide, tiling)


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
            f"{slide.path.name}: no tile holds {tiling.min_tissue_share:.0%} tissue; if there is some, lower "
            "tissue.min_saturation"
        )
    return laid.grid
