"""Several runs on the patients that all of them have tested, with paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from pathoml.errors import InputError
from pathoml.evaluate.estimates import FROZEN, estimate, estimate_over_folds, mean_over_folds
from pathoml.evaluate.fold_metrics import Samples, fold_samples
from pathoml.evaluate.scheme import TESTED_ROLES, Scheme, build_scheme
from pathoml.predictions import Predictions

_FEWEST = 10


def compare_runs(
    runs: Mapping[str, Predictions], horizons: Sequence[float], *, bootstraps: int, seed: int
) -> dict[str, Any]:
    """Judge one model of each run on the patients that all runs have tested, scheme by scheme.

    Each run's measures are computed within its own folds and averaged; the draws of patients are the same for all runs, so that
    differences are paired even where folds differ.

    Parameters
    ----------
    runs : mapping of str to Predictions
        Name of a run to the predictions of one model.
    horizons : sequence of float
        Days at which probabilities are judged.
    bootstraps : int
        Draws.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        Scheme to patients, events, runs (measures with intervals) and differences of each pair of runs.

    Raises
    ------
    InputError
        If no scheme and too few patients are common to all, or outcomes differ.
    """
    names = [set(one.table["scheme"]) for one in runs.values()]
    common = [
        name for name in dict.fromkeys(next(iter(runs.values())).table["scheme"]) if all(name in own for own in names)
    ]
    if not common:
        raise InputError("the runs have no validation scheme in common; compare runs with the same kind of folds")
    found = {
        name: _compare({run: one.select(scheme=name) for run, one in runs.items()}, horizons, bootstraps, seed)
        for name in common
    }
    return {"condition": FROZEN, "horizons_days": list(horizons), "bootstraps": bootstraps, "schemes": found}


def _compare(runs: Mapping[str, Predictions], horizons: Sequence[float], bootstraps: int, seed: int) -> dict[str, Any]:
    tested = [set(one.table["patient_id"][one.table["role"].isin(TESTED_ROLES)]) for one in runs.values()]
    shared = set.intersection(*tested)
    if len(shared) < _FEWEST:
        raise InputError(f"only {len(shared)} patients were tested in all runs; compare runs on the same cohort")
    schemes = {run: build_scheme(_only(one, shared), bootstraps=bootstraps, seed=seed) for run, one in runs.items()}
    first = next(iter(schemes.values()))
    for run, scheme in schemes.items():
        same = np.array_equal(scheme.time_days, first.time_days) and np.array_equal(scheme.cause, first.cause)
        if not same:
            raise InputError(
                f"run {run}: follow-up of some patients differs from the first run's; compare runs on one table"
            )
    schemes = {run: replace(scheme, counts=first.counts) for run, scheme in schemes.items()}
    samples = {run: fold_samples(scheme, scheme.models[0], horizons) for run, scheme in schemes.items()}
    return {
        "tested": {
            "patients": len(first.time_days),
            "events": int(first.event.sum()),
            "left_out": {run: len(own) - len(shared) for run, own in zip(runs, tested, strict=True)},
        },
        "same_folds": all(_folds(scheme) == _folds(first) for scheme in schemes.values()),
        "runs": {
            run: {name: estimate_over_folds(values).to_json() for name, values in own.items()}
            for run, own in samples.items()
        },
        "differences": [
            {"run": one, "minus": other, "measures": _differences(samples[one], samples[other])}
            for other, one in combinations(samples, 2)
        ],
    }  # fmt: skip


def _differences(one: Samples, other: Samples) -> dict[str, Any]:
    return {
        name: estimate(mean_over_folds(one[name]) - mean_over_folds(other[name])).to_json()
        for name in one
        if name in other
    }


def _only(predictions: Predictions, tested: set[str]) -> Predictions:
    """Leave out tested patients whom another run has not tested; those seen in training stay."""
    table = predictions.table
    keep = (~table["role"].isin(TESTED_ROLES) | table["patient_id"].isin(tested)).to_numpy()
    return Predictions(table[keep].reset_index(drop=True), predictions.curve_days, predictions.survival[keep])


def _folds(scheme: Scheme) -> list[tuple[int, tuple[int, ...]]]:
    return sorted((one.repeat, tuple(one.columns.tolist())) for one in scheme.divisions)
