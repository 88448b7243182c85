"""Commands that look at published encoders."""

from pathlib import Path
from typing import Annotated

import typer

from pathoml.cli.terminal import show_table

app = typer.Typer(help="Look at published encoders.", no_args_is_help=True)

EncoderName = Annotated[str, typer.Argument(metavar="NAME", help="As in 'pathoml encoders list'.")]


@app.command("list")
def encoders_list() -> None:
    """List the encoders whose facts are known."""
    from pathoml.encoders.registry import TABLE_HEADER, table_rows

    show_table("Encoders (set encoder: {kind: registered, name: NAME})", table_rows(), header=TABLE_HEADER)


@app.command("show")
def encoders_show(name: EncoderName) -> None:
    """Show everything that is known of one encoder, and from where."""
    from pathoml.pipeline.encoder_facts import record_facts

    show_table(name, record_facts(name))


@app.command("verify")
def encoders_verify(
    name: EncoderName,
    weights: Annotated[Path | None, typer.Option(help="Its downloaded weights file.")] = None,
    sha256: Annotated[str | None, typer.Option(help="What the file's SHA-256 has to be.")] = None,
) -> None:
    """Build an encoder's network, run a random tile, load the weights given, and say what that verifies."""
    from pathoml.pipeline.encoder_facts import verify_encoder

    show_table(name, verify_encoder(name, weights, sha256))
