"""What became of each slide, and the ledger that keeps it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pathoml.errors import SlideError
from pathoml.files import append_line


@dataclass(frozen=True)
class SlideOutcome:
    """What became of one slide; one line of the ledger.

    Parameters
    ----------
    slide_id : str
        The slide.
    status : str
        ``done``, ``kept`` (a valid bag was there), ``failed``, or ``skipped`` (another process is working on it).
    code : str
        Why it failed or was skipped; empty otherwise.
    message : str
        The same in a sentence.
    tiles : int
        Tiles in the bag.
    seconds : float
        Time spent on decoding it.
    """

    slide_id: str
    status: Literal["done", "kept", "failed", "skipped"]
    code: str = ""
    message: str = ""
    tiles: int = 0
    seconds: float = 0.0

    @property
    def has_bag(self) -> bool:
        """Whether a valid bag is there."""
        return self.status in {"done", "kept"}


def failed(slide_id: str, error: SlideError) -> SlideOutcome:
    """Return the outcome of a slide that is lost.

    Parameters
    ----------
    slide_id : str
        The slide.
    error : SlideError
        Why.

    Returns
    -------
    SlideOutcome
        With the error's code and words.
    """
    return SlideOutcome(slide_id, "failed", error.code, str(error))


def append_to_ledger(folder: Path, outcome: SlideOutcome) -> None:
    """Add one line to a folder's ledger.

    Parameters
    ----------
    folder : Path
        Of the bags.
    outcome : SlideOutcome
        What became of a slide.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    append_line(folder / "ledger.jsonl", json.dumps(asdict(outcome)))
