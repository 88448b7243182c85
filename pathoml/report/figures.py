"""Figures of the report, as SVG text."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

_COLOURS = {"low": "#2166ac", "high": "#b2182b"}
_DAYS_PER_YEAR = 365.25
_PLAIN_TEXT: Any = {"text.parse_math": False}


def kaplan_meier_figure(groups: Mapping[str, Any], *, title: str, endpoint: str) -> str:
    """Draw the survival of the two risk groups with the number of patients.

    Parameters
    ----------
    groups : mapping
        As `pathoml.evaluate.evaluate` gives it.
    title : str
        Which model.
    endpoint : str
        What the time runs to.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(_PLAIN_TEXT):
        return _svg(_kaplan_meier(groups, title, endpoint))


def _kaplan_meier(groups: Mapping[str, Any], title: str, endpoint: str) -> Figure:
    figure = Figure(figsize=(4.6, 3.7), layout="constrained")
    axis = figure.subplots()
    for name, curve in groups["curves"].items():
        years = np.array([0.0, *curve["days"]]) / _DAYS_PER_YEAR
        label = f"{name} risk: {curve['events']} events in {curve['patients']} patients"
        axis.step(years, [1.0, *curve["survival"]], where="post", color=_COLOURS[name], label=label)
    axis.set(xlabel="years", ylabel=endpoint, ylim=(0, 1.02), title=title)
    axis.set_xlim(left=0)
    axis.text(0.02, 0.04, f"log-rank p = {groups['p_value']:.2g}", transform=axis.transAxes, fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="upper right")
    _numbers_at_risk(axis, groups)
    _plain(axis)
    return figure


def concordance_figure(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Draw concordances with their intervals, one line each.

    Parameters
    ----------
    rows : sequence of (str, mapping)
        Name, and value with low and high.

    Returns
    -------
    str
        SVG.
    """
    figure = Figure(figsize=(5.6, 0.5 + 0.36 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for position, (_, estimate) in enumerate(rows):
        if estimate["value"] is None:
            continue
        axis.plot([estimate["low"], estimate["high"]], [position, position], color="0.4", linewidth=1.5)
        axis.plot(estimate["value"], position, "o", color="black", markersize=4)
    axis.axvline(0.5, color="0.7", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("concordance on test patients (0.5 = guessing)", fontsize=8)
    _plain(axis)
    return _svg(figure)


def _numbers_at_risk(axis: Any, groups: Mapping[str, Any]) -> None:
    """Write below each year how many patients of each group are still followed."""
    years = np.array(groups["at_risk_days"]) / _DAYS_PER_YEAR
    shown = slice(None, None, max(1, len(years) // 8))
    axis.set_xticks(years[shown])
    for line, (name, curve) in enumerate(groups["curves"].items()):
        for year, count in zip(years[shown], curve["at_risk"][shown], strict=True):
            place = (year, -0.24 - 0.07 * line)
            axis.text(
                *place, count, transform=axis.get_xaxis_transform(), ha="center", fontsize=7, color=_COLOURS[name]
            )
    axis.text(0.0, -0.17, "at risk", transform=axis.get_xaxis_transform(), fontsize=7, color="0.4")


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _svg(figure: Figure) -> str:
    # A fixed salt and no date: the same numbers give the same bytes.
    with rc_context({"svg.hashsalt": "pathoml", "svg.fonttype": "none"}):
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
