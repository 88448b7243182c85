"""A package that exists already, scored by hospitals on their own patients: nothing is trained, and nothing else leaves."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pathoml.cli import app
from pathoml.errors import ConfigError, FederationError, RefusedError
from pathoml.federated.coordinator import PLAN_COPY, run_evaluation, run_federation
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.scoring import arrays_of_files
from pathoml.federated.simulate import pool, simulate, split_cohort
from pathoml.federated.site import Site, site_of
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings, read_site
from pathoml.infer import predict_package
from pathoml.mil.patients import select_patients
from pathoml.package_files import PackageFiles, read_package_files
from pathoml.packages import load_package
from pathoml.pipeline.federating import examine, rehearse
from pathoml.pipeline.federation_pages import newest_refusals, unfinished_runs, write_coordinators_page
from pathoml.survival import concordance
from pathoml.train import follow_up
from tests.federated.networks import CANARY, FEATURES, Recorder, cohort_of, features_of, parts_of, plan_of
from tests.federated.test_what_leaves import site_in

NEWTON = {"kind": "newton"}
TILES: dict[str, Any] = {"features": {**FEATURES, "scaling": "site"}, "model": {"tile_components": 3}}
WITH_TILES: dict[str, Any] = {**TILES, "method": {"kind": "rounds", "rounds": 1}}


def package_in(folder: Path, **changes: Any) -> Path:
    """Train a package in other hospitals than those that are going to score it."""
    plan = plan_of(("east", "centre"), **{"method": NEWTON, **changes})
    cohort = cohort_of(seed=11, sites=plan.sites)
    parts = parts_of(plan, cohort)
    simulate(plan, parts, folder)
    return folder / "coordinator" / "package"


def evaluation_of(package: Path, **changes: Any) -> Plan:
    digest = hashlib.sha256((package / "model.json").read_bytes()).hexdigest()
    return plan_of(**{"method": {"kind": "evaluation", "package": digest}, "quorum": 2, **changes})


def sites_of(plan: Plan, parts: dict[str, SiteData], folder: Path, limits: LimitsSettings = DEFAULT_LIMITS) -> Recorder:
    return Recorder(
        {name: Site(folder / name, lambda _: plan, lambda _, d=data: d, limits) for name, data in parts.items()}  # type: ignore[misc]
    )


@pytest.mark.parametrize("changes", [{}, WITH_TILES], ids=["table", "tiles"])
def test_hospitals_tell_what_the_package_does_on_all_their_patients(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = package_in(tmp_path / "made", **changes)
    plan = evaluation_of(path, **{**changes, "method": evaluation_of(path).method})
    parts = parts_of(plan)
    recorder = sites_of(plan, parts, tmp_path)
    scores = run_evaluation(plan, read_package_files(path), recorder, tmp_path / "out")
    assert {from_bytes(content).kind for _, content in recorder.left} == {"score"}, "nothing was trained or summed"
    assert set(scores) == set(plan.sites)
    for name, data in parts.items():
        names = (*data.train, *data.validation, *data.test)
        told = scores[name].numbers
        assert told["patients"] == len(names)
        if not changes:
            risk = predict_package(load_package(path), select_patients(data.cohort, None, names)).table["risk"]
            expected = concordance(*follow_up(data.cohort, names), risk.to_numpy(dtype=float))
            assert told["concordance"] == pytest.approx(expected, abs=1e-12)
        assert told["concordance_low"] < told["concordance"] < told["concordance_high"]
        assert told["events"] / 3 < told["expected_events"] < 3 * told["events"]
    written = json.loads((tmp_path / "out" / "federation.json").read_text())
    assert written["shared"]["overall"]["sites"] == 3
    for _, content in recorder.left:
        assert CANARY.encode() not in content


def test_each_hospital_standardises_its_tiles_by_its_own_where_the_plan_says_so(tmp_path: Path) -> None:
    """A stain that shifts and stretches all tiles of a hospital changes nothing of what the package says there."""
    path = package_in(tmp_path / "made", **WITH_TILES)
    plan = evaluation_of(path, **{**TILES, "quorum": 3})
    cohort = cohort_of()
    tiles = features_of(cohort)
    stained = replace(
        tiles,
        of_patient={name: np.asarray(one) * np.float32(2) + np.float32(1) for name, one in tiles.of_patient.items()},
    )
    scores = []
    for name, one in (("plain", tiles), ("stained", stained)):
        recorder = sites_of(plan, split_cohort(cohort, one, plan), tmp_path / name)
        scores.append(run_evaluation(plan, read_package_files(path), recorder, tmp_path / name / "out"))
    for site in plan.sites:
        first, second = (one[site].numbers["concordance"] for one in scores)
        assert first == pytest.approx(second, abs=0.005)


def test_a_package_is_not_scored_on_patients_whom_it_was_trained_on(tmp_path: Path) -> None:
    training = plan_of(method=NEWTON)
    parts = parts_of(training)
    run_federation(training, sites_of(training, parts, tmp_path), tmp_path / "out")
    path = tmp_path / "out" / "package"
    for patients, changes, ok in (("all", {}, False), ("test", {"seed": 5}, False), ("test", {}, True)):
        digest = hashlib.sha256((path / "model.json").read_bytes()).hexdigest()
        plan = plan_of(
            method={"kind": "evaluation", "package": digest, "patients": patients}, minimum_patients=1, minimum_events=1, **changes
        )  # fmt: skip
        divided = parts_of(plan)
        recorder = sites_of(plan, divided, tmp_path, LimitsSettings(public_benchmark=True))
        output = tmp_path / f"{patients}-{len(changes)}"
        if ok:
            scores = run_evaluation(plan, read_package_files(path), recorder, output)
            assert {name: one.numbers["patients"] for name, one in scores.items()} == {
                name: len(data.test) for name, data in divided.items()
            }
            continue
        with pytest.raises(FederationError, match="0 of 3 sites gave an answer"):
            run_evaluation(plan, read_package_files(path), recorder, output)
        log = (tmp_path / "west" / "audit.jsonl").read_text().splitlines()[-1]
        assert "were trained on here by the plan that made the package" in log


def test_few_patients_are_not_spoken_of_and_neither_is_what_a_hospital_refuses(tmp_path: Path) -> None:
    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    parts = parts_of(plan)
    few = replace(parts["west"], train=parts["west"].train[:10], validation=(), test=())
    scores = run_evaluation(
        plan, read_package_files(path), sites_of(plan, {**parts, "west": few}, tmp_path / "a"), tmp_path / "a" / "out"
    )
    assert scores["west"].numbers == {}
    assert not scores["west"].comparable.any()
    limits = LimitsSettings(refused_metrics=("concordant", "expected_events"))
    scores = run_evaluation(
        plan, read_package_files(path), sites_of(plan, parts, tmp_path / "b", limits), tmp_path / "b" / "out"
    )
    assert not {"concordant", "expected_events"} & scores["west"].numbers.keys()
    assert not scores["west"].concordant.any()
    limits = LimitsSettings(refused_metrics=("concordance_low", "concordance_high"))
    scores = run_evaluation(
        plan, read_package_files(path), sites_of(plan, parts, tmp_path / "c", limits), tmp_path / "c" / "out"
    )
    assert "concordance" in scores["west"].numbers
    assert not scores["west"].comparable.any(), "an interval could be computed from the drawings"
    overall = json.loads((tmp_path / "c" / "out" / "federation.json").read_text())["shared"]["overall"]
    assert {"concordance", "concordance_low"} & overall.keys() == {"concordance"}


def test_another_package_than_the_agreed_one_is_refused_by_the_coordinator_and_by_every_site(tmp_path: Path) -> None:
    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    files = read_package_files(path)
    other = PackageFiles(files.description + b"\n", files.tensors)
    parts = parts_of(plan)
    with pytest.raises(FederationError, match=f"the package's digest is {other.digest}"):
        run_evaluation(plan, other, sites_of(plan, parts, tmp_path), tmp_path / "out")
    site = sites_of(plan, parts, tmp_path).members["west"]
    answer = from_bytes(site.answer(to_bytes(Message("score", plan.digest, 0, arrays_of_files(other)))))
    assert answer.code == "BAD_REQUEST"
    altered = PackageFiles(files.description, files.tensors[:-1] + bytes([files.tensors[-1] ^ 1]))
    assert altered.digest == files.digest
    answer = from_bytes(site.answer(to_bytes(Message("score", plan.digest, 0, arrays_of_files(altered)))))
    assert answer.code == "BAD_REQUEST"
    assert "model.safetensors does not belong" in (tmp_path / "west" / "audit.jsonl").read_text()
    missing = from_bytes(site.answer(to_bytes(Message("score", plan.digest))))
    assert missing.code == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"covariates": [{"kind": "numeric", "column": "age"}]}, "the package needs gene0, gene1"),
        ({"endpoint": "relapse"}, "predicts 'overall survival', the plan is about 'relapse'"),
        ({"features": FEATURES}, "the package takes no features, and the plan has some"),
        ({"method": NEWTON}, "trains a model"),
    ],
)
def test_a_package_that_does_not_fit_the_plan_is_not_sent(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = package_in(tmp_path / "made")
    plan = evaluation_of(path, **changes)
    with pytest.raises(FederationError, match=words):
        run_evaluation(plan, read_package_files(path), Recorder({}), tmp_path / "out")


def test_an_evaluation_trains_nothing_and_has_no_privacy() -> None:
    method = {"kind": "evaluation", "package": "a" * 64}
    with pytest.raises(FederationError, match="trains nothing"):
        run_federation(plan_of(method=method), Recorder({}), Path("nowhere"))
    with pytest.raises(ValueError, match="a concordance compares pairs of patients, and no noise fits it"):
        plan_of(method=method, privacy={"epsilon": 1.0, "clip_norm": 1.0, "sample_rate": 0.5})
    with pytest.raises(ValueError, match="an evaluation trains nobody"):
        plan_of(method=method, membership=True)


def test_a_hospital_rehearses_an_evaluation_with_the_package(tmp_path: Path) -> None:
    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    (tmp_path / "plan.yaml").write_text(json.dumps(plan.model_dump(mode="json")))
    (tmp_path / "west").mkdir()
    site = site_in(tmp_path / "west", plan, name="west")
    words = ["federate", "dry-run", str(site), str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "dry")]
    told = CliRunner().invoke(app, [*words, "--package", str(path)], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "expected_events" in told.output
    with pytest.raises(ValueError, match="give its folder with --package"):
        CliRunner().invoke(app, [*words[:-1], str(tmp_path / "again")], catch_exceptions=False)
    shown = CliRunner().invoke(app, ["federate", "plan", str(tmp_path / "plan.yaml")])
    assert "nothing is trained" in shown.output
    checked = CliRunner().invoke(app, ["federate", "check", str(site), str(tmp_path / "plan.yaml")])
    assert "scored" in checked.output
    assert "Training" not in checked.output


def test_a_rehearsal_says_already_that_patients_were_trained_on(tmp_path: Path) -> None:
    made = plan_of(("west",), method=NEWTON, name="made")
    (tmp_path / "west").mkdir()
    file = site_in(tmp_path / "west", made, name="west")
    settings = read_site(file)
    site = site_of(settings, lambda _: made)
    run_federation(made, Recorder({"west": site}), tmp_path / "out")
    plan = evaluation_of(tmp_path / "out" / "package", sites=["west"], quorum=1)
    with pytest.raises(RefusedError, match=r"patients were trained on here by the plan that made the package"):
        rehearse(settings, plan, tmp_path / "dry", tmp_path / "out" / "package")
    warnings = examine(file, plan)[1].warnings
    assert any("patients that would be scored; if it made the package" in one.message for one in warnings)
    apart = plan.model_copy(update={"method": plan.method.model_copy(update={"patients": "test"})})
    assert not any("would be scored" in one.message for one in examine(file, apart)[1].warnings)


def test_the_page_of_an_evaluation_says_how_many_events_were_expected(tmp_path: Path) -> None:
    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    parts = parts_of(plan)
    out = tmp_path / "kit" / "federation" / plan.digest[:16]
    run_evaluation(plan, read_package_files(path), sites_of(plan, parts, tmp_path), out)
    page = write_coordinators_page(tmp_path / "kit").read_text()
    west = json.loads((out / "federation.json").read_text())["shared"]["sites"]["west"]
    assert "events expected" in page
    assert f"{west['expected_events']:.1f}" in page
    assert "fitted to the site's own" not in page, "nobody was asked for that"
    assert unfinished_runs(tmp_path / "kit") == []
    assert newest_refusals(tmp_path / "kit")[1] == {}
    assert "Who said no" not in page
    row = {"time": "2026-11-28T12:00:00+00:00", "asked": "join", "site": "west", "what": "NOT_APPROVED"}
    (out / "coordinator.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    assert newest_refusals(tmp_path / "kit") == (plan.digest[:16], {"west": "NOT_APPROVED"})
    page = write_coordinators_page(tmp_path / "kit").read_text()
    assert "Who said no, or nothing that could be used" in page
    assert "NOT_APPROVED" in page
    run_evaluation(plan, read_package_files(path), sites_of(plan, parts, tmp_path), out)
    assert newest_refusals(tmp_path / "kit")[1] == {}, "a refusal of an earlier run of the same plan"
    assert len(list(out.glob("*-coordinator.jsonl"))) == 1
    assert len(list(out.glob("*-federation.json"))) == 1
    later = tmp_path / "kit" / "federation" / "0123456789abcdef"
    later.mkdir()
    (later / PLAN_COPY).write_text("{}")
    assert unfinished_runs(tmp_path / "kit") == ["0123456789abcdef"]


def test_pooled_patients_have_the_pairs_of_their_hospitals_and_more(tmp_path: Path) -> None:
    """What is told over all sites rests on within-site pairs: their numbers are sums of what each told."""
    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    parts = parts_of(plan)
    scores = run_evaluation(plan, read_package_files(path), sites_of(plan, parts, tmp_path), tmp_path / "out")
    overall = json.loads((tmp_path / "out" / "federation.json").read_text())["shared"]["overall"]
    won, pairs = (sum(one.numbers[name] for one in scores.values()) for name in ("concordant", "comparable"))
    assert overall["concordance"] == pytest.approx(won / pairs)
    everybody = pool(parts)
    assert len(everybody.cohort) == sum(one.numbers["patients"] for one in scores.values())


def test_a_job_of_an_evaluation_brings_the_package_to_the_coordinator_alone(tmp_path: Path) -> None:
    pytest.importorskip("nvflare")
    from pathoml.federated.flare.jobs import write_job

    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    job = write_job(plan, tmp_path / "jobs", read_package_files(path))
    meta = json.loads((job / "meta.json").read_text())
    assert meta["deploy_map"] == {"coordinator": ["server"], "app": [*plan.sites]}
    files = {str(one.relative_to(job)) for one in job.rglob("*") if one.is_file()}
    assert files == {
        "meta.json", "app/config/config_fed_client.json", "coordinator/config/config_fed_server.json",
        "coordinator/package/model.json", "coordinator/package/model.safetensors",
    }  # fmt: skip
    assert read_package_files(job / "coordinator" / "package") == read_package_files(path)


def test_an_evaluation_is_not_started_without_its_package(tmp_path: Path) -> None:
    pytest.importorskip("nvflare")
    from pathoml.federated.flare.kits import Kit, Role
    from pathoml.federated.flare.operating import submit

    path = package_in(tmp_path / "made")
    plan = evaluation_of(path)
    kit = Kit(tmp_path, Role.OPERATOR, "operator", "coordinator", plan.digest)
    kit.plan_path.write_text(json.dumps(plan.model_dump(mode="json")))
    with pytest.raises(ConfigError, match="pathoml federate evaluate KIT PACKAGE"):
        submit(kit)
    trained = Kit(tmp_path, Role.OPERATOR, "operator", "coordinator", plan_of().digest)
    trained.plan_path.write_text(json.dumps(plan_of().model_dump(mode="json")))
    with pytest.raises(FederationError, match="trains a model"):
        submit(trained, package=path)
