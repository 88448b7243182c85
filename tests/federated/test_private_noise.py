"""Noise, and sums that may leave with it."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from pathoml.errors import FederationError
from pathoml.federated.private_noise import gaussian, release_sum, seeds, system_draw


def test_the_system_draws_between_zero_and_one_and_never_twice_the_same() -> None:
    first, second = system_draw(100_000), system_draw(100_000)
    for one in (first, second):
        assert one.dtype == np.float64
        assert one.min() > 0
        assert one.max() < 1
        assert kstest(one, "uniform").pvalue > 1e-9
    assert len(np.intersect1d(first, second)) < 5
    assert system_draw(0).shape == (0,)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_the_outermost_bytes_give_neither_zero_nor_one(monkeypatch: pytest.MonkeyPatch, byte: bytes) -> None:
    monkeypatch.setattr("os.urandom", lambda count: byte * count)
    (value,) = system_draw(1)
    assert 0 < value < 1
    assert math.isfinite(gaussian(1, system_draw)[0])


def test_the_noise_is_normal() -> None:
    noise = gaussian(50_000, np.random.default_rng(0).random)
    assert kstest(noise, "norm").pvalue > 0.01


def test_seeds_are_whole_numbers_that_a_generator_takes() -> None:
    found = seeds(100, np.random.default_rng(0).random)
    assert len(set(found)) == 100
    assert all(0 <= one < 2**52 for one in found)


def test_a_released_sum_is_the_clipped_sum_with_noise_of_the_stated_size() -> None:
    values = np.array([0.5, 100.0, -100.0, 3.0, 1.0])
    rng = np.random.default_rng(0)
    released = np.array([release_sum(values, 2.0, 5.0, rng.random) for _ in range(4000)])
    assert released.mean() == pytest.approx(0.5 + 2 - 2 + 2 + 1, abs=0.6)
    assert released.std() == pytest.approx(10.0, rel=0.05)
    assert release_sum(values, 2.0, 0.0) == 3.5


@pytest.mark.parametrize("value", [1e9, -1e9, 0.3])
def test_one_patient_more_changes_a_released_sum_by_the_bound_at_most(value: float) -> None:
    values = np.array([0.5, 1.0, -0.7])
    without = release_sum(values, 1.5, 0.0)
    assert abs(release_sum(np.append(values, value), 1.5, 0.0) - without) <= 1.5


def test_the_last_digits_of_a_released_sum_tell_nothing_of_the_values() -> None:
    released = release_sum(np.array([0.1, 0.2]), 1.0, 4.0, np.random.default_rng(0).random)
    assert released == round(released * 2**18) / 2**18


@pytest.mark.parametrize(
    ("values", "bound"), [([1.0, float("nan")], 1.0), ([float("inf")], 1.0), ([1.0], float("inf"))]
)
def test_what_is_not_finite_is_not_released(values: list[float], bound: float) -> None:
    with pytest.raises(FederationError, match="not a finite number for every patient"):
        release_sum(np.array(values), bound, 1.0)


def test_an_attacker_who_sees_a_released_sum_does_no_better_than_epsilon_allows() -> None:
    """Black box: guess from the sum whether the last patient is in it."""
    noise, rng = 1.0, np.random.default_rng(0)
    values = np.zeros(9)
    out = np.array([release_sum(values, 1.0, noise, rng.random) for _ in range(4000)])
    inside = np.array([release_sum(np.append(values, 1e6), 1.0, noise, rng.random) for _ in range(4000)])
    advantage = max(np.mean(inside > cut) - np.mean(out > cut) for cut in np.linspace(-3, 4, 71))
    assert advantage == pytest.approx(0.383, abs=0.03), "2 Phi(1/2) - 1, of two normals one standard deviation apart"
