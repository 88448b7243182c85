"""`check` finds everything that is wrong in one go, each with its file and line or row."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pathoml.config import load_config
from pathoml.pipeline.checking import check
from pathoml.pipeline.study import open_study
from pathoml.splits import examine_folds

pytestmark = pytest.mark.xdist_group("small_cohort")


@pytest.fixture
def broken_study(copy_of_cohort: Callable[[], Path]) -> Path:
    """A study with one mistake of every kind that `check` knows."""
    folder = copy_of_cohort()
    cohort = pd.read_csv(folder / "cohort.csv", dtype=str)
    patients = cohort["patient_id"].tolist()
    folds = [(patient, str(index % 2)) for index, patient in enumerate(patients)]
    (folder / "given.csv").write_text(
        "patient_id,fold\n" + "".join(f"{patient},{fold}\n" for patient, fold in [*folds, (patients[2], "1")])
    )
    cohort.loc[0, "time_days"] = "-5"
    cohort.loc[1, "time_days"] = ""
    cohort.loc[3, "event"] = "dead"
    cohort = pd.concat([cohort, cohort.iloc[[5]].assign(age="7")])
    cohort.to_csv(folder / "cohort.csv", index=False)
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    slides.loc[1, "slide_id"] = slides.loc[0, "slide_id"]
    slides.loc[3, "patient_id"] = "nobody"
    slides.loc[4, "path"] = "gone.tif"
    slides.loc[6, "path"] = "page.tif"
    (folder / "page.tif").write_text("<html>404</html>")
    slides.to_csv(folder / "slides.csv", index=False)
    text = (folder / "study.yaml").read_text()
    text = text.replace("site: site", "site: sit").replace("max_epochs", "max_epoch")
    text = text.replace("- {kind: leave_one_site_out}", "- {kind: fixed, table: given.csv}")
    assert "site: sit\n" in text
    assert "given.csv" in text
    (folder / "study.yaml").write_text(text)
    return folder


def test_every_kind_of_mistake_in_one_study_is_found_at_once(broken_study: Path) -> None:
    found = [str(problem) for problem in check(broken_study / "study.yaml", open_slides=True).problems]
    text = (broken_study / "study.yaml").read_text().splitlines()

    def line(word: str) -> int:
        return next(number for number, row in enumerate(text, start=1) if word in row)

    for expected in (
        f"study.yaml:{line('max_epoch')}: train.max_epoch: unknown key",
        f"study.yaml:{line('site: sit')} (cohort.csv: header): no column 'sit' in cohort.csv; did you mean 'site'?",
        "cohort.csv: row 2, column time_days: '-5' is negative",
        "cohort.csv: row 3, column time_days: '' is missing",
        "cohort.csv: row 5, column event: 'dead' is not in event_codes",
        "cohort.csv: rows 7, ",
        "slides.csv: row 3, column slide_id: slide",
        "slides.csv: row 5, column patient_id: slide",
        "slides.csv: row 6, column path: slide",
        "slides.csv: row 8: slide ",
        f"study.yaml:{line('given.csv')} (given.csv: rows 4, ",
    ):
        assert any(one.startswith(expected) for one in found), f"{expected!r} is not among\n" + "\n".join(found)
    assert not any("no events" in one for one in found), "folds are not judged by outcomes that are not known"


def test_no_events_in_a_fold_is_found_beside_a_missing_slide(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    cohort = pd.read_csv(folder / "cohort.csv", dtype=str)
    quiet = cohort["event"] == "0"
    folds = ["quiet" if is_quiet and index < 8 else "loud" for index, is_quiet in enumerate(quiet)]
    cohort.assign(fold=folds)[["patient_id", "fold"]].to_csv(folder / "given.csv", index=False)
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    slides.loc[4, "path"] = "gone.tif"
    slides.to_csv(folder / "slides.csv", index=False)
    result = check(
        folder / "study.yaml", ["splits.schemes=[{kind: kfold, folds: 40}, {kind: fixed, table: given.csv}]"]
    )
    found = "\n".join(str(problem) for problem in result.problems)
    assert "slides.csv: row 6, column path" in found
    assert "40 folds need 40 events" in found
    assert "fixed-quiet: no events among the" in found


def test_a_manifest_without_its_column_names_line_and_row(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    table = pd.read_csv(folder / "slides.csv", dtype=str).rename(columns={"slide_id": "slide"})
    table.to_csv(folder / "slides.csv", index=False)
    (problem,) = check(folder / "study.yaml").problems
    assert "slides.csv: row 1" in problem.where
    assert "study.yaml:" in problem.where
    assert "did you mean 'slide'?" in problem.message


def test_many_mistakes_of_one_kind_are_counted_in_full(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    slides["patient_id"] = [f"stranger-{index}" for index in range(len(slides))]
    slides.to_csv(folder / "slides.csv", index=False)
    found = [str(problem) for problem in check(folder / "study.yaml").problems]
    assert f"slides.csv: ... and {len(slides) - 10} more like these" in found


def test_what_check_accepts_can_be_read_by_a_run(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    assert check(folder / "study.yaml", open_slides=True).problems == ()
    shutil.copy(folder / "cohort.csv", folder / "again.csv")
    assert check(folder / "study.yaml", ["cohort.table=again.csv"]).problems == ()


def test_one_file_under_two_patients_is_found_when_slides_are_opened(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    study = open_study(load_config(folder / "study.yaml"))
    fold = examine_folds(study.cohort, study.config.splits).folds[0]
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    first, second = (slides.index[slides["patient_id"] == one][0] for one in (fold.train[0], fold.test[0]))
    shutil.copy(folder / slides.loc[first, "path"], folder / "again.tif")
    slides.loc[second, "path"] = "again.tif"
    slides.to_csv(folder / "slides.csv", index=False)
    result = check(folder / "study.yaml", open_slides=True)
    assert any("same_slide_twice" in str(one) and fold.test[0] in str(one) for one in result.problems)
    assert check(folder / "study.yaml").problems == ()


def test_what_is_known_of_the_split_is_shown(copy_of_cohort: Callable[[], Path]) -> None:
    result = check(copy_of_cohort() / "study.yaml")
    assert result.leakage is not None
    (shared,) = [one for one in result.leakage.findings if one.check == "shared_sites"]
    assert (shared.level, shared.scheme) == ("note", "kfold")
