"""Patients as a model sees them: all tiles of all their slides, and their covariates."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.bags import Bag, FeatureSpec, check_same_features, read_bag
from pathoml.cohort import Cohort
from pathoml.covariates import CovariateTransform
from pathoml.errors import BagFormatError
from pathoml.mil.tile_rows import TileRows, free_bytes
from pathoml.provenance import array_digest, digest_of
from pathoml.units import AnyArray, BoolArray, IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PatientFeatures:
    """Features of every patient that has a bag.

    Parameters
    ----------
    of_patient : mapping of str to ndarray or TileRows, each of shape (tiles, dim)
        All slides of a patient, one after another in manifest order.
    spec : FeatureSpec
        What the features of all bags mean.
    digest : str
        SHA-256 over all features.
    places : mapping of str to ndarray of int64, each of shape (tiles, 3), optional
        Slide (counted within the patient), row and column of each tile.
    without_grid : tuple of str, optional
        Slides whose tiles lie on no regular grid, so that nobody knows which are neighbours.
    """

    of_patient: Mapping[str, AnyArray | TileRows]
    spec: FeatureSpec
    digest: str
    places: Mapping[str, IntArray] | None = None
    without_grid: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """Columns of the features."""
        return int(next(iter(self.of_patient.values())).shape[1])


@dataclass(frozen=True)
class Patients:
    """Some patients, ready for a model.

    Parameters
    ----------
    patient_id : tuple of str
        Who.
    features : tuple of ndarray or TileRows, or None
        Tiles of each, float16 or float32; None for a model without slides.
    covariates : DataFrame
        One row each, with patient ids as index.
    places : tuple of ndarray of int64, optional
        Slide, row and column of their tiles.
    without_grid : tuple of str, optional
        Slides, of any patient of the cohort, whose tiles lie on no regular grid.
    """

    patient_id: tuple[str, ...]
    features: tuple[AnyArray | TileRows, ...] | None
    covariates: pd.DataFrame
    places: tuple[IntArray, ...] | None = None
    without_grid: tuple[str, ...] = ()


def load_features(cohort: Cohort, folder: Path, slide_ids: Sequence[str]) -> PatientFeatures:
    """Read the bags of a cohort: into memory where half of what is free holds them, else mapped, so that disks are read as needed.

    Parameters
    ----------
    cohort : Cohort
        Patients with slides.
    folder : Path
        Where ``<slide_id>.h5`` are kept.
    slide_ids : sequence of str
        Slides that have a bag; others are passed over.

    Returns
    -------
    PatientFeatures
        Of the patients with at least one bag.

    Raises
    ------
    BagFormatError
        If a bag is damaged.
    BagMismatchError
        If two bags were made differently.
    """
    present = set(slide_ids)
    size = sum((folder / f"{name}.h5").stat().st_size for name in present if (folder / f"{name}.h5").is_file())
    mapped = size > free_bytes() / 2
    logger.info("bags of %.2f GB are %s", size / 1e9, "read where they are used" if mapped else "kept in memory")
    of_patient: dict[str, AnyArray | TileRows] = {}
    places: dict[str, IntArray] = {}
    digests: list[list[str]] = []
    without_grid: list[str] = []
    spec: FeatureSpec | None = None
    for patient in cohort.patient_id.tolist():
        parts: list[AnyArray] = []
        places_of_parts: list[IntArray] = []
        for entry in cohort.slides.get(patient, ()):
            if entry.slide_id not in present:
                continue
            bag = read_bag(folder / f"{entry.slide_id}.h5", mapped=mapped)
            spec = spec or bag.header.feature_spec
            check_same_features(bag.header, spec, "the cohort's first bag")
            places_of_parts.append(places_of(bag, slide=len(parts)))
            parts.append(bag.features)
            if not has_grid(bag):
                without_grid.append(entry.slide_id)
            digests.append([patient, entry.slide_id, array_digest(bag.features)])
        if parts:
            of_patient[patient] = parts[0] if len(parts) == 1 else TileRows(parts)
            places[patient] = np.concatenate(places_of_parts)
    if spec is None:
        raise BagFormatError(f"{folder}: holds no bag of this cohort; run 'pathoml extract' first")
    return PatientFeatures(of_patient, spec, digest_of(digests), places, tuple(without_grid))


def has_grid(bag: Bag) -> bool:
    """Tell whether a bag's rows and columns are those of a grid; of some imported bags they are corners in pixels.

    Parameters
    ----------
    bag : Bag
        Of one slide.

    Returns
    -------
    bool
        Whether tiles beside each other can be told from them.
    """
    return bag.header.stride_level0_px != (1.0, 1.0)


def places_of(bag: Bag, *, slide: int = 0) -> IntArray:
    """Return where the tiles of a bag lie.

    Parameters
    ----------
    bag : Bag
        Of one slide.
    slide : int, optional
        Its number among the patient's.

    Returns
    -------
    ndarray of int64, shape (tiles, 3)
        Slide, row and column.
    """
    return np.column_stack([np.full(len(bag.grid), slide), bag.grid]).astype(np.int64)


def select_patients(cohort: Cohort, features: PatientFeatures | None, patient_ids: Sequence[str]) -> Patients:
    """Gather the inputs of some patients.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    features : PatientFeatures or None
        Their tiles; None for a model without slides.
    patient_ids : sequence of str
        Who.

    Returns
    -------
    Patients
        In the order given; those without a bag have no tiles.
    """
    rows = cohort.rows_of(patient_ids)
    tiles, places = None, None
    if features is not None:
        none = np.zeros((0, features.dim), dtype=np.float16)
        tiles = tuple(features.of_patient.get(patient, none) for patient in patient_ids)
    if features is not None and features.places is not None:
        nowhere = np.zeros((0, 3), dtype=np.int64)
        places = tuple(features.places.get(patient, nowhere) for patient in patient_ids)
    return Patients(
        tuple(patient_ids), tiles, cohort.covariates.iloc[rows].set_axis(list(patient_ids)), places,
        () if features is None else features.without_grid,
    )  # fmt: skip


def given_parts(patients: Patients, transform: CovariateTransform) -> BoolArray:
    """Tell which parts of a model each patient has.

    Parameters
    ----------
    patients : Patients
        Who.
    transform : CovariateTransform
        The model's.

    Returns
    -------
    ndarray of bool, shape (patients, parts)
        Parts of the covariates in the transform's order, then slides if the patients have any.
    """
    given = transform.given(patients.covariates)
    if patients.features is None:
        return given
    return np.column_stack([given, [len(tiles) > 0 for tiles in patients.features]])
