"""What all slides of one extraction share, and the steps that each goes through."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathoml.bags import write_bag
from pathoml.cohort import SlideEntry
from pathoml.decoding.slide_tiles import SlideTiles
from pathoml.encoders.record import Encoder
from pathoml.errors import SlideError, WorkerLostError
from pathoml.extract.kept import Wanted, all_kept, kept_bag
from pathoml.extract.locks import Locks
from pathoml.extract.outcomes import SlideOutcome, append_to_ledger, failed
from pathoml.extract.slide import make_bag
from pathoml.extract.staging import Source
from pathoml.extract.stream import BatchStream, SlideFeatures
from pathoml.extract_settings import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One encoder's part: what its bags hold, where they go, and the stream of its batches.

    Parameters
    ----------
    recipe : Recipe
        What its bags hold.
    folder : Path
        Where they go.
    encoder : Encoder
        What makes their features.
    stream : BatchStream
        Of its batches.
    """

    recipe: Recipe
    folder: Path
    encoder: Encoder
    stream: BatchStream


@dataclass
class Work:
    """A slide on its way: what has come of it so far.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    parts : list of (Job, SlideFeatures)
        One for each bag that it lacks.
    tiles : SlideTiles or None
        Once it is decoded.
    began : float
        `time.monotonic` when its decoding began.
    attempt : int
        1, or 2 after a first one that was lost.
    """

    entry: SlideEntry
    parts: list[tuple[Job, SlideFeatures]]
    tiles: SlideTiles | None = None
    began: float = field(default_factory=time.monotonic)
    attempt: int = 1

    def is_whole(self) -> bool:
        """Say whether it is decoded and every encoder has given its features.

        Returns
        -------
        bool
            True if its bags can be written.
        """
        tiles = self.tiles
        return tiles is not None and all(features.is_whole(len(tiles)) for _, features in self.parts)

    def require_all_tiles(self) -> None:
        """Compare how many tiles its process has delivered with how many have come.

        Raises
        ------
        WorkerLostError
            If they differ: its features could never be whole.
        """
        delivered = 0 if self.tiles is None else len(self.tiles)
        for _, features in self.parts:
            if features.tiles != delivered:
                raise WorkerLostError(
                    f"{self.entry.path.name}: {features.tiles} tiles have come of {delivered} that its process delivered"
                )


class Line:
    """What all slides of one call share, and the steps that each goes through.

    Parameters
    ----------
    jobs : sequence of Job
        One for each encoder.
    device : str
        ``cpu`` or ``cuda``.
    locks : Locks
        Of the folder.
    source : Source
        Where slides are read from.
    """

    def __init__(self, jobs: Sequence[Job], device: str, locks: Locks, source: Source) -> None:
        self.jobs, self.device, self.source = jobs, device, source
        self.recipe, self.folder = jobs[0].recipe, jobs[0].folder
        self._wanted = {job.folder: Wanted(job.recipe, job.encoder.weights_digest) for job in jobs}
        self._locks = locks
        self._busy_elsewhere: list[SlideEntry] = []

    def work(self, entry: SlideEntry, attempt: int = 1) -> Work:
        """Begin with a slide: with the encoders whose bags it lacks.

        Parameters
        ----------
        entry : SlideEntry
            The slide.
        attempt : int, optional
            Which it is.

        Returns
        -------
        Work
            With nothing done.
        """
        lacking = [job for job in self.jobs if kept_bag(entry, job.folder, self._wanted[job.folder]) is None]
        return Work(entry, [(job, SlideFeatures()) for job in lacking], attempt=attempt)

    def flush(self) -> None:
        """Have every batch encoded as it is."""
        for job in self.jobs:
            job.stream.flush()

    def collect(self, *, wait: bool = False) -> bool:
        """Bring features to their slides.

        Parameters
        ----------
        wait : bool, optional
            Whether to wait for all that are being encoded.

        Returns
        -------
        bool
            True if any came.
        """
        return sum(job.stream.collect(wait=wait) for job in self.jobs) > 0

    def claim(self, entry: SlideEntry) -> bool | SlideOutcome:
        """Become the owner of a slide.

        Parameters
        ----------
        entry : SlideEntry
            The slide.

        Returns
        -------
        bool or SlideOutcome
            False if another process is at work on it; its outcome if another has just made its bag.
        """
        if not self._locks.acquire(entry.slide_id):
            self._busy_elsewhere.append(entry)
            return False
        kept = all_kept(entry, self._wanted)
        if kept is not None:
            self._locks.release(entry.slide_id)
        return kept or True

    def write(self, work: Work) -> SlideOutcome:
        """Write the bags of a slide whose tiles all have their features.

        Parameters
        ----------
        work : Work
            Whole.

        Returns
        -------
        SlideOutcome
            Done, or failed with what its features are refused for.
        """
        assert work.tiles is not None  # only whole slides come here
        try:
            for job, features in work.parts:
                bag = make_bag(work.entry.path.name, job.recipe, job.encoder, work.tiles, features)
                write_bag(job.folder / f"{work.entry.slide_id}.h5", bag)
        except SlideError as error:
            return self.lose(work.entry, error, attempt=work.attempt)
        self._locks.release(work.entry.slide_id)
        seconds = round(time.monotonic() - work.began, 3)
        return SlideOutcome(work.entry.slide_id, "done", tiles=len(work.tiles), seconds=seconds, attempt=work.attempt)

    def lose(self, entry: SlideEntry, error: SlideError, *, attempt: int = 1) -> SlideOutcome:
        """Give up a slide.

        Parameters
        ----------
        entry : SlideEntry
            The slide.
        error : SlideError
            Why.
        attempt : int, optional
            Which it was.

        Returns
        -------
        SlideOutcome
            Failed.
        """
        self._locks.release(entry.slide_id)
        return failed(entry.slide_id, error, attempt=attempt)

    def try_again(self, entry: SlideEntry, error: SlideError) -> None:
        """Write down a first attempt that was lost, and that there will be a second.

        Parameters
        ----------
        entry : SlideEntry
            The slide, which stays this process's.
        error : SlideError
            Why it was lost.

        Raises
        ------
        OutputError
            If it cannot be written down.
        """
        logger.warning("%s; trying once more, alone and fewer tiles at a time", error)
        append_to_ledger(self.folder, failed(entry.slide_id, error), self.recipe.digest)

    def freed(self) -> list[SlideEntry]:
        """Return slides whose owner has died since they were passed over; they can be claimed.

        Returns
        -------
        list of SlideEntry
            Taken off those that are left to others.
        """
        freed = []
        for entry in list(self._busy_elsewhere):
            if all_kept(entry, self._wanted) is None and self._locks.acquire(entry.slide_id):
                self._locks.release(entry.slide_id)
                self._busy_elsewhere.remove(entry)
                freed.append(entry)
        return freed

    def left_to_others(self) -> Iterator[SlideOutcome]:
        """Say of slides that others own whether they are done by now.

        Yields
        ------
        SlideOutcome
            Kept, or skipped.
        """
        for entry in self._busy_elsewhere:
            owner = self._locks.owner(entry.slide_id)
            kept = all_kept(entry, self._wanted)
            message = (
                f"{entry.path.name}: {owner} is at work on it; the same command, given later, sees that it is done"
            )
            yield kept or SlideOutcome(entry.slide_id, "skipped", "IN_WORK", message)
