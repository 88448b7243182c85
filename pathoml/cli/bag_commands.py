"""Commands that look at feature bags, and exchange them with other tools."""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pathoml.cli.terminal import SOME_FAILED, load, say, show_table

if TYPE_CHECKING:
    from pathoml.pipeline.exchanging import ExchangeVerdict

app = typer.Typer(help="Look at feature bags, and exchange them with other tools.", no_args_is_help=True)


@app.command("inspect")
def bags_inspect(bags: Annotated[list[Path], typer.Argument(help="Bags (.h5).")]) -> None:
    """Show what bags say of themselves, and what a federated plan has to say to fit them."""
    from dataclasses import asdict

    from pathoml.bags import read_bag, read_bag_header

    for path in bags:
        show_table(path.name, [(name, str(value)) for name, value in asdict(read_bag_header(path)).items()])
    bag = read_bag(bags[0], verify=False, mapped=True)
    features = {**vars(bag.header.feature_spec), "dim": bag.features.shape[1]}
    rows = [f"  {name}: {json.dumps(value)}" for name, value in features.items()]
    say("\n".join(("in a federated plan:", "features:", *rows)))


@app.command("verify")
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

    entries = None if source is None else read_manifest(slides_of(load(source, None)))
    failed = 0
    for verdict in verify_bags(bags, entries):
        failed += not verdict.whole
        say(verdict.said, error=not verdict.whole)
    if failed:
        raise typer.Exit(SOME_FAILED)


class Layout(StrEnum):
    """Layouts of other tools."""

    TRIDENT = "trident"
    CLAM = "clam"
    STAMP = "stamp"


LayoutOption = Annotated[Layout, typer.Option(help="Whose files.")]
ExchangeFolder = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the result.")]


@app.command("export")
def bags_export(
    output: ExchangeFolder, bags: Annotated[list[Path], typer.Argument(help="Bags (.h5).")], layout: LayoutOption
) -> None:
    """Write bags as TRIDENT, CLAM or STAMP would have."""
    from pathoml.pipeline.exchanging import export_bags

    _say_exchange("exported", export_bags(layout.value, bags, output))


@app.command("import")
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
        say(verdict.said, error=verdict.status != "done")
    say(f"bags: {counts['done']} {done}, {counts['empty']} without tissue, {counts['failed']} failed")
    if counts["failed"]:
        raise typer.Exit(SOME_FAILED)
