"""Fitting: what it may look at, what it finds, where it stops, and that it comes out the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pathoml import train
from pathoml.bags import FeatureSpec
from pathoml.cohort import BlockCovariate, Cohort, NumericCovariate
from pathoml.evaluate import fold_mean_concordance
from pathoml.infer import predict_logits, predict_member
from pathoml.mil.objective import Outcome
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings, ModelSettings
from pathoml.packages import Member, Package, save_package
from pathoml.splits import Fold, KFoldSettings, SplitsSettings, make_folds
from pathoml.survival import fit_cox, harrell_metric
from pathoml.train import FitPlan, TrainingData, cross_validate, fit_fold, fit_member
from pathoml.train_settings import CoxLossSettings, DiscreteLossSettings, TrainSettings

AGE = (NumericCovariate(column="age"),)
MEAN = ModelSettings(aggregator=MeanPoolSettings(), tile_components=6)
ABMIL = ModelSettings(aggregator=AbmilSettings(hidden_dim=8, attention_dim=8, dropout=0.1), tile_components=6)
QUICK = TrainSettings(max_epochs=8, patience=8)
SPEC = FeatureSpec("lite0", "w" * 64, 0.5, 224, "float32", "s" * 64)
DAYS = tuple(np.linspace(50, 3000, 20).tolist())
TEMPLATE = Package((), SPEC, None, DAYS, {"endpoint": "overall survival"})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny matrices are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(patients: int = 120, *, slides: bool = True) -> TrainingData:
    """Plant a signal: the share of tiles of one kind, and age a little, make the event come early."""
    rng = np.random.default_rng(0)
    share, age = rng.random(patients), rng.normal(60, 10, patients)
    hazard = np.exp(10 * (share - 0.5) + 0.03 * (age - 60))
    event_time, censoring = rng.exponential(500 / hazard), rng.exponential(2500, patients)
    names = [f"patient-{i:03d}" for i in range(patients)]
    bags = {}
    for name, one in zip(names, share, strict=True):
        tiles = rng.normal(0, 1, (30, 6))
        tiles[np.arange(30) < 30 * one, 0] += 4
        bags[name] = tiles.astype(np.float16)
    cohort = Cohort(
        np.array(names), np.minimum(event_time, censoring), (event_time <= censoring).astype(np.int64),
        np.array(["a", "b"] * (patients // 2)), pd.DataFrame({"age": age}), "overall survival",
    )  # fmt: skip
    return TrainingData(cohort, PatientFeatures(bags, SPEC, "digest") if slides else None, AGE)


def one_fold(everything: TrainingData) -> Fold:
    return make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))[0]


def saved(member: Member, folder: Path) -> dict[str, bytes]:
    """Everything that a member is, as bytes."""
    save_package(folder, replace(TEMPLATE, members=(member,)))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def concordance(member: Member, everything: TrainingData, patients: tuple[str, ...]) -> float:
    table, _ = predict_member(member, select_patients(everything.cohort, everything.features, patients), np.array(DAYS))
    rows = everything.cohort.rows_of(patients)
    metric = harrell_metric(everything.cohort.time_days[rows], everything.cohort.event[rows], table["risk"].to_numpy())
    return float(metric(np.ones((1, len(rows))))[0])


def altered(everything: TrainingData, patients: tuple[str, ...]) -> TrainingData:
    """Give some patients another outcome, other covariates and other tiles."""
    cohort, rows = everything.cohort, everything.cohort.rows_of(patients)
    time, event, covariates = cohort.time_days.copy(), cohort.event.copy(), cohort.covariates.copy()
    time[rows], event[rows] = 1 + rows, 1 - event[rows]
    covariates.loc[rows, "age"] = 1e5
    features = everything.features
    if features is not None:
        bags = {**features.of_patient, **{name: np.full((3, 6), 999, np.float16) for name in patients}}
        features = PatientFeatures(bags, SPEC, "another digest")
    return TrainingData(replace(cohort, time_days=time, event=event, covariates=covariates), features, AGE)


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
    np.testing.assert_allclose(member.model.covariates.weight.detach().numpy()[0], expected.coefficients, atol=1e-6)


def test_time_bins_start_at_their_observed_hazard() -> None:
    everything = data(120, slides=False)
    fold = one_fold(everything)
    still = TrainSettings(max_epochs=1, learning_rate=1e-12, loss=DiscreteLossSettings())
    member, _ = fit_member(everything, fold, MEAN, still)
    rows = everything.cohort.rows_of(fold.train)
    time_bin = np.searchsorted(member.objective.edges[1:-1], everything.cohort.time_days[rows])
    events = np.bincount(time_bin[everything.cohort.event[rows] == 1], minlength=4)
    beyond = np.array([(time_bin > one).sum() for one in range(4)])
    found = torch.sigmoid(member.model.bias.detach()).numpy()
    np.testing.assert_allclose(found, events / (events + beyond), atol=0.02)


@pytest.mark.parametrize("batch", [2, 16])
def test_batches_without_events_do_no_harm(batch: int) -> None:
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


def plan(folder: Path, **changes: Any) -> FitPlan:
    return replace(FitPlan(MEAN, QUICK, TEMPLATE, folder), **changes)


def test_a_saved_fold_is_taken_without_fitting_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = data(60)
    fold = one_fold(everything)
    first = fit_fold(everything, fold, plan(tmp_path))
    monkeypatch.setattr(train, "fit_member", lambda *_, **__: pytest.fail("fitted again"))
    again = fit_fold(everything, fold, plan(tmp_path))
    assert saved(again.members[0], tmp_path / "b") == saved(first.members[0], tmp_path / "a")


@pytest.mark.parametrize("change", ["data", "train settings", "model settings", "fold", "damage"])
def test_a_saved_fold_is_fitted_again_when_anything_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    everything = data(60)
    fold, how = one_fold(everything), plan(tmp_path)
    fit_fold(everything, fold, how)
    if change == "data":
        everything = altered(everything, fold.train[:1])
    elif change == "train settings":
        how = plan(tmp_path, train=QUICK.model_copy(update={"seed": 9}))
    elif change == "model settings":
        how = plan(tmp_path, model=ABMIL)
    elif change == "fold":
        fold = replace(fold, train=fold.train[1:])
    else:
        (tmp_path / fold.key / "model.safetensors").write_bytes(b"")
    calls = []
    monkeypatch.setattr(train, "fit_member", lambda *values, **more: calls.append(1) or fit_member(*values, **more))
    fit_fold(everything, fold, how)
    assert calls == [1]


@pytest.mark.parametrize("slides", [True, False], ids=["slides", "table only"])
def test_cross_validation_predicts_everybody_in_every_role(tmp_path: Path, slides: bool) -> None:
    everything = data(60, slides=slides)
    everything = replace(everything, covariates=(*AGE, BlockCovariate(name="omics", columns="g*", components=2)))
    genes = np.random.default_rng(1).normal(size=(60, 4))
    cohort = replace(everything.cohort, covariates=everything.cohort.covariates.join(pd.DataFrame(genes).add_prefix("g")))
    everything = replace(everything, cohort=cohort)
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    template = TEMPLATE if slides else replace(TEMPLATE, feature_spec=None)
    packages, predictions = cross_validate(everything, folds, plan(tmp_path, template=template))
    table = predictions.table
    assert set(packages) == {fold.key for fold in folds}
    for model in ("model", "clinical"):
        tested = table[(table["model"] == model) & (table["role"] == "test")]
        assert sorted(tested["patient_id"]) == everything.cohort.patient_id.tolist()
    assert (np.diff(predictions.survival, axis=1) <= 0).all()
    assert ((predictions.survival >= 0) & (predictions.survival <= 1)).all()
    rows = everything.cohort.rows_of(table["patient_id"])
    np.testing.assert_array_equal(table["time_days"], everything.cohort.time_days[rows])
    clinical = table[(table["model"] == "clinical") & (table["fold"] == "0")]
    age = everything.cohort.covariates["age"].to_numpy()[everything.cohort.rows_of(clinical["patient_id"])]
    assert abs(np.corrcoef(clinical["risk"], age)[0, 1]) == pytest.approx(1)  # blocks are left out


def test_a_pure_noise_cohort_is_not_predicted_better_than_by_chance(tmp_path: Path) -> None:
    everything = data(90)
    rng = np.random.default_rng(5)
    shuffled = replace(everything.cohort, time_days=rng.exponential(500, 90), event=rng.integers(0, 2, 90))
    everything = replace(everything, cohort=shuffled)
    folds = make_folds(shuffled, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    table = cross_validate(everything, folds, plan(tmp_path))[1].select(model="model", role="test").table
    columns = (table[name].to_numpy() for name in ("time_days", "event", "risk"))
    assert fold_mean_concordance(*columns, table["fold"].tolist()) == pytest.approx(0.5, abs=0.15)


@pytest.mark.xfail(strict=True, reason="train.py:fit_fold: with_suffix cuts a hospital's name at its last dot")
def test_hospitals_with_dots_in_their_names_keep_their_own_history(tmp_path: Path) -> None:
    everything = data(60)
    for site in ("St. Mary", "St. John"):
        fold = replace(one_fold(everything), scheme="leave_one_site_out", name=site)
        fit_fold(everything, fold, plan(tmp_path, train=QUICK.model_copy(update={"max_epochs": 1})))
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


@pytest.mark.xfail(strict=True, reason="train.py:fit_fold: a hospital's name is used as a path as it stands")
def test_a_hospitals_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    everything = data(60)
    fold = replace(one_fold(everything), scheme="leave_one_site_out", name="a/../../../outside")
    fit_fold(everything, fold, plan(tmp_path / "run" / "members", train=QUICK.model_copy(update={"max_epochs": 1})))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["members"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", [MEAN, ABMIL.model_copy(update={"aggregator": AbmilSettings(dropout=0)})])
def test_cpu_and_gpu_agree(model: ModelSettings) -> None:
    everything = data(60)
    fold = one_fold(everything)
    patients = select_patients(everything.cohort, everything.features, fold.test)
    one = TrainSettings(max_epochs=5)
    cpu, cuda = (fit_member(everything, fold, model, one, device=device)[0] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(predict_logits(cuda, patients, device="cuda"), predict_logits(cpu, patients), atol=1e-3)
    np.testing.assert_allclose(predict_logits(cpu, patients, device="cuda"), predict_logits(cpu, patients), atol=1e-4)
