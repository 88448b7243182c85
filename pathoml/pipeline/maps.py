"""The maps of one slide: scores of its tiles, and the pictures and files made of them."""

from dataclasses import dataclass, replace
from pathlib import Path

from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.heatmap_settings import HeatmapSettings, MapKind
from pathoml.heatmaps import SlideMaps, draw_heatmap, relative_to_average, tile_raster
from pathoml.infer import TileScores, score_tiles
from pathoml.packages import Package
from pathoml.slides import open_slide, whole_slide_image
from pathoml.units import FloatArray


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
    """

    entry: SlideEntry
    bags: Path
    package: Package
    caption: str
    folder: Path


def maps_of_slide(
    entry: SlideEntry, bags: Path, package: Package, size_px: tuple[int, int], *, device: str = "cpu"
) -> SlideMaps:
    """Score the tiles of a slide.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    bags : Path
        Folder of its bag.
    package : Package
        The model; its members are averaged.
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
    bag = read_bag(bags / f"{entry.slide_id}.h5")
    scores = score_tiles(package.members, package, bag, device=device)
    header = replace(bag.header, width_px=size_px[0], height_px=size_px[1])
    values = {kind: relative_to_average(one) for kind, one in _by_kind(scores).items()}
    ends = {kind: float(end) for kind, end in package.summary.get("map_ends", {}).items() if kind in values}
    return SlideMaps(header, bag.coords, bag.grid, values, ends, _notes(scores))


def draw_maps_of_slide(
    request: MapRequest, settings: HeatmapSettings, *, device: str = "cpu"
) -> list[tuple[MapKind, Path]]:
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
    list of (str, Path)
        Kind and PNG, ``<slide_id>_<kind>.png``.

    Raises
    ------
    BagMismatchError
        If the bag was made with other settings than the model's.
    PackageError
        If the model takes no slides.
    """
    entry = request.entry
    with open_slide(entry.path, mpp=entry.mpp) as slide:
        picture = whole_slide_image(slide, settings.picture_mpp)
        size = (slide.geometry.width_px, slide.geometry.height_px)
    maps = maps_of_slide(entry, request.bags, request.package, size, device=device)
    drawn: list[tuple[MapKind, Path]] = []
    for kind in settings.kinds:
        if kind not in maps.values:
            continue
        scaled = maps.scaled(kind, settings.scale if settings.scale in maps.scales else "raw")
        raster = tile_raster(maps.header, maps.grid, scaled.values, picture.shape[:2])
        path = request.folder / f"{entry.slide_id}_{kind}.png"
        caption = "; ".join([request.caption, *(maps.notes if kind == "contribution" else ())])
        draw_heatmap(path, picture, raster, scaled=scaled, caption=caption, settings=settings)
        drawn.append((kind, path))
    return drawn


def _by_kind(scores: TileScores) -> dict[MapKind, FloatArray]:
    given: dict[MapKind, FloatArray | None] = {
        "contribution": scores.contribution, "attention": scores.attention, "disagreement": scores.disagreement,
    }  # fmt: skip
    return {kind: values for kind, values in given.items() if values is not None}


def _notes(scores: TileScores) -> tuple[str, ...]:
    return () if scores.is_exact else ("contributions are integrated gradients",)
