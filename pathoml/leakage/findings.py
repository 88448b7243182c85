"""What a look for leaks found: named checks, each with what it says and of whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["leak", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Parameters
    ----------
    check : str
        Name of the check.
    level : str
        ``leak`` (the split cannot be used), ``warning`` (it can, and this has to be known) or ``note``.
    scheme : str
        Kind of the scheme; empty where it is said of the cohort.
    message : str
        What was found, what it means, what to do.
    """

    check: str
    level: Level
    scheme: str
    message: str

    def __str__(self) -> str:
        where = f"{self.scheme}: " if self.scheme else ""
        return f"{self.check}: {where}{self.message}"


def shown(names: Sequence[str], count: int = 5) -> str:
    """Return the first of several names, and how many more there are.

    Parameters
    ----------
    names : sequence of str
        All.
    count : int, optional
        How many are shown.

    Returns
    -------
    str
        Joined by commas.
    """
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
