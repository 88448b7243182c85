"""Fitting one model: what it may look at, what it finds, where it stops, and that it comes out the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pathoml import train
from pathoml.infer import predict_logits
from pathoml.mil.objective import Outcome
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import AbmilSettings, ModelSettings
from pathoml.survival.baselines import fit_cox
from pathoml.train import FitContext, fit_member
from pathoml.train_settings import (
    CoxLossSettings,
    DiscreteLossSettings,
    MtlrLossSettings,
    PmfLossSettings,
    TrainSettings,
)
from tests.planted import ABMIL, MEAN, QUICK, altered, concordance, data, one_fold, saved


@pytest.mark.parametrize("model", [MEAN, ABMIL], ids=["mean", "abmil"])
@pytest.mark.parametrize("loss", [CoxLossSettings(), DiscreteLossSettings()], ids=["cox", "discrete"])
def test_a_planted_signal_is_found(model: ModelSettings, loss: Any) -> None:
    everything = data()
    fold = one_fold(everything)
    member, _ = fit_member(everything, fold, model, TrainSettings(loss=loss, max_epochs=60))
    assert concordance(member, everything, fold.test) > 0.8


@pytest.mark.parametrize("settings", [QUICK, QUICK.model_copy(update={"batch_patients": 16})], ids=["whole", "batches"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, settings: TrainSettings) -> None:
    everything = data(60)
    fold = one_fold(everything)
    first, second, other = (
        fit_member(everything, fold, ABMIL, settings.model_copy(update={"seed": seed}))[0] for seed in (1, 1, 2)
    )
    assert saved(first, tmp_path / "a") == saved(second, tmp_path / "b")
    assert saved(first, tmp_path / "a") != saved(other, tmp_path / "c")


@pytest.mark.parametrize("loss", [CoxLossSettings(), DiscreteLossSettings()], ids=["cox", "discrete"])
def test_test_patients_are_not_looked_at(tmp_path: Path, loss: Any) -> None:
    everything = data(60)
    fold = one_fold(everything)
    settings = QUICK.model_copy(update={"loss": loss})
    plain, _ = fit_member(everything, fold, ABMIL, settings)
    blind, _ = fit_member(altered(everything, fold.test), fold, ABMIL, settings)
    assert saved(plain, tmp_path / "a") == saved(blind, tmp_path / "b")


def test_validation_patients_decide_when_to_stop_and_no_transform() -> None:
    everything = data(60)
    fold = one_fold(everything)
    settings = QUICK.model_copy(update={"loss": DiscreteLossSettings()})
    plain, _ = fit_member(everything, fold, MEAN, settings)
    other, _ = fit_member(altered(everything, fold.validation), fold, MEAN, settings)
    assert np.array_equal(plain.projection.components, other.projection.components)
    assert plain.covariates == other.covariates
    assert np.array_equal(plain.objective.edges, other.objective.edges)


def test_training_stops_in_time_and_goes_back_to_the_best_epoch() -> None:
    everything = data(60)
    fold = one_fold(everything)
    settings = TrainSettings(max_epochs=100, patience=6, learning_rate=0.05, weight_decay=0)
    member, history = fit_member(everything, fold, ABMIL, settings)
    losses = [row["validation_loss"] for row in history]
    best = int(np.argmin(losses))
    assert best + 6 == len(losses) - 1 < 100
    rows = everything.cohort.rows_of(fold.validation)
    outcome = Outcome(
        torch.from_numpy(everything.cohort.event[rows] == 1), torch.from_numpy(everything.cohort.time_days[rows])
    )
    logits = predict_logits(member, select_patients(everything.cohort, everything.features, fold.validation))
    assert member.objective.loss(torch.from_numpy(logits), outcome).item() == pytest.approx(losses[best], rel=1e-5)


def test_covariates_start_at_the_cox_fit_of_the_training_patients() -> None:
    everything = data(60)
    fold = one_fold(everything)
    still = TrainSettings(max_epochs=1, learning_rate=1e-12, weight_decay=0)
    member, _ = fit_member(everything, fold, MEAN, still)
    rows = everything.cohort.rows_of(fold.train)
    design = member.covariates.apply(everything.cohort.covariates.iloc[rows])
    expected = fit_cox(design, everything.cohort.time_days[rows], everything.cohort.event[rows], ridge=1.0)
    np.testing.assert_allclose(
        member.model.covariate_weight.detach().numpy(), expected.coefficients, atol=1e-5
    )  # as near as scikit-survival goes


def test_time_bins_start_at_their_observed_hazard() -> None:
    everything = data(120, slides=False)
    fold = one_fold(everything)
    still = TrainSettings(max_epochs=1, learning_rate=1e-12, loss=DiscreteLossSettings())
    member, _ = fit_member(everything, fold, MEAN, still)
    rows = everything.cohort.rows_of(fold.train)
    edges, time, event = member.objective.edges, everything.cohort.time_days[rows], everything.cohort.event[rows]
    time_bin = np.searchsorted(edges[1:-1], time)
    events = np.bincount(time_bin[event == 1], minlength=4)
    middle = (edges[:-1] + edges[1:]) / 2
    lived = time_bin + ((event == 0) & (time >= middle[time_bin]))
    beyond = np.array([(lived > one).sum() for one in range(4)])
    found = torch.sigmoid(member.model.bias.detach()).numpy()
    np.testing.assert_allclose(found, events / (events + beyond), atol=0.02)


def test_a_model_of_one_time_bin_learns_its_level_and_is_not_taken_for_cox() -> None:
    everything = data(60, slides=False)
    time = np.where(everything.cohort.event == 1, 1000.0, np.minimum(everything.cohort.time_days, 900.0))
    everything = replace(everything, cohort=replace(everything.cohort, time_days=time))
    fold = one_fold(everything)
    settings = TrainSettings(max_epochs=60, loss=DiscreteLossSettings())
    member, _ = fit_member(everything, fold, MEAN, settings)
    assert member.objective.edges.tolist() == [0.0, 1000.0]
    assert member.model.bias.requires_grad
    assert member.model.bias.item() != 0
    cox, _ = fit_member(data(60), fold, MEAN, QUICK)
    assert not cox.model.bias.requires_grad
    assert cox.model.bias.item() == 0


@pytest.mark.parametrize("loss", [DiscreteLossSettings(), PmfLossSettings(), MtlrLossSettings()])
def test_balanced_steps_leave_time_bins_at_their_observed_level(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = data(60)
    rare = np.where(np.arange(60) % 3 == 0, everything.cohort.event, 0)
    everything = replace(everything, cohort=replace(everything.cohort, event=rare))
    fold = one_fold(everything)
    settings = TrainSettings(loss=loss, max_epochs=25, patience=25, batch_patients=16, event_balanced=True)

    def pull_on_the_level() -> float:
        member, _ = fit_member(everything, fold, MEAN, settings)
        names = (*fold.train, *fold.validation)
        rows = everything.cohort.rows_of(names)
        outcome = Outcome(
            torch.from_numpy(everything.cohort.event[rows] == 1), torch.from_numpy(everything.cohort.time_days[rows])
        )
        logits = torch.from_numpy(
            predict_logits(member, select_patients(everything.cohort, everything.features, names))
        )
        level = torch.zeros(member.objective.out, dtype=torch.float64, requires_grad=True)
        member.objective.loss(logits + level, outcome).backward()
        return level.grad.abs().max().item()

    settled = pull_on_the_level()
    monkeypatch.setattr(train, "restore_prevalence", lambda *_: None)
    assert settled < 2e-3
    assert pull_on_the_level() > 10 * settled


def test_balanced_steps_need_a_size() -> None:
    with pytest.raises(ValueError, match=r"event_balanced.*give batch_patients too"):
        TrainSettings(event_balanced=True)


@pytest.mark.parametrize("batch", [2, 16])
def test_row_25_batches_without_events_do_no_harm(batch: int) -> None:
    everything = data(60)
    fold = one_fold(everything)
    member, history = fit_member(everything, fold, MEAN, QUICK.model_copy(update={"batch_patients": batch}))
    assert all(torch.isfinite(tensor).all() for tensor in member.model.state_dict().values())
    assert all(np.isfinite(row["validation_loss"]) for row in history)


def test_mixed_precision_finds_the_signal_too() -> None:
    everything = data()
    fold = one_fold(everything)
    member, _ = fit_member(everything, fold, MEAN, TrainSettings(max_epochs=60, precision="bfloat16"))
    assert concordance(member, everything, fold.test) > 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", [MEAN, ABMIL.model_copy(update={"aggregator": AbmilSettings(dropout=0)})])
def test_cpu_and_gpu_agree(model: ModelSettings) -> None:
    everything = data(60)
    fold = one_fold(everything)
    patients = select_patients(everything.cohort, everything.features, fold.test)
    one = TrainSettings(max_epochs=5)
    cpu, cuda = (fit_member(everything, fold, model, one, FitContext(device))[0] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(predict_logits(cuda, patients, device="cuda"), predict_logits(cpu, patients), atol=1e-3)
    np.testing.assert_allclose(predict_logits(cpu, patients, device="cuda"), predict_logits(cpu, patients), atol=1e-4)


@pytest.mark.parametrize(
    "loss", [{"ties": "efron"}, {"stratified": True}, {"ranking_weight": 1.0}, {"kind": "discrete"}]
)
def test_a_loss_that_would_not_be_used_is_refused(loss: dict) -> None:
    with pytest.raises(ValidationError, match=r"max_epochs: 0 .* train.loss would not be used"):
        TrainSettings.model_validate({"max_epochs": 0, "loss": {"kind": "cox", **loss}})


def test_balanced_steps_are_not_stopped_by_the_level_of_their_own() -> None:
    """At the level of balanced steps the loss of validation patients rises from the first epoch on."""
    everything = data(300)
    rare = np.where(np.arange(300) % 6 == 0, everything.cohort.event, 0)
    everything = replace(everything, cohort=replace(everything.cohort, event=rare))
    settings = TrainSettings(
        loss=DiscreteLossSettings(bins=4), event_balanced=True, batch_patients=64, max_epochs=20, patience=20
    )
    _, history = fit_member(everything, one_fold(everything), MEAN, settings)
    losses = [row["validation_loss"] for row in history]
    assert int(np.argmin(losses)) >= 10, losses
