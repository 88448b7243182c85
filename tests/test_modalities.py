"""Models of several kinds of data: trained with parts missing, saved, asked of patients who lack some."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathoml.errors import InputError, PackageError
from pathoml.infer import predict_logits, predict_package, predict_shares
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import AbmilSettings, CoAttentionSettings, GatedSettings, LateSettings, ModelSettings
from pathoml.packages import Package, load_package, save_package
from pathoml.part_shares import part_shares
from pathoml.splits import KFoldSettings, SplitsSettings, make_folds
from pathoml.testing.modalities import plant_modalities
from pathoml.train import TrainingData, fit_member
from pathoml.train_settings import TrainSettings
from tests.modalities import AGE, SPEC, training_data

FUSIONS = [LateSettings(), GatedSettings(hidden_dim=4), CoAttentionSettings(hidden_dim=6, attention_dim=4)]
QUICK = TrainSettings(max_epochs=6, patience=6, modality_dropout=0.3)
DAYS = (100.0, 500.0)


def settings(fusion) -> ModelSettings:
    return ModelSettings(aggregator=AbmilSettings(hidden_dim=4, attention_dim=4), fusion=fusion, tile_components=None)


def fold_of(data: TrainingData):
    return make_folds(data.cohort, SplitsSettings(schemes=(KFoldSettings(folds=3),)))[0]


def package(*members) -> Package:
    return Package(members, SPEC, None, DAYS, {"endpoint": "planted"})


@pytest.fixture(scope="module", params=FUSIONS, ids=lambda one: one.kind)
def fitted(request: pytest.FixtureRequest):
    data = training_data(plant_modalities(1, 90, withheld=("slides", "genes")))
    return data, fit_member(data, fold_of(data), settings(request.param), QUICK)[0]


def test_a_saved_model_says_the_same_of_patients_who_lack_parts(fitted, tmp_path: Path) -> None:
    data, member = fitted
    patients = select_patients(data.cohort, data.features, fold_of(data).test)
    assert not predict_shares(member, patients).present.all(), "somebody lacks something"
    save_package(tmp_path / "package", package(member))
    again = load_package(tmp_path / "package")
    np.testing.assert_array_equal(
        predict_package(again, patients).table["risk"], predict_package(package(member), patients).table["risk"]
    )
    assert again.members[0].may_lack == ("clinical", "genes", "slides")
    assert "| May be missing | clinical, genes, slides |" in (tmp_path / "package" / "MODEL_CARD.md").read_text()


def test_shares_of_parts_sum_to_the_packages_risk(fitted) -> None:
    data, member = fitted
    patients = select_patients(data.cohort, data.features, fold_of(data).test)
    table = part_shares((member, member), patients)
    risk = predict_package(package(member, member), patients).table["risk"]
    np.testing.assert_allclose(table.groupby("patient_id", sort=False)["share"].sum(), risk, atol=1e-5)
    present = table.pivot(index="patient_id", columns="part", values="present").loc[list(patients.patient_id)]
    lacking = [name not in data.features.of_patient for name in patients.patient_id]
    np.testing.assert_array_equal(~present["slides"].to_numpy(dtype=bool), lacking)


def test_patients_who_lack_the_same_part_have_the_same_share_of_it(fitted) -> None:
    data, member = fitted
    table = part_shares((member,), select_patients(data.cohort, data.features, data.cohort.patient_id.tolist()))
    for _, own in table[~table["present"]].groupby("part"):
        assert own["share"].max() - own["share"].min() < 1e-6


def test_a_part_that_nobody_lacked_says_its_average_where_it_is_missing() -> None:
    data = training_data(plant_modalities(2, 90))
    fold = fold_of(data)
    member, _ = fit_member(data, fold, settings(LateSettings()), TrainSettings(max_epochs=4, patience=4))
    assert member.may_lack == ()
    everyone = select_patients(data.cohort, data.features, (*fold.train, *fold.validation))
    averages = predict_shares(member, everyone).values.mean(axis=0)
    np.testing.assert_allclose(member.model.absent.detach().numpy(), averages, atol=1e-5)


def test_a_model_that_always_saw_slides_refuses_patients_without() -> None:
    data = training_data(plant_modalities(2, 90))
    member, _ = fit_member(data, fold_of(data), settings(LateSettings()), TrainSettings(max_epochs=2, patience=2))
    bags = {name: tiles for name, tiles in data.features.of_patient.items() if name != "p0003"}
    features = replace(data.features, of_patient=bags)
    patients = select_patients(data.cohort, features, ("p0002", "p0003"))
    with pytest.raises(
        PackageError, match=r"patient\(s\) p0003 have no tiles, and the model was not trained to do without"
    ):
        predict_package(package(member), patients)


def test_hiding_parts_in_training_makes_a_model_that_may_lack_them() -> None:
    data = training_data(plant_modalities(2, 90))
    shown, hidden = (
        fit_member(data, fold_of(data), settings(LateSettings()), QUICK.model_copy(update={"modality_dropout": share}))[
            0
        ]
        for share in (0.0, 0.4)
    )
    assert (shown.may_lack, hidden.may_lack) == ((), ("clinical", "genes", "slides"))
    patients = select_patients(data.cohort, data.features, data.cohort.patient_id.tolist())
    assert not np.allclose(predict_logits(shown, patients), predict_logits(hidden, patients))


def test_co_attention_without_a_block_is_refused_in_words_of_the_configuration() -> None:
    data = training_data(plant_modalities(2, 90), covariates=(AGE,))
    with pytest.raises(InputError, match=r"model\.fusion: co_attention needs slides, and a covariate of kind block"):
        fit_member(data, fold_of(data), settings(FUSIONS[2]), QUICK)


def test_a_third_lacks_one_part_and_nobody_two() -> None:
    planted = plant_modalities(3, 90, withheld=("slides", "genes"))
    without_slides = {name for name in planted.patient_id if name not in planted.tiles}
    without_genes = set(np.array(planted.patient_id)[planted.covariates["gene_0"].isna()])
    assert (len(without_slides), len(without_genes)) == (15, 15)
    assert not without_slides & without_genes
    with pytest.raises(ValueError, match="only slides and genes can be"):
        plant_modalities(3, withheld=("age",))
