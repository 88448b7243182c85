"""Measures within folds, averaged: concordance, AUC, Brier score; differences between models; the spread over repetitions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pathoml.evaluate.estimates import estimate, estimate_over_folds, mean_over_folds
from pathoml.evaluate.scheme import Division, Forecast, Scheme
from pathoml.evaluate.verdicts import judge_difference
from pathoml.survival import (
    Metric,
    auc_metric,
    brier_at_metric,
    brier_metric,
    concordance,
    harrell_metric,
    ipcw_metric,
    scaled_brier_metric,
)
from pathoml.units import FloatArray

Samples = Mapping[str, FloatArray]
"""Name of a measure -> its values, shape (divisions, 1 + bootstraps); the first column is the estimate itself."""


def fold_samples(scheme: Scheme, model: str, horizons: Sequence[float]) -> Samples:
    """Compute every measure of a model within each fold, for each draw.

    Parameters
    ----------
    scheme : Scheme
        Patients, folds and draws.
    model : str
        Whose predictions.
    horizons : sequence of float
        Days at which probabilities are judged.

    Returns
    -------
    mapping of str to ndarray
        As `Samples` says.
    """
    rows: dict[str, list[FloatArray]] = {}
    for division, forecast in zip(scheme.divisions, scheme.forecasts[model], strict=True):
        counts = scheme.counts[:, division.columns]
        for name, compute in _metrics(scheme, division, forecast, horizons).items():
            rows.setdefault(name, []).append(compute(counts))
    return {name: np.stack(values) for name, values in rows.items()}


def _metrics(
    scheme: Scheme, division: Division, forecast: Forecast, horizons: Sequence[float]
) -> dict[str, Metric]:  # fmt: skip
    time_days, event = scheme.time_days[division.columns], scheme.event[division.columns]
    risk, site, censoring, end = (
        forecast.risk, scheme.site[division.columns], division.censoring, division.end_days,
    )  # fmt: skip
    metrics = {
        "concordance": harrell_metric(time_days, event, risk),
        "concordance_ipcw": ipcw_metric(time_days, event, risk, censoring, tau_days=end),
    }
    if scheme.has_sites and scheme.name != "leave_one_site_out":
        metrics["concordance_within_site"] = harrell_metric(time_days, event, risk, stratum=site)
        metrics["concordance_ipcw_within_site"] = ipcw_metric(
            time_days, event, risk, censoring, tau_days=end, stratum=site
        )
    for day in horizons:
        metrics[f"auc_{day:.0f}d"] = auc_metric(time_days, event, risk, censoring, horizon_days=day)
    if (scheme.cause > 1).any():
        return metrics  # probabilities are not judged where other events compete
    grid = np.concatenate([[0.0], scheme.curve_days])
    whole = np.concatenate([np.ones((len(risk), 1)), forecast.survival], axis=1)
    for day in horizons:
        at = np.array([np.interp(day, grid, curve) for curve in whole])
        within = day <= end and day <= scheme.curve_days[-1]
        score = brier_at_metric(time_days, event, at, censoring, horizon_days=day)
        metrics[f"brier_{day:.0f}d"] = score if within else _undefined
    followed = scheme.curve_days <= end
    if followed.sum() >= 2:
        survival, days = forecast.survival[:, followed], scheme.curve_days[followed]
        metrics["integrated_brier"] = brier_metric(time_days, event, survival, days, censoring)
        metrics["scaled_brier"] = scaled_brier_metric(
            time_days, event, survival, days, censoring=censoring, reference=division.reference.at(days)
        )
    else:
        metrics["integrated_brier"] = metrics["scaled_brier"] = _undefined
    return metrics


def _undefined(counts: FloatArray) -> FloatArray:
    """Stand for a metric that a fold's follow-up is too short for."""
    return np.full(len(counts), np.nan)


def fold_concordance(scheme: Scheme, model: str) -> float:
    """Return Harrell's concordance of a model within each fold, averaged.

    Parameters
    ----------
    scheme : Scheme
        Patients and folds.
    model : str
        Whose predictions.

    Returns
    -------
    float
        NaN where no fold defines it.
    """
    values = [
        concordance(scheme.time_days[one.columns], scheme.event[one.columns], forecast.risk)
        for one, forecast in zip(scheme.divisions, scheme.forecasts[model], strict=True)
    ]
    return float(mean_over_folds(np.array(values)[:, None])[0])


def summarise(scheme: Scheme, samples: Mapping[str, Samples]) -> dict[str, Any]:
    """Average over folds, and compare the first model with each of the others on the same draws.

    Parameters
    ----------
    scheme : Scheme
        Patients and folds.
    samples : mapping of str to mapping
        Model to `fold_samples`.

    Returns
    -------
    dict
        Keys metrics, differences, repeats, verdicts and folds.
    """
    first = scheme.models[0]
    pairs = {f"{first} - {other}": (first, other) for other in scheme.models[1:]}
    differences = {
        pair: {name: samples[one][name] - samples[other][name] for name in samples[other]}
        for pair, (one, other) in pairs.items()
    }
    repeats = {pair: _of_repeats(scheme, values["concordance"][:, 0]) for pair, values in differences.items()}
    found = {
        pair: {name: estimate_over_folds(one).to_json() for name, one in values.items()}
        for pair, values in differences.items()
    }
    return {
        "metrics": {
            model: {name: estimate_over_folds(values).to_json() for name, values in samples[model].items()}
            for model in scheme.models
        },
        "differences": found,
        "repeats": {
            "count": len(scheme.repeats),
            "concordance": {
                model: _of_repeats(scheme, samples[model]["concordance"][:, 0]) for model in scheme.models
            },
            "differences": repeats,
        },
        "verdicts": {
            pair: judge_difference(scheme, found[pair]["concordance"], differences[pair]["concordance"][:, 0]) for pair in pairs
        },
        "folds": _fold_rows(scheme, samples),
    }  # fmt: skip


def _of_repeats(scheme: Scheme, values: FloatArray) -> dict[str, Any]:
    """Return the mean over folds of each repetition, and how far repetitions lie apart."""
    of_division = np.array([one.repeat for one in scheme.divisions])
    means = np.array([mean_over_folds(values[of_division == one, None])[0] for one in scheme.repeats])
    defined = means[~np.isnan(means)]
    return {
        "values": [float(value) for value in defined],
        "deviation": float(defined.std(ddof=1)) if len(defined) > 1 else None,
    }


def _fold_rows(scheme: Scheme, samples: Mapping[str, Samples]) -> list[dict[str, Any]]:
    rows = []
    for index, one in enumerate(scheme.divisions):
        concordance = {
            model: estimate(values["concordance"][index]).to_json()["value"] for model, values in samples.items()
        }
        rows.append(
            {
                "repeat": one.repeat, "fold": one.fold, "patients": len(one.columns),
                "events": int(scheme.event[one.columns].sum()), "concordance": concordance,
            }
        )  # fmt: skip
    return rows
