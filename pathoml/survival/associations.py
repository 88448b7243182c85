"""Whether a number goes with survival, with a group or with another number; and p-values of many questions at once."""

import numpy as np
from scipy.special import chdtrc
from scipy.stats import kruskal, spearmanr

from pathoml.units import AnyArray, FloatArray, IntArray


def cox_score_test(
    time_days: FloatArray, event: IntArray, value: FloatArray, stratum: AnyArray | None = None
) -> tuple[float, float]:
    """Ask whether a number goes with the hazard, without assuming how strongly.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    value : ndarray of float64, shape (patients,)
        Finite.
    stratum : ndarray, shape (patients,), optional
        Patients are compared only with those of the same, such as their hospital's; default: with all.

    Returns
    -------
    log_hazard_ratio : float
        Per standard deviation of the value, to first order (score over information at no effect); positive: higher
        values, shorter survival. 0 where it cannot be told.
    p_value : float
        Of the score test with one degree of freedom; 1 where it cannot be computed. For two groups without tied events
        it is the log-rank test.

    References
    ----------
    Cox DR. Regression models and life-tables. J R Stat Soc B 34 (1972) 187-220, section 5; ties as Breslow has them.
    """
    spread = float(value.std())
    if spread == 0:
        return 0.0, 1.0
    standard = (value - value.mean()) / spread
    groups = np.zeros(len(value)) if stratum is None else stratum
    score, information = 0.0, 0.0
    for group in np.unique(groups):
        own = groups == group
        more, further = _score_and_information(time_days[own], event[own], standard[own])
        score, information = score + more, information + further
    if information <= 0:
        return 0.0, 1.0
    return score / information, float(chdtrc(1, score**2 / information))


def _score_and_information(time_days: FloatArray, event: IntArray, value: FloatArray) -> tuple[float, float]:
    """Return slope and curvature of the log partial likelihood at no effect."""
    order = np.argsort(-time_days, kind="stable")
    days, x, events = time_days[order], value[order], event[order]
    # At each time everybody with at least as long a follow-up is at risk: the last of those with the same time.
    last = np.searchsorted(-days, -days, side="right") - 1
    at_risk = np.arange(1, len(x) + 1)[last]
    mean = np.cumsum(x)[last] / at_risk
    variance = np.cumsum(x**2)[last] / at_risk - mean**2
    return float((events * (x - mean)).sum()), float((events * variance).sum())


def rank_correlation(one: FloatArray, other: FloatArray) -> tuple[float, float]:
    """Ask whether two numbers rise together.

    Parameters
    ----------
    one, other : ndarray of float64, shape (patients,)
        Finite.

    Returns
    -------
    tuple of float
        Spearman's correlation and its p-value; 0 and 1 where one of them is constant or there are fewer than 4 patients.
    """
    if len(one) < 4 or one.std() == 0 or other.std() == 0:
        return 0.0, 1.0
    found = spearmanr(one, other)
    return float(found.statistic), float(found.pvalue)


def group_difference(value: FloatArray, group: "np.ndarray[tuple[int, ...], np.dtype[np.str_]]") -> tuple[float, float]:
    """Ask whether a number differs between groups.

    Parameters
    ----------
    value : ndarray of float64, shape (patients,)
        Finite.
    group : ndarray of str, shape (patients,)
        Which group; groups of fewer than 2 patients are left out.

    Returns
    -------
    effect : float
        Share of the ranks' variance between groups (epsilon squared), 0 to 1.
    p_value : float
        Of the Kruskal-Wallis test; 1 where it cannot be computed.
    """
    names, counts = np.unique(group, return_counts=True)
    parts = [value[group == name] for name in names[counts >= 2]]
    total = sum(map(len, parts))
    if len(parts) < 2 or np.ptp(np.concatenate(parts)) == 0:
        return 0.0, 1.0
    found = kruskal(*parts)
    return max(0.0, float((found.statistic - len(parts) + 1) / (total - len(parts)))), float(found.pvalue)


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Return, for each of many questions, the share of false findings if it and all surer ones are believed.

    Parameters
    ----------
    p_values : ndarray of float64, shape (questions,)
        All that were asked, not only those that please.

    Returns
    -------
    ndarray of float64, shape (questions,)
        q-values.

    References
    ----------
    Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 57 (1995) 289-300.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    order = np.argsort(p_values)
    stretched = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    adjusted = np.minimum(1.0, np.minimum.accumulate(stretched[::-1])[::-1])
    result: FloatArray = np.empty_like(adjusted)
    result[order] = adjusted
    return result
