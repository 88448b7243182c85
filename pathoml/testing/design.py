"""The design of a synthetic cohort: who its patients are, what their slides show and how long they live."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pathoml.testing.artefacts import PEN_COLOURS
from pathoml.testing.drawing import SlideSpec
from pathoml.testing.histology import KINDS, TRUTH_UM, TissuePlan
from pathoml.testing.noise import ByteMap
from pathoml.testing.staining import StainProfile

FloatArray = npt.NDArray[np.float64]

_TISSUE_SHARE_OF_CANVAS = 0.48
_CANVAS_ASPECT = 1.256


@dataclass(frozen=True)
class Hospital:
    """A site of the cohort.

    Parameters
    ----------
    code
        Text; its leading zero is part of it.
    name
        For reports.
    mpp
        Micrometres per pixel of its scanner.
    stain
        How its laboratory stains.
    """

    code: str
    name: str
    mpp: float
    stain: StainProfile


@dataclass(frozen=True)
class Effect:
    """How a quantity acts on the hazard.

    Parameters
    ----------
    mean, sd
        Of the population the patients are drawn from, fixed by design and not taken from the sample.
    log_hazard_per_sd
        Change of the log hazard for one standard deviation.
    """

    mean: float
    sd: float
    log_hazard_per_sd: float

    def log_hazard(self, values: FloatArray) -> FloatArray:
        """Return the contribution of each value to the log hazard.

        Parameters
        ----------
        values
            In the unit of the mean.

        Returns
        -------
        ndarray
            Same shape.
        """
        return self.log_hazard_per_sd * (values - self.mean) / self.sd


HOSPITALS = (
    Hospital("03", "Northgate", 0.2500, StainProfile((0.62, 0.68, 0.36), (0.07, 0.55, 0.33), (243, 243, 244), 1.3)),
    Hospital("05", "Riverside", 0.5040, StainProfile((0.68, 0.64, 0.31), (0.05, 0.60, 0.27), (240, 241, 240), 1.6)),
    Hospital("11", "St Anne", 0.2520, StainProfile((0.54, 0.66, 0.42), (0.11, 0.50, 0.40), (246, 244, 241), 1.1)),
    Hospital("27", "Harbour", 0.5000, StainProfile((0.64, 0.74, 0.38), (0.04, 0.47, 0.34), (241, 241, 245), 1.4)),
)


@dataclass(frozen=True)
class CohortDesign:
    """Everything but the seed that determines a cohort.

    Parameters
    ----------
    patients
        Number of patients.
    hospitals
        Sites; patients are spread evenly over them.
    two_slides, pen, blur, two_pieces
        Share of patients with a second slide, and of slides with a marker stroke, a region out of focus,
        a second piece.
    tissue_area_mm2
        Tissue on each slide; the canvas grows with it.
    necrosis, lymphocytes
        Share of the tissue and its effect.
    age
        Age in years and its effect.
    weibull_shape, median_days
        Baseline: survival of a patient of log hazard 0.
    follow_up_days
        Range of the administrative end of follow-up, uniform and independent of everything else.
    """

    patients: int = 96
    hospitals: tuple[Hospital, ...] = HOSPITALS
    two_slides: float = 0.15
    pen: float = 0.12
    blur: float = 0.12
    two_pieces: float = 0.12
    tissue_area_mm2: float = 1.1
    necrosis: Effect = Effect(0.15, 0.10, 1.2)
    lymphocytes: Effect = Effect(0.18, 0.10, -0.8)
    age: Effect = Effect(63.0, 11.0, 0.4)
    weibull_shape: float = 1.2
    median_days: float = 900.0
    follow_up_days: tuple[float, float] = (730.0, 2920.0)

    @property
    def canvas_um(self) -> tuple[float, float]:
        """Width and height of every slide, whole pixels of a composition map."""
        height = math.sqrt(self.tissue_area_mm2 * 1e6 / _TISSUE_SHARE_OF_CANVAS / _CANVAS_ASPECT)
        return round(height * _CANVAS_ASPECT / TRUTH_UM) * TRUTH_UM, round(height / TRUTH_UM) * TRUTH_UM


@dataclass(frozen=True)
class PatientPlan:
    """One patient before survival is drawn.

    Parameters
    ----------
    patient_id
        "P001", "P002", ...
    hospital
        Where the patient was treated.
    age
        Years.
    sex
        "female" or "male"; without effect.
    slides
        One or two.
    """

    patient_id: str
    hospital: Hospital
    age: float
    sex: str
    slides: tuple[SlideSpec, ...]


class Outcomes(NamedTuple):
    """Survival of every patient.

    Parameters
    ----------
    log_hazard
        float64 (patient,), the oracle.
    time_days
        int64 (patient,), at least 1.
    event
        int64 (patient,), 1 died, 0 censored.
    """

    log_hazard: FloatArray
    time_days: npt.NDArray[np.int64]
    event: npt.NDArray[np.int64]


def plan_cohort(seed: int, design: CohortDesign) -> tuple[PatientPlan, ...]:
    """Draw the patients of a cohort and what their slides are to show.

    Parameters
    ----------
    seed
        Seed of the cohort.
    design
        Its design.

    Returns
    -------
    tuple of PatientPlan
        In order of their names. Composition, age, sex and hospital are drawn independently of each other.
    """
    rng = _generator(seed, 0)
    count = design.patients
    hospitals = rng.permutation(count) % len(design.hospitals)
    ages = _truncated_normal(rng, design.age, count, low=30.0, high=90.0)
    sexes = rng.integers(0, 2, size=count)
    shares = np.stack([_beta(rng, effect, count) for effect in (design.necrosis, design.lymphocytes)], axis=1)
    numbers = 1 + (rng.uniform(size=count) < design.two_slides)
    first_index = np.concatenate([[0], np.cumsum(numbers)]).tolist()
    patients = []
    for index in range(count):
        patient_id, hospital = f"P{index + 1:03d}", design.hospitals[hospitals[index]]
        slides = tuple(
            _plan_slide((seed, first_index[index] + k), f"{patient_id}-{k + 1}", hospital, shares[index], design)
            for k in range(numbers[index])
        )
        age, sex = round(float(ages[index]), 1), ("female", "male")[sexes[index]]
        patients.append(PatientPlan(patient_id, hospital, age, sex, slides))
    return tuple(patients)


def draw_outcomes(seed: int, design: CohortDesign, shares: FloatArray, ages: FloatArray) -> Outcomes:
    """Draw survival from what the slides show.

    Parameters
    ----------
    seed
        Seed of the cohort.
    design
        Its design.
    shares
        float64 (patient, kind), share of each of `KINDS` over the patient's slides, 0 to 1.
    ages
        float64 (patient,), years.

    Returns
    -------
    Outcomes
        Times from a Weibull model with proportional hazards, censored at an independent uniform time.

    Notes
    -----
    ``S(t) = exp(-log(2) (t / median) ** shape * exp(log_hazard))``.
    """
    rng = _generator(seed, 1)
    log_hazard = (
        design.necrosis.log_hazard(shares[:, KINDS.index("necrosis")])
        + design.lymphocytes.log_hazard(shares[:, KINDS.index("lymphocytes")])
        + design.age.log_hazard(ages)
    )
    exponential = rng.exponential(size=len(ages)) / np.exp(log_hazard)
    death = design.median_days * (exponential / math.log(2)) ** (1 / design.weibull_shape)
    end = rng.uniform(*design.follow_up_days, size=len(ages))
    time_days = np.maximum(1, np.ceil(np.minimum(death, end))).astype(np.int64)
    return Outcomes(log_hazard, time_days, (death <= end).astype(np.int64))


def kind_shares(compositions: list[ByteMap]) -> FloatArray:
    """Return the share of each kind over the tissue of one patient's slides.

    Parameters
    ----------
    compositions
        Composition maps, each uint8 (row, col, kind).

    Returns
    -------
    numpy.ndarray
        float64 (kind,), sums to 1.
    """
    totals = np.sum([composition.sum(axis=(0, 1), dtype=np.float64) for composition in compositions], axis=0)
    shares: FloatArray = totals / totals.sum()
    return shares


def _plan_slide(
    seed: tuple[int, int], slide_id: str, hospital: Hospital, shares: FloatArray, design: CohortDesign
) -> SlideSpec:
    """Draw what one slide shows: about the patient's shares, and whatever makes no difference to survival."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(100,)))
    width_um, height_um = design.canvas_um
    necrosis, lymphocytes = np.clip(shares * rng.normal(1.0, 0.08, size=2), 0.0, (0.5, 0.45))
    has_pen, is_blurred, has_two_pieces = rng.uniform(size=3) < (design.pen, design.blur, design.two_pieces)
    colour = str(rng.choice(list(PEN_COLOURS)))
    tissue = TissuePlan(
        seed=seed,
        width_um=width_um,
        height_um=height_um,
        tissue_area_mm2=design.tissue_area_mm2,
        necrosis=float(necrosis),
        lymphocytes=float(lymphocytes),
        tumour=float(rng.uniform(0.35, 0.80)),
        glands=float(rng.beta(0.9, 0.9)),
        pieces=2 if has_two_pieces else 1,
    )
    return SlideSpec(slide_id, tissue, hospital.mpp, hospital.stain, colour if has_pen else None, bool(is_blurred))


def _generator(seed: int, purpose: int) -> np.random.Generator:
    """Return the generator of one purpose of a cohort."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))


def _beta(rng: np.random.Generator, effect: Effect, count: int) -> FloatArray:
    """Draw shares from the Beta distribution of an effect's mean and standard deviation."""
    total = effect.mean * (1 - effect.mean) / effect.sd**2 - 1
    return np.minimum(rng.beta(effect.mean * total, (1 - effect.mean) * total, size=count), 0.5)


def _truncated_normal(rng: np.random.Generator, effect: Effect, count: int, *, low: float, high: float) -> FloatArray:
    """Draw normal values, drawing anew those out of range."""
    values = rng.normal(effect.mean, effect.sd, size=count)
    while (outside := (values < low) | (values > high)).any():
        values[outside] = rng.normal(effect.mean, effect.sd, size=int(outside.sum()))
    return values
