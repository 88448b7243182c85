"""Survival and incidence of risk groups."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context

from pathoml.report.drawing import LINES, STYLE, new_figure, numbers, to_svg
from pathoml.report.words import p_value_words, unbroken
from pathoml.units import DAYS_PER_UNIT

_DAYS = DAYS_PER_UNIT["years"]
_TITLE_CHARACTERS = 42


def kaplan_meier_figure(
    groups: Mapping[str, Any], *, title: str, endpoint: str, refitted: float | None = None
) -> str:  # fmt: skip
    """Draw the survival of the two risk groups with the number of patients.

    Parameters
    ----------
    groups : mapping
        As `pathoml.evaluate` gives it.
    title : str
        Which model.
    endpoint : str
        What the time runs to.
    refitted : float or None, optional
        p-value of models fitted again on shuffled outcomes, where there is one.

    Returns
    -------
    str
        SVG.
    """
    tests = _tests(groups, refitted)
    with rc_context(STYLE):
        figure, (axis,) = new_figure(3.6, 4.3)
        parts = []
        for line, (name, curve) in zip(LINES, groups["curves"].items(), strict=False):
            label = f"{name} risk: {curve['events']} events in {curve['patients']} patients"
            years = np.array([0.0, *curve["days"]]) / _DAYS
            axis.step(years, [1.0, *curve["survival"]], where="post", label=label, **line)
            if curve.get("band_days"):
                band = np.array(curve["band_days"]) / _DAYS
                low, high = (numbers(curve["band"][side]) for side in ("low", "high"))
                axis.fill_between(band, low, high, step="post", color=line["color"], alpha=0.13, linewidth=0)
            parts.append(label)
        axis.set(
            xlabel="years since time zero",
            ylabel=f"{endpoint} (probability)",
            ylim=(0, 1.02),
            title=f"{title}\n{textwrap.fill(unbroken(tests), _TITLE_CHARACTERS)}",
        )
        axis.set_xlim(0, max(groups["well_followed_days"] / _DAYS, 0.1))
        figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside upper left")
        _numbers_at_risk(axis, groups)
        return to_svg(figure, f"Kaplan-Meier curves by risk group, {title}. {'; '.join(parts)}. {tests}")


def _tests(groups: Mapping[str, Any], refitted: float | None) -> str:
    if groups["p_value"] is not None:
        return f"log-rank {p_value_words(groups['p_value'])}"
    if refitted is None:
        return "not tested: the model was not fitted again on shuffled outcomes"
    return f"fitted again on shuffled outcomes: {p_value_words(refitted)}"


def _numbers_at_risk(axis: Any, groups: Mapping[str, Any]) -> None:
    """Write below each year how many patients of each group are still followed."""
    years = np.array(groups["at_risk_days"]) / _DAYS
    years = years[years <= axis.get_xlim()[1]]
    shown = slice(None, None, max(1, -(-len(years) // 8)))
    axis.set_xticks(years[shown], [f"{year:.0f}" for year in years[shown]])
    below = axis.get_xaxis_transform()
    for line, (name, curve) in enumerate(groups["curves"].items()):
        colour = LINES[line]["color"]
        axis.text(
            -0.05, -0.25 - 0.07 * line, f"{name} ", transform=axis.transAxes, ha="right", fontsize=7, color=colour
        )
        for year, count in zip(years[shown], curve["at_risk"][: len(years)][shown], strict=True):
            axis.text(year, -0.25 - 0.07 * line, count, transform=below, ha="center", fontsize=7, color=colour)
    axis.text(-0.05, -0.18, "at risk ", transform=axis.transAxes, ha="right", fontsize=7, color="0.3")
    lowest = -0.31 - 0.07 * len(groups["curves"])
    axis.text(0, lowest, " ", transform=axis.transAxes, fontsize=7)  # keeps the last line off the edge


def incidence_figure(groups: Mapping[str, Any], *, title: str) -> str:
    """Draw the cumulative incidence of each competing cause by risk group.

    Parameters
    ----------
    groups : mapping
        As `pathoml.evaluate` gives it, with the key incidence.
    title : str
        Which model.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(STYLE):
        figure, axes = new_figure(6.4, 3.0, columns=len(groups["incidence"]))
        for axis, (name, group) in zip(axes, groups["incidence"].items(), strict=True):
            for line, (cause, curve) in zip(LINES, group["causes"].items(), strict=False):
                years = np.array(group["days"]) / _DAYS
                axis.plot(years, numbers(curve["value"]), label=f"cause {cause}: {curve['events']} events", **line)
                low, high = numbers(curve["low"]), numbers(curve["high"])
                axis.fill_between(years, low, high, color=line["color"], alpha=0.13, linewidth=0)
            axis.set(
                xlabel="years since time zero",
                ylabel="cumulative incidence",
                ylim=(0, 1),
                title=f"{title}: {name} risk",
            )
            axis.legend(frameon=False)
        return to_svg(figure, f"Cumulative incidence of competing causes by risk group (Aalen-Johansen), {title}.")
