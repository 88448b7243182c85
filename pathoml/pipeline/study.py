"""A configuration and the data it names, read and joined."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from pathoml.cohort import Cohort, CohortSettings, SlideEntry, SlidesSettings, examine_cohort, leave_out, screen_slides
from pathoml.config import Config
from pathoml.encoders.settings import ImportedSettings
from pathoml.errors import CohortError, InputError, Problem
from pathoml.manifest import examine_manifest, join_slides, missing_files, unknown_patients
from pathoml.pipeline.run_folder import RunFolder
from pathoml.provenance import pathoml_version

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """A configuration with its data.

    Parameters
    ----------
    config : Config
        All settings.
    cohort : Cohort
        Patients, with their slides if the study has any.
    entries : tuple of SlideEntry
        All slides in manifest order.
    """

    config: Config
    cohort: Cohort
    entries: tuple[SlideEntry, ...]

    @property
    def folder(self) -> RunFolder:
        """Where its results stand."""
        return RunFolder(self.config.output)


def open_study(config: Config) -> Study:
    """Read everything that the configuration names and report all that is wrong with it at once.

    Slides that are not where the manifest says cost themselves alone, unless none is there.

    Parameters
    ----------
    config : Config
        All settings.

    Returns
    -------
    Study
        Ready for every stage.

    Raises
    ------
    CohortError
        With the problems of clinical table, manifest and slide files together.
    """
    reading = examine_data(config.cohort, config.slides, slides_needed=False)
    problems = list(reading.problems)
    if config.slides is not None and not is_imported(config.encoder):
        gone = missing_files(reading.entries, config.slides.manifest.name)
        if gone and not any(entry.path.exists() or entry.url for entry in reading.entries):
            problems += gone
        elif gone:
            logger.warning("slides that are not there are left out: %s", "; ".join(map(str, gone)))
    if problems or reading.cohort is None:
        raise CohortError(f"{len(problems)} problem(s) with the data of study {config.name}", problems)
    return Study(config, reading.cohort, reading.entries)


@dataclass(frozen=True)
class DataReading:
    """The data of a study as far as they can be read.

    Parameters
    ----------
    cohort : Cohort or None
        The patients; joined with their slides if nothing is wrong.
    entries : tuple of SlideEntry
        Slides that the manifest names, in its order.
    problems : tuple of Problem
        What is wrong with clinical table, manifest and slide files.
    outcomes_known : bool
        Whether events can be counted.
    """

    cohort: Cohort | None
    entries: tuple[SlideEntry, ...]
    problems: tuple[Problem, ...]
    outcomes_known: bool


def examine_data(
    cohort_settings: CohortSettings, slides: SlidesSettings | None, *, slides_needed: bool = True
) -> DataReading:
    """Read clinical table and manifest, and note all that is wrong with them and between them.

    Parameters
    ----------
    cohort_settings : CohortSettings
        The clinical table.
    slides : SlidesSettings or None
        The manifest, if the study has slides.
    slides_needed : bool, optional
        Whether a slide that is not where the manifest says is a problem; where bags are given it is none.

    Returns
    -------
    DataReading
        Whole or in part.
    """
    reading = examine_cohort(cohort_settings)
    problems, cohort = list(reading.problems), reading.cohort
    entries: tuple[SlideEntry, ...] = ()
    if slides is not None:
        name = slides.manifest.name
        entries, of_manifest = examine_manifest(slides)
        problems += of_manifest + (missing_files(entries, name) if slides_needed else [])
        if cohort is not None:
            problems += unknown_patients(entries, {*cohort.patient_id.tolist(), *cohort.left_out}, name)
            if not problems:
                entries, steps, problems = screen_slides(slides, entries, cohort)
                cohort = replace(cohort, flow=(*cohort.flow, *steps))
            cohort = cohort if problems else join_slides(cohort, entries, name, required=slides.required)
    return DataReading(cohort, entries, tuple(problems), reading.outcomes_known)


def is_imported(encoder: object) -> bool:
    """Tell whether bags are given, so that nothing is extracted and slides need not exist.

    Parameters
    ----------
    encoder : object
        Settings of the encoder, if they could be read.

    Returns
    -------
    bool
        True for ``kind: imported``.
    """
    return isinstance(encoder, ImportedSettings)


def slides_of(config: Config) -> SlidesSettings:
    """Return the part of a configuration that names slides.

    Parameters
    ----------
    config : Config
        All settings.

    Returns
    -------
    SlidesSettings
        Its manifest and folders.

    Raises
    ------
    InputError
        If the study has no slides.
    """
    if config.slides is None:
        raise InputError(f"study {config.name}: it has no slides; add the section slides with a manifest")
    return config.slides


def run_config(root: Path) -> Config:
    """Read the configuration that a run was made with.

    Parameters
    ----------
    root : Path
        A run folder, after training.

    Returns
    -------
    Config
        With the folder given as its output.

    Raises
    ------
    InputError
        If it is not a run folder.
    """
    path = RunFolder(root).config
    if not path.is_file():
        raise InputError(
            f"{root}: not a run folder (no {path.name}); give the folder that the configuration names as output"
        )
    try:
        config = Config.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the top"
        message = (
            f"{path}: not the configuration of a run by this version of pathoml ({pathoml_version()}): {first['msg']} at"
            f" {key}; open it with the version that made it (environment.json beside it says which), or run the study again"
        )
        raise InputError(message) from error
    return config.model_copy(update={"output": root})


def open_run(root: Path) -> Study:
    """Read the study that a run folder belongs to.

    Parameters
    ----------
    root : Path
        A run folder, after training.

    Returns
    -------
    Study
        With the configuration that the run was made with.
    """
    return open_study(run_config(root))


def keep_patients(cohort: Cohort, patient_ids: Sequence[str], reason: str) -> Cohort:
    """Return the cohort without patients that are not listed, with a warning that counts them.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    patient_ids : sequence of str
        Who stays.
    reason : str
        Why the others go.

    Returns
    -------
    Cohort
        In the same order.

    Raises
    ------
    CohortError
        If nobody is left.
    """
    wanted = set(patient_ids)
    rows = np.array([index for index, patient in enumerate(cohort.patient_id) if patient in wanted], dtype=np.int64)
    if len(rows) == 0:
        raise CohortError(f"no patient is left: {reason}")
    if len(rows) == len(cohort):
        return cohort
    gone = [patient for patient in cohort.patient_id if patient not in wanted]
    shown = ", ".join(gone[:5]) + (", ..." if len(gone) > 5 else "")
    left = leave_out(cohort, rows, reason)
    return replace(
        left, warnings=(*cohort.warnings, Problem("cohort", f"{len(gone)} patient(s) left out ({reason}): {shown}"))
    )
