"""How a long stage tells how far it is, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told after each piece of work: name of the stage, pieces done, pieces in all."""


def silent(stage: str, done: int, total: int) -> None:
    """Listen to nothing: the default listener.

    Parameters
    ----------
    stage : str
        Name of the stage.
    done : int
        Pieces finished.
    total : int
        Pieces in all.
    """
