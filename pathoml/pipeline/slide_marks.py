"""By what each slide of a study is known again: its file, its tiles, its mean features."""

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

import numpy as np

from pathoml.bags import read_bag_header
from pathoml.cohort import SlideEntry
from pathoml.leakage import SlideMark, hash_rows
from pathoml.pipeline.study import Study

if TYPE_CHECKING:
    from pathoml.mil.patients import PatientFeatures  # loads torch, and `check` does without


def slide_marks(study: Study, features: "PatientFeatures | None", slide_ids: Set[str]) -> list[SlideMark]:
    """Mark the slides that a model is trained on.

    Parameters
    ----------
    study : Study
        With its bags.
    features : PatientFeatures or None
        Tiles of each patient, slide after slide in manifest order.
    slide_ids : set of str
        The slides that they are of.

    Returns
    -------
    list of SlideMark
        One a slide with a bag; empty without slides.
    """
    if features is None or study.config.slides is None:
        return []
    marks: list[SlideMark] = []
    for patient, bag in features.of_patient.items():
        entries = [entry for entry in study.cohort.slides.get(patient, ()) if entry.slide_id in slide_ids]
        tiles = np.asarray(bag)
        number = np.zeros(len(tiles), dtype=np.int64) if features.places is None else features.places[patient][:, 0]
        for index, entry in enumerate(entries):
            own = tiles[number == index]
            if len(own) == 0:
                continue
            print_of_file = read_bag_header(study.config.slides.bags / f"{entry.slide_id}.h5").slide_fingerprint
            mean = own.mean(axis=0, dtype=np.float64)
            marks.append(SlideMark(entry.slide_id, patient, print_of_file, hash_rows(own), mean))
    return marks


def file_marks(entries: Sequence[SlideEntry], fingerprints: Sequence[str]) -> list[SlideMark]:
    """Mark slides by their files alone.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    fingerprints : sequence of str
        Of each; empty where its file cannot be read.

    Returns
    -------
    list of SlideMark
        One a slide.
    """
    return [
        SlideMark(entry.slide_id, entry.patient_id, mark) for entry, mark in zip(entries, fingerprints, strict=True)
    ]
