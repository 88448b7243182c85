"""The slide manifest: one test for each way in which it can be wrong."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.cohort import Cohort, SlidesSettings
from pathoml.errors import CohortError
from pathoml.manifest import join_slides, missing_files, read_manifest, unknown_patients

HEAD = "slide_id,path,patient_id,mpp\n"
GOOD = HEAD + "s1,a/1.svs,p1,\ns2,/abs/2.svs,05,0.25\ns3,a/3.svs,p1,\n"


def settings(where: Path, text: str, **changes: Path) -> SlidesSettings:
    (where / "slides.csv").write_text(text, encoding="utf-8")
    return SlidesSettings(manifest=where / "slides.csv", **changes)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(CohortError, match=r"slides\.csv: \d+ problem\(s\)") as caught:
        read_manifest(settings(folder, text))
    return [str(problem) for problem in caught.value.problems]


def cohort(*patients: str) -> Cohort:
    count = len(patients)
    return Cohort(
        patient_id=np.array(patients),
        time_days=np.arange(count, dtype=np.float64),
        event=np.ones(count, dtype=np.int64),
        site=np.array([f"site of {name}" for name in patients]),
        covariates=pd.DataFrame({"age": np.arange(count, dtype=np.float64)}),
        endpoint="overall survival",
    )


def test_entries_come_in_order_with_paths_from_the_manifests_folder(tmp_path: Path) -> None:
    entries = read_manifest(settings(tmp_path, GOOD))
    assert [entry.slide_id for entry in entries] == ["s1", "s2", "s3"]
    assert [entry.path for entry in entries] == [tmp_path / "a/1.svs", Path("/abs/2.svs"), tmp_path / "a/3.svs"]
    assert [entry.patient_id for entry in entries] == ["p1", "05", "p1"]
    assert [entry.mpp for entry in entries] == [None, 0.25, None]
    assert [entry.row for entry in entries] == [2, 3, 4]


def test_a_folder_for_slides_replaces_the_manifests_own(tmp_path: Path) -> None:
    entries = read_manifest(settings(tmp_path, GOOD, folder=Path("/archive")))
    assert entries[0].path == Path("/archive/a/1.svs")


def test_further_columns_and_a_missing_mpp_column_do_no_harm(tmp_path: Path) -> None:
    entries = read_manifest(settings(tmp_path, "patient_id,scanner,path,slide_id\np1,X,1.svs,s1\n"))
    assert (entries[0].slide_id, entries[0].mpp) == ("s1", None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("s3,", "s1,", "slides.csv: row 4, column slide_id: slide s1 stands already in row 2; ids must be unique"),
        ("s3,", ",", "slides.csv: row 4, column slide_id: blank"),
        ("a/3.svs", "", "row 4, column path: blank"),
        ("3.svs,p1", "3.svs,", "row 4, column patient_id: blank"),
        ("s3,", "a/s3,", "row 4, column slide_id: 'a/s3' cannot name a file"),
        ("s3,", "..,", "row 4, column slide_id: '..' cannot name a file"),
        ("0.25", '"0,25"', "row 3, column mpp: '0,25' is not a number between 0.05 and 10.0; write a point, 0.25"),
        ("0.25", "0", "row 3, column mpp: '0' is not a number between"),
        ("0.25", "352.8", "row 3, column mpp: '352.8' is not a number between"),
        ("0.25", "nan", "row 3, column mpp: 'nan' is not a number between"),
    ],
)
def test_one_fault_is_one_problem_with_its_row_and_column(tmp_path: Path, old: str, new: str, message: str) -> None:
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize("mpp", ["0.05", "10", "2.5e-1"])
def test_the_limits_of_the_resolution_are_allowed(tmp_path: Path, mpp: str) -> None:
    assert read_manifest(settings(tmp_path, GOOD.replace("0.25", mpp)))[1].mpp == float(mpp)


def test_several_faults_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD + "s1,,p1,9999\ns1,2.svs,,\n")
    assert [text.split(":")[1] for text in found] == [
        " row 2, column path", " row 2, column mpp", " row 3, column patient_id", " row 3, column slide_id"
    ]  # fmt: skip


def test_every_missing_column_is_named(tmp_path: Path) -> None:
    found = problems(tmp_path, "slide,path,patient\ns1,1.svs,p1\n")
    assert ["'slide_id'" in found[0], "'patient_id'" in found[1], len(found)] == [True, True, 2]


def test_slides_join_their_patients_and_patients_without_are_left_out_with_a_warning(tmp_path: Path) -> None:
    joined = join_slides(cohort("p0", "p1", "05"), read_manifest(settings(tmp_path, GOOD)), "slides.csv")
    assert joined.patient_id.tolist() == ["p1", "05"]
    assert joined.time_days.tolist() == [1, 2]
    assert joined.site.tolist() == ["site of p1", "site of 05"]
    assert joined.covariates["age"].tolist() == [1, 2]
    assert [entry.slide_id for entry in joined.slides["p1"]] == ["s1", "s3"]
    assert [str(warning) for warning in joined.warnings] == [
        "slides.csv: 1 patient(s) without a slide are left out: p0"
    ]


def test_a_slide_of_an_unknown_patient_is_refused_with_its_row(tmp_path: Path) -> None:
    entries = read_manifest(settings(tmp_path, GOOD))
    with pytest.raises(
        CohortError, match=r"slides of unknown patients\n.*row 3, column patient_id: slide s2: patient 05 is not in"
    ):
        join_slides(cohort("p1", "5"), entries, "slides.csv")


def test_missing_files_are_listed_and_present_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.svs").write_bytes(b"x")
    found = missing_files(read_manifest(settings(tmp_path, GOOD)), "slides.csv")
    assert [problem.where for problem in found] == ["slides.csv: row 3, column path", "slides.csv: row 4, column path"]
    assert "slide s3: no such file" in found[1].message


def test_one_file_under_two_ids_is_refused(tmp_path: Path) -> None:
    text = "slide_id,path,patient_id\ns1,a.svs,p1\ns2,./a.svs,p2\n"
    with pytest.raises(CohortError, match=r"row 3, column path: slide s2 is the file of slide s1 \(row 2\)"):
        read_manifest(settings(tmp_path, text))


@pytest.mark.parametrize(
    ("in_the_table", "said"),
    [
        ({"5", "p1"}, r"slide s2: patient 05 is not in the clinical table; it has '5': write both alike"),
        ({"05", "P-1"}, r"slide s1: patient p1 is not in the clinical table; it has 'P-1': write both alike"),
        ({"05", "1.2E+11"}, r"'1.2E\+11' look like what a spreadsheet made of other ids; import that column as text"),
        ({"05", "6-Mar"}, r"'6-Mar' look like what a spreadsheet made"),
    ],
)
def test_ids_that_a_spreadsheet_changed_are_called_that(tmp_path: Path, in_the_table: set[str], said: str) -> None:
    found = unknown_patients(read_manifest(settings(tmp_path, GOOD)), in_the_table, "slides.csv")
    assert re.search(said, "\n".join(map(str, found)))


def test_a_patient_spelt_as_in_the_table_gets_no_hint(tmp_path: Path) -> None:
    assert unknown_patients(read_manifest(settings(tmp_path, GOOD)), {"05", "p1", "6-Mar"}, "slides.csv") == []
    (one, *_) = unknown_patients(read_manifest(settings(tmp_path, GOOD)), {"05", "q7"}, "slides.csv")
    assert str(one).endswith("patient p1 is not in the clinical table")


def test_backslashes_in_a_path_are_pointed_at(tmp_path: Path) -> None:
    table = "slide_id,path,patient_id\ns1,a\\1.svs,p1\n"
    (found,) = missing_files(read_manifest(settings(tmp_path, table)), "slides.csv")
    assert "write / between folders" in str(found)
