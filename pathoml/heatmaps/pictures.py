"""The picture of a map: the slide beside the same slide with its map, with scale bar and legend."""

import textwrap
from pathlib import Path
from typing import Any

from matplotlib import patheffects, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pathoml.files import atomic_path
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.heatmaps.overlays import overlay_image
from pathoml.heatmaps.scales import ScaledMap
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.units import FloatArray, RgbImage

_SCALE_BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)


_CAPTION_CHARACTERS = 70


def draw_heatmap(
    path: Path, picture: RgbImage, raster: FloatArray, *, scaled: ScaledMap, caption: str, settings: HeatmapSettings
) -> None:
    """Draw a slide beside the same slide with its map, with scale bar, colour bar and how the map was scaled.

    Parameters
    ----------
    path : Path
        The PNG to write.
    picture : ndarray of uint8, shape (rows, columns, 3)
        The slide at ``settings.picture_mpp``.
    raster : ndarray of float64, shape (rows, columns)
        ``scaled.values``, laid out by `pathoml.heatmaps.tile_raster`.
    scaled : ScaledMap
        What the values are, and where their colours end.
    caption : str
        Which slide and which model.
    settings : HeatmapSettings
        Resolution and opacity.
    """
    with rc_context({"text.parse_math": False}):  # a dollar in a name is a dollar
        figure = _figure(picture, raster, scaled, caption, settings)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": "pathoml"})


def _figure(
    picture: RgbImage, raster: FloatArray, scaled: ScaledMap, caption: str, settings: HeatmapSettings
) -> Figure:
    rows, columns = raster.shape
    width = 11.0
    height = min(14.0, max(3.4, 0.42 * width * rows / columns + 1.3))
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    plain, overlay = figure.subplots(1, 2)
    for axis in (plain, overlay):
        axis.imshow(picture)
        axis.set_axis_off()
        _scale_bar(axis, columns, settings.picture_mpp)
    # Colours are mixed here and not by matplotlib, which would do so in floating point for every pixel.
    overlay.images[0].set_data(overlay_image(picture, raster, scaled, settings.opacity))
    legend = ScalarMappable(Normalize(scaled.low, scaled.high), scaled.colours)
    colour_bar = figure.colorbar(legend, ax=overlay, shrink=0.8, pad=0.02)
    colour_bar.set_label(scaled.label, fontsize=7)
    colour_bar.ax.tick_params(labelsize=7)
    plain.set_title(textwrap.fill(caption, _CAPTION_CHARACTERS), fontsize=9)
    overlay.set_title(scaled.title, fontsize=9)
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=7, color="0.35")
    return figure


def _scale_bar(axis: Any, columns: int, mpp: float) -> None:
    fitting = [length for length in _SCALE_BARS_UM if length <= 0.3 * columns * mpp] or [_SCALE_BARS_UM[0]]
    length_um = fitting[-1]
    label = f"{length_um} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"
    text = {"path_effects": [patheffects.withStroke(linewidth=2, foreground="white")]}
    end = columns * 0.03 + length_um / mpp
    bottom = axis.get_ylim()[0]
    axis.plot([columns * 0.03, end], [bottom * 0.965] * 2, color="black", linewidth=3, solid_capstyle="butt", **text)
    axis.text((columns * 0.03 + end) / 2, bottom * 0.95, label, ha="center", va="bottom", fontsize=8, **text)
