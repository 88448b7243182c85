"""Commands that show what a run sees: the viewer, and the kinds of tiles behind the risk."""

from pathlib import Path
from typing import Annotated

import typer

from pathoml.cli.terminal import Device, RunPath, say, stage_context
from pathoml.extras import install_words

app = typer.Typer()


@app.command()
def view(
    path: Annotated[Path, typer.Argument(help="A run folder, a manifest, a folder of slides, or one slide.")],
    port: Annotated[
        int | None, typer.Option(help="Of this machine; by default 8765, or a free one.", min=1, max=65535)
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps overviews of slides without a pyramid.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda: where models run that draw maps.")] = "cpu",
) -> None:
    """Look at slides and their maps in the browser; only this machine can."""
    import importlib.util

    from pathoml.errors import InputError
    from pathoml.pipeline.viewing import open_library

    missing = [name for name in ("starlette", "uvicorn", "xstatic") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the viewer needs {', '.join(missing)}; {install_words('viewer')}")
    from pathoml.viewer.serving import serve

    def started(port: int, address: str) -> None:
        say(f"open {address}")
        say(f"from another machine: ssh -N -L {port}:127.0.0.1:{port} THIS-MACHINE, then the same address there")
        say("Ctrl-C ends it; research use only")

    library = open_library(path, device=device)
    try:
        serve(library, port=port, cache=cache, on_start=started)
    except KeyboardInterrupt:
        say("viewer closed")


@app.command()
def morphology(
    run_folder: RunPath,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; by default RUN/morphology.")] = None,
    prototypes: Annotated[int, typer.Option(help="Kinds of tiles.", min=2, max=100)] = 8,
    table: Annotated[
        Path | None, typer.Option(help="Table with patient_id and columns (genes, scores) to be held against them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search.", min=0)] = 0,
    device: Device = "auto",
) -> None:
    """Show what the risk looks at: kinds of tiles, what their share goes with, and the most extreme tiles."""
    from pathoml.pipeline.morphology import study_morphology
    from pathoml.pipeline.study import open_run
    from pathoml.prototypes import PrototypeSettings

    study = open_run(run_folder)
    settings = PrototypeSettings(prototypes=prototypes, seed=seed)
    with stage_context(device) as context:
        pages = study_morphology(study, output or run_folder / "morphology", settings, context, table=table)
    for page in pages:
        say(f"page: {page}")
    say("hypotheses only; research use only")
