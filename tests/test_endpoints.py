"""Endpoints, eligibility, dates and the flow table: who is in the study, from when until when, and who is not."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pathoml.cohort import (
    AllowedRule,
    Cohort,
    CohortSettings,
    DateRule,
    EndpointSettings,
    ExcludedRule,
    RangeRule,
    SlidesSettings,
    TimeZeroSettings,
    events_per_parameter,
    flow_from_json,
    flow_to_csv,
    flow_to_json,
    read_cohort,
    screen_slides,
)
from pathoml.covariates import NumericCovariate
from pathoml.errors import CohortError
from pathoml.manifest import examine_manifest, read_manifest
from pathoml.pipeline.study import examine_data

HEAD = "patient_id,os,dead,pfs,progressed,entered,fixation,age,diagnosis,last,biopsy\n"
ROWS = (
    "05,100,1,50,1,0,FFPE,60,2010-01-01,2010-04-11,2009-12-20\n"
    "E2,400,2,400,0,30,frozen,70,2010-01-01,2011-02-05,2009-12-20\n"
    "p3,900,0,,,200,FFPE,40,2010-01-01,2012-06-19,2010-02-01\n"
    "p4,60,1,20,1,90,,55,2010-01-01,2010-03-02,\n"
)
OS = EndpointSettings(
    time="os", time_unit="days", event="dead", event_codes={"0": 0, "1": 1, "2": 2}, causes={2: "other"}
)
PFS = EndpointSettings(time="pfs", time_unit="days", event="progressed")


def settings(folder: Path, rows: str = ROWS, **changes: Any) -> CohortSettings:
    (folder / "cohort.csv").write_text(HEAD + rows)
    values = {"table": folder / "cohort.csv", "endpoint": "OS", "endpoints": {"OS": OS, "PFS": PFS}}
    return CohortSettings(**{**values, **changes})


def read(folder: Path, rows: str = ROWS, **changes: Any) -> Cohort:
    return read_cohort(settings(folder, rows, **changes))


def with_os(**changes: Any) -> dict[str, EndpointSettings]:
    return {"OS": OS.model_copy(update=changes), "PFS": PFS}


def problems(folder: Path, rows: str = ROWS, **changes: Any) -> str:
    with pytest.raises(CohortError, match=r"problem\(s\)") as caught:
        read(folder, rows, **changes)
    return "\n".join(map(str, caught.value.problems))


def test_a_table_may_have_several_endpoints_of_which_one_is_modelled(tmp_path: Path) -> None:
    overall = read(tmp_path)
    assert overall.time_days.tolist() == [100, 400, 900, 60]
    rows = ROWS.replace("900,0,,,", "900,0,800,0,")
    assert read(tmp_path, rows, endpoint="PFS").time_days.tolist() == [50, 400, 800, 20]


def test_competing_causes_are_kept_and_count_as_censored(tmp_path: Path) -> None:
    cohort = read(tmp_path)
    assert cohort.causes.tolist() == [1, 2, 0, 1]
    assert cohort.event.tolist() == [1, 0, 0, 1]
    plain = read(tmp_path, ROWS.replace("900,0,,,", "900,0,800,0,"), endpoint="PFS")
    assert plain.cause is None
    assert plain.causes.tolist() == plain.event.tolist()


def test_an_unknown_code_names_the_causes(tmp_path: Path) -> None:
    assert "'7' is not in event_codes (0 = censored, 1 = event, 2 = other)" in problems(
        tmp_path, ROWS.replace("100,1", "100,7")
    )


def test_the_other_endpoints_are_checked_but_for_blanks(tmp_path: Path) -> None:
    assert "row 2, column pfs: '-50' is negative" in problems(tmp_path, ROWS.replace("50,1,0,FFPE", "-50,1,0,FFPE"))


@pytest.mark.parametrize(("missing", "left"), [("refuse", None), ("leave_out", ["05", "E2", "p4"])])
def test_an_unknown_outcome_is_an_error_or_leaves_the_patient_out(
    tmp_path: Path, missing: str, left: list[str] | None
) -> None:
    endpoints = {"OS": OS, "PFS": PFS.model_copy(update={"missing": missing})}
    if left is None:
        assert "row 4, column pfs: '' is missing" in problems(tmp_path, endpoint="PFS", endpoints=endpoints)
        return
    cohort = read(tmp_path, endpoint="PFS", endpoints=endpoints)
    assert cohort.patient_id.tolist() == left
    assert [(step.reason, step.dropped, step.left) for step in cohort.flow] == [
        ("patients of cohort.csv", 0, 4), ("PFS is not known", 1, 3)
    ]  # fmt: skip


def test_follow_up_is_censored_where_it_should_end(tmp_path: Path) -> None:
    cohort = read(tmp_path, endpoints=with_os(censor_after=90))
    assert cohort.time_days.tolist() == [90, 90, 90, 60]
    assert cohort.causes.tolist() == [0, 0, 0, 1]
    at_the_end = read(tmp_path, endpoints=with_os(censor_after=100))
    assert at_the_end.causes[0] == 1


def test_a_landmark_starts_time_for_those_who_reach_it(tmp_path: Path) -> None:
    cohort = read(tmp_path, endpoints=with_os(landmark=60))
    assert cohort.patient_id.tolist() == ["05", "E2", "p3"]
    assert cohort.time_days.tolist() == [40, 340, 840]
    assert cohort.flow[-1].reason == "not followed beyond the landmark of 60 days"
    assert cohort.flow[-1].ids == ("p4",)


def test_time_may_count_from_entry(tmp_path: Path) -> None:
    cohort = read(tmp_path, endpoints=with_os(entry="entered"))
    assert cohort.patient_id.tolist() == ["05", "E2", "p3"]
    assert cohort.time_days.tolist() == [100, 370, 700]
    assert cohort.flow[-1].reason == "came under observation when follow-up was over"


def test_a_clock_that_starts_at_entry_is_said(tmp_path: Path) -> None:
    warned = [one.message for one in read(tmp_path, endpoints=with_os(entry="entered")).warnings]
    assert any("time counts from each patient's own entry" in one and "entry_is: landmark" in one for one in warned)
    landmark = read(tmp_path, endpoints=with_os(entry="entered", entry_is="landmark", landmark=60))
    assert not any("own entry" in one.message for one in landmark.warnings)


def test_a_landmark_takes_those_who_had_entered_by_then(tmp_path: Path) -> None:
    cohort = read(tmp_path, endpoints=with_os(entry="entered", entry_is="landmark", landmark=60))
    assert cohort.patient_id.tolist() == ["05", "E2"]
    assert cohort.time_days.tolist() == [40, 340]
    assert [step.ids for step in cohort.flow[1:]] == [("p3", "p4")]


def test_delayed_entry_ignored_flatters_and_counted_from_entry_does_not() -> None:
    """With a constant hazard, events over time at risk are the hazard; time before entry is immortal."""
    from pathoml.cohort.endpoints import count_time

    rng = np.random.default_rng(0)
    entry, event = rng.uniform(0, 800, 20_000), rng.exponential(500, 20_000)
    seen = event > entry
    time, entry, cause = event[seen], entry[seen], np.ones(int(seen.sum()), dtype=np.int64)
    from_entry = count_time(OS.model_copy(update={"entry": "x"}), time, cause, entry)
    assert len(time) / from_entry.time_days.sum() == pytest.approx(1 / 500, rel=0.05)
    landmark = OS.model_copy(update={"entry": "x", "entry_is": "landmark", "landmark": 300.0})
    at_landmark = count_time(landmark, time, cause, entry)
    kept = ~np.logical_or.reduce([who for _, who in at_landmark.left_out])
    assert kept.sum() / at_landmark.time_days[kept].sum() == pytest.approx(1 / 500, rel=0.05)
    assert len(time) / time.sum() < 0.8 / 500


@pytest.mark.parametrize(
    ("rule", "left", "reason"),
    [
        (AllowedRule(column="fixation", values=("FFPE",)), ["05", "p3"], "fixation is not FFPE"),
        (AllowedRule(column="fixation", values=("FFPE",), missing="keep"), ["05", "p3", "p4"], "fixation is not FFPE"),
        (ExcludedRule(column="fixation", values=("frozen",), missing="keep"), ["05", "p3", "p4"], "fixation is frozen"),
        (RangeRule(column="age", at_least=50, at_most=65), ["05", "p4"], "age is not 50 to 65"),
        (RangeRule(column="age", at_least=50, reason="too young"), ["05", "E2", "p4"], "too young"),
        (DateRule(column="biopsy", zero="diagnosis", at_most=0), ["05", "E2"],
         "biopsy is not at most 0 days after time zero"),
    ],
)  # fmt: skip
def test_a_rule_decides_and_the_flow_says_why(tmp_path: Path, rule: Any, left: list[str], reason: str) -> None:
    cohort = read(tmp_path, eligibility=(rule,))
    assert cohort.patient_id.tolist() == left
    assert reason in [step.reason for step in cohort.flow]
    assert sum(step.dropped for step in cohort.flow) == 4 - len(left)
    assert cohort.flow[-1].left == len(left)
    assert cohort.left_out == {"05", "E2", "p3", "p4"} - set(left)


def test_what_is_wrong_with_patients_who_are_left_out_is_no_problem(tmp_path: Path) -> None:
    rule = AllowedRule(column="fixation", values=("FFPE",))
    assert len(read(tmp_path, ROWS.replace("400,2", "ten,2"), eligibility=(rule,))) == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RangeRule(column="fixation", at_most=3), "row 2, column fixation: 'FFPE' is not a number"),
        (DateRule(column="age", zero="diagnosis", at_most=3), "row 2, column age: '60' is not a date; write it as"),
        (AllowedRule(column="fixation", values=("FFPE",), missing="refuse"), "row 5, column fixation: '' is missing, and"),
        (AllowedRule(column="fixtion", values=("FFPE",)), "no column 'fixtion' in cohort.csv; did you mean 'fixation'?"),
        (AllowedRule(column="fixation", values=("paraffin",)), "nobody is left: 1 fixation is not known; 3 fixation is not"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_followed_is_a_problem(tmp_path: Path, rule: Any, message: str) -> None:
    assert message in problems(tmp_path, eligibility=(rule,))


def test_a_rule_without_limits_is_refused() -> None:
    with pytest.raises(ValidationError, match="leaves nobody out; give one of them"):
        RangeRule(column="age")


ZERO = TimeZeroSettings(column="diagnosis", last_contact="last", specimen="biopsy")


def test_dates_that_agree_are_no_problem_and_late_specimens_are_counted(tmp_path: Path) -> None:
    cohort = read(tmp_path, time_zero=ZERO)
    assert cohort.time_zero_days is not None
    (warning,) = [one for one in cohort.warnings if "biopsy" in one.where]
    assert "1 specimen(s) were taken after time zero" in warning.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2010-04-11", "2010-09-11", "row 2, column last: '2010-09-11' does not agree with time zero and the follow-up"),
        ("2010-04-11", "2009-04-11", "row 2, column last: '2009-04-11' lies before time zero"),
        ("60,2010-01-01", "60,01.01.2010", "row 2, column diagnosis: '01.01.2010' is not a date; write it as 2019-03-31"),
        ("2010-04-11", "soon", "row 2, column last: 'soon' is not a date"),
    ],
)  # fmt: skip
def test_dates_that_cannot_be_right_are_problems(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in problems(tmp_path, ROWS.replace(old, new, 1), time_zero=ZERO)


def test_follow_up_beyond_the_data_cut_off_is_a_problem(tmp_path: Path) -> None:
    zero = TimeZeroSettings(column="diagnosis", data_cutoff="2011-12-31")
    assert "row 4, column diagnosis: '2010-01-01' and the follow-up time lead beyond" in problems(
        tmp_path, time_zero=zero
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": "DSS"}, "endpoint 'DSS' is not one of OS, PFS"),
        ({"time": "os"}, "endpoints say which columns count; leave out time"),
        ({"endpoints": {}}, "Field required"),
    ],
)
def test_endpoints_are_said_in_one_way(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(tmp_path, **changes)


def test_events_per_parameter_are_counted_and_few_are_a_warning(tmp_path: Path) -> None:
    cohort = read(tmp_path, covariates=(NumericCovariate(column="age"),))
    assert events_per_parameter(cohort, (NumericCovariate(column="age"),)) == (2, 1)
    assert any("2 events for 1 parameters of the covariates (2.0 each" in one.message for one in cohort.warnings)


MANIFEST = (
    "slide_id,path,stain,taken\n05-a,1.svs,H&E,2009-12-20\n05-b,2.svs,PAS,2009-12-20\nE2-a,3.svs,H&E,2010-05-01\n"
)


def slides(folder: Path, text: str = MANIFEST, **changes: Any) -> SlidesSettings:
    (folder / "slides.csv").write_text(text)
    return SlidesSettings(manifest=folder / "slides.csv", patient_pattern="^([^-]+)-", **changes)


def test_a_pattern_finds_the_patient_in_the_slides_name(tmp_path: Path) -> None:
    assert [entry.patient_id for entry in read_manifest(slides(tmp_path))] == ["05", "05", "E2"]


def test_a_slide_that_the_pattern_does_not_fit_or_contradicts_is_a_problem(tmp_path: Path) -> None:
    text = "slide_id,path,patient_id\n05-a,1.svs,06\nlone,2.svs,\n"
    found = "\n".join(map(str, examine_manifest(slides(tmp_path, text))[1]))
    assert "row 2, column patient_id: '06' is stated, and slides.patient_pattern finds '05' in slide 05-a" in found
    assert "row 3, column slide_id: 'lone' does not match slides.patient_pattern" in found


@pytest.mark.parametrize(("pattern", "message"), [("(", "not a regular expression"), ("x", "needs one group")])
def test_a_pattern_that_cannot_find_anybody_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SlidesSettings(manifest=tmp_path / "slides.csv", patient_pattern=pattern)


def test_slides_are_screened_with_their_patients_dates_and_those_of_absent_patients_go(tmp_path: Path) -> None:
    rules = (AllowedRule(column="stain", values=("H&E",)), DateRule(column="taken", at_most=0))
    cohort = settings(tmp_path, time_zero=TimeZeroSettings(column="diagnosis"))
    reading = examine_data(cohort, slides(tmp_path, eligibility=rules), slides_needed=False)
    assert reading.problems == ()
    assert [entry.slide_id for entry in reading.entries] == ["05-a"]
    assert reading.cohort is not None
    assert reading.cohort.patient_id.tolist() == ["05"]
    counts = [(step.unit, step.dropped, step.left) for step in reading.cohort.flow if step.dropped]
    assert counts == [("slides", 1, 2), ("slides", 1, 1), ("patients", 3, 1)]
    only_ffpe = settings(tmp_path, eligibility=(ExcludedRule(column="fixation", values=("frozen",), missing="keep"),))
    reading = examine_data(only_ffpe, slides(tmp_path), slides_needed=False)
    assert [entry.slide_id for entry in reading.entries] == ["05-a", "05-b"]


def test_a_rule_on_dates_of_slides_needs_a_time_zero(tmp_path: Path) -> None:
    asked = slides(tmp_path, eligibility=(DateRule(column="taken", at_most=0),))
    entries, _ = examine_manifest(asked)
    assert "needs cohort.time_zero.column" in str(screen_slides(asked, entries, read(tmp_path))[2][0])


def test_a_flow_table_comes_back_as_it_was_and_another_version_is_refused(tmp_path: Path) -> None:
    flow = read(tmp_path, endpoints=with_os(landmark=60)).flow
    content = flow_to_json(flow)
    assert flow_from_json(json.loads(json.dumps(content))) == flow
    with pytest.raises(CohortError, match="not a flow table that this pathoml reads"):
        flow_from_json({**content, "format_version": 2})


def test_the_flow_table_is_written_with_counts_and_with_who(tmp_path: Path) -> None:
    cohort = read(
        tmp_path, eligibility=(AllowedRule(column="fixation", values=("FFPE",), reason='not "FFPE", at all'),)
    )
    rows = list(csv.DictReader(io.StringIO(flow_to_csv(cohort.flow))))
    assert [row["dropped"] for row in rows] == ["0", "1", "1"]
    assert rows[-1]["reason"] == 'not "FFPE", at all'
    plain = flow_to_json(cohort.flow)
    assert [one["ids"] for one in plain["patients"]] == [[], ["p4"], ["E2"]]
    assert plain["slides"] == []
