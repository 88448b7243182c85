"""Predictions -> how good they are, with intervals, beside the clinical model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pathoml.errors import InputError
from pathoml.evaluate_settings import EvaluateSettings
from pathoml.predictions import Predictions
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.survival import (
    Metric,
    auc_metric,
    brier_metric,
    censoring_survival,
    harrell_metric,
    ipcw_metric,
    kaplan_meier,
    log_rank,
)
from pathoml.survival.metrics import restricted_days
from pathoml.units import DAYS_PER_UNIT, FloatArray, IntArray

CONDITION = "intervals: 95 %, bootstrap over test patients within folds, conditional on the fitted models"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Parameters
    ----------
    value : float or None
        Mean over folds; None where no fold defines it.
    low, high : float or None
        95 % percentile interval.
    folds : int
        Folds in which it is defined.
    """

    value: float | None
    low: float | None
    high: float | None
    folds: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain JSON values.

        Returns
        -------
        dict
            With the keys value, low, high and folds.
        """
        return {"value": self.value, "low": self.low, "high": self.high, "folds": self.folds}


@dataclass(frozen=True)
class _FoldData:
    """One fold's test patients, with what training patients fix."""

    time_days: FloatArray
    event: IntArray
    counts: FloatArray
    censoring_time: FloatArray
    censoring_event: IntArray


def evaluate(predictions: Predictions, settings: EvaluateSettings) -> dict[str, Any]:
    """Judge predictions on test patients.

    Risks of different folds are not comparable, so every metric is computed within folds and averaged. The bootstrap
    draws test patients within each fold; all models are judged on the same draws, so that their differences are paired.

    Parameters
    ----------
    predictions : Predictions
        With roles train, validation and test.
    settings : EvaluateSettings
        Horizons, bootstrap samples, seed.

    Returns
    -------
    dict
        Plain JSON values: for each scheme, each model's metrics, differences, folds and risk groups.

    Raises
    ------
    InputError
        If there are no test patients.
    """
    if not (predictions.table["role"] == "test").any():
        raise InputError("the predictions hold no test patients, so there is nothing to judge")
    predictions = _in_patient_order(predictions)
    horizons = settings.horizons_days or _event_quartiles(predictions)
    schemes = {
        name: _evaluate_scheme(predictions.select(scheme=name), horizons, settings)
        for name in predictions.table["scheme"].unique()
    }
    return {
        "notice": RESEARCH_USE_ONLY,
        "condition": CONDITION,
        "horizons_days": list(horizons),
        "bootstraps": settings.bootstraps,
        "schemes": schemes,
    }


def fold_mean_concordance(time_days: FloatArray, event: IntArray, risk: FloatArray, fold: Sequence[str]) -> float:
    """Return Harrell's concordance within each fold, averaged over folds that define it.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    fold : sequence of str, of length patients
        In which fold each patient was tested.

    Returns
    -------
    float
        0.5 is guessing, 1 is perfect.
    """
    names = np.asarray(fold)
    values = []
    for name in np.unique(names):
        rows = names == name
        values.append(harrell_metric(time_days[rows], event[rows], risk[rows])(np.ones((1, int(rows.sum()))))[0])
    return float(np.nanmean(values))


def _in_patient_order(predictions: Predictions) -> Predictions:
    """Sort by patient, so that the rows of all models and their shared draws belong to the same patients."""
    order = np.argsort(predictions.table["patient_id"].to_numpy(dtype=str), kind="stable")
    table = predictions.table.iloc[order].reset_index(drop=True)
    for key, rows in table[table["role"] == "test"].groupby(["scheme", "fold"]):
        tested = [tuple(one["patient_id"]) for _, one in rows.groupby("model")]
        if len(set(tested)) > 1:
            raise InputError(f"predictions of {key[0]} fold {key[1]}: the models are tested on different patients")
    return Predictions(table, predictions.curve_days, predictions.survival[order])


def _evaluate_scheme(predictions: Predictions, horizons: Sequence[float], settings: EvaluateSettings) -> dict[str, Any]:
    models = list(predictions.table["model"].unique())
    folds = list(predictions.table["fold"].unique())
    rng = np.random.default_rng(settings.seed)
    shared = {
        name: _fold_data(predictions.select(model=models[0], fold=name), rng, settings.bootstraps) for name in folds
    }
    samples = {model: _samples(predictions.select(model=model), shared, horizons) for model in models}
    result: dict[str, Any] = {
        "metrics": {
            model: {name: _estimate(values).to_json() for name, values in samples[model].items()} for model in models
        },
        "folds": _fold_rows(predictions, samples, folds),
        "groups": {model: _risk_groups(predictions.select(model=model, role="test")) for model in models},
    }
    result["differences"] = {
        f"{models[0]} - {other}": {
            name: _estimate(samples[models[0]][name] - samples[other][name]).to_json() for name in samples[other]
        }
        for other in models[1:]
    }
    return result


def _fold_data(predictions: Predictions, rng: np.random.Generator, bootstraps: int) -> _FoldData:
    test = predictions.table[predictions.table["role"] == "test"]
    seen = predictions.table[predictions.table["role"] != "test"]
    draws = rng.multinomial(len(test), np.full(len(test), 1 / len(test)), size=bootstraps).astype(np.float64)
    return _FoldData(*_outcome(test), np.concatenate([np.ones((1, len(test))), draws]), *_outcome(seen))


def _outcome(table: pd.DataFrame) -> tuple[FloatArray, IntArray]:
    return table["time_days"].to_numpy(dtype=np.float64), table["event"].to_numpy(dtype=np.int64)


def _samples(
    predictions: Predictions, shared: Mapping[str, _FoldData], horizons: Sequence[float]
) -> dict[str, FloatArray]:
    """Return each metric's values, shape (folds, 1 + bootstraps); the first column is the estimate itself."""
    rows: dict[str, list[FloatArray]] = {}
    for name, fold in shared.items():
        test = predictions.select(fold=name, role="test")
        for metric, compute in _metrics(test, fold, horizons).items():
            rows.setdefault(metric, []).append(compute(fold.counts))
    return {metric: np.stack(values) for metric, values in rows.items()}


def _metrics(test: Predictions, fold: _FoldData, horizons: Sequence[float]) -> dict[str, Metric]:
    risk = test.table["risk"].to_numpy(dtype=np.float64)
    censoring = censoring_survival(fold.censoring_time, fold.censoring_event)
    end = restricted_days(fold.censoring_time, fold.censoring_event)
    metrics = {
        "concordance": harrell_metric(fold.time_days, fold.event, risk),
        "concordance_ipcw": ipcw_metric(fold.time_days, fold.event, risk, censoring, tau_days=end),
    }
    for horizon in horizons:
        metrics[f"auc_{horizon:.0f}d"] = auc_metric(fold.time_days, fold.event, risk, censoring, horizon_days=horizon)
    within = test.curve_days <= end
    if within.sum() >= 2:
        survival, days = test.survival[:, within], test.curve_days[within]
        metrics["integrated_brier"] = brier_metric(fold.time_days, fold.event, survival, days, censoring)
    else:
        metrics["integrated_brier"] = _undefined
    return metrics


def _undefined(counts: FloatArray) -> FloatArray:
    """Stand for a metric that a fold's follow-up is too short for."""
    return np.full(len(counts), np.nan)


def _estimate(values: FloatArray) -> Estimate:
    """Average over the folds that define a metric; the interval from the bootstrap columns."""
    defined = ~np.isnan(values[:, 0])
    if not defined.any():
        return Estimate(None, None, None, 0)
    present = ~np.isnan(values[defined])
    means = np.where(present, values[defined], 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    draws = means[1:][present[:, 1:].any(axis=0)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(means[0]), float(low), float(high), int(defined.sum()))


def _fold_rows(
    predictions: Predictions, samples: Mapping[str, Mapping[str, FloatArray]], folds: Sequence[str]
) -> list[dict[str, Any]]:
    rows = []
    for index, name in enumerate(folds):
        test = predictions.select(fold=name, role="test").table
        one = test[test["model"] == next(iter(samples))]
        concordance = {model: _number(values["concordance"][index, 0]) for model, values in samples.items()}
        rows.append({"fold": name, "patients": len(one), "events": int(one["event"].sum()), "concordance": concordance})
    return rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _risk_groups(test: Predictions) -> dict[str, Any]:
    """Return Kaplan-Meier curves of the two risk groups, each patient put by the cut-off of the fold that tests them."""
    time_days, event = _outcome(test.table)
    high = (test.table["risk_group"] == "high").to_numpy()
    statistic, p_value = log_rank(time_days, event, high.astype(np.int64))
    ticks = np.arange(0.0, float(time_days.max()), DAYS_PER_UNIT["years"])
    curves: dict[str, Any] = {}
    for name, rows in (("low", ~high), ("high", high)):
        curve = kaplan_meier(time_days[rows], event[rows]) if rows.any() else None
        curves[name] = {
            "patients": int(rows.sum()),
            "events": int(event[rows].sum()),
            "days": [] if curve is None else curve.days.tolist(),
            "survival": [] if curve is None else curve.values.tolist(),
            "at_risk": [int((time_days[rows] >= tick).sum()) for tick in ticks],
        }
    return {
        "cutoff": "median risk of the patients that fitted each fold's model (train and validation)",
        "log_rank": statistic,
        "p_value": p_value,
        "at_risk_days": ticks.tolist(),
        "curves": curves,
    }


def _event_quartiles(predictions: Predictions) -> tuple[float, ...]:
    table = predictions.table.drop_duplicates("patient_id")
    times = table["time_days"][table["event"] == 1].to_numpy(dtype=np.float64)
    return tuple(float(value) for value in np.round(np.quantile(times, [0.25, 0.5, 0.75])))
