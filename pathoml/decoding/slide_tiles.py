"""One slide -> its tiles, page by page, and everything a bag says that is not a feature."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts import optical_density_statistics
from pathoml.cohort import SlideEntry
from pathoml.contact_sheets import draw_contact_sheet, write_contact_sheet
from pathoml.errors import DamagedSlideError, NoTissueError, SlideError
from pathoml.extract_settings import Recipe
from pathoml.files import file_digest
from pathoml.geojson import regions_path
from pathoml.looks import look_at
from pathoml.slides import Slide, TileState, open_slide, slide_digest, slide_fingerprint
from pathoml.stain_settings import MacenkoSettings, ReinhardSettings
from pathoml.tiles import LaidTiles, ReadTiles, TileJudge, TissueFinder, filled_grid, lay_tiles, read_tiles
from pathoml.tiling import Rejection, TileGrid
from pathoml.tissue import GeojsonTissueSettings, ModelTissueSettings, TissueSettings
from pathoml.units import FloatArray, RgbImage

_GLASS = 230
"""Grey level from which a pixel is glass in every colour."""


class TileSink(Protocol):
    """Where decoded tiles go."""

    def stain(self, fitted: FloatArray) -> None:
        """Take a slide's own colours, before its first page.

        Parameters
        ----------
        fitted : ndarray of float64
            From `pathoml.stain.fit_stain`.
        """

    def page(self) -> RgbImage:
        """Return memory for the next tiles, waiting until there is some.

        Returns
        -------
        ndarray of uint8, shape (tiles, side, side, 3)
            To be written to.
        """

    def deliver(self, rows: NDArray[np.int64]) -> None:
        """Take the first tiles of the page.

        Parameters
        ----------
        rows : ndarray of int64, shape (tiles,)
            Their rows of the slide's grid.
        """


@dataclass(frozen=True)
class SlideTiles:
    """What became of a slide's tiles: all that its bag says besides the features.

    Parameters
    ----------
    facts : dict
        Fields of `BagHeader` that do not depend on the encoder.
    coords : ndarray of int32, shape (tiles, 2)
        Top-left corners of the tiles that were delivered, level-0 pixels.
    grid : ndarray of int32, shape (tiles, 2)
        Their rows and columns.
    tissue_share : ndarray of float32, shape (tiles,)
        Their share of tissue.
    flags : ndarray of uint8, shape (tiles,)
        Their `TileFlag` bits.
    seconds : float
        Spent on decoding.
    """

    facts: dict[str, Any]
    coords: NDArray[np.int32]
    grid: NDArray[np.int32]
    tissue_share: NDArray[np.float32]
    flags: NDArray[np.uint8]
    seconds: float

    def __len__(self) -> int:
        return len(self.coords)


def decode_slide(
    entry: SlideEntry, recipe: Recipe, sink: TileSink, *, sheet: Path | None = None, device: str = "cpu"
) -> SlideTiles:  # fmt: skip
    """Find the tiles of a slide, decode them, and hand them on; those that are lost or dropped are left out.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    recipe : Recipe
        How tissue is found, tiles are laid, and which are dropped.
    sink : TileSink
        Receives the pixels.
    sheet : Path, optional
        Where the slide's contact sheet is drawn; also where no tile is kept.
    device : str, optional
        Where a segmentation network runs, if the recipe names one.

    Returns
    -------
    SlideTiles
        Of the tiles that were delivered, in order.

    Raises
    ------
    SlideError
        If the slide cannot be opened, has no usable mpp, holds no tissue, or is damaged.
    """
    started = time.monotonic()
    if sheet is not None:
        sheet.unlink(missing_ok=True)  # what an earlier run saw may be another slide
    with open_slide(entry.path, mpp=entry.mpp) as slide:
        look = look_at(recipe.tissue, recipe.quality, entry.slide_id, partial(_network_finder, device=device))
        laid = lay_tiles(slide, look, recipe.tiling)
        try:
            grid = filled_grid(laid, slide, recipe.tiling)
            read = _decode_grid(slide, grid, recipe, sink)
        except SlideError:
            _draw(sheet, slide, laid, entry.slide_id)
            raise
        _draw(sheet, slide, laid, entry.slide_id, read)
        kept = np.flatnonzero(read.kept)
        _check(slide, recipe, read)
        facts = _facts(entry, slide, recipe, laid, read)
    return SlideTiles(
        facts, grid.coords[kept], grid.grid[kept], grid.tissue_share[kept], read.flags[kept], time.monotonic() - started
    )  # fmt: skip


def _decode_grid(slide: Slide, grid: TileGrid, recipe: Recipe, sink: TileSink) -> ReadTiles:
    """Deliver the tiles that are kept; return what all proved to be."""
    reader = slide.tile_reader(grid.coords, grid.plan)
    _fit_stain(slide, grid, recipe, sink)
    judge = TileJudge(grid, recipe.quality)
    start = 0
    while start < len(grid):
        page = sink.page()
        stop = min(len(grid), start + len(page))
        states = read_tiles(reader, start, stop, page)
        kept = np.flatnonzero(judge.see(start, page[: stop - start], states))
        if len(kept) < stop - start:
            page[: len(kept)] = page[kept]
        if len(kept):
            sink.deliver(start + kept)
        start = stop
    return judge.seen


def _check(slide: Slide, recipe: Recipe, read: ReadTiles) -> None:
    lost = int(read.lost.sum())
    if lost > recipe.extract.max_lost_share * len(read.lost):
        raise DamagedSlideError(
            f"{slide.path.name}: {lost} of {len(read.lost)} tiles cannot be decoded; copy the slide again from its source"
        )
    if not read.kept.any():
        raise NoTissueError(f"{slide.path.name}: none of its {len(read.lost)} tiles is in focus; scan it again")


def _draw(sheet: Path | None, slide: Slide, laid: LaidTiles, name: str, read: ReadTiles | None = None) -> None:
    if sheet is not None:
        write_contact_sheet(sheet, draw_contact_sheet(slide, laid, name, read=read))


def _network_finder(settings: ModelTissueSettings, device: str) -> TissueFinder:
    from pathoml.segmenters.build import cached_segmenter, model_finder

    return model_finder(cached_segmenter(settings), device=device)


def _facts(
    entry: SlideEntry, slide: Slide, recipe: Recipe, laid: LaidTiles, read: ReadTiles
) -> dict[str, Any]:  # fmt: skip
    geometry, grid = slide.geometry, laid.grid
    rejected = {reason.name.lower(): grid.count_rejected(reason) for reason in Rejection}
    return {
        "slide_id": entry.slide_id,
        "slide_fingerprint": slide_fingerprint(entry.path),
        "slide_digest": slide_digest(entry.path),
        "width_px": geometry.width_px,
        "height_px": geometry.height_px,
        "slide_mpp": geometry.checked_mpp(entry.slide_id),
        "mpp_from": "metadata" if entry.mpp is None else "manifest",
        "target_mpp": recipe.tiling.target_mpp,
        "mpp_read": grid.plan.mpp_read,
        "tile_px": recipe.tiling.tile_px,
        "footprint_level0_px": grid.footprint_level0_px,
        "stride_level0_px": grid.stride_level0_px,
        "origin_level0_px": grid.origin_level0_px,
        "reader": slide.metadata["tier"],
        "decode": "exact" if grid.plan.reduction == 1 else "scaled",
        "lost_tiles": int(read.lost.sum()),
        "rejected": {**rejected, "out_of_focus": int(read.blurred.sum())},
        "regions_digest": regions_digest(recipe.tissue, entry.slide_id),
        "stain": recipe.stain.kind,
        "optical_density": optical_density_statistics(laid.picture[laid.mask.tissue]),
    }


def regions_digest(settings: TissueSettings, slide_id: str) -> str:
    """Return the SHA-256 of a slide's outlined regions.

    Parameters
    ----------
    settings : TissueSettings
        How tissue is found.
    slide_id : str
        The slide.

    Returns
    -------
    str
        Empty where tissue is found otherwise, or nothing is outlined.
    """
    if not isinstance(settings, GeojsonTissueSettings):
        return ""
    path = regions_path(settings, slide_id)
    return file_digest(path) if path.is_file() else ""


def _fit_stain(slide: Slide, grid: TileGrid, recipe: Recipe, sink: TileSink) -> None:
    """Estimate a slide's stains from some of its tiles, spread evenly over the grid."""
    if not isinstance(recipe.stain, MacenkoSettings | ReinhardSettings):
        return
    from pathoml.stain import fit_stain  # loads torch, which the other decoding processes are spared

    count = min(recipe.stain.sampled_tiles, len(grid))
    rows = np.unique(np.linspace(0, len(grid) - 1, count).round().astype(np.int64))
    tiles = np.empty((len(rows), grid.plan.tile_px, grid.plan.tile_px, 3), dtype=np.uint8)
    states = slide.tile_reader(grid.coords[rows], grid.plan).read(0, len(rows), tiles)
    pixels = tiles[states == TileState.WHOLE][:, ::4, ::4].reshape(-1, 3)
    sink.stain(fit_stain(pixels[pixels.min(axis=1) < _GLASS], recipe.stain, slide.path.name))
