"""The tiles of an open slide: laid where its tissue is, read into batches, judged one by one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts import (
    Absorption,
    QualitySettings,
    TileFlag,
    find_blood_or_pigment,
    find_bubbles,
    find_folds,
    find_ink,
    fine_over_coarse,
    sharp_share,
)
from pathoml.errors import DamagedSlideError, NotBrightfieldError, NoTissueError
from pathoml.slides import Overview, Slide, TileReader, TileState, coarsest_level, overview_of, whole_slide_image
from pathoml.tiling import TileGrid, TilingSettings, make_grid
from pathoml.tissue import ClassicalTissueSettings, TissueMask, find_tissue
from pathoml.units import BoolArray, RgbImage

logger = logging.getLogger(__name__)

_NEVER_SCANNED, _DARK = 8, 100
"""Grey levels: black filled in by the scanner, and what a quarter of any slide seen against light exceeds."""
ARTEFACT_MPP = 8.0
"""Microns per pixel at which artefacts are looked for: the widths of folds and rims are set for it."""
_DETAIL_MPP, _DETAIL_REACH_UM = 0.5, 80.0
"""Focus inside and beside rings is measured at this resolution, in squares of at most twice that reach."""

TissueFinder = Callable[[Slide, RgbImage, float, BoolArray], BoolArray]
"""(open slide, picture of it, the picture's microns per pixel, where ink or damage hides what is there) -> tissue, of the
picture's shape."""


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

    def find(slide: Slide, picture: RgbImage, mpp: float, hidden: BoolArray) -> BoolArray:
        return find_tissue(picture, mpp, settings, hidden=hidden)

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


@dataclass(frozen=True)
class ReadTiles:
    """What the tiles of a grid proved to be as they were read.

    Parameters
    ----------
    flags : ndarray of uint8, shape (tiles,)
        All `TileFlag` bits: those of the grid, and those seen in the pixels.
    lost : ndarray of bool, shape (tiles,)
        Which could not be decoded.
    blurred : ndarray of bool, shape (tiles,)
        Which are dropped since they are out of focus.
    """

    flags: NDArray[np.uint8]
    lost: BoolArray
    blurred: BoolArray

    @property
    def kept(self) -> BoolArray:
        """Which come into the bag."""
        return ~self.lost & ~self.blurred


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
    MissingMppError, BadMppError
        If the slide's resolution cannot be used.
    NotBrightfieldError
        If most of the slide is black.
    """
    seen = overview_of(slide, look.mask_mpp)
    picture = seen.pixels
    require_brightfield(slide, picture)
    mask = see_slide(slide, seen, look)
    grid = make_grid(slide.geometry, mask, tiling, slide.path.name, flag_share=look.quality.flag_share)
    return LaidTiles(picture, mask, grid)


_GLANCE_MPP = 32.0
"""Resolution at which a slide is looked at only to see whether it was lit."""


def require_brightfield(slide: Slide, picture: RgbImage | None = None) -> None:
    """Refuse a slide that was not seen against light.

    Parameters
    ----------
    slide : Slide
        Open.
    picture : ndarray of uint8, shape (rows, columns, 3), optional
        Of the whole slide; without, a coarse one is read.

    Raises
    ------
    NotBrightfieldError
        If most of what was scanned is black.
    """
    if not _is_brightfield(whole_slide_image(slide, _GLANCE_MPP) if picture is None else picture):
        raise NotBrightfieldError(
            f"{slide.path.name}: dark all over, as in fluorescence or with inverted colours; only brightfield slides "
            "are read, take it out of the manifest"
        )


def _is_brightfield(picture: RgbImage) -> bool:
    """Say whether a slide was seen against light; black that was never scanned says nothing."""
    brightness = picture[::4, ::4].max(axis=-1)
    scanned = brightness[brightness > _NEVER_SCANNED]
    return len(scanned) > 0 and float(np.percentile(scanned, 75)) > _DARK


def see_slide(slide: Slide, seen: Overview, look: Look) -> TissueMask:
    """Find tissue and artefacts in the picture of a slide.

    What is damaged at every level counts as tissue like what lies under ink, so that its tiles are tried, lost and counted.

    Parameters
    ----------
    slide : Slide
        Open.
    seen : Overview
        The whole slide at ``look.mask_mpp``.
    look : Look
        How they are found.

    Returns
    -------
    TissueMask
        Of the picture's shape; artefacts that are dropped are cut out of the tissue.
    """
    quality, picture = look.quality, seen.pixels
    small, mpp = _at_artefact_mpp(picture, look.mask_mpp)
    absorption = Absorption(small, mpp)
    ink = find_ink(absorption, quality)
    tissue = look.find(slide, picture, look.mask_mpp, _resized(ink, picture) | seen.unread)
    bubbles = find_bubbles(absorption, quality, _detail_of(slide, mpp), ink=ink)
    clear = _resized(tissue, small) & ~ink & ~bubbles
    found = {
        TileFlag.PEN: ink,
        TileFlag.BUBBLE: bubbles,
        TileFlag.FOLD: find_folds(absorption, clear, quality),
        TileFlag.BLOOD_OR_PIGMENT: find_blood_or_pigment(absorption, clear, quality),
    }
    artefacts = {artefact: _resized(where, picture) for artefact, where in found.items()}
    cut = {artefact: where & tissue for artefact, where in artefacts.items() if quality.drops(artefact)}
    left = tissue.copy()
    for where in cut.values():
        left &= ~where
    return TissueMask(left, artefacts, cut)


def _detail_of(slide: Slide, mpp: float) -> Callable[[float, float, float], float]:
    """Return what measures fine over coarse detail of squares given in pixels of a picture of the slide."""
    geometry = slide.geometry
    mpp_x, mpp_y = geometry.checked_mpp(slide.path.name)
    level, reduction = coarsest_level(geometry, _DETAIL_MPP / mpp_x)
    downsample = geometry.level_downsamples[level] * reduction

    def detail(x: float, y: float, half: float) -> float:
        reach = min(half * mpp, _DETAIL_REACH_UM)
        left, right = (np.clip((x * mpp + way * reach) / mpp_x, 0, geometry.width_px) for way in (-1, 1))
        top, bottom = (np.clip((y * mpp + way * reach) / mpp_y, 0, geometry.height_px) for way in (-1, 1))
        size = (int((right - left) / downsample), int((bottom - top) / downsample))
        if min(size) < 1:
            return float("nan")
        corner = (round(left), round(top))
        try:
            pixels = slide.read_region(corner, level, size, reduction=reduction).pixels
            return fine_over_coarse(pixels, mpp_x * downsample)
        except DamagedSlideError as error:
            logger.warning("focus around a ring cannot be judged: %s", error)
            return float("nan")

    return detail


def _at_artefact_mpp(picture: RgbImage, mpp: float) -> tuple[RgbImage, float]:
    """Return the picture at the resolution that artefacts are looked for at, whatever the mask's is."""
    factor = mpp / ARTEFACT_MPP
    if abs(factor - 1) < 1e-9:
        return picture, mpp
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=method), dtype=np.uint8), ARTEFACT_MPP


def _resized(mask: BoolArray, picture: RgbImage) -> BoolArray:
    """Return a mask of the picture's size."""
    if mask.shape == picture.shape[:2]:
        return mask
    size = (picture.shape[1], picture.shape[0])
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


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
    MissingMppError, BadMppError
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
            "is some: lower tissue.min_saturation (kind classical), look at the regions that were outlined (geojson), or at "
            "tissue.tissue_classes and tissue.mpp (model)"
        )
    return laid.grid


def read_tiles(reader: TileReader, start: int, stop: int, batch: RgbImage) -> NDArray[np.uint8]:
    """Read the next tiles into an encoder's batch; what is lost, and what is left of the batch, becomes white.

    Parameters
    ----------
    reader : TileReader
        Of the slide.
    start, stop : int
        Rows of the grid.
    batch : ndarray of uint8, shape (batch, side, side, 3)
        Receives the tiles; every call of the encoder has the same shape, so that its results do not depend on it.

    Returns
    -------
    ndarray of uint8, shape (stop - start,)
        `TileState` of each.
    """
    states = reader.read(start, stop, batch)
    for lost in np.flatnonzero(states == TileState.LOST).tolist():
        batch[lost] = 255
    batch[stop - start :] = 255
    return states


def tile_flags(
    tiles: RgbImage, states: NDArray[np.uint8], mpp: float, quality: QualitySettings
) -> NDArray[np.uint8]:  # fmt: skip
    """Return what is notable about tiles as read: parts that were never scanned, and focus.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (tiles, side, side, 3)
        RGB.
    states : ndarray of uint8, shape (tiles,)
        `TileState` of each.
    mpp : float
        Their microns per pixel.
    quality : QualitySettings
        What counts as out of focus.

    Returns
    -------
    ndarray of uint8, shape (tiles,)
        `TileFlag` bits.
    """
    absent = np.where(states == TileState.ABSENT_PART, TileFlag.ABSENT_PART, 0)
    blurred = sharp_share(tiles, mpp, quality) < quality.min_sharp_share
    return np.asarray(absent | np.where(blurred, TileFlag.OUT_OF_FOCUS, 0), dtype=np.uint8)


_JUDGED_AT_ONCE = 64


def judge_tiles(slide: Slide, grid: TileGrid, quality: QualitySettings) -> ReadTiles:
    """Read all tiles of a grid only to see what is notable about them.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : TileGrid
        Its tiles.
    quality : QualitySettings
        What counts as out of focus, and whether that is dropped.

    Returns
    -------
    ReadTiles
        As extraction finds them.
    """
    reader = slide.tile_reader(grid.coords, grid.plan)
    batch = np.empty((_JUDGED_AT_ONCE, grid.plan.tile_px, grid.plan.tile_px, 3), dtype=np.uint8)
    judging = TileJudge(grid, quality)
    for start in range(0, len(grid), len(batch)):
        stop = min(len(grid), start + len(batch))
        judging.see(start, batch[: stop - start], read_tiles(reader, start, stop, batch))
    return judging.seen


class TileJudge:
    """Collects what is notable about the tiles of a grid while they are read.

    Parameters
    ----------
    grid : TileGrid
        The tiles.
    quality : QualitySettings
        What counts as out of focus, and whether that is dropped.

    Attributes
    ----------
    seen : ReadTiles
        What is known so far; tiles that were not read yet count as kept.
    """

    def __init__(self, grid: TileGrid, quality: QualitySettings) -> None:
        self._quality, self._mpp = quality, max(grid.plan.mpp_read)
        none = np.zeros(len(grid), dtype=bool)
        self.seen = ReadTiles(grid.flags.copy(), none, none.copy())

    def see(self, start: int, tiles: RgbImage, states: NDArray[np.uint8]) -> BoolArray:
        """Judge some tiles.

        Parameters
        ----------
        start : int
            Row of the first.
        tiles : ndarray of uint8, shape (tiles, side, side, 3)
            As read.
        states : ndarray of uint8, shape (tiles,)
            `TileState` of each.

        Returns
        -------
        ndarray of bool, shape (tiles,)
            Which are kept.
        """
        here = slice(start, start + len(tiles))
        seen = self.seen
        seen.lost[here] = states == TileState.LOST
        seen.flags[here] |= tile_flags(tiles, states, self._mpp, self._quality)
        if self._quality.drops(TileFlag.OUT_OF_FOCUS):
            seen.blurred[here] = ((seen.flags[here] & TileFlag.OUT_OF_FOCUS) > 0) & ~seen.lost[here]
        return seen.kept[here]
