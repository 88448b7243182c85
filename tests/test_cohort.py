"""The clinical table: one test for each way in which it can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathoml.cohort import Cohort, CohortSettings, read_cohort, take_rows
from pathoml.covariates import BlockCovariate, CategoricalCovariate, NumericCovariate
from pathoml.errors import CohortError

HEAD = "patient_id,time,event,site,age,grade\n"
GOOD = HEAD + "05,10,1,E2,61.5,G1\nE2,0,0,05,,\np3,30.5,1,,70,G2\n"
COVARIATES = (NumericCovariate(column="age"), CategoricalCovariate(column="grade"))


def read(folder: Path, text: str, name: str = "cohort.csv", **changes: Any) -> Cohort:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    values = {"time": "time", "time_unit": "days", "event": "event", "site": "site", "covariates": COVARIATES}
    return read_cohort(CohortSettings(table=path, **{**values, **changes}))


def problems(folder: Path, text: str, **changes: Any) -> list[str]:
    with pytest.raises(CohortError, match=r"problem\(s\)") as caught:
        read(folder, text, **changes)
    return [str(problem) for problem in caught.value.problems]


def test_a_good_table_becomes_patients_in_its_order(tmp_path: Path) -> None:
    cohort = read(tmp_path, GOOD)
    assert cohort.patient_id.tolist() == ["05", "E2", "p3"]
    assert cohort.time_days.tolist() == [10.0, 0.0, 30.5]
    assert cohort.event.tolist() == [1, 0, 1]
    assert cohort.covariates["grade"].tolist() == ["G1", "", "G2"]
    np.testing.assert_array_equal(cohort.covariates["age"], [61.5, np.nan, 70])


def test_site_05_and_patient_e2_stay_text(tmp_path: Path) -> None:
    cohort = read(tmp_path, GOOD)
    assert cohort.site.tolist() == ["E2", "05", ""]
    assert cohort.patient_id[1] == "E2"


def test_an_event_at_time_zero_is_allowed(tmp_path: Path) -> None:
    cohort = read(tmp_path, HEAD + "p1,0,1,,,\np2,0,0,,,\n")
    assert cohort.time_days.tolist() == [0, 0]
    assert cohort.event.tolist() == [1, 0]


@pytest.mark.parametrize(("unit", "days"), [("days", 1), ("weeks", 7), ("months", 30.4375), ("years", 365.25)])
def test_times_become_days(tmp_path: Path, unit: str, days: float) -> None:
    np.testing.assert_allclose(read(tmp_path, GOOD, time_unit=unit).time_days, np.array([10, 0, 30.5]) * days)


def test_event_codes_saved_as_decimals_are_understood(tmp_path: Path) -> None:
    cohort = read(tmp_path, HEAD + "a,1,1.0,,,\nb,2,0.0,,,\n")
    assert cohort.event.tolist() == [1, 0]


def test_event_codes_may_be_turned_round_and_may_be_words(tmp_path: Path) -> None:
    text = HEAD + "a,1,dead,,,\nb,2,alive,,,\n"
    assert read(tmp_path, text, event_codes={"dead": 1, "alive": 0}).event.tolist() == [1, 0]
    assert read(tmp_path, GOOD, event_codes={"0": 1, "1": 0}).event.tolist() == [0, 1, 0]


def test_rows_of_slides_fold_into_patients(tmp_path: Path) -> None:
    text = "slide_id," + HEAD + "s1,a,1,1,x,50,G1\ns2,b,2,0,x,51,G2\ns3,a,1,1,x,50,G1\n"
    cohort = read(tmp_path, text)
    assert cohort.patient_id.tolist() == ["a", "b"]
    assert cohort.covariates["age"].tolist() == [50, 51]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10,1", "ten,1", "cohort.csv: row 2, column time: 'ten' is not a number"),
        ("10,1", ",1", "cohort.csv: row 2, column time: '' is missing; fill it in or take the patient out"),
        ("10,1", "NA,1", "row 2, column time: 'NA' is missing"),
        ("10,1", "inf,1", "row 2, column time: 'inf' is not a number"),
        ("10,1", "-1,1", "row 2, column time: '-1' is negative; times count forward"),
        ('10,1', '"3,5",1', "row 2, column time: '3,5' is not a number; write decimals with a point"),
        ("10,1", "10,2", "row 2, column event: '2' is not in event_codes (0 = censored, 1 = event)"),
        ("10,1", "10,", "row 2, column event: '' is not in event_codes"),
        ("61.5", '"61,5"', "row 2, column age: '61,5' is not a number; write decimals with a point"),
        ("p3", "", "row 4, column patient_id: '' is a blank patient id"),
        ("p3", "05", "rows 2, 4: patient 05 stands more than once with different time, site, age, grade"),
    ],
)  # fmt: skip
def test_one_fault_is_one_problem_with_its_row_and_column(tmp_path: Path, old: str, new: str, message: str) -> None:
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == 1
    assert message in found[0]


def test_several_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = HEAD + "a,x,7,,,\n,1,1,,,\nb,-2,0,,y,\nc,1,1,,,\nc,2,1,,,\n"
    found = "\n".join(problems(tmp_path, text))
    for part in ("row 2, column time", "row 2, column event", "row 3, column patient_id", "row 4, column time",
                 "row 4, column age", "rows 5, 6: patient c"):  # fmt: skip
        assert part in found


def test_every_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD, time="months", covariates=(NumericCovariate(column="bmi"),))
    assert found == [
        f"cohort.csv: header: no column '{name}' in cohort.csv; it has: patient_id, time, event, site, age, grade"
        for name in ("months", "bmi")
    ]


def test_a_block_that_matches_nothing_is_a_problem(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD, covariates=(BlockCovariate(name="genes", columns="*_rnaseq"),))
    assert found == [
        "block 'genes': no column of cohort.csv matches '*_rnaseq'; it has: patient_id, time, event, site, age, grade"
    ]


def test_the_hospital_cannot_be_a_covariate(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD, covariates=(CategoricalCovariate(column="site"),))
    assert found == ["column 'site' is the hospital; a model that knows it cannot be used at any other"]


def test_a_level_that_few_patients_have_is_a_warning(tmp_path: Path) -> None:
    rows = "".join(f"p{index},{100 + index},1,a,60,{'female' if index else 'Female'}\n" for index in range(12))
    cohort = read(tmp_path, HEAD + rows, covariates=(CategoricalCovariate(column="grade"),))
    assert [str(one) for one in cohort.warnings] == [
        "column grade: few patients have 'Female' (1); is it a slip of spelling?"
    ]


def test_a_block_takes_its_columns_as_numbers(tmp_path: Path) -> None:
    text = "patient_id,time,event,a_rna,b_rna,c\np,1,1,.5,,x\nq,2,0,1,2,y\n"
    cohort = read(tmp_path, text, site=None, covariates=(BlockCovariate(name="g", columns="*_rna"),))
    np.testing.assert_array_equal(cohort.covariates.to_numpy(), [[0.5, np.nan], [1, 2]])


def test_a_table_with_semicolons_says_so(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="separated by semicolons"):
        read(tmp_path, GOOD.replace(",", ";"))


def test_a_byte_order_mark_does_not_hide_the_patient_column(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + GOOD).patient_id[0] == "05"


def test_parquet_gives_the_same_patients_as_csv(tmp_path: Path) -> None:
    expected = read(tmp_path, GOOD)
    table = pd.read_csv(tmp_path / "cohort.csv", dtype={"patient_id": str, "site": str})
    table.to_parquet(tmp_path / "cohort.parquet")
    settings = CohortSettings(
        table=tmp_path / "cohort.parquet",
        time="time",
        time_unit="days",
        event="event",
        site="site",
        covariates=COVARIATES,
    )
    found = read_cohort(settings)
    for name in ("patient_id", "time_days", "event", "site"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    pd.testing.assert_frame_equal(found.covariates, expected.covariates)


def test_ten_thousand_rows_read_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    time, event, age = rng.exponential(900, 10_000), rng.integers(0, 2, 10_000), rng.normal(60, 9, 10_000)
    rows = [f"{i:05d},{time[i]:.3f},{event[i]},{i % 7:02d},{age[i]:.2f},G{i % 3}" for i in range(10_000)]
    cohort = read(tmp_path, HEAD + "\n".join(rows) + "\n")
    np.testing.assert_allclose(cohort.time_days, np.round(time, 3), rtol=1e-15)
    np.testing.assert_array_equal(cohort.event, event)
    np.testing.assert_allclose(cohort.covariates["age"], np.round(age, 2), rtol=1e-15)
    assert cohort.patient_id[[0, -1]].tolist() == ["00000", "09999"]
    assert set(cohort.site) == {f"{i:02d}" for i in range(7)}


def test_rows_of_patients_come_in_the_order_asked_for(tmp_path: Path) -> None:
    cohort = read(tmp_path, GOOD)
    rows = cohort.rows_of(["p3", "05"])
    assert rows.tolist() == [2, 0]
    assert take_rows(cohort, rows).covariates["grade"].tolist() == ["G2", "G1"]


def test_an_unknown_patient_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"patient\(s\) 5 are not in the cohort"):
        read(tmp_path, GOOD).rows_of(["5"])


def test_many_faults_of_one_kind_are_shown_in_part_and_counted(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD + "".join(f"p{i},-1,1,,,\n" for i in range(30)))
    assert len(found) == 11
    assert "and 20 more like these" in found[-1]


def test_many_cells_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD + "".join(f"p{i},x,1,,,\n" for i in range(30)))
    assert "20 more like these" in found[-1]


def test_a_blank_line_does_not_shift_the_row_numbers(tmp_path: Path) -> None:
    assert "row 4, column time" in problems(tmp_path, HEAD + "a,1,1,,,\n\nb,x,1,,,\n")[0]


@pytest.mark.parametrize("pattern", ["a*", "*"])
def test_a_block_that_takes_a_column_used_elsewhere_is_a_problem(tmp_path: Path, pattern: str) -> None:
    text = "patient_id,time,event,age,ah\np,1,1,60,1\nq,2,0,50,2\n"
    covariates = (NumericCovariate(column="age"), BlockCovariate(name="b", columns=pattern))
    with pytest.raises(CohortError, match="age"):
        read(tmp_path, text, site=None, covariates=covariates)


def test_a_missing_column_hides_no_problem_of_the_others(tmp_path: Path) -> None:
    text = GOOD.replace("time", "tim").replace("05,10,1", "05,-10,7").replace("61.5", "old")
    found = problems(tmp_path, text)
    assert len(found) == 3
    assert any("no column 'time'" in one and "did you mean 'tim'?" in one for one in found)
    assert any("row 2, column event" in one for one in found)
    assert any("row 2, column age" in one for one in found)


def test_usual_words_for_events_come_with_the_line_to_paste(tmp_path: Path) -> None:
    found = "\n".join(problems(tmp_path, HEAD + "a,1,Yes,,,\nb,2,no,,,\n"))
    assert "if that is what is meant: event_codes: {'Yes': 1, 'no': 0}" in found
    assert "event_codes: {" not in "\n".join(problems(tmp_path, HEAD + "a,1,Yes,,,\nb,2,perhaps,,,\n"))
