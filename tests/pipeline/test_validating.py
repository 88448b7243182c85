"""A frozen package on other patients: unchanged, judged, recalibrated beside; and runs side by side."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pathoml.cli.root import app
from pathoml.config import load_config
from pathoml.errors import CohortError, InputError, LeakError, PackageError
from pathoml.files import file_digest
from pathoml.pipeline.comparing import compare
from pathoml.pipeline.predicting import PredictRequest, predict
from pathoml.pipeline.reporting import report_stage
from pathoml.pipeline.stages import StageContext, evaluate_stage, train_stage
from pathoml.pipeline.study import open_study
from pathoml.pipeline.validating import ValidateRequest, validate
from pathoml.predictions import read_predictions
from tests.small_cohort import FinishedRun

CONFIG = """
name: Table alone
output: {output}
cohort:
  table: {table}
  time: time
  time_unit: days
  event: event
  site: site
  covariates:
    - {{kind: numeric, column: age}}
    - {{kind: categorical, column: sex}}
splits: {{schemes: [{{kind: kfold, folds: 3}}]}}
train: {{max_epochs: 15, seed: {seed}}}
evaluate: {{bootstraps: 100, permutations: 20, trial: {{simulations: 3}}}}
"""


def write_study(
    folder: Path, name: str, *, seed: int = 0, patients: int = 150, level: float = 1.0, sexes: str = "fm"
) -> Path:
    rng = np.random.default_rng(seed)
    age, sex = rng.normal(60, 10, patients), rng.choice(list(sexes), patients)
    happens = rng.exponential(900 * np.exp(-0.08 * (age - 60)) / level)
    leaves = rng.uniform(200, 3000, patients)
    table = pd.DataFrame({
        "patient_id": [f"{name}{number}" for number in range(patients)], "time": np.minimum(happens, leaves).round() + 1,
        "event": (happens <= leaves).astype(int), "age": age.round(1), "sex": sex,
        "site": rng.choice(["A", "B"], patients),
    })  # fmt: skip
    table.to_csv(folder / f"{name}.csv", index=False)
    path = folder / f"{name}.yaml"
    path.write_text(CONFIG.format(output=f"run-{name}", table=f"{name}.csv", seed=seed))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tabular")
    study = open_study(load_config(write_study(folder, "home")))
    study = train_stage(study, StageContext())
    evaluate_stage(study)
    report_stage(study)
    return folder


def request_for(folder: Path, config: Path, output: Path, **changes: str) -> ValidateRequest:
    return ValidateRequest(folder / "run-home" / "package", load_config(config), output, **changes)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("method", ["level", "slope"])
def test_a_package_is_judged_on_other_patients_and_stays_as_it_is(trained: Path, tmp_path: Path, method: str) -> None:
    config = write_study(tmp_path, "away", seed=1, level=2.5)
    before = bytes_of(trained / "run-home" / "package")
    evaluation, outcomes = validate(
        request_for(trained, config, tmp_path / "out", recalibration=method), StageContext()
    )
    assert bytes_of(trained / "run-home" / "package") == before
    assert outcomes == []
    scheme = evaluation["schemes"]["validation"]
    assert scheme["metrics"]["package"]["concordance"] == pytest.approx(
        scheme["metrics"]["recalibrated"]["concordance"]
    )
    frozen, fitted = (
        scheme["calibration"][name]["horizons"][1]["observed_to_expected"]["value"] for name in scheme["metrics"]
    )
    assert frozen > 1.3  # 2.5 times the hazard that the package knows
    assert abs(fitted - 1) < 0.5 * abs(frozen - 1)
    table = read_predictions(tmp_path / "out" / "predictions.csv").table
    assert set(table["role"]) == {"external"}
    text = (tmp_path / "out" / "report.html").read_text()
    assert "the package, recalibrated" in text
    assert "Nothing of it was fitted again" in text


def test_a_recalibration_is_used_for_its_own_package_only_and_changes_curves_alone(
    trained: Path, tmp_path: Path
) -> None:
    config, package = write_study(tmp_path, "away", seed=1, level=2.5), trained / "run-home" / "package"
    validate(request_for(trained, config, tmp_path / "out"), StageContext())
    stored = tmp_path / "out" / "recalibration.json"
    request = PredictRequest(package, (), tmp_path / "plain", table=tmp_path / "away.csv")
    plain, _ = predict(request, StageContext())
    changed, _ = predict(
        PredictRequest(package, (), tmp_path / "new", table=tmp_path / "away.csv", recalibration=stored), StageContext()
    )
    assert (plain.table["risk"] == changed.table["risk"]).all()
    factor = np.exp(json.loads(stored.read_text())["recalibration"]["level"])
    np.testing.assert_allclose(changed.survival, plain.survival**factor)
    other = json.loads(stored.read_text()) | {"package_sha256": "0"}
    stored.write_text(json.dumps(other))
    wrong = PredictRequest(package, (), tmp_path / "new", table=tmp_path / "away.csv", recalibration=stored)
    with pytest.raises(PackageError, match="made for another package"):
        predict(wrong, StageContext())
    stored.write_text(json.dumps(other | {"format_version": 9}))
    with pytest.raises(PackageError, match="not a recalibration that this pathoml reads"):
        predict(wrong, StageContext())


def test_what_cannot_be_validated_is_refused_with_the_reason(trained: Path, tmp_path: Path) -> None:
    unknown = write_study(tmp_path, "words", seed=2, sexes="fx")
    with pytest.raises(CohortError, match="word\\(s\\) that the model does not know") as caught:
        validate(request_for(trained, unknown, tmp_path / "out"), StageContext())
    assert "'x' was not seen in training" in str(caught.value.problems[0])
    few = write_study(tmp_path, "few", seed=3, patients=8)
    with pytest.raises(InputError, match="a validation needs 10 or more"):
        validate(request_for(trained, few, tmp_path / "out"), StageContext())
    config = write_study(tmp_path, "away", seed=1)
    with pytest.raises(InputError, match="the package's own folder"):
        validate(request_for(trained, config, trained / "run-home" / "package"), StageContext())
    config.write_text(config.read_text().replace("    - {kind: categorical, column: sex}\n", ""))
    with pytest.raises(PackageError, match="trained with column\\(s\\) sex"):
        validate(request_for(trained, config, tmp_path / "out"), StageContext())


def test_patients_that_the_package_has_seen_are_not_its_validation(trained: Path, tmp_path: Path) -> None:
    config = write_study(tmp_path, "away", seed=1)
    table = pd.read_csv(tmp_path / "away.csv")
    table.loc[:2, "patient_id"] = ["home3", "home4", "home5"]
    table.to_csv(tmp_path / "away.csv", index=False)
    with pytest.raises(
        LeakError, match=r"model_saw_test_patients: validation of package.* has seen [23] of these patient"
    ):
        validate(request_for(trained, config, tmp_path / "out"), StageContext())
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_competing_events_stay_competing_events(trained: Path, tmp_path: Path) -> None:
    config = write_study(tmp_path, "away", seed=1)
    table = pd.read_csv(tmp_path / "away.csv")
    table["event"] = np.where((table["event"] == 1) & (table.index % 3 == 0), 2, table["event"])
    table.to_csv(tmp_path / "away.csv", index=False)
    old = "  time: time\n  time_unit: days\n  event: event\n"
    new = (
        "  endpoint: os\n  endpoints:\n    os: {time: time, time_unit: days, event: event,"
        ' event_codes: {"0": 0, "1": 1, "2": 2}, causes: {1: cancer, 2: other}}\n'
    )
    config.write_text(config.read_text().replace(old, new))
    evaluation, _ = validate(request_for(trained, config, tmp_path / "out"), StageContext())
    causes = evaluation["schemes"]["validation"]["groups"]["package"]["incidence"]["high"]["causes"]
    assert set(causes) == {"1", "2"}
    predicted = read_predictions(tmp_path / "out" / "predictions.csv").table
    assert (predicted["event"] == 2).sum() == 2 * (table["event"] == 2).sum()  # package and recalibrated


@pytest.mark.slow
def test_a_package_of_slides_takes_bags_that_fit_or_makes_them_and_says_what_failed(
    finished: FinishedRun, copy_of_cohort: Callable[[], Path], tmp_path: Path
) -> None:
    folder = copy_of_cohort()
    for name in (
        "cohort.csv",
        "slides.csv",
    ):  # the same slides under other patients' names: whom the package knows it refuses
        table = pd.read_csv(folder / name, dtype=str)
        table["patient_id"] = "other-" + table["patient_id"]
        table.to_csv(folder / name, index=False)
    manifest = pd.read_csv(folder / "slides.csv", dtype=str)
    package, config = finished.result.folder.package, load_config(folder / "study.yaml")
    made, outcomes = validate(ValidateRequest(package, config, tmp_path / "made"), StageContext())
    assert {one.slide_id for one in outcomes if one.has_bag} == set(manifest["slide_id"])
    assert made["schemes"]["validation"]["tested"]["patients"] == manifest["patient_id"].nunique()
    bags = ["slides.bags=" + str(finished.folder / "bags")]
    taken, none = validate(
        ValidateRequest(package, load_config(folder / "study.yaml", bags), tmp_path / "taken"), StageContext()
    )
    assert none == []
    assert taken["schemes"] == made["schemes"]
    assert "flow.json" in {path.name for path in (tmp_path / "taken").iterdir()}
    assert f"{len(manifest)} slides analysed" in (tmp_path / "taken" / "report.html").read_text()


def test_runs_stand_side_by_side_with_paired_differences(trained: Path, tmp_path: Path) -> None:
    config = load_config(trained / "home.yaml", ["train.seed=5", "train.max_epochs=2"])
    again = open_study(config.model_copy(update={"output": tmp_path / "again"}))
    train_stage(again, StageContext())
    found = compare([trained / "run-home", tmp_path / "again"], tmp_path / "both.html")
    assert found["schemes"]["kfold"]["same_folds"]
    assert json.loads((tmp_path / "both.json").read_text()) == found
    text = (tmp_path / "both.html").read_text()
    assert "2 Table alone minus 1 Table alone" in text
    assert '<th scope="row">train.max_epochs</th><td>15</td><td>2</td>' in text
    with pytest.raises(InputError, match="two run folders or more"):
        compare([trained / "run-home"], tmp_path / "one.html")


def test_the_commands_say_what_they_wrote(trained: Path, tmp_path: Path) -> None:
    config, run = write_study(tmp_path, "away", seed=1), str(trained / "run-home")
    validated = CliRunner().invoke(app, ["validate", f"{run}/package", str(config), "-o", str(tmp_path / "out")])
    assert validated.exit_code == 0, validated.output
    assert "the package is unchanged" in validated.output
    compared = CliRunner().invoke(app, ["report", "--compare", run, run, "-o", str(tmp_path / "both.html")])
    assert compared.exit_code == 0, compared.output
    assert (tmp_path / "both.html").is_file()


def test_the_evaluation_of_a_run_holds_the_refitted_control_of_the_clinical_model(trained: Path) -> None:
    evaluation = json.loads((trained / "run-home" / "evaluation.json").read_text())["schemes"]["kfold"]
    control = evaluation["permutation"]["clinical"]
    reported = evaluation["metrics"]["clinical"]["concordance"]["value"]
    assert control["concordance"]["observed"] == pytest.approx(reported, abs=1e-6)
    assert control["permutations"] == 20
    assert control["p_value"] == pytest.approx(1 / 21)


@pytest.mark.slow
def test_ridge_baselines_are_fitted_again_on_shuffled_outcomes_where_that_is_asked_for(tmp_path: Path) -> None:
    path = write_study(tmp_path, "home")
    table = pd.read_csv(tmp_path / "home.csv")
    rng = np.random.default_rng(3)
    genes = pd.DataFrame(rng.normal(size=(len(table), 12)) + 0.1 * (table[["age"]].to_numpy() - 60)).add_prefix("g")
    pd.concat([table, genes], axis=1).to_csv(tmp_path / "home.csv", index=False)
    path.write_text(path.read_text().replace("splits:", '    - {kind: block, name: omics, columns: "g*"}\nsplits:'))
    study = train_stage(
        open_study(load_config(path, ["evaluate.permute_baselines=3", "train.max_epochs=0"])), StageContext()
    )
    scheme = evaluate_stage(study)["schemes"]["kfold"]
    for model in ("omics_ridge", "clinical_omics_ridge"):
        control = scheme["permutation"][model]
        reported = scheme["metrics"][model]["concordance"]["value"]
        assert control["permutations"] == 3
        assert control["concordance"]["observed"] == pytest.approx(reported, abs=1e-9)
        assert control["concordance"]["null_high"] < reported
    assert set(scheme["permutation"]) == {"clinical", "omics_ridge", "clinical_omics_ridge"}
    assert [one["part"] for one in scheme["parts"]["parts"]] == ["clinical", "omics"]


@pytest.mark.slow
def test_models_are_trained_on_shuffled_outcomes_where_the_configuration_asks_for_it(tmp_path: Path) -> None:
    config = load_config(write_study(tmp_path, "home"), ["evaluate.permute_model=2", "train.max_epochs=2"])
    study = train_stage(open_study(config), StageContext())
    scheme = evaluate_stage(study)["schemes"]["kfold"]
    control = scheme["permutation"]["model"]
    reported = scheme["metrics"]["model"]["concordance"]["value"]
    assert control["permutations"] == 2
    assert control["concordance"]["observed"] == pytest.approx(reported, abs=1e-9)
    assert scheme["permutation"]["clinical"]["permutations"] == 20
