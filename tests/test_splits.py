"""Folds of whole patients."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.cohort import Cohort
from pathoml.errors import CohortError
from pathoml.splits import (
    SMALL_SITES,
    ExternalSettings,
    FixedSettings,
    Fold,
    FoldFilesSettings,
    KFoldSettings,
    LeaveOneSiteOutSettings,
    SplitsSettings,
    check_folds,
    make_folds,
    read_folds,
    write_folds,
)


def cohort(patients: int = 100, events: int = 40, sites: int = 4) -> Cohort:
    rng = np.random.default_rng(0)
    event = rng.permutation(np.repeat([1, 0], [events, patients - events]))
    return Cohort(
        patient_id=np.array([f"{i:03d}" for i in range(patients)]),
        time_days=rng.exponential(500, patients),
        event=event,
        site=np.array([f"0{i % sites}" for i in range(patients)]),
        covariates=pd.DataFrame(index=pd.RangeIndex(patients)),
        endpoint="overall survival",
    )


def fixed_table(folder: Path, rows: str) -> FixedSettings:
    (folder / "folds.csv").write_text("patient_id,fold\n" + rows)
    return FixedSettings(table=folder / "folds.csv")


KFOLD, SITES = SplitsSettings(), SplitsSettings(schemes=(LeaveOneSiteOutSettings(),))


@pytest.mark.parametrize("settings", [KFOLD, SITES], ids=["kfold", "sites"])
def test_the_three_groups_hold_every_patient_exactly_once(settings: SplitsSettings) -> None:
    for fold in make_folds(cohort(), settings):
        assert sorted([*fold.train, *fold.validation, *fold.test]) == cohort().patient_id.tolist()


@pytest.mark.parametrize("settings", [KFOLD, SITES], ids=["kfold", "sites"])
def test_every_patient_is_tested_once(settings: SplitsSettings) -> None:
    tested = [patient for fold in make_folds(cohort(), settings) for patient in fold.test]
    assert sorted(tested) == cohort().patient_id.tolist()


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_events_are_shared_out_evenly(role: str) -> None:
    everyone = cohort()
    shares = [everyone.event[everyone.rows_of(getattr(fold, role))].mean() for fold in make_folds(everyone, KFOLD)]
    np.testing.assert_allclose(shares, 0.4, atol=0.04)


def test_the_validation_share_is_of_the_training_patients() -> None:
    fold = make_folds(cohort(), SplitsSettings(validation_share=0.25))[0]
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (60, 20, 20)


def test_the_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    first, second = make_folds(cohort(), KFOLD), make_folds(cohort(), SplitsSettings(seed=1))
    assert first == make_folds(cohort(), KFOLD)
    assert [set(fold.test) for fold in first] != [set(fold.test) for fold in second]


def test_leaving_a_site_out_tests_on_all_of_it_and_trains_on_none_of_it() -> None:
    everyone = cohort()
    folds = make_folds(everyone, SITES)
    assert [fold.name for fold in folds] == ["00", "01", "02", "03"]
    for fold in folds:
        assert set(everyone.site[everyone.rows_of(fold.test)]) == {fold.name}
        assert fold.name not in everyone.site[everyone.rows_of([*fold.train, *fold.validation])]


def test_one_hospital_cannot_be_left_out() -> None:
    with pytest.raises(CohortError, match=r"two hospitals or more; name the column in cohort\.site"):
        make_folds(cohort(sites=1), SITES)


def test_a_fixed_table_decides_who_is_tested_where(tmp_path: Path) -> None:
    everyone = cohort()
    rows = "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(everyone.patient_id))
    folds = make_folds(everyone, SplitsSettings(schemes=(fixed_table(tmp_path, rows),)))
    assert [fold.key for fold in folds] == ["fixed-a", "fixed-b"]
    assert folds[0].test == tuple(everyone.patient_id[::2])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("000,a\n001,b\n000,b\n", r"folds\.csv: rows 2, 4, column patient_id: patient 000 stands in more than one row"),
        ("000,a\n0,b\n", r"99 patient\(s\) of the cohort are in no fold: 001"),
    ],
)
def test_a_fixed_table_that_does_not_fit_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        make_folds(cohort(), SplitsSettings(schemes=(fixed_table(tmp_path, rows),)))


def test_a_fixed_table_without_its_column_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("patient,fold\n000,a\n")
    with pytest.raises(
        CohortError, match=r"no column 'patient_id' in folds\.csv; did you mean 'patient'\? it has: patient, fold"
    ):
        make_folds(cohort(), SplitsSettings(schemes=(FixedSettings(table=tmp_path / "folds.csv"),)))


def test_row_25_a_fold_without_events_is_refused_with_its_name(tmp_path: Path) -> None:
    everyone = cohort()
    censored = everyone.patient_id[everyone.event == 0][:5]
    rows = "".join(f"{name},{'quiet' if name in censored else 'loud'}\n" for name in everyone.patient_id)
    with pytest.raises(CohortError, match="fixed-quiet: no events among the 5 test patients; use fewer folds"):
        make_folds(everyone, SplitsSettings(schemes=(fixed_table(tmp_path, rows),)))


def test_fewer_events_than_folds_is_refused() -> None:
    with pytest.raises(CohortError, match=r"5 folds need 5 events.*the cohort has 4 events in 100 patients"):
        make_folds(cohort(events=4), KFOLD)


def test_a_cohort_in_which_everyone_had_the_event_can_be_split() -> None:
    assert len(make_folds(cohort(events=100), KFOLD)) == 5


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (
            [Fold("kfold", "0", ("a", "b"), ("c",), ("a", "d"))],
            r"kfold-0: shared_patients: patient\(s\) a stand in two groups of the fold: train and test",
        ),
        ([Fold("kfold", "0", ("a",), ("a",), ("d",))], r"kfold-0: shared_patients: patient\(s\) a stand in two groups"),
        (
            [Fold("kfold", "0", ("b",), ("c",), ("a",)), Fold("kfold", "1", ("b",), ("c",), ("a",))],
            "kfold-1: patient a is tested in fold 0 too",
        ),
        ([Fold("kfold", "0", ("a",), ("b",), ("e",))], "kfold-0: no events among the 1 test patients"),
        ([Fold("kfold", "0", ("a",), ("b",), ("stranger",))], r"patient\(s\) stranger are not in the cohort"),
    ],
)
def test_folds_that_leak_or_cannot_be_scored_are_refused(folds: list[Fold], message: str) -> None:
    everyone = Cohort(
        np.array(list("abcde")), np.arange(5.0), np.array([1, 1, 1, 1, 0]), np.array([""] * 5), pd.DataFrame(), "os"
    )
    with pytest.raises(CohortError, match=message):
        check_folds(everyone, folds)


def test_a_patient_may_be_tested_once_in_each_scheme() -> None:
    both = SplitsSettings(schemes=(KFoldSettings(folds=3), LeaveOneSiteOutSettings()))
    assert [fold.scheme for fold in make_folds(cohort(), both)] == ["kfold"] * 3 + ["leave_one_site_out"] * 4


def test_saved_folds_read_as_they_were(tmp_path: Path) -> None:
    folds = make_folds(cohort(), SplitsSettings(schemes=(KFoldSettings(folds=3), LeaveOneSiteOutSettings())))
    write_folds(tmp_path / "folds.csv", folds)
    assert read_folds(tmp_path / "folds.csv") == folds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scheme,fold,repeat,patient_id\nkfold,0,0,a\n", "no column 'role'"),
        ("scheme,fold,repeat,role,patient_id\nkfold,0,x,train,a\n", "column repeat holds 'x'; expected 0, 1, 2"),
        (
            "scheme,fold,repeat,role,patient_id\nkfold,0,0,trian,a\n",
            r"unknown role\(s\) trian; expected train, validation, test",
        ),
    ],
)
def test_saved_folds_that_were_altered_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(CohortError, match=message):
        read_folds(tmp_path / "folds.csv")


def test_patients_without_a_hospital_are_not_a_hospital() -> None:
    everyone = cohort()
    everyone.site[::4] = ""
    with pytest.raises(CohortError, match="no hospital"):
        make_folds(everyone, SITES)


def test_repeats_deal_anew_and_test_everybody_once_each(tmp_path: Path) -> None:
    everyone = cohort()
    folds = make_folds(everyone, SplitsSettings(schemes=(KFoldSettings(folds=4, repeats=3),)))
    assert [fold.key for fold in folds][:5] == ["kfold-0-0", "kfold-0-1", "kfold-0-2", "kfold-0-3", "kfold-1-0"]
    dealings = []
    for repeat in range(3):
        own = [fold for fold in folds if fold.repeat == repeat]
        assert sorted(patient for fold in own for patient in fold.test) == everyone.patient_id.tolist()
        dealings.append({frozenset(fold.test) for fold in own})
    assert not dealings[0] & dealings[1] & dealings[2]
    write_folds(tmp_path / "folds.csv", folds)
    assert read_folds(tmp_path / "folds.csv") == folds


def test_the_first_of_several_repeats_is_the_dealing_without_repeats() -> None:
    once = make_folds(cohort(), KFOLD)
    often = make_folds(cohort(), SplitsSettings(schemes=(KFoldSettings(repeats=2),)))
    assert [fold.test for fold in often[:5]] == [fold.test for fold in once]


def test_a_table_with_roles_decides_everything_and_may_leave_patients_out_of_a_fold(tmp_path: Path) -> None:
    everyone = cohort()
    rows = []
    for fold in ("a", "b"):
        for index, name in enumerate(everyone.patient_id):
            role = ["train", "train", "validation", "test"][(index + (fold == "b")) % 4]
            rows.append(f"{name},{fold},{role}")
    path = tmp_path / "folds.csv"
    path.write_text("patient_id,fold,role\n" + "\n".join(rows[:-3]) + "\n")
    first, second = make_folds(everyone, SplitsSettings(schemes=(FixedSettings(table=path),)))
    assert first.test == tuple(everyone.patient_id[3::4])
    assert first.validation == tuple(everyone.patient_id[2::4])
    assert len(second.train) + len(second.validation) + len(second.test) == 97


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "000,a,train\n000,a,test\n",
            r"rows 2, 3, column patient_id: patient 000 stands in more than one row of a fold",
        ),
        ("000,a,trian\n", r"row 2, column role: 'trian' is not one of train, validation, test"),
    ],
)
def test_a_table_with_roles_that_leaks_or_is_misspelt_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "folds.csv").write_text("patient_id,fold,role\n" + rows)
    with pytest.raises(CohortError, match=message):
        make_folds(cohort(), SplitsSettings(schemes=(FixedSettings(table=tmp_path / "folds.csv"),)))


def fold_tables(folder: Path, count: int = 3) -> FoldFilesSettings:
    everyone = cohort()
    for index in range(count):
        test = everyone.patient_id[index::count].tolist()
        train = [name for name in everyone.patient_id.tolist() if name not in test]
        rows = [f"{name},{test[row] if row < len(test) else ''}" for row, name in enumerate(train)]
        (folder / f"splits_{index}.csv").write_text("train,val\n" + "\n".join([*rows, "stranger,"]) + "\n")
    return FoldFilesSettings(folder=folder)


def test_one_file_a_fold_is_read_as_published_splits_come(tmp_path: Path) -> None:
    everyone = cohort()
    folds = make_folds(everyone, SplitsSettings(schemes=(fold_tables(tmp_path),)))
    assert [fold.key for fold in folds] == ["files-0", "files-1", "files-2"]
    for index, fold in enumerate(folds):
        assert fold.test == tuple(everyone.patient_id[index::3])
        assert sorted([*fold.train, *fold.validation, *fold.test]) == everyone.patient_id.tolist()
        assert len(fold.validation) == pytest.approx(0.2 * len({*fold.train, *fold.validation}), abs=1)


def test_files_that_are_not_there_or_forget_a_patient_are_refused(tmp_path: Path) -> None:
    settings = fold_tables(tmp_path)
    with pytest.raises(CohortError, match=r"no file matches 'fold\*\.csv'; set folder and pattern"):
        make_folds(cohort(), SplitsSettings(schemes=(settings.model_copy(update={"pattern": "fold*.csv"}),)))
    path = tmp_path / "splits_1.csv"
    path.write_text(path.read_text().replace("004", "new"))
    with pytest.raises(CohortError, match=r"splits_1\.csv: 1 patient\(s\) of the cohort are in no fold: 004"):
        make_folds(cohort(), SplitsSettings(schemes=(settings,)))


def uneven(seed: int = 0) -> Cohort:
    """A cohort of hospitals of very different sizes, some without an event."""
    rng = np.random.default_rng(seed)
    everyone = cohort(240, 90)
    sizes = np.array([60, 40, 30, 25, 20, 15, 12, 10, 8, 6, 5, 4, 2, 1, 1, 1])
    site = np.repeat([f"H{index:02d}" for index in range(len(sizes))], sizes)
    return replace(everyone, site=site, event=rng.permutation(everyone.event))


SMALL = ("refuse", "join", "train_only")


@pytest.mark.parametrize("small", SMALL)
def test_hospitals_too_small_to_be_tested_are_refused_joined_or_only_trained_on(small: str) -> None:
    everyone = uneven()
    scheme = LeaveOneSiteOutSettings(min_patients=10, min_events=3, small=small)
    settings = SplitsSettings(schemes=(scheme,))
    counts = (
        pd.DataFrame({"site": everyone.site, "event": everyone.event}).groupby("site")["event"].agg(["sum", "count"])
    )
    tiny = set(counts.index[(counts["count"] < 10) | (counts["sum"] < 3)])
    assert tiny
    if small == "refuse":
        with pytest.raises(
            CohortError, match=r"too small to test a model: .*small: join.*small: train_only.*by region"
        ):
            make_folds(everyone, settings)
        return
    folds = make_folds(everyone, settings)
    tested = {fold.name: set(everyone.site[everyone.rows_of(fold.test)]) for fold in folds}
    assert {name for name in tested if name != SMALL_SITES} == set(counts.index) - tiny
    assert tested.get(SMALL_SITES, set()) == (tiny if small == "join" else set())
    for fold in folds:
        assert not tested[fold.name] & set(everyone.site[everyone.rows_of([*fold.train, *fold.validation])])


def test_hospitals_kept_for_the_test_never_train() -> None:
    everyone = uneven()
    (fold,) = make_folds(everyone, SplitsSettings(schemes=(ExternalSettings(sites=("H01", "H03")),)))
    assert set(everyone.site[everyone.rows_of(fold.test)]) == {"H01", "H03"}
    assert not {"H01", "H03"} & set(everyone.site[everyone.rows_of([*fold.train, *fold.validation])])


@pytest.mark.parametrize(
    ("sites", "message"), [(("H1",), r"no patients of hospital\(s\) H1; there are H00, H01"), (None, "nobody is left")]
)
def test_hospitals_that_cannot_be_kept_are_refused(sites: tuple[str, ...] | None, message: str) -> None:
    everyone = uneven()
    sites = sites or tuple(sorted(set(everyone.site.tolist())))
    with pytest.raises(CohortError, match=message):
        make_folds(everyone, SplitsSettings(schemes=(ExternalSettings(sites=sites),)))
