"""A part of an archive, for the tasks of a batch system."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pathoml.cohort import SlideEntry
from pathoml.errors import InputError


@dataclass(frozen=True)
class Shard:
    """The I-th of N parts.

    Parameters
    ----------
    number, parts : int
        1 to N, and N.
    """

    number: int
    parts: int

    def of(self, entries: Sequence[SlideEntry]) -> list[SlideEntry]:
        """Return this part: every N-th slide of the manifest, beginning with the I-th.

        Parameters
        ----------
        entries : sequence of SlideEntry
            All slides.

        Returns
        -------
        list of SlideEntry
            Possibly none; the parts of all shards are all slides, none twice.
        """
        return list(entries[self.number - 1 :: self.parts])


def parse_shard(text: str) -> Shard:
    """Read a shard from the command line.

    Parameters
    ----------
    text : str
        ``I/N``, for example ``3/10``.

    Returns
    -------
    Shard
        The I-th of N.

    Raises
    ------
    InputError
        If it is anything else, or I is not between 1 and N.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"shard '{text}': expected I/N with I from 1 to N, for example 3/10")
    return Shard(int(match[1]), int(match[2]))
