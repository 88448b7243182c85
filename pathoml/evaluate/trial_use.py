"""What a prognosis is worth to a randomised trial on patients like these."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pathoml.evaluate.background import Background
from pathoml.evaluate.estimates import FROZEN, bands, estimate
from pathoml.evaluate.scheme import Tested
from pathoml.evaluate_settings import TrialSettings
from pathoml.survival.pseudo_observations import restricted_mean_pseudo_observations, survival_pseudo_observations
from pathoml.survival.trials import (
    TrialDesign,
    enrichment,
    events_for_trial,
    explained_share,
    simulate_adjustment,
)
from pathoml.units import FloatArray

SHARES = np.linspace(0, 0.9, 10)


def judge_trial_use(
    tested: Tested, background: Background | None, horizons: Sequence[float], settings: TrialSettings, *, seed: int
) -> dict[str, Any]:
    """Judge adjustment of a trial's comparison for the prognosis, and enrichment of a trial by it.

    Parameters
    ----------
    tested : Tested
        Predictions.
    background : Background or None
        Clinical covariates that a trial would adjust for anyway.
    horizons : sequence of float
        Days of landmark survival and of restricted mean survival.
    settings : TrialSettings
        The trial.
    seed : int
        Of simulated trials.

    Returns
    -------
    dict
        Keys adjustment and enrichment (lists, one entry a horizon), simulation and design.
    """
    usable = [day for day in horizons if day <= min(float(tested.curve_days[-1]), float(tested.time_days.max()))]
    if not usable or tested.has_competing:  # landmark survival and event rates would be of a world without other events
        return {"design": settings.model_dump(mode="json"), "adjustment": [], "enrichment": [], "simulation": None}
    clinical = None
    if background is not None and background.clinical:
        clinical = background.design(tested.patient_id)[1]
    return {
        "design": settings.model_dump(mode="json"),
        "condition": FROZEN,
        "adjustment": [_adjustment(tested, clinical, day) for day in usable],
        "enrichment": [_enrichment(tested, _design(settings, day)) for day in usable],
        "simulation": _simulation(tested, _design(settings, usable[-1]), settings.simulations, seed),
    }


def _design(settings: TrialSettings, day: float) -> TrialDesign:
    return TrialDesign(day, settings.hazard_ratio, settings.power, settings.alpha, settings.screening_cost)


def _adjustment(tested: Tested, clinical: FloatArray | None, day: float) -> dict[str, Any]:
    """Regress what each patient contributes on what was predicted for them."""
    time_days, event, counts = tested.time_days, tested.event, tested.counts
    grid = np.linspace(0, day, 41)
    curves = np.stack([1 - tested.probability(one) for one in grid.tolist()], axis=1)
    area: FloatArray = np.asarray(np.trapezoid(curves, grid, axis=1))
    outcomes = {
        "landmark": (survival_pseudo_observations(time_days, event, counts, at_days=day), 1 - tested.probability(day)),
        "restricted_mean": (restricted_mean_pseudo_observations(time_days, event, counts, until_days=day), area),
    }
    result: dict[str, Any] = {"days": day, "patients": len(time_days), "events": int((event[time_days <= day]).sum())}
    for name, (outcome, predicted) in outcomes.items():
        prognosis = predicted[:, None]
        model = explained_share(outcome, prognosis, counts)
        result[name] = {"model": estimate(model).to_json()}
        if clinical is not None:
            alone = explained_share(outcome, clinical, counts)
            both = explained_share(outcome, np.concatenate([prognosis, clinical], axis=1), counts)
            result[name] |= {
                "covariates": estimate(alone).to_json(),
                "both": estimate(both).to_json(),
                "added": estimate(1 - (1 - both) / (1 - alone)).to_json(),
            }
    return result


def _enrichment(tested: Tested, trial: TrialDesign) -> dict[str, Any]:
    found = enrichment(tested.time_days, tested.event, tested.risk, tested.counts, shares=SHARES, trial=trial)
    return {
        "days": trial.horizon_days,
        "events_needed": events_for_trial(trial),
        "not_enrolled_share": SHARES.tolist(),
        **{name: bands(values) for name, values in found._asdict().items()},
    }


def _simulation(tested: Tested, trial: TrialDesign, trials: int, seed: int) -> dict[str, Any] | None:
    if trials == 0 or not tested.event.any():
        return None
    rng = np.random.default_rng(seed)
    found = simulate_adjustment(tested.time_days, tested.event, tested.risk, trial=trial, trials=trials, rng=rng)
    return {"days": trial.horizon_days, "trials": trials, **found._asdict()}
