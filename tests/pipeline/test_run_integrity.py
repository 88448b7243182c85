"""A report shows one run: never the numbers, models or maps of another beside its own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pathoml.config import load_config
from pathoml.errors import InputError, LeakError, SlidesFailedError
from pathoml.pipeline import stages
from pathoml.pipeline.reporting import report_stage
from pathoml.pipeline.run_folder import RunFolder, record_training
from pathoml.pipeline.running import run
from pathoml.pipeline.stages import StageContext, evaluate_stage, train_stage
from pathoml.pipeline.study import open_run, open_study
from pathoml.splits import read_folds, write_folds
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")

TABULAR = ["slides=null", "cohort.site=null", "splits.schemes=[{kind: kfold, folds: 3}]"]


@pytest.fixture
def copy_of_run(finished: FinishedRun, copy_of_cohort: Callable[[], Path]) -> Path:
    """The finished run with bags of its own, free to be changed."""
    folder = copy_of_cohort()
    shutil.copytree(finished.folder / "bags", folder / "bags")
    shutil.copytree(finished.folder / "run", folder / "run")
    return folder


@pytest.mark.slow
def test_a_report_after_training_another_model_leaves_the_old_maps_out(copy_of_run: Path) -> None:
    run_folder = copy_of_run / "run"
    train_stage(open_study(load_config(copy_of_run / "study.yaml", ["model.aggregator={kind: mean}"])), StageContext())
    evaluate_stage(open_run(run_folder))
    page = report_stage(open_run(run_folder)).read_text()
    assert "data:image/png" not in page.split("<h2>Maps")[-1]
    assert "drawn for another training" in page


@pytest.mark.parametrize("last", ["write_predictions", "save_package"])
def test_a_training_that_was_cut_short_is_not_reported_as_done(
    copy_of_cohort: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    folder = copy_of_cohort()
    train_stage(open_study(load_config(folder / "study.yaml", TABULAR)), StageContext())
    evaluate_stage(open_run(folder / "run"))
    report_stage(open_run(folder / "run"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, last, killed)
    other = load_config(folder / "study.yaml", [*TABULAR, "train.seed=5"])
    with pytest.raises(KeyboardInterrupt):
        train_stage(open_study(other), StageContext())
    with pytest.raises(InputError, match="training was not finished; run 'pathoml train' or 'pathoml run' again"):
        report_stage(open_run(folder / "run"))
    with pytest.raises(InputError, match="training was not finished"):
        evaluate_stage(open_run(folder / "run"))


@pytest.mark.parametrize("name", ["predictions.csv", "config.json", "package/model.json", "folds.csv"])
def test_a_file_of_another_run_is_noticed(copy_of_run: Path, name: str) -> None:
    path = copy_of_run / "run" / name
    path.write_text(path.read_text() + "\n")
    with pytest.raises(InputError, match=f"{path.name} is not the one that this training wrote"):
        report_stage(open_run(copy_of_run / "run"))


@pytest.mark.parametrize("altered", ["roles", "model"])
def test_a_run_recorded_anew_after_its_folds_or_models_were_changed_is_not_judged(
    copy_of_run: Path, altered: str
) -> None:
    folder = RunFolder(copy_of_run / "run")
    folds = read_folds(folder.folds)
    if altered == "roles":
        first = replace(folds[0], train=folds[0].test, test=folds[0].train)
        write_folds(folder.folds, [first, *folds[1:]])
    else:
        path = folder.members / folds[0].folder_name / "model.safetensors"
        shutil.copy(folder.members / folds[1].folder_name / "model.safetensors", path)
    record_training(folder, open_run(folder.root).config.digest)
    with pytest.raises(LeakError, match="model_saw_test_patients: fold kfold-0"):
        evaluate_stage(open_run(folder.root))


def test_folds_of_another_configuration_are_never_taken_over(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    ours, theirs = (
        load_config(folder / "study.yaml", TABULAR),
        load_config(folder / "study.yaml", [*TABULAR[:2], "splits.schemes=[{kind: kfold, folds: 2}]"]),
    )
    train_stage(open_study(ours), StageContext())
    stamp = folder / "run" / "folds.sha256"
    kept = stamp.read_text()
    train_stage(open_study(theirs), StageContext())
    stamp.write_text(kept)  # as if killed between the two files
    train_stage(open_study(ours), StageContext())
    assert len(read_folds(folder / "run" / "folds.csv")) == 3


def test_folds_with_lines_taken_out_are_made_again(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    config = load_config(folder / "study.yaml", TABULAR)
    train_stage(open_study(config), StageContext())
    folds = folder / "run" / "folds.csv"
    whole = folds.read_text()
    folds.write_text("".join(line for line in whole.splitlines(keepends=True) if not line.startswith("kfold,1,")))
    train_stage(open_study(config), StageContext())
    assert folds.read_text() == whole


def test_evaluation_and_report_name_the_configuration_they_belong_to(finished: FinishedRun) -> None:
    digest = load_config(finished.config).digest
    folder = finished.result.folder
    assert json.loads(folder.evaluation.read_text())["config_digest"] == digest
    assert json.loads(folder.training.read_text())["config_digest"] == digest
    assert digest in folder.report.read_text()


def test_a_study_whose_slides_all_fail_says_each_and_is_not_wrong_input(copy_of_cohort: Callable[[], Path]) -> None:
    folder = copy_of_cohort()
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    paths = [f"broken-{slide}.tif" for slide in slides["slide_id"]]
    for path in paths:
        (folder / path).write_bytes(b"not a slide")
    slides.assign(path=paths).to_csv(folder / "slides.csv", index=False)
    with pytest.raises(SlidesFailedError, match=r"no patient is left") as caught:
        run(load_config(folder / "study.yaml"), StageContext())
    assert f"slide {slides.loc[0, 'slide_id']}: TEXT" in str(caught.value)


@pytest.mark.parametrize("taken", ["a file stands there", "no folder may be made there"])
def test_an_output_that_can_never_be_written_is_wrong_input(copy_of_cohort: Callable[[], Path], taken: str) -> None:
    folder = copy_of_cohort()
    (folder / "file").write_text("")
    output = folder / "file" if taken == "a file stands there" else Path("/proc/pathoml")
    config = load_config(folder / "study.yaml", [*TABULAR, f"output={output}"])
    with pytest.raises(InputError, match=r"output: .* cannot be written to"):
        run(config, StageContext())


@pytest.mark.parametrize("name", ["environment.json", "evaluation.json"])
def test_a_damaged_or_missing_file_of_a_run_is_named(copy_of_run: Path, name: str) -> None:
    path = copy_of_run / "run" / name
    path.write_text('{"half":')
    with pytest.raises(InputError, match=f"{name}: not readable"):
        report_stage(open_run(copy_of_run / "run"))
    path.unlink()
    with pytest.raises(InputError, match=name):
        report_stage(open_run(copy_of_run / "run"))


def test_a_ledger_with_a_cut_last_line_does_not_stop_the_plan(copy_of_run: Path) -> None:
    from pathoml.pipeline.planning import plan

    ledger = copy_of_run / "bags" / "ledger.jsonl"
    ledger.write_text(ledger.read_text() + '{"slide_id": "P0')
    for bag in (copy_of_run / "bags").glob("*.h5"):
        bag.unlink()
    assert "as in the last extraction" in dict(plan(load_config(copy_of_run / "study.yaml")).facts)["Time to extract"]
