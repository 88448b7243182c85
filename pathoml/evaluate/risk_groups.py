"""Survival by risk group: Kaplan-Meier with numbers at risk, a permutation test, and competing causes."""

from typing import Any

import numpy as np

from pathoml.evaluate.estimates import FROZEN, bands
from pathoml.evaluate.scheme import Tested
from pathoml.survival import kaplan_meier, log_rank
from pathoml.survival.draws import incidence_of_draws, survival_of_draws
from pathoml.units import DAYS_PER_UNIT, AnyArray, FloatArray, IntArray

GROUPS = ("low", "high")
CUTOFF = "median risk of the patients that fitted each fold's model (train and validation)"
_BAND_POINTS = 60
_NULL = "outcomes are shuffled among the patients; the model is from elsewhere and stays as it is"
_NO_P_VALUE = (
    "none: models of a cross-validation have seen outcomes of other folds' patients, so that log-rank tests, usual or with outcomes"
    " shuffled while models stay, reject three times too often; the p-value of models fitted again stands under permutation"
)

WELL_FOLLOWED = 10
"""Patients of both groups together until when curves say something."""


def risk_group_curves(tested: Tested, *, permutations: int, seed: int) -> dict[str, Any]:
    """Return Kaplan-Meier curves of the two risk groups, each patient put by the cut-off of the fold that tests them.

    Parameters
    ----------
    tested : Tested
        Predictions.
    permutations : int
        Shuffles of outcomes within folds.
    seed : int
        Of the shuffles.

    Returns
    -------
    dict
        Curves with bands, numbers at risk, log-rank statistic; its p-values only of a model from elsewhere; incidence of each
        cause where some compete.
    """
    high = (tested.group == "high").astype(np.int64)
    statistic, p_value = log_rank(tested.time_days, tested.event, high)
    ticks = np.arange(0.0, float(tested.time_days.max()), DAYS_PER_UNIT["years"])
    result: dict[str, Any] = {
        "cutoff": CUTOFF,
        "log_rank": statistic,
        "p_value": p_value if tested.frozen else None,
        "permutation_p_value": permuted_log_rank(tested, high, permutations=permutations, seed=seed)
        if tested.frozen
        else None,
        "permutations": permutations if tested.frozen else 0,
        "condition": FROZEN,
        "p_value_condition": _NULL if tested.frozen else _NO_P_VALUE,
        "at_risk_days": ticks.tolist(),
        "well_followed_days": float(np.sort(tested.time_days)[-min(WELL_FOLLOWED, len(tested.time_days))]),
        "curves": {name: _curve(tested, tested.group == name, ticks) for name in GROUPS},
    }
    if tested.has_competing:
        result["incidence"] = {name: _incidence(tested, tested.group == name) for name in GROUPS}
    return result


def _curve(tested: Tested, rows: AnyArray, ticks: FloatArray) -> dict[str, Any]:
    time_days, event = tested.time_days[rows], tested.event[rows]
    curve = kaplan_meier(time_days, event) if rows.any() else None
    grid = np.linspace(0, time_days.max(), _BAND_POINTS) if rows.any() else np.zeros(0)
    followed = ticks[ticks <= time_days.max()] if rows.any() else np.zeros(0)
    points = np.concatenate([grid, followed])
    drawn = survival_of_draws(time_days, event, tested.counts[:, rows], points) if rows.any() else np.zeros((1, 0))
    return {
        "patients": int(rows.sum()),
        "events": int(event.sum()),
        "days": [] if curve is None else curve.days.tolist(),
        "survival": [] if curve is None else curve.values.tolist(),
        "at_risk": [int((time_days >= tick).sum()) for tick in ticks],
        "band_days": grid.tolist(),
        "band": bands(drawn[:, : len(grid)]),
        "at_years": bands(drawn[:, len(grid) :]),
    }


def _incidence(tested: Tested, rows: AnyArray) -> dict[str, Any]:
    if not rows.any():
        return {"days": [], "causes": {}}
    grid = np.linspace(0, tested.time_days[rows].max(), _BAND_POINTS)
    found = incidence_of_draws(tested.time_days[rows], tested.cause[rows], tested.counts[:, rows], grid)
    causes = {
        str(cause): {"events": int((tested.cause[rows] == cause).sum()), **bands(drawn)}
        for cause, drawn in found.items()
    }
    return {"days": grid.tolist(), "causes": causes}


def permuted_log_rank(tested: Tested, group: IntArray, *, permutations: int, seed: int) -> float | None:
    """Return how often shuffled outcomes part the groups as much as the true ones.

    Parameters
    ----------
    tested : Tested
        Patients and folds.
    group : ndarray of int64, shape (patients,)
        0 or 1.
    permutations : int
        How many shuffles.
    seed : int
        Of the shuffles.

    Returns
    -------
    float or None
        (1 + how many) / (1 + permutations); None without permutations.
    """
    if permutations == 0:
        return None
    rng = np.random.default_rng(seed)
    shuffled = np.repeat(group[None].astype(np.float64), permutations + 1, axis=0)
    for fold in np.unique(tested.fold):
        columns = np.flatnonzero(tested.fold == fold)
        shuffled[1:, columns] = rng.permuted(shuffled[1:, columns], axis=1)
    statistics = log_rank_of_groups(tested.time_days, tested.event, shuffled)
    return float((1 + (statistics[1:] >= statistics[0] - 1e-9).sum()) / (1 + permutations))


def log_rank_of_groups(time_days: FloatArray, event: IntArray, groups: FloatArray) -> FloatArray:
    """Compare the survival of two groups in many groupings of the same patients.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int64, shape (patients,)
        1 event, 0 censored.
    groups : ndarray of float64, shape (groupings, patients)
        0 or 1.

    Returns
    -------
    ndarray of float64, shape (groupings,)
        Log-rank chi-squared, as `pathoml.survival.log_rank` gives it one by one; 0 where there is one group only.
    """
    order = np.argsort(time_days, kind="stable")
    start = np.unique(time_days[order], return_index=True)[1]
    drawn = groups[:, order]
    of_one = np.cumsum(np.add.reduceat(drawn, start, axis=1)[:, ::-1], axis=1)[:, ::-1]
    leaving = np.diff(np.append(start, len(order)))
    at_risk = np.cumsum(leaving[::-1])[::-1].astype(np.float64)
    events = np.add.reduceat((event[order] == 1).astype(np.float64), start)
    seen = drawn @ (event[order] == 1).astype(np.float64)
    share = of_one / at_risk
    variance = (share * (1 - share)) @ (events * (at_risk - events) / np.maximum(at_risk - 1, 1))
    statistic: FloatArray = np.divide(
        (seen - share @ events) ** 2, variance, out=np.zeros(len(groups)), where=variance > 1e-12
    )
    return statistic
