"""Commands on a study: its configuration, and the run that it makes."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathoml.cli.terminal import (
    WRONG_INPUT,
    ConfigPath,
    Device,
    Overrides,
    RunPath,
    exit_for_failed,
    load,
    say,
    say_outcomes,
    show_progress,
    show_table,
    stage_context,
)

if TYPE_CHECKING:
    from pathoml.pipeline.running import RunResult

app = typer.Typer()


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path("pathoml-demo"),
    device: Device = "auto",
    *,
    federated: Annotated[
        bool, typer.Option("--federated", help="Afterwards its hospitals train one model together, too.")
    ] = False,
) -> None:
    """Draw a synthetic cohort and take it through the whole pipeline, offline."""
    from pathoml.pipeline.demo import demo as run_demo
    from pathoml.pipeline.demo import federated_demo

    with stage_context(device) as context:
        result = run_demo(folder, context)
        page = federated_demo(folder, context) if federated else None
    _say_run(result.run)
    say(f"oracle (the hazard that the cohort was drawn with) on the same patients: {result.oracle_concordance:.3f}")
    say("with this few patients chance can put a model above the oracle")
    if page is not None:
        say(f"federation:    {page}")


@app.command()
def doctor() -> None:
    """Show what this machine has."""
    from pathoml.pipeline.doctor import doctor as examine

    show_table("This machine", examine(Path.cwd()))


OpenSlides = Annotated[bool, typer.Option("--slides", help="Open every slide.")]


@app.command()
def check(config: ConfigPath, overrides: Overrides = None, slides: OpenSlides = False) -> None:  # noqa: FBT002
    """List every problem of configuration and cohort at once."""
    from pathoml.pipeline.checking import check as find_problems

    with show_progress() as (progress, _):
        result = find_problems(config, overrides or [], open_slides=slides, progress=progress)
    if result.facts:
        show_table("Cohort", result.facts)
    for warning in result.warnings:
        say(f"warning: {warning}")
    found = result.leakage.findings if result.leakage is not None else ()
    for finding in found:
        if finding.level != "leak":
            say(f"{'warning: ' if finding.level == 'warning' else 'note: '}{finding}")
    for problem in result.problems:
        say(f"{problem}", error=True)
    if result.problems:
        say(f"{len(result.problems)} problem(s)", error=True)
        raise typer.Exit(WRONG_INPUT)
    doubts = len(result.warnings) + sum(one.level == "warning" for one in found)
    say("no problems" if not doubts else f"nothing stands in the way; {doubts} warning(s) above, look at them first")


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    *,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time batch shapes and precisions of the encoder.")
    ] = False,
) -> None:
    """Show what a run would do; write nothing."""
    from pathoml.pipeline.planning import plan as make_plan

    settings = load(config, overrides)
    show_table("Plan", make_plan(settings).facts)
    if measure:
        from pathoml.pipeline.doctor import resolve_device
        from pathoml.pipeline.measuring import measure_batches, proposal

        timings = list(measure_batches(settings, resolve_device(settings.device)))
        rows = [(f"{one.precision}, {one.batch_tiles} tiles", f"{one.tiles_per_s:.1f} tiles/s") for one in timings]
        show_table("Encoder on this machine", rows)
        say(f"to be pasted into the configuration, one of:\n{proposal(timings)}")


@app.command()
def run(config: ConfigPath, overrides: Overrides = None) -> None:
    """Extract, train, evaluate, draw and report; go on where an earlier run stopped."""
    settings = load(config, overrides)
    from pathoml.pipeline.running import run as run_all  # loads torch, which a wrong configuration need not wait for

    with stage_context(settings.device) as context:
        result = run_all(settings, context)
    _say_run(result)
    exit_for_failed(result.failed)


class Engine(StrEnum):
    """What the work of an extraction runs on."""

    local = "local"
    ray = "ray"


@app.command()
def extract(
    config: ConfigPath,
    overrides: Overrides = None,
    shard: Annotated[str | None, typer.Option(help="Only the I-th of N parts of the slides, as I/N.")] = None,
    engine: Annotated[Engine, typer.Option(help="This machine, or a Ray cluster.")] = Engine.local,
) -> None:
    """Turn slides into feature bags."""
    from pathoml.extract.shards import parse_shard
    from pathoml.pipeline.stages import extract_stage
    from pathoml.pipeline.study import open_study

    part = None if shard is None else parse_shard(shard)
    settings = load(config, overrides)
    with stage_context(settings.device) as context:
        outcomes = extract_stage(open_study(settings), context, shard=part, on_ray=engine is Engine.ray)
    if part is None and settings.slides is not None:
        say(
            f"what was kept and dropped: {settings.slides.bags / 'contact_sheets.html'}, in numbers quality.csv beside it"
        )
    say_outcomes(outcomes)


@app.command()
def train(config: ConfigPath, overrides: Overrides = None) -> None:
    """Cross-validate the model on the bags that there are."""
    settings = load(config, overrides)
    from pathoml.pipeline.stages import train_stage
    from pathoml.pipeline.study import open_study

    with stage_context(settings.device) as context:
        study = train_stage(open_study(settings), context)
    say(f"predictions: {study.folder.predictions}\nmodel package: {study.folder.package}")


@app.command()
def evaluate(run_folder: RunPath) -> None:
    """Judge a run's predictions on its test patients."""
    from pathoml.pipeline.run_folder import RunFolder
    from pathoml.pipeline.stages import evaluate_stage, usable_study
    from pathoml.pipeline.study import open_run

    for name, scheme in evaluate_stage(usable_study(open_run(run_folder)))["schemes"].items():
        _show_concordance(name, scheme)
    say(f"every measure: {RunFolder(run_folder).evaluation} and, after 'pathoml report', the page; research use only")


RunPaths = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folder; with --compare two or more.")]
Compare = Annotated[bool, typer.Option("--compare", help="Put runs side by side, with paired differences.")]
ComparisonPath = Annotated[Path, typer.Option("--output", "-o", help="The page of a comparison.")]


@app.command()
def report(runs: RunPaths, compare: Compare = False, output: ComparisonPath = Path("comparison.html")) -> None:  # noqa: FBT002
    """Write a run's page again, or put runs side by side."""
    if compare:
        from pathoml.pipeline.comparing import compare as compare_all
        from pathoml.report.words import estimate_words

        for name, scheme in compare_all(runs, output)["schemes"].items():
            rows = [
                (f"{one['run']} minus {one['minus']}", estimate_words(one["measures"]["concordance"], signed=True))
                for one in scheme["differences"]
            ]
            show_table(f"Difference in concordance (95 % interval), {name}", rows)
        say(f"comparison: {output}; research use only")
        return
    from pathoml.pipeline.reporting import report_stage
    from pathoml.pipeline.stages import usable_study
    from pathoml.pipeline.study import open_run

    if len(runs) > 1:
        raise typer.BadParameter("one run at a time, or several with --compare")
    say(f"report: {report_stage(usable_study(open_run(runs[0])))}")


def _show_concordance(name: str, scheme: Mapping[str, Any]) -> None:
    from pathoml.report.words import SCHEMES, estimate_words, model_words

    measured = {model_words(model): metrics for model, metrics in scheme["metrics"].items()}
    for pair, metrics in scheme["differences"].items():
        first, other = pair.split(" - ")
        measured[f"{model_words(first)} minus {model_words(other)}"] = metrics
    rows = [(label, estimate_words(metrics["concordance"])) for label, metrics in measured.items()]
    show_table(f"Concordance (0.5 = guessing; 95 % interval) on test patients: {SCHEMES.get(name, name)}", rows)


def _say_run(result: "RunResult") -> None:
    say(f"report:        {result.report}")
    if result.heatmaps:
        say(f"heatmaps:      {result.folder.heatmaps} ({len(result.heatmaps)} pictures)")
    say(f"model package: {result.folder.package}")
    say(f"predictions:   {result.folder.predictions}")
    name, scheme = next(iter(result.evaluation["schemes"].items()))
    _show_concordance(name, scheme)
    say("research use only")
    for outcome in result.failed:
        say(f"slide {outcome.slide_id} was left out: {outcome.code}: {outcome.message}", error=True)
