"""The partial likelihood that linear models climb is the loss that networks are trained with; so are its derivatives."""

import numpy as np
import pytest
import torch

from pathoml.losses import cox_loss
from pathoml.survival.partial_likelihood import derivatives, log_likelihood, risk_sets

PATIENTS, COLUMNS = 60, 3


def drawn_patients(seed: int) -> tuple[np.ndarray, ...]:
    """Return covariates, tied times, events, strata, and how often each patient was drawn."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(PATIENTS, COLUMNS))
    time = np.ceil(rng.exponential(5, PATIENTS))
    event, stratum = rng.integers(0, 2, PATIENTS), rng.integers(0, 3, PATIENTS)
    return design, time, event, stratum, rng.integers(0, 3, PATIENTS).astype(np.float64)


def loss_of_drawn(linear: torch.Tensor, time, event, stratum, counts) -> torch.Tensor:
    """Return the log partial likelihood by the loss of training, patients repeated as often as drawn."""
    rows = torch.from_numpy(np.repeat(np.arange(len(time)), counts.astype(int)))
    events = torch.from_numpy(event == 1)[rows]
    loss = cox_loss(linear[rows], events, torch.from_numpy(time)[rows], stratum=torch.from_numpy(stratum)[rows])
    return -loss * events.sum()


@pytest.mark.parametrize("spread", [1.0, 30.0, 900.0])
def test_value_is_that_of_the_loss_however_far_apart_hazards_are(spread: float) -> None:
    _, time, event, stratum, counts = drawn_patients(1)
    rows = risk_sets(time, event, stratum)
    linear = spread * np.random.default_rng(2).normal(size=PATIENTS)
    found = log_likelihood(linear[rows.order][None], counts[rows.order][None], rows)[0]
    expected = loss_of_drawn(torch.from_numpy(linear), time, event, stratum, counts).item()
    assert found == pytest.approx(expected, rel=1e-10)


def test_draws_side_by_side_have_their_own_values_also_where_one_of_them_is_extreme() -> None:
    _, time, event, stratum, _ = drawn_patients(3)
    rows, rng = risk_sets(time, event, stratum), np.random.default_rng(4)
    linear = rng.normal(size=(3, PATIENTS)) * np.array([[1.0], [900.0], [3.0]])
    counts = rng.integers(0, 3, (3, PATIENTS)).astype(np.float64)
    together = log_likelihood(linear, counts, rows)
    alone = [log_likelihood(linear[one, None], counts[one, None], rows)[0] for one in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-13)


@pytest.mark.parametrize("stratified", [False, True])
def test_slope_and_curvature_are_those_of_the_loss(stratified: bool) -> None:
    design, time, event, stratum, counts = drawn_patients(5)
    stratum = stratum if stratified else np.zeros_like(stratum)
    rows = risk_sets(time, event, stratum)
    beta = torch.tensor([0.4, -0.8, 0.1], dtype=torch.float64)

    def value(coefficients: torch.Tensor) -> torch.Tensor:
        return loss_of_drawn(torch.from_numpy(design) @ coefficients, time, event, stratum, counts)

    linear = (design @ beta.numpy())[rows.order]
    slope, curvature = derivatives(design[rows.order][None], linear[None], counts[rows.order][None], rows)
    np.testing.assert_allclose(slope[0], torch.func.grad(value)(beta).numpy(), atol=1e-10)
    np.testing.assert_allclose(curvature[0], -torch.func.hessian(value)(beta).numpy(), atol=1e-10)


def test_without_events_the_value_is_zero_and_nothing_pulls() -> None:
    design, time, _, stratum, counts = drawn_patients(6)
    rows = risk_sets(time, np.zeros(PATIENTS, dtype=np.int64), stratum)
    linear = design[:, 0][None]
    assert log_likelihood(linear, counts[None], rows)[0] == 0
    slope, curvature = derivatives(design[None], linear, counts[None], rows)
    assert not slope.any()
    assert not curvature.any()
