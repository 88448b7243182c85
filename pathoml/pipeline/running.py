"""`run`: every stage in order, resuming."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pathoml.config import Config
from pathoml.errors import CohortError, Problem, SlidesFailedError
from pathoml.extract import SlideOutcome
from pathoml.pipeline.doctor import resolve_device
from pathoml.pipeline.mapping import heatmap_stage
from pathoml.pipeline.reporting import report_stage
from pathoml.pipeline.run_folder import RunFolder, require_writable
from pathoml.pipeline.stages import StageContext, evaluate_stage, extract_stage, train_stage
from pathoml.pipeline.study import Study, open_study

Result = TypeVar("Result")


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Parameters
    ----------
    folder : RunFolder
        Names of its files.
    report : Path
        The page.
    heatmaps : tuple of Path
        The pictures.
    evaluation : dict
        Metrics with intervals.
    failed : tuple of SlideOutcome
        Slides that could not be used.
    """

    folder: RunFolder
    report: Path
    heatmaps: tuple[Path, ...]
    evaluation: dict[str, Any]
    failed: tuple[SlideOutcome, ...]


def run(config: Config, context: StageContext | None = None) -> RunResult:
    """Take a study from slides and table to the report; what is done already is not done again.

    Parameters
    ----------
    config : Config
        All settings.
    context : StageContext, optional
        Device and listener; by default the device that the configuration names, and nobody.

    Returns
    -------
    RunResult
        Where everything stands.

    Raises
    ------
    InputError
        If the configuration, the table or the slides cannot be used.
    SlidesFailedError
        If so many slides fail that no model can be trained on the rest.
    """
    require_writable(config.output)
    context = context or StageContext(resolve_device(config.device))
    study = open_study(config)
    outcomes = extract_stage(study, context) if config.slides is not None else []
    failed = tuple(outcome for outcome in outcomes if not outcome.has_bag)
    study = _train_on_the_rest(study, failed, context)
    evaluation = _told(context, "evaluate", lambda: evaluate_stage(study, context))
    heatmaps = _told(context, "maps", lambda: heatmap_stage(study, context))
    report = _told(context, "report", lambda: report_stage(study))
    return RunResult(study.folder, report, tuple(path for _, path in heatmaps), evaluation, failed)


def _told(context: StageContext, stage: str, work: Callable[[], Result]) -> Result:
    """Do what has no pieces to count, and say when it begins and ends."""
    context.progress(stage, 0, 1)
    result = work()
    context.progress(stage, 1, 1)
    return result


def _train_on_the_rest(study: Study, failed: tuple[SlideOutcome, ...], context: StageContext) -> Study:
    try:
        return train_stage(study, context)
    except CohortError as error:
        if not failed:
            raise
        problems = [Problem(f"slide {outcome.slide_id}", f"{outcome.code}: {outcome.message}") for outcome in failed]
        raise SlidesFailedError(f"{error}; {len(failed)} slide(s) failed before", problems) from error
