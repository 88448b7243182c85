"""Draw tile features of many patients in several hospitals, each with a stain of its own, and their survival."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pathoml.bags import FeatureSpec
from pathoml.cohort import Cohort
from pathoml.mil.patients import PatientFeatures

SPEC = FeatureSpec("drawn", "0" * 64, 0.5, 224, "float32", "1" * 64)
"""What the drawn features say of themselves."""


@dataclass(frozen=True)
class HospitalsDesign:
    """How such a cohort is drawn.

    Parameters
    ----------
    patients : int
        Of all hospitals together.
    hospitals : int
        Their sizes fall from first to last.
    tiles : int
        Mean tiles of a patient.
    kinds : int
        Kinds of tile; the share of the first raises the risk, that of the second lowers it.
    dim : int
        Columns of the features.
    stain : float
        Deviation of each hospital's shift, in units of the deviation of tiles; each column is stretched as well.
    """

    patients: int = 1200
    hospitals: int = 5
    tiles: int = 24
    kinds: int = 6
    dim: int = 16
    stain: float = 1.0


def draw_hospitals(seed: int, design: HospitalsDesign = HospitalsDesign()) -> tuple[Cohort, PatientFeatures]:
    """Draw a cohort whose risk follows the shares of two kinds of tile, and age.

    The kind of a tile is a direction of the features; the hospital's stain moves and stretches all of them. Patients of
    different hospitals are alike otherwise.

    Parameters
    ----------
    seed : int
        Of everything.
    design : HospitalsDesign, optional
        Sizes and effects.

    Returns
    -------
    tuple of Cohort and PatientFeatures
        Covariate ``age``; hospitals are called ``hospital-1`` and so on.
    """
    rng = np.random.default_rng(seed)
    weights = 1 / np.sqrt(np.arange(1, design.hospitals + 1))
    hospital = rng.choice(design.hospitals, size=design.patients, p=weights / weights.sum())
    kinds = 0.8 * rng.normal(size=(design.kinds, design.dim))
    shift = design.stain * rng.normal(size=(design.hospitals, design.dim))
    stretch = np.exp(0.3 * design.stain * rng.normal(size=(design.hospitals, design.dim)))
    share = rng.dirichlet(np.full(design.kinds, 0.7), size=design.patients)
    age = rng.normal(62, 11, size=design.patients)
    log_hazard = 4 * (share[:, 0] - share[:, 1]) + 0.35 * (age - 62) / 11
    time_days = rng.exponential(1500 * np.exp(-log_hazard))
    censored = rng.uniform(300, 4000, size=design.patients)
    names = np.array([f"P{number:05d}" for number in range(design.patients)])
    tiles, places = {}, {}
    for row, name in enumerate(names.tolist()):
        count = max(4, int(rng.poisson(design.tiles)))
        kind = rng.choice(design.kinds, size=count, p=share[row])
        drawn = (kinds[kind] + rng.normal(size=(count, design.dim))) * stretch[hospital[row]] + shift[hospital[row]]
        tiles[name] = drawn.astype(np.float32)
        places[name] = np.column_stack([np.zeros(count), np.arange(count), np.arange(count)]).astype(np.int64)
    cohort = Cohort(
        patient_id=names,
        time_days=np.minimum(time_days, censored),
        event=(time_days <= censored).astype(np.int64),
        site=np.array([f"hospital-{number + 1}" for number in hospital]),
        covariates=pd.DataFrame({"age": age}),
        endpoint="overall survival",
    )
    return cohort, PatientFeatures(tiles, SPEC, "2" * 64, places)
