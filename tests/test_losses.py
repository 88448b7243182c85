"""Losses against independent implementations, naive formulas and extreme numbers."""

import numpy as np
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from sksurv.datasets import load_whas500
from sksurv.linear_model.coxph import CoxPHOptimizer
from torch import Tensor

from pathoml.losses import cox_loss, discrete_hazard_loss


def sample(count: int = 60, *, ties: bool = True, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    time = rng.exponential(10, count).round(0 if ties else 9)
    return torch.from_numpy(rng.normal(size=count)), torch.from_numpy(rng.random(count) < 0.5), torch.from_numpy(time)


def naive_cox(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    terms = [
        torch.log(torch.exp(log_hazard[time >= time[i]]).sum()) - log_hazard[i] for i in range(len(time)) if event[i]
    ]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_cox_equals_the_formula_spelt_out(seed: int, ties: bool) -> None:
    log_hazard, event, time = sample(ties=ties, seed=seed)
    torch.testing.assert_close(
        cox_loss(log_hazard, event, time), naive_cox(log_hazard, event, time), rtol=0, atol=1e-12
    )


def test_cox_equals_scikit_survivals_breslow_likelihood_on_tied_data() -> None:
    columns, outcome = load_whas500()
    age = columns["age"].to_numpy(dtype=np.float64)[:, None] / 10
    event, time = outcome["fstat"], outcome["lenfol"].astype(np.float64)
    reference = CoxPHOptimizer(age, event, time, np.zeros(1), "breslow")
    # scikit-survival divides by the number of patients, we by the number of events.
    expected = reference.nlog_likelihood(np.array([0.7])) * len(time) / event.sum()
    found = cox_loss(torch.from_numpy(0.7 * age[:, 0]), torch.from_numpy(event), torch.from_numpy(time))
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_cox_equals_lifelines_likelihood_where_nothing_is_tied() -> None:
    rossi = load_rossi()
    rossi["week"] = rossi["week"] + np.random.default_rng(0).random(len(rossi)) * 0.5
    fitter = CoxPHFitter().fit(rossi, "week", "arrest")
    log_hazard = fitter.predict_log_partial_hazard(rossi).to_numpy()
    event, time = rossi["arrest"].to_numpy() == 1, rossi["week"].to_numpy()
    found = cox_loss(torch.from_numpy(log_hazard), torch.from_numpy(event), torch.from_numpy(time))
    assert found.item() * event.sum() == pytest.approx(-fitter.log_likelihood_, abs=1e-9)


@pytest.mark.parametrize("shift", [-7.0, 500.0])
def test_cox_does_not_change_when_all_log_hazards_shift(shift: float) -> None:
    log_hazard, event, time = sample()
    torch.testing.assert_close(
        cox_loss(log_hazard + shift, event, time), cox_loss(log_hazard, event, time), rtol=0, atol=1e-10
    )


def test_cox_value_and_gradient_do_not_depend_on_the_order_of_patients() -> None:
    log_hazard, event, time = sample()
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(time)))
    plain, moved = log_hazard.clone().requires_grad_(), log_hazard[order].clone().requires_grad_()
    first, second = cox_loss(plain, event, time), cox_loss(moved, event[order], time[order])
    first.backward()
    second.backward()
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    torch.testing.assert_close(plain.grad[order], moved.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "values", [(100, -100), (-100, 100), (1e4, -1e4, 0), (-1e4, 0, 1e4), (1e4, 1e4, 1e4), (89, 90, 88)]
)
@pytest.mark.parametrize("tied", [True, False])
def test_cox_stays_finite_and_right_at_extremes(values: tuple[float, ...], dtype: torch.dtype, tied: bool) -> None:
    count = len(values)
    log_hazard = torch.tensor(values, dtype=dtype, requires_grad=True)
    time = torch.ones(count) if tied else torch.arange(count)
    event = torch.ones(count, dtype=torch.bool)
    loss = cox_loss(log_hazard, event, time.double())
    loss.backward()
    exact = log_hazard.detach().double()
    at_risk = (time[None, :] >= time[:, None]).double().log()
    expected = (torch.logsumexp(at_risk + exact[None, :], dim=1) - exact).mean()
    softmax = torch.softmax(at_risk + exact[None, :], dim=1).mean(dim=0) - 1 / count
    tolerance = 2e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-6, atol=tolerance)
    torch.testing.assert_close(log_hazard.grad.double(), softmax, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_events_is_a_zero_with_a_zero_gradient(dtype: torch.dtype) -> None:
    log_hazard = torch.randn(5, dtype=dtype, requires_grad=True)
    loss = cox_loss(log_hazard, torch.zeros(5, dtype=torch.bool), torch.arange(5.0))
    loss.backward()
    assert (loss.item(), loss.dtype, loss.device) == (0.0, dtype, log_hazard.device)
    assert log_hazard.grad.tolist() == [0.0] * 5


def test_float64_is_not_cast_down() -> None:
    log_hazard, event, time = sample()
    assert cox_loss(log_hazard, event, time).dtype == torch.float64
    assert cox_loss(log_hazard.float(), event, time).dtype == torch.float32


def test_cox_is_a_mean_over_events_and_not_over_patients_or_times() -> None:
    log_hazard, event, time = torch.zeros(4).double(), torch.tensor([True, True, False, False]), torch.ones(4)
    assert cox_loss(log_hazard, event, time).item() == pytest.approx(np.log(4), abs=1e-12)


def test_cox_gradients_are_those_of_the_loss() -> None:
    log_hazard, event, time = sample(12)
    assert torch.autograd.gradcheck(lambda x: cox_loss(x, event, time), (log_hazard.requires_grad_(),))


def test_an_event_at_time_zero_is_an_event() -> None:
    log_hazard = torch.tensor([1.0, 0.0]).double()
    found = cox_loss(log_hazard, torch.tensor([True, False]), torch.tensor([0.0, 0.0]))
    assert found.item() == pytest.approx(np.log(np.e + 1) - 1, abs=1e-12)


def naive_discrete(logits: Tensor, event: Tensor, time_bin: Tensor) -> Tensor:
    hazard = torch.sigmoid(logits)
    terms = []
    for row, (had_event, last) in enumerate(zip(event, time_bin, strict=True)):
        likelihood = torch.prod(1 - hazard[row, :last])
        terms.append(-torch.log(likelihood * hazard[row, last] if had_event else likelihood))
    return torch.stack(terms).mean()


def discrete_sample() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(40, 5, dtype=torch.float64), torch.rand(40) < 0.5, torch.randint(0, 5, (40,))


def test_discrete_equals_the_likelihood_spelt_out() -> None:
    values = discrete_sample()
    torch.testing.assert_close(discrete_hazard_loss(*values), naive_discrete(*values), rtol=0, atol=1e-12)


def test_discrete_does_not_depend_on_the_order_of_patients() -> None:
    logits, event, time_bin = discrete_sample()
    order = torch.arange(39, -1, -1)
    torch.testing.assert_close(
        discrete_hazard_loss(logits[order], event[order], time_bin[order]),
        discrete_hazard_loss(logits, event, time_bin), rtol=0, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_a_patient_censored_in_the_last_bin_keeps_a_gradient(size: float) -> None:
    logits = torch.full((1, 4), size, requires_grad=True)
    loss = discrete_hazard_loss(logits, torch.tensor([False]), torch.tensor([3]))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad[0, :3] > 0.4).all()
    assert logits.grad[0, 3] == 0


@pytest.mark.parametrize("size", [-1e4, -100.0, 100.0, 1e4])
def test_nothing_is_clamped_at_extreme_logits(size: float) -> None:
    logits = torch.full((1, 3), size, requires_grad=True)
    loss = discrete_hazard_loss(logits, torch.tensor([True]), torch.tensor([2]))
    loss.backward()
    assert loss.item() == pytest.approx(2 * max(size, 0) + max(-size, 0), rel=1e-6)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() >= 1


def test_discrete_gradients_are_those_of_the_loss() -> None:
    logits, event, time_bin = (values[:6].clone() for values in discrete_sample())
    assert torch.autograd.gradcheck(lambda x: discrete_hazard_loss(x, event, time_bin), (logits.requires_grad_(),))


def test_discrete_batches_without_events_are_means_over_patients_too() -> None:
    logits = torch.zeros(4, 3, dtype=torch.float64)
    found = discrete_hazard_loss(logits, torch.zeros(4, dtype=torch.bool), torch.tensor([0, 1, 2, 1]))
    assert found.item() == pytest.approx(np.log(2) * (0 + 1 + 2 + 1) / 4, abs=1e-12)
