"""Associations, held against other implementations and against chance."""

import numpy as np
import pytest
from lifelines import CoxPHFitter
from scipy.stats import false_discovery_control

from pathoml.survival import log_rank
from pathoml.survival.associations import benjamini_hochberg, cox_score_test, group_difference, rank_correlation


def survival_of(value: np.ndarray, effect: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    time = generator.exponential(np.exp(-effect * value)) * 1000
    censoring = generator.exponential(1500, len(value))
    return np.minimum(time, censoring), (time <= censoring).astype(np.int64)


def test_for_two_groups_the_score_test_is_the_log_rank_test() -> None:
    group = np.random.default_rng(0).integers(0, 2, 150)
    time, event = survival_of(group.astype(float), 0.6, 1)
    effect, p_value = cox_score_test(time, event, group.astype(float))
    assert p_value == pytest.approx(log_rank(time, event, group)[1], rel=1e-9)
    assert effect > 0


@pytest.mark.parametrize("effect", [-0.3, 0.0, 0.25])
def test_the_effect_is_near_that_of_a_cox_fit_in_lifelines(effect: float) -> None:
    import pandas as pd

    value = np.random.default_rng(2).normal(size=600)
    time, event = survival_of(value, effect, 3)
    found, p_value = cox_score_test(time, event, value)
    standard = (value - value.mean()) / value.std()
    fitted = CoxPHFitter().fit(pd.DataFrame({"time": time, "event": event, "x": standard}), "time", "event")
    assert found == pytest.approx(float(fitted.params_["x"]), abs=0.05)
    assert p_value == pytest.approx(float(fitted.summary.loc["x", "p"]), rel=0.3, abs=0.002)


def test_neither_unit_nor_order_matters_and_the_sign_turns_with_the_value() -> None:
    value = np.random.default_rng(4).normal(size=80)
    time, event = survival_of(value, 0.5, 5)
    time = np.ceil(time / 100) * 100  # ties
    one = cox_score_test(time, event, value)
    assert cox_score_test(time, event, 7 * value + 3) == pytest.approx(one)
    order = np.random.default_rng(6).permutation(80)
    assert cox_score_test(time[order], event[order], value[order]) == pytest.approx(one)
    assert cox_score_test(time, event, -value) == pytest.approx((-one[0], one[1]))
    assert cox_score_test(time, event, value, np.full(len(value), "A")) == pytest.approx(one)


def test_p_values_of_nothing_are_uniform() -> None:
    p_values = []
    for seed in range(200):
        value = np.random.default_rng(seed).normal(size=60)
        p_values.append(cox_score_test(*survival_of(np.zeros(60), 0.0, 1000 + seed), value)[1])
    assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize(
    ("time", "event", "value"), [([1, 2, 3], [0, 0, 0], [1, 2, 3]), ([1, 2, 3], [1, 1, 1], [2, 2, 2]), ([5], [1], [1])]
)
def test_what_cannot_be_asked_has_p_1(time: list[float], event: list[int], value: list[float]) -> None:
    assert cox_score_test(np.array(time, float), np.array(event), np.array(value, float)) == (0.0, 1.0)


def test_groups_and_correlations_of_the_degenerate_kind_have_p_1() -> None:
    assert rank_correlation(np.ones(9), np.arange(9.0)) == (0.0, 1.0)
    assert rank_correlation(np.arange(3.0), np.arange(3.0)) == (0.0, 1.0)
    assert group_difference(np.arange(4.0), np.array(list("abcd"))) == (0.0, 1.0)
    assert group_difference(np.ones(4), np.array(list("aabb"))) == (0.0, 1.0)
    effect, p_value = group_difference(np.arange(40.0), np.repeat(["a", "b"], 20))
    assert effect > 0.7
    assert p_value < 1e-6


def test_q_values_are_those_of_scipy() -> None:
    p_values = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p_values), false_discovery_control(p_values))


def test_within_hospitals_a_difference_between_hospitals_is_no_finding() -> None:
    """Scores and information of strata add; what differs between them alone says nothing."""
    generator = np.random.default_rng(8)
    site = np.repeat(["A", "B"], 150)
    time = generator.exponential(np.where(site == "A", 300, 1500))
    event = np.ones(300, dtype=np.int64)
    value = generator.normal(size=300) + 3 * (site == "A")
    assert cox_score_test(time, event, value)[1] < 1e-6
    assert cox_score_test(time, event, value, site)[1] > 0.01
    harmful = generator.exponential(np.exp(-value) * np.where(site == "A", 300, 1500))
    assert cox_score_test(harmful, event, value, site)[1] < 1e-6
