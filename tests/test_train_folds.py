"""Fitting every fold: resuming, predicting everybody once, and where things are kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathoml import fold_fitting
from pathoml.baseline_settings import BASELINE_TITLES, BaselineSettings
from pathoml.baselines import BaselineContext, fit_baselines, mean_of_bags
from pathoml.covariates import BlockCovariate, CategoricalCovariate
from pathoml.cross_validation import cross_validate
from pathoml.errors import TrainingError
from pathoml.evaluate import fold_mean_concordance
from pathoml.fold_fitting import FitPlan, fit_fold, fit_folds
from pathoml.predictions import Predictions, join_predictions
from pathoml.splits import KFoldSettings, SplitsSettings, make_folds
from pathoml.train import TrainingData, fit_member
from tests.planted import ABMIL, AGE, DAYS, MEAN, QUICK, TEMPLATE, altered, data, one_fold, saved

FEW = BaselineSettings(inner_folds=2, penalties=3, trees=10)


def plan(folder: Path, **changes: Any) -> FitPlan:
    return replace(FitPlan(MEAN, QUICK, TEMPLATE, folder), **changes)


def test_a_saved_fold_is_taken_without_fitting_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = data(60)
    fold = one_fold(everything)
    first = fit_fold(everything, fold, plan(tmp_path))
    monkeypatch.setattr(fold_fitting, "fit_member", lambda *_, **__: pytest.fail("fitted again"))
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
    monkeypatch.setattr(
        fold_fitting, "fit_member", lambda *values, **more: calls.append(1) or fit_member(*values, **more)
    )
    fit_fold(everything, fold, how)
    assert calls == [1]


def with_omics(everything: TrainingData) -> TrainingData:
    """Add four genes, and the block that takes them."""
    genes = np.random.default_rng(1).normal(size=(60, 4))
    table = everything.cohort.covariates.join(pd.DataFrame(genes).add_prefix("g"))
    covariates = (*AGE, BlockCovariate(name="omics", columns="g*", components=2))
    return replace(everything, cohort=replace(everything.cohort, covariates=table), covariates=covariates)


def changed_too(everything: TrainingData, patients: tuple[str, ...]) -> TrainingData:
    """Give some patients other genes as well."""
    table = everything.cohort.covariates.copy()
    table.loc[everything.cohort.rows_of(patients), ["g0", "g1", "g2", "g3"]] = -20.0
    covariates = (*AGE, BlockCovariate(name="omics", columns="g*", components=2))
    return replace(everything, cohort=replace(everything.cohort, covariates=table), covariates=covariates)


@pytest.mark.parametrize("slides", [True, False], ids=["slides", "table only"])
def test_cross_validation_predicts_everybody_in_every_role(tmp_path: Path, slides: bool) -> None:
    everything = data(60, slides=slides)
    everything = with_omics(everything)
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    template = TEMPLATE if slides else replace(TEMPLATE, feature_spec=None)
    packages, predictions = cross_validate(everything, folds, plan(tmp_path, template=template))
    table = predictions.table
    assert set(packages) == {fold.key for fold in folds}
    of_table = {"omics_ridge", "omics_elastic_net", "clinical_omics_ridge", "clinical_omics_elastic_net"}
    of_slides = {"slides_ridge", "clinical_slides_ridge"} if slides else set()
    assert set(table["model"]) == {"model", "clinical", "forest", *of_table, *of_slides}
    for model in table["model"].unique():
        tested = table[(table["model"] == model) & (table["role"] == "test")]
        assert sorted(tested["patient_id"]) == everything.cohort.patient_id.tolist()
    is_test = (table["role"] == "test").to_numpy()
    curves = predictions.survival[is_test]
    assert (np.diff(curves, axis=1) <= 0).all()
    assert ((curves >= 0) & (curves <= 1)).all()
    assert np.isnan(predictions.survival[~is_test]).all()
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


def test_hospitals_with_dots_in_their_names_keep_their_own_history(tmp_path: Path) -> None:
    everything = data(60)
    for site in ("St. Mary", "St. John"):
        fold = replace(one_fold(everything), scheme="leave_one_site_out", name=site)
        fit_fold(everything, fold, plan(tmp_path, train=QUICK.model_copy(update={"max_epochs": 1})))
    assert len(list(tmp_path.glob("leave_one_site_out-*.jsonl"))) == 2


def test_a_hospitals_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    everything = data(60)
    fold = replace(one_fold(everything), scheme="leave_one_site_out", name="a/../../../outside")
    fit_fold(everything, fold, plan(tmp_path / "run" / "members", train=QUICK.model_copy(update={"max_epochs": 1})))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["members"]


def without(predictions: Predictions, patients: tuple[str, ...]) -> tuple[pd.DataFrame, np.ndarray]:
    """What is predicted of everybody else."""
    others = ~predictions.table["patient_id"].isin(patients).to_numpy()
    return predictions.table[others].reset_index(drop=True), predictions.survival[others]


def assert_nobody_else_changed(plain: Predictions, blind: Predictions, patients: tuple[str, ...]) -> None:
    (expected, curves), (found, other_curves) = without(plain, patients), without(blind, patients)
    assert {"train", "validation", "test"} == set(expected["role"])
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    np.testing.assert_array_equal(other_curves, curves)


def test_predictions_say_which_cause_and_models_count_others_as_censored() -> None:
    everyone = data(60, slides=False)
    fold = one_fold(everyone)
    context = BaselineContext(FEW, QUICK, np.array(DAYS), {})
    cause = np.where(everyone.cohort.event == 1, 1, 2 * (np.arange(60) % 3 == 0))
    competing = replace(everyone, cohort=replace(everyone.cohort, cause=cause))
    plain, other = (join_predictions(fit_baselines(one, fold, context)).table for one in (everyone, competing))
    assert set(other["event"]) == {0, 1, 2}
    np.testing.assert_array_equal(other["event"] == 1, plain["event"])
    np.testing.assert_array_equal(other["risk"], plain["risk"])


def test_no_baseline_looks_at_test_patients() -> None:
    everything = with_omics(data(60))
    fold = one_fold(everything)
    half = fold.test[: len(fold.test) // 2]
    plain, blind = (
        join_predictions(
            fit_baselines(one, fold, BaselineContext(FEW, QUICK, np.array(DAYS), mean_of_bags(one.features)))
        )
        for one in (everything, changed_too(altered(everything, half), half))
    )
    assert set(plain.table["model"]) == set(BASELINE_TITLES)
    assert_nobody_else_changed(plain, blind, half)


def test_no_model_of_a_fold_looks_at_its_test_patients(tmp_path: Path) -> None:
    everything = data(60)
    fold = one_fold(everything)
    half = fold.test[: len(fold.test) // 2]
    plain, blind = (
        cross_validate(one, [fold], plan(tmp_path / name))[1]
        for name, one in (("plain", everything), ("blind", altered(everything, half)))
    )
    assert set(plain.table["model"]) == {"model", "clinical", "slides_ridge", "clinical_slides_ridge", "forest"}
    assert_nobody_else_changed(plain, blind, half)


@pytest.mark.parametrize("slides", [True, False], ids=["slides", "table only"])
def test_a_level_that_only_test_patients_have_is_scored_as_the_most_frequent_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, slides: bool
) -> None:
    everything = data(60, slides=slides)
    fold = one_fold(everything)
    rare, spare = everything.cohort.rows_of(fold.test[:2]), fold.test[2:]
    grade = np.where(np.arange(60) % 3 == 0, "G1", "G2").astype(object)
    results = []
    for name, word in (("rare", "G4"), ("frequent", "G2")):
        words = grade.copy()
        words[rare] = word
        cohort = replace(everything.cohort, covariates=everything.cohort.covariates.assign(grade=words))
        one = replace(everything, cohort=cohort, covariates=(*AGE, CategoricalCovariate(column="grade")))
        template = TEMPLATE if slides else replace(TEMPLATE, feature_spec=None)
        results.append(cross_validate(one, [fold], plan(tmp_path / name, template=template))[1])
    assert spare
    pd.testing.assert_frame_equal(results[0].table, results[1].table, check_exact=True)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "pathoml.cross_validation"]
    assert f"fold {fold.key}: covariate grade: 2 validation or test patient(s) have 'G4'" in message
    assert "scored as G2." in message


@pytest.mark.slow
def test_folds_fitted_side_by_side_are_those_fitted_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    everything = data(60)
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    _, alone = cross_validate(everything, folds, plan(tmp_path / "alone"))
    at_once = plan(tmp_path / "at once", train=QUICK.model_copy(update={"folds_at_once": 2}))
    _, together = cross_validate(everything, folds, at_once)
    pd.testing.assert_frame_equal(together.table, alone.table, rtol=1e-5)
    first, second = ((tmp_path / name / "kfold-1" / "model.json").read_text() for name in ("alone", "at once"))
    assert first == second, "the digests too: a run may go on either way"


def test_folds_side_by_side_are_no_more_than_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    everything = data(60)
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    monkeypatch.setattr(fold_fitting, "free_bytes", lambda: 60 * 30 * 6 * 2 * 3.0)
    monkeypatch.setattr(fold_fitting, "ProcessPool", lambda *_, **__: pytest.fail("several"))
    packages = list(fit_folds(everything, folds, plan(tmp_path, train=QUICK.model_copy(update={"folds_at_once": 3}))))
    assert len(packages) == 3
    assert "1 of 3 folds are fitted side by side" in caplog.text


@pytest.mark.slow
def test_a_fold_that_fails_side_by_side_says_what_it_says_alone(tmp_path: Path) -> None:
    everything = data(60)
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=2),)))
    spoilt = dict(everything.features.of_patient)
    spoilt[folds[0].train[3]] = np.full((3, 6), np.nan, np.float16)
    broken = replace(everything, features=replace(everything.features, of_patient=spoilt))
    with pytest.raises(TrainingError, match=f"patient {folds[0].train[3]}: tile features are not all finite"):
        list(fit_folds(broken, folds, plan(tmp_path, train=QUICK.model_copy(update={"folds_at_once": 2}))))
