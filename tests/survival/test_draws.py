"""Curves of bootstrap draws against scikit-survival, lifelines and explicit resampling."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.utils import restricted_mean_survival_time
from sksurv.nonparametric import cumulative_incidence_competing_risks

from pathoml.survival import kaplan_meier
from pathoml.survival.draws import incidence_of_draws, restricted_mean_of_draws, survival_of_draws
from pathoml.survival.pseudo_observations import (
    restricted_mean_pseudo_observations,
    survival_pseudo_observations,
)


def draws_of(count: int, draws: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    return np.concatenate([np.ones((1, count)), drawn])


def repeated(counts: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts.astype(int))


def test_the_curve_of_each_draw_is_kaplan_meiers_of_the_patients_drawn(everyone) -> None:
    counts = draws_of(len(everyone.time))
    days = np.linspace(0, everyone.time.max(), 23)
    found = survival_of_draws(everyone.time, everyone.event, counts, days)
    for row, drawn in zip(found, counts, strict=True):
        rows = repeated(drawn)
        np.testing.assert_allclose(row, kaplan_meier(everyone.time[rows], everyone.event[rows]).at(days), atol=1e-12)


def test_a_draw_of_nobody_has_no_curve() -> None:
    found = survival_of_draws(np.arange(3.0), np.ones(3, int), np.zeros((1, 3)), np.array([1.0]))
    assert np.isnan(found).all()


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_restricted_mean_equals_lifelines(everyone, share: float) -> None:
    until = float(np.quantile(everyone.time, share))
    fitted = KaplanMeierFitter().fit(everyone.time, everyone.event)
    found = restricted_mean_of_draws(everyone.time, everyone.event, draws_of(len(everyone.time), 1), until_days=until)
    assert found[0] == pytest.approx(restricted_mean_survival_time(fitted, t=until), rel=1e-9)


def test_cumulative_incidence_equals_scikit_survivals(everyone) -> None:
    cause = everyone.event * (1 + np.random.default_rng(0).integers(0, 2, len(everyone.event)))
    days, expected = cumulative_incidence_competing_risks(cause, everyone.time)
    found = incidence_of_draws(everyone.time, cause, draws_of(len(cause), 1), days)
    for one in (1, 2):
        np.testing.assert_allclose(found[one][0], expected[one], rtol=0, atol=1e-9)
    survival = survival_of_draws(everyone.time, everyone.event, draws_of(len(cause), 1), days)
    np.testing.assert_allclose(found[1] + found[2], 1 - survival, atol=1e-12)


def test_incidence_of_each_draw_is_that_of_the_patients_drawn(everyone) -> None:
    cause = everyone.event * (1 + np.random.default_rng(0).integers(0, 2, len(everyone.event)))
    counts, days = draws_of(len(cause)), np.linspace(0, everyone.time.max(), 9)
    found = incidence_of_draws(everyone.time, cause, counts, days)
    for place, drawn in enumerate(counts):
        rows = repeated(drawn)
        one = incidence_of_draws(everyone.time[rows], cause[rows], np.ones((1, len(rows))), days)
        np.testing.assert_allclose(found[1][place], one[1][0], atol=1e-12)


def _left_out(time: np.ndarray, event: np.ndarray, estimate) -> np.ndarray:
    count, whole = len(time), estimate(time, event)
    return np.array(
        [count * whole - (count - 1) * estimate(np.delete(time, one), np.delete(event, one)) for one in range(count)]
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 1.2])
def test_pseudo_observations_are_those_of_leaving_each_patient_out(everyone, share: float) -> None:
    time, event = everyone.time[:70], everyone.event[:70]
    day = float(share * time.max())

    def at_day(times: np.ndarray, events: np.ndarray) -> float:
        return float(kaplan_meier(times, events).at(np.array([day]))[0])

    def mean(times: np.ndarray, events: np.ndarray) -> float:
        return float(restricted_mean_of_draws(times, events, np.ones((1, len(times))), until_days=day)[0])

    counts = draws_of(len(time))
    survival = survival_pseudo_observations(time, event, counts, at_days=day)
    area = restricted_mean_pseudo_observations(time, event, counts, until_days=day)
    for place, drawn in enumerate(counts):
        rows = repeated(drawn)
        for found, estimate in ((survival, at_day), (area, mean)):
            expected = _left_out(time[rows], event[rows], estimate)
            np.testing.assert_allclose(found[place, rows], expected, atol=1e-8 * max(1.0, time.max()))


def test_without_censoring_pseudo_observations_are_what_happened() -> None:
    time = np.random.default_rng(0).exponential(100, 50)
    event, counts = np.ones(50, dtype=np.int64), np.ones((1, 50))
    survival = survival_pseudo_observations(time, event, counts, at_days=80.0)[0]
    np.testing.assert_allclose(survival, time > 80, atol=1e-10)
    area = restricted_mean_pseudo_observations(time, event, counts, until_days=80.0)[0]
    np.testing.assert_allclose(area, np.minimum(time, 80), atol=1e-8)
