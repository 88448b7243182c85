"""Penalised baselines: against scikit-survival, a search by hand, and cohorts in which the truth is known."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pathoml.survival import concordance
from pathoml.survival.baselines import fit_cox
from pathoml.survival.forest import ask_forest, fit_forest
from pathoml.survival.inner_folds import InnerFolds
from pathoml.survival.partial_likelihood import partial_likelihood
from pathoml.survival.penalties import fit_elastic_net, fit_ridge
from pathoml.units import FloatArray, IntArray


def study(patients: int = 160, columns: int = 60, signal: int = 3, seed: int = 0):
    """Columns of which the first few raise the hazard."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(patients, columns))
    hazard = np.exp(design[:, :signal].sum(axis=1))
    event_time, censoring = rng.exponential(500 / hazard), rng.exponential(1500, patients)
    return design, np.minimum(event_time, censoring), (event_time <= censoring).astype(np.int64)


def brute_force_likelihood(log_hazard: FloatArray, time: FloatArray, event: IntArray) -> float:
    return sum(
        log_hazard[i] - np.log(np.exp(log_hazard[time >= time[i]]).sum()) for i in range(len(time)) if event[i] == 1
    )


def test_the_partial_likelihood_is_the_sum_over_risk_sets(everyone) -> None:
    risk = everyone.design @ np.linspace(-0.5, 0.5, everyone.design.shape[1])
    expected = brute_force_likelihood(risk, everyone.time, everyone.event)
    assert partial_likelihood(risk, everyone.time, everyone.event) == pytest.approx(expected, rel=1e-12)


def test_the_partial_likelihood_stands_log_hazards_beyond_what_exp_can_hold() -> None:
    time, event = np.array([3.0, 2.0, 1.0]), np.array([1, 1, 1])
    risk = np.array([-900.0, 0.0, 900.0])
    assert partial_likelihood(risk, time, event) == pytest.approx(0.0)
    assert partial_likelihood(-risk, time, event) == pytest.approx(-2700.0)


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_a_penalty_for_each_column_is_scikit_survivals(everyone, ridge: float) -> None:
    penalty = np.where(np.arange(everyone.design.shape[1]) % 2 == 0, ridge, 3 * ridge)
    model = CoxPHSurvivalAnalysis(alpha=penalty, ties="breslow", tol=1e-14, n_iter=200)
    model.fit(everyone.design, Surv.from_arrays(everyone.event.astype(bool), everyone.time))
    found = fit_cox(everyone.design, everyone.time, everyone.event, ridge=penalty)
    np.testing.assert_allclose(found.coefficients, model.coef_, atol=1e-6)


def test_where_a_fit_starts_does_not_decide_where_it_ends() -> None:
    design, time, event = study()
    rng = np.random.default_rng(1)
    plain, started = (
        fit_cox(design, time, event, ridge=5.0, start=start).coefficients for start in (None, rng.normal(size=60))
    )
    np.testing.assert_allclose(started, plain, atol=1e-7)


def grid(columns: int, strengths=(1000.0, 100.0, 10.0, 1.0, 0.1)) -> list[FloatArray]:
    return [np.full(columns, one) for one in strengths]


def test_the_penalty_chosen_is_the_one_that_a_search_by_hand_chooses() -> None:
    design, time, event = study(80, 12)
    scores = []
    for penalty in grid(12):
        total = 0.0
        for rest, _ in StratifiedKFold(4, shuffle=True, random_state=3).split(event, event):
            beta = fit_cox(design[rest], time[rest], event[rest], ridge=penalty).coefficients
            risk = design @ beta
            total += brute_force_likelihood(risk, time, event) - brute_force_likelihood(
                risk[rest], time[rest], event[rest]
            )
        scores.append(total)
    best = grid(12)[int(np.argmax(scores))]
    found = fit_ridge(design, time, event, penalties=grid(12), folds=InnerFolds(4, 3))
    np.testing.assert_allclose(found.coefficients, fit_cox(design, time, event, ridge=best).coefficients, atol=1e-7)


def test_noise_gets_the_strongest_penalty_and_a_signal_does_not() -> None:
    design, time, event = study(signal=0)
    noise = fit_ridge(design, time, event, penalties=grid(60), folds=InnerFolds(5, 0))
    np.testing.assert_allclose(noise.coefficients, fit_cox(design, time, event, ridge=1000.0).coefficients, atol=1e-7)
    design, time, event = study()
    signal = fit_ridge(design, time, event, penalties=grid(60), folds=InnerFolds(5, 0))
    assert np.abs(signal.coefficients[:3]).min() > np.abs(signal.coefficients[3:]).max()


def test_rotating_the_columns_changes_no_ridge_fit() -> None:
    design, time, event = study(60, 100)
    axes = np.linalg.svd(design, full_matrices=False)[2]
    plain = fit_ridge(design, time, event, penalties=grid(100), folds=InnerFolds(3, 0))
    turned = fit_ridge(design @ axes.T, time, event, penalties=grid(60), folds=InnerFolds(3, 0))
    np.testing.assert_allclose(turned.log_hazard(design @ axes.T), plain.log_hazard(design), atol=1e-6)


def test_the_elastic_net_keeps_the_signal_and_drops_most_of_the_noise() -> None:
    design, time, event = study(200, 150)
    model = fit_elastic_net(design, time, event, free=np.zeros(150), lasso_share=0.5, folds=InnerFolds(5, 0))
    assert (model.coefficients[:3] > 0.2).all()
    assert (model.coefficients[3:] == 0).mean() > 0.7


def test_the_elastic_net_on_noise_is_no_better_than_guessing() -> None:
    scores = []
    for seed in range(4):
        design, time, event = study(signal=0, seed=seed)
        model = fit_elastic_net(
            design[:80], time[:80], event[:80], free=np.zeros(60), lasso_share=0.5, folds=InnerFolds(4, 0)
        )
        scores.append(concordance(time[80:], event[80:], model.log_hazard(design[80:])))
    assert np.mean(scores) == pytest.approx(0.5, abs=0.08)


def test_columns_that_are_hardly_penalised_stay_where_others_go() -> None:
    design, time, event = study(200, 40, signal=1)
    free = (np.arange(40) == 0).astype(np.float64)
    model = fit_elastic_net(design, time, event, free=free, lasso_share=1.0, folds=InnerFolds(5, 0))
    unpenalised = fit_cox(design[:, :1], time, event, ridge=0.0).coefficients[0]
    assert model.coefficients[0] == pytest.approx(unpenalised, rel=0.15)


def test_a_strong_free_column_keeps_no_penalised_column_out() -> None:
    design, time, event = study(300, 40, signal=3)
    rng = np.random.default_rng(5)
    age = rng.normal(size=300)
    time = time * np.exp(-1.5 * age)
    model = fit_elastic_net(
        np.column_stack([age, design]), time, event, free=(np.arange(41) == 0).astype(float), lasso_share=0.5,
        folds=InnerFolds(5, 0),
    )  # fmt: skip
    assert model.coefficients[0] > 0.7
    assert (model.coefficients[1:4] > 0.1).all()


def test_too_few_events_to_choose_by_take_the_strongest_penalty_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    design, time, event = study(20, 5)
    event = np.zeros(20, dtype=np.int64)
    event[np.argsort(time)[3]] = 1
    model = fit_ridge(design, time, event, penalties=grid(5), folds=InnerFolds(5, 0))
    np.testing.assert_allclose(model.coefficients, fit_cox(design, time, event, ridge=1000.0).coefficients, atol=1e-9)
    assert "1 event(s) are too few to choose a penalty by" in caplog.text


def test_a_forest_orders_patients_and_gives_falling_curves_between_0_and_1() -> None:
    design, time, event = study(200, 5)
    forest = fit_forest(design[:120], time[:120], event[:120], trees=30, smallest_leaf=10, seed=0)
    days = np.array([0.0, 100.0, 500.0, 1e6])
    found = ask_forest(forest, design[120:], days)
    assert concordance(time[120:], event[120:], found.risk) > 0.7
    assert (np.diff(found.survival, axis=1) <= 0).all()
    assert ((found.survival >= 0) & (found.survival <= 1)).all()
    expected = [
        [float(curve(day)) for day in (100.0, 500.0)] for curve in forest.predict_survival_function(design[120:])
    ]
    np.testing.assert_allclose(found.survival[:, 1:3], expected, atol=1e-12)


def test_the_same_seed_grows_the_same_forest_and_another_one_another() -> None:
    design, time, event = study(80, 4)
    risks = [
        ask_forest(fit_forest(design, time, event, trees=10, smallest_leaf=5, seed=seed), design, np.array([50.0])).risk
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(risks[0], risks[1])
    assert (risks[0] != risks[2]).any()
