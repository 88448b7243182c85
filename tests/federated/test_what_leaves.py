"""What leaves a site: sums and weights on a list, above thresholds, noted and chained; and how a site says no."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathoml.cohort import CohortSettings
from pathoml.errors import ConfigError, FederationError, RefusalCode, RefusedError
from pathoml.federated.approvals import Approvals
from pathoml.federated.audit import AuditLog, read_log, verify_log
from pathoml.federated.coordinator import run_federation
from pathoml.federated.guard import Allowed, allowed_answer, release
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.plan import Plan, read_plan
from pathoml.federated.preprocessing import edges_from_counts
from pathoml.federated.site import Site, open_site
from pathoml.federated.site_data import SiteData, examine_site
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings, SiteSettings
from pathoml.federated.site_sums import merged_counts
from tests.federated.networks import CANARY, FEATURES, Recorder, cohort_of, parts_of, plan_of

PUBLIC = LimitsSettings(public_benchmark=True)


def one_site(folder: Path, plan: Plan, data: SiteData, limits: LimitsSettings = DEFAULT_LIMITS) -> Site:
    return Site(folder, lambda _: plan, lambda _: data, limits)


def ask(site: Site, plan: Plan, kind: str, **arrays: Any) -> Message:
    return from_bytes(site.answer(to_bytes(Message(kind, plan.digest, 0, arrays))))


def test_no_word_of_a_site_is_in_anything_that_left_it(tmp_path: Path) -> None:
    plan = plan_of(features=FEATURES, model={"tile_components": 3})
    sites = {name: f"{CANARY}-{name}" for name in plan.sites}
    parts = parts_of(plan)
    parts = {
        name: replace(
            data, cohort=replace(data.cohort, covariates=data.cohort.covariates.assign(note=f"{CANARY} secret"))
        )
        for name, data in parts.items()
    }
    recorder = Recorder({name: one_site(tmp_path / sites[name], plan, data) for name, data in parts.items()})
    run_federation(plan, recorder, tmp_path / "out")
    assert len(recorder.left) > 3 * 8
    for _, content in recorder.left:
        assert CANARY.encode() not in content
        assert b"secret" not in content
        assert str(tmp_path).encode() not in content
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path.name


def test_no_patients_row_is_in_anything_that_left(tmp_path: Path) -> None:
    """No float of a patient's tile, age, gene or time stands in the bytes, in either precision."""
    plan = plan_of(features=FEATURES, model={"tile_components": 3})
    parts = parts_of(plan)
    recorder = Recorder({name: one_site(tmp_path / name, plan, data) for name, data in parts.items()})
    run_federation(plan, recorder, tmp_path / "out")
    left = b"".join(content for _, content in recorder.left)
    for data in parts.values():
        rows = data.cohort.rows_of(data.train)[:20]
        assert data.features is not None
        secrets = [*data.cohort.time_days[rows], *data.cohort.covariates["gene0"].to_numpy()[rows]]
        secrets += [float(data.features.of_patient[str(name)][0, 1]) for name in data.cohort.patient_id[rows]]
        for value in secrets:
            assert np.float64(value).tobytes() not in left
            assert np.float32(value).tobytes() not in left


def test_a_site_with_too_few_patients_or_events_says_nothing(tmp_path: Path) -> None:
    plan = plan_of()
    data = parts_of(plan)["west"]
    few = replace(data, train=data.train[:19])
    site = one_site(tmp_path, plan, few)
    answers = {ask(site, plan, kind).code for kind in ("join", "values", "times")}
    assert answers == {"TOO_FEW_PATIENTS"}


def test_only_a_public_benchmark_goes_below_the_thresholds(tmp_path: Path) -> None:
    plan = plan_of(minimum_patients=1, minimum_events=0)
    data = parts_of(plan)["west"]
    few = replace(data, train=data.train[:5])
    assert ask(one_site(tmp_path / "a", plan, few), plan, "join").code == "TOO_FEW_PATIENTS"
    lower = LimitsSettings(minimum_patients=1, minimum_events=0)
    assert ask(one_site(tmp_path / "b", plan, few, lower), plan, "join").code == "TOO_FEW_PATIENTS"
    assert ask(one_site(tmp_path / "c", plan, few, PUBLIC), plan, "join").numbers["patients"] == 5


def test_a_site_raises_its_own_thresholds(tmp_path: Path) -> None:
    plan = plan_of()
    data = parts_of(plan)["west"]
    assert ask(one_site(tmp_path / "a", plan, data), plan, "join").code == ""
    strict = LimitsSettings(minimum_patients=1000)
    assert ask(one_site(tmp_path / "b", plan, data, strict), plan, "join").code == "TOO_FEW_PATIENTS"


def test_metrics_of_few_test_patients_are_left_out_and_so_are_those_that_a_site_refuses(tmp_path: Path) -> None:
    plan = plan_of(quorum=1, method={"kind": "rounds", "rounds": 1})
    parts = parts_of(plan)
    run_federation(plan, Recorder({"west": one_site(tmp_path / "few", plan, parts["west"])}), tmp_path / "a")
    told = json.loads((tmp_path / "a" / "federation.json").read_text())["shared"]["sites"]["west"]
    assert told == {}, "16 test patients are fewer than 20"
    refusing = PUBLIC.model_copy(update={"refused_metrics": ("concordance", "train_loss")})
    open_plan = plan_of(quorum=1, method={"kind": "rounds", "rounds": 1}, minimum_patients=1, minimum_events=1)
    site = one_site(tmp_path / "refusing", open_plan, parts["west"], refusing)
    result = run_federation(open_plan, Recorder({"west": site}), tmp_path / "b")
    assert "concordance" not in result.scores["west"].numbers
    assert "concordant" in result.scores["west"].numbers
    assert "train_loss" not in result.history[0]


def test_an_update_longer_than_the_site_allows_does_not_leave(tmp_path: Path) -> None:
    plan = plan_of(quorum=1, method={"kind": "rounds", "rounds": 1})
    short = LimitsSettings(update_norm=1e-9)
    site = one_site(tmp_path / "site", plan, parts_of(plan)["west"], short)
    recorder = Recorder({"west": site})
    with pytest.raises(FederationError, match="the quorum is 1"):
        run_federation(plan, recorder, tmp_path / "out")
    assert from_bytes(recorder.left[-1][1]) == Message("refused", plan.digest, 0, {}, {}, "LIMIT_OF_SITE")
    assert "no more than 1e-09 may leave" in read_log(tmp_path / "site" / "audit.jsonl")[-1]["why"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrays": {"patients.age": np.zeros(3)}}, "patients.age, times.events are missing or not on the list"),
        ({"arrays": {"times.events": np.zeros(10)}}, "is float64 .10,., not int64"),
        ({"arrays": {"times.events": np.zeros(9, dtype=np.int64)}}, "is int64 .9,., not int64 .10,."),
        ({"numbers": {"age": 61.0}}, "numbers age are not on the list"),
        ({"round_number": 7}, "another plan or round"),
    ],
)
def test_what_is_not_on_the_list_is_not_let_through(change: dict[str, Any], words: str) -> None:
    plan = plan_of()
    request = Message("times", plan.digest)
    good = Message("times", plan.digest, 0, {"times.events": np.zeros(10, dtype=np.int64)})
    allowed = allowed_answer(request, plan)
    assert release(good, request, allowed) is good
    with pytest.raises(RefusedError, match=words):
        release(replace(good, **change), request, allowed)


def test_an_unknown_request_is_allowed_nothing() -> None:
    assert allowed_answer(Message("everything", "0"), plan_of()) == Allowed()


def test_requests_that_are_none_are_refused_with_a_code_alone(tmp_path: Path) -> None:
    plan = plan_of()
    site = one_site(tmp_path, plan, parts_of(plan)["west"])
    assert ask(site, plan, "everything").code == "BAD_REQUEST"
    assert ask(site, plan, "squares").code == "BAD_REQUEST"  # without its array
    assert ask(site, plan, "train").code == "BAD_REQUEST"  # without a model
    assert ask(site, plan, "train", **{"model.bias": np.zeros(2, dtype=np.float32)}).code == "NOT_SET_UP"
    for content in (b"", b"x" * 100, to_bytes(Message("join", plan.digest))[:-1], b"\xff" * 16):
        assert from_bytes(site.answer(content)).code == "BAD_REQUEST"
    assert len(read_log(tmp_path / "audit.jsonl")) == 2 * 4 + 4


def test_a_model_that_is_not_the_plans_is_refused(tmp_path: Path) -> None:
    plan = plan_of(quorum=1, method={"kind": "rounds", "rounds": 1})
    site = one_site(tmp_path, plan, parts_of(plan)["west"])
    run_federation(plan, Recorder({"west": site}), tmp_path / "out")
    assert ask(site, plan, "train", **{"model.bias": np.zeros(2, dtype=np.float32)}).code == "BAD_REQUEST"


# Messages.


def test_a_message_comes_back_as_it_was_sent() -> None:
    sent = Message("train", "ab", 3, {"b": np.arange(6.0).reshape(2, 3), "a": np.zeros(0)}, {"loss": 0.1}, "")
    again = from_bytes(to_bytes(sent))
    assert (again.kind, again.plan, again.round_number, again.numbers) == ("train", "ab", 3, {"loss": 0.1})
    np.testing.assert_array_equal(again.arrays["b"], sent.arrays["b"])
    assert to_bytes(again) == to_bytes(sent)


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([1], dtype=np.int32), np.array([{"a": 1}], dtype=object)]
)
def test_arrays_of_other_types_do_not_travel(array: Any) -> None:
    with pytest.raises(FederationError, match="not float32/float64/int64"):
        to_bytes(Message("train", "ab", 0, {"a": array}))


def test_damaged_messages_are_refused_and_never_executed() -> None:
    content = bytearray(to_bytes(Message("train", "ab", 0, {"a": np.arange(4.0)}, {"loss": 1.0})))
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(0, len(damaged), size=3):
            damaged[position] = int(rng.integers(0, 256))
        try:
            message = from_bytes(bytes(damaged[: int(rng.integers(1, len(damaged) + 1))]))
        except FederationError:
            continue
        assert all(np.isfinite(value) for value in message.numbers.values())


# Approval.


def test_a_plan_is_approved_by_its_hash_and_by_no_other(tmp_path: Path) -> None:
    plan, other = plan_of(), plan_of(seed=1)
    approvals = Approvals(tmp_path)
    with pytest.raises(RefusedError, match="is not approved here") as refused:
        approvals.plan(plan.digest)
    assert refused.value.code is RefusalCode.NOT_APPROVED
    with pytest.raises(ConfigError, match="ask the coordinator, by another way, which file was agreed on"):
        approvals.approve(plan, other.digest)
    with pytest.raises(ConfigError, match="31 digits of its hash were given; give 32 at least"):
        approvals.approve(plan, plan.digest[:31])
    grouped = " ".join(plan.digest[start : start + 4] for start in range(0, 32, 4))  # as it is read out
    approvals.approve(plan, grouped)
    assert approvals.plan(plan.digest) == plan
    assert json.loads((tmp_path / "approvals.jsonl").read_text())["plan"] == plan.digest


def test_an_approved_plan_that_was_altered_is_refused(tmp_path: Path) -> None:
    plan = plan_of()
    Approvals(tmp_path).approve(plan, plan.digest)
    path = tmp_path / "plans" / f"{plan.digest}.json"
    path.write_text(path.read_text().replace('"minimum_patients": 20', '"minimum_patients": 1'))
    with pytest.raises(RefusedError, match="altered after it was approved"):
        Approvals(tmp_path).plan(plan.digest)


def test_where_the_coordinator_is_and_how_long_it_waits_is_in_no_hash() -> None:
    assert plan_of().digest == plan_of(network={"host": "elsewhere", "port": 9000}, patience_s=5.0).digest
    assert plan_of().digest != plan_of(update_norm=1.0).digest


# Audit log.


def logged(folder: Path) -> Path:
    log = AuditLog(folder / "audit.jsonl")
    for number in range(5):
        message = Message("train", "ab", number, {"a": np.zeros(2)}, {"loss": 1.0})
        log.note("out", message, to_bytes(message))
    return log.path


def test_a_log_that_was_left_alone_is_whole_and_is_gone_on_with(tmp_path: Path) -> None:
    path = logged(tmp_path)
    assert verify_log(path).lines == 5
    AuditLog(path).note("in", Message("join", "ab"), b"x")
    verdict = verify_log(path)
    assert (verdict.lines, verdict.problem) == (6, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:2], lines[2].replace('"loss": 1.0', '"loss": 2.0'), *lines[3:]], "line 3 was changed"),
        (lambda lines: [*lines[:2], *lines[3:]], "before line 3 was changed, moved or taken out"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "before line 2 was changed, moved"),
        (lambda lines: [*lines[:4], lines[4][:40]], "line 5 cannot be read"),
    ],
    ids=["changed", "taken out", "moved", "cut"],
)
def test_every_change_to_a_log_is_found(tmp_path: Path, change: Any, words: str) -> None:
    path = logged(tmp_path)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    assert words in verify_log(path).problem
    with pytest.raises(FederationError, match="the log was altered"):
        AuditLog(path)


def test_lines_cut_off_the_end_show_in_the_hash_of_the_last(tmp_path: Path) -> None:
    path = logged(tmp_path)
    head = verify_log(path).head
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    assert verify_log(path).problem == ""
    assert verify_log(path).head != head


def test_every_message_in_and_out_is_in_the_log(tmp_path: Path) -> None:
    import hashlib

    plan = plan_of()
    parts = parts_of(plan)
    recorder = Recorder({name: one_site(tmp_path / name, plan, data) for name, data in parts.items()})
    run_federation(plan, recorder, tmp_path / "out")
    for name in parts:
        out = [line for line in read_log(tmp_path / name / "audit.jsonl") if line["direction"] == "out"]
        left = [content for site, content in recorder.left if site == name]
        assert [line["sha256"] for line in out] == [hashlib.sha256(content).hexdigest() for content in left]
        assert [line["bytes"] for line in out] == [len(content) for content in left]


# Counts of times.


@pytest.mark.parametrize("seed", range(20))
def test_no_count_of_times_below_the_smallest_is_told(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.exponential(800, size=int(rng.integers(0, 60)))
    grid = np.arange(1, 11) * 300.0
    told = merged_counts(times, grid, 10)
    assert all(count == 0 or count >= 10 for count in told.tolist())
    assert told.sum() in (0, len(times))
    cells = np.minimum(np.searchsorted(grid, times), 9)
    exact = np.bincount(cells, minlength=10)
    np.testing.assert_array_equal(merged_counts(times, grid, 1), exact)


def test_edges_share_events_out_and_need_some() -> None:
    grid = np.array([100.0, 200.0, 300.0, 400.0])
    np.testing.assert_array_equal(edges_from_counts(np.array([10, 10, 10, 10]), grid, 2), [0, 200, 400])
    np.testing.assert_array_equal(edges_from_counts(np.array([40, 0, 0, 0]), grid, 4), [0, 100, 400])
    with pytest.raises(FederationError, match="no site told of enough events"):
        edges_from_counts(np.zeros(4, dtype=np.int64), grid, 4)


# Plans and sites from files.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"loss": {"kind": "cox"}}}, "site-stratified Cox model, not of the pooled one"),
        ({"train": {"loss": {"kind": "deephit"}}}, "DeepHit ranks patients of different sites"),
        ({"train": {"loss": {"kind": "discrete"}, "event_balanced": True, "batch_patients": 8}}, "event_balanced"),
        ({"method": {"kind": "rounds", "aggregation": {"kind": "scaffold"}}}, "set train.optimizer: sgd"),
        ({"quorum": 4}, "4 of 3 sites can never answer"),
        ({"covariates": []}, "there is nothing to predict from"),
        ({"sites": ["a b", "c"]}, "a name is of letters"),
        ({"metrics": ["ages"]}, "'ages' is none of"),
    ],
)
def test_plans_that_cannot_be_kept_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_of(**changes)


def test_a_plan_file_names_line_and_key_of_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("name: net\nsites: [a, b]\nendpoint: os\nroundz: 3\ntrain:\n  loss: {kind: discret}\n")
    with pytest.raises(ConfigError) as error:
        read_plan(path)
    assert "plan.yaml:4" in str(error.value)
    assert "did you mean 'discrete'?" in str(error.value)


def site_in(
    folder: Path, plan: Plan, *, name: str = "west", endpoint: str = "overall survival", **changes: Any
) -> Path:
    data = cohort_of(sites=(name,), patients=80)
    table = data.covariates.assign(
        patient_id=data.patient_id, time_days=data.time_days, event=data.event, hospital=data.site
    ).rename(columns={"age": "Alter"})
    table.to_csv(folder / "patients.csv", index=False)
    settings = {
        "name": name, "folder": "federation", "columns": {"age": "Alter"}, "device": "cpu",
        "cohort": {
            "table": "patients.csv", "endpoint": endpoint, "time": "time_days", "time_unit": "days", "event": "event",
            "site": "hospital",
        }, **changes,
    }  # fmt: skip
    path = folder / "site.yaml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path


def test_a_site_from_its_file_answers_approved_plans_only_and_reads_its_own_column_names(tmp_path: Path) -> None:
    plan = plan_of()
    path = site_in(tmp_path, plan)
    site = open_site(path)
    assert ask(site, plan, "join").code == "NOT_APPROVED"
    Approvals(tmp_path / "federation").approve(plan, plan.digest)
    told = ask(site, plan, "values")
    raw = pd.read_csv(tmp_path / "patients.csv")
    assert told.code == ""
    assert told.arrays["numbers.sum"][0] < raw["Alter"].sum()
    assert told.arrays["patients"][0] == 51  # without a fifth for the test and a fifth of the rest for validation


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"name": "east"}, RefusalCode.BAD_DATA, "east is not a site of plan tests"),
        ({"endpoint": "disease-free survival"}, RefusalCode.OTHER_ENDPOINT, "are they one thing"),
        ({"columns": {}}, RefusalCode.OTHER_COVARIATES, "age"),
        ({"columns": {}}, RefusalCode.OTHER_COVARIATES, "`columns:` in the site's file"),
        ({"died": "Tod"}, RefusalCode.BAD_DATA, "no column 'Tod'"),
    ],
)
def test_data_that_do_not_fit_the_plan_are_named_at_the_site_and_coded_outside(
    tmp_path: Path, changes: dict[str, Any], code: RefusalCode, words: str
) -> None:
    from pathoml.federated.site_settings import read_site

    plan = plan_of()
    event = changes.pop("died", "event")
    settings = read_site(site_in(tmp_path, plan, **changes))
    settings = settings.model_copy(update={"cohort": settings.cohort.model_copy(update={"event": event})})
    reading = examine_site(settings, plan)
    assert reading.problems[0][0] is code
    assert words in str(reading.problems[0][1])


def test_words_that_the_plan_does_not_list_are_pointed_out_at_the_site(tmp_path: Path) -> None:
    from pathoml.federated.site_settings import read_site

    covariates = [{"kind": "categorical", "column": "sex", "words": ["female", "divers"]}]
    plan = plan_of(covariates=covariates)
    reading = examine_site(read_site(site_in(tmp_path, plan)), plan)
    assert reading.data is not None
    (warning,) = [str(one) for one in reading.warnings if "does not list" in str(one)]
    assert "'male', which the plan does not list" in warning
    assert "write them in the table as the plan does: 'female', 'divers'" in warning


def test_a_column_none_of_whose_words_the_plan_lists_does_not_fit(tmp_path: Path) -> None:
    from pathoml.federated.site_settings import read_site

    plan = plan_of(covariates=[{"kind": "categorical", "column": "sex", "words": ["F", "M"]}])
    reading = examine_site(read_site(site_in(tmp_path, plan)), plan)
    ((code, problem),) = reading.problems
    assert code is RefusalCode.OTHER_COVARIATES
    assert "the plan lists none of its words ('female', 'male')" in str(problem)


def test_a_plan_that_does_not_name_the_site_is_not_approved(tmp_path: Path) -> None:
    from pathoml.federated.site_settings import read_site
    from pathoml.pipeline.federating import approve

    plan = plan_of()
    settings = read_site(site_in(tmp_path, plan, name="nord"))
    with pytest.raises(FederationError, match="nord is not a site of plan tests"):
        approve(settings, plan, plan.digest)
    assert not (tmp_path / "federation").exists()


def test_the_division_of_a_sites_patients_does_not_depend_on_their_order() -> None:
    plan, cohort = plan_of(("alone",)), cohort_of(sites=("alone",))
    from pathoml.cohort import take_rows
    from pathoml.federated.site_data import divide

    shuffled = take_rows(cohort, np.random.default_rng(3).permutation(len(cohort)))
    first, second = divide(cohort, None, plan), divide(shuffled, None, plan)
    assert (first.train, first.validation, first.test) == (second.train, second.validation, second.test)
    assert not set(first.train) & set(first.test)
    assert len(first.train) + len(first.validation) + len(first.test) == len(cohort)


def test_follow_up_ends_at_the_plans_horizon() -> None:
    plan = plan_of(("alone",), horizon_days=500.0, grid_days=100.0)
    data = parts_of(plan, cohort_of(sites=("alone",)))["alone"].cohort
    assert data.time_days.max() == 500.0
    assert data.event[data.time_days == 500.0].sum() == 0


def test_settings_of_sites_read_from_a_file_are_frozen_and_know_their_keys(tmp_path: Path) -> None:
    settings = SiteSettings(
        name="a", cohort=CohortSettings(table=tmp_path / "t.csv", time="t", time_unit="days", event="e")
    )
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "b"
