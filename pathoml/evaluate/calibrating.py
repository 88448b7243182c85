"""Whether a model's survival probabilities can be taken at their word."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pathoml.evaluate.estimates import COMPETING, FROZEN, bands, estimate, plain_numbers
from pathoml.evaluate.scheme import Tested
from pathoml.survival.calibration import (
    calibration_curve,
    calibration_groups,
    calibration_slope,
    d_calibration,
    observed_to_expected,
)
from pathoml.units import FloatArray

_NO_P_VALUE = (
    "left out: patients of one fold train the models of all others, so that too many come to lie in the middle; where predictions"
    " are right p is then hardly ever small (below 0.05 in 2 of 2,000 simulated studies)"
)

_NO_P_VALUE_RECALIBRATED = "left out: outcomes of these very patients moved the probabilities, which makes p too large"


def judge_calibration(
    tested: Tested, horizons: Sequence[float], *, groups: int, is_recalibrated: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Judge calibration at each horizon and over all times.

    Parameters
    ----------
    tested : Tested
        Predictions.
    horizons : sequence of float
        Days.
    groups : int
        Groups of rising prediction.
    is_recalibrated : bool, optional
        Whether outcomes of these patients moved the probabilities.

    Returns
    -------
    dict
        Keys horizons (a list) and d_calibration; without them, and with the reason as left_out, where other events compete.
    """
    if tested.has_competing:
        return {"condition": FROZEN, "horizons": [], "d_calibration": None, "left_out": COMPETING}
    at_end = tested.survival_at(tested.time_days)
    distribution = d_calibration(at_end, tested.event, tested.counts)
    condition = None if tested.frozen else _NO_P_VALUE
    if is_recalibrated:
        condition = _NO_P_VALUE_RECALIBRATED
    usable = [day for day in horizons if day <= min(float(tested.curve_days[-1]), float(tested.time_days.max()))]
    return {
        "condition": FROZEN,
        "horizons": [_at_horizon(tested, day, groups) for day in usable],
        "d_calibration": {
            "share": bands(distribution.share),
            "statistic": distribution.statistic,
            "p_value": distribution.p_value if condition is None else None,
            "p_value_condition": condition,
        },
    }


def _chance(draws: FloatArray) -> dict[str, float | None]:
    """Return the median and the upper limit of the error that chance makes."""
    median, high = np.nanquantile(draws, [0.5, 0.95]) if np.isfinite(draws).any() else (np.nan, np.nan)
    return dict(zip(("median", "high"), plain_numbers(np.array([median, high])), strict=True))


def _at_horizon(tested: Tested, day: float, groups: int) -> dict[str, Any]:
    time_days, event, counts = tested.time_days, tested.event, tested.counts
    predicted = tested.probability(day)
    grouped = calibration_groups(time_days, event, predicted, counts, horizon_days=day, groups=groups)
    curve = calibration_curve(time_days, event, predicted, counts, horizon_days=day)
    slope = calibration_slope(time_days, event, predicted, counts, horizon_days=day, stratum=tested.fold)
    in_the_large = observed_to_expected(time_days, event, predicted, counts, horizon_days=day)
    until = (event == 1) & (time_days <= day)
    return {
        "days": day,
        "events": int(until.sum()),
        "observed_to_expected": estimate(in_the_large).to_json(),
        "slope": estimate(slope).to_json(),
        "mean_error": curve.mean_error,
        "chance_error": _chance(curve.chance_error[1:]),
        "groups": {
            "patients": np.bincount(grouped.of_patient).tolist(),
            "events": np.bincount(grouped.of_patient, weights=until).astype(int).tolist(),
            "predicted": plain_numbers(grouped.predicted[0]),
            "observed": bands(grouped.observed),
        },
        "curve": {"predicted": curve.predicted.tolist(), "observed": bands(curve.observed)},
    }
