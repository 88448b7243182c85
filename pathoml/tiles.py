"""The tiles of an open slide: where its tissue is, and the pixels of one tile."""

import cv2
import numpy as np

from pathoml.errors import NoTissueError
from pathoml.slides import Slide, whole_slide_image
from pathoml.tiling import ReadPlan, TileGrid, TilingSettings, make_grid
from pathoml.tissue import TissueSettings, find_tissue
from pathoml.units import RgbImage


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
    picture = whole_slide_image(slide, tissue.mask_mpp)
    grid = make_grid(slide.geometry, find_tissue(picture, tissue.mask_mpp, tissue), tiling, slide.path.name)
    if len(grid) == 0:
        raise NoTissueError(
            f"{slide.path.name}: no tile holds {tiling.min_tissue_share:.0%} tissue; if there is some, lower tissue.min_saturation"
        )
    return grid


def read_tile(slide: Slide, xy_level0_px: tuple[int, int], plan: ReadPlan) -> RgbImage:
    """Read one tile at the resolution asked for.

    Parameters
    ----------
    slide : Slide
        Open.
    xy_level0_px : tuple of int
        Top-left corner.
    plan : ReadPlan
        Level, rectangle and tile size.

    Returns
    -------
    ndarray of uint8, shape (tile_px, tile_px, 3)
        RGB; beyond the slide's edge its background colour.

    Raises
    ------
    DamagedSlideError
        If the stored data cannot be decoded.
    """
    pixels = slide.read_region(xy_level0_px, plan.level, plan.read_px).pixels
    if not plan.resized:
        return pixels
    method = cv2.INTER_AREA if plan.read_px[0] >= plan.tile_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (plan.tile_px, plan.tile_px), interpolation=method))
