"""The tiles of an open slide: laid where its tissue is."""

from pathoml.errors import NoTissueError
from pathoml.slides import Slide, whole_slide_image
from pathoml.tiling import TileGrid, TilingSettings, make_grid
from pathoml.tissue import TissueSettings, find_tissue


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
