"""What the colours of a map mean: the quantity, its unit, and where the colours end."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from pathoml.heatmap_settings import MapKind, MapName, MapScale
from pathoml.units import FloatArray

COLOUR_END = 0.98
"""Quantile of the absolute values at which colours end: a few extreme tiles would leave all others pale."""


@dataclass(frozen=True)
class MapStyle:
    """Colours and words of one kind of map.

    Parameters
    ----------
    title : str
        Above the picture.
    quantity : str
        What a value is, with its unit.
    colours : str
        Name of a matplotlib colour map.
    signed : bool
        Whether the scale is symmetric about zero.
    key : str
        What light and dark mean.
    """

    title: str
    quantity: str
    colours: str
    signed: bool
    key: str


_SIGNED_COLOURS = "cividis"
"""Its lightness rises from end to end, so that what raises and what lowers the risk is told apart without colour as well."""
_SIGNED_WORDS = "yellow (light) raises, blue (dark) lowers"
STYLES: dict[MapName, MapStyle] = {
    "contribution": MapStyle(
        "What each tile adds to the risk",
        f"contribution to the risk x tiles of the slide: {_SIGNED_WORDS},\n"
        "0 = average training patient; in SD of the training\n"
        "patients' risk (Cox), or hazard logits (time bins)",
        _SIGNED_COLOURS,
        signed=True,
        key=f"{_SIGNED_WORDS} the risk",
    ),
    "attention": MapStyle(
        "Where the model looks",
        "attention relative to an average tile (1 = average)",
        "viridis",
        signed=False,
        key="yellow (light): looked at more than others, blue (dark): less",
    ),
    "disagreement": MapStyle(
        "Where the models disagree",
        "standard deviation over models of the contribution x tiles",
        "magma",
        signed=False,
        key="light: models differ more, dark: less",
    ),
}

_WAY = "by "


def name_of_way(part: str) -> MapName:
    """Return what the map of a way through another part of the model is called.

    Parameters
    ----------
    part : str
        Name of the part.

    Returns
    -------
    str
        ``by PART``.
    """
    return f"{_WAY}{part}"


def kind_of(name: MapName) -> MapKind:
    """Return which kind a map is of.

    Parameters
    ----------
    name : str
        Of a map.

    Returns
    -------
    str
        ``modality`` for those of `name_of_way`.

    Raises
    ------
    ValueError
        If there is no such map.
    """
    if name.startswith(_WAY):
        return "modality"
    plain: tuple[MapKind, ...] = ("contribution", "attention", "disagreement")
    for kind in plain:
        if name == kind:
            return kind
    raise ValueError(f"there is no map {name!r}")


def style_of(name: MapName) -> MapStyle:
    """Return colours and words of a map.

    Parameters
    ----------
    name : str
        Of a map.

    Returns
    -------
    MapStyle
        One of `STYLES`, or that of a way through another part of the model.
    """
    if kind_of(name) != "modality":
        return STYLES[name]
    part = name.removeprefix(_WAY)
    return MapStyle(
        f"What each tile adds by way of {part}",
        f"what tiles add to the risk by way of {part},\ngiven what is known of the patient, x tiles of the slide:\n"
        f"{_SIGNED_WORDS}, 0 = adds nothing;\nin SD of the training patients' risk (Cox), or hazard logits (time bins)",
        _SIGNED_COLOURS,
        signed=True,
        key=f"{_SIGNED_WORDS} the risk",
    )


_SCALE_WORDS: dict[MapScale, str] = {
    "raw": "colours end at the 98th percentile of this slide",
    "percentile": "percentile among the tiles of this slide",
    "cohort": "colours end at the 98th percentile of the training cohort's tiles:\n"
    "the same colour is the same value on every slide",
}


@dataclass(frozen=True)
class ScaledMap:
    """Tile values with the range of their colours and what they mean.

    Parameters
    ----------
    values : ndarray of float64, shape (tiles,)
        To be painted.
    low, high : float
        Where colours end.
    title : str
        Of the picture.
    label : str
        Quantity, unit, and how it was scaled.
    colours : str
        Name of a matplotlib colour map.
    signed : bool
        Whether values run both ways from zero.
    """

    values: FloatArray
    low: float
    high: float
    title: str
    label: str
    colours: str
    signed: bool

    def palette(self, steps: int = 255) -> NDArray[np.uint8]:
        """Return the colours from low to high.

        Parameters
        ----------
        steps : int, optional
            How many.

        Returns
        -------
        ndarray of uint8, shape (steps, 3)
            RGB.
        """
        palette: NDArray[np.uint8] = np.rint(colormaps[self.colours](np.linspace(0, 1, steps))[:, :3] * 255).astype(
            np.uint8
        )
        return palette

    def steps_of(self, painted: FloatArray, steps: int = 255) -> NDArray[np.uint8]:
        """Return which colour each pixel has.

        Parameters
        ----------
        painted : ndarray of float64
            As of `pathoml.heatmaps.paint`.
        steps : int, optional
            Colours of the palette.

        Returns
        -------
        ndarray of uint8
            Same shape: 0 where there is no tile, else 1 to `steps`; values beyond the ends have the colour of the end.
        """
        relative = np.clip((np.nan_to_num(painted) - self.low) / (self.high - self.low), 0, 1)
        return np.where(np.isfinite(painted), 1 + np.rint(relative * (steps - 1)), 0).astype(np.uint8)


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


def colour_end(values: FloatArray) -> float:
    """Return where the colours of values end.

    Parameters
    ----------
    values : ndarray of float64
        Relative to the average tile; those that are not finite are passed over.

    Returns
    -------
    float
        The 98th percentile of their absolute values; 1 where that is 0 or there are none.
    """
    shown = np.abs(values[np.isfinite(values)])
    high = float(np.quantile(shown, COLOUR_END)) if shown.size else 0.0
    return high if high > 0 else 1.0


def scaled_map(values: FloatArray, kind: MapName, scale: MapScale, *, cohort_end: float | None = None) -> ScaledMap:
    """Decide what the colours of a map mean.

    Parameters
    ----------
    values : ndarray of float64, shape (tiles,)
        Relative to the average tile (`relative_to_average`).
    kind : str
        Which quantity.
    scale : str
        ``raw``: its own unit, colours end with this slide's values. ``percentile``: rank among the slide's tiles, 0 to
        100. ``cohort``: its own unit, colours end where the training cohort's values do.
    cohort_end : float, optional
        For ``cohort``: `colour_end` of the training cohort's tiles.

    Returns
    -------
    ScaledMap
        Values and colours.

    Raises
    ------
    ValueError
        If ``cohort`` is asked for and `cohort_end` is not given.
    """
    style = style_of(kind)
    label = f"{style.quantity};\n{_SCALE_WORDS[scale]}"
    if scale == "percentile":
        ranks = 100 * _ranks(values) / len(values)
        return ScaledMap(ranks, 0.0, 100.0, style.title, label, style.colours, signed=False)
    if scale == "cohort" and cohort_end is None:
        raise ValueError("the scale 'cohort' needs the training cohort's colour end")
    high = colour_end(values) if scale == "raw" or cohort_end is None else cohort_end
    return ScaledMap(values, -high if style.signed else 0.0, high, style.title, label, style.colours, style.signed)


def _ranks(values: FloatArray) -> FloatArray:
    """Return ranks from 1, equal values sharing their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


Direction = Literal["highest", "lowest"]


def extreme_tiles(values: FloatArray, count: int, direction: Direction) -> NDArray[np.int64]:
    """Return the tiles at one end of a map.

    Parameters
    ----------
    values : ndarray of float64, shape (tiles,)
        One for each tile.
    count : int
        At most so many.
    direction : str
        ``highest`` or ``lowest``.

    Returns
    -------
    ndarray of int64
        Positions of tiles, the most extreme first; of equal ones the first in the slide.
    """
    order = np.argsort(-values if direction == "highest" else values, kind="stable")
    return order[:count].astype(np.int64)
