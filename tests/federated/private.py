"""Patients ready to be trained on, and a private training without limits, for the tests of privacy."""

from dataclasses import replace

import numpy as np
import torch

from pathoml.covariates import fit_covariates
from pathoml.federated.accountant import Release
from pathoml.federated.private_update import PrivateTraining
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objective import Objective
from pathoml.mil.objectives import fit_objective
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import as_they_are
from pathoml.mil.settings import AggregatorSettings
from pathoml.train import TrainingData, follow_up
from pathoml.train_settings import DiscreteLossSettings, TrainSettings
from tests.planted import SPEC, data
from tests.trained import as_if_trained

TRAIN = TrainSettings(loss=DiscreteLossSettings(), learning_rate=0.01)


def free(release: Release) -> None:
    """Let everything out."""


OPEN = PrivateTraining(
    clip_norm=float("inf"), noise_multiplier=0.0, sample_rate=1.0, loss_bound=float("inf"), loss_noise_multiplier=0.0,
    spend=free,
)  # fmt: skip


def placed(patients: int) -> TrainingData:
    """The planted cohort with the places of tiles, which some heads look at; patients have 20 to 30 tiles of one or two slides."""
    everything = data(patients)
    assert everything.features is not None
    bags, places = {}, {}
    for number, (name, bag) in enumerate(everything.features.of_patient.items()):
        rows = np.arange(30 - number % 11)
        bags[name] = np.asarray(bag)[rows]
        places[name] = np.column_stack([(rows > 17) & (number % 2 == 0), rows // 6, rows % 6]).astype(np.int64)
    return replace(everything, features=PatientFeatures(bags, SPEC, "digest", places))


def ready(
    everything: TrainingData, settings: TrainSettings = TRAIN, names: tuple[str, ...] | None = None
) -> TrainingPatients:
    names = tuple(everything.cohort.patient_id) if names is None else names
    chosen = select_patients(everything.cohort, everything.features, names)
    transform = fit_covariates(everything.covariates, everything.cohort.covariates)
    projection = None if everything.features is None else as_they_are(everything.features.dim)
    return TrainingPatients(chosen, everything.cohort, projection, transform, settings, "cpu")


def objective_of(everything: TrainingData, settings: TrainSettings = TRAIN) -> Objective:
    return fit_objective(settings.loss, *follow_up(everything.cohort, list(everything.cohort.patient_id)))


def model_of(aggregator: AggregatorSettings, everything: TrainingData, objective: Objective) -> PrognosisModel:
    """A model that says something, in training mode."""
    torch.manual_seed(3)
    dim = 0 if everything.features is None else everything.features.dim
    model = as_if_trained(PrognosisModel(aggregator, ModelShape(dim, 1, objective.out)))
    model.bias.requires_grad_(objective.has_level)
    return model.train()
