"""Recalibration: what was done to the curves is found and undone."""

import numpy as np
import pytest

from pathoml.survival.calibration import calibration_slope, observed_to_expected
from pathoml.survival.recalibration import Recalibration, fit_level, fit_slope

DAYS = np.linspace(0.05, 3, 60)


def cohort(count: int = 6000, seed: int = 0):
    rng = np.random.default_rng(seed)
    log_hazard = rng.normal(0, 0.8, count)
    happens, leaves = rng.exponential(np.exp(-log_hazard)), rng.uniform(0.3, 3, count)
    return np.minimum(happens, leaves), (happens <= leaves).astype(np.int64), log_hazard


def curves(log_hazard: np.ndarray) -> np.ndarray:
    return np.exp(-DAYS[None] * np.exp(log_hazard)[:, None])


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_level_is_found_and_undone(factor: float) -> None:
    time, event, log_hazard = cohort()
    at_end = np.exp(-time * np.exp(log_hazard) / factor)
    found = fit_level(event, at_end)
    assert np.exp(found.level) == pytest.approx(factor, rel=0.05)
    predicted = found.apply(curves(log_hazard - np.log(factor)), DAYS)
    place = int(np.argmin(np.abs(DAYS - 1)))
    ratio = observed_to_expected(
        time, event, 1 - predicted[:, place], np.ones((1, len(time))), horizon_days=DAYS[place]
    )
    assert ratio[0] == pytest.approx(1, abs=0.04)


def test_the_slope_is_found_and_undone_and_the_level_with_it() -> None:
    time, event, log_hazard = cohort()
    wrong = curves(2.0 * log_hazard + 0.7)
    found = fit_slope(time, event, wrong, DAYS, reference_day=1.0)
    assert found.slope == pytest.approx(0.5, abs=0.04)
    place, ones = int(np.argmin(np.abs(DAYS - 1))), np.ones((1, len(time)))
    predicted = 1 - found.apply(wrong, DAYS)[:, place]
    assert calibration_slope(time, event, predicted, ones, horizon_days=DAYS[place])[0] == pytest.approx(1, abs=0.05)
    assert observed_to_expected(time, event, predicted, ones, horizon_days=DAYS[place])[0] == pytest.approx(1, abs=0.04)


def test_nobody_with_an_event_changes_nothing() -> None:
    found = fit_level(np.zeros(4, dtype=np.int64), np.full(4, 0.5))
    survival = np.array([[0.9, 0.4]])
    np.testing.assert_allclose(found.apply(survival, DAYS[:2]), survival)


@pytest.mark.parametrize("method", ["level", "slope"])
def test_curves_stay_curves_and_ranks_stay_ranks(method: str) -> None:
    time, event, log_hazard = cohort(400)
    given = curves(log_hazard)
    fitted = fit_level(event, np.exp(-time * np.exp(log_hazard))) if method == "level" else fit_slope(
        time, event, given, DAYS, reference_day=1.0
    )  # fmt: skip
    found = Recalibration(**{**fitted.to_json(), "hazard": tuple(fitted.to_json()["hazard"])}).apply(given, DAYS)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found, axis=1) <= 1e-12).all()
    assert (np.argsort(found[:, 30]) == np.argsort(given[:, 30])).mean() > 0.99
