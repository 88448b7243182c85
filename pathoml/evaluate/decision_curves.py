"""Decision curves of all models at each horizon."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pathoml.evaluate.estimates import FROZEN, bands
from pathoml.evaluate.scheme import Tested
from pathoml.survival.decisions import net_benefit
from pathoml.survival.weights import inverse_probability
from pathoml.units import FloatArray

_POINTS = 25
_HIGHEST = 0.9
"""Who acts from there only weighs one patient treated in vain as nine missed events."""
_LEAST_ACTED_ON = 5
"""A curve ends where fewer patients would be acted on."""


def decision_curves(models: Mapping[str, Tested], horizons: Sequence[float]) -> list[dict[str, Any]]:
    """Return the net benefit of acting on each model's probability, and of acting on everybody.

    Parameters
    ----------
    models : mapping of str to Tested
        Predictions for the same patients.
    horizons : sequence of float
        Days.

    Returns
    -------
    list of dict
        One a horizon within follow-up: thresholds, models, everybody; acting on nobody has a net benefit of 0. A model's curve
        ends where fewer than five patients would be acted on. Empty where other events compete.
    """
    first = next(iter(models.values()))
    if first.has_competing:
        return []
    end = min(float(first.curve_days[-1]), float(first.time_days.max()))
    return [_at(models, day) for day in horizons if day <= end]


def _at(models: Mapping[str, Tested], day: float) -> dict[str, Any]:
    probabilities = {name: tested.probability(day) for name, tested in models.items()}
    thresholds = _thresholds(next(iter(probabilities.values())))
    curves, everybody = {}, None
    for name, tested in models.items():
        at_event, at_day = tested.uncensored(tested.time_days), tested.uncensored(np.full(len(tested.time_days), day))
        case = ((tested.event == 1) & (tested.time_days <= day)) * inverse_probability(at_event)
        control = (tested.time_days > day) * inverse_probability(at_day)
        found = net_benefit(probabilities[name], case, control, tested.counts, thresholds=thresholds)
        acted_on = (probabilities[name][:, None] >= thresholds[None, :]).sum(axis=0)
        curves[name] = bands(np.where(acted_on >= _LEAST_ACTED_ON, found.model, np.nan))
        everybody = everybody or bands(found.everybody)
    return {
        "days": day,
        "condition": FROZEN,
        "thresholds": thresholds.tolist(),
        "models": curves,
        "everybody": everybody,
    }


def _thresholds(predicted: FloatArray) -> FloatArray:
    """Return probabilities that span what the model says, within what anybody would act on."""
    low, high = np.quantile(predicted, [0.01, 0.99])
    return np.linspace(max(0.01, min(low, 0.85)), min(_HIGHEST, max(high, 0.05)), _POINTS)
