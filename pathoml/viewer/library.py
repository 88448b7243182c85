"""What the viewer shows: slides, what is known of their patients, and who can draw their maps."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.heatmaps import SlideMaps
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.units import FloatArray


@dataclass(frozen=True)
class ViewedSlide:
    """One slide of the list.

    Parameters
    ----------
    name : str
        As shown; the manifest's pseudonym where it has one.
    path : Path
        The slide's file; never shown.
    mpp : float or None
        Microns per level-0 pixel that override the metadata.
    patient : str
        As shown; slides of one patient have the same.
    site : str
        Hospital, empty if not known.
    time_days : float or None
        Follow-up.
    event : int or None
        1 event, 0 censored.
    risk : float or None
        Predicted by a model that has not seen the patient, in standard deviations of its training patients.
    risk_group : str
        ``low``, ``high`` or empty.
    """

    name: str
    path: Path
    mpp: float | None
    patient: str
    site: str = ""
    time_days: float | None = None
    event: int | None = None
    risk: float | None = None
    risk_group: str = ""


@dataclass(frozen=True)
class NamedCurve:
    """A survival curve.

    Parameters
    ----------
    name : str
        Of whom.
    days : ndarray of float64, shape (times,)
        When, ascending.
    survival : ndarray of float64, shape (times,)
        Probability of no event until then.
    """

    name: str
    days: FloatArray
    survival: FloatArray


@dataclass(frozen=True)
class Library:
    """Everything that one viewer shows.

    Parameters
    ----------
    title : str
        Above the list.
    slides : tuple of ViewedSlide
        In the order in which they are first listed.
    endpoint : str
        What the time runs to; empty without a cohort.
    cohort_curves : tuple of NamedCurve
        Observed survival of the cohort, as step functions.
    patient_curves : mapping of str to NamedCurve
        Predicted survival by patient, by a model that has not seen them.
    maps_of : callable or None
        Draws the maps of the slide at a position of `slides`; raises `PathomlError` where it cannot.
    """

    title: str
    slides: tuple[ViewedSlide, ...]
    endpoint: str = ""
    cohort_curves: tuple[NamedCurve, ...] = ()
    patient_curves: Mapping[str, NamedCurve] = field(default_factory=dict)
    maps_of: Callable[[int], SlideMaps] | None = None


class Catalogue:
    """The library under ids that say nothing, made anew for every start of the viewer.

    Parameters
    ----------
    library : Library
        What is shown.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._ids = tuple(secrets.token_hex(8) for _ in library.slides)
        self._positions = {identifier: position for position, identifier in enumerate(self._ids)}
        self._of_patient: dict[str, list[int]] = {}
        for position, slide in enumerate(library.slides):
            self._of_patient.setdefault(slide.patient, []).append(position)

    def position(self, identifier: str) -> int | None:
        """Return which slide an id names.

        Parameters
        ----------
        identifier : str
            As a client gives it.

        Returns
        -------
        int or None
            None if there is no such slide.
        """
        return self._positions.get(identifier)

    def listing(self) -> dict[str, Any]:
        """Return the list of slides.

        Returns
        -------
        dict
            Plain JSON values.
        """
        library = self.library
        return {
            "title": library.title, "endpoint": library.endpoint, "notice": RESEARCH_USE_ONLY,
            "slides": [self._row(position) for position in range(len(library.slides))],
        }  # fmt: skip

    def described(self, position: int) -> dict[str, Any]:
        """Return what is known of one slide, its patient and the patient's other slides.

        Parameters
        ----------
        position : int
            Of the slide.

        Returns
        -------
        dict
            Plain JSON values.
        """
        library = self.library
        slide = library.slides[position]
        curve = library.patient_curves.get(slide.patient)
        return {
            "title": library.title, "endpoint": library.endpoint, "notice": RESEARCH_USE_ONLY,
            "slide": self._row(position),
            "siblings": [self._row(one) for one in self._of_patient[slide.patient]],
            "curve": None if curve is None else _curve(curve),
            "cohort": [_curve(one) for one in library.cohort_curves],
            "has_maps": library.maps_of is not None,
        }  # fmt: skip

    def _row(self, position: int) -> dict[str, Any]:
        slide = self.library.slides[position]
        return {
            "id": self._ids[position], "name": slide.name, "patient": slide.patient, "site": slide.site,
            "time_days": slide.time_days, "event": slide.event, "risk": slide.risk, "group": slide.risk_group,
        }  # fmt: skip


def _curve(curve: NamedCurve) -> dict[str, Any]:
    return {
        "name": curve.name,
        "days": np.round(curve.days, 2).tolist(),
        "survival": np.round(curve.survival, 5).tolist(),
    }
