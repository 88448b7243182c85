"""Whether probabilities can be taken at their word, and what acting on them would gain."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from pathoml.report.drawn import Drawn, count_words
from pathoml.report.parts import Picture, Section, Table
from pathoml.report.probability_figures import calibration_figure, decision_figure, distribution_figure
from pathoml.report.words import days_words, estimate_at, estimate_words, model_words, number_words, p_value_words

_THRESHOLDS = 5
"""Columns of a decision curve's table."""


def calibration_section(scheme: Mapping[str, Any], drawn: Drawn) -> Section:
    """Show calibration at each horizon and over all times.

    Parameters
    ----------
    scheme : mapping
        As `pathoml.evaluate` gives it.
    drawn : Drawn
        Models of the figures.

    Returns
    -------
    Section
        With the reason where there is none.
    """
    found = {label: scheme["calibration"][model] for model, label in drawn.models.items()}
    left_out = next(iter(found.values())).get("left_out")
    if left_out is not None:
        note = Table("Calibration, decision curves and use in a trial", ("what", "why"), [("not shown", left_out)])
        return Section("Calibration", [], [], [note])
    patients = scheme["tested"]["patients"]
    figures = [
        Picture(
            calibration_figure(found, place),
            f"Calibration until {days_words(one['days'])}; {patients} test patients, {one['events']} events until then. Marks:"
            " groups, with 95 % intervals; curves: smooth; dotted: right.",
        )
        for place, one in enumerate(next(iter(found.values()))["horizons"])
    ]
    figures.append(
        Picture(
            distribution_figure(found),
            f"D-calibration; {count_words(scheme)}. Lines: 95 % intervals; dotted: right, a tenth in each bin. Where many are"
            " censored all shares lie near a tenth even so: their events are spread over all bins still to come.",
        )
    )
    text = [
        "Can the probabilities be taken at their word? Observed over expected above 1: more events than predicted. A slope below 1:"
        " predictions lie too far apart. The mean absolute error is larger than 0 by chance alone; beside it stands how large."
        " In the figures marks are Kaplan-Meier estimates in groups of rising prediction, lines are smooth, and the dotted line is"
        " right." + drawn.left_out,
        *_why_no_p_value(next(iter(found.values()))["d_calibration"]),
    ]
    tables = [*_error_tables(scheme), *_group_tables(scheme), _distribution_table(scheme)]
    return Section("Calibration", text, figures, tables)


def _why_no_p_value(distribution: Mapping[str, Any]) -> list[str]:
    condition = distribution["p_value_condition"]
    return [] if condition is None else [f"p-value of D-calibration: {condition}."]


def _error_tables(scheme: Mapping[str, Any]) -> list[Table]:
    rows = [
        (
            f"{model_words(model)}, until {days_words(one['days'])}", str(one["events"]),
            estimate_words(one["observed_to_expected"], 2), estimate_words(one["slope"], 2),
            f"{one['mean_error']:.3f}",
            f"{number_words(one['chance_error']['median'])} ({number_words(one['chance_error']['high'])})",
        )
        for model, calibration in scheme["calibration"].items()
        for one in calibration["horizons"]
    ]  # fmt: skip
    header = (
        "model and time",
        "events",
        "observed / expected",
        "slope",
        "mean absolute error",
        "by chance: median (95 % are below)",
    )
    return [Table("Calibration at each time: 1, 1 and 0 are right", header, rows)] if rows else []


def _group_tables(scheme: Mapping[str, Any]) -> list[Table]:
    """Return what the marks of calibration are: predicted and observed in groups of rising prediction."""
    header = ("model and group", "patients", "events", "predicted", "observed")
    tables = []
    for place, first in enumerate(next(iter(scheme["calibration"].values()))["horizons"]):
        rows = []
        for model, calibration in scheme["calibration"].items():
            groups = calibration["horizons"][place]["groups"]
            rows += [
                (
                    f"{model_words(model)}, {number + 1}", str(groups["patients"][number]), str(groups["events"][number]),
                    number_words(groups["predicted"][number]), estimate_words(estimate_at(groups["observed"], number)),
                )
                for number in range(len(groups["patients"]))
            ]  # fmt: skip
        caption = f"Probability of the event until {days_words(first['days'])} in groups of rising prediction"
        tables.append(Table(caption, header, rows, folded=True))
    return tables


def _distribution_table(scheme: Mapping[str, Any]) -> Table:
    """Return the shares of D-calibration of every model."""
    rows = []
    tested = any(one["d_calibration"]["p_value"] is not None for one in scheme["calibration"].values())
    for model, calibration in scheme["calibration"].items():
        found = calibration["d_calibration"]
        shares = [number_words(one, 2) for one in found["share"]["value"]]
        rows.append((model_words(model), *shares, *([_p_cell(found["p_value"])] if tested else [])))
    bins = len(found["share"]["value"])
    edges = np.linspace(0, 1, bins + 1)
    header = (
        "model",
        *(f"{low:.1f} to {high:.1f}" for low, high in itertools.pairwise(edges)),
        *(["p"] if tested else []),
    )
    caption = "D-calibration: share of patients by predicted survival probability at the end of their follow-up"
    return Table(caption, header, rows, folded=True)


def _p_cell(value: float | None) -> str:
    return "-" if value is None else p_value_words(value)


def decision_section(scheme: Mapping[str, Any], drawn: Drawn) -> Section:
    """Show what acting on probabilities would gain.

    Parameters
    ----------
    scheme : mapping
        As `pathoml.evaluate` gives it.
    drawn : Drawn
        Models of the figures.

    Returns
    -------
    Section
        Empty where no horizon lies within follow-up.
    """
    figures = [
        Picture(
            decision_figure(one, drawn.models),
            f"Decision curves until {days_words(one['days'])}; {scheme['tested']['patients']} test patients, {events} events until"
            " then. Thin lines: 95 % intervals, cut at the frame; grey: acting on nobody.",
        )
        for one, events in zip(scheme["decisions"], _events_until(scheme), strict=True)
    ]
    text = [
        "What would be gained by acting on patients whose predicted probability is at least what the axis says? A model is of use"
        " where its line lies above both acting on all and acting on nobody (0). Its line ends where fewer than five patients would"
        " be acted on; that of acting on all leaves the frame where it does more harm than the frame shows."
        + drawn.left_out
    ]
    return Section("Decision curves", text, figures, [_decision_table(one) for one in scheme["decisions"]])


def _events_until(scheme: Mapping[str, Any]) -> list[int]:
    """Return the events until each horizon, which calibration and decision curves share."""
    return [one["events"] for one in next(iter(scheme["calibration"].values()))["horizons"]]


def _decision_table(one: Mapping[str, Any]) -> Table:
    places = np.unique(np.linspace(0, len(one["thresholds"]) - 1, _THRESHOLDS).round().astype(int)).tolist()
    curves = {
        "everybody": one["everybody"],
        **{f"patients by {model_words(model)}": curve for model, curve in one["models"].items()},
    }
    header = ("acting on", *(f"from {one['thresholds'][place]:.2f}" for place in places))
    rows = [(name, *(estimate_words(estimate_at(curve, place)) for place in places)) for name, curve in curves.items()]
    caption = (
        f"Net benefit (events per patient) by the probability from which one acts, until {days_words(one['days'])}"
    )
    return Table(caption, header, rows, folded=True)
