"""Where the tiles are: slide geometry and tissue mask -> a grid of tiles. Pure arithmetic."""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pathoml.artefacts import MAPPED_ARTEFACTS, TileFlag
from pathoml.errors import BadMppError
from pathoml.settings import Settings
from pathoml.slides import ReadPlan, SlideGeometry
from pathoml.tissue import TissueMask
from pathoml.units import BoolArray, FloatArray, IntArray

MOST_ENLARGED = 16.0
"""The largest `TilingSettings.max_enlargement`."""


class TilingSettings(Settings):
    """Size, resolution and overlap of tiles, and which are kept."""

    target_mpp: float = Field(0.5, ge=0.05, le=10, description="Microns per pixel at which tiles are read.")
    tile_px: int = Field(224, ge=16, le=4096, description="Side of a tile in pixels at target_mpp.")
    tile_um: float | None = Field(
        None,
        gt=0,
        description="Side of a tile in micrometres; give it instead of target_mpp, which is then tile_um / tile_px.",
    )
    overlap: float = Field(0.0, ge=0, lt=1, description="Share of a tile's side that the next one repeats.")
    min_tissue_share: float = Field(0.5, gt=0, le=1, description="Tiles with a smaller share of tissue are dropped.")
    mpp_tolerance: float = Field(
        0.02,
        ge=0,
        le=0.1,
        description="Within this relative difference of a level's mpp, its pixels are taken as they are.",
    )
    max_enlargement: float = Field(
        1.25,
        ge=1,
        le=MOST_ENLARGED,
        description="A slide whose finest pixels are coarser than target_mpp by more than this factor is refused: enlarged "
        "tiles hold no more detail than they were scanned with.",
    )
    decode: Literal["exact", "scaled"] = Field(
        "exact",
        description="exact: every pixel is decoded and averaged. scaled: JPEG tiles are shrunk by 2, 4 or 8 while they are "
        "decoded where that gives the resolution asked for within mpp_tolerance (which one is recorded); a third faster, and "
        "grey levels differ by less than 1.5 on average. Elsewhere as exact.",
    )
    align_to_native: bool = Field(
        default=False,
        description="Whether the grid may snap to the slide's own tiles where that changes the mpp by less than "
        "mpp_tolerance; faster, and the mpp that results is recorded.",
    )
    max_tiles: int | None = Field(None, ge=1, description="Keep at most this many tiles of a slide, drawn at random.")
    sample_seed: int = Field(0, ge=0, description="Seed of that draw.")

    @model_validator(mode="before")
    @classmethod
    def _resolution_from_size(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("tile_um") is None:
            return values
        tile_um, tile_px = values["tile_um"], values.get("tile_px", cls.model_fields["tile_px"].default)
        if not isinstance(tile_um, int | float) or not isinstance(tile_px, int) or tile_px <= 0:
            return values  # the fields' own checks say what is wrong
        mpp = tile_um / tile_px
        if "target_mpp" in values and not math.isclose(values["target_mpp"], mpp):
            raise ValueError(
                f"tile_um {tile_um:g} over tile_px {tile_px} is {mpp:g} microns per pixel, but target_mpp says "
                f"{values['target_mpp']:g}; leave one of the two out"
            )
        return {**values, "target_mpp": mpp}


class Rejection(IntEnum):
    """Why a tile of the grid was not kept."""

    LITTLE_TISSUE = 1
    PEN = 2
    """It would have held enough tissue, had the artefact not been cut out; so for the other artefacts."""
    NOT_DRAWN = 3
    """It could have been kept, and `max_tiles` others were drawn."""
    FOLD = 4
    BUBBLE = 5
    BLOOD_OR_PIGMENT = 6
    EDGE = 7
    """Its part on the slide holds enough tissue, but too much of it lies beyond the slide's edge."""
    NO_TISSUE = 8
    """It touches none, and holds no artefact in its stead."""


_CUT_OUT = {
    TileFlag.PEN: Rejection.PEN,
    TileFlag.FOLD: Rejection.FOLD,
    TileFlag.BUBBLE: Rejection.BUBBLE,
    TileFlag.BLOOD_OR_PIGMENT: Rejection.BLOOD_OR_PIGMENT,
}


@dataclass(frozen=True)
class TileGrid:
    """The kept tiles of a slide, sorted by row, then column.

    Parameters
    ----------
    coords : ndarray of int32, shape (tiles, 2)
        Top-left corner (x, y) in level-0 pixels.
    grid : ndarray of int32, shape (tiles, 2)
        Row and column; ``column * stride[0] + origin[0]`` is exact where coords are rounded.
    tissue_share : ndarray of float32, shape (tiles,)
        Share of the tile that is tissue, 0 to 1.
    flags : ndarray of uint8, shape (tiles,)
        `TileFlag` bits.
    stride_level0_px : tuple of float
        Step of the grid in x and y, level-0 pixels.
    origin_level0_px : tuple of float
        Corner of row 0, column 0.
    footprint_level0_px : tuple of float
        Width and height of a tile in level-0 pixels.
    plan : ReadPlan
        How a tile is read.
    rejected : ndarray of int32, shape (rejected, 2)
        Row and column of the tiles that were not kept.
    reasons : ndarray of uint8, shape (rejected,)
        `Rejection` of each.
    shape : tuple of int
        Rows and columns of the grid over the whole slide; kept and rejected tiles are all of it.
    """

    coords: NDArray[np.int32]
    grid: NDArray[np.int32]
    tissue_share: NDArray[np.float32]
    flags: NDArray[np.uint8]
    stride_level0_px: tuple[float, float]
    origin_level0_px: tuple[float, float]
    footprint_level0_px: tuple[float, float]
    plan: ReadPlan
    rejected: NDArray[np.int32]
    reasons: NDArray[np.uint8]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.coords)

    def count_rejected(self, reason: Rejection) -> int:
        """Return how many tiles were dropped for a reason.

        Parameters
        ----------
        reason : Rejection
            Why.

        Returns
        -------
        int
            Tiles.
        """
        return int((self.reasons == reason).sum())


def plan_reading(geometry: SlideGeometry, settings: TilingSettings, slide_name: str = "slide") -> ReadPlan:
    """Choose the level and the rectangle that give tiles of the asked resolution.

    A level whose mpp is within `mpp_tolerance` is taken as it is; with ``decode: scaled`` so is one that the codec brings
    there while it decodes. Otherwise the nearest finer level is read and resized once, by the exact ratio. A slide that is a
    little coarser than asked for is enlarged, since no finer pixels exist.

    Parameters
    ----------
    geometry : SlideGeometry
        The slide.
    settings : TilingSettings
        Resolution and tile size.
    slide_name : str
        For error messages.

    Returns
    -------
    ReadPlan
        Level, rectangle and the resolution that results.

    Raises
    ------
    MissingMppError, BadMppError
        If the slide's mpp is missing or implausible, or too coarse for the resolution asked for.

    Examples
    --------
    >>> geometry = SlideGeometry(4000, 3000, (1.0, 4.0), (0.25, 0.25))
    >>> plan = plan_reading(geometry, TilingSettings(tile_px=224, target_mpp=0.5))
    >>> plan.level, plan.read_px
    (0, (448, 448))
    """
    mpp = geometry.checked_mpp(slide_name)
    level_mpps = [(mpp[0] * downsample, mpp[1] * downsample) for downsample in geometry.level_downsamples]
    for level, native in enumerate(level_mpps):
        if all(abs(value / settings.target_mpp - 1) <= settings.mpp_tolerance for value in native):
            return ReadPlan(level, (settings.tile_px, settings.tile_px), settings.tile_px, native)
    if settings.decode == "scaled" and (shrunk := _shrunk_plan(geometry, level_mpps, settings)) is not None:
        return shrunk
    finer = [level for level, native in enumerate(level_mpps) if max(native) <= settings.target_mpp]
    level = max(finer, key=lambda index: geometry.level_downsamples[index]) if finer else 0
    _check_enlargement(max(level_mpps[level]), settings, slide_name)
    side_um = settings.tile_px * settings.target_mpp
    extent = (side_um / level_mpps[level][0], side_um / level_mpps[level][1])
    if settings.align_to_native and level == 0:
        extent = _snapped(extent, geometry.native_tile_px, settings.mpp_tolerance)
    scale = (settings.tile_px / extent[0], settings.tile_px / extent[1])
    read = (_whole_px(extent[0]), _whole_px(extent[1]))
    mpp_read = (
        extent[0] * level_mpps[level][0] / settings.tile_px,
        extent[1] * level_mpps[level][1] / settings.tile_px,
    )
    return ReadPlan(level, read, settings.tile_px, mpp_read, scale)


def make_grid(
    geometry: SlideGeometry, mask: TissueMask, settings: TilingSettings, slide_name: str = "slide", *,
    flag_share: float = 0.1,
) -> TileGrid:  # fmt: skip
    """Lay a grid of tiles over a slide and keep those with enough tissue.

    Parameters
    ----------
    geometry : SlideGeometry
        The slide.
    mask : TissueMask
        Covers the slide exactly, at any resolution.
    settings : TilingSettings
        Tile size, resolution, overlap and the least share of tissue.
    slide_name : str
        For error messages.
    flag_share : float, optional
        A tile is flagged for an artefact that covers more than this share of it.

    Returns
    -------
    TileGrid
        Possibly empty. The last row and column may hang over the slide's edge.

    Raises
    ------
    MissingMppError, BadMppError
        If the slide's mpp is missing or implausible.
    """
    plan = plan_reading(geometry, settings, slide_name)
    lattice = geometry.level_downsamples[plan.level] * plan.reduction
    footprint = plan.footprint_level0_px(geometry)
    stride = (footprint[0] * (1 - settings.overlap), footprint[1] * (1 - settings.overlap))
    x = _starts(geometry.width_px, footprint[0], stride[0])
    y = _starts(geometry.height_px, footprint[1], stride[1])
    share = partial(_window_share, geometry=geometry, x=x, y=y, footprint=footprint)
    tissue = share(mask.tissue)
    kept = _drawn(np.argwhere(tissue >= settings.min_tissue_share), settings)
    cut_out = {artefact: share(where) for artefact, where in mask.cut.items()}
    on_slide = np.outer(_covered(y, footprint[1], geometry.height_px), _covered(x, footprint[0], geometry.width_px))
    rejected, reasons = _rejections(tissue, cut_out, kept, settings.min_tissue_share, on_slide)
    rows, columns = kept.T
    flags = np.zeros(len(kept), dtype=np.uint8)
    for artefact in MAPPED_ARTEFACTS:
        flags[share(mask.of(artefact))[rows, columns] > flag_share] |= np.uint8(artefact)
    overhang = (x[columns] + footprint[0] > geometry.width_px + 0.5) | (
        y[rows] + footprint[1] > geometry.height_px + 0.5
    )
    flags[overhang] |= np.uint8(TileFlag.OVERHANG)
    return TileGrid(
        coords=_corners(x[columns], y[rows], lattice if plan.reduction > 1 else 1.0),
        grid=np.stack([rows, columns], axis=1).astype(np.int32),
        tissue_share=tissue[rows, columns].astype(np.float32),
        flags=flags,
        stride_level0_px=stride,
        origin_level0_px=(0.0, 0.0),
        footprint_level0_px=footprint,
        plan=plan,
        rejected=rejected,
        reasons=reasons,
        shape=(len(y), len(x)),
    )


def _check_enlargement(finest_mpp: float, settings: TilingSettings, slide_name: str) -> None:
    enlarged = finest_mpp / settings.target_mpp
    if enlarged > settings.max_enlargement:
        raise BadMppError(
            f"{slide_name}: its finest pixels are {finest_mpp:.4g} microns and tiling.target_mpp asks for "
            f"{settings.target_mpp:g}, which would enlarge them {enlarged:.3g} times; leave the slide out, ask for a coarser "
            f"target_mpp, or raise tiling.max_enlargement ({settings.max_enlargement:g}); if its resolution is wrong, give "
            "the right value in the manifest's column mpp"
        )


def _snapped(extent: tuple[float, float], native: tuple[int, int] | None, tolerance: float) -> tuple[float, float]:
    """Return the side of a tile in native tiles where that is a whole number within the tolerance, else as it is."""
    if native is None:
        return extent
    whole = tuple(max(1, round(side / own)) * own for side, own in zip(extent, native, strict=True))
    close = all(abs(new / side - 1) <= tolerance for new, side in zip(whole, extent, strict=True))
    return (float(whole[0]), float(whole[1])) if close else extent


def _shrunk_plan(
    geometry: SlideGeometry, level_mpps: list[tuple[float, float]], settings: TilingSettings
) -> ReadPlan | None:
    """Return how tiles are read that the codec itself shrinks to the resolution asked for, from the coarsest level possible.

    What it shrinks is not resized again: a picture that was shrunk by 2 and then by 1.03 differs from one that was averaged
    once by several grey levels.
    """
    coarsest_first = sorted(range(len(level_mpps)), key=lambda level: -geometry.level_downsamples[level])
    for level in coarsest_first:
        for reduction in geometry.reductions:
            shrunk = (level_mpps[level][0] * reduction, level_mpps[level][1] * reduction)
            close = all(abs(value / settings.target_mpp - 1) <= settings.mpp_tolerance for value in shrunk)
            if reduction > 1 and close:
                side = settings.tile_px
                return ReadPlan(level, (side, side), side, shrunk, reduction=reduction)
    return None


def _whole_px(extent: float) -> int:
    """Return the pixels that cover an extent, forgiving rounding in its last digits."""
    return max(1, math.ceil(extent - 1e-6))


def _drawn(places: IntArray, settings: TilingSettings) -> IntArray:
    """Return at most `max_tiles` of the tiles' (row, column), in their order."""
    if settings.max_tiles is None or len(places) <= settings.max_tiles:
        return places
    chosen = np.random.default_rng(settings.sample_seed).choice(len(places), settings.max_tiles, replace=False)
    return places[np.sort(chosen)]


def _rejections(
    tissue: FloatArray, cut_out: dict[TileFlag, FloatArray], kept: IntArray, least: float, on_slide: FloatArray
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the tiles that were not kept, in their order, with the reason for each."""
    reason = np.full(tissue.shape, Rejection.NO_TISSUE, dtype=np.uint8)
    reason[tissue > 0] = Rejection.LITTLE_TISSUE
    reason[(tissue > 0) & (tissue >= least * on_slide)] = Rejection.EDGE
    most = np.zeros(tissue.shape)
    for artefact, share in cut_out.items():
        decided = (share > most) & (tissue + share >= least)
        reason[decided], most[decided] = _CUT_OUT[artefact], share[decided]
    reason[tissue >= least] = Rejection.NOT_DRAWN
    reason[kept[:, 0], kept[:, 1]] = 0
    places = np.argwhere(reason > 0)
    return places.astype(np.int32), reason[places[:, 0], places[:, 1]]


def _covered(start: FloatArray, footprint_px: float, extent_px: int) -> FloatArray:
    """Return which share of each tile lies on the slide, along one side."""
    return np.clip((extent_px - start) / footprint_px, 0, 1)


def _corners(x: FloatArray, y: FloatArray, lattice: float) -> NDArray[np.int32]:
    """Return corners in whole level-0 pixels; where the codec shrinks, on the pixels that it can give."""
    exact = np.stack([x, y], axis=1)
    return np.rint(np.rint(exact / lattice) * lattice).astype(np.int32)


def _starts(extent_px: int, footprint_px: float, stride_px: float) -> FloatArray:
    count = 1 + max(0, math.ceil((extent_px - footprint_px) / stride_px - 1e-9))
    return np.arange(count, dtype=np.float64) * stride_px


def _window_share(
    mask: BoolArray, *, geometry: SlideGeometry, x: FloatArray, y: FloatArray, footprint: tuple[float, float]
) -> FloatArray:
    """Return the share of True in every tile, shape (rows, columns), from a summed-area table."""
    mask_rows, mask_columns = mask.shape
    if not mask.any():
        return np.zeros((len(y), len(x)))
    table = np.asarray(cv2.integral(mask.view(np.uint8)), dtype=np.int32)
    scale_x, scale_y = mask_columns / geometry.width_px, mask_rows / geometry.height_px
    # Rows first: they lie together in memory.
    down = _between(table, y * scale_y, (y + footprint[1]) * scale_y)
    inside = _between(down.T, x * scale_x, (x + footprint[0]) * scale_x).T
    inside = inside.round(6)  # of sums of a whole slide: what is left of a tile without any would count as a little
    # Against the whole tile, not only its part on the slide: overhang is background.
    share: FloatArray = inside / (footprint[0] * scale_x * footprint[1] * scale_y)
    return np.clip(share, 0, 1)


def _between(table: FloatArray | NDArray[np.int32], start: FloatArray, stop: FloatArray) -> FloatArray:
    """Return the differences of a table's rows, read at fractional positions, shape (positions, columns)."""
    return _at(table, stop) - _at(table, start)


def _at(table: FloatArray | NDArray[np.int32], position: FloatArray) -> FloatArray:
    """Read a table of ``limit + 1`` rows at fractional positions."""
    limit = len(table) - 1
    clipped = np.clip(position, 0, limit)
    lower = np.minimum(np.floor(clipped), limit - 1).astype(np.int64)
    part = (clipped - lower)[:, None]
    between: FloatArray = table[lower] * (1 - part) + table[lower + 1] * part
    return between
