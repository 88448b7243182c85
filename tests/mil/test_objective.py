"""What logits mean: losses, risks and curves agree with the survival module."""

import json
import logging

import numpy as np
import pytest
import torch
from lifelines import KaplanMeierFitter
from pydantic import TypeAdapter

from pathoml.cox_start import level_beside
from pathoml.losses import cox_loss, discrete_hazard_loss
from pathoml.mil.objective import Objective, Outcome
from pathoml.mil.objectives import CoxObjective, DiscreteObjective, fit_objective, objective_from_json
from pathoml.survival import kaplan_meier
from pathoml.survival.discrete import coarse_ceiling
from pathoml.train_settings import (
    CoxLossSettings,
    DeepHitLossSettings,
    DiscreteLossSettings,
    Loss,
    MtlrLossSettings,
    PmfLossSettings,
)

COX, DISCRETE = CoxLossSettings(), DiscreteLossSettings(bins=4)
GRID = np.linspace(0, 2000, 41)
LOSSES = pytest.mark.parametrize("loss", [COX, DISCRETE], ids=["cox", "discrete"])


def follow_up(count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.exponential(600, count).round(), rng.integers(0, 2, count)


def fitted(loss: Loss, logits: np.ndarray | None = None) -> tuple[Objective, np.ndarray]:
    time, event = follow_up()
    objective = fit_objective(loss, time, event)
    logits = np.random.default_rng(1).normal(-1, 1, (len(time), objective.out)) if logits is None else logits
    return objective.calibrated(logits, time, event), logits


@LOSSES
def test_curves_start_at_one_and_never_rise(loss: Loss) -> None:
    objective, logits = fitted(loss)
    curves = objective.survival(logits, GRID)
    assert (np.diff(curves, axis=1) <= 0).all()
    np.testing.assert_allclose(curves[:, 0], 1, atol=0.02)
    assert curves.min() >= 0


@LOSSES
def test_a_higher_risk_has_the_lower_curve(loss: Loss) -> None:
    objective, logits = fitted(loss)
    worse = logits + 1
    assert (objective.risk(worse) > objective.risk(logits)).all()
    assert (objective.survival(worse, GRID) <= objective.survival(logits, GRID)).all()


@LOSSES
def test_json_gives_the_very_same_objective_back(loss: Loss) -> None:
    objective, logits = fitted(loss)
    again = objective_from_json(json.loads(json.dumps(objective.to_json())))
    assert type(again) is type(objective)
    np.testing.assert_array_equal(again.survival(logits, GRID), objective.survival(logits, GRID))
    np.testing.assert_array_equal(again.risk(logits), objective.risk(logits))


def test_an_unfitted_cox_objective_survives_json_and_has_no_curves() -> None:
    again = objective_from_json(json.loads(json.dumps(CoxObjective().to_json())))
    with pytest.raises(RuntimeError, match="need a calibrated objective"):
        again.survival(np.zeros((1, 1)), GRID)


def test_cox_curves_of_equal_patients_come_close_to_kaplan_meier() -> None:
    time, event = follow_up()
    objective = CoxObjective().calibrated(np.full((len(time), 1), 5.0), time, event)
    expected = KaplanMeierFitter().fit(time, event).survival_function_at_times(GRID)
    early = GRID < 1000
    np.testing.assert_allclose(objective.survival(np.full((1, 1), 5.0), GRID)[0][early], expected[early], atol=0.02)


def test_the_cox_loss_is_the_cox_loss() -> None:
    time, event = (torch.from_numpy(values) for values in follow_up())
    logits = torch.randn(len(time), 1)
    torch.testing.assert_close(
        CoxObjective().loss(logits, Outcome(event == 1, time)), cox_loss(logits[:, 0], event == 1, time)
    )


@pytest.mark.parametrize(("day", "expected"), [(0, 0), (10, 0), (10.5, 1), (20, 1), (30, 2), (99, 2)])
def test_follow_up_falls_into_the_bin_that_ends_with_it(day: float, expected: int) -> None:
    objective = DiscreteObjective(np.array([0.0, 10.0, 20.0, 30.0]))
    logits = torch.randn(1, 3, dtype=torch.float64)
    outcome = Outcome(torch.tensor([True]), torch.tensor([day], dtype=torch.float64))
    wanted = discrete_hazard_loss(logits, outcome.event, torch.tensor([expected]))
    torch.testing.assert_close(objective.loss(logits, outcome), wanted)


def test_the_discrete_loss_is_the_likelihood_of_its_own_curves() -> None:
    objective, logits = fitted(DISCRETE)
    edges = objective.edges
    time, event = edges[1:], np.ones(4, dtype=np.int64)
    before = objective.survival(logits[:4], edges)[np.arange(4), np.arange(4)]
    after = objective.survival(logits[:4], edges)[np.arange(4), np.arange(4) + 1]
    found = objective.loss(torch.from_numpy(logits[:4]), Outcome(torch.from_numpy(event == 1), torch.from_numpy(time)))
    assert found.item() == pytest.approx(-np.log(before - after).mean(), rel=1e-9)


@pytest.mark.parametrize(
    "loss", [DiscreteLossSettings(), PmfLossSettings(), MtlrLossSettings(), DeepHitLossSettings(likelihood_share=1)]
)
@pytest.mark.parametrize(
    "censoring", [500.0, pytest.param(2000.0, marks=pytest.mark.slow), pytest.param(1e9, marks=pytest.mark.slow)]
)
def test_curves_of_equal_patients_come_close_to_kaplan_meier_however_many_are_censored(
    loss: Loss, censoring: float
) -> None:
    rng = np.random.default_rng(0)
    event_time = rng.exponential(1000, 4000)
    left = np.minimum(rng.exponential(censoring, 4000), rng.uniform(1500, 3000, 4000))
    time, event = np.minimum(event_time, left), (event_time <= left).astype(np.int64)
    objective = fit_objective(loss, time, event)
    outcome = Outcome(torch.from_numpy(event == 1), torch.from_numpy(time))
    level = level_beside(torch.zeros(4000, 4, dtype=torch.float64), objective, outcome)
    days = np.array([250.0, 500.0, 1000.0, 1500.0])
    np.testing.assert_allclose(
        objective.survival(level.numpy()[None], days)[0], kaplan_meier(time, event).at(days), atol=0.05
    )


@pytest.mark.parametrize(
    ("day", "expected"), [(0, 0), (4, 0), (5, 1), (10, 1), (14, 1), (16, 2), (24, 2), (25, 3), (99, 3)]
)
def test_who_is_censored_in_the_second_half_of_a_bin_has_survived_it(day: float, expected: int) -> None:
    objective = DiscreteObjective(np.array([0.0, 10.0, 20.0, 30.0]))
    outcome = Outcome(torch.tensor([False]), torch.tensor([day], dtype=torch.float64))
    assert objective.bin_of(outcome).tolist() == [expected]


def test_edges_come_from_the_patients_given() -> None:
    objective = fit_objective(DISCRETE, *follow_up())
    time, event = follow_up()
    inner = np.quantile(time[event == 1], [0.25, 0.5, 0.75])
    exact = [0, *inner, time.max()]
    np.testing.assert_allclose(objective.edges, [coarse_ceiling(edge) for edge in exact])
    np.testing.assert_allclose(objective.edges, exact, rtol=0.1)


def in_one_month(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Follow-up of 1005 to 1098 days, every other patient with the event."""
    return np.random.default_rng(seed).integers(1005, 1099, count).astype(np.float64), np.tile([1, 0], count // 2)


@pytest.mark.parametrize("count", [40, 80, 400])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_edges_that_two_digits_would_join_are_rounded_finer(
    count: int, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    time, event = in_one_month(count, seed)
    objective = fit_objective(DISCRETE, time, event)
    assert objective.out == 4
    assert not caplog.records
    assert objective.edges[-1] == 1100
    counts, _ = np.histogram(time[event == 1], objective.edges)
    assert counts.min() >= 0.4 * event.sum() / 4, "bins hold about as many events each"


def test_fewer_bins_than_asked_for_are_said(caplog: pytest.LogCaptureFixture) -> None:
    objective = fit_objective(DISCRETE, np.array([365.0] * 9 + [900.0]), np.ones(10, dtype=np.int64))
    assert objective.edges.tolist() == [0, 370, 900]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "only 2 of the 4 time bins asked for could be made" in record.getMessage()


@pytest.mark.parametrize("bins", [1, 4])
def test_the_objective_says_whether_it_has_a_level_and_whether_the_logit_is_the_risk(bins: int) -> None:
    discrete = DiscreteObjective(np.linspace(0.0, 100.0, bins + 1))
    assert (discrete.has_level, discrete.risk_is_logit) == (True, False)
    assert (CoxObjective().has_level, CoxObjective().risk_is_logit) == (False, True)


@pytest.mark.parametrize("kind", ["discrete", "pmf", "mtlr", "deephit"])
@pytest.mark.parametrize("bins", [4, 10, 20])
@pytest.mark.parametrize("shift", [0.0, 3.0, -1.0])
def test_the_level_is_where_the_loss_is_least_however_few_the_events_and_many_the_bins(
    kind: str, bins: int, shift: float
) -> None:
    """Full steps ran away to a loss of 40 where the least is .3."""
    loss = TypeAdapter(Loss).validate_python({"kind": kind, "bins": bins})
    for seed in range(3):
        rng = np.random.default_rng(seed)
        time, censored = rng.exponential(3000, 400), rng.exponential(200, 400)
        days, event = np.minimum(time, censored), (time <= censored).astype(np.int64)
        assert 0.02 < event.mean() < 0.15
        objective = fit_objective(loss, days, event)
        outcome = Outcome(torch.from_numpy(event == 1), torch.from_numpy(days))
        logits = torch.full((400, objective.out), shift, dtype=torch.float64)
        level = level_beside(logits, objective, outcome).requires_grad_()
        (objective.loss(logits + level, outcome) + 1e-4 * level.square().sum()).backward()
        assert level.grad.abs().max() < 1e-4, (seed, objective.out)
