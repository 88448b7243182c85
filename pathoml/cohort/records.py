"""Patients with endpoint, site, covariates and slides, as every later stage sees them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.cohort.flow import FlowStep, flow_step
from pathoml.cohort.seal import Seal
from pathoml.errors import CohortError, Problem
from pathoml.units import FloatArray, IntArray


@dataclass(frozen=True)
class SlideEntry:
    """One line of the manifest.

    Parameters
    ----------
    slide_id : str
        Unique name.
    path : Path
        The slide's file.
    patient_id : str
        Whose it is.
    mpp : float or None
        Microns per level-0 pixel that override the metadata.
    row : int
        Row in the manifest, as a spreadsheet counts.
    url : str or None, optional
        Where it lies in an object store; `path` then only names it.
    """

    slide_id: str
    path: Path
    patient_id: str
    mpp: float | None
    row: int
    url: str | None = None


@dataclass(frozen=True)
class Cohort:
    """Patients with their endpoint, in table order.

    Parameters
    ----------
    patient_id : ndarray of str, shape (patients,)
        Unique.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int64, shape (patients,)
        1 event, 0 censored (or another event before).
    site : ndarray of str, shape (patients,)
        Hospital; empty text where no site column is named.
    covariates : DataFrame
        One row a patient; numeric columns as float (NaN where blank), categorical ones as text ('' where blank).
    endpoint : str
        What the time runs to.
    slides : mapping of str to tuple of SlideEntry
        Slides of each patient that has any.
    warnings : tuple of Problem
        What was noticed and does not stop the work.
    seal : Seal or None
        While a fold's model is fitted: who tests the fold and is not in this cohort, and who is looked at.
    cause : ndarray of int64, shape (patients,), or None
        As of `causes`; None where there is one kind of event.
    flow : tuple of FlowStep
        Who was left out so far, and why.
    time_zero_days : ndarray of float64, shape (patients,), or None
        Date of time zero, days since 1970, NaN where unknown; None where the table gives none.
    """

    patient_id: NDArray[np.str_]
    time_days: FloatArray
    event: IntArray
    site: NDArray[np.str_]
    covariates: pd.DataFrame
    endpoint: str
    slides: Mapping[str, tuple[SlideEntry, ...]] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    seal: Seal | None = None
    cause: IntArray | None = None
    flow: tuple[FlowStep, ...] = ()
    time_zero_days: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.patient_id)

    @property
    def causes(self) -> IntArray:
        """0 censored, 1 the event, 2, 3, ... competing events, which `event` counts as censored."""
        return self.event if self.cause is None else self.cause

    @property
    def left_out(self) -> frozenset[str]:
        """Patients that the table names and that are not, or no longer, in the cohort."""
        return frozenset(one for step in self.flow if step.unit == "patients" for one in step.ids)

    def rows_of(self, patient_ids: Iterable[str]) -> IntArray:
        """Return the positions of patients.

        Parameters
        ----------
        patient_ids : iterable of str
            Patients of this cohort.

        Returns
        -------
        ndarray of int64
            One position each, in the order given.

        Raises
        ------
        CohortError
            If one is not in the cohort.
        LeakError
            If one tests the fold whose model is being fitted.
        """
        position = {name: index for index, name in enumerate(self.patient_id)}
        wanted = list(patient_ids)
        if self.seal is not None:
            self.seal.look(wanted)
        unknown = [name for name in wanted if name not in position]
        if unknown:
            raise CohortError(f"patient(s) {', '.join(unknown[:5])} are not in the cohort")
        return np.array([position[name] for name in wanted], dtype=np.int64)


def take_rows(cohort: Cohort, rows: IntArray) -> Cohort:
    """Return some patients of a cohort.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    rows : ndarray of int64
        Positions, in the order wanted.

    Returns
    -------
    Cohort
        Those patients, with everything else as it was.
    """
    return replace(
        cohort,
        patient_id=cohort.patient_id[rows],
        time_days=cohort.time_days[rows],
        event=cohort.event[rows],
        cause=None if cohort.cause is None else cohort.cause[rows],
        time_zero_days=None if cohort.time_zero_days is None else cohort.time_zero_days[rows],
        site=cohort.site[rows],
        covariates=cohort.covariates.iloc[rows].reset_index(drop=True),
    )


def leave_out(cohort: Cohort, rows: IntArray, reason: str) -> Cohort:
    """Return a cohort without some patients, and with the step in its flow that says so.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    rows : ndarray of int64
        Who stays.
    reason : str
        Why the others go.

    Returns
    -------
    Cohort
        As it was where everybody stays.
    """
    if len(rows) == len(cohort):
        return cohort
    gone = np.setdiff1d(np.arange(len(cohort)), rows)
    step = flow_step("patients", reason, cohort.patient_id[gone].tolist(), len(rows))
    return replace(take_rows(cohort, rows), flow=(*cohort.flow, step))
