"""The command line in this process, which has loaded already what each process would take seconds to load."""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from pathoml.cli.root import main


def pathoml(*arguments: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command as a terminal would, and return its code and what it said."""
    said, complained = io.StringIO(), io.StringIO()
    code: object = None
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root.handlers = []  # a command's own handler is added only where there is none
    command = ["pathoml", *arguments]
    try:
        with (
            contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained),
            contextlib.chdir(folder or Path.cwd()), mock.patch.object(sys, "argv", command), mock.patch.dict(os.environ),
        ):  # fmt: skip
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        root.handlers, root.level = handlers, level
        for number, answer in answers.items():
            signal.signal(number, answer)
    return subprocess.CompletedProcess(command, int(code or 0), said.getvalue(), complained.getvalue())
