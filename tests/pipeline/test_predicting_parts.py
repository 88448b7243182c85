"""`predict` for patients who lack parts of a model: who is scored, what is said, who is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.errors import InputError
from pathoml.infer import predict_package
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import AbmilSettings, ModelSettings
from pathoml.packages import Package, save_package
from pathoml.pipeline.predicting import PredictRequest, predict
from pathoml.pipeline.stages import StageContext
from pathoml.splits import KFoldSettings, SplitsSettings, make_folds
from pathoml.testing.modalities import plant_modalities
from pathoml.train import fit_member
from pathoml.train_settings import TrainSettings
from tests.modalities import SPEC, training_data

MODEL = ModelSettings(aggregator=AbmilSettings(hidden_dim=4, attention_dim=4), tile_components=None)


@pytest.fixture(scope="module")
def data():
    return training_data(plant_modalities(1, 90))


def saved(data, folder: Path, *, hidden: float) -> tuple[Path, Package]:
    fold = make_folds(data.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))[0]
    settings = TrainSettings(max_epochs=3, patience=3, modality_dropout=hidden)
    member, _ = fit_member(data, fold, MODEL, settings)
    package = Package((member,), SPEC, None, (100.0, 500.0), {"endpoint": "planted"})
    save_package(folder / "package", package)
    return folder / "package", package


def table_of(data, path: Path, **changes: object) -> Path:
    table = data.cohort.covariates.head(4).assign(patient_id=data.cohort.patient_id[:4])
    for place, value in changes.items():
        table.loc[int(place.partition("_")[2]), "age"] = value
    table.to_csv(path, index=False)
    return path


def test_patients_of_the_table_alone_are_scored_by_a_model_that_may_lack_slides(data, tmp_path: Path) -> None:
    folder, package = saved(data, tmp_path, hidden=0.3)
    request = PredictRequest(folder, (), tmp_path / "out", table_of(data, tmp_path / "t.csv"))
    found, outcomes = predict(request, StageContext())
    assert outcomes == []
    without = replace(data.features, of_patient={data.cohort.patient_id[-1]: np.zeros((1, 6), np.float16)})
    expected = predict_package(package, select_patients(data.cohort, without, data.cohort.patient_id[:4].tolist()))
    np.testing.assert_allclose(found.table["risk"], expected.table["risk"], atol=1e-6)
    shares = pd.read_csv(tmp_path / "out" / "part_shares.csv")
    assert not shares[shares["part"] == "slides"]["present"].any()
    assert shares.groupby("patient_id")["share"].sum().loc[data.cohort.patient_id[:4]].tolist() == pytest.approx(
        found.table["risk"].tolist(), abs=1e-5
    )


def test_a_model_that_always_saw_slides_asks_for_them(data, tmp_path: Path) -> None:
    folder, _ = saved(data, tmp_path, hidden=0.0)
    with pytest.raises(InputError, match="no slides were given"):
        predict(PredictRequest(folder, (), tmp_path / "out", table_of(data, tmp_path / "t.csv")), StageContext())


def test_blank_covariates_are_counted_aloud(data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = saved(data, tmp_path, hidden=0.3)
    table = table_of(data, tmp_path / "t.csv", row_1=np.nan, row_2=np.nan)
    with caplog.at_level(logging.WARNING):
        predict(PredictRequest(folder, (), tmp_path / "out", table), StageContext())
    said = caplog.text
    assert "t.csv: 2 of 4 patient(s) lack covariates, which are filled as in training" in said
    assert "age (2)" in said
    assert "t.csv: 2 of 4 patient(s) have nothing of clinical" in said


def test_nothing_is_said_where_nothing_is_filled(data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = saved(data, tmp_path, hidden=0.3)
    with caplog.at_level(logging.WARNING):
        predict(PredictRequest(folder, (), tmp_path / "out", table_of(data, tmp_path / "t.csv")), StageContext())
    assert "filled" not in caplog.text
