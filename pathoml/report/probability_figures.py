"""Calibration and decision curves."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context

from pathoml.report.drawing import LINES, MARKERS, STYLE, new_figure, numbers, to_svg
from pathoml.report.words import days_words, estimate_words, p_value_words


def calibration_figure(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw observed against predicted probability at each horizon, models on top of one another.

    Parameters
    ----------
    models : mapping of str to mapping
        Label to calibration as `pathoml.evaluate` gives it; at most four are told apart.

    Returns
    -------
    str
        SVG; empty text where no horizon lies within follow-up.
    """
    horizons = [one["days"] for one in next(iter(models.values()))["horizons"]]
    if not horizons:
        return ""
    with rc_context(STYLE):
        width, several = max(4.4, min(9.0, 1.2 + 2.7 * len(horizons))), len(horizons) > 1
        # Panels are square: a height that leaves them room for titles, labels and the legend above.
        height = (width - 0.8) / len(horizons) + (1.0 if several else 1.6)
        figure, axes = new_figure(width, height, columns=len(horizons))
        for place, axis in enumerate(axes):
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
            for style, (label, calibration) in enumerate(models.items()):
                _calibration(axis, label, calibration["horizons"][place], style)
            end = _end([calibration["horizons"][place] for calibration in models.values()])
            axis.set(xlim=(0, end), ylim=(0, 1.02 * end), xlabel="predicted probability of the event", aspect="equal")
            axis.set_title(f"until {days_words(horizons[place])}")
        axes[0].set_ylabel("observed probability")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            frameon=False,
            loc="outside upper left",
            ncols=len(models) if several else 1,
        )
        spoken = "; ".join(
            f"{label}, until {days_words(one['days'])}: observed over expected {estimate_words(one['observed_to_expected'], 2)},"
            f" slope {estimate_words(one['slope'], 2)}"
            for label, calibration in models.items()
            for one in calibration["horizons"]
        )
        return to_svg(figure, f"Calibration: {spoken}")


def _end(horizons: list[Mapping[str, Any]]) -> float:
    """Return where both axes end: at the next tenth above all marks and intervals, so that rare events fill the figure."""
    shown = [
        numbers(one["groups"][key] if key == "predicted" else one["groups"]["observed"][key])
        for one in horizons
        for key in ("predicted", "value", "high")
    ]
    largest = float(np.nanmax(np.concatenate([*shown, [0.1]])))
    return min(1.0, math.ceil(largest * 10 + 0.2) / 10)


def _calibration(axis: Any, label: str, horizon: Mapping[str, Any], style: int) -> None:
    groups, curve, line = horizon["groups"], horizon["curve"], LINES[style % len(LINES)]
    predicted, observed = numbers(groups["predicted"]), numbers(groups["observed"]["value"])
    low, high = numbers(groups["observed"]["low"]), numbers(groups["observed"]["high"])
    axis.vlines(predicted, low, high, color=line["color"], linewidth=1)
    axis.plot(
        predicted, observed, MARKERS[style % len(MARKERS)], color=line["color"], markersize=4, label=label,
        markerfacecolor=line["color"] if style == 0 else "white",
    )  # fmt: skip
    axis.plot(curve["predicted"], numbers(curve["observed"]["value"]), linewidth=1, **line)


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
            name = f"{label}: {p_value_words(found['p_value'])}"
            parts.append(name)
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


def decision_figure(decisions: list[Any], labels: Mapping[str, str]) -> str:
    """Draw net benefit against the probability from which one would act.

    Parameters
    ----------
    decisions : list
        As `pathoml.evaluate` gives it.
    labels : mapping of str to str
        Models to be shown, with what to call them.

    Returns
    -------
    str
        SVG; empty text where no horizon lies within follow-up.
    """
    if not decisions:
        return ""
    with rc_context(STYLE):
        figure, axes = new_figure(max(6.0, min(9.0, 1.0 + 3.0 * len(decisions))), 3.4, columns=len(decisions))
        for axis, one in zip(axes, decisions, strict=True):
            everybody = numbers(one["everybody"]["value"])
            axis.axhline(0, color="0.6", linewidth=1)
            axis.plot(
                one["thresholds"], everybody, color="0.25", linewidth=1.2, linestyle=(0, (1, 1)), label="act on all"
            )
            for line, (model, label) in zip(LINES, labels.items(), strict=False):
                curve = one["models"][model]
                axis.plot(one["thresholds"], numbers(curve["value"]), label=label, linewidth=1.3, **line)
                low, high = numbers(curve["low"]), numbers(curve["high"])
                axis.fill_between(one["thresholds"], low, high, color=line["color"], alpha=0.1, linewidth=0)
            highest = max(0.05, float(np.nanmax(everybody)) * 1.15)
            axis.set(ylim=(-0.25 * highest, highest), xlabel="probability from which one would act")
            axis.set_title(f"until {days_words(one['days'])}")
        axes[0].set_ylabel("net benefit (events per patient)")
        figure.legend(
            *axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=len(labels) + 1
        )
        return to_svg(figure, "Decision curves: net benefit of acting on each model, on all patients and on nobody.")
