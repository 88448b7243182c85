"""Each class of leak, planted, is caught by a check of its name; and a clean split is not called leaking."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml import fold_fitting, train
from pathoml.baseline_settings import BaselineSettings
from pathoml.baselines import BaselineContext, fit_baselines
from pathoml.cohort import Cohort
from pathoml.covariates import fit_covariates
from pathoml.cross_validation import cross_validate
from pathoml.errors import CohortError, LeakError
from pathoml.fold_fitting import FitPlan, fit_fold, seen_path
from pathoml.leakage import (
    CHECKS,
    Finding,
    SlideMark,
    check_predictions,
    examine_leakage,
    hash_rows,
    read_seen,
    refuse_leaks,
    require_unseen,
)
from pathoml.packages import save_package
from pathoml.splits import (
    ROLES,
    Fold,
    KFoldSettings,
    LeaveOneSiteOutSettings,
    SitePreservedSettings,
    SplitsSettings,
    check_folds,
    make_folds,
)
from pathoml.survival.associations import cox_score_test
from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.tune_settings import RangeSettings, TuneSettings
from tests.counts import NULL_TABLES
from tests.planted import DAYS, MEAN, QUICK, TEMPLATE, data, one_fold

SHORT = QUICK.model_copy(update={"max_epochs": 2, "patience": 2})


def plan(folder: Path) -> FitPlan:
    return FitPlan(MEAN, SHORT, TEMPLATE, folder)


def cohort(patients: int = 200, sites: int = 8, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"age": rng.normal(60, 10, patients), "sex": rng.choice(["f", "m"], patients)})
    return Cohort(
        np.array([f"P{index:04d}" for index in range(patients)]), rng.exponential(500, patients),
        rng.integers(0, 2, patients), rng.choice([f"H{index}" for index in range(sites)], patients), table, "os",
    )  # fmt: skip


def named(findings: tuple[Finding, ...], check: str) -> list[Finding]:
    assert check in CHECKS
    return [one for one in findings if one.check == check]


def folds_of(everyone: Cohort) -> tuple[Fold, ...]:
    return make_folds(everyone, SplitsSettings())


def pair_apart(everyone: Cohort) -> tuple[int, int]:
    """Return rows of two patients of whom one trains and the other tests in the first fold."""
    fold = folds_of(everyone)[0]
    return int(everyone.rows_of(fold.train[:1])[0]), int(everyone.rows_of(fold.test[:1])[0])


def test_a_clean_split_has_no_leak_and_no_warning() -> None:
    everyone = cohort()
    rng = np.random.default_rng(3)
    marks = [
        SlideMark(f"s{name}", name, name * 3, hash_rows(bag), bag.mean(axis=0))
        for name, bag in ((name, rng.normal(size=(40, 64)).astype(np.float16)) for name in everyone.patient_id.tolist())
    ]
    report = examine_leakage(everyone, folds_of(everyone), marks)
    assert [one for one in report.findings if one.level != "note"] == []
    assert report.slides == 200
    refuse_leaks(report)


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_patient_in_two_groups_is_shared_patients(role: str, tmp_path: Path) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    leaking = replace(fold, **{role: (*getattr(fold, role), fold.test[0])})
    report = examine_leakage(everyone.cohort, [leaking])
    assert [one.level for one in named(report.findings, "shared_patients")] == ["leak"]
    with pytest.raises(LeakError, match=rf"shared_patients: fold .*{fold.test[0]}"):
        refuse_leaks(report)
    with pytest.raises(CohortError, match="stand in two groups of the fold"):
        check_folds(everyone.cohort, [leaking])
    with pytest.raises(LeakError, match=f"shared_patients: .*{fold.test[0]}"):
        fit_fold(everyone, leaking, plan(tmp_path))


def test_a_patient_in_two_test_sets_is_shared_patients() -> None:
    everyone = cohort()
    folds = list(folds_of(everyone))
    moved = folds[0].test[0]
    folds[1] = replace(
        folds[1], test=(*folds[1].test, moved), train=tuple(one for one in folds[1].train if one != moved)
    )
    found = named(examine_leakage(everyone, folds).findings, "shared_patients")
    assert moved in found[-1].message


@pytest.mark.parametrize("spelt", ["p{}", "P-{}", "P 0{}", "p_{}"])
def test_a_patient_under_two_spellings_is_alike_patient_ids(spelt: str) -> None:
    everyone = cohort()
    one, other = pair_apart(everyone)
    folds = folds_of(everyone)
    names = everyone.patient_id.astype(object)
    old, names[other] = names[other], spelt.format(names[one][1:])
    renamed = replace(everyone, patient_id=names.astype(str))
    swap = {str(old): str(names[other])}
    roles = ("train", "validation", "test")
    folds = tuple(
        replace(fold, **{role: tuple(swap.get(name, name) for name in getattr(fold, role)) for role in roles})
        for fold in folds
    )
    (found,) = named(examine_leakage(renamed, folds).findings, "alike_patient_ids")
    assert found.level == "warning"
    assert str(names[one]) in found.message


@pytest.mark.parametrize(("columns", "level"), [(2, "warning"), (40, "leak")])
def test_a_patient_under_two_ids_with_the_same_data_is_same_patient_twice(columns: int, level: str) -> None:
    everyone = cohort()
    rng = np.random.default_rng(1)
    everyone = replace(everyone, covariates=pd.DataFrame(rng.normal(size=(200, columns))).add_prefix("g"))
    one, other = pair_apart(everyone)
    table, time, event = everyone.covariates.copy(), everyone.time_days.copy(), everyone.event.copy()
    table.iloc[other] = table.iloc[one]
    if columns < 20:
        time[other], event[other] = time[one], event[one]
    twin = replace(everyone, covariates=table, time_days=time, event=event)
    (found,) = named(examine_leakage(twin, folds_of(everyone)).findings, "same_patient_twice")
    assert found.level == level
    assert everyone.patient_id[one] in found.message


def test_patients_of_whom_nothing_is_known_are_not_one_patient() -> None:
    everyone = cohort()
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(200, 40))).add_prefix("g")
    table.iloc[::3] = np.nan
    report = examine_leakage(replace(everyone, covariates=table), folds_of(everyone))
    assert named(report.findings, "same_patient_twice") == []


def test_a_label_confounded_with_the_hospital_is_site_confounded_outcome() -> None:
    everyone = cohort(400)
    late = np.isin(everyone.site, ["H0", "H1", "H2"])
    time = np.where(late, everyone.time_days * 6, everyone.time_days)
    confounded = replace(everyone, time_days=time)
    (found,) = named(examine_leakage(confounded, folds_of(confounded)).findings, "site_confounded_outcome")
    assert found.level == "warning"
    assert "the hospital alone ranks test patients" in found.message
    by_site = make_folds(confounded, SplitsSettings(schemes=(SitePreservedSettings(folds=4),)))
    assert named(examine_leakage(confounded, by_site).findings, "site_confounded_outcome") == []


def test_hospitals_that_do_not_differ_are_seldom_called_confounded() -> None:
    found = [
        bool(named(examine_leakage(one, folds_of(one)).findings, "site_confounded_outcome"))
        for one in (cohort(200, 8, seed) for seed in range(30))
    ]
    assert sum(found) == 0


def test_a_hospital_on_both_sides_of_a_split_by_hospital_is_shared_sites() -> None:
    everyone = cohort()
    folds = list(make_folds(everyone, SplitsSettings(schemes=(SitePreservedSettings(folds=4),))))
    assert named(examine_leakage(everyone, folds).findings, "shared_sites") == []
    moved = folds[0].test[0]
    folds[0] = replace(folds[0], test=folds[0].test[1:], train=(*folds[0].train, moved))
    (found,) = named(examine_leakage(everyone, folds).findings, "shared_sites")
    assert found.level == "leak"


def test_a_hospital_written_in_two_ways_is_alike_site_names() -> None:
    everyone = cohort()
    site = everyone.site.copy()
    site[np.flatnonzero(site == "H3")[::2]] = "h3"
    other = replace(everyone, site=site)
    by_site = make_folds(other, SplitsSettings(schemes=(SitePreservedSettings(folds=4),)))
    apart = [one for one in by_site if len({"H3", "h3"} & set(site[other.rows_of(one.test)])) == 1]
    found = named(examine_leakage(other, by_site).findings, "alike_site_names")
    assert bool(found) == bool(apart)


def marks_of(everyone: Cohort, dim: int = 96) -> list[SlideMark]:
    rng = np.random.default_rng(5)
    marks = []
    for index, name in enumerate(everyone.patient_id.tolist()):
        bag = (rng.normal(size=(60, dim)) + rng.normal(size=dim)).astype(np.float16)
        marks.append(SlideMark(f"s{index}", name, f"print-{index}", hash_rows(bag), bag.astype(float).mean(axis=0)))
    return marks


def test_one_file_under_two_patients_is_same_slide_twice() -> None:
    everyone = cohort()
    one, other = pair_apart(everyone)
    marks = marks_of(everyone)
    marks[other] = replace(marks[other], fingerprint=marks[one].fingerprint)
    (found,) = named(examine_leakage(everyone, folds_of(everyone), marks).findings, "same_slide_twice")
    assert found.level == "leak"
    assert f"s{one} " in found.message


def test_one_tissue_cut_out_in_another_way_is_shared_tiles() -> None:
    everyone = cohort()
    one, other = pair_apart(everyone)
    bag = np.random.default_rng(9).normal(size=(300, 96)).astype(np.float16)
    marks = marks_of(everyone)
    for row, tiles in ((one, bag[:200]), (other, bag[100:][::-1])):
        marks[row] = replace(marks[row], rows=hash_rows(tiles), mean=tiles.astype(float).mean(axis=0))
    (found,) = named(examine_leakage(everyone, folds_of(everyone), marks).findings, "shared_tiles")
    assert found.level == "leak"


def test_a_slide_scanned_again_is_near_duplicate_slides() -> None:
    everyone = cohort()
    one, other = pair_apart(everyone)
    marks = marks_of(everyone)
    again = marks[one].mean + np.random.default_rng(2).normal(0, 0.01, 96)
    marks[other] = replace(marks[other], mean=again)
    (found,) = named(examine_leakage(everyone, folds_of(everyone), marks).findings, "near_duplicate_slides")
    assert found.level == "warning"
    assert f"s{other} " in found.message


def test_two_slides_of_one_patient_are_no_leak() -> None:
    everyone = cohort()
    marks = marks_of(everyone)
    twice = [*marks, replace(marks[3], slide_id="again")]
    assert examine_leakage(everyone, folds_of(everyone), twice).leaks == ()


def test_tiles_that_many_slides_have_are_empty_and_no_leak() -> None:
    everyone = cohort()
    blank = hash_rows(np.ones((5, 96), np.float16) * np.arange(5)[:, None])
    marks = [replace(one, rows=np.union1d(one.rows, blank)) for one in marks_of(everyone)]
    assert named(examine_leakage(everyone, folds_of(everyone), marks).findings, "shared_tiles") == []


def test_early_stopping_on_the_test_patients_is_sealed_test_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    real = fold_fitting.fit_member

    def stops_on_the_test(given, asked, *more, **named_ones):
        return real(given, replace(asked, validation=asked.test), *more, **named_ones)

    monkeypatch.setattr(fold_fitting, "fit_member", stops_on_the_test)
    with pytest.raises(LeakError, match=r"sealed_test_patients: fold kfold-0: .* patient-"):
        fit_fold(everyone, fold, plan(tmp_path))
    assert not (tmp_path / fold.folder_name).exists()


def test_early_stopping_on_the_test_patients_written_into_the_folds_is_shared_patients(tmp_path: Path) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    with pytest.raises(LeakError, match="shared_patients"):
        fit_fold(everyone, replace(fold, validation=fold.test), plan(tmp_path))


def test_a_transform_fitted_on_all_data_is_transform_fitted_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    all_rows = everyone.cohort.covariates.set_axis(everyone.cohort.patient_id.tolist())
    monkeypatch.setattr(train, "fit_covariates", lambda covariates, _: fit_covariates(covariates, all_rows))
    with pytest.raises(LeakError, match=r"transform_fitted_on_others: fold kfold-0: the covariate transform"):
        fit_fold(everyone, fold, plan(tmp_path))


def test_a_projection_fitted_on_all_tiles_is_transform_fitted_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    whole = replace(fold, train=(*fold.train, *fold.validation, *fold.test), validation=(), test=())
    early = train.fit_tile_projection(everyone, whole, MEAN)
    monkeypatch.setattr(fold_fitting, "fit_tile_projection", lambda *_: early)
    with pytest.raises(LeakError, match=r"transform_fitted_on_others: fold kfold-0: the tile projection"):
        fit_fold(everyone, fold, plan(tmp_path))


def test_a_baselines_transform_fitted_on_all_data_is_transform_fitted_on_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everyone = data(60, slides=False)
    fold = one_fold(everyone)
    all_rows = everyone.cohort.covariates.set_axis(everyone.cohort.patient_id.tolist())
    monkeypatch.setattr("pathoml.baselines.fit_covariates", lambda covariates, _: fit_covariates(covariates, all_rows))
    context = BaselineContext(BaselineSettings(trees=10), SHORT, np.array(DAYS), {})
    with pytest.raises(LeakError, match=r"transform_fitted_on_others: .* clinical columns"):
        fit_baselines(everyone, fold, context)


def test_tuning_on_the_test_patients_is_sealed_test_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = data(60)
    fold = one_fold(everyone)

    def looks(given, asked, *_):
        given.cohort.rows_of(asked.test)

    monkeypatch.setattr(fold_fitting, "tune", looks)
    search = TuneSettings(space={"train.learning_rate": RangeSettings(low=0.001, high=0.01)})
    with pytest.raises(LeakError, match="sealed_test_patients"):
        fit_fold(everyone, fold, replace(plan(tmp_path), tune=search))


def test_a_model_is_not_scored_on_patients_it_has_seen(tmp_path: Path) -> None:
    everyone = data(60)
    folds = make_folds(everyone.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    cross_validate(everyone, folds, plan(tmp_path))
    record = read_seen(seen_path(tmp_path / folds[0].folder_name))
    assert record is not None
    require_unseen(record, folds[0].test, "its own test")
    for others in (folds[0].train, folds[0].validation, folds[1].test):
        with pytest.raises(
            LeakError, match=r"model_saw_test_patients: another test: the model of fold kfold-0 has seen"
        ):
            require_unseen(record, others, "another test")


def test_the_model_of_one_fold_in_the_place_of_another_is_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = data(60)
    folds = make_folds(everyone.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))
    packages, _ = cross_validate(everyone, folds, plan(tmp_path))
    for ending in ("", ".seen.json"):
        place = tmp_path / f"{folds[0].folder_name}{ending}"
        place.rename(tmp_path / f"aside{ending}")
        (tmp_path / f"{folds[1].folder_name}{ending}").rename(place)
    monkeypatch.setattr("pathoml.cross_validation.fit_folds", lambda *_: iter([packages[folds[1].key]]))
    with pytest.raises(
        LeakError, match=r"model_saw_test_patients: fold kfold-0: the model of fold kfold-1 has seen 20"
    ):
        cross_validate(everyone, folds[:1], plan(tmp_path))


def test_another_model_in_the_place_of_the_fitted_one_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that stopped on the test fold, say, or was chosen there, and saved with the digest of the honest training."""
    everyone = data(60)
    fold = one_fold(everyone)
    honest = fit_fold(everyone, fold, plan(tmp_path / "run"))
    weights = tmp_path / "run" / fold.folder_name / "model.safetensors"
    as_fitted = weights.read_bytes()
    chosen = fit_fold(everyone, fold, replace(plan(tmp_path / "chosen"), train=QUICK.model_copy(update={"seed": 9})))
    save_package(tmp_path / "run" / fold.folder_name, replace(chosen, summary=honest.summary))
    assert weights.read_bytes() != as_fitted
    fit_fold(everyone, fold, plan(tmp_path / "run"))
    assert weights.read_bytes() == as_fitted
    assert "not the model that was fitted and recorded here; it is fitted again" in caplog.text


def test_the_record_names_nobody_and_does_not_travel(tmp_path: Path) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    fit_fold(everyone, fold, plan(tmp_path))
    text = seen_path(tmp_path / fold.folder_name).read_text()
    assert "patient-" not in text
    record = read_seen(seen_path(tmp_path / fold.folder_name))
    assert record is not None
    assert len(record.seen) == len(fold.train) + len(fold.validation)
    assert {path.name for path in (tmp_path / fold.folder_name).iterdir()} == {
        "model.safetensors", "model.json", "MODEL_CARD.md"
    }  # fmt: skip
    assert record.salt not in (tmp_path / fold.folder_name / "model.json").read_text()


@pytest.mark.parametrize("damage", ["missing", "cut", "another version", "no salt"])
def test_a_saved_model_without_a_record_is_fitted_again(tmp_path: Path, damage: str) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    fit_fold(everyone, fold, plan(tmp_path))
    path = seen_path(tmp_path / fold.folder_name)
    text = path.read_text()
    if damage == "missing":
        path.unlink()
    else:
        salt = read_seen(path).salt
        changed = {
            "cut": text[:40], "another version": text.replace('"format_version": 2', '"format_version": 3'),
            "no salt": text.replace(salt, "xyz"),
        }[damage]  # fmt: skip
        assert changed != text
        path.write_text(changed)
    assert read_seen(path) is None
    fit_fold(everyone, fold, plan(tmp_path))
    assert read_seen(path) is not None


def test_predictions_that_score_training_patients_are_refused(tmp_path: Path) -> None:
    everyone = data(60)
    fold = one_fold(everyone)
    _, predictions = cross_validate(everyone, [fold], plan(tmp_path))
    check_predictions(predictions.table)
    leaking = predictions.table.copy()
    train_row = leaking[(leaking["model"] == "model") & (leaking["role"] == "train")].iloc[:1].assign(role="test")
    with pytest.raises(LeakError, match=r"shared_patients: .*1 patient\(s\) more than once in a fold"):
        check_predictions(pd.concat([leaking, train_row]))


@pytest.mark.parametrize("ids", [("P{}", "P{}-01A"), ("TCGA-AA-{}-01A", "TCGA-AA-{}-02A"), ("{}L", "{}R")])
def test_samples_that_stand_for_patients_are_alike_patient_ids(ids: tuple[str, str]) -> None:
    everyone = cohort()
    one, other = pair_apart(everyone)
    names = everyone.patient_id.astype(object)
    number = names[one][1:]
    renamed = {names[row]: ids[place].format(number) for place, row in enumerate((one, other))}
    folds = [
        replace(fold, **{role: tuple(renamed.get(name, name) for name in getattr(fold, role)) for role in ROLES})
        for fold in folds_of(everyone)
    ]
    altered = replace(everyone, patient_id=np.array([renamed.get(name, name) for name in names]))
    found = named(examine_leakage(altered, folds).findings, "alike_patient_ids")
    assert len(found) == 1
    assert all(name in found[0].message for name in renamed.values())


def with_genes(everyone: Cohort, genes: int = 40, seed: int = 5) -> Cohort:
    values = np.random.default_rng(seed).normal(3, 2, (len(everyone), genes))
    return replace(everyone, covariates=everyone.covariates.assign(**{f"g{n}": values[:, n] for n in range(genes)}))


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_patient_registered_again_a_year_later_is_nearly_same_patient(noise: float) -> None:
    everyone = with_genes(cohort())
    one, other = pair_apart(everyone)
    table, rng = everyone.covariates.copy(), np.random.default_rng(0)
    table.iloc[other] = table.iloc[one]
    table.loc[other, "age"] += 1
    genes = [name for name in table if name.startswith("g")]
    table.loc[other, genes] = table.loc[one, genes].to_numpy(dtype=float) + rng.normal(0, noise, len(genes))
    table.loc[other, "g0"] += 3  # one thing measured quite anew
    found = named(
        examine_leakage(replace(everyone, covariates=table), folds_of(everyone)).findings, "nearly_same_patient"
    )
    assert [everyone.patient_id[row] in found[0].message for row in (one, other)] == [True, True]
    assert "1 pair(s)" in found[0].message


def test_test_patients_who_stop_early_under_a_second_id_are_nearly_same_patient() -> None:
    everyone = cohort()
    fold = folds_of(everyone)[0]
    twins, own = everyone.rows_of(fold.test[:20]), everyone.rows_of(fold.validation[:20])
    table, time, event = everyone.covariates.copy(), everyone.time_days.copy(), everyone.event.copy()
    table.iloc[own] = table.iloc[twins].to_numpy()
    time[own], event[own] = time[twins] + 7, event[twins]
    planted = replace(everyone, covariates=table.astype({"age": float}), time_days=time, event=event)
    found = named(examine_leakage(planted, [fold]).findings, "nearly_same_patient")
    assert "20 pair(s)" in found[0].message


def test_strangers_of_few_words_and_round_numbers_are_not_called_one_patient() -> None:
    for seed in range(5):
        everyone = cohort(600, seed=seed)
        rounded = everyone.covariates.assign(age=everyone.covariates["age"].round())
        assert (
            named(
                examine_leakage(replace(everyone, covariates=rounded), folds_of(everyone)).findings,
                "nearly_same_patient",
            )
            == []
        )


def test_strangers_who_agree_in_forty_columns_of_zeros_and_ones_are_not_one_patient() -> None:
    everyone = cohort(600)
    rng = np.random.default_rng(0)
    codes = (rng.random((600, 40)) < rng.uniform(0.001, 0.04, 40)).astype(float)
    table = pd.DataFrame(codes).add_prefix("stage_").assign(age=everyone.covariates["age"].round())
    findings = examine_leakage(replace(everyone, covariates=table), folds_of(everyone)).findings
    assert table.duplicated().sum() > 20
    assert named(findings, "same_patient_twice") == named(findings, "nearly_same_patient") == []


def test_hospitals_that_differ_in_separators_are_alike_site_names() -> None:
    everyone = cohort()
    site = everyone.site.astype(object)
    site[everyone.site == "H1"] = np.where(
        np.arange((everyone.site == "H1").sum()) % 2 == 0, "Klinikum D", "Klinikum-D"
    )
    spelt = replace(everyone, site=site.astype(str))
    folds = make_folds(spelt, SplitsSettings(schemes=(LeaveOneSiteOutSettings(),)))
    assert named(examine_leakage(spelt, folds).findings, "alike_site_names")


def test_a_hospital_where_everybody_had_the_event_is_one_sided_hospital() -> None:
    everyone = cohort()
    event = np.where(everyone.site == "H2", 1, everyone.event)
    found = named(examine_leakage(replace(everyone, event=event), folds_of(everyone)).findings, "one_sided_hospital")
    assert "H2" in found[0].message
    assert named(examine_leakage(everyone, folds_of(everyone)).findings, "one_sided_hospital") == []


@pytest.mark.parametrize("kind", ["unit", "word"])
def test_a_covariate_that_is_the_hospital_is_covariate_names_hospital(kind: str) -> None:
    everyone = cohort()
    rng, there = np.random.default_rng(1), everyone.site == "H3"
    column = (
        rng.lognormal(1, 0.5, 200) * np.where(there, 100, 1)
        if kind == "unit"
        else np.where(there, "scanner B", "scanner A")
    )
    planted = replace(everyone, covariates=everyone.covariates.assign(measured=column))
    found = named(examine_leakage(planted, folds_of(everyone)).findings, "covariate_names_hospital")
    assert "measured (H3)" in found[0].message


@pytest.mark.parametrize("how", ["scaled", "components", "filled"])
def test_columns_prepared_on_all_patients_are_prepared_on_all_patients(how: str) -> None:
    everyone = with_genes(cohort(), 12)
    table = everyone.covariates.copy()
    genes = [name for name in table if name.startswith("g")]
    values = table[genes].to_numpy()
    centred = values - values.mean(axis=0)
    if how == "scaled":
        table[genes] = centred / values.std(axis=0)
    elif how == "components":
        table[genes] = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    else:
        table.loc[np.arange(200) % 4 == 0, "g3"] = np.median(values[np.arange(200) % 4 != 0, 3])
    found = named(
        examine_leakage(replace(everyone, covariates=table), folds_of(everyone)).findings, "prepared_on_all_patients"
    )
    assert {"scaled": "standard deviation 1", "components": "no correlation", "filled": "g3"}[how] in found[0].message
    assert named(examine_leakage(everyone, folds_of(everyone)).findings, "prepared_on_all_patients") == []


def test_what_was_measured_with_the_outcome_is_covariate_foretells_outcome() -> None:
    everyone = cohort()
    seen = everyone.time_days + np.random.default_rng(2).normal(0, 30, 200)
    planted = replace(everyone, covariates=everyone.covariates.assign(last_visit=seen))
    found = named(examine_leakage(planted, folds_of(everyone)).findings, "covariate_foretells_outcome")
    assert "last_visit" in found[0].message


def test_without_hospitals_it_is_said_that_nothing_could_be_looked_for() -> None:
    everyone = cohort()
    found = named(
        examine_leakage(replace(everyone, site=np.full(200, "")), folds_of(everyone)).findings, "shared_sites"
    )
    assert [one.level for one in found] == ["note"]
    assert "cohort.site" in found[0].message


def with_markers(everyone: Cohort, seed: int = 5) -> Cohort:
    rng = np.random.default_rng(seed)
    markers = {"ki67": rng.lognormal(1, 0.5, len(everyone)), "cd8": rng.normal(6, 2, len(everyone))}
    return replace(everyone, covariates=everyone.covariates.assign(**markers))


@pytest.mark.parametrize("kind", ["one marker rounded", "all rounded, other follow-up"])
def test_a_second_export_that_was_rounded_is_nearly_same_patient(kind: str) -> None:
    everyone = with_markers(cohort())
    one, other = pair_apart(everyone)
    table, time = everyone.covariates.copy(), everyone.time_days.copy()
    table.iloc[other] = table.iloc[one]
    rounded = ["ki67"] if kind == "one marker rounded" else ["ki67", "cd8"]
    table.loc[other, rounded] = table.loc[one, rounded].astype(float).round(2)
    time[other] = time[one] if kind == "one marker rounded" else time[one] * 0.8
    planted = replace(everyone, covariates=table, time_days=time)
    (found,) = named(examine_leakage(planted, folds_of(everyone)).findings, "nearly_same_patient")
    assert all(everyone.patient_id[row] in found.message for row in (one, other))


def test_patients_measured_again_elsewhere_are_nearly_same_patient_where_they_are_many() -> None:
    everyone = with_markers(cohort())
    fold = folds_of(everyone)[0]
    rng = np.random.default_rng(2)
    twins, own = everyone.rows_of(fold.test[:20]), everyone.rows_of(fold.train[:20])
    table, time = everyone.covariates.copy(), everyone.time_days.copy()
    table.iloc[own] = table.iloc[twins].to_numpy()
    table = table.astype({"age": float, "ki67": float, "cd8": float})
    table.loc[own, ["ki67", "cd8"]] *= rng.normal(1, 0.03, (20, 2))
    planted = replace(everyone, covariates=table, time_days=time)
    assert named(examine_leakage(planted, [fold]).findings, "nearly_same_patient")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "correlated", "clustered", "rounded"])
def test_strangers_with_few_markers_are_seldom_called_one_patient(kind: str) -> None:
    called = 0
    for seed in range(NULL_TABLES):
        rng = np.random.default_rng(seed)
        everyone = cohort(int(rng.choice([60, 150, 500])), seed=seed)
        values = rng.normal(size=(len(everyone), 4))
        if kind == "correlated":
            values = values[:, :1] + 0.2 * values
        elif kind == "clustered":
            values = values * rng.choice([0.1, 0.5, 2.0], (len(everyone), 1)) + rng.integers(0, 3, (len(everyone), 1))
        elif kind == "rounded":
            values = np.round(values * 20, 1)
        table = pd.DataFrame(values, columns=["a", "b", "c", "d"])
        findings = examine_leakage(replace(everyone, covariates=table), folds_of(everyone)).findings
        called += bool(named(findings, "nearly_same_patient"))
    assert called <= 0.05 * NULL_TABLES


@pytest.mark.parametrize(
    ("spelt", "count"), [("{}R", 1), ("{}b", 1), ("{}-2", 1), ("{}_B", 1), ("{} (2)", 1), ("{}dup", 1), ("{}-T1", 1)]
)
def test_ids_with_a_mark_appended_are_told_and_no_others(spelt: str, count: int) -> None:
    everyone = cohort()
    one, other = pair_apart(everyone)
    names = everyone.patient_id.astype(object)
    renamed = {names[other]: spelt.format(names[one])}
    folds = [
        replace(fold, **{role: tuple(renamed.get(name, name) for name in getattr(fold, role)) for role in ROLES})
        for fold in folds_of(everyone)
    ]
    altered = replace(everyone, patient_id=np.array([renamed.get(name, name) for name in names]))
    (found,) = named(examine_leakage(altered, folds).findings, "alike_patient_ids")
    assert f"{count} pair(s)" in found.message
    assert all(name in found.message for name in (names[one], *renamed.values()))


@pytest.mark.parametrize("pattern", ["{hospital:02d}-{number}", "{hospital}-{number:02d}", "S{hospital}_{number}"])
def test_patients_numbered_within_hospitals_are_not_alike(pattern: str) -> None:
    everyone = cohort()
    names = np.array([pattern.format(hospital=1 + row % 8, number=1 + row // 8) for row in range(len(everyone))])
    renamed = replace(everyone, patient_id=names)
    assert named(examine_leakage(renamed, folds_of(renamed)).findings, "alike_patient_ids") == []


def test_two_components_of_all_patients_are_prepared_on_all_patients() -> None:
    everyone = cohort()
    genes = np.random.default_rng(1).normal(size=(len(everyone), 30)) @ np.diag(np.linspace(3, 0.5, 30))
    left, size, _ = np.linalg.svd(genes - genes.mean(axis=0), full_matrices=False)
    scores = np.round(left[:, :2] * size[:2], 4)
    planted = replace(everyone, covariates=everyone.covariates.assign(ki67=scores[:, 0], cd8=scores[:, 1]))
    (found,) = named(examine_leakage(planted, folds_of(everyone)).findings, "prepared_on_all_patients")
    assert "ki67, cd8" in found.message


def test_an_assay_that_drifts_along_hospitals_is_covariate_names_hospital() -> None:
    everyone = cohort()
    place = np.unique(everyone.site, return_inverse=True)[1]
    drift = np.random.default_rng(1).normal(6, 1, len(everyone)) + 0.6 * place
    planted = replace(everyone, covariates=everyone.covariates.assign(cd8=drift))
    (found,) = named(examine_leakage(planted, folds_of(everyone)).findings, "covariate_names_hospital")
    assert "cd8" in found.message
    assert "between hospitals" in found.message


def with_coarse(everyone: Cohort) -> Cohort:
    """The cohort with ages in years and follow-up in days, and two markers."""
    table = with_markers(everyone).covariates
    return replace(
        everyone, covariates=table.assign(age=table["age"].round()), time_days=np.rint(everyone.time_days) + 1
    )


def test_two_samples_of_one_patient_measured_apart_are_nearly_same_patient() -> None:
    everyone = with_coarse(cohort())
    fold = folds_of(everyone)[0]
    twins, own = everyone.rows_of(fold.test[:8]), everyone.rows_of(fold.train[:8])
    table, time, event, site = (
        everyone.covariates.copy(), everyone.time_days.copy(), everyone.event.copy(), everyone.site.copy(),
    )  # fmt: skip
    table.loc[own, ["age", "sex"]] = table.loc[twins, ["age", "sex"]].to_numpy()
    time[own], event[own], site[own] = time[twins], event[twins], site[twins]
    planted = replace(everyone, covariates=table.astype({"age": float}), time_days=time, event=event, site=site)
    (found,) = named(examine_leakage(planted, [fold]).findings, "nearly_same_patient")
    assert "8 pair(s)" in found.message
    assert "follow-up to the day, age, sex, hospital" in found.message


@pytest.mark.slow
def test_strangers_with_rough_times_are_seldom_called_one_patient() -> None:
    called = 0
    for seed in range(NULL_TABLES):
        everyone = with_coarse(cohort(300, seed=seed))
        months = np.rint(everyone.time_days / 30.4) * 30.4 + 1
        found = examine_leakage(replace(everyone, time_days=months), folds_of(everyone)).findings
        called += bool(named(found, "nearly_same_patient"))
    assert called <= 0.05 * NULL_TABLES


def prepared(everyone: Cohort, **columns: np.ndarray) -> str:
    table = everyone.covariates.assign(**columns)
    found = named(
        examine_leakage(replace(everyone, covariates=table), folds_of(everyone)).findings, "prepared_on_all_patients"
    )
    return found[0].message if found else ""


def test_ages_scaled_before_patients_were_left_out_are_prepared_on_all_patients() -> None:
    everyone = with_coarse(cohort())
    age = everyone.covariates["age"].to_numpy()
    assert "whole numbers scaled" in prepared(everyone, age=np.round((age - age.mean() + 1.3) / (1.1 * age.std()), 4))
    assert prepared(everyone, age=age) == ""
    assert prepared(everyone, age=age / 10) == ""


@pytest.mark.parametrize("digits", [None, 4])
@pytest.mark.parametrize("markers", [4, 10])
def test_a_score_fitted_on_all_patients_is_prepared_on_all_patients(markers: int, digits: int | None) -> None:
    everyone = cohort()
    rng = np.random.default_rng(4)
    more = {f"m{number}": rng.normal(5, 2, len(everyone)) for number in range(markers)}
    table = pd.DataFrame(more)
    standard = ((table - table.mean()) / table.std(ddof=0)).to_numpy()
    fits = fit_cox_draws(standard, everyone.time_days, everyone.event, counts=np.ones((1, len(everyone))))

    def written(score: np.ndarray) -> np.ndarray:
        return score if digits is None else np.round(score, digits)

    said = prepared(everyone, **more, score=written(standard @ fits.coefficients[0]))
    assert "weights that a Cox regression on all patients gives" in said
    assert "score" in said
    assert prepared(everyone, **more, score=written(standard @ rng.normal(size=markers))) == ""


def test_hospitals_evened_over_all_patients_are_prepared_on_all_patients() -> None:
    everyone = cohort()
    rng = np.random.default_rng(4)
    raw = rng.normal(5, 2, (len(everyone), 6))
    even = raw.copy()
    for name in np.unique(everyone.site):
        own = everyone.site == name
        even[own] -= 0.95 * (even[own].mean(axis=0) - raw.mean(axis=0))
    columns = {f"m{number}": even[:, number] for number in range(6)}
    assert "batch correction" in prepared(everyone, **columns)
    assert prepared(everyone, **{f"m{number}": raw[:, number] for number in range(6)}) == ""


def test_genes_chosen_by_the_outcomes_of_all_patients_are_prepared_on_all_patients() -> None:
    everyone = cohort()
    genes = np.random.default_rng(4).normal(5, 2, (len(everyone), 1500))
    p_values = [cox_score_test(everyone.time_days, everyone.event, genes[:, one])[1] for one in range(1500)]
    best = np.argsort(p_values)[:20]
    assert "chosen by it" in prepared(everyone, **{f"g{one}": genes[:, one] for one in best})
    assert prepared(everyone, **{f"g{one}": genes[:, one] for one in range(20)}) == ""


def test_hospitals_that_only_ids_name_are_looked_at() -> None:
    everyone = cohort()
    place = np.unique(everyone.site, return_inverse=True)[1]
    time = everyone.time_days * np.exp(-0.5 * place)
    names = np.array([f"H{site}-{row:04d}" for row, site in enumerate(place)])
    unnamed = replace(everyone, patient_id=names, site=np.full(len(everyone), ""), time_days=time)
    (found,) = named(examine_leakage(unnamed, folds_of(unnamed)).findings, "site_confounded_outcome")
    assert found.level == "warning"
    assert "name its column in cohort.site" in found.message
    plain = replace(unnamed, time_days=everyone.time_days)
    assert all(one.level == "note" for one in named(examine_leakage(plain, folds_of(plain)).findings, found.check))


def test_a_panel_of_genes_of_one_programme_is_not_called_chosen() -> None:
    everyone = cohort(400)
    rng = np.random.default_rng(6)
    programme = rng.normal(size=len(everyone))
    genes = {f"g{one}": programme + 0.7 * rng.normal(size=len(everyone)) for one in range(12)}
    time = everyone.time_days * np.exp(-0.8 * programme)
    assert prepared(replace(everyone, time_days=time), **genes) == ""


def test_measurements_in_steps_are_not_called_filled() -> None:
    everyone = cohort(400)
    fraction = np.clip(np.round(np.random.default_rng(2).normal(57, 8, len(everyone)) / 5) * 5, 20, 80)
    noted = np.where(np.random.default_rng(3).random(len(everyone)) < 0.2, np.round(fraction + 2.3), fraction)
    assert prepared(everyone, ejection=noted) == ""


def seldom(tables: list[Cohort], check: str) -> bool:
    called = sum(bool(named(examine_leakage(one, folds_of(one)).findings, check)) for one in tables)
    return called <= 0.05 * len(tables)


@pytest.mark.slow
def test_the_end_of_a_study_and_visits_make_nobody_one_patient() -> None:
    tables = []
    for seed in range(NULL_TABLES):
        everyone = with_coarse(cohort(300, seed=seed))
        closed = (everyone.site == "H1") & (everyone.time_days > 400)
        time = np.where(closed, 400.0, everyone.time_days)
        tables.append(replace(everyone, time_days=time, event=np.where(closed, 0, everyone.event)))
    assert seldom(tables, "nearly_same_patient")


@pytest.mark.slow
def test_markers_many_of_which_are_nought_make_nobody_one_patient() -> None:
    tables = []
    for seed in range(NULL_TABLES):
        everyone = cohort(200, seed=seed)
        rng = np.random.default_rng(seed)
        values = np.where(rng.random((len(everyone), 6)) < 0.4, 0.0, rng.lognormal(size=(len(everyone), 6)))
        tables.append(replace(everyone, covariates=pd.DataFrame(values).add_prefix("m")))
    assert seldom(tables, "nearly_same_patient")


@pytest.mark.slow
def test_whole_years_of_age_and_follow_up_make_nobody_one_patient() -> None:
    tables = []
    for seed in range(NULL_TABLES):
        everyone = cohort(200, seed=seed)
        table = everyone.covariates.assign(age=everyone.covariates["age"].round())
        years = (np.ceil(everyone.time_days / 365.25)) * 365.25
        tables.append(replace(everyone, covariates=table, time_days=years))
    assert seldom(tables, "same_patient_twice")


@pytest.mark.parametrize("pattern", ["S{hospital}P{number}", "{hospital}-{number}", "{hospital}{letter}"])
def test_patients_numbered_within_small_hospitals_are_not_alike(pattern: str) -> None:
    everyone = cohort()
    names = np.array(
        [
            pattern.format(hospital=10 + row // 4, number=1 + row % 4, letter="ABCD"[row % 4])
            for row in range(len(everyone))
        ]
    )
    renamed = replace(everyone, patient_id=names)
    assert named(examine_leakage(renamed, folds_of(renamed)).findings, "alike_patient_ids") == []
