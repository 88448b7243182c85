"""Age and sex on the five folds of the published results, with nothing but pathoml's own code."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.baseline_settings import BaselineSettings
from pathoml.cohort import Cohort, CohortSettings, read_cohort
from pathoml.covariates import BlockCovariate, NumericCovariate, fit_covariates
from pathoml.cross_validation import cross_validate
from pathoml.evaluate import EvaluateSettings, evaluate, fold_mean_concordance
from pathoml.fold_fitting import FitPlan
from pathoml.mil.settings import MeanPoolSettings, ModelSettings
from pathoml.packages import Package
from pathoml.splits import Fold, check_folds
from pathoml.survival.baselines import fit_cox
from pathoml.train import TrainingData
from pathoml.train_settings import TrainSettings

CLINICAL = (NumericCovariate(column="age"), NumericCovariate(column="is_female"))


def tcga_cohort(data_dir: Path, name: str, folder: Path, covariates=CLINICAL) -> Cohort:
    with zipfile.ZipFile(data_dir / "tcga" / f"tcga_{name}_all_clean.csv.zip") as archive:
        (folder / "table.csv").write_bytes(archive.read(archive.namelist()[0]))
    settings = CohortSettings(
        table=folder / "table.csv", patient_id="case_id", time="survival_months", time_unit="months", event="censorship",
        event_codes={"0": 1, "1": 0}, site="site", covariates=covariates,
    )  # fmt: skip
    return read_cohort(settings)


def published_folds(data_dir: Path, name: str, cohort: Cohort) -> list[tuple[list[str], list[str]]]:
    """Return train and test patients of each fold, of those that the table has."""
    present = set(cohort.patient_id)
    folds = []
    for index in range(5):
        table = pd.read_csv(data_dir / "tcga" / "splits" / f"tcga_{name}" / f"splits_{index}.csv", dtype=str)
        groups = ([patient for patient in table[role].dropna() if patient in present] for role in ("train", "val"))
        folds.append(tuple(groups))
    return folds


@pytest.mark.parametrize(
    ("name", "published"), [("blca", 0.613), ("brca", 0.627), ("gbmlgg", 0.768), ("luad", 0.537), ("ucec", 0.571)]
)
def test_age_and_sex_reproduce_the_known_concordance(
    data_dir: Path, tmp_path: Path, name: str, published: float
) -> None:
    cohort = tcga_cohort(data_dir, name, tmp_path)
    time, event, risk, tested_in = [], [], [], []
    for index, (train, test) in enumerate(published_folds(data_dir, name, cohort)):
        fit, score = cohort.rows_of(train), cohort.rows_of(test)
        transform = fit_covariates(CLINICAL, cohort.covariates.iloc[fit])
        design = transform.apply(cohort.covariates.iloc[fit])
        model = fit_cox(design, cohort.time_days[fit], cohort.event[fit], ridge=1.0)
        time.append(cohort.time_days[score])
        event.append(cohort.event[score])
        risk.append(model.log_hazard(transform.apply(cohort.covariates.iloc[score])))
        tested_in += [str(index)] * len(score)
    found = fold_mean_concordance(np.concatenate(time), np.concatenate(event), np.concatenate(risk), tested_in)
    assert found == pytest.approx(published, abs=0.001)


@pytest.mark.parametrize(
    ("columns", "lowest"), [("[A-C]*_rnaseq", 0.55), pytest.param("*_rnaseq", 0.58, marks=pytest.mark.slow)]
)
def test_clinical_and_omics_run_through_cross_validation_without_slides(
    data_dir: Path, tmp_path: Path, columns: str, lowest: float
) -> None:
    covariates = (*CLINICAL, BlockCovariate(name="rnaseq", columns=columns, components=32))
    cohort = tcga_cohort(data_dir, "blca", tmp_path, covariates)
    rng = np.random.default_rng(0)
    folds = []
    for index, (train, test) in enumerate(published_folds(data_dir, "blca", cohort)):
        order = rng.permutation(train).tolist()
        aside = len(order) // 5
        folds.append(Fold("fixed", str(index), tuple(order[aside:]), tuple(order[:aside]), tuple(test)))
    check_folds(cohort, folds)
    template = Package((), None, None, tuple(np.linspace(30, 3000, 40).tolist()), {"endpoint": "overall survival"})
    settings = TrainSettings(max_epochs=30, patience=5, learning_rate=1e-3, covariate_ridge=200)
    few = BaselineSettings(inner_folds=2, penalties=4, elastic_columns=200, trees=20)
    model = ModelSettings(aggregator=MeanPoolSettings())
    plan = FitPlan(model, settings, template, tmp_path / "members", baselines=few)
    packages, predictions = cross_validate(TrainingData(cohort, None, covariates), folds, plan)
    result = evaluate(predictions, EvaluateSettings(bootstraps=200))["schemes"]["fixed"]
    concordance = result["metrics"]["model"]["concordance"]
    assert len(packages) == concordance["folds"] == 5
    assert lowest < concordance["value"] < 0.70
    assert concordance["low"] < concordance["value"] < concordance["high"]
    assert 0.1 < result["metrics"]["model"]["integrated_brier"]["value"] < 0.25
    clinical = [fold["concordance"]["clinical"] for fold in result["folds"]]
    assert np.mean(clinical) == pytest.approx(0.613, abs=0.01)
