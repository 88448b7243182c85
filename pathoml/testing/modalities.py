"""Patients with slides, genes and an age of which each tells something that the others do not; parts can be withheld."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

TILES, TILE_DIM, GENES, FACTORS = 24, 6, 40, 3
CENSORING_DAYS = 2500.0


@dataclass(frozen=True)
class PlantedModalities:
    """A cohort as it would be measured, and the truth.

    Parameters
    ----------
    patient_id : tuple of str
        Patients.
    tiles : dict of str to ndarray of float16
        Features of each; those of whom slides are withheld are not in it.
    covariates : DataFrame
        Columns age and gene_<number>; NaN where genes are withheld.
    time_days, event : ndarray
        Follow-up.
    log_hazard : ndarray of float64
        The truth.
    """

    patient_id: tuple[str, ...]
    tiles: dict[str, npt.NDArray[np.float16]]
    covariates: pd.DataFrame
    time_days: npt.NDArray[np.float64]
    event: npt.NDArray[np.int64]
    log_hazard: npt.NDArray[np.float64]


def plant_modalities(
    seed: int, patients: int = 360, *, withheld: Sequence[str] = (), share: float = 1 / 3
) -> PlantedModalities:
    """Draw a cohort.

    Parameters
    ----------
    seed : int
        Of all that is drawn.
    patients : int, optional
        How many.
    withheld : sequence of str, optional
        ``slides``, ``genes`` or both: each patient drawn for it lacks one of them, by turns.
    share : float, optional
        Share of the patients who lack something.

    Returns
    -------
    PlantedModalities
        Severity of slides (seen in a fifth of the tiles), one factor of the genes, and age set the hazard.

    Raises
    ------
    ValueError
        If something else is to be withheld.
    """
    unknown = set(withheld) - {"slides", "genes"}
    if unknown:
        raise ValueError(f"withheld: {', '.join(sorted(unknown))}: only slides and genes can be")
    rng = np.random.default_rng([seed, 60606])
    severity, factor, age = rng.normal(size=(3, patients))
    log_hazard = 1.1 * severity + 1.1 * factor + 0.5 * age
    names = tuple(f"p{number:04d}" for number in range(patients))
    tiles = {name: _tiles(rng, one) for name, one in zip(names, severity, strict=True)}
    factors = np.column_stack([factor, rng.normal(size=(patients, FACTORS - 1))])
    genes = factors @ rng.normal(size=(FACTORS, GENES)) + rng.normal(size=(patients, GENES))
    event_time = rng.exponential(1000 * np.exp(-log_hazard))
    censoring = rng.exponential(CENSORING_DAYS, patients)
    for turn, patient in enumerate(rng.permutation(patients)[: round(share * patients)] if withheld else ()):
        if withheld[turn % len(withheld)] == "slides":
            del tiles[names[patient]]
        else:
            genes[patient] = np.nan
    covariates = pd.DataFrame(genes, columns=[f"gene_{number}" for number in range(GENES)]).assign(age=60 + 10 * age)
    time_days = np.minimum(event_time, censoring)
    return PlantedModalities(
        names, tiles, covariates, time_days, (event_time <= censoring).astype(np.int64), log_hazard
    )


def _tiles(rng: np.random.Generator, severity: float) -> npt.NDArray[np.float16]:
    tiles = rng.normal(size=(TILES, TILE_DIM))
    witnesses = rng.permutation(TILES)[: TILES // 5]
    tiles[witnesses, 0] += 3
    tiles[witnesses, 1] += 2 * severity
    return tiles.astype(np.float16)
