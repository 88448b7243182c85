"""Losses against independent implementations, naive formulas and extreme numbers."""

import numpy as np
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from sksurv.datasets import load_whas500
from sksurv.linear_model.coxph import CoxPHOptimizer
from torch import Tensor

from pathoml.losses import (
    cause_specific_cox_loss,
    cox_loss,
    deep_hit_loss,
    discrete_hazard_loss,
    mtlr_loss,
    mtlr_scores,
    pmf_loss,
    ranking_loss,
)


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


def naive_efron(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    terms = []
    for one in time[event].unique():
        tied = event & (time == one)
        at_risk, at_event = torch.exp(log_hazard[time >= one]).sum(), torch.exp(log_hazard[tied]).sum()
        count = int(tied.sum())
        terms += [torch.log(at_risk - number / count * at_event) for number in range(count)]
        terms.append(-log_hazard[tied].sum())
    return torch.stack(terms).sum() / event.sum()


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_efron_equals_the_formula_spelt_out(seed: int, ties: bool) -> None:
    values = sample(ties=ties, seed=seed)
    torch.testing.assert_close(cox_loss(*values, ties="efron"), naive_efron(*values), rtol=1e-12, atol=1e-12)


def test_efron_equals_scikit_survivals_and_lifelines_likelihood_on_tied_data() -> None:
    columns, outcome = load_whas500()
    age = columns["age"].to_numpy(dtype=np.float64)[:, None] / 10
    event, time = outcome["fstat"], outcome["lenfol"].astype(np.float64)
    reference = CoxPHOptimizer(age, event, time, np.zeros(1), "efron")
    expected = reference.nlog_likelihood(np.array([0.7])) * len(time) / event.sum()
    given = torch.from_numpy(0.7 * age[:, 0]), torch.from_numpy(event), torch.from_numpy(time)
    assert cox_loss(*given, ties="efron").item() == pytest.approx(expected, rel=1e-9)
    rossi = load_rossi()
    fitter = CoxPHFitter().fit(rossi, "week", "arrest")
    log_hazard = torch.from_numpy(fitter.predict_log_partial_hazard(rossi).to_numpy())
    outcome = torch.from_numpy(rossi["arrest"].to_numpy() == 1), torch.from_numpy(rossi["week"].to_numpy(dtype=float))
    found = cox_loss(log_hazard, *outcome, ties="efron").item() * int(outcome[0].sum())
    assert found == pytest.approx(-fitter.log_likelihood_, rel=1e-9)


def test_strata_equal_lifelines_strata() -> None:
    rossi = load_rossi()
    fitter = CoxPHFitter().fit(rossi, "week", "arrest", strata=["wexp"])
    log_hazard = torch.from_numpy(rossi[fitter.params_.index].to_numpy(dtype=float) @ fitter.params_.to_numpy())
    event, time = (
        torch.from_numpy(rossi["arrest"].to_numpy() == 1),
        torch.from_numpy(rossi["week"].to_numpy(dtype=float)),
    )
    stratum = torch.from_numpy(rossi["wexp"].to_numpy())
    found = cox_loss(log_hazard, event, time, ties="efron", stratum=stratum).item() * int(event.sum())
    assert found == pytest.approx(-fitter.log_likelihood_, rel=1e-9)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_each_stratum_may_shift_by_itself(ties: str) -> None:
    log_hazard, event, time = sample()
    stratum = torch.arange(len(time)) % 3
    moved = log_hazard + torch.tensor([5.0, -30.0, 200.0])[stratum]
    torch.testing.assert_close(
        cox_loss(moved, event, time, ties=ties, stratum=stratum), cox_loss(log_hazard, event, time, ties=ties, stratum=stratum),
        rtol=0, atol=1e-10,
    )  # fmt: skip


@pytest.mark.parametrize("stratified", [True, False])
def test_efron_gradients_are_those_of_the_loss(stratified: bool) -> None:
    log_hazard, event, time = sample(14)
    stratum = torch.arange(14) % 2 if stratified else None
    assert torch.autograd.gradcheck(
        lambda x: cox_loss(x, event, time, ties="efron", stratum=stratum), (log_hazard.requires_grad_(),)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
def test_efron_is_finite_and_right_at_log_hazards_of_200(tied: bool, dtype: torch.dtype) -> None:
    values = torch.tensor([200.0, -200.0, 200.0, 0.0, -200.0, 199.0], dtype=dtype, requires_grad=True)
    time = torch.ones(6).double() if tied else torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]).double()
    event = torch.tensor([True, True, True, False, True, True])
    loss = cox_loss(values, event, time, ties="efron")
    loss.backward()
    exact = values.detach().double().requires_grad_()
    expected = naive_efron_in_logs(exact, event, time)
    expected.backward()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(loss.detach().double(), expected.detach(), rtol=tolerance, atol=0)
    torch.testing.assert_close(values.grad.double(), exact.grad, rtol=0, atol=tolerance)


def naive_efron_in_logs(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    """The formula with each member of the sum weighted by what is left of it."""
    terms = []
    for one in time[event].unique():
        tied = event & (time == one)
        count = int(tied.sum())
        for number in range(count):
            left = torch.where(tied, 1 - number / count, 1.0).double()[time >= one]
            terms.append(torch.logsumexp(log_hazard[time >= one] + torch.log(left), dim=0))
        terms.append(-log_hazard[tied].sum())
    return torch.stack(terms).sum() / event.sum()


def test_efron_is_finite_for_more_ties_than_float32_can_tell_apart() -> None:
    log_hazard = torch.linspace(-1, 1, 300_000, requires_grad=True)
    loss = cox_loss(log_hazard, torch.ones(300_000, dtype=torch.bool), torch.ones(300_000), ties="efron")
    loss.backward()
    exact = cox_loss(
        log_hazard.detach().double(), torch.ones(300_000, dtype=torch.bool), torch.ones(300_000), ties="efron"
    )
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    assert torch.isfinite(log_hazard.grad).all()


def causes(count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 3, count)), torch.from_numpy(rng.exponential(10, count).round())


def test_cause_specific_hazards_are_one_cox_model_a_cause() -> None:
    cause, time = causes()
    log_hazards = torch.randn(40, 2, dtype=torch.float64)
    events = [(cause == number) for number in (1, 2)]
    expected = (
        sum(cox_loss(column, event, time) * event.sum() for column, event in zip(log_hazards.T, events, strict=True))
        / (cause > 0).sum()
    )
    torch.testing.assert_close(cause_specific_cox_loss(log_hazards, cause, time), expected, rtol=1e-12, atol=0)


def naive_pmf(scores: Tensor, event: Tensor, time_bin: Tensor) -> Tensor:
    terms = []
    for row, had_event, last in zip(scores, event, time_bin, strict=True):
        weights = [*torch.exp(row), torch.ones(()).double()]
        total = sum(weights)
        chance = weights[last] / total if had_event else sum(weights[last:]) / total
        terms.append(-torch.log(chance))
    return torch.stack(terms).mean()


def naive_mtlr(logits: Tensor, event: Tensor, time_bin: Tensor) -> Tensor:
    scores = torch.stack([logits[:, one:].sum(dim=1) for one in range(logits.shape[1])], dim=1)
    return naive_pmf(scores, event, time_bin)


@pytest.mark.parametrize(("loss", "naive"), [(pmf_loss, naive_pmf), (mtlr_loss, naive_mtlr)])
def test_pmf_and_mtlr_equal_their_likelihood_spelt_out(loss, naive) -> None:
    logits, event, time_bin = discrete_sample()
    torch.testing.assert_close(loss(logits, event, time_bin), naive(logits, event, time_bin), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        loss(logits.float(), event, time_bin).double(), naive(logits, event, time_bin), rtol=1e-4, atol=0
    )
    assert torch.autograd.gradcheck(lambda x: loss(x, event[:6], time_bin[:6]), (logits[:6].clone().requires_grad_(),))


def naive_deep_hit(logits: Tensor, cause: Tensor, time_bin: Tensor, share: float, scale: float) -> Tensor:
    count = len(logits)
    weights = torch.exp(logits)
    total = weights.sum(dim=(1, 2)) + 1
    chance = weights / total[:, None, None]
    incidence = chance.cumsum(dim=2)
    likelihood = torch.zeros(()).double()
    for row in range(count):
        if cause[row]:
            likelihood = likelihood - torch.log(chance[row, cause[row] - 1, time_bin[row]])
        else:
            before = chance[row, :, : time_bin[row]].sum()
            likelihood = likelihood - torch.log(1 - before)
    ranking = torch.zeros(()).double()
    for i in range(count):
        for j in range(count):
            if cause[i] and time_bin[i] < time_bin[j]:
                own, other = (incidence[one, cause[i] - 1, time_bin[i]] for one in (i, j))
                ranking = ranking + torch.exp(-(own - other) / scale)
    return share * likelihood / count + (1 - share) * ranking / count**2


def as_pycox_has_it(time_bin: Tensor, event: Tensor) -> Tensor:
    """Its index of a censored patient is the last bin survived, ours the first one that is not known to be."""
    return torch.where(event, time_bin, time_bin + 1)


def test_losses_over_bins_are_those_of_pycox() -> None:
    """Kvamme and Borgan 2021, equations 4, 8 and 9, in pycox's indices; each as its documentation states it, in plain numbers."""
    logits, event, index = discrete_sample()
    ours = as_pycox_has_it(index, event)
    bins = torch.arange(5)

    hazard = torch.sigmoid(logits)
    cross_entropy = -torch.where((bins == index[:, None]) & event[:, None], hazard.log(), (1 - hazard).log())
    expected = (cross_entropy * (bins <= index[:, None])).sum(dim=1).mean()
    torch.testing.assert_close(discrete_hazard_loss(logits, event, ours), expected, rtol=1e-6, atol=0)

    def negative_log_pmf(scores: Tensor) -> Tensor:
        chance = torch.exp(scores) / (1 + torch.exp(scores).sum(dim=1, keepdim=True))
        rows = torch.arange(len(scores))
        return -torch.where(event, chance[rows, index], 1 - chance.cumsum(dim=1)[rows, index]).log().mean()

    torch.testing.assert_close(pmf_loss(logits, event, ours), negative_log_pmf(logits), rtol=1e-6, atol=0)
    summed = torch.stack([logits[:, one:].sum(dim=1) for one in range(5)], dim=1)
    torch.testing.assert_close(mtlr_loss(logits, event, ours), negative_log_pmf(summed), rtol=1e-6, atol=0)

    chance = torch.exp(logits) / (1 + torch.exp(logits).sum(dim=1, keepdim=True))
    incidence = chance.cumsum(dim=1)
    ranking = 0.0
    for i in range(40):
        for j in range(40):
            if event[i] and (index[i] < index[j] or (index[i] == index[j] and not event[j])):
                ranking += np.exp(-(incidence[i, index[i]] - incidence[j, index[i]]).item() / 0.1) / 40**2
    found = deep_hit_loss(logits[:, None, :], event.long(), ours)
    torch.testing.assert_close(found, 0.2 * negative_log_pmf(logits) + 0.8 * ranking, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kinds", [1, 2])
def test_deep_hit_equals_its_definition_spelt_out(kinds: int) -> None:
    torch.manual_seed(1)
    logits, time_bin = torch.randn(25, kinds, 4, dtype=torch.float64), torch.randint(0, 4, (25,))
    cause = torch.randint(0, kinds + 1, (25,))
    for share, scale in ((0.2, 0.1), (1.0, 0.5), (0.0, 1.0)):
        found = deep_hit_loss(logits, cause, time_bin, likelihood_share=share, scale=scale)
        torch.testing.assert_close(found, naive_deep_hit(logits, cause, time_bin, share, scale), rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(
        lambda x: deep_hit_loss(x, cause[:6], time_bin[:6]), (logits[:6].clone().requires_grad_(),)
    )


def test_deep_hit_with_likelihood_alone_and_one_cause_is_the_pmf_loss() -> None:
    logits, event, time_bin = discrete_sample()
    found = deep_hit_loss(logits[:, None, :], event.long(), time_bin, likelihood_share=1.0)
    torch.testing.assert_close(found, pmf_loss(logits, event, time_bin), rtol=1e-12, atol=0)


def test_ranking_is_the_mean_over_pairs_spelt_out() -> None:
    risk, event, time = sample(30)
    terms = [
        torch.log1p(torch.exp(risk[j] - risk[i]))
        for i in range(30)
        for j in range(30)
        if event[i] and time[j] > time[i]
    ]
    torch.testing.assert_close(ranking_loss(risk, event, time), torch.stack(terms).mean(), rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(
        lambda x: ranking_loss(x, event[:9], time[:9]), (risk[:9].clone().requires_grad_(),)
    )


def test_pairs_are_counted_alike_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    risk, event, time = sample(50)
    cause, logits = event.long(), torch.randn(50, 1, 4, dtype=torch.float64)
    whole = ranking_loss(risk, event, time), deep_hit_loss(logits, cause, (time % 4).long())
    monkeypatch.setattr("pathoml.losses._PAIRS_AT_ONCE", 70)
    pieces = ranking_loss(risk, event, time), deep_hit_loss(logits, cause, (time % 4).long())
    torch.testing.assert_close(whole, pieces, rtol=1e-12, atol=0)


def every_loss() -> dict:
    def deep_hit(x: Tensor, event: Tensor, time: Tensor) -> Tensor:
        return deep_hit_loss(x[:, None, :], event.long(), (time % 4).long())

    def binned(loss):
        return lambda x, event, time: loss(x, event, (time % 4).long())

    return {
        "breslow": lambda x, event, time: cox_loss(x[:, 0], event, time),
        "efron": lambda x, event, time: cox_loss(x[:, 0], event, time, ties="efron"),
        "strata": lambda x, event, time: cox_loss(x[:, 0], event, time, stratum=(time % 3).long()),
        "cause-specific": lambda x, event, time: cause_specific_cox_loss(x, event.long() * (1 + (time % 2).long()), time),
        "ranking": lambda x, event, time: ranking_loss(x[:, 0], event, time),
        "hazard": binned(discrete_hazard_loss), "pmf": binned(pmf_loss), "mtlr": binned(mtlr_loss), "deep_hit": deep_hit,
    }  # fmt: skip


@pytest.mark.parametrize("name", every_loss())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 200.0])
def test_every_loss_is_finite_connected_and_blind_to_the_order_of_patients(
    name: str, dtype: torch.dtype, size: float
) -> None:
    _, event, time = sample(40)
    logits = (
        torch.randn(40, 4, generator=torch.Generator().manual_seed(3), dtype=dtype).sign() * size
    ).requires_grad_()
    loss = every_loss()[name](logits, event, time)
    loss.backward()
    assert loss.dtype == dtype
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    again = every_loss()[name](logits.detach()[order], event[order], time[order])
    torch.testing.assert_close(again, loss.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", every_loss())
def test_every_loss_of_patients_without_events_is_finite_and_connected(name: str) -> None:
    _, event, time = sample(12)
    logits = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    loss = every_loss()[name](logits, torch.zeros_like(event), time)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    if name in {"breslow", "efron", "strata", "cause-specific", "ranking"}:
        assert loss.item() == 0


@pytest.mark.parametrize("name", every_loss())
@pytest.mark.parametrize("size", [1.0, 200.0])
@pytest.mark.parametrize("times", ["tied", "all tied", "different"])
def test_every_loss_in_float32_is_that_in_float64(name: str, size: float, times: str) -> None:
    _, event, time = sample(40, ties=times == "tied")
    time = torch.ones_like(time) if times == "all tied" else time
    logits = (torch.rand(40, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1) * size
    exact, single = logits.clone().requires_grad_(), logits.float().requires_grad_()
    expected, found = (every_loss()[name](one, event, time) for one in (exact, single))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-7)
    expected.backward()
    found.backward()
    scale = exact.grad.abs().max().clamp(min=1e-6)
    assert ((single.grad.double() - exact.grad).abs().max() / scale) < 1e-4


@pytest.mark.parametrize("name", every_loss())
@pytest.mark.parametrize("with_events", [True, False])
def test_gradients_of_every_loss_are_its_own(name: str, with_events: bool) -> None:
    _, event, time = sample(9, seed=2)
    event = event if with_events else torch.zeros_like(event)
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: every_loss()[name](x, event, time), (logits,))


@pytest.mark.parametrize("name", ["efron", "strata", "cause-specific", "ranking"])
@pytest.mark.parametrize("shift", [-7.0, 500.0])
def test_no_loss_of_log_hazards_changes_when_all_shift(name: str, shift: float) -> None:
    _, event, time = sample()
    logits = torch.randn(60, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    loss = every_loss()[name]
    torch.testing.assert_close(loss(logits + shift, event, time), loss(logits, event, time), rtol=0, atol=1e-10)


def test_mtlr_scores_sum_each_bin_with_the_later_ones() -> None:
    assert mtlr_scores(torch.tensor([[1.0, 2.0, 4.0]])).tolist() == [[7.0, 6.0, 4.0]]


@pytest.mark.parametrize("loss", [discrete_hazard_loss, pmf_loss, mtlr_loss])
@pytest.mark.parametrize(("event", "time_bin"), [(True, 4), (True, 5), (False, 5), (False, -1)])
def test_who_has_the_event_in_no_bin_is_refused_and_not_counted_as_a_survivor(loss, event: bool, time_bin: int) -> None:
    logits = torch.zeros(2, 4)
    assert torch.isfinite(loss(logits, torch.tensor([True, False]), torch.tensor([3, 4])))
    with pytest.raises(ValueError, match=f"time_bin {time_bin}: events lie in bins 0 to 3"):
        loss(logits, torch.tensor([True, event]), torch.tensor([0, time_bin]))
