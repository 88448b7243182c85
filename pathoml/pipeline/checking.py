"""Every problem of configuration, cohort and slides, before any work is done. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathoml.cohort import Cohort
from pathoml.config import Config, load_config
from pathoml.errors import InputError, Problem, SlideError
from pathoml.pipeline.study import Study, open_study
from pathoml.progress import Progress, silent
from pathoml.slides import open_slide
from pathoml.splits import make_folds
from pathoml.survival.curves import censoring_survival
from pathoml.tiling import plan_reading


@dataclass(frozen=True)
class CheckResult:
    """What `check` found.

    Parameters
    ----------
    problems : tuple of Problem
        What has to be mended.
    warnings : tuple of Problem
        What should be known.
    facts : tuple of (str, str)
        What was read, in numbers.
    """

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    facts: tuple[tuple[str, str], ...]


def check(
    path: Path, overrides: Sequence[str] = (), *, open_slides: bool = False, progress: Progress = silent
) -> CheckResult:
    """Look for every problem at once.

    Parameters
    ----------
    path : Path
        The configuration.
    overrides : sequence of str, optional
        As `load_config` takes them.
    open_slides : bool, optional
        Whether to open every slide and judge its resolution, which takes time on a network share.
    progress : Progress, optional
        Told after every slide opened.

    Returns
    -------
    CheckResult
        Empty problems mean that a run can start.
    """
    try:
        config = load_config(path, overrides)
        study = open_study(config)
    except InputError as error:
        return CheckResult(error.problems or (Problem("", str(error)),), (), ())
    problems: list[Problem] = []
    try:
        make_folds(study.cohort, config.splits)
    except InputError as error:
        problems += error.problems or (Problem("splits", str(error)),)
    if open_slides:
        problems += _slide_problems(study, progress)
    return CheckResult(tuple(problems), study.cohort.warnings, cohort_facts(study))


def cohort_facts(study: Study) -> tuple[tuple[str, str], ...]:
    """Describe a study's cohort in numbers.

    Parameters
    ----------
    study : Study
        With its data.

    Returns
    -------
    tuple of (str, str)
        Name and value.
    """
    cohort, config = study.cohort, study.config
    events = int(cohort.event.sum())
    sites = sorted(set(cohort.site) - {""})
    facts = [
        ("Endpoint", cohort.endpoint),
        ("Patients", str(len(cohort))),
        ("Events", f"{events} ({events / len(cohort):.0%})"),
        ("Median follow-up (reverse Kaplan-Meier)", _median_follow_up(cohort)),
        (
            "Hospitals",
            f"{len(sites)} ({', '.join(sites[:12])}{', ...' if len(sites) > 12 else ''})" if sites else "not given",
        ),
        ("Covariates", ", ".join(_covariate_names(config)) or "none"),
        ("Clinical model", f"ridge Cox on {', '.join(_clinical_names(config)) or 'nothing'}"),
    ]
    if config.slides is not None:
        facts.append(("Slides", str(len(study.entries))))
    return tuple(facts)


def _median_follow_up(cohort: Cohort) -> str:
    """Return when half of the patients would have been censored had none had the event."""
    remaining = censoring_survival(cohort.time_days, cohort.event)
    reached = remaining.days[remaining.values <= 0.5]
    return f"{reached[0]:.0f} days" if len(reached) else "not reached"


def _covariate_names(config: Config) -> list[str]:
    return [one.name if one.kind == "block" else one.column for one in config.cohort.covariates]


def _clinical_names(config: Config) -> list[str]:
    return [one.column for one in config.cohort.covariates if one.kind != "block"]


def _slide_problems(study: Study, progress: Progress) -> list[Problem]:
    problems = []
    for done, entry in enumerate(study.entries, start=1):
        try:
            with open_slide(entry.path, mpp=entry.mpp) as slide:
                plan_reading(slide.geometry, study.config.tiling, entry.path.name)
        except SlideError as error:
            problems.append(Problem(f"row {entry.row}: slide {entry.slide_id}", f"{error.code}: {error}"))
        progress("check slides", done, len(study.entries))
    return problems
