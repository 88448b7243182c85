"""From slides and a table to the report, through the Python interface."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.bags import read_bag
from pathoml.config import load_config
from pathoml.errors import BagMismatchError, InputError
from pathoml.pipeline.predicting import PredictRequest, draw_maps, predict
from pathoml.pipeline.reporting import report_stage
from pathoml.pipeline.running import run
from pathoml.pipeline.stages import StageContext, evaluate_stage, train_stage
from pathoml.pipeline.study import open_run, open_study
from pathoml.predictions import read_predictions

pytestmark = pytest.mark.xdist_group("small_cohort")


def test_every_stage_leaves_its_files(finished):
    folder = finished.result.folder
    for path in (
        folder.config,
        folder.folds,
        folder.flow,
        folder.flow_table,
        folder.leakage,
        folder.predictions,
        folder.evaluation,
        folder.report,
        folder.package / "model.json",
    ):
        assert path.is_file(), path
    assert len(finished.result.heatmaps) == 4
    assert finished.result.failed == ()


def test_every_patient_is_tested_once_in_each_scheme(finished):
    table = read_predictions(finished.result.folder.predictions).table
    cohort = pd.read_csv(finished.folder / "cohort.csv", dtype=str)
    for _, rows in table[table["role"] == "test"].groupby(["model", "scheme"]):
        assert sorted(rows["patient_id"]) == sorted(cohort["patient_id"])


def test_patients_of_two_slides_form_one_bag(finished):
    slides = pd.read_csv(finished.folder / "slides.csv", dtype=str)
    counts = slides["patient_id"].value_counts()
    assert (counts == 2).any()
    table = read_predictions(finished.result.folder.predictions).table
    test = table[(table["role"] == "test") & (table["model"] == "model") & (table["scheme"] == "kfold")]
    assert set(test["patient_id"].value_counts()) == {1}


def test_running_again_changes_nothing_and_fits_nothing(finished, monkeypatch):
    before = {path: path.read_bytes() for path in finished.result.folder.root.rglob("*") if path.is_file()}
    monkeypatch.setattr("pathoml.fold_fitting.fit_member", lambda *_, **__: pytest.fail("fitted again"))
    monkeypatch.setattr("pathoml.extract.floor.decode_here", lambda *_, **__: pytest.fail("extracted again"))
    run(load_config(finished.config), StageContext())
    after = {path: path.read_bytes() for path in finished.result.folder.root.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} == set()


def test_report_shows_both_schemes_the_clinical_model_and_research_use_only(finished):
    page = finished.result.report.read_text()
    for text in (
        "Research use only",
        "Cross-validation",
        "Leaving one hospital out",
        "clinical model (Cox)",
        "Integrated Brier",
    ):
        assert text in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)


def test_no_output_names_a_folder_of_this_machine_in_what_travels(finished):
    for name in ("model.json", "MODEL_CARD.md", "model.safetensors"):
        content = (finished.result.folder.package / name).read_bytes()
        assert str(finished.folder).encode() not in content
        assert b"P001" not in content


def test_predictions_say_research_use_only_in_every_row(finished):
    with finished.result.folder.predictions.open() as stream:
        assert {row["notice"] for row in csv.DictReader(stream)} == {"research use only"}


def test_predicting_from_slides_and_from_their_bags_gives_the_same_risk(finished, tmp_path):
    package, table = finished.result.folder.package, finished.folder / "cohort.csv"
    slides = pd.read_csv(finished.folder / "slides.csv", dtype=str).drop_duplicates("patient_id", keep=False).head(3)
    manifest = tmp_path / "three.csv"
    slides.assign(path=[finished.folder / path for path in slides["path"]]).to_csv(manifest, index=False)
    from_slides, outcomes = predict(PredictRequest(package, (manifest,), tmp_path, table=table), StageContext())
    assert {outcome.status for outcome in outcomes} == {"done"}
    bags = tuple(finished.folder / "bags" / f"{slide}.h5" for slide in slides["slide_id"])
    names = dict(zip(slides["patient_id"], slides["slide_id"], strict=True))
    renamed = tmp_path / "renamed.csv"
    pd.read_csv(table, dtype=str).replace({"patient_id": names}).to_csv(renamed, index=False)
    from_bags, _ = predict(PredictRequest(package, bags, tmp_path / "bags-only", table=renamed), StageContext())
    assert from_bags.table["risk"].tolist() == from_slides.table["risk"].tolist()
    assert np.array_equal(from_bags.survival, from_slides.survival)


def test_a_slide_alone_is_predicted_only_with_its_covariates_or_permission(finished, tmp_path):
    slide = finished.folder / "slides" / "P001-1.tif"
    request = PredictRequest(finished.result.folder.package, (slide,), tmp_path)
    with pytest.raises(InputError, match=r"age.*--impute-covariates"):
        predict(request, StageContext())
    filled = PredictRequest(finished.result.folder.package, (slide,), tmp_path, impute_covariates=True)
    predictions, _ = predict(filled, StageContext())
    assert predictions.table["patient_id"].tolist() == ["P001-1"]
    assert np.isfinite(predictions.table["risk"]).all()


def test_a_bag_made_with_other_settings_is_refused_with_the_difference(
    finished, copy_of_cohort: Callable[[], Path], tmp_path
):
    folder = copy_of_cohort()
    config = load_config(folder / "study.yaml", ["encoder={kind: lite0, features: head}", "extract.workers=0"])
    study = open_study(config)
    from pathoml.extract import extract_archive

    extract_archive(study.entries[:1], config.recipe, tmp_path / "other")
    bag = tmp_path / "other" / f"{study.entries[0].slide_id}.h5"
    request = PredictRequest(finished.result.folder.package, (bag,), tmp_path / "out", impute_covariates=True)
    with pytest.raises(BagMismatchError, match=r"encoder is 'lite0-head', the model has 'lite0-stages'"):
        predict(request, StageContext())


def test_maps_of_a_slide_never_seen_are_drawn_from_the_package(finished, tmp_path):
    from pathoml.heatmap_settings import HeatmapSettings

    request = PredictRequest(finished.result.folder.package, (finished.folder / "slides" / "P002-1.tif",), tmp_path)
    drawn, _ = draw_maps(request, StageContext(), HeatmapSettings())
    assert [path.name for path in drawn] == ["P002-1_contribution.png", "P002-1_attention.png"]


def test_one_damaged_slide_is_left_out_said_and_does_not_stop_the_run(finished, copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    (folder / "broken.tif").write_bytes(b"not a slide")
    slides.loc[0, "path"] = "broken.tif"
    slides.to_csv(folder / "slides.csv", index=False)
    shutil.copytree(finished.folder / "bags", folder / "bags")
    (folder / "bags" / f"{slides.loc[0, 'slide_id']}.h5").unlink()
    result = run(load_config(folder / "study.yaml", ["splits.schemes=[{kind: kfold, folds: 2}]"]), StageContext())
    assert [outcome.code for outcome in result.failed] == ["TEXT"]
    assert slides.loc[0, "slide_id"] in result.report.read_text()


@pytest.mark.slow
def test_stages_run_one_by_one_give_what_run_gives(finished, copy_of_cohort: Callable[[], Path]):
    from pathoml.pipeline.stages import extract_stage

    folder = copy_of_cohort()
    shutil.copytree(finished.folder / "bags", folder / "bags")
    study = open_study(load_config(folder / "study.yaml"))
    extract_stage(study, StageContext())
    train_stage(study, StageContext())
    evaluate_stage(open_run(folder / "run"))
    report_stage(open_run(folder / "run"))
    assert (folder / "run" / "predictions.csv").read_bytes() == finished.result.folder.predictions.read_bytes()
    assert json.loads((folder / "run" / "evaluation.json").read_text()) == finished.result.evaluation


def test_training_before_extraction_says_what_to_do(copy_of_cohort: Callable[[], Path]):
    study = open_study(load_config(copy_of_cohort() / "study.yaml"))
    with pytest.raises(InputError, match="run 'pathoml extract' first"):
        train_stage(study, StageContext())


def test_bags_are_whole_and_of_the_resolution_asked_for(finished):
    for path in sorted((finished.folder / "bags").glob("*.h5")):
        header = read_bag(path).header
        assert header.mpp_read == pytest.approx((0.5, 0.5), rel=0.02)


def test_an_edited_table_of_folds_is_not_ignored(copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    patients = pd.read_csv(folder / "cohort.csv", dtype=str)[["patient_id"]]
    folds = folder / "given.csv"
    overrides = ["slides=null", "splits.schemes=[{kind: fixed, table: given.csv}]", "cohort.site=null"]
    tested = []
    for shift in (0, 1):
        halves = [str((index + shift) // 6 % 2) for index in range(len(patients))]
        patients.assign(fold=halves).to_csv(folds, index=False)
        train_stage(open_study(load_config(folder / "study.yaml", overrides)), StageContext())
        tested.append((folder / "run" / "folds.csv").read_text())
    assert tested[0] != tested[1]
