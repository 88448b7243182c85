"""The maps of one slide: scores of its tiles, and the pictures and files made of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.errors import InputError
from pathoml.heatmap_settings import HeatmapSettings, MapName
from pathoml.heatmaps import (
    STYLES,
    SlideMaps,
    draw_heatmap,
    kind_of,
    name_of_way,
    overlay_image,
    relative_to_average,
    style_of,
    tile_raster,
    write_band_file,
    write_ome_tiff,
    write_overlay,
    write_tile_file,
    write_tile_table,
)
from pathoml.packages import Package
from pathoml.slides import open_slide, whole_slide_image
from pathoml.tile_scores import TileScores, score_tiles
from pathoml.units import FloatArray, RgbImage

_NOTED = ("contribution", "disagreement")
_WORDS = re.compile(r"[^A-Za-z0-9_+-]+")


class DrawnMap(NamedTuple):
    """One picture of a slide's map.

    Parameters
    ----------
    name : str
        Of the map.
    path : Path
        PNG.
    words : str
        How many tiles, and the range of their values.
    """

    name: MapName
    path: Path
    words: str


@dataclass(frozen=True)
class MapRequest:
    """One slide and the model that looks at it.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    bags : Path
        Folder of its bag.
    package : Package
        The model; its members are averaged.
    caption : str
        Shown on the pictures.
    folder : Path
        Where the pictures go.
    ends : mapping of str to float, optional
        By kind of map, where the training cohort's colours end.
    known : DataFrame, optional
        One row, the patient's covariates: then maps of fused models by way of their other parts are drawn too.
    """

    entry: SlideEntry
    bags: Path
    package: Package
    caption: str
    folder: Path
    ends: Mapping[MapName, float] = field(default_factory=dict)
    known: pd.DataFrame | None = None


def maps_of_slide(request: MapRequest, size_px: tuple[int, int], *, device: str = "cpu") -> SlideMaps:
    """Score the tiles of a slide.

    Parameters
    ----------
    request : MapRequest
        Slide and model.
    size_px : tuple of int
        Width and height of the slide at level 0: a bag that was imported without its slide need not know them.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    SlideMaps
        Every kind of map that the model gives.

    Raises
    ------
    BagMismatchError
        If the bag was made with other settings than the model's.
    PackageError
        If the model takes no slides.
    """
    package = request.package
    bag = read_bag(request.bags / f"{request.entry.slide_id}.h5")
    scores = score_tiles(package.members, package, bag, known=request.known, device=device)
    header = replace(bag.header, width_px=size_px[0], height_px=size_px[1])
    values = {kind: relative_to_average(one) for kind, one in _by_kind(scores).items()}
    ends = {kind: end for kind, end in request.ends.items() if kind in values}
    return SlideMaps(header, bag.coords, bag.grid, values, ends, _notes(scores))


def draw_maps_of_slide(request: MapRequest, settings: HeatmapSettings, *, device: str = "cpu") -> list[DrawnMap]:
    """Draw every kind of map that is asked for and that the model gives.

    Parameters
    ----------
    request : MapRequest
        Slide and model.
    settings : HeatmapSettings
        Which maps, and how.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    list of DrawnMap
        Pictures, ``<slide_id>_<name>.png``; what else is asked for is written beside it.

    Raises
    ------
    BagMismatchError
        If the bag was made with other settings than the model's.
    PackageError
        If the model takes no slides.
    InputError
        If the training cohort's scale is asked for and the model does not know it.
    """
    entry = request.entry
    with open_slide(entry.path, mpp=entry.mpp) as slide:
        picture = whole_slide_image(slide, settings.picture_mpp)
        size = (slide.geometry.width_px, slide.geometry.height_px)
    maps = maps_of_slide(request, size, device=device)
    drawn = []
    for name in maps.values:
        if kind_of(name) in settings.kinds:
            written = _write_map(request, picture, maps, name, settings)
            drawn += [DrawnMap(name, path, _in_numbers(maps.values[name], name)) for path in written]
    if "csv" in settings.files:
        write_tile_table(request.folder / f"{entry.slide_id}_tiles.csv", maps)
    return drawn


def _in_numbers(values: FloatArray, name: MapName) -> str:
    """Say what a map shows in numbers, for those who do not see it."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return f"{len(values)} tiles, none of which has a value"
    raised = f", {(finite > 0).mean():.0%} of them above 0" if style_of(name).signed else ""
    return f"{len(finite)} tiles from {finite.min():.2f} to {finite.max():.2f}{raised}"


def map_ends(package: Package) -> dict[MapName, float]:
    """Return where the colours of a package's training cohort end.

    Parameters
    ----------
    package : Package
        A model.

    Returns
    -------
    dict of str to float
        By kind of map; empty for packages made before this was recorded.
    """
    return {kind: float(end) for kind, end in package.summary.get("map_ends", {}).items() if kind in STYLES}


def _write_map(
    request: MapRequest, picture: RgbImage, maps: SlideMaps, kind: MapName, settings: HeatmapSettings
) -> list[Path]:
    """Write every file of one map, and return the pictures."""
    if settings.scale == "cohort" and not maps.cohort_ends:
        raise InputError(
            f"slide {request.entry.slide_id}: the model does not say where its training cohort's colours end (it is older); "
            "set scale: raw"
        )
    scale = settings.scale if settings.scale in maps.scales_of(kind) else "raw"
    scaled = maps.scaled(kind, scale)
    raster = tile_raster(maps.header, maps.grid, scaled.values, picture.shape[:2])
    start = request.folder / f"{request.entry.slide_id}_{_WORDS.sub('-', kind)}"
    if "overlay" in settings.files:
        image = overlay_image(picture, raster, scaled, settings.opacity)
        write_overlay(start.with_name(f"{start.name}_overlay.png"), image)
    if "bands" in settings.files:
        write_band_file(start.with_name(f"{start.name}.geojson"), maps, kind, scale)
    if "tiles" in settings.files:
        write_tile_file(start.with_name(f"{start.name}_tiles.geojson"), maps, kind, scale)
    if "ome_tiff" in settings.files:
        header = maps.header
        mpp = (
            header.width_px / raster.shape[1] * header.slide_mpp[0],
            header.height_px / raster.shape[0] * header.slide_mpp[1],
        )
        label = " ".join(scaled.label.split())
        write_ome_tiff(start.with_name(f"{start.name}.ome.tif"), raster, mpp=mpp, name=start.name, label=label)
    if "picture" not in settings.files:
        return []
    caption = "; ".join([request.caption, *(maps.notes if kind in _NOTED else ())])
    path = start.with_name(f"{start.name}.png")
    draw_heatmap(path, picture, raster, scaled=scaled, caption=caption, settings=settings)
    return [path]


def _by_kind(scores: TileScores) -> dict[MapName, FloatArray]:
    given: dict[MapName, FloatArray | None] = {
        "contribution": scores.contribution, "attention": scores.attention, "disagreement": scores.disagreement,
        **{name_of_way(part): values for part, values in scores.by_way_of.items()},
    }  # fmt: skip
    return {kind: values for kind, values in given.items() if values is not None}


def _notes(scores: TileScores) -> tuple[str, ...]:
    alone = ("slides as if nothing else were known of the patient",) if scores.is_alone else ()
    return (
        alone
        if scores.is_exact
        else (
            *alone,
            "contributions are integrated gradients, with attention and gates as given",
        )
    )
