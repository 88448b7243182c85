"""The risk as a covariate: hazard ratios alone and beside clinical covariates, what it adds, and whether it is constant."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import chdtrc

from pathoml.evaluate.background import Background
from pathoml.evaluate.estimates import FROZEN, estimate
from pathoml.evaluate.scheme import Tested
from pathoml.survival.cox_regression import CoxFits, fit_cox_draws, proportional_hazards_test
from pathoml.units import FloatArray

_SAME = 0.9
"""A risk of which clinical covariates explain more than this is taken as made of them."""
EXTREME_RISK = 10.0
"""Standard deviations from the patients that fitted a model beyond which one patient makes a hazard ratio."""
UNIT = "one standard deviation of the risk of the patients that fitted the model"


def judge_hazards(tested: Tested, background: Background | None) -> dict[str, Any]:
    """Fit Cox regressions on the risk, each fold with a baseline hazard of its own.

    Parameters
    ----------
    tested : Tested
        Predictions.
    background : Background or None
        Clinical covariates to adjust for.

    Returns
    -------
    dict
        Hazard ratio alone, test of proportional hazards; with covariates, unless the risk is made of them, the adjusted ratio,
        the likelihood-ratio test of what the risk adds to them, and its share of what can be told with it.
    """
    risk = tested.risk[:, None]
    alone = _fit(tested, risk)
    constancy = proportional_hazards_test(risk, tested.time_days, tested.event, stratum=tested.fold)
    result: dict[str, Any] = {
        "condition": FROZEN,
        "unit": UNIT,
        "patients": len(risk),
        "events": int(tested.event.sum()),
        "extreme": int((np.abs(tested.risk) > EXTREME_RISK).sum()),
        "hazard_ratio": estimate(np.exp(alone.coefficients[:, 0])).to_json(),
        "likelihood_ratio": _test(alone.likelihood_ratio, frozen=tested.frozen),
        "proportional_hazards": {
            "statistic": _finite(constancy.statistic[0]),
            "p_value": _finite(constancy.p_value[0]),
            "correlation": _finite(constancy.correlation[0]),
        },
    }
    result["adjusted"] = None
    if background is not None and background.clinical:
        names, clinical = background.design(tested.patient_id)
        if _explained(tested, clinical) < _SAME:  # a risk made of the covariates has nothing to be adjusted for
            result["adjusted"] = _adjusted(tested, names, clinical, alone)
    return result


def _explained(tested: Tested, clinical: FloatArray) -> float:
    """Return the share of the risk's variance within folds that linear regressions on the covariates, one a fold, explain."""
    folds = [np.flatnonzero(tested.fold == fold) for fold in np.unique(tested.fold)]
    own = [_left_over(tested.risk[rows], clinical[rows]) for rows in folds]
    usable = [one for one in own if one.spare > 1]
    if not usable:  # folds too small for slopes of their own share them
        intercepts = (tested.fold[:, None] == np.unique(tested.fold)[None, :]).astype(np.float64)
        shared = _left_over(tested.risk, np.concatenate([intercepts[:, 1:], clinical], axis=1))
        usable = [shared] if shared.spare > 1 else []
    total, degrees = sum(one.total for one in usable), sum(one.patients - 1 for one in usable)
    if not usable or total <= 0:
        return 1.0
    return 1 - (sum(one.left for one in usable) / sum(one.spare for one in usable)) / (total / degrees)


class _LeftOver(NamedTuple):
    left: float
    total: float
    spare: int
    patients: int


def _left_over(risk: FloatArray, covariates: FloatArray) -> _LeftOver:
    """Return what a linear regression leaves of the risk, all that there is, and the degrees of freedom that are left."""
    design = np.column_stack([np.ones(len(risk)), covariates])
    coefficients, _, rank, _ = np.linalg.lstsq(design, risk, rcond=None)
    left = float(((risk - design @ coefficients) ** 2).sum())
    return _LeftOver(left, float(((risk - risk.mean()) ** 2).sum()), len(risk) - int(rank), len(risk))


def _adjusted(tested: Tested, names: list[str], clinical: FloatArray, alone: CoxFits) -> dict[str, Any]:
    without = _fit(tested, clinical)
    together = _fit(tested, np.concatenate([tested.risk[:, None], clinical], axis=1))
    added = together.likelihood_ratio - without.likelihood_ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(together.likelihood_ratio > 0, added / together.likelihood_ratio, np.nan)
        by_clinical = np.where(
            together.likelihood_ratio > 0,
            (together.likelihood_ratio - alone.likelihood_ratio) / together.likelihood_ratio,
            np.nan,
        )
    return {
        "covariates": names,
        "hazard_ratio": estimate(np.exp(together.coefficients[:, 0])).to_json(),
        "likelihood_ratio_of_covariates": float(without.likelihood_ratio[0]),
        "added_likelihood_ratio": _test(added, frozen=tested.frozen),
        "added_share": estimate(share).to_json(),
        "added_share_of_covariates": estimate(by_clinical).to_json(),
    }


def _fit(tested: Tested, design: FloatArray) -> CoxFits:
    return fit_cox_draws(design, tested.time_days, tested.event, counts=tested.counts, stratum=tested.fold)


def _test(draws: FloatArray, *, frozen: bool) -> dict[str, Any]:
    """Return a likelihood-ratio statistic, with its p-value where the model is from elsewhere."""
    value = max(float(draws[0]), 0.0)
    p_value = float(chdtrc(1, value)) if frozen else None
    return {**estimate(draws).to_json(), "value": value, "p_value": p_value, "degrees": 1}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
