"""A number with its interval, and what the interval is conditional on."""

from dataclasses import dataclass

import numpy as np

from pathoml.units import FloatArray

FROZEN = (
    "95 %, bootstrap over test patients, conditional on the fitted models: it says how much other patients would change the"
    " number, not how much another training would"
)
REFITTED = "every model was fitted again on shuffled outcomes; folds and covariates stay as they are"
COMPETING = (
    "other events compete, and the model counts them as censored: its probabilities are those of the event if nothing else could"
    " happen, which is more than what does happen, and are judged by nothing here; ranking within a cause holds, and so does the"
    " incidence of each cause by risk group"
)
LEAST_DEFINED = 0.5
"""Share of the draws that must define a number for it to have an interval."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Parameters
    ----------
    value : float or None
        None where it is not defined.
    low, high : float or None
        95 % percentile interval.
    folds : int or None
        Folds in which it is defined, of a mean over folds.
    """

    value: float | None
    low: float | None
    high: float | None
    folds: int | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain JSON values.

        Returns
        -------
        dict
            With the keys value, low and high, and folds if it is a mean over folds.
        """
        plain: dict[str, float | int | None] = {"value": self.value, "low": self.low, "high": self.high}
        return plain if self.folds is None else {**plain, "folds": self.folds}


def estimate(draws: FloatArray) -> Estimate:
    """Make an estimate of a number and its bootstrap draws.

    Parameters
    ----------
    draws : ndarray of float64, shape (1 + bootstraps,)
        First the number itself.

    Returns
    -------
    Estimate
        Without an interval where fewer than half of the draws define the number.
    """
    if not np.isfinite(draws[0]):
        return Estimate(None, None, None)
    defined = draws[1:][np.isfinite(draws[1:])]
    if len(defined) < LEAST_DEFINED * (len(draws) - 1):
        return Estimate(float(draws[0]), None, None)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(float(draws[0]), float(low), float(high))


def estimate_over_folds(values: FloatArray) -> Estimate:
    """Average over the folds that define a number.

    Parameters
    ----------
    values : ndarray of float64, shape (folds, 1 + bootstraps)
        First column the number itself.

    Returns
    -------
    Estimate
        With the number of folds that define it.
    """
    defined = ~np.isnan(values[:, 0])
    if not defined.any():
        return Estimate(None, None, None, 0)
    one = estimate(mean_over_folds(values[defined]))
    return Estimate(one.value, one.low, one.high, int(defined.sum()))


def mean_over_folds(values: FloatArray) -> FloatArray:
    """Average each draw over the folds in which it is defined.

    Parameters
    ----------
    values : ndarray of float64, shape (folds, draws)
        NaN where a draw left a fold without what a number needs.

    Returns
    -------
    ndarray of float64, shape (draws,)
        NaN where no fold defines it.
    """
    present = ~np.isnan(values)
    sums = np.where(present, values, 0).sum(axis=0)
    means: FloatArray = np.divide(sums, present.sum(axis=0), out=np.full(len(sums), np.nan), where=present.any(axis=0))
    return means


def plain_numbers(values: FloatArray) -> list[float | None]:
    """Return numbers as JSON can hold them.

    Parameters
    ----------
    values : ndarray of float64
        One axis.

    Returns
    -------
    list of float or None
        None for what is not finite.
    """
    return [float(value) if np.isfinite(value) else None for value in values]


def bands(draws: FloatArray) -> dict[str, list[float | None]]:
    """Return a curve with its pointwise interval.

    Parameters
    ----------
    draws : ndarray of float64, shape (1 + bootstraps, points)
        First row the curve itself.

    Returns
    -------
    dict
        Lists value, low and high, one entry a point.
    """
    points = [estimate(column) for column in draws.T]
    return {name: [getattr(point, name) for point in points] for name in ("value", "low", "high")}
