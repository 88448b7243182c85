"""Aggregation against formulas written a second time, number by number."""

from typing import Any

import numpy as np
import pytest

from pathoml.federated.aggregation import ServerState, aggregate, next_control, weighted_mean
from pathoml.federated.clipping import change_norm
from pathoml.federated.method_settings import (
    FedAdagradSettings,
    FedAdamSettings,
    FedAvgSettings,
    FedYogiSettings,
    ScaffoldSettings,
)


def drawn(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(3, 2)).astype(np.float32), "b": rng.normal(size=4).astype(np.float32)}


def test_the_mean_is_numpys_average() -> None:
    models, weights = [drawn(seed) for seed in range(4)], [3.0, 1.0, 0.0, 10.0]
    for name, array in weighted_mean(models, weights).items():
        expected = np.average([one[name].astype(np.float64) for one in models], axis=0, weights=weights)
        np.testing.assert_allclose(array, expected, rtol=1e-6)
        assert array.dtype == np.float32


def test_the_mean_does_not_depend_on_the_order_of_sites_nor_on_the_unit_of_weights() -> None:
    models, weights = [drawn(seed) for seed in range(3)], [3.0, 1.0, 10.0]
    first, second = weighted_mean(models, weights), weighted_mean(models[::-1], [20.0, 2.0, 6.0])
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-6)


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="all zero"):
        weighted_mean([drawn(0)], [0.0])


@pytest.mark.parametrize(
    "settings", [FedAdamSettings(), FedYogiSettings(), FedAdagradSettings()], ids=lambda one: one.kind
)
def test_adaptive_steps_follow_the_paper(settings: Any) -> None:
    current, state = drawn(0), ServerState()
    first = {name: np.zeros(one.shape) for name, one in current.items()}
    second = {name: np.full(one.shape, settings.adaptivity**2) for name, one in current.items()}
    model = {name: one.astype(np.float64) for name, one in current.items()}
    for round_number in range(5):
        mean = drawn(10 + round_number)
        current, state = aggregate(settings, current, mean, state)
        for name, values in model.items():
            for index in np.ndindex(values.shape):
                delta = float(mean[name][index]) - values[index]
                first[name][index] = settings.first_decay * first[name][index] + (1 - settings.first_decay) * delta
                v, square = second[name][index], delta * delta
                if settings.kind == "fedadam":
                    v = settings.second_decay * v + (1 - settings.second_decay) * square
                elif settings.kind == "fedyogi":
                    v = v - (1 - settings.second_decay) * square * np.sign(v - square)
                else:
                    v = v + square
                second[name][index] = v
                values[index] += settings.server_rate * first[name][index] / (np.sqrt(v) + settings.adaptivity)
            np.testing.assert_allclose(current[name], values, rtol=1e-5, atol=1e-6)


def test_plain_aggregation_takes_the_mean_as_it_is() -> None:
    mean = drawn(1)
    following, state = aggregate(FedAvgSettings(), drawn(0), mean, ServerState())
    assert not state.first
    for name in mean:
        np.testing.assert_array_equal(following[name], mean[name])


def test_the_shared_control_variate_moves_by_the_shares_of_sites_that_answered() -> None:
    before = {"a": np.ones(3)}
    changes = [{"a": np.full(3, 2.0)}, {"a": np.full(3, 4.0)}]
    np.testing.assert_allclose(
        next_control(ScaffoldSettings(), before, changes, [4.0, 1.0], (8.0, 8.0))["a"], 1 + 1 + 0.5
    )
    assert next_control(FedAvgSettings(), {}, changes, [4.0, 1.0], (8.0, 8.0)) == {}


def test_the_shared_control_variate_is_the_weighted_mean_of_the_sites_own_also_when_one_comes_late() -> None:
    rng = np.random.default_rng(0)
    weights, own = {"a": 3.0, "b": 1.0, "late": 6.0}, dict.fromkeys(("a", "b", "late"), np.zeros(2))
    control: dict[str, Any] = {}
    heard: set[str] = set()
    for names in (["a", "b"], ["b"], ["a", "b", "late"], ["a", "late"]):
        changes = {name: rng.normal(size=2) for name in names}
        own |= {name: own[name] + change for name, change in changes.items()}
        before = sum(weights[name] for name in heard)
        heard |= set(names)
        totals = (before, sum(weights[name] for name in heard))
        control = next_control(
            ScaffoldSettings(),
            control,
            [{"c": one} for one in changes.values()],
            [weights[one] for one in names],
            totals,
        )
        expected = sum(weights[name] * own[name] for name in heard) / totals[1]
        np.testing.assert_allclose(control["c"], expected, atol=1e-12)


def test_the_length_of_a_change_is_over_all_arrays() -> None:
    before = {"a": np.zeros(2), "b": np.zeros(1)}
    assert change_norm(before, {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}) == pytest.approx(5.0)
