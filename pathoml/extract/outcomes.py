"""What became of each slide, and the ledger that keeps it."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pathoml.errors import SlideError
from pathoml.files import append_line
from pathoml.processes import this_process


@dataclass(frozen=True)
class SlideOutcome:
    """What became of one slide, or of one attempt at it; one line of the ledger.

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
    attempt : int
        2 where a first attempt of the same extraction was lost with its process, or for lack of memory.
    """

    slide_id: str
    status: Literal["done", "kept", "failed", "skipped"]
    code: str = ""
    message: str = ""
    tiles: int = 0
    seconds: float = 0.0
    attempt: int = 1

    @property
    def has_bag(self) -> bool:
        """Whether a valid bag is there."""
        return self.status in {"done", "kept"}


def failed(slide_id: str, error: SlideError, *, attempt: int = 1) -> SlideOutcome:
    """Return the outcome of a slide that is lost.

    Parameters
    ----------
    slide_id : str
        The slide.
    error : SlideError
        Why.
    attempt : int, optional
        Which it was.

    Returns
    -------
    SlideOutcome
        With the error's code and words.
    """
    return SlideOutcome(slide_id, "failed", error.code, str(error), attempt=attempt)


def append_to_ledger(folder: Path, outcome: SlideOutcome, settings_digest: str) -> None:
    """Add one line to a folder's ledger: what became of a slide, when, by whom and with which settings.

    Parameters
    ----------
    folder : Path
        Of the bags.
    outcome : SlideOutcome
        What became of a slide.
    settings_digest : str
        Of the recipe, as the bag has it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    line = {**asdict(outcome), **stamp(), "settings_digest": settings_digest}
    append_line(folder / "ledger.jsonl", json.dumps(line))


def stamp() -> dict[str, str | int]:
    """Return when and by whom a line is written, since several machines append to one file.

    Returns
    -------
    dict of str to str or int
        ``at`` (UTC), ``host`` and ``process``.
    """
    writer = this_process()
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "host": writer.host, "process": writer.number}
