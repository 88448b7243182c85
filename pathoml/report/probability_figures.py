"""Calibration and decision curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.lines import Line2D

from pathoml.report.drawing import LINES, MARKERS, STYLE, new_figure, numbers, to_svg
from pathoml.report.words import days_words, estimate_words, number_words, p_value_words

_INNER = slice(1, -1)
"""Points of a smooth curve that are drawn: at its very ends it looks at hardly anybody."""
_LEGEND_LINE = 0.17
"""Inches of one line of a legend."""


def calibration_figure(models: Mapping[str, Mapping[str, Any]], place: int) -> str:
    """Draw observed against predicted probability at one horizon, models on top of one another.

    Parameters
    ----------
    models : mapping of str to mapping
        Label to calibration as `pathoml.evaluate` gives it; at most four are told apart.
    place : int
        Which horizon.

    Returns
    -------
    str
        SVG.
    """
    horizons = {label: one["horizons"][place] for label, one in models.items()}
    until = days_words(next(iter(horizons.values()))["days"])
    with rc_context(STYLE):
        figure, (axis,) = new_figure(3.6, 3.4 + _LEGEND_LINE * len(models))
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        for style, (label, one) in enumerate(horizons.items()):
            _calibration(axis, label, one, style)
        end = _end(list(horizons.values()))
        axis.set(xlim=(0, end), ylim=(0, 1.02 * end), aspect="equal")
        axis.set(xlabel="predicted probability of the event", ylabel="observed probability")
        axis.set_title(f"until {until}")
        figure.legend(handles=_keys(list(horizons)), frameon=False, loc="outside upper left", handlelength=3)
        spoken = "; ".join(
            f"{label}: observed over expected {estimate_words(one['observed_to_expected'], 2)}, slope"
            f" {estimate_words(one['slope'], 2)}"
            for label, one in horizons.items()
        )
        return to_svg(figure, f"Calibration until {until}: {spoken}")


def _keys(labels: Sequence[str]) -> list[Any]:
    """Return a legend in which each model has the mark of its groups and the dashes of its curve."""
    return [
        Line2D(
            [], [], label=label, marker=MARKERS[style % len(MARKERS)], markersize=4, linewidth=1,
            markerfacecolor=LINES[style % len(LINES)]["color"] if style == 0 else "white", **LINES[style % len(LINES)],
        )
        for style, label in enumerate(labels)
    ]  # fmt: skip


def _end(horizons: list[Mapping[str, Any]]) -> float:
    """Return where both axes end: at the next tenth above all marks and intervals, so that rare events fill the figure."""
    shown = [
        numbers(one["groups"][key] if key == "predicted" else one["groups"]["observed"][key])
        for one in horizons
        for key in ("predicted", "value", "high")
    ]
    lines = [numbers(one["curve"]["observed"]["value"])[_INNER] for one in horizons]
    lines += [numbers(one["curve"]["predicted"])[_INNER] for one in horizons]
    largest = float(np.nanmax(np.concatenate([*shown, *lines, [0.1]])))
    return min(1.0, math.ceil(largest * 10 + 0.2) / 10)


def _calibration(axis: Any, label: str, horizon: Mapping[str, Any], style: int) -> None:
    groups, curve, line = horizon["groups"], horizon["curve"], LINES[style % len(LINES)]
    predicted, observed = numbers(groups["predicted"]), numbers(groups["observed"]["value"])
    low, high = numbers(groups["observed"]["low"]), numbers(groups["observed"]["high"])
    axis.vlines(predicted, low, high, color=line["color"], linewidth=1)
    axis.plot(
        predicted, observed, MARKERS[style % len(MARKERS)], color=line["color"], markersize=4, label=label,
        markerfacecolor=line["color"] if style == 0 else "white", clip_on=False, zorder=3,
    )  # fmt: skip
    axis.plot(numbers(curve["predicted"])[_INNER], numbers(curve["observed"]["value"])[_INNER], linewidth=1, **line)


def distribution_figure(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw how evenly predicted survival probabilities at the end of follow-up are spread (D-calibration).

    Parameters
    ----------
    models : mapping of str to mapping
        Label to calibration as `pathoml.evaluate` gives it.

    Returns
    -------
    str
        SVG.
    """
    with rc_context(STYLE):
        figure, (axis,) = new_figure(4.4, 2.9)
        parts = []
        for style, (label, calibration) in enumerate(models.items()):
            found, line = calibration["d_calibration"], LINES[style % len(LINES)]
            share = numbers(found["share"]["value"])
            place = (np.arange(len(share)) + 0.5) / len(share) + 0.012 * style
            low, high = numbers(found["share"]["low"]), numbers(found["share"]["high"])
            axis.vlines(place, low, high, color=line["color"], linewidth=1)
            name = label if found["p_value"] is None else f"{label}: {p_value_words(found['p_value'])}"
            parts.append(f"{name}: shares {', '.join(number_words(one, 2) for one in found['share']['value'])}")
            axis.plot(
                place, share, MARKERS[style % len(MARKERS)], color=line["color"], markersize=4, label=name,
                markerfacecolor=line["color"] if style == 0 else "white",
            )  # fmt: skip
        axis.axhline(1 / len(share), color="0.6", linewidth=1, linestyle=":")
        axis.set(
            xlabel="predicted survival probability at the end of follow-up", ylabel="share of patients", xlim=(0, 1)
        )
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0))
        return to_svg(figure, f"D-calibration, a tenth in each bin is right. {'; '.join(parts)}")


def decision_figure(one: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Draw net benefit against the probability from which one would act.

    Parameters
    ----------
    one : mapping
        Decision curves at one horizon as `pathoml.evaluate` gives them.
    labels : mapping of str to str
        Models to be shown, with what to call them.

    Returns
    -------
    str
        SVG.
    """
    thresholds, everybody = np.array(one["thresholds"]), numbers(one["everybody"]["value"])
    until, middle = days_words(one["days"]), len(thresholds) // 2
    with rc_context(STYLE):
        figure, (axis,) = new_figure(3.6, 3.1 + _LEGEND_LINE * (len(labels) + 1))
        axis.axhline(0, color="0.6", linewidth=1)
        axis.plot(thresholds, everybody, color="0.25", linewidth=1.2, linestyle=(0, (1, 1)), label="act on all")
        lowest = 0.0
        for line, (model, label) in zip(LINES, labels.items(), strict=False):
            curve = one["models"][model]
            values = numbers(curve["value"])
            lowest = min(lowest, float(np.nanmin(values, initial=0.0)))
            axis.plot(thresholds, values, label=label, linewidth=1.4, **line)
            for side in ("low", "high"):  # edges have the line's dashes, since shades of grey cannot be told apart
                axis.plot(thresholds, numbers(curve[side]), linewidth=0.5, alpha=0.8, **line)
        highest = max(0.05, float(np.nanmax(everybody)) * 1.15)
        axis.set(ylim=(min(-0.25 * highest, 1.1 * lowest), highest), xlabel="probability from which one would act")
        axis.set(ylabel="net benefit (events per patient)", title=f"until {until}")
        figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside upper left")
        spoken = "; ".join(
            f"{label} {number_words(one['models'][model]['value'][middle])}" for model, label in labels.items()
        )
        return to_svg(
            figure,
            f"Decision curves until {until}. Net benefit of acting from a probability of {thresholds[middle]:.2f}: on all"
            f" {number_words(everybody[middle])}; {spoken}",
        )
