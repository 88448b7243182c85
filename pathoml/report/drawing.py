"""What all figures share: style, and SVG that a screen reader can name and many of which can stand in one page."""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pathoml.units import FloatArray

STYLE: Any = {"text.parse_math": False, "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 7}
LINES: tuple[dict[str, Any], ...] = (
    {"color": "#1b4f8a", "linestyle": "-"},
    {"color": "#b2182b", "linestyle": "--"},
    {"color": "#4d4d4d", "linestyle": "-."},
    {"color": "#7b5aa6", "linestyle": ":"},
)
"""Told apart by their dashes as well as by colour."""
MARKERS = ("o", "s", "D", "^")


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Any]]:
    """Return a figure with axes side by side.

    Parameters
    ----------
    width, height : float
        Inches.
    columns : int, optional
        How many axes.

    Returns
    -------
    tuple of Figure and list of Axes
        Without frame above and to the right.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, columns)))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG for an HTML page.

    Parameters
    ----------
    figure : Figure
        Drawn.
    name : str
        What it shows, in a sentence for those who do not see it.

    Returns
    -------
    str
        The same bytes for the same numbers.
    """
    # A fixed salt and no date: the same numbers give the same bytes.
    with rc_context({"svg.hashsalt": "pathoml", "svg.fonttype": "none"}):
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # names of groups would stand twice in a page of many figures
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(name)}" ', 1)


def _attribute(text: str) -> str:
    for raw, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, written)
    return text


def numbers(values: Sequence[float | None]) -> FloatArray:
    """Return JSON numbers as an array.

    Parameters
    ----------
    values : sequence of float or None
        As the evaluation holds them.

    Returns
    -------
    ndarray of float64
        NaN for None.
    """
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
