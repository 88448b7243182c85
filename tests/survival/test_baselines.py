"""The Cox baseline against lifelines, and against its own definition."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi

from pathoml.losses import cox_loss
from pathoml.survival.baselines import fit_cox
from pathoml.survival.partial_likelihood import partial_likelihood


def untied(everyone):
    """Break ties by a hair, so that Breslow's and lifelines' Efron likelihood are one."""
    return everyone.time + np.random.default_rng(0).random(len(everyone.time)) * 1e-3


def independent(design):
    """Leave out columns that others determine."""
    kept = np.abs(np.linalg.qr(design)[1].diagonal()) > 1e-6
    return design[:, kept]


def lifelines_fit(design, time, event, penalizer: float):
    table = pd.DataFrame(design, columns=[f"x{i}" for i in range(design.shape[1])]).assign(time=time, event=event)
    fitter = CoxPHFitter(penalizer=penalizer, l1_ratio=0)
    fitter.fit(table, "time", "event", fit_options={"precision": 1e-12})
    return fitter.params_.to_numpy()


@pytest.mark.parametrize("ridge", [0.1, 1.0, 50.0])
def test_coefficients_equal_lifelines(everyone, ridge: float) -> None:
    # lifelines minimises -log L / n + penalizer / 2 * |b|^2 after scaling columns by their sample deviation (n - 1);
    # ours is -log L + ridge / 2 * |b|^2: the same where columns have that deviation 1 and penalizer = ridge / n.
    design, time = independent(everyone.design), untied(everyone)
    design = design / design.std(axis=0, ddof=1)
    expected = lifelines_fit(design, time, everyone.event, ridge / len(time))
    np.testing.assert_allclose(fit_cox(design, time, everyone.event, ridge=ridge).coefficients, expected, atol=1e-5)


def test_coefficients_are_a_minimum_of_the_penalised_breslow_likelihood(everyone) -> None:
    design, time, event = everyone.design, everyone.time, everyone.event
    coefficients = fit_cox(design, time, event, ridge=2.0).coefficients
    at_risk = time[None, :] >= time[:, None]
    hazard = np.exp(design @ coefficients)
    expected = (at_risk * hazard) @ design / (at_risk @ hazard)[:, None]
    gradient = ((design - expected) * event[:, None]).sum(axis=0) - 2.0 * coefficients
    np.testing.assert_allclose(gradient, 0, atol=1e-2 * np.sqrt(event.sum()))


def test_the_fit_is_where_the_loss_of_training_is_least(everyone) -> None:
    """One partial likelihood: the value that the fit reports, and the loss that models are trained with."""
    design, time, event = (np.array(one) for one in (everyone.design, everyone.time, everyone.event))
    fitted = fit_cox(design, time, event, ridge=2.0).coefficients
    coefficients = torch.from_numpy(fitted).requires_grad_()
    log_hazard = torch.from_numpy(design) @ coefficients
    loss = cox_loss(log_hazard, torch.from_numpy(event == 1), torch.from_numpy(time)) * int(event.sum())
    assert loss.item() == pytest.approx(-partial_likelihood(design @ fitted, time, event), rel=1e-9)
    (loss + coefficients.square().sum()).backward()
    np.testing.assert_allclose(coefficients.grad.numpy(), 0, atol=1e-2 * np.sqrt(event.sum()))


def test_the_sign_says_who_is_worse() -> None:
    rossi = load_rossi()
    age = ((rossi["age"] - rossi["age"].mean()) / rossi["age"].std()).to_numpy()[:, None]
    fitted = fit_cox(age, rossi["week"].to_numpy(dtype=float), rossi["arrest"].to_numpy())
    assert fitted.coefficients[0] < 0
    assert fitted.log_hazard(np.array([[0.0]]))[0] == 0


def test_a_higher_penalty_shrinks(everyone) -> None:
    sizes = [
        np.linalg.norm(fit_cox(everyone.design, everyone.time, everyone.event, ridge=ridge).coefficients)
        for ridge in (0.1, 10.0, 1000.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_order_of_patients_does_not_matter(everyone) -> None:
    order = np.random.default_rng(3).permutation(len(everyone.time))
    plain = fit_cox(everyone.design, everyone.time, everyone.event).coefficients
    shuffled = fit_cox(everyone.design[order], everyone.time[order], everyone.event[order]).coefficients
    np.testing.assert_allclose(shuffled, plain, atol=1e-9)


def test_without_columns_everybody_is_alike() -> None:
    model = fit_cox(np.zeros((5, 0)), np.arange(5.0), np.ones(5, dtype=np.int64))
    assert model.log_hazard(np.zeros((3, 0))).tolist() == [0, 0, 0]


def test_more_columns_than_patients_can_be_fitted() -> None:
    rng = np.random.default_rng(0)
    model = fit_cox(rng.normal(size=(20, 50)), rng.exponential(1, 20), np.ones(20, dtype=np.int64))
    assert np.isfinite(model.coefficients).all()
