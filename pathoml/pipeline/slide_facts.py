"""What `pathoml slide` says and shows of one slide."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pathoml.contact_sheets import draw_contact_sheet, write_contact_sheet
from pathoml.errors import BadMppError, DamagedSlideError, MissingMppError, SlideError
from pathoml.extract_settings import Recipe
from pathoml.geojson import laid_features, write_features
from pathoml.looks import look_at
from pathoml.slides import ReadPlan, Slide, TileState, open_slide, stored_codec
from pathoml.tiles import Look, TissueFinder, judge_tiles, lay_tiles, require_brightfield
from pathoml.tiling import TilingSettings, plan_reading
from pathoml.tissue import ModelTissueSettings

_MEASURED_TILES, _MEASURED_PX = 64, 256
_MEASURED_S, _MEASURED_AT = 0.5, (0.25, 0.5, 0.75)
_UNKNOWN = "unknown; give it in the manifest's column mpp"


def slide_facts(path: Path, *, mpp: float | None = None) -> list[tuple[str, str]]:
    """Open a slide and describe it.

    Parameters
    ----------
    path : Path
        The slide's file.
    mpp : float, optional
        Microns per level-0 pixel, for slides that do not say it.

    Returns
    -------
    list of (str, str)
        Name and value, none of which can name a person.

    Raises
    ------
    SlideError
        If it cannot be opened; the code says why.
    """
    with open_slide(path, mpp=mpp) as slide:
        geometry = slide.geometry
        resolution = _UNKNOWN if geometry.mpp is None else " x ".join(f"{value:.4g}" for value in geometry.mpp)
        facts = [
            ("size", f"{geometry.width_px} x {geometry.height_px} px"),
            ("microns per pixel", resolution),
            ("level downsamples", ", ".join(f"{value:g}" for value in geometry.level_downsamples)),
        ]
        if geometry.native_tile_px is not None:
            facts.append(("stored tiles", "{} x {} px".format(*geometry.native_tile_px)))
        metadata = slide.metadata
        if metadata["codec"] == "unknown":
            metadata["codec"] = stored_codec(path)
        facts += metadata.items()
        trial = _tried(slide)
        return [*facts, ("usable", _usable(slide, trial)), ("reading speed", trial.words)]


def write_sheet_of(path: Path, output: Path, *, mpp: float | None = None, recipe: Recipe | None = None) -> None:
    """Draw the contact sheet of one slide; its tiles are read to judge their focus.

    Parameters
    ----------
    path : Path
        The slide's file.
    output : Path
        PNG file.
    mpp : float, optional
        Microns per level-0 pixel, for slides that do not say it.
    recipe : Recipe, optional
        How tissue is found and tiles are laid; by default as the settings' defaults say.

    Raises
    ------
    SlideError
        If the slide cannot be opened or its resolution cannot be used.
    """
    look, tiling = _look_and_tiling(path, recipe)
    with open_slide(path, mpp=mpp) as slide:
        laid = lay_tiles(slide, look, tiling)
        read = judge_tiles(slide, laid.grid, look.quality)
        write_contact_sheet(output, draw_contact_sheet(slide, laid, path.name, read=read))


def write_regions_of(path: Path, output: Path, *, mpp: float | None = None, recipe: Recipe | None = None) -> int:
    """Write tissue, artefacts and kept tiles of one slide as GeoJSON.

    Parameters
    ----------
    path : Path
        The slide's file.
    output : Path
        GeoJSON file.
    mpp : float, optional
        Microns per level-0 pixel, for slides that do not say it.
    recipe : Recipe, optional
        How tissue is found and tiles are laid; by default as the settings' defaults say.

    Returns
    -------
    int
        Tiles written.

    Raises
    ------
    SlideError
        If the slide cannot be opened or its resolution cannot be used.
    """
    look, tiling = _look_and_tiling(path, recipe)
    with open_slide(path, mpp=mpp) as slide:
        laid = lay_tiles(slide, look, tiling)
        geometry = slide.geometry
    write_features(output, laid_features(laid, geometry, look.quality))
    return len(laid.grid)


def _look_and_tiling(path: Path, recipe: Recipe | None) -> tuple[Look, TilingSettings]:
    if recipe is None:
        return Look(), TilingSettings()
    return look_at(recipe.tissue, recipe.quality, path.stem, _network_finder), recipe.tiling


def _network_finder(settings: ModelTissueSettings) -> TissueFinder:
    from pathoml.segmenters.build import cached_segmenter, model_finder  # loads torch

    return model_finder(cached_segmenter(settings))


class _Trial(NamedTuple):
    """What reading some tiles came to."""

    states: list[int]  # `TileState` of each
    words: str  # how fast it was


def _tried(slide: Slide) -> _Trial:
    """Read rows of tiles at a quarter, the half and three quarters of the height, for half a second at most, on one thread."""
    plan, resolution = _measured_plan(slide)
    step = round(plan.read_px[0] * slide.geometry.level_downsamples[plan.level])
    columns = min(_MEASURED_TILES // len(_MEASURED_AT), max(1, slide.geometry.width_px // step))
    buffer = np.empty((1, plan.tile_px, plan.tile_px, 3), dtype=np.uint8)
    states: list[int] = []
    started = time.perf_counter()
    for number, share in enumerate(_MEASURED_AT, start=1):
        y = int(slide.geometry.height_px * share) // step * step
        reader = slide.tile_reader([(column * step, y) for column in range(columns)], plan)
        until = started + _MEASURED_S * number / len(_MEASURED_AT)
        for row in range(columns):
            states += reader.read(row, row + 1, buffer).tolist()
            if time.perf_counter() > until:
                break
    rate = len(states) / (time.perf_counter() - started)
    if states.count(TileState.LOST) == len(states):
        return _Trial(states, "unknown: none of the tiles that were tried can be read")
    return _Trial(states, f"about {rate:.0f} tiles/s of {plan.tile_px} px at {resolution} on one thread")


def _usable(slide: Slide, trial: _Trial) -> str:
    """Say whether a slide's resolution and light can be used, and whether the tiles that were tried can be read."""
    lost, tried = trial.states.count(TileState.LOST), len(trial.states)
    if lost == tried:
        return f"no, {DamagedSlideError.code}: none of {tried} tiles that were tried can be read; copy it again from its source"
    try:
        slide.geometry.checked_mpp(slide.path.name)
        require_brightfield(slide)
    except SlideError as error:
        return f"no, {error.code}: {error}"
    if lost:
        return f"yes, but {lost} of {tried} tiles that were tried are damaged; copy it again from its source if you can"
    if trial.states.count(TileState.ABSENT_PART) == tried:
        return f"yes, but none of {tried} tiles that were tried was scanned whole"
    return "yes"


def _measured_plan(slide: Slide) -> tuple[ReadPlan, str]:
    """Return how tiles are read to measure the speed: as by default, or as stored where the resolution cannot be used."""
    tiling = TilingSettings(tile_px=_MEASURED_PX)
    try:
        plan = plan_reading(slide.geometry, tiling, slide.path.name)
    except (MissingMppError, BadMppError):
        return ReadPlan(0, (_MEASURED_PX, _MEASURED_PX), _MEASURED_PX, (1.0, 1.0)), "the resolution that is stored"
    return plan, f"{tiling.target_mpp:g} microns per pixel"
