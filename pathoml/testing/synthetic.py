"""Make a synthetic cohort on disk: drawn slides, a survival table, and the truth beside them.

The cohort table holds what a hospital would know. What only the drawing knows (composition maps, the oracle's
log hazard) is written to the folder ``truth`` and nowhere else.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pathoml.errors import InputError
from pathoml.files import write_json, write_text
from pathoml.testing.design import CohortDesign, PatientPlan, draw_outcomes, kind_shares, plan_cohort
from pathoml.testing.drawing import SlideSpec, draw_slide, read_truth, write_truth
from pathoml.testing.histology import KINDS

# Fixed before any model saw the cohort.
GENERATOR_VERSION = 1
DEMO_SEED = 20260
EVALUATION_SEEDS = (101, 102, 103)
DEMO_DESIGN = CohortDesign()
SMALL_DESIGN = CohortDesign(patients=24, tissue_area_mm2=0.35)

_PLAN_FILE = "synthetic.plan.json"
_DONE_FILE = "synthetic.json"


@dataclass(frozen=True)
class CohortPaths:
    """Where a cohort lies.

    Parameters
    ----------
    slides_csv
        One row a slide: slide_id, path (relative to this file), patient_id.
    cohort_csv
        One row a patient: patient_id, site, age, sex, time_days, event.
    truth
        Folder of what only the drawing knows.
    """

    slides_csv: Path
    cohort_csv: Path
    truth: Path


def make_cohort(
    folder: Path,
    *,
    seed: int,
    design: CohortDesign = DEMO_DESIGN,
    workers: int = 2,
    on_slide: Callable[[int, int], None] | None = None,
) -> CohortPaths:
    """Make a cohort, or finish one that was interrupted.

    Parameters
    ----------
    folder
        Where to make it; created if missing. Slides that are there already are kept.
    seed
        Seed of the cohort.
    design
        Its design.
    workers
        Processes that draw slides. The result does not depend on it.
    on_slide
        Called with the number of slides done and the number of all slides, after each and once at the start.

    Returns
    -------
    CohortPaths
        The files made.

    Raises
    ------
    InputError
        If the folder holds a cohort of another seed, design or version of the generator.
    """
    record = _record(seed, design)
    _claim(folder, record)
    patients = plan_cohort(seed, design)
    _draw_missing(folder, [slide for patient in patients for slide in patient.slides], workers, on_slide)
    paths = CohortPaths(folder / "slides.csv", folder / "cohort.csv", folder / "truth")
    _write_tables(paths, patients, seed, design)
    write_json(folder / _DONE_FILE, record)
    (folder / _PLAN_FILE).unlink(missing_ok=True)
    return paths


def _record(seed: int, design: CohortDesign) -> dict[str, Any]:
    """Everything that determines the cohort, as it reads back from JSON."""
    content = {"generator_version": GENERATOR_VERSION, "seed": seed, "design": asdict(design)}
    record: dict[str, Any] = json.loads(json.dumps(content))
    return record


def _claim(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a folder that holds anything else; mark it as being made otherwise."""
    for name in (_DONE_FILE, _PLAN_FILE):
        path = folder / name
        if not path.exists():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != record:
            differing = ", ".join(key for key in record if found.get(key) != record[key])
            raise InputError(
                f"{folder}: holds a synthetic cohort of another {differing} (see {name}); "
                "choose another folder or delete this one"
            )
        return
    if (folder / "slides").exists() or (folder / "cohort.csv").exists():
        raise InputError(
            f"{folder}: holds slides or a cohort.csv that this generator did not make; choose another folder"
        )
    write_json(folder / _PLAN_FILE, record)


def _slide_path(folder: Path, slide_id: str) -> Path:
    return folder / "slides" / f"{slide_id}.tif"


def _truth_path(folder: Path, slide_id: str) -> Path:
    return folder / "truth" / f"{slide_id}.npz"


def _draw_missing(
    folder: Path, slides: Sequence[SlideSpec], workers: int, on_slide: Callable[[int, int], None] | None
) -> None:
    """Draw the slides that are not there yet."""
    missing = [
        s for s in slides if not (_slide_path(folder, s.slide_id).exists() and _truth_path(folder, s.slide_id).exists())
    ]
    done = len(slides) - len(missing)
    if on_slide is not None:
        on_slide(done, len(slides))
    if not missing:
        return
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_draw_into, folder, spec) for spec in missing]
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                if on_slide is not None:
                    on_slide(done, len(slides))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _draw_into(folder: Path, spec: SlideSpec) -> None:
    """Draw one slide and its truth; runs in a worker process."""
    cv2.setNumThreads(1)  # the processes share the cores already
    truth = draw_slide(_slide_path(folder, spec.slide_id), spec)
    write_truth(_truth_path(folder, spec.slide_id), truth)


def _write_tables(paths: CohortPaths, patients: Sequence[PatientPlan], seed: int, design: CohortDesign) -> None:
    """Draw survival from the compositions that were drawn, and write every table."""
    shares = np.stack([_measured_shares(paths.truth, patient) for patient in patients])
    outcomes = draw_outcomes(seed, design, shares, np.array([patient.age for patient in patients]))
    slides = ((slide.slide_id, patient.patient_id) for patient in patients for slide in patient.slides)
    _write_csv(
        paths.slides_csv,
        ("slide_id", "path", "patient_id"),
        ((slide_id, f"slides/{slide_id}.tif", patient_id) for slide_id, patient_id in slides),
    )
    _write_csv(
        paths.truth / "patients.csv",
        ("patient_id", "age", *KINDS, "log_hazard"),
        (
            (patient.patient_id, patient.age, *(f"{share:.6f}" for share in own), f"{log_hazard:.6f}")
            for patient, own, log_hazard in zip(patients, shares, outcomes.log_hazard, strict=True)
        ),
    )
    _write_csv(
        paths.cohort_csv,
        ("patient_id", "site", "age", "sex", "time_days", "event"),
        (
            (patient.patient_id, patient.hospital.code, patient.age, patient.sex, time_days, event)
            for patient, time_days, event in zip(patients, outcomes.time_days, outcomes.event, strict=True)
        ),
    )


def _measured_shares(truth: Path, patient: PatientPlan) -> npt.NDArray[np.float64]:
    """Share of each kind over a patient's slides, as drawn."""
    return kind_shares([read_truth(truth / f"{slide.slide_id}.npz").composition for slide in patient.slides])


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
