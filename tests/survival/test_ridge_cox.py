"""The quick ridge Cox against scikit-survival, against the loss that training minimises, and against its own definition."""

import numpy as np
import pytest
import torch

from pathoml.losses import cox_loss
from pathoml.survival.baselines import fit_cox
from pathoml.survival.ridge_cox import (
    InnerSplit,
    PartialLikelihood,
    cross_validated_likelihoods,
    fit_ridge,
    ridge_path,
)


def likelihood(part) -> PartialLikelihood:
    return PartialLikelihood(part.design, part.time, part.event)


def torch_likelihood(part, coefficients: torch.Tensor) -> torch.Tensor:
    log_hazard = torch.from_numpy(part.design) @ coefficients
    loss = cox_loss(log_hazard, torch.from_numpy(part.event == 1), torch.from_numpy(part.time.copy()))
    return -loss * float(part.event.sum())


def test_the_likelihood_and_its_derivatives_are_those_of_the_training_loss(everyone) -> None:
    coefficients = np.random.default_rng(1).normal(0, 0.2, everyone.design.shape[1])
    start = torch.from_numpy(coefficients).requires_grad_()
    value = torch_likelihood(everyone, start)
    (gradient,) = torch.autograd.grad(value, start)
    found = likelihood(everyone)
    assert found.value(coefficients) == pytest.approx(value.item(), rel=1e-9)
    own_gradient, information = found.derivatives(coefficients)
    np.testing.assert_allclose(own_gradient, gradient.numpy(), rtol=1e-7, atol=1e-7)
    hessian = torch.autograd.functional.hessian(
        lambda one: torch_likelihood(everyone, one), torch.from_numpy(coefficients)
    )
    np.testing.assert_allclose(information, -hessian.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 50.0])
def test_coefficients_equal_scikit_survivals(everyone, ridge: float) -> None:
    expected = fit_cox(everyone.design, everyone.time, everyone.event, ridge=ridge).coefficients
    found = fit_ridge(likelihood(everyone), np.full(everyone.design.shape[1], ridge))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_at_the_maximum_the_penalised_gradient_is_zero_for_penalties_of_their_own(everyone) -> None:
    penalties = np.geomspace(0.1, 300, everyone.design.shape[1])
    own = likelihood(everyone)
    found = fit_ridge(own, penalties)
    np.testing.assert_allclose(own.derivatives(found)[0], penalties * found, atol=1e-5)


def test_a_path_gives_what_single_fits_give(everyone) -> None:
    penalties = [np.full(everyone.design.shape[1], one) for one in np.geomspace(1000, 0.1, 7)]
    for found, penalty in zip(ridge_path(likelihood(everyone), penalties), penalties, strict=True):
        np.testing.assert_allclose(found, fit_ridge(likelihood(everyone), penalty), atol=1e-6)


def test_neither_the_order_of_patients_nor_the_unit_of_time_matters(everyone) -> None:
    order = np.random.default_rng(3).permutation(len(everyone.time))
    penalties = np.full(everyone.design.shape[1], 2.0)
    shuffled = PartialLikelihood(everyone.design[order], everyone.time[order] * 30.4, everyone.event[order])
    np.testing.assert_allclose(fit_ridge(shuffled, penalties), fit_ridge(likelihood(everyone), penalties), atol=1e-7)


def test_a_wild_start_is_brought_back(everyone) -> None:
    penalties = np.full(everyone.design.shape[1], 2.0)
    wild = np.full(everyone.design.shape[1], 20.0)
    found = fit_ridge(likelihood(everyone), penalties, wild)
    np.testing.assert_allclose(found, fit_ridge(likelihood(everyone), penalties), atol=1e-5)


def test_more_columns_than_patients_are_fitted() -> None:
    rng = np.random.default_rng(0)
    own = PartialLikelihood(rng.normal(size=(20, 50)), rng.exponential(1, 20), np.ones(20, dtype=np.int64))
    found = fit_ridge(own, np.ones(50))
    np.testing.assert_allclose(own.derivatives(found)[0], found, atol=1e-5)


def test_without_events_the_penalty_alone_decides() -> None:
    own = PartialLikelihood(np.ones((4, 2)), np.arange(4.0), np.zeros(4, dtype=np.int64))
    assert own.value(np.ones(2)) == 0
    np.testing.assert_array_equal(fit_ridge(own, np.ones(2), np.ones(2)), [0, 0])


def test_the_cross_validated_likelihood_is_what_its_definition_says(everyone) -> None:
    count, columns = everyone.design.shape
    is_searched = np.arange(columns) > 0
    groups = np.arange(count) % 3
    splits = [InnerSplit(np.flatnonzero(groups != one), everyone.design, is_searched) for one in range(3)]
    searched = np.array([100.0, 1.0])
    found = cross_validated_likelihoods(splits, (everyone.time, everyone.event), searched, 0.5)
    expected = []
    for penalty in searched:
        total = 0.0
        for one in range(3):
            kept = groups != one
            inside = PartialLikelihood(everyone.design[kept], everyone.time[kept], everyone.event[kept])
            coefficients = fit_ridge(inside, np.where(is_searched, penalty, 0.5))
            total += likelihood(everyone).value(coefficients) - inside.value(coefficients)
        expected.append(total)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_noise_is_given_the_strongest_penalty_and_a_signal_is_not() -> None:
    rng = np.random.default_rng(8)
    signal, noise = rng.normal(size=(300, 1)), rng.normal(size=(300, 40))
    time, event = rng.exponential(np.exp(-signal[:, 0])), np.ones(300, dtype=np.int64)
    groups = np.arange(300) % 5

    def best(design: np.ndarray) -> float:
        searched = np.geomspace(1e4, 0.1, 11)
        everything = np.ones(design.shape[1], dtype=bool)
        splits = [InnerSplit(np.flatnonzero(groups != one), design, everything) for one in range(5)]
        return float(searched[cross_validated_likelihoods(splits, (time, event), searched, 1.0).argmax()])

    assert best(noise) > 100
    assert best(signal) < 100
