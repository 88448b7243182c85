"""What a prognosis is worth to a trial, against plain regression and against formulas."""

import numpy as np
import pytest

from pathoml.survival import kaplan_meier
from pathoml.survival.pseudo_observations import survival_pseudo_observations
from pathoml.survival.trials import (
    TrialDesign,
    enrichment,
    events_for_trial,
    explained_share,
    simulate_adjustment,
)

TRIAL = TrialDesign(1.0, hazard_ratio=0.7, power=0.8, alpha=0.05, screening_cost=0.1)


def cohort(count: int, seed: int = 0, effect: float = 1.0):
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=count)
    happens, leaves = rng.exponential(np.exp(-effect * risk)), rng.uniform(0.5, 3, count)
    return np.minimum(happens, leaves), (happens <= leaves).astype(np.int64), risk


def test_the_explained_share_is_the_adjusted_r_squared_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    design, counts = rng.normal(size=(60, 2)), np.ones((3, 60))
    counts[1:] = rng.integers(0, 3, (2, 60))
    outcome = rng.normal(size=(3, 60)) + design[:, 0]
    found = explained_share(outcome, design, counts)
    for place, drawn in enumerate(counts):
        rows = np.repeat(np.arange(60), drawn.astype(int))
        full = np.column_stack([np.ones(len(rows)), design[rows]])
        values = outcome[place, rows]
        left = values - full @ np.linalg.lstsq(full, values, rcond=None)[0]
        plain = 1 - (left**2).sum() / ((values - values.mean()) ** 2).sum()
        assert found[place] == pytest.approx(1 - (1 - plain) * (len(rows) - 1) / (len(rows) - 3), abs=1e-10)


def test_a_risk_that_says_nothing_saves_nothing_and_one_that_says_much_saves_much() -> None:
    time, event, risk = cohort(2000, effect=1.5)
    pseudo = survival_pseudo_observations(time, event, np.ones((1, 2000)), at_days=1.0)
    noise = np.random.default_rng(5).normal(size=2000)
    nothing, much = (explained_share(pseudo, values[:, None], np.ones((1, 2000)))[0] for values in (noise, risk))
    assert abs(nothing) < 0.01
    assert much > 0.2


def test_adjustment_shrinks_the_variance_of_simulated_trials_by_the_explained_share() -> None:
    time, event, risk = cohort(4000, effect=1.5)
    event[:] = 1
    outcome = (time > 1).astype(float)
    share = explained_share(outcome[None], risk[:, None], np.ones((1, 4000)))[0]
    rng, differences = np.random.default_rng(1), np.empty((600, 2))
    for trial in range(600):
        rows = rng.choice(4000, 200, replace=False)
        treated = rng.permutation(200) % 2
        design = np.column_stack([np.ones(200), treated, risk[rows]])
        for place, columns in enumerate((2, 3)):
            differences[trial, place] = np.linalg.lstsq(design[:, :columns], outcome[rows], rcond=None)[0][1]
    alone, adjusted = differences.var(axis=0)
    assert 1 - adjusted / alone == pytest.approx(share, abs=0.08)


def test_enrichment_is_kaplan_meier_above_each_cut_off() -> None:
    time, event, risk = cohort(500)
    shares = np.array([0.0, 0.5, 0.75])
    found = enrichment(time, event, risk, np.ones((1, 500)), shares=shares, trial=TRIAL)
    for place, share in enumerate(shares):
        rows = risk >= (np.quantile(risk, share) if share else -np.inf)
        rate = 1 - kaplan_meier(time[rows], event[rows]).at(np.array([1.0]))[0]
        patients = events_for_trial(TRIAL) / rate
        assert found.event_rate[0, place] == pytest.approx(rate, abs=1e-12)
        assert found.patients[0, place] == pytest.approx(patients)
        assert found.screened[0, place] == pytest.approx(patients / rows.mean())
        cost = patients + (0.1 * patients / rows.mean() if share else 0)
        assert found.cost[0, place] == pytest.approx(cost / found.patients[0, 0])
    assert found.cost[0, 0] == 1
    assert (np.diff(found.event_rate[0]) > 0).all()


@pytest.mark.slow
def test_simulated_adjustment_gains_with_a_good_risk_and_not_with_noise() -> None:
    time, event, risk = cohort(800, effect=1.5)
    noise = np.random.default_rng(3).normal(size=800)
    good, poor = (
        simulate_adjustment(time, event, values, trial=TRIAL, trials=200, rng=np.random.default_rng(0))
        for values in (risk, noise)
    )
    assert good.patients_saved > 0.2 > abs(poor.patients_saved)
    assert good.power_adjusted > good.power_alone
    assert good.log_hazard_ratio_adjusted < good.log_hazard_ratio_alone < 0  # not collapsible
