"""The synthetic patients of `pathoml.testing.modalities` as training data, with parts left out."""

import numpy as np

from pathoml.bags import FeatureSpec
from pathoml.cohort import Cohort
from pathoml.covariates import BlockCovariate, NumericCovariate
from pathoml.mil.patients import PatientFeatures
from pathoml.testing.modalities import PlantedModalities
from pathoml.train import TrainingData

AGE = NumericCovariate(column="age")
GENES = BlockCovariate(name="genes", columns="gene_*", components=6)
SPEC = FeatureSpec("planted", "w" * 64, 0.5, 224, "float32", "s" * 64)


def training_data(planted: PlantedModalities, *, slides: bool = True, covariates=(AGE, GENES)) -> TrainingData:
    count = len(planted.patient_id)
    cohort = Cohort(
        np.array(planted.patient_id),
        planted.time_days,
        planted.event,
        np.array([""] * count),
        planted.covariates,
        "planted",
    )
    features = PatientFeatures(planted.tiles, SPEC, "digest") if slides else None
    return TrainingData(cohort, features, tuple(covariates))
