"""The command line: parse, load, call, print, exit code. Heavy imports happen inside the commands."""

from pathoml.cli.root import app, main

__all__ = ["app", "main"]
