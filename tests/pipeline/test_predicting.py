"""`predict` on tables and bags: what is refused before anything is scored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.bags import Bag, write_bag
from pathoml.covariates import CategoricalCovariate
from pathoml.errors import CohortError
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.packages import save_package
from pathoml.pipeline.predicting import PredictRequest, draw_maps, predict
from pathoml.pipeline.stages import StageContext
from pathoml.splits import KFoldSettings, SplitsSettings, make_folds
from pathoml.train import TrainingData, fit_member
from tests.command_line import pathoml
from tests.planted import AGE, MEAN, QUICK, SPEC, TEMPLATE, data
from tests.test_infer import HEADER

SEX = CategoricalCovariate(column="sex")


def with_sex(sex: list[str], *, slides: bool = False) -> TrainingData:
    everything = data(len(sex), slides=slides)
    covariates = everything.cohort.covariates.assign(sex=np.array(sex, dtype=object))
    return replace(everything, cohort=replace(everything.cohort, covariates=covariates), covariates=(*AGE, SEX))


def package_of(everything: TrainingData, folder: Path) -> Path:
    """Two members, as a run with two folds leaves them."""
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=2),)))
    quick = QUICK.model_copy(update={"max_epochs": 1})
    members = tuple(fit_member(everything, fold, MEAN, quick)[0] for fold in folds)
    spec = None if everything.features is None else SPEC
    save_package(folder, replace(TEMPLATE, members=members, feature_spec=spec))
    return folder


@pytest.fixture(scope="module")
def table_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on age and sex: men twice as many as women; 'd' so rare that one member has not seen it."""
    return package_of(with_sex(["m", "f", "m"] * 19 + ["m", "f", "d"]), tmp_path_factory.mktemp("model") / "package")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(*sex: str) -> Path:
        path = tmp_path / "new.csv"
        patients = [f"N{index}" for index in range(len(sex))]
        pd.DataFrame({"patient_id": patients, "age": "60", "sex": sex}).to_csv(path, index=False)
        return path

    return write


def risks(package: Path, table: Path) -> list[float]:
    predictions, _ = predict(PredictRequest(package, (), table.parent / "out", table=table), StageContext())
    return predictions.table["risk"].tolist()


def test_a_word_not_seen_in_training_is_refused_with_the_words_that_are_known(
    table_model: Path, table: Callable[..., Path]
) -> None:
    path = table("m", "Male", "x")
    with pytest.raises(CohortError, match=r"new\.csv: 2 problem\(s\)") as refused:
        risks(table_model, path)
    message = str(refused.value)
    for patient, word in (("N1", "Male"), ("N2", "x")):
        assert f"new.csv: patient {patient}, column sex: '{word}' was not seen in training" in message
    assert "the model knows 'd', 'f', 'm'; write it as one of these, or leave the cell blank" in message
    assert not (path.parent / "out").exists()


def test_predicting_an_unseen_word_exits_2(table_model: Path, table: Callable[..., Path]) -> None:
    path = table("Male")
    done = pathoml("predict", str(table_model), "--table", str(path), "-o", "out", folder=path.parent)
    assert done.returncode == 2
    assert "'Male' was not seen in training" in done.stderr


def test_a_word_that_one_member_saw_is_scored(table_model: Path, table: Callable[..., Path]) -> None:
    assert np.isfinite(risks(table_model, table("d"))).all()


def test_missing_words_are_scored_as_the_most_frequent_however_they_are_spelt(
    table_model: Path, table: Callable[..., Path]
) -> None:
    man, woman, *missing = risks(table_model, table("m", "f", "", "NA", "nan", "none"))
    assert missing == [man] * 4
    assert man != woman


@pytest.fixture(scope="module")
def slide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_of(data(60), tmp_path_factory.mktemp("model") / "package")


def bag(path: Path, slide_id: str, digest: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    features = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float16)
    where = np.stack(np.divmod(np.arange(5), 5), axis=1).astype(np.int32)
    header = replace(HEADER, slide_id=slide_id, slide_digest=digest * 64)
    write_bag(path, Bag(header, features, where, where, np.ones(5, np.float32), np.zeros(5, np.uint8)))
    return path


def predict_bags(package: Path, *inputs: Path) -> pd.DataFrame:
    request = PredictRequest(package, inputs, inputs[0].parent / "out", impute_covariates=True)
    return predict(request, StageContext())[0].table


def test_different_bags_are_scored(slide_model: Path, tmp_path: Path) -> None:
    table = predict_bags(slide_model, bag(tmp_path / "a.h5", "a", "1"), bag(tmp_path / "b.h5", "b", "2"))
    assert table["patient_id"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("slide_id", "digest"), [("a", "1"), ("a", "2"), ("b", "1")], ids=["copied", "same name", "slide renamed"]
)
def test_a_slide_given_by_two_bags_is_refused(slide_model: Path, tmp_path: Path, slide_id: str, digest: str) -> None:
    first, second = bag(tmp_path / "a.h5", "a", "1"), bag(tmp_path / "other" / "b.h5", slide_id, digest)
    with pytest.raises(
        CohortError, match=rf"{second}: slide {slide_id} is given by {first} already; give each .* once"
    ):
        predict_bags(slide_model, first, second)


def test_a_bag_given_twice_is_refused(slide_model: Path, tmp_path: Path) -> None:
    path = bag(tmp_path / "a.h5", "a", "1")
    with pytest.raises(CohortError, match=rf"{path}: slide a is given by {path} already"):
        predict_bags(slide_model, path, path)


def test_a_slide_beside_its_own_bag_is_refused(slide_model: Path, tmp_path: Path) -> None:
    path, slide = bag(tmp_path / "a.h5", "a", "1"), tmp_path / "a.svs"
    slide.touch()
    with pytest.raises(CohortError, match=rf"{slide}: slide a is given by {path} already"):
        predict_bags(slide_model, path, slide)


def test_one_slide_under_two_paths_is_refused(slide_model: Path, tmp_path: Path) -> None:
    slide, link = tmp_path / "a.svs", tmp_path / "again.svs"
    slide.touch()
    link.symlink_to(slide)
    manifest = tmp_path / "slides.csv"
    manifest.write_text("slide_id,path,patient_id\ns1,a.svs,P1\ns2,../" + tmp_path.name + "/a.svs,P1\n")
    given_twice, listed_twice = (
        rf"{link}: slide \w+ is given by {slide} already",
        "row 3, column path: slide s2 is the file of",
    )
    for inputs, said in (((slide, link), given_twice), ((manifest,), listed_twice)):
        with pytest.raises(CohortError, match=said):
            predict_bags(slide_model, *inputs)
        request = PredictRequest(slide_model, inputs, tmp_path / "out")
        with pytest.raises(CohortError, match=said):
            draw_maps(request, StageContext(), HeatmapSettings())
