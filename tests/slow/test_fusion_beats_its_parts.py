"""With a modality withheld from a third of the patients, the fused model beats each model of one modality on all patients."""

from dataclasses import replace

import numpy as np
import pytest

from pathoml.infer import predict_logits
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import AbmilSettings, CoAttentionSettings, GatedSettings, LateSettings, ModelSettings
from pathoml.splits import Fold, SplitsSettings, make_folds
from pathoml.survival import concordance
from pathoml.testing.modalities import PlantedModalities, plant_modalities
from pathoml.train import TrainingData, fit_member, follow_up
from pathoml.train_settings import FixedRidgeSettings, TrainSettings
from tests.counts import FUSION_SEEDS
from tests.modalities import AGE, GENES, training_data

pytestmark = pytest.mark.slow

FUSIONS = {
    "late": LateSettings(), "gated": GatedSettings(), "co_attention": CoAttentionSettings(hidden_dim=16),
}  # fmt: skip
TRAIN = TrainSettings(
    learning_rate=5e-3, max_epochs=150, patience=40, block_ridge=FixedRidgeSettings(penalty=5.0), modality_dropout=0.2
)
ABMIL = AbmilSettings(hidden_dim=16, attention_dim=8, dropout=0.2)


def parts_alone(planted: PlantedModalities) -> dict[str, TrainingData]:
    """Return the data of each model of one modality."""
    return {
        "slides": training_data(planted, covariates=()),
        "genes": training_data(planted, slides=False, covariates=(GENES,)),
        "clinical": training_data(planted, slides=False, covariates=(AGE,)),
    }


def score(data: TrainingData, fold: Fold, fusion: object) -> float:
    settings = ModelSettings(aggregator=ABMIL, fusion=fusion, tile_components=None)
    member, _ = fit_member(data, fold, settings, TRAIN)
    risk = predict_logits(member, select_patients(data.cohort, data.features, fold.test))[:, 0]
    return concordance(*follow_up(data.cohort, fold.test), risk)


@pytest.mark.parametrize("withheld", [("slides",), ("genes",), ("slides", "genes")], ids="-".join)
@pytest.mark.parametrize("seed", FUSION_SEEDS)
def test_the_fused_model_beats_each_part_on_all_patients(seed: int, withheld: tuple[str, ...]) -> None:
    planted = plant_modalities(seed, withheld=withheld)
    whole = training_data(planted)
    fold = make_folds(whole.cohort, SplitsSettings())[0]
    alone = {name: score(data, fold, LateSettings()) for name, data in parts_alone(planted).items()}
    fused = {name: score(whole, fold, fusion) for name, fusion in FUSIONS.items()}
    oracle = concordance(*follow_up(whole.cohort, fold.test), planted.log_hazard[whole.cohort.rows_of(fold.test)])
    print({name: round(value, 3) for name, value in {**alone, **fused, "oracle": oracle}.items()})
    for name, value in fused.items():
        assert value > max(alone.values()), (name, alone, fused)


@pytest.mark.parametrize("seed", FUSION_SEEDS)
def test_an_informative_absence_is_learnt(seed: int) -> None:
    """Patients whose slides are missing because they died early have a higher risk, and the model may know it."""
    planted = plant_modalities(seed)
    rng = np.random.default_rng(seed)
    worst = planted.log_hazard + rng.normal(size=len(planted.patient_id)) > 1.5
    tiles = {name: one for name, one in planted.tiles.items() if not worst[int(name[1:])]}
    whole = training_data(replace(planted, tiles=tiles))
    fold = make_folds(whole.cohort, SplitsSettings())[0]
    member, _ = fit_member(whole, fold, ModelSettings(aggregator=ABMIL, tile_components=None), TRAIN)
    slides = member.model.layout.names.index("slides")
    assert member.model.absent[slides, 0].item() > member.slide_centre[0] + 0.3
