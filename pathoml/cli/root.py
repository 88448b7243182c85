"""The commands put together, and what goes wrong turned into a message and an exit code."""

import logging
import signal
import sys
from typing import Annotated, Any

import typer

from pathoml.cli import bag_commands, encoder_commands, model_commands, slide_commands, study_commands, view_command
from pathoml.cli.terminal import FAULT, INTERRUPTED, SOME_FAILED, WRONG_INPUT, say

_TYPER_INTERRUPTED = 130  # what typer makes of Ctrl-C
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # newer typers carry a click of their own under a private name

app = typer.Typer(
    help="From whole-slide images and a survival table to a prognostic model. Research use only.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
app.add_typer(study_commands.app)
app.add_typer(model_commands.app)
app.add_typer(view_command.app)
app.add_typer(slide_commands.app, name="slide")
app.add_typer(bag_commands.app, name="bags")
app.add_typer(encoder_commands.app, name="encoders")


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
        say(f"{error}\nwhat was finished is kept; the same command goes on", error=True)
        code = INTERRUPTED
    except SlidesFailedError as error:
        say(str(error), error=True)
        code = SOME_FAILED
    except PathomlError as error:
        say(str(error), error=True)
        code = WRONG_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = _TYPER_INTERRUPTED
    except Exception:  # noqa: BLE001 - at the outermost border: shown whole, and with a code that means nothing else
        traceback.print_exc()
        say("this is a fault of pathoml, not of your data; please report it with the lines above", error=True)
        code = FAULT
    if code == _TYPER_INTERRUPTED:
        say("interrupted; the same command goes on where it stopped", error=True)
        code = INTERRUPTED
    sys.exit(code)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
