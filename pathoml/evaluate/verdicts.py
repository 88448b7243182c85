"""Whether one model is better than another, said only where test patients and repeated cross-validation both show it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import t as student

from pathoml.evaluate.scheme import Scheme
from pathoml.units import FloatArray

_CONFIDENCE = 0.95


def judge_difference(scheme: Scheme, difference: Mapping[str, Any], of_folds: FloatArray) -> dict[str, Any]:
    """Call a model better only where the interval over patients and that over repetitions both say so.

    Parameters
    ----------
    scheme : Scheme
        Patients and folds.
    difference : mapping
        Estimate of the difference to another model, with the bootstrap's interval over test patients.
    of_folds : ndarray of float64, shape (folds of all repetitions,)
        The same difference in each fold; NaN where it is not defined.

    Returns
    -------
    dict
        `better`: 1, -1 of the first model, 0 where it is not shown, None where the difference is not defined; `by_interval` and
        `by_repeats` (None where patients were divided once), and the latter's ends.
    """
    over_repeats = interval_over_repeats(scheme, of_folds)
    ends = {"repeats_low": over_repeats[0], "repeats_high": over_repeats[1]}
    by_interval, by_repeats = _side(difference["low"], difference["high"]), _side(*over_repeats)
    if difference["value"] is None or by_interval is None:
        return {"better": None, "by_interval": None, "by_repeats": None, **ends}
    better = by_interval if by_repeats == by_interval else 0
    return {"better": better, "by_interval": by_interval, "by_repeats": by_repeats, **ends}


def interval_over_repeats(scheme: Scheme, of_folds: FloatArray) -> tuple[float | None, float | None]:
    """Return the interval that counts refitting on other patients, where patients were divided more than once.

    Parameters
    ----------
    scheme : Scheme
        Patients and folds.
    of_folds : ndarray of float64, shape (folds of all repetitions,)
        One number a fold; NaN where it is not defined.

    Returns
    -------
    tuple of float or None
        95 %; None where patients were divided once, or fewer than two folds define the number.
    """
    defined = of_folds[~np.isnan(of_folds)]
    if len(scheme.repeats) < 2 or len(defined) < 2:
        return None, None
    tested_over_trained = [len(one.columns) / max(one.trained, 1) for one in scheme.divisions]
    return corrected_interval(defined, float(np.mean(tested_over_trained)))


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


def _side(low: float | None, high: float | None) -> int | None:
    """Return 1 for an interval above 0, -1 for one below, 0 for one that includes it."""
    return None if low is None or high is None else int(low > 0) - int(high < 0)
