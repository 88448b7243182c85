"""The command line: parse, load, call, print, exit code. Heavy imports happen inside the commands."""

import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathoml.config import Config
    from pathoml.extract import ExtractStatus, SlideOutcome, Watch
    from pathoml.pipeline.exchanging import ExchangeVerdict
    from pathoml.pipeline.running import RunResult
    from pathoml.pipeline.stages import StageContext
    from pathoml.progress import Progress

SOME_FAILED, WRONG_INPUT, INTERRUPTED, FAULT = 1, 2, 3, 70
_LINE_EVERY_S = 60.0
_TYPER_INTERRUPTED = 130  # what typer makes of Ctrl-C
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # newer typers carry a click of their own under a private name

app = typer.Typer(
    help="From whole-slide images and a survival table to a prognostic model. Research use only.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
slide_app = typer.Typer(help="Look at slides.", no_args_is_help=True)
bags_app = typer.Typer(help="Look at feature bags, and exchange them with other tools.", no_args_is_help=True)
app.add_typer(slide_app, name="slide")
app.add_typer(bags_app, name="bags")
encoders_app = typer.Typer(help="Look at published encoders.", no_args_is_help=True)
app.add_typer(encoders_app, name="encoders")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - as click calls it
    if wanted:
        from pathoml.provenance import pathoml_version

        _say(f"pathoml {pathoml_version()}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)]


@app.callback()
def root(*, version: Version = False) -> None:
    """From whole-slide images and a survival table to a prognostic model. Research use only."""


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The study's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the configuration.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: the output of the configuration.")]
PackagePath = Annotated[Path, typer.Argument(metavar="PACKAGE", help="Folder of a model package.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def main() -> None:
    """Run the command line and turn what goes wrong into a message and an exit code."""
    import traceback

    from pathoml.errors import OutputError, PathomlError, SlidesFailedError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    # A scheduler presses Ctrl-C with SIGTERM, and a shell starts what runs in its background deaf to SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = app(standalone_mode=False)
    except _USAGE_ERROR as error:
        error.show()
        code = WRONG_INPUT
    except OutputError as error:
        _say(f"{error}\nwhat was finished is kept; the same command goes on", error=True)
        code = INTERRUPTED
    except SlidesFailedError as error:
        _say(str(error), error=True)
        code = SOME_FAILED
    except PathomlError as error:
        _say(str(error), error=True)
        code = WRONG_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = _TYPER_INTERRUPTED
    except Exception:  # noqa: BLE001 - at the outermost border: shown whole, and with a code that means nothing else
        traceback.print_exc()
        _say("this is a fault of pathoml, not of your data; please report it with the lines above", error=True)
        code = FAULT
    if code == _TYPER_INTERRUPTED:
        _say("interrupted; the same command goes on where it stopped", error=True)
        code = INTERRUPTED
    sys.exit(code)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path("pathoml-demo"), device: Device = "auto"
) -> None:
    """Draw a synthetic cohort and take it through the whole pipeline, offline."""
    from pathoml.pipeline.demo import demo as run_demo

    with _context(device) as context:
        result = run_demo(folder, context)
    _say_run(result.run)
    _say(f"oracle (the hazard that the cohort was drawn with) on the same patients: {result.oracle_concordance:.3f}")
    _say("with this few patients chance can put a model above the oracle")


@app.command()
def doctor() -> None:
    """Show what this machine has."""
    from pathoml.pipeline.doctor import doctor as examine

    _table("This machine", examine(Path.cwd()))


OpenSlides = Annotated[bool, typer.Option("--slides", help="Open every slide.")]


@app.command()
def check(config: ConfigPath, overrides: Overrides = None, slides: OpenSlides = False) -> None:  # noqa: FBT002
    """List every problem of configuration and cohort at once."""
    from pathoml.pipeline.checking import check as find_problems

    with _progress() as (progress, _):
        result = find_problems(config, overrides or [], open_slides=slides, progress=progress)
    if result.facts:
        _table("Cohort", result.facts)
    for warning in result.warnings:
        _say(f"warning: {warning}")
    for problem in result.problems:
        _say(f"{problem}", error=True)
    if result.problems:
        _say(f"{len(result.problems)} problem(s)", error=True)
        raise typer.Exit(WRONG_INPUT)
    _say("no problems")


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

    settings = _load(config, overrides)
    _table("Plan", make_plan(settings).facts)
    if measure:
        from pathoml.pipeline.doctor import resolve_device
        from pathoml.pipeline.measuring import measure_batches, proposal

        timings = list(measure_batches(settings, resolve_device(settings.device)))
        rows = [(f"{one.precision}, {one.batch_tiles} tiles", f"{one.tiles_per_s:.1f} tiles/s") for one in timings]
        _table("Encoder on this machine", rows)
        _say(f"to be pasted into the configuration, one of:\n{proposal(timings)}")


@app.command()
def run(config: ConfigPath, overrides: Overrides = None) -> None:
    """Extract, train, evaluate, draw and report; go on where an earlier run stopped."""
    from pathoml.pipeline.running import run as run_all

    settings = _load(config, overrides)
    with _context(settings.device) as context:
        result = run_all(settings, context)
    _say_run(result)
    _exit_for(result.failed)


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
    settings = _load(config, overrides)
    with _context(settings.device) as context:
        outcomes = extract_stage(open_study(settings), context, shard=part, on_ray=engine is Engine.ray)
    _say_outcomes(outcomes)


@app.command()
def train(config: ConfigPath, overrides: Overrides = None) -> None:
    """Cross-validate the model on the bags that there are."""
    from pathoml.pipeline.stages import train_stage
    from pathoml.pipeline.study import open_study

    settings = _load(config, overrides)
    with _context(settings.device) as context:
        study = train_stage(open_study(settings), context)
    _say(f"predictions: {study.folder.predictions}\nmodel package: {study.folder.package}")


@app.command()
def evaluate(run_folder: RunPath) -> None:
    """Judge a run's predictions on its test patients."""
    from pathoml.pipeline.run_folder import RunFolder
    from pathoml.pipeline.stages import evaluate_stage
    from pathoml.pipeline.study import run_config

    config = run_config(run_folder)
    for name, scheme in evaluate_stage(config)["schemes"].items():
        for model, metrics in scheme["metrics"].items():
            _table(f"{name}: {model}", [(metric, _interval(value)) for metric, value in metrics.items()])
        for pair, metrics in scheme["differences"].items():
            _table(f"{name}: {pair}", [(metric, _interval(value)) for metric, value in metrics.items()])
    _say(f"written to {RunFolder(run_folder).evaluation}; research use only")


@app.command()
def report(run_folder: RunPath) -> None:
    """Write a run's page again."""
    from pathoml.pipeline.stages import report_stage, usable_study
    from pathoml.pipeline.study import open_run

    _say(f"report: {report_stage(usable_study(open_run(run_folder)))}")


Inputs = Annotated[
    list[Path] | None, typer.Argument(metavar="SLIDES...", help="Slides, bags (.h5), or a manifest (.csv).")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Table = Annotated[Path | None, typer.Option(help="Table with patient_id and the model's covariates.")]
Weights = Annotated[str | None, typer.Option(help="Weights file of a local or registered encoder.")]
TissueSource = Annotated[
    str | None,
    typer.Option(
        help="Folder of outlined regions, or weights file of the segmentation network, if the model used one."
    ),
]


Impute = Annotated[
    bool,
    typer.Option(
        "--impute-covariates", help="Fill in training medians and most frequent words where no table is given."
    ),
]


@app.command()
def predict(  # noqa: PLR0913, PLR0917 - one for each option of the command
    package: PackagePath,
    slides: Inputs = None,
    output: Output = Path("predictions"),
    table: Table = None,
    impute_covariates: Impute = False,  # noqa: FBT002
    encoder_weights: Weights = None,
    tissue_source: TissueSource = None,
    device: Device = "auto",
) -> None:
    """Predict patients that the model has never seen."""
    from pathoml.pipeline.predicting import PredictRequest
    from pathoml.pipeline.predicting import predict as run_predict

    request = PredictRequest(
        package, tuple(slides or ()), output, table, impute_covariates, encoder_weights, tissue_source
    )
    with _context(device) as context:
        predictions, outcomes = run_predict(request, context)
    _table(
        "Risk (0 = average training patient, in SD; high = above the training patients' median)",
        _risk_rows(predictions.table),
    )
    _say(f"predictions: {output / 'predictions.csv'}; research use only")
    _say_outcomes(outcomes)


@app.command()
def heatmap(
    package: PackagePath,
    slides: Inputs = None,
    output: Output = Path("heatmaps"),
    encoder_weights: Weights = None,
    tissue_source: TissueSource = None,
    device: Device = "auto",
) -> None:
    """Draw what each tile of slides adds to the risk, and where the model looks."""
    from pathoml.heatmap_settings import HeatmapSettings
    from pathoml.pipeline.predicting import PredictRequest, draw_maps

    request = PredictRequest(
        package, tuple(slides or ()), output, encoder_weights=encoder_weights, tissue_source=tissue_source
    )
    with _context(device) as context:
        drawn, outcomes = draw_maps(request, context, HeatmapSettings())
    for path in drawn:
        _say(f"heatmap: {path}")
    _say_outcomes(outcomes)


@slide_app.command("info")
def slide_info(
    slides: Annotated[list[Path], typer.Argument(help="Slides.")],
    mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel, instead of what the slides say.")
    ] = None,
) -> None:
    """Show size, levels, resolution and how fast slides are read; nothing that could name a person."""
    from pathoml.errors import SlideError
    from pathoml.pipeline.slide_facts import slide_facts

    failed = 0
    for path in slides:
        try:
            _table(path.name, slide_facts(path, mpp=mpp))
        except SlideError as error:
            failed += 1
            _say(f"{error.code}: {error}", error=True)
    if failed:
        raise typer.Exit(SOME_FAILED)


Mpp = Annotated[float, typer.Option(help="Microns per pixel.", min=0.05)]


@slide_app.command("thumbnail")
def slide_thumbnail(
    slide: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("thumbnail.png"),
    mpp: Mpp = 8.0,
    slide_mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel, instead of what the slide says.")
    ] = None,
    *,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Outline tissue and tiles, with the default settings.")
    ] = False,
) -> None:
    """Write a small picture of a slide; never of its label."""
    if tiles:
        from pathoml.pipeline.slide_facts import write_sheet_of

        write_sheet_of(slide, output, mpp=slide_mpp)
        _say(f"contact sheet: {output}")
        return
    from PIL import Image

    from pathoml.files import atomic_path
    from pathoml.slides import open_slide, whole_slide_image

    with open_slide(slide, mpp=slide_mpp) as opened, atomic_path(output) as temporary:
        Image.fromarray(whole_slide_image(opened, mpp)).save(temporary, format="PNG")
    _say(f"thumbnail: {output}")


@slide_app.command("regions")
def slide_regions(
    slide: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoJSON to write.")] = Path("regions.geojson"),
    slide_mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel, instead of what the slide says.")
    ] = None,
) -> None:
    """Write tissue, artefacts and tiles, as the default settings find them, as GeoJSON for QuPath."""
    from pathoml.pipeline.slide_facts import write_regions_of

    tiles = write_regions_of(slide, output, mpp=slide_mpp)
    _say(f"regions: {output} (tissue, artefacts and {tiles} tiles); drop the file onto the slide in QuPath")


@bags_app.command("inspect")
def bags_inspect(bags: Annotated[list[Path], typer.Argument(help="Bags (.h5).")]) -> None:
    """Show what bags say of themselves."""
    from dataclasses import asdict

    from pathoml.bags import read_bag_header

    for path in bags:
        _table(path.name, [(name, str(value)) for name, value in asdict(read_bag_header(path)).items()])


@bags_app.command("verify")
def bags_verify(
    bags: Annotated[list[Path], typer.Argument(help="Bags (.h5).")],
    source: Annotated[
        Path | None,
        typer.Option(help="Configuration whose manifest names the slides; each is read whole and compared too."),
    ] = None,
) -> None:
    """Recompute checksums of bags and look for values that are not finite."""
    from pathoml.manifest import read_manifest
    from pathoml.pipeline.study import slides_of
    from pathoml.pipeline.verifying import verify_bags

    entries = None if source is None else read_manifest(slides_of(_load(source, None)))
    failed = 0
    for verdict in verify_bags(bags, entries):
        failed += not verdict.whole
        _say(verdict.said, error=not verdict.whole)
    if failed:
        raise typer.Exit(SOME_FAILED)


class Layout(StrEnum):
    """Layouts of other tools."""

    TRIDENT = "trident"
    CLAM = "clam"
    STAMP = "stamp"


LayoutOption = Annotated[Layout, typer.Option(help="Whose files.")]
ExchangeFolder = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the result.")]


@bags_app.command("export")
def bags_export(
    output: ExchangeFolder, bags: Annotated[list[Path], typer.Argument(help="Bags (.h5).")], layout: LayoutOption
) -> None:
    """Write bags as TRIDENT, CLAM or STAMP would have."""
    from pathoml.pipeline.exchanging import export_bags

    _say_exchange("exported", export_bags(layout.value, bags, output))


@bags_app.command("import")
def bags_import(  # noqa: PLR0913, PLR0917 - one for each option of the command
    output: ExchangeFolder,
    files: Annotated[
        list[Path], typer.Argument(help="Feature files, each named as its slide (.h5; of CLAM also .pt).")
    ],
    layout: LayoutOption,
    mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel of the slides.", min=0.05, max=10)
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Name of the encoder, where the files do not say it.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Table with slide_id, path, patient_id and, if known, mpp.")
    ] = None,
    target_mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel that tiles were asked for.", min=0.05, max=10)
    ] = None,
    weights_digest: Annotated[str, typer.Option(help="SHA-256 of the encoder's weights.")] = "",
    patches: Annotated[Path | None, typer.Option(help="Folder of CLAM's patch files.")] = None,
) -> None:
    """Turn feature files of TRIDENT, CLAM or STAMP into bags that train."""
    from pathoml.pipeline.exchanging import ImportRequest, import_bags

    request = ImportRequest(
        layout.value, tuple(files), output, mpp, encoder, manifest, target_mpp, weights_digest, patches
    )
    _say_exchange("imported", import_bags(request))


def _say_exchange(done: str, verdicts: "Iterator[ExchangeVerdict]") -> None:
    counts = {"done": 0, "empty": 0, "failed": 0}
    for verdict in verdicts:
        counts[verdict.status] += 1
        _say(verdict.said, error=verdict.status != "done")
    _say(f"bags: {counts['done']} {done}, {counts['empty']} without tissue, {counts['failed']} failed")
    if counts["failed"]:
        raise typer.Exit(SOME_FAILED)


EncoderName = Annotated[str, typer.Argument(metavar="NAME", help="As in 'pathoml encoders list'.")]


@encoders_app.command("list")
def encoders_list() -> None:
    """List the encoders whose facts are known."""
    from pathoml.encoders.registry import TABLE_HEADER, table_rows

    _table("Encoders (set encoder: {kind: registered, name: NAME})", table_rows(), header=TABLE_HEADER)


@encoders_app.command("show")
def encoders_show(name: EncoderName) -> None:
    """Show everything that is known of one encoder, and from where."""
    from pathoml.pipeline.encoder_facts import record_facts

    _table(name, record_facts(name))


@encoders_app.command("verify")
def encoders_verify(
    name: EncoderName,
    weights: Annotated[Path | None, typer.Option(help="Its downloaded weights file.")] = None,
    sha256: Annotated[str | None, typer.Option(help="What the file's SHA-256 has to be.")] = None,
) -> None:
    """Build an encoder's network, run a random tile, load the weights given, and say what that verifies."""
    from pathoml.pipeline.encoder_facts import verify_encoder

    _table(name, verify_encoder(name, weights, sha256))


def _load(path: Path, overrides: Sequence[str] | None) -> "Config":
    from pathoml.config import load_config

    return load_config(path, overrides or [])


@contextmanager
def _context(device: str) -> Iterator["StageContext"]:
    from pathoml.pipeline.doctor import resolve_device
    from pathoml.pipeline.stages import StageContext

    with _progress() as (progress, watch):
        yield StageContext(resolve_device(device), progress, watch)


@contextmanager
def _progress() -> Iterator[tuple["Progress", "Watch"]]:
    """Show one bar with time left for each stage and the pace of extraction, on standard error."""
    from rich import progress as rich_progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _quarters(), _pace_lines()
        return
    columns = (
        rich_progress.TextColumn("{task.description:<12}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left:"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[pace]}"),
    )
    with rich_progress.Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def listen(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, pace="")
            bars.update(tasks[stage], completed=done, total=total)

        def watch(status: "ExtractStatus") -> None:
            if "extract" in tasks:
                bars.update(tasks["extract"], pace=_pace(status))

        yield listen, watch


def _pace(status: "ExtractStatus") -> str:
    failed = f", {status.failed} failed" if status.failed else ""
    return f"{status.tiles_per_s:.0f} tiles/s, encoder busy {status.device_busy_share:.0%}{failed}"


def _pace_lines() -> "Watch":
    """Write a line a minute, where nobody watches a bar."""
    told = time.monotonic()

    def watch(status: "ExtractStatus") -> None:
        nonlocal told
        if time.monotonic() - told >= _LINE_EVERY_S:
            told = time.monotonic()
            left = f", {status.seconds_left / 60:.0f} min left" if status.seconds_left >= 0 else ""
            _say(f"extract: {status.ended} of {status.slides} slides, {_pace(status)}{left}", error=True)

    return watch


def _quarters() -> "Progress":
    """Write a line for each quarter of a stage, with the time since its first, where nobody watches a bar."""
    started: dict[str, float] = {}

    def listen(stage: str, done: int, total: int) -> None:
        began = started.setdefault(stage, time.monotonic())
        if done == 0 or done * 4 // max(1, total) > (done - 1) * 4 // max(1, total):
            _say(f"{stage}: {done} of {total} ({time.monotonic() - began:.0f} s)", error=True)

    return listen


def _say(text: str, *, error: bool = False) -> None:
    typer.echo(text, err=error)


def _table(title: str, rows: Sequence[tuple[str, ...]], *, header: Sequence[str] = ()) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(show_header=bool(header))
    for position, title_of_column in enumerate(header):
        table.add_column(title_of_column, overflow="fold", no_wrap=position == 0)
    for cells in rows:
        table.add_row(*(escape(str(cell)) for cell in cells))
    console = Console()
    console.print(escape(title), style="bold")
    console.print(table)


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "not defined"
    return f"{estimate['value']:.3f} (95 % interval {estimate['low']:.3f} to {estimate['high']:.3f})"


def _risk_rows(table: Any) -> list[tuple[str, str]]:
    return [(row.patient_id, f"{row.risk:+.2f}  {row.risk_group}") for row in table.head(30).itertuples()]


def _say_run(result: "RunResult") -> None:
    _say(f"report:        {result.report}")
    if result.heatmaps:
        _say(f"heatmaps:      {result.folder.heatmaps} ({len(result.heatmaps)} pictures)")
    _say(f"model package: {result.folder.package}")
    _say(f"predictions:   {result.folder.predictions}")
    name, scheme = next(iter(result.evaluation["schemes"].items()))
    rows = [(model, _interval(metrics["concordance"])) for model, metrics in scheme["metrics"].items()]
    rows += [(pair, _interval(metrics["concordance"])) for pair, metrics in scheme["differences"].items()]
    _table(f"Concordance on test patients, {name} (0.5 = guessing)", rows)
    _say("research use only")
    for outcome in result.failed:
        _say(f"slide {outcome.slide_id} was left out: {outcome.code}: {outcome.message}", error=True)


def _say_outcomes(outcomes: Sequence["SlideOutcome"]) -> None:
    failed = [outcome for outcome in outcomes if not outcome.has_bag]
    for outcome in failed:
        _say(f"slide {outcome.slide_id}: {outcome.code}: {outcome.message}", error=True)
    if outcomes:
        _say(f"slides: {len(outcomes) - len(failed)} with a bag, {len(failed)} without")
    _exit_for(failed)


def _exit_for(failed: Sequence["SlideOutcome"]) -> None:
    """Leave with an exit code if a slide failed; one without tissue is worth a line only."""
    if any(outcome.code != "NO_TISSUE" for outcome in failed):
        raise typer.Exit(SOME_FAILED)
