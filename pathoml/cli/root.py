"""The commands put together."""

import sys
from typing import Annotated, Any

import typer

from pathoml.cli import (
    bag_commands,
    deployment_commands,
    encoder_commands,
    federate_commands,
    looking_commands,
    model_commands,
    slide_commands,
    study_commands,
)
from pathoml.cli.exits import exit_code_of
from pathoml.cli.terminal import WRONG_INPUT, say

_TYPER_INTERRUPTED = 130  # what typer makes of Ctrl-C
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # newer typers carry a click of their own under a private name

app = typer.Typer(
    help="From whole-slide images and a survival table to a prognostic model. Research use only.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
app.add_typer(study_commands.app)
app.add_typer(model_commands.app)
app.add_typer(looking_commands.app)
app.add_typer(slide_commands.app, name="slide")
app.add_typer(bag_commands.app, name="bags")
app.add_typer(encoder_commands.app, name="encoders")
federate_commands.app.add_typer(deployment_commands.app)
app.add_typer(federate_commands.app, name="federate")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - as click calls it
    if wanted:
        from pathoml.provenance import pathoml_version

        say(f"pathoml {pathoml_version()}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)]


@app.callback()
def root(*, version: Version = False) -> None:
    """From whole-slide images and a survival table to a prognostic model. Research use only."""


def main() -> None:
    """Run the command line and turn what goes wrong into a message and an exit code."""
    sys.exit(exit_code_of(_command_line))


def _command_line() -> int:
    try:
        code = app(standalone_mode=False)
    except _USAGE_ERROR as error:
        error.show()
        return WRONG_INPUT
    if code == _TYPER_INTERRUPTED:
        raise KeyboardInterrupt
    return int(code or 0)
