"""The maps of one slide: scores of its tiles, laid on its picture."""

from dataclasses import dataclass, replace
from pathlib import Path

from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.heatmap_settings import HeatmapSettings, MapKind
from pathoml.heatmaps import draw_heatmap, relative_to_average, tile_raster
from pathoml.infer import score_tiles
from pathoml.packages import Package
from pathoml.slides import open_slide, whole_slide_image


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


def draw_maps_of_slide(
    request: MapRequest, settings: HeatmapSettings, *, device: str = "cpu"
) -> list[tuple[MapKind, Path]]:
    """Draw every kind of map that the model gives.

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
    bag = read_bag(request.bags / f"{entry.slide_id}.h5")
    scores = score_tiles(request.package.members, request.package, bag, device=device)
    with open_slide(entry.path, mpp=entry.mpp) as slide:
        picture = whole_slide_image(slide, settings.picture_mpp)
        # A bag that was imported without its slide need not know how large it is.
        header = replace(bag.header, width_px=slide.geometry.width_px, height_px=slide.geometry.height_px)
    drawn: list[tuple[MapKind, Path]] = []
    for kind in settings.kinds:
        values = scores.contribution if kind == "contribution" else scores.attention
        if values is None:
            continue
        raster = tile_raster(header, bag.grid, relative_to_average(values), picture.shape[:2])
        path = request.folder / f"{entry.slide_id}_{kind}.png"
        caption = request.caption
        if kind == "contribution" and not scores.is_exact:
            caption += "; contributions are integrated gradients"
        draw_heatmap(path, picture, raster, kind=kind, caption=caption, settings=settings)
        drawn.append((kind, path))
    return drawn
