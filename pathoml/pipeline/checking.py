"""Every problem of configuration, cohort and slides, before any work is done. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathoml.cohort import Cohort, SlideEntry, events_per_parameter
from pathoml.config import Config, examine_config
from pathoml.covariates import ReducedCovariate, covariate_name
from pathoml.encoders.fitting import encoder_problems
from pathoml.errors import InputError, Problem, SlideError
from pathoml.extract_settings import ExtractSettings
from pathoml.leakage import LeakageReport, examine_leakage
from pathoml.manifest import remote_slides
from pathoml.pipeline.slide_marks import file_marks
from pathoml.pipeline.study import Study, examine_data, is_imported
from pathoml.progress import Progress, silent
from pathoml.slides import open_slide, slide_fingerprint
from pathoml.splits import Fold, examine_folds
from pathoml.survival.curves import censoring_survival
from pathoml.tiles import require_brightfield
from pathoml.tiling import TilingSettings, plan_reading
from pathoml.yaml_source import YamlSource


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
    leakage : LeakageReport or None
        Of the configured split; None where there are problems before it.
    """

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    facts: tuple[tuple[str, str], ...]
    leakage: LeakageReport | None = None


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
        config = examine_config(path, overrides)
    except InputError as error:
        return CheckResult(error.problems or (Problem("", str(error)),), (), ())
    problems = list(config.problems)
    data = None
    folds: tuple[Fold, ...] = ()
    prints: list[str] = []
    if "cohort" in config.sections:
        slides = config.sections.get("slides")
        imported = is_imported(config.sections.get("encoder"))
        data = examine_data(config.sections["cohort"], slides, slides_needed=not imported)
        problems += data.problems
        if slides is not None and "encoder" in config.sections:
            problems += encoder_problems(config.sections["encoder"], config.sections.get("tiling", TilingSettings()))
        if slides is not None and not imported and config.sections.get("extract", ExtractSettings()).staging is None:
            problems += remote_slides(data.entries, slides.manifest.name)
        if data.cohort is not None and "splits" in config.sections:
            dealing = examine_folds(data.cohort, config.sections["splits"], outcomes_known=data.outcomes_known)
            problems += dealing.problems
            folds = dealing.folds if not dealing.problems else ()
        if open_slides and slides is not None and not imported:
            tiling = config.sections.get("tiling", TilingSettings())
            problems += _slide_problems(data.entries, tiling, slides.manifest.name, progress)
            prints = [_fingerprint(entry.path) for entry in data.entries]
    located = tuple(_located(problem, config.source) for problem in problems)
    if located or config.config is None or data is None or data.cohort is None:
        return CheckResult(located, (), ())
    study = Study(config.config, data.cohort, data.entries)
    leakage = examine_leakage(data.cohort, folds, file_marks(data.entries, prints) if prints else ())
    if leakage.leaks:
        return CheckResult(tuple(Problem("splits", str(one)) for one in leakage.leaks), (), (), leakage)
    return CheckResult((), study.cohort.warnings, cohort_facts(study), leakage)


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
        ("Coding", _coding(config, events, len(cohort))),
        ("Time zero", _time_zero(config)),
        ("Events per parameter of the covariates", _per_parameter(cohort, config)),
        ("Median follow-up (reverse Kaplan-Meier)", _median_follow_up(cohort)),
        (
            "Hospitals",
            f"{len(sites)} ({', '.join(sites[:12])}{', ...' if len(sites) > 12 else ''})" if sites else "not given",
        ),
        ("Covariates", ", ".join(_covariate_names(config)) or "none"),
        ("Clinical model", f"ridge Cox on {', '.join(clinical_names(config)) or 'nothing'}"),
    ]
    if len(config.cohort.all_endpoints) > 1:
        facts.insert(1, ("Endpoints declared", ", ".join(config.cohort.all_endpoints)))
    facts += [
        (f"Left out of the {step.unit}", f"{step.dropped}: {step.reason}") for step in cohort.flow if step.dropped
    ]
    if config.slides is not None:
        facts.append(("Slides", str(len(study.entries))))
    return tuple(facts)


def _time_zero(config: Config) -> str:
    """Say from what the follow-up counts, as far as the configuration knows."""
    outcome, zero = config.cohort.outcome, config.cohort.time_zero
    parts = [
        f"date in column {zero.column}"
        if zero is not None
        else f"what column {outcome.time} counts from; cohort.time_zero, which would name it, is not given"
    ]
    if outcome.entry is not None and outcome.entry_is == "time_zero":
        parts = [f"each patient's entry, column {outcome.entry}"]
    if outcome.landmark > 0:
        parts.append(f"shifted to the landmark, {outcome.landmark:g} {outcome.time_unit} later")
    return ", ".join(parts)


def _per_parameter(cohort: Cohort, config: Config) -> str:
    events, parameters = events_per_parameter(cohort, config.cohort.covariates)
    return f"{events / parameters:.1f} ({events} / {parameters})" if parameters else "no covariates"


def _coding(config: Config, events: int, patients: int) -> str:
    """Spell out what stands in the event column, so that a reversed coding is seen."""
    codes = config.cohort.outcome.event_codes
    of_event, of_censored = (" or ".join(f"'{key}'" for key in codes if codes[key] == value) for value in (1, 0))
    column = config.cohort.outcome.event
    others = [f"'{key}'" for key in codes if codes[key] > 1]
    competing = f", {' or '.join(others)} a competing event, counted with them" if others else ""
    return f"{column} = {of_event} is an event ({events}), {of_censored} is censored ({patients - events}){competing}"


def _median_follow_up(cohort: Cohort) -> str:
    """Return when half of the patients would have been censored had none had the event."""
    remaining = censoring_survival(cohort.time_days, cohort.event)
    reached = remaining.days[remaining.values <= 0.5]
    return f"{reached[0]:.0f} days" if len(reached) else "not reached"


def _covariate_names(config: Config) -> list[str]:
    return [covariate_name(one) for one in config.cohort.covariates]


def clinical_names(config: Config) -> list[str]:
    """Name what the clinical model is made of.

    Parameters
    ----------
    config : Config
        Of a study.

    Returns
    -------
    list of str
        Covariates that are no blocks.
    """
    return [covariate_name(one) for one in config.cohort.covariates if not isinstance(one, ReducedCovariate)]


def _located(problem: Problem, source: YamlSource) -> Problem:
    """Put the line of the configuration that a problem follows from in front of its place in a table."""
    line = source.where(problem.key) if problem.key else ""
    where = f"{line} ({problem.where})" if line and problem.where else line or problem.where
    return Problem(where, problem.message)


def _fingerprint(path: Path) -> str:
    """Return by what a slide's file is known again; nothing where it cannot be read, which is a problem of its own."""
    return slide_fingerprint(path) if path.exists() else ""


def _slide_problems(
    entries: Sequence[SlideEntry], tiling: TilingSettings, manifest_name: str, progress: Progress
) -> list[Problem]:
    problems = []
    for done, entry in enumerate(entries, start=1):
        try:
            if entry.path.exists():  # a missing file is listed already
                with open_slide(entry.path, mpp=entry.mpp) as slide:
                    plan_reading(slide.geometry, tiling, entry.path.name)
                    require_brightfield(slide)
        except SlideError as error:
            where = f"{manifest_name}: row {entry.row}"
            problems.append(Problem(where, f"slide {entry.slide_id}: {error.code}: {error}"))
        progress("check slides", done, len(entries))
    return problems
