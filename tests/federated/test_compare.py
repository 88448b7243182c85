"""What joining does, and the commands that say it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pathoml.cli import app
from pathoml.federated.compare import compare, risks_at
from pathoml.federated.coordinator import result_to_json
from pathoml.federated.scores import LEAST_EVENTS, SiteScore, scores_to_json
from pathoml.federated.simulate import pool, simulate
from pathoml.federated.site_settings import LimitsSettings
from pathoml.pipeline.federation_pages import write_page
from pathoml.report.federation_page import FederationPage, privacy_sentences
from pathoml.survival import concordance
from pathoml.train import follow_up
from tests.federated.networks import GENES, cohort_of, parts_of, plan_of
from tests.federated.test_private_networks import private_plan
from tests.federated.test_what_leaves import site_in

PUBLIC = LimitsSettings(public_benchmark=True)
NEWTON = {"kind": "newton"}


def test_a_linear_network_is_the_pooled_model_and_is_judged_on_the_same_patients(tmp_path: Path) -> None:
    bins = {"kind": "fixed", "edges_days": [0, 600, 1200, 3000]}
    plan = plan_of(method=NEWTON, bins=bins, minimum_patients=1, minimum_events=0)
    parts = parts_of(plan)
    result, found = compare(plan, parts, tmp_path, limits=PUBLIC)
    assert not found.impossible
    assert abs(found.overall["shared - pooled"].value) < 1e-9
    for name, data in parts.items():
        risk = risks_at(result.package, plan, data)
        expected = concordance(*follow_up(data.cohort, data.test), risk)
        assert found.sites[name]["shared"].value == pytest.approx(expected, abs=1e-12)
        assert {"shared", "pooled", "local", "without", "shared - local"} <= set(found.sites[name])
    assert set(found.gives) == set(parts)
    assert all(np.isfinite(one.value) and one.low <= one.value <= one.high for one in found.gives.values())
    assert found.overall["shared"].low < found.overall["shared"].value < found.overall["shared"].high


def test_of_few_events_there_is_a_value_and_no_interval_nor_verdict(tmp_path: Path) -> None:
    """A bootstrap of three events calls every ninth difference shown that is none."""
    plan = plan_of(method=NEWTON, minimum_patients=1, minimum_events=0)
    parts = parts_of(plan)
    few = parts["west"]
    rows = few.cohort.rows_of(few.test)
    kept = np.sort(rows[few.cohort.event[rows] == 1])[:3]
    alive = few.cohort.event.copy()
    alive[np.setdiff1d(rows, kept)] = 0
    parts["west"] = replace(few, cohort=replace(few.cohort, event=alive))
    result, found = compare(plan, parts, tmp_path, limits=PUBLIC)
    assert found.events["west"] == 3
    for name, one in found.sites["west"].items():
        assert np.isfinite(one.value), name
        assert np.isnan(one.low), name
        assert np.isnan(one.high), name
    assert np.isfinite(found.overall["shared - local"].low)
    assert found.events["north"] >= LEAST_EVENTS
    assert np.isfinite(found.sites["north"]["shared"].low)
    assert {"concordance", "concordance_low"} & result.scores["west"].numbers.keys() == {"concordance"}
    page = write_page(plan, tmp_path, result, found, tmp_path / "shared" / "sites").read_text()
    assert "too few events to tell" in page
    assert f"None is given of fewer than {LEAST_EVENTS} events" in page


def test_over_all_sites_too_there_is_no_interval_of_few_events() -> None:
    drawn = np.arange(1.0, 201.0)

    def score(**numbers: float) -> SiteScore:
        return SiteScore({"concordant": 5.0, "comparable": 9.0, **numbers}, drawn, 2 * drawn)

    few = scores_to_json({"a": score(events=3.0), "b": score(events=3.0)})["overall"]
    assert few["concordance"] == pytest.approx(5 / 9)
    assert "concordance_low" not in few
    assert "concordance_low" in scores_to_json({"a": score(events=7.0), "b": score(events=3.0)})["overall"]
    assert "concordance_low" not in scores_to_json({"a": score()})["overall"], "a site that does not tell its events"
    assert "concordance_low" in scores_to_json({"a": score(concordance_low=0.4)})["overall"]


def test_what_sites_tell_is_what_their_patients_say(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON, minimum_patients=1, minimum_events=0)
    parts = parts_of(plan)
    result, found = compare(plan, parts, tmp_path, limits=PUBLIC)
    for name in parts:
        assert result.scores[name].numbers["concordance"] == pytest.approx(found.sites[name]["shared"].value, abs=1e-12)


def test_a_model_that_cannot_be_trained_is_named_and_the_rest_is_told(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON, quorum=1)
    cohort = cohort_of()
    alive = np.where(cohort.site == "west", 0, cohort.event)
    parts = parts_of(plan, replace(cohort, event=alive.astype(np.int64)))
    _, found = compare(plan, parts, tmp_path, limits=LimitsSettings())
    assert set(found.impossible) == {"local-west"}
    assert "west: TOO_FEW_PATIENTS" in found.impossible["local-west"]
    assert "local" not in found.overall  # not every site has one


def test_pooling_keeps_everybody_in_the_role_they_had() -> None:
    parts = parts_of(plan_of())
    joined = pool(parts)
    assert sorted(joined.test) == sorted(name for one in parts.values() for name in one.test)
    assert len(joined.cohort) == sum(len(one.cohort) for one in parts.values())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    plan = plan_of(method=NEWTON)
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(plan.model_dump(mode="json")))
    found = {"plan": path}
    for name in plan.sites:
        folder = tmp_path / name
        folder.mkdir()
        found[name] = site_in(folder, plan, name=name)
    return found


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, ["federate", *(str(word) for word in words)])


def test_a_hospital_checks_rehearses_and_approves(files: dict[str, Path], tmp_path: Path) -> None:
    told = run("plan", files["plan"])
    digest = told.output.split("hash: ")[1].split()[0]
    checked = run("check", files["west"], files["plan"])
    assert checked.exit_code == 0, checked.output
    assert "the site fits the plan" in checked.output
    rehearsed = run("dry-run", files["west"], files["plan"], "-o", tmp_path / "dry")
    assert rehearsed.exit_code == 0, rehearsed.output
    assert "hessian: float64" in rehearsed.output
    assert "Canary" not in rehearsed.output
    assert run("audit", "verify", tmp_path / "dry" / "site" / "audit.jsonl").exit_code == 0
    with pytest.raises(ValueError, match="holds a rehearsal, which would go on where it ended"):
        CliRunner().invoke(
            app, ["federate", "dry-run", str(files["west"]), str(files["plan"]), "-o", str(tmp_path / "dry")],
            catch_exceptions=False,
        )  # fmt: skip
    with pytest.raises(Exception, match="ask the coordinator"):
        CliRunner().invoke(
            app, ["federate", "approve", str(files["west"]), str(files["plan"]), "0" * 64], catch_exceptions=False
        )
    assert "approved" in run("approve", files["west"], files["plan"], digest).output


def test_sites_of_files_are_simulated_and_the_page_says_what_left(files: dict[str, Path], tmp_path: Path) -> None:
    sites = [word for name in ("north", "south", "west") for word in ("--site", files[name])]
    told = run("simulate", files["plan"], *sites, "-o", tmp_path / "out", "--device", "cpu")
    assert told.exit_code == 0, told.output
    page = (tmp_path / "out" / "federation.html").read_text()
    assert "Everything that left a site" in page
    assert "newton" in page
    assert "Canary" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    shown = run("audit", "show", tmp_path / "out" / "shared" / "sites" / "west" / "audit.jsonl")
    assert "setup" in shown.output


def test_sites_of_files_are_compared_as_a_cohort_is(files: dict[str, Path], tmp_path: Path) -> None:
    sites = [word for name in ("north", "south", "west") for word in ("--site", files[name])]
    told = run("simulate", files["plan"], *sites, "--compare", "-o", tmp_path / "out", "--device", "cpu")
    assert told.exit_code == 0, told.output
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert set(found["sites"]) == {"north", "south", "west"}
    page = (tmp_path / "out" / "federation.html").read_text()
    assert "Does joining help?" in page
    assert "Of 3 hospitals, by joining, on their own test patients:" in page
    assert run("simulate", files["plan"], *sites, "--public-benchmark", "-o", tmp_path / "b").exit_code == 2


def test_a_rehearsal_writes_every_number_that_would_leave(files: dict[str, Path], tmp_path: Path) -> None:
    assert run("dry-run", files["west"], files["plan"], "-o", tmp_path / "dry").exit_code == 0
    written = sorted((tmp_path / "dry" / "left").iterdir())
    lines = [json.loads(one) for one in (tmp_path / "dry" / "site" / "audit.jsonl").read_text().splitlines()]
    out = [one for one in lines if one["direction"] == "out"]
    assert len(written) == len(out)
    for path, line in zip(written, out, strict=True):
        said = json.loads(path.read_text())
        assert said["numbers"] == line["numbers"]
        assert sorted(said["arrays"]) == [name for name, _, _ in line["arrays"]]
        for name, _, shape in line["arrays"]:
            assert list(np.shape(said["arrays"][name])) == shape


def test_lines_cut_off_the_end_of_a_log_show_by_a_hash_that_was_written_down(
    files: dict[str, Path], tmp_path: Path
) -> None:
    assert run("dry-run", files["west"], files["plan"], "-o", tmp_path / "dry").exit_code == 0
    log = tmp_path / "dry" / "site" / "audit.jsonl"
    head = run("audit", "verify", log).output.split("hash of the last: ")[1].split()[0]
    assert run("audit", "verify", log, "--known", head).exit_code == 0
    read_out = " ".join(head[start : start + 4] for start in range(0, 16, 4)).upper()
    assert run("audit", "verify", log, "--known", read_out).exit_code == 0
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert run("audit", "verify", log).exit_code == 0, "by itself a shorter chain is whole"
    cut = run("audit", "verify", log, "--known", head)
    assert cut.exit_code == 1
    assert "lines were cut off the end" in cut.output
    assert run("audit", "verify", log, "--known", "abc").exit_code == 2
    assert "no such log" in run("audit", "verify", tmp_path / "audit.jsonl").output
    shown = run("audit", "show", log, "--lines", "2").output
    assert "the last 2 of " in shown


def test_a_cohort_is_divided_by_its_hospitals_and_compared(tmp_path: Path) -> None:
    cohort = cohort_of(patients=300)
    table = cohort.covariates.assign(
        patient_id=cohort.patient_id, days=cohort.time_days, e=cohort.event, place=cohort.site
    )
    table.to_csv(tmp_path / "cohort.csv", index=False)
    (tmp_path / "study.yaml").write_text(
        "name: s\noutput: run\ncohort: {table: cohort.csv, time: days, time_unit: days, event: e, site: place}\n"
    )
    (tmp_path / "plan.yaml").write_text(json.dumps(plan_of(method=NEWTON).model_dump(mode="json")))
    told = run(
        "simulate", tmp_path / "plan.yaml", "--config", tmp_path / "study.yaml", "--compare", "-o", tmp_path / "out",
        "--device", "cpu",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert set(found["sites"]) == {"north", "south", "west"}
    page = (tmp_path / "out" / "federation.html").read_text()
    assert "Does joining help?" in page
    assert GENES[0] not in page
    assert "Declared public" not in page
    told = run(
        "simulate", tmp_path / "plan.yaml", "--config", tmp_path / "study.yaml", "--public-benchmark", "-o", tmp_path / "public",
        "--device", "cpu",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    page = (tmp_path / "public" / "federation.html").read_text()
    assert "Declared public or drawn" in page
    assert "north, south, west" in page


def test_hospitals_that_the_plan_does_not_know_are_named(tmp_path: Path) -> None:
    cohort = cohort_of(patients=60)
    table = cohort.covariates.assign(
        patient_id=cohort.patient_id, days=cohort.time_days, e=cohort.event, place=cohort.site
    )
    table.to_csv(tmp_path / "cohort.csv", index=False)
    (tmp_path / "study.yaml").write_text(
        "name: s\noutput: run\ncohort: {table: cohort.csv, time: days, time_unit: days, event: e, site: place}\n"
    )
    (tmp_path / "plan.yaml").write_text(json.dumps(plan_of(("north", "south")).model_dump(mode="json")))
    with pytest.raises(Exception, match="west; add them to the plan"):
        CliRunner().invoke(
            app,
            ["federate", "simulate", str(tmp_path / "plan.yaml"), "--config", str(tmp_path / "study.yaml")],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("name", ["plan.yaml", "pittsburgh.yaml", "evaluation.yaml", "site.yaml"])
def test_the_example_files_are_read(name: str) -> None:
    from pathoml.federated.plan import read_plan
    from pathoml.federated.site_settings import read_site

    path = Path(__file__).parents[2] / "configs" / "federated" / name
    read = read_site(path) if name == "site.yaml" else read_plan(path)
    assert read.name


def test_the_page_of_a_network_without_privacy_says_that_there_is_none(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON)
    result, found = compare(plan, parts_of(plan), tmp_path, limits=PUBLIC)
    page = write_page(plan, tmp_path, result, found, tmp_path / "shared" / "sites").read_text()
    assert "Differential privacy: none." in page
    assert "nothing on this page is private" in page
    assert "epsilon" not in page
    assert "by west&#39;s joining" in page or "by west's joining" in page


def test_the_page_and_the_card_say_what_was_spent_of_privacy_and_that_comparisons_are_not_private(
    tmp_path: Path,
) -> None:
    plan = private_plan({"spare_passes": 0})
    assert plan.privacy is not None
    result = simulate(plan, parts_of(plan), tmp_path)
    page = write_page(plan, tmp_path, result, None, tmp_path / "sites").read_text()
    spent = json.loads((tmp_path / "coordinator" / "federation.json").read_text())["privacy"]["epsilon_spent"]
    assert f"Differential privacy: epsilon {plan.privacy.epsilon:g}" in page
    assert f"has spent {spent:.3g}" in page
    assert "The comparison itself" not in page
    compared = FederationPage("t", [], result_to_json(plan, result), {"overall": {}}, [], [])
    assert "The comparison itself is not private" in privacy_sentences(compared)[1]
    card = (tmp_path / "coordinator" / "package" / "MODEL_CARD.md").read_text()
    assert f"differential, of each patient: epsilon {plan.privacy.epsilon:g}" in card


def test_the_card_of_a_model_without_privacy_says_that_there_is_none(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON)
    simulate(plan, parts_of(plan), tmp_path)
    card = (tmp_path / "coordinator" / "package" / "MODEL_CARD.md").read_text()
    assert "| Privacy of the patients trained on | none: weights are computed from patients" in card


def test_a_coordinator_makes_a_page_of_what_sites_told_it(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON)
    simulate(plan, parts_of(plan), tmp_path)
    (tmp_path / "kit" / "federation").mkdir(parents=True)
    (tmp_path / "coordinator").rename(tmp_path / "kit" / "federation" / plan.digest[:16])
    told = run("report", tmp_path / "kit")
    assert told.exit_code == 0, told.output
    assert "Concordance" in told.output
    assert all(site in told.output for site in plan.sites)
    page = (tmp_path / "kit" / "federation" / plan.digest[:16] / "federation.html").read_text()
    assert "As the coordinator sees it" in page
    assert "Differential privacy: none." in page
    with pytest.raises(ValueError, match="no run has ended here"):
        CliRunner().invoke(app, ["federate", "report", str(tmp_path)], catch_exceptions=False)
