"""What the commands share: options, and how things are said, shown and counted on a terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathoml.config import Config
    from pathoml.extract import ExtractStatus, SlideOutcome, Watch
    from pathoml.pipeline.stages import StageContext
    from pathoml.progress import Progress

SOME_FAILED, WRONG_INPUT, INTERRUPTED, FAULT = 1, 2, 3, 70
_LINE_EVERY_S = 60.0

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The study's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the configuration.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: the output of the configuration.")]
PackagePath = Annotated[Path, typer.Argument(metavar="PACKAGE", help="Folder of a model package.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def load(path: Path, overrides: Sequence[str] | None) -> "Config":
    """Read a configuration with its overrides."""
    from pathoml.config import load_config

    return load_config(path, overrides or [])


@contextmanager
def stage_context(device: str) -> Iterator["StageContext"]:
    """Give the stages their device, and a place to show how far they are."""
    from pathoml.pipeline.doctor import resolve_device
    from pathoml.pipeline.stages import StageContext

    with show_progress() as (progress, watch):
        yield StageContext(resolve_device(device), progress, watch)


@contextmanager
def show_progress() -> Iterator[tuple["Progress", "Watch"]]:
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
            say(f"extract: {status.ended} of {status.slides} slides, {_pace(status)}{left}", error=True)

    return watch


def _quarters() -> "Progress":
    """Write a line for each quarter of a stage, with the time since its first, where nobody watches a bar."""
    started: dict[str, float] = {}

    def listen(stage: str, done: int, total: int) -> None:
        began = started.setdefault(stage, time.monotonic())
        if done == 0 or done * 4 // max(1, total) > (done - 1) * 4 // max(1, total):
            say(f"{stage}: {done} of {total} ({time.monotonic() - began:.0f} s)", error=True)

    return listen


def say(text: str, *, error: bool = False) -> None:
    """Print one text, on standard error if it is one of an error."""
    typer.echo(text, err=error)


def show_table(title: str, rows: Sequence[tuple[str, ...]], *, header: Sequence[str] = ()) -> None:
    """Print a table below its title."""
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console()
    texts = [[str(cell) for cell in cells] for cells in (*([header] if header else []), *rows)]
    framed = _widths(texts, console.width, between=3, edges=4)
    bare = None if framed else _widths(texts, console.width, between=2, edges=0)
    table = RichTable(
        show_header=bool(header),
        box=None if bare else HEAVY_HEAD,
        padding=(0, 2, 0, 0) if bare else (0, 1),
        pad_edge=not bare,
    )
    for position, width in enumerate(framed or bare or [None] * len(header)):
        table.add_column(header[position] if header else "", overflow="fold", width=width)
    for cells in rows:
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(escape(title), style="bold")
    console.print(table)


def _widths(texts: Sequence[Sequence[str]], room: int, *, between: int, edges: int) -> list[int] | None:
    """Share a line out between columns so that no word is broken; None where there is too little room for that."""
    columns = list(zip(*texts, strict=True))
    widths = [max((len(word) for cell in column for word in cell.split()), default=1) for column in columns]
    wanted = [max(len(cell) for cell in column) for column in columns]
    left = room - edges - between * (len(columns) - 1) - sum(widths)
    if left < 0:
        return None
    while left > 0 and widths != wanted:
        neediest = max(range(len(widths)), key=lambda one: wanted[one] - widths[one])
        widths[neediest] += 1
        left -= 1
    return widths


def say_outcomes(outcomes: Sequence["SlideOutcome"]) -> None:
    """Print the slides that failed, and leave with an exit code if there are any."""
    failed = [outcome for outcome in outcomes if not outcome.has_bag]
    for outcome in failed:
        say(f"slide {outcome.slide_id}: {outcome.code}: {outcome.message}", error=True)
    if len(outcomes) > 1:
        show_table("Slides", _counted(outcomes), header=("outcome", "slides", "tiles"))
    if outcomes:
        say(f"slides: {len(outcomes) - len(failed)} with a bag, {len(failed)} without")
    exit_for_failed(failed)


def _counted(outcomes: Sequence["SlideOutcome"]) -> list[tuple[str, str, str]]:
    """Count slides and their tiles by what became of them; of those without a bag by the reason."""
    kinds = [one.status if one.has_bag else f"{one.status}: {one.code}" for one in outcomes]
    tiles = dict.fromkeys(sorted(kinds), 0)
    for kind, one in zip(kinds, outcomes, strict=True):
        tiles[kind] += one.tiles
    return [(kind, f"{kinds.count(kind):,}", f"{count:,}") for kind, count in tiles.items()]


def exit_for_failed(failed: Sequence["SlideOutcome"]) -> None:
    """Leave with an exit code if a slide failed; one without tissue is worth a line only."""
    if any(outcome.code != "NO_TISSUE" for outcome in failed):
        raise typer.Exit(SOME_FAILED)
