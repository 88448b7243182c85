"""A cohort of features in which a signal was planted, and ways to fit, alter and compare models of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml import survival
from pathoml.bags import FeatureSpec
from pathoml.cohort import Cohort
from pathoml.covariates import NumericCovariate
from pathoml.infer import predict_member
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings, ModelSettings
from pathoml.packages import Member, Package, save_package
from pathoml.splits import Fold, KFoldSettings, SplitsSettings, make_folds
from pathoml.train import TrainingData
from pathoml.train_settings import TrainSettings

AGE = (NumericCovariate(column="age"),)
MEAN = ModelSettings(aggregator=MeanPoolSettings(), tile_components=6)
ABMIL = ModelSettings(aggregator=AbmilSettings(hidden_dim=8, attention_dim=8, dropout=0.1), tile_components=6)
QUICK = TrainSettings(max_epochs=8, patience=8)
SPEC = FeatureSpec("lite0", "w" * 64, 0.5, 224, "float32", "s" * 64)
DAYS = tuple(np.linspace(50, 3000, 20).tolist())
TEMPLATE = Package((), SPEC, None, DAYS, {"endpoint": "overall survival"})


def data(patients: int = 120, *, slides: bool = True) -> TrainingData:
    """Plant a signal: the share of tiles of one kind, and age a little, make the event come early."""
    rng = np.random.default_rng(0)
    share, age = rng.random(patients), rng.normal(60, 10, patients)
    hazard = np.exp(10 * (share - 0.5) + 0.03 * (age - 60))
    event_time, censoring = rng.exponential(500 / hazard), rng.exponential(2500, patients)
    names = [f"patient-{i:03d}" for i in range(patients)]
    bags = {}
    for name, one in zip(names, share, strict=True):
        tiles = rng.normal(0, 1, (30, 6))
        tiles[np.arange(30) < 30 * one, 0] += 4
        bags[name] = tiles.astype(np.float16)
    cohort = Cohort(
        np.array(names), np.minimum(event_time, censoring), (event_time <= censoring).astype(np.int64),
        np.array(["a", "b"] * (patients // 2)), pd.DataFrame({"age": age}), "overall survival",
    )  # fmt: skip
    return TrainingData(cohort, PatientFeatures(bags, SPEC, "digest") if slides else None, AGE)


def one_fold(everything: TrainingData) -> Fold:
    return make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))[0]


def saved(member: Member, folder: Path) -> dict[str, bytes]:
    """Everything that a member is, as bytes."""
    save_package(folder, replace(TEMPLATE, members=(member,)))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def concordance(member: Member, everything: TrainingData, patients: tuple[str, ...]) -> float:
    table, _ = predict_member(member, select_patients(everything.cohort, everything.features, patients), np.array(DAYS))
    rows = everything.cohort.rows_of(patients)
    outcome = everything.cohort.time_days[rows], everything.cohort.event[rows]
    return survival.concordance(*outcome, table["risk"].to_numpy())


def altered(everything: TrainingData, patients: tuple[str, ...]) -> TrainingData:
    """Give some patients another outcome, other covariates and other tiles."""
    cohort, rows = everything.cohort, everything.cohort.rows_of(patients)
    time, event, covariates = cohort.time_days.copy(), cohort.event.copy(), cohort.covariates.copy()
    time[rows], event[rows] = 1 + rows, 1 - event[rows]
    covariates.loc[rows, "age"] = 1e3
    features = everything.features
    if features is not None:
        bags = {**features.of_patient, **{name: np.full((3, 6), 999, np.float16) for name in patients}}
        features = PatientFeatures(bags, SPEC, "another digest")
    return TrainingData(replace(cohort, time_days=time, event=event, covariates=covariates), features, AGE)
