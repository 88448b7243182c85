"""Predictions -> how good they are, with intervals, beside every other model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pathoml.baseline_settings import CLINICAL
from pathoml.blas import one_blas_thread
from pathoml.errors import InputError
from pathoml.evaluate.background import Background
from pathoml.evaluate.calibrating import judge_calibration
from pathoml.evaluate.contributions import judge_parts
from pathoml.evaluate.decision_curves import decision_curves
from pathoml.evaluate.estimates import FROZEN
from pathoml.evaluate.fold_metrics import Samples, fold_samples, summarise
from pathoml.evaluate.hazards import judge_hazards
from pathoml.evaluate.risk_groups import risk_group_curves
from pathoml.evaluate.scheme import RECALIBRATED, TESTED_ROLES, Scheme, Tested, build_scheme
from pathoml.evaluate.site_signal import site_from_columns, site_from_risk
from pathoml.evaluate.subgroups import judge_subgroups
from pathoml.evaluate.trial_use import judge_trial_use
from pathoml.evaluate_settings import EvaluateSettings
from pathoml.predictions import Predictions
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.survival import harrell_metric
from pathoml.units import FloatArray, IntArray

EVALUATION_FORMAT = "pathoml-evaluation"
EVALUATION_VERSION = 3
GROUP_PERMUTATIONS = 1000
WEIGHTS = (
    "inverse probability of censoring, by reverse Kaplan-Meier of the patients that fitted each fold's model (for a model from"
    " elsewhere, of the patients tested); Uno's concordance and the Brier score end where a tenth of them is still followed"
)


@one_blas_thread()
def evaluate(
    predictions: Predictions, settings: EvaluateSettings, background: Background | None = None
) -> dict[str, Any]:  # fmt: skip
    """Judge predictions on patients that the models have not seen.

    Risks of different folds are not comparable, so measures of rank are computed within folds and averaged; probabilities are,
    so calibration is judged over all patients of the first repetition. The bootstrap draws patients, in all repetitions and for
    all models alike, so that differences are paired.

    Parameters
    ----------
    predictions : Predictions
        With roles train, validation and test, or external.
    settings : EvaluateSettings
        Horizons, bootstrap samples, seed.
    background : Background, optional
        Covariates and features of the patients, for what needs them.

    Returns
    -------
    dict
        Plain JSON values, as docs/formats.md lists them: for each scheme, each model's measures, differences, folds, groups.

    Raises
    ------
    InputError
        If there are no test patients.
    """
    table = predictions.table
    if not table["role"].isin(TESTED_ROLES).any():
        raise InputError("the predictions hold no test patients, so there is nothing to judge")
    horizons = settings.horizons_days or _event_quartiles(predictions)
    schemes = {
        name: _evaluate_scheme(predictions.select(scheme=name), horizons, settings, background)
        for name in table["scheme"].unique()
    }
    return {
        "format": EVALUATION_FORMAT,
        "format_version": EVALUATION_VERSION,
        "notice": RESEARCH_USE_ONLY,
        "condition": FROZEN,
        "censoring_weights": WEIGHTS,
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


def _evaluate_scheme(
    predictions: Predictions, horizons: Sequence[float], settings: EvaluateSettings, background: Background | None
) -> dict[str, Any]:
    scheme = build_scheme(predictions, bootstraps=settings.bootstraps, seed=settings.seed)
    tested = {model: scheme.tested(model) for model in scheme.models}
    first = next(iter(tested.values()))
    # numpy leaves the interpreter's lock to others while it works, so threads are enough.
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        of_sites = pool.submit(_sites, first, background, settings)
        of_subgroups = pool.submit(judge_subgroups, first, background, least_events=settings.subgroup_events)
        of_trial = pool.submit(judge_trial_use, first, background, horizons, settings.trial, seed=settings.seed)
        of_models = {
            model: pool.submit(_evaluate_model, scheme, model, horizons, settings, background)
            for model in scheme.models
        }  # fmt: skip
        of_decisions = pool.submit(decision_curves, tested, horizons)
        models = {model: work.result() for model, work in of_models.items()}
        samples: dict[str, Samples] = {model: found for model, (found, _) in models.items()}
        result = {
            "tested": {"patients": len(first.time_days), "events": int(first.event.sum())},
            **summarise(scheme, samples),
            "decisions": of_decisions.result(),
            "subgroups": of_subgroups.result(),
            "sites": of_sites.result(),
            "trial": of_trial.result(),
            "parts": _parts(scheme, first, background),
        }
    for name in ("groups", "calibration", "hazards"):
        result[name] = {model: parts[name] for model, (_, parts) in models.items()}
    return result


def _evaluate_model(
    scheme: Scheme, model: str, horizons: Sequence[float], settings: EvaluateSettings, background: Background | None
) -> tuple[Samples, dict[str, Any]]:
    tested = scheme.tested(model)
    return fold_samples(scheme, model, horizons), {
        "groups": risk_group_curves(tested, permutations=GROUP_PERMUTATIONS, seed=settings.seed),
        "calibration": judge_calibration(
            tested, horizons, groups=settings.calibration_groups, is_recalibrated=model == RECALIBRATED
        ),
        # The clinical model is made of what its risk would be adjusted for.
        "hazards": judge_hazards(tested, None if model == CLINICAL else background),
    }


def _sites(tested: Tested, background: Background | None, settings: EvaluateSettings) -> dict[str, Any]:
    features = None
    if background is not None and background.features is not None:
        own = background.features[background.places(tested.patient_id)]
        have = np.isfinite(own).all(axis=1)
        features = site_from_columns(own[have], tested.site[have], tested.counts[:, have], seed=settings.seed)
    return {"from_risk": site_from_risk(tested, seed=settings.seed), "from_features": features}


def _parts(scheme: Scheme, tested: Tested, background: Background | None) -> dict[str, Any] | None:
    if background is None or background.part_shares is None:
        return None
    shares = background.part_shares
    first = [one.fold for one in scheme.divisions if one.repeat == scheme.divisions[0].repeat]
    return judge_parts(tested, shares[(shares["scheme"] == scheme.name) & shares["fold"].isin(first)])


def _event_quartiles(predictions: Predictions) -> tuple[float, ...]:
    table = predictions.table.drop_duplicates("patient_id")
    times = table["time_days"][table["event"] == 1].to_numpy(dtype=np.float64)
    if not len(times):
        raise InputError("no patient has had the event, so there is nothing to judge by")
    return tuple(float(value) for value in np.round(np.quantile(times, [0.25, 0.5, 0.75])))
