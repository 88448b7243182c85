"""Fixed folds from a folder of tables, one a fold, as MCAT and CLAM keep them; and where paths of data start."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.cohort import Cohort
from pathoml.config import load_config
from pathoml.errors import CohortError
from pathoml.splits import FixedSettings, SplitsSettings, fold_files, make_folds


def cohort() -> Cohort:
    names = np.array([f"p{number}" for number in range(24)])
    event = np.arange(24) % 2
    return Cohort(names, np.arange(1.0, 25), event, np.array([""] * 24), pd.DataFrame(index=range(24)), "os")


def write(folder: Path, number: int, train: list[str], tested: list[str]) -> None:
    longest = max(len(train), len(tested))
    padded = {"train": train + [""] * (longest - len(train)), "val": tested + [""] * (longest - len(tested))}
    pd.DataFrame(padded).to_csv(folder / f"splits_{number}.csv")


def folds_of(folder: Path):
    return make_folds(cohort(), SplitsSettings(schemes=(FixedSettings(table=folder),)))


def test_each_table_is_a_fold_and_its_column_val_is_tested(tmp_path: Path) -> None:
    names = cohort().patient_id.tolist()
    for number in range(3):
        write(tmp_path, number, [*names[: 8 * number], *names[8 * number + 8 :]], names[8 * number : 8 * number + 8])
    folds = folds_of(tmp_path)
    assert [fold.name for fold in folds] == ["0", "1", "2"]
    assert [fold.test for fold in folds] == [tuple(names[at : at + 8]) for at in (0, 8, 16)]


def test_the_eleventh_fold_comes_after_the_tenth(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        write(tmp_path, number, ["p0"], ["p1"])
    assert [file.name for file in fold_files(tmp_path)] == ["splits_0.csv", "splits_2.csv", "splits_10.csv"]


def test_a_patient_who_trains_and_is_tested_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 0, ["p0", "p1"], ["p1", "p2"])
    with pytest.raises(CohortError, match=r"splits_0\.csv: patient\(s\) p1 are trained on and tested"):
        folds_of(tmp_path)


def test_a_folder_without_folds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no tables splits_0\.csv"):
        folds_of(tmp_path)


def test_a_table_without_the_column_of_those_tested_is_refused(tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text("train,test\np0,p1\n")
    with pytest.raises(CohortError, match=r"no column 'val' in splits_0\.csv"):
        folds_of(tmp_path)


CONFIG = """
name: x
data: archive
output: run
cohort: {table: cohort.csv, time: t, time_unit: days, event: e}
splits: {schemes: [{kind: fixed, table: folds}]}
"""


def test_what_is_read_starts_from_the_data_folder_and_what_is_written_from_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "study.yaml")
    assert config.cohort.table == tmp_path / "archive" / "cohort.csv"
    assert config.splits.schemes[0].table == tmp_path / "archive" / "folds"
    assert config.output == tmp_path / "run"


def test_the_data_folder_can_be_given_on_the_command_line_and_is_no_part_of_the_digest(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG)
    here, there = (load_config(tmp_path / "study.yaml", given) for given in ((), ("data=/elsewhere",)))
    assert there.cohort.table == Path("/elsewhere/cohort.csv")
    assert there.digest == here.digest
