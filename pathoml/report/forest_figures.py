"""Estimates with intervals, one line each."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.ticker import LogLocator, NullLocator

from pathoml.report.drawing import STYLE, new_figure, to_svg
from pathoml.report.words import estimate_words

_LONGEST = 34
_FARTHEST = 4.0
"""An interval of a hazard ratio is cut where it is so many times larger or smaller than any estimate."""


def concordance_figure(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Draw concordances of models with their intervals.

    Parameters
    ----------
    rows : sequence of (str, mapping)
        Name, and value with low and high.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(STYLE):
        figure, (axis,) = new_figure(6.4, 0.55 + 0.3 * len(rows))
        _lines(axis, rows, reference=0.5)
        axis.set_xlabel("concordance on test patients (0.5 = guessing)" + _with_intervals(rows))
        return to_svg(figure, "Concordance of each model: " + _spoken(rows))


def difference_figure(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Draw differences in concordance with their intervals.

    Parameters
    ----------
    rows : sequence of (str, mapping)
        Which, and value with low and high.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(STYLE):
        figure, (axis,) = new_figure(6.4, 0.55 + 0.3 * len(rows))
        _lines(axis, rows, reference=0.0)
        axis.set_xlabel("difference in concordance" + _with_intervals(rows))
        return to_svg(figure, "Differences in concordance: " + _spoken(rows))


def _with_intervals(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return ", 95 % interval" if any(value["low"] is not None for _, value in rows) else ""


def contribution_figure(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Draw what part of the differences in risk each part of a model makes.

    Parameters
    ----------
    rows : sequence of (str, mapping)
        Part of the model, and value with low and high.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(STYLE):
        figure, (axis,) = new_figure(6.4, 0.55 + 0.3 * len(rows))
        _lines(axis, rows, reference=0.0)
        axis.set_xlabel("share of the variance of the risk (shares add up to 1), 95 % interval")
        return to_svg(figure, "Contributions of the parts of the model: " + _spoken(rows))


def forest_figure(subgroups: Mapping[str, Any]) -> str:
    """Draw concordance and hazard ratio in all patients, hospitals and clinical subgroups.

    Parameters
    ----------
    subgroups : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    str
        SVG.
    """
    found = subgroups["rows"]
    names = [f"{row_words(row)} ({row['events']}/{row['patients']})" for row in found]
    with rc_context(STYLE):
        figure, axes = new_figure(8.6, 0.8 + 0.26 * len(found), columns=2)
        concordances = [(name, row["concordance"]) for name, row in zip(names, found, strict=True)]
        _lines(axes[0], concordances, reference=0.5)
        axes[0].set_xlabel("concordance (0.5 = guessing)")
        ratios = [("", row["hazard_ratio"]) for row in found]
        axes[1].set_xscale("log")
        _lines(axes[1], ratios, reference=1.0)
        axes[1].set_xlabel("hazard ratio for one SD of risk (log scale; 1 = none)")
        limits = _ratio_limits(found)
        axes[1].set_xlim(*limits)
        _arrows(axes[1], [row["hazard_ratio"] for row in found], limits)
        axes[1].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
        axes[1].xaxis.set_major_formatter("{x:g}")
        axes[1].xaxis.set_minor_locator(NullLocator())
        axes[1].tick_params(axis="y", labelleft=False)
        return to_svg(figure, "Forest plot of concordance by subgroup: " + _spoken(concordances))


def _ratio_limits(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return limits that show every estimate, and of intervals no more than makes them readable."""
    values = [row["hazard_ratio"]["value"] for row in rows if row["hazard_ratio"]["value"] is not None]
    lows = [row["hazard_ratio"]["low"] for row in rows if row["hazard_ratio"]["low"] is not None]
    highs = [row["hazard_ratio"]["high"] for row in rows if row["hazard_ratio"]["high"] is not None]
    lowest, highest = min([*values, 1.0]), max([*values, 1.0])
    return (
        max(min([*lows, lowest]), lowest / _FARTHEST) / 1.2,
        min(max([*highs, highest]), highest * _FARTHEST) * 1.2,
    )


def _arrows(axis: Any, estimates: Sequence[Mapping[str, Any]], limits: tuple[float, float]) -> None:
    """Mark intervals that run beyond the frame."""
    for position, one in enumerate(estimates):
        if one["low"] is None:
            continue
        for end, beyond, marker in (
            (limits[0], one["low"] < limits[0], 8), (limits[1], one["high"] > limits[1], 9),
        ):  # fmt: skip
            if beyond:
                axis.plot(end, position, marker=marker, color="0.35", markersize=6, clip_on=False, zorder=3)


def row_words(row: Mapping[str, Any]) -> str:
    """Name a subgroup.

    Parameters
    ----------
    row : mapping
        Of the subgroups, as `pathoml.evaluate` gives them.

    Returns
    -------
    str
        No longer than a figure has room for.
    """
    label = row["level"] if row["by"] == "all" else f"{row['by']}: {row['level']}"
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _lines(axis: Any, rows: Sequence[tuple[str, Mapping[str, Any]]], *, reference: float) -> None:
    axis.axvline(reference, color="0.6", linewidth=1, linestyle=":")
    for position, (_, one) in enumerate(rows):
        if one["value"] is None:
            axis.text(reference, position, " not defined", fontsize=7, va="center", color="0.3")
            continue
        if one["low"] is not None:
            axis.plot([one["low"], one["high"]], [position, position], color="0.35", linewidth=1.4)
        axis.plot(one["value"], position, "o", color="black", markersize=4)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)


def _spoken(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return "; ".join(f"{name}: {estimate_words(one)}" for name, one in rows)
