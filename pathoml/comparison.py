"""Whether one model is better than another, said only where test patients and repeated cross-validation both show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import t as student

from pathoml.errors import InputError
from pathoml.predictions import Predictions
from pathoml.survival import Metric, harrell_metric
from pathoml.units import FloatArray

_FEWEST_REPEATS = 2
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """What may be said of two models.

    Parameters
    ----------
    finding : str
        ``better``, ``worse`` or ``not shown``, of the first model.
    difference : float or None
        Mean over folds of the difference in concordance; None where no fold defines it.
    patients_interval : tuple of float or None
        95 % bootstrap interval over test patients, conditional on the fitted models.
    dealings_interval : tuple of float or None
        95 % interval from the spread over folds of repeated cross-validation, which counts refitting on other patients;
        None where patients were dealt once.
    reasons : tuple of str
        Sentences, in plain words.
    """

    finding: Literal["better", "worse", "not shown"]
    difference: float | None
    patients_interval: tuple[float, float] | None
    dealings_interval: tuple[float, float] | None
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, str | float | list[float] | list[str] | None]:
        """Return plain JSON values.

        Returns
        -------
        dict
            With the fields' names.
        """
        intervals = {
            name: None if one is None else list(one)
            for name, one in (
                ("patients_interval", self.patients_interval),
                ("dealings_interval", self.dealings_interval),
            )
        }
        return {
            "finding": self.finding, "difference": self.difference, **intervals, "reasons": list(self.reasons)
        }  # fmt: skip


def compare_models(
    predictions: Predictions, model: str, other: str, *, bootstraps: int = 2000, seed: int = 0
) -> Verdict:
    """Judge whether a model ranks patients better than another.

    Concordance is computed within folds. The bootstrap draws patients, and a patient that several repeats test is drawn
    for all of them at once.

    Parameters
    ----------
    predictions : Predictions
        Of one scheme, with the test patients of both models.
    model, other : str
        Names in the table.
    bootstraps : int, optional
        Samples of the patients.
    seed : int, optional
        Of the bootstrap.

    Returns
    -------
    Verdict
        Of the first model.

    Raises
    ------
    InputError
        If the predictions are of several schemes, or the models are tested on different patients.
    """
    table = predictions.table[predictions.table["role"] == "test"]
    schemes = list(table["scheme"].unique())
    if len(schemes) != 1:
        raise InputError(f"models are compared within one scheme; these predictions are of {schemes or 'none'}")
    patients = {name: index for index, name in enumerate(sorted(set(table["patient_id"])))}
    draws = np.random.default_rng(seed).multinomial(
        len(patients), np.full(len(patients), 1 / len(patients)), bootstraps
    )
    counts = np.concatenate([np.ones((1, len(patients))), draws.astype(np.float64)])
    seen = predictions.table[(predictions.table["role"] != "test") & (predictions.table["model"] == model)]
    trained = seen.groupby("fold").size()
    differences, tested_over_trained = [], []
    for fold, rows in table.groupby("fold", sort=False):
        (tested, first), (also_tested, second) = (_prepared(rows[rows["model"] == name]) for name in (model, other))
        if tested != also_tested:
            raise InputError(f"{schemes[0]} fold {fold}: {model} and {other} are tested on different patients")
        drawn = counts[:, [patients[patient] for patient in tested]]
        differences.append(first(drawn) - second(drawn))
        tested_over_trained.append(len(tested) / max(int(trained.get(fold, 0)), 1))
    repeats = int(table["repeat"].nunique())
    return _judge(np.stack(differences), float(np.mean(tested_over_trained)), repeats, (model, other))


def judge_all(predictions: Predictions, model: str, *, bootstraps: int = 2000, seed: int = 0) -> Mapping[str, Verdict]:
    """Judge a model against every other of a scheme.

    Parameters
    ----------
    predictions : Predictions
        Of one scheme.
    model : str
        Name in the table.
    bootstraps : int, optional
        Samples of the patients.
    seed : int, optional
        Of the bootstrap.

    Returns
    -------
    mapping of str to Verdict
        The other model's name to what may be said of the first.
    """
    others = [name for name in predictions.table["model"].unique() if name != model]
    return {other: compare_models(predictions, model, other, bootstraps=bootstraps, seed=seed) for other in others}


def corrected_interval(differences: FloatArray, tested_over_trained: float) -> tuple[float, float]:
    """Return the interval of a mean over folds of repeated cross-validation, whose folds share training patients.

    The variance of the mean is taken as s^2 (1 / J + n_test / n_train) for J folds in all; without the second part, more
    repeats would make any difference significant.

    Parameters
    ----------
    differences : ndarray of float64, shape (folds of all repeats,)
        One number a fold; two or more.
    tested_over_trained : float
        Test patients of a fold over those that trained its model.

    Returns
    -------
    tuple of float
        95 %, by Student's distribution with J - 1 degrees of freedom.

    References
    ----------
    Nadeau C, Bengio Y. Inference for the generalization error. Mach Learn 52 (2003) 239-281.
    """
    count = len(differences)
    deviation = differences.std(ddof=1) * np.sqrt(1 / count + tested_over_trained)
    reach = float(student.ppf((1 + _CONFIDENCE) / 2, count - 1) * deviation)
    mean = float(differences.mean())
    return mean - reach, mean + reach


def _prepared(rows: pd.DataFrame) -> tuple[tuple[str, ...], Metric]:
    """Return a fold's test patients of one model in their order, and their concordance as a function of draws."""
    rows = rows.sort_values("patient_id")
    time_days, event, risk = (rows[name].to_numpy() for name in ("time_days", "event", "risk"))
    return tuple(rows["patient_id"]), harrell_metric(time_days, (event == 1).astype(np.int64), risk)


def _judge(
    differences: FloatArray, tested_over_trained: float, repeats: int, names: tuple[str, str]
) -> Verdict:  # fmt: skip
    """Judge differences of shape (folds, 1 + bootstraps), the first column of which is the estimate."""
    observed = differences[:, 0][~np.isnan(differences[:, 0])]
    if len(observed) == 0:
        return Verdict("not shown", None, None, None, ("No fold has two test patients whose order is known.",))
    present = ~np.isnan(differences)
    means = np.where(present, differences, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    drawn = means[1:][present[:, 1:].any(axis=0)]
    low, high = (float(value) for value in np.quantile(drawn, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]))
    by_patients = _side(low, high)
    mean = float(means[0])
    reasons = [
        f"Mean difference in concordance of {names[0]} to {names[1]}: {mean:+.3f}; over test patients {low:+.3f} to {high:+.3f}"
        f" (95 %, paired bootstrap, conditional on the fitted models), which {_words(by_patients)}."
    ]
    if repeats < _FEWEST_REPEATS or len(observed) < _FEWEST_REPEATS:
        reasons.append(
            "Patients were dealt into folds once, so that the spread over dealings is not known; set repeats: 5."
        )
        return Verdict("not shown", mean, (low, high), None, tuple(reasons))
    least, most = corrected_interval(observed, tested_over_trained)
    by_dealings = _side(least, most)
    reasons.append(
        f"Over {repeats} dealings into folds {least:+.3f} to {most:+.3f} (95 %, corrected for shared training patients; it counts "
        f"refitting), which {_words(by_dealings)}."
    )
    agreed = by_patients == by_dealings != 0
    finding: Literal["better", "worse", "not shown"] = "not shown"
    if agreed:
        finding = "better" if by_patients > 0 else "worse"
    else:
        reasons.append("Both intervals have to exclude 0 on the same side before one model is called better.")
    return Verdict(finding, mean, (low, high), (least, most), tuple(reasons))


def _side(low: float, high: float) -> int:
    """Return 1 for an interval above 0, -1 for one below, 0 for one that includes it."""
    return int(low > 0) - int(high < 0)


def _words(side: int) -> str:
    return {1: "excludes 0 (better)", -1: "excludes 0 (worse)", 0: "includes 0"}[side]
