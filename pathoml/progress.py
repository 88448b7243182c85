"""How a long stage tells how far it is, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Told after each piece of work."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` pieces of `stage` are finished."""


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
