"""Tile values -> raster -> overlay on the slide. Runs no model."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects, rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pathoml.bags import BagHeader
from pathoml.files import atomic_path
from pathoml.heatmap_settings import HeatmapSettings, MapKind
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.units import FloatArray, RgbImage

_SCALE_BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)


_CAPTION_CHARACTERS = 70


@dataclass(frozen=True)
class MapStyle:
    """Colours and words of one kind of map.

    Parameters
    ----------
    title : str
        Above the picture.
    label : str
        Beside the colour bar: quantity, unit and how it was scaled.
    colours : str
        Name of a matplotlib colour map.
    signed : bool
        Whether the scale is symmetric about zero.
    """

    title: str
    label: str
    colours: str
    signed: bool


STYLES: dict[str, MapStyle] = {
    "contribution": MapStyle(
        "What each tile adds to the risk",
        "contribution to the risk x tiles of the slide: red raises,\n"
        "blue lowers, 0 = average training patient; in SD of the training\n"
        "patients' risk (Cox), or hazard logits (time bins);\n"
        "colours end at the 98th percentile of this slide",
        "RdBu_r",
        signed=True,
    ),
    "attention": MapStyle(
        "Where the model looks",
        "attention relative to an average tile\n(1 = average; colours end at the 98th percentile of this slide)",
        "viridis",
        signed=False,
    ),
}


def tile_raster(header: BagHeader, grid: NDArray[np.int32], values: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Paint tile values on a picture of the whole slide.

    Parameters
    ----------
    header : BagHeader
        Of the slide's bag.
    grid : ndarray of int32, shape (tiles, 2)
        Row and column of each tile.
    values : ndarray of float64, shape (tiles,)
        One for each tile.
    shape : tuple of int
        Rows and columns of the picture, which covers the slide exactly.

    Returns
    -------
    ndarray of float64, shape ``shape``
        The mean of the tiles over each pixel, NaN where there is none.
    """
    total, count = np.zeros(shape), np.zeros(shape)
    scale_x, scale_y = shape[1] / header.width_px, shape[0] / header.height_px
    x = header.origin_level0_px[0] + grid[:, 1] * header.stride_level0_px[0]
    y = header.origin_level0_px[1] + grid[:, 0] * header.stride_level0_px[1]
    left, right = np.rint(x * scale_x).astype(int), np.rint((x + header.footprint_level0_px[0]) * scale_x).astype(int)
    top, bottom = np.rint(y * scale_y).astype(int), np.rint((y + header.footprint_level0_px[1]) * scale_y).astype(int)
    for one, value in enumerate(values):
        window = (slice(top[one], bottom[one]), slice(left[one], right[one]))
        total[window] += value
        count[window] += 1
    raster: FloatArray = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    return raster


def draw_heatmap(
    path: Path, picture: RgbImage, raster: FloatArray, *, kind: MapKind, caption: str, settings: HeatmapSettings
) -> None:
    """Draw a slide beside the same slide with its map, with scale bar, colour bar and how the map was scaled.

    Parameters
    ----------
    path : Path
        The PNG to write.
    picture : ndarray of uint8, shape (rows, columns, 3)
        The slide at ``settings.picture_mpp``.
    raster : ndarray of float64, shape (rows, columns)
        Contributions or attention of `pathoml.infer.TileScores` through `relative_to_average`, laid out by `tile_raster`.
    kind : str
        ``contribution``: what the slide would add to the risk if all its tiles were like this one, counted from the
        average training patient, in standard deviations of the training patients' risk (Cox) or hazard logits averaged
        over the bins (time bins). ``attention``: weight relative to an average tile, no unit. Colours end at the 98th
        percentile of the slide's own absolute values.
    caption : str
        Which slide and which model.
    settings : HeatmapSettings
        Resolution and opacity.
    """
    with rc_context({"text.parse_math": False}):  # a dollar in a name is a dollar
        figure = _figure(picture, raster, STYLES[kind], caption, settings)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": "pathoml"})


def _figure(picture: RgbImage, raster: FloatArray, style: MapStyle, caption: str, settings: HeatmapSettings) -> Figure:
    rows, columns = raster.shape
    width = 11.0
    height = min(14.0, max(3.4, 0.42 * width * rows / columns + 1.3))
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    plain, overlay = figure.subplots(1, 2)
    for axis in (plain, overlay):
        axis.imshow(picture)
        axis.set_axis_off()
        _scale_bar(axis, columns, settings.picture_mpp)
    image = overlay.imshow(
        np.ma.masked_invalid(raster),
        cmap=style.colours,
        alpha=settings.opacity,
        interpolation="nearest",
        **_limits(raster, style),
    )
    colour_bar = figure.colorbar(image, ax=overlay, shrink=0.8, pad=0.02)
    colour_bar.set_label(style.label, fontsize=7)
    colour_bar.ax.tick_params(labelsize=7)
    if colour_bar.solids is not None:
        colour_bar.solids.set_alpha(1)
    plain.set_title(textwrap.fill(caption, _CAPTION_CHARACTERS), fontsize=9)
    overlay.set_title(style.title, fontsize=9)
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=7, color="0.35")
    return figure


def relative_to_average(values: FloatArray) -> FloatArray:
    """Scale values so that they do not depend on how many tiles a slide has.

    Parameters
    ----------
    values : ndarray of float64, shape (tiles,)
        Attention or contributions, which shrink with the number of tiles.

    Returns
    -------
    ndarray of float64, shape (tiles,)
        Times the number of tiles: attention of which 1 is an average tile; contributions whose mean over the tiles is
        what the slide adds, in the unit of the contributions.
    """
    return values * len(values)


def _limits(raster: FloatArray, style: MapStyle) -> dict[str, Any]:
    shown = raster[np.isfinite(raster)]
    high = float(np.quantile(np.abs(shown), 0.98)) if shown.size else 1.0
    high = high if high > 0 else 1.0
    return {"vmin": -high, "vmax": high} if style.signed else {"vmin": 0.0, "vmax": high}


def _scale_bar(axis: Any, columns: int, mpp: float) -> None:
    fitting = [length for length in _SCALE_BARS_UM if length <= 0.3 * columns * mpp] or [_SCALE_BARS_UM[0]]
    length_um = fitting[-1]
    label = f"{length_um} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"
    text = {"path_effects": [patheffects.withStroke(linewidth=2, foreground="white")]}
    end = columns * 0.03 + length_um / mpp
    bottom = axis.get_ylim()[0]
    axis.plot([columns * 0.03, end], [bottom * 0.965] * 2, color="black", linewidth=3, solid_capstyle="butt", **text)
    axis.text((columns * 0.03 + end) / 2, bottom * 0.95, label, ha="center", va="bottom", fontsize=8, **text)
