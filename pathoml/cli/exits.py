"""What goes wrong turned into a message and an exit code, for the command line and for scripts."""

import logging
import signal
from collections.abc import Callable

import typer

from pathoml.cli.terminal import FAULT, INTERRUPTED, SOME_FAILED, WRONG_INPUT, say


def exit_code_of(work: Callable[[], int]) -> int:
    """Do some work, say what goes wrong, and return the exit code that stands for it.

    Parameters
    ----------
    work : callable
        Returns its own exit code.

    Returns
    -------
    int
        0 done; 1 finished, some slides or patients failed; 2 wrong input, nothing was done; 3 interrupted, can be resumed;
        70 a fault of pathoml.
    """
    import traceback

    from pathoml.errors import OutputError, PathomlError, SlidesFailedError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    # A scheduler presses Ctrl-C with SIGTERM, and a shell starts what runs in its background deaf to SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = work()
    except typer.Exit as ended:
        code = int(ended.exit_code)
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
        say("interrupted; the same command goes on where it stopped", error=True)
        code = INTERRUPTED
    except Exception:  # noqa: BLE001 - at the outermost border: shown whole, and with a code that means nothing else
        traceback.print_exc()
        say("this is a fault of pathoml, not of your data; please report it with the lines above", error=True)
        code = FAULT
    return code


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
