"""Patients on a device, ready for a model; and how a training epoch deals them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from pathoml.cohort import Cohort
from pathoml.covariates import CovariateTransform
from pathoml.mil.objective import Outcome
from pathoml.mil.packed import Packed, pack
from pathoml.mil.patients import Patients, given_parts
from pathoml.mil.projection import TileProjection
from pathoml.mil.tile_rows import TileRows, free_bytes
from pathoml.train_settings import TrainSettings
from pathoml.units import AnyArray, IntArray

logger = logging.getLogger(__name__)

BLOCK_TILES = 64
"""Neighbouring tiles that are drawn together, since they lie together on disk."""
_BYTES = 4
_GB = 1_000_000_000


@dataclass(frozen=True)
class Batch:
    """Patients on a device, ready for the model.

    Parameters
    ----------
    tiles : Packed
        Projected tiles.
    covariates : Tensor, shape (patients, columns)
        Transformed covariates.
    outcome : Outcome
        Follow-up.
    patient_id : tuple of str
        Who, for messages.
    present : Tensor of bool, shape (patients, parts), optional
        Which parts of the model each has; None: all that there can be.
    """

    tiles: Packed
    covariates: Tensor
    outcome: Outcome
    patient_id: tuple[str, ...]
    present: Tensor | None = None

    def __len__(self) -> int:
        return len(self.patient_id)


Chosen = tuple[Sequence[int], Sequence[IntArray | None]]
"""Patients of a part, and which of their tiles were drawn; None for all."""


@dataclass(frozen=True)
class Parts:
    """The parts of one step, which can be gone through more than once; what is not kept is read each time, one part ahead.

    Parameters
    ----------
    batch : callable
        Patients and drawn tiles -> Batch.
    outcome_of : callable
        Patients -> Outcome.
    chosen : sequence of tuple
        Those of each part.
    is_kept : bool
        Whether tiles lie in memory already.
    begun : list of Future
        The first part, if somebody reads it already; taken out when it is used.
    """

    batch: Callable[[Sequence[int], Sequence[IntArray | None]], Batch]
    outcome_of: Callable[[Sequence[int]], Outcome]
    chosen: Sequence[Chosen]
    is_kept: bool
    begun: list["Future[Batch]"] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, some: slice) -> "Parts":
        return replace(self, chosen=self.chosen[some], begun=[])

    @property
    def outcome(self) -> Outcome:
        """Follow-up of all patients, in order."""
        return self.outcome_of([row for rows, _ in self.chosen for row in rows])

    def begin(self, reader: ThreadPoolExecutor) -> None:
        """Have the first part read ahead.

        Parameters
        ----------
        reader : ThreadPoolExecutor
            Who reads.
        """
        if not self.is_kept and self.chosen:
            self.begun.append(reader.submit(self.batch, *self.chosen[0]))

    def __iter__(self) -> Iterator[Batch]:
        if self.is_kept or not self.chosen:
            yield from (self.batch(*one) for one in self.chosen)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="bags") as reader:
            coming = self.begun.pop() if self.begun else reader.submit(self.batch, *self.chosen[0])
            for following in self.chosen[1:]:
                batch, coming = coming.result(), reader.submit(self.batch, *following)
                yield batch
            yield coming.result()


class TrainingPatients:
    """Patients of a fold with what their transforms make of them, dealt into steps.

    Tiles are projected once and kept on the device if they fit into memory; otherwise they are read and projected again
    in each epoch, one part ahead of the model.

    Parameters
    ----------
    patients : Patients
        Who.
    cohort : Cohort
        Their follow-up and hospital.
    projection : TileProjection or None
        Of tiles; None without slides.
    transform : CovariateTransform
        Of covariates.
    settings : TrainSettings
        Batches, parts, memory.
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(
        self, patients: Patients, cohort: Cohort, projection: TileProjection | None, transform: CovariateTransform,
        settings: TrainSettings, device: str,
    ) -> None:  # fmt: skip
        self._patients, self._projection, self._settings, self._device = patients, projection, settings, device
        rows = cohort.rows_of(patients.patient_id)
        _, stratum = np.unique(cohort.site[rows], return_inverse=True)
        self._outcome = Outcome(
            torch.from_numpy(cohort.event[rows] == 1).to(device),
            torch.from_numpy(cohort.time_days[rows]).to(device),
            torch.from_numpy(stratum.astype(np.int64)).to(device),
        )
        covariates = transform.apply(patients.covariates).astype(np.float32)
        self._covariates = torch.from_numpy(covariates).to(device)
        self._present = torch.from_numpy(given_parts(patients, transform)).to(device)
        self._counts = [
            0 if projection is None or patients.features is None else len(one) for one in patients.features or ()
        ]
        self._counts = self._counts or [0] * len(patients.patient_id)
        self._needed = 0 if projection is None else sum(self._counts) * projection.out * _BYTES
        self._whole = self._packed(range(len(self._counts))) if self._fits() else None

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def outcome(self) -> Outcome:
        """Follow-up of all, in order."""
        return self._outcome

    @property
    def present(self) -> Tensor:
        """Which parts of the model each has."""
        return self._present

    def parts(self) -> "Parts":
        """Return all patients, in order, in parts that go through the model together.

        Returns
        -------
        Parts
            Of all.
        """
        return self._parts(list(range(len(self))), None)

    def steps(self, dealer: torch.Generator) -> Iterator["Parts"]:
        """Deal the patients of one epoch.

        Parameters
        ----------
        dealer : torch.Generator
            Decides who comes when, and which tiles are drawn.

        Yields
        ------
        Parts
            Of one step.
        """
        steps = [self._parts(rows, dealer) for rows in self._dealt(dealer)]
        with ThreadPoolExecutor(1, thread_name_prefix="steps") as reader:
            for parts in steps[:1]:
                parts.begin(reader)
            for parts, following in zip_longest(steps, steps[1:]):
                if following is not None:
                    following.begin(reader)
                yield parts

    def one_by_one(self, sample: Sequence[tuple[int, int]]) -> "Parts":
        """Return some patients, each a part of its own, whose drawn tiles depend on nobody else.

        Parameters
        ----------
        sample : sequence of tuple of int
            Number of each patient, at least one, and the seed that decides which of its tiles are drawn.

        Returns
        -------
        Parts
            In that order.
        """
        chosen: list[Chosen] = [
            ([row], self._drawn([row], torch.Generator().manual_seed(seed))) for row, seed in sample
        ]
        return Parts(self._batch, self._outcome_of, chosen, is_kept=self._whole is not None)

    def _parts(self, rows: Sequence[int], dealer: torch.Generator | None) -> "Parts":
        chosen = [(group, self._drawn(group, dealer)) for group in self._groups(rows)]
        return Parts(self._batch, self._outcome_of, chosen, is_kept=self._whole is not None)

    def _dealt(self, dealer: torch.Generator) -> list[list[int]]:
        """Return whose turn it is in each step."""
        count, size = len(self), self._settings.batch_patients
        if size is not None and self._settings.event_balanced:
            return self._balanced(size, dealer)
        if size is None or size >= count:
            return [list(range(count))]
        order = torch.randperm(count, generator=dealer)
        return [rows.tolist() for rows in order.split(size)]  # type: ignore[no-untyped-call]

    def _balanced(self, size: int, dealer: torch.Generator) -> list[list[int]]:
        """Return steps that are half events: everyone of the more frequent kind once, the others as often as it takes."""
        event = self._outcome.event.cpu()
        kinds = [torch.nonzero(event == value)[:, 0] for value in (True, False)]
        longest = max(map(len, kinds))
        if min(map(len, kinds)) == 0:
            return [rows.tolist() for rows in torch.randperm(len(event), generator=dealer).split(size)]  # type: ignore[no-untyped-call]
        drawn = []
        for kind in kinds:
            rounds = [kind[torch.randperm(len(kind), generator=dealer)] for _ in range(-(-longest // len(kind)))]
            drawn.append(torch.cat(rounds)[:longest])
        half = size // 2
        return [torch.cat([one[at : at + half] for one in drawn]).tolist() for at in range(0, longest, half)]

    def _groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Cut rows into parts of at most so many tiles, of one patient at least."""
        groups: list[list[int]] = [[]]
        tiles = 0
        for row in rows:
            count = min(self._counts[row], self._settings.max_tiles or self._counts[row])
            if groups[-1] and tiles + count > self._settings.tiles_at_once:
                groups.append([])
                tiles = 0
            groups[-1].append(row)
            tiles += count
        return groups

    def _drawn(self, rows: Sequence[int], dealer: torch.Generator | None) -> list[IntArray | None]:
        most = self._settings.max_tiles
        if dealer is None or most is None:
            return [None] * len(rows)
        return [draw_tiles(self._counts[row], most, dealer) if self._counts[row] > most else None for row in rows]

    def _outcome_of(self, rows: Sequence[int]) -> Outcome:
        return self._outcome.rows(torch.tensor(rows, dtype=torch.int64, device=self._device))

    def _batch(self, rows: Sequence[int], drawn: Sequence[IntArray | None]) -> Batch:
        index = torch.tensor(rows, dtype=torch.int64, device=self._device)
        tiles = self._taken(rows, drawn) if self._whole is not None else self._packed(rows, drawn)
        names = tuple(self._patients.patient_id[row] for row in rows)
        if len(rows) == len(self) and list(rows) == list(range(len(self))):
            return Batch(tiles, self._covariates, self._outcome, names, self._present)
        return Batch(tiles, self._covariates[index], self._outcome.rows(index), names, self._present[index])

    def _taken(self, rows: Sequence[int], drawn: Sequence[IntArray | None]) -> Packed:
        """Take patients out of those that are kept."""
        assert self._whole is not None  # the caller has looked
        whole, spans = self._whole, self._whole.spans
        if list(rows) == list(range(len(self))) and not any(one is not None for one in drawn):
            return whole
        picked = [
            torch.arange(spans[row].start, spans[row].stop) if one is None else spans[row].start + torch.from_numpy(one)
            for row, one in zip(rows, drawn, strict=True)
        ]
        index = torch.cat(picked).to(whole.values.device)
        lengths = torch.tensor([0, *map(len, picked)], device=whole.values.device)
        places = None if whole.places is None else whole.places[index]
        return Packed(whole.values[index], lengths.cumsum(0), places)

    def _packed(self, rows: Sequence[int], drawn: Sequence[IntArray | None] | None = None) -> Packed:
        """Read and project patients, each into its own rows, so that no tile is there twice."""
        features, places, projection = self._patients.features, self._patients.places, self._projection
        if features is None or projection is None:
            return pack([torch.zeros((0, 0))] * len(rows)).to(self._device)
        chosen = drawn or [None] * len(rows)
        counts = [self._counts[row] if one is None else len(one) for row, one in zip(rows, chosen, strict=True)]
        offsets = torch.tensor([0, *counts], device=self._device).cumsum(0)
        packed = Packed(torch.empty((sum(counts), projection.out), device=self._device), offsets)
        for row, one, span in zip(rows, chosen, packed.spans, strict=True):
            packed.values[span] = torch.from_numpy(projection.apply(take_rows_of(features[row], one))).to(self._device)
        if places is None:
            return packed
        where = np.concatenate([take_rows_of(places[row], one) for row, one in zip(rows, chosen, strict=True)])
        return packed._replace(places=torch.from_numpy(where).to(self._device))

    def left_by(self) -> TrainSettings:
        """Return the settings with the memory that these patients leave to others of the same training.

        Returns
        -------
        TrainSettings
            The same where the limit is what is free, since what they take is not.
        """
        given = self._settings.resident_gb
        if given is None or self._whole is None:
            return self._settings
        return self._settings.model_copy(update={"resident_gb": max(0.0, given - self._needed / _GB)})

    def _fits(self) -> bool:
        needed = self._needed
        if needed == 0:
            return True
        given = self._settings.resident_gb
        allowed = given * _GB if given is not None else _free_bytes(self._device) / 2
        logger.info(
            "%d patients, %d tiles: %.2f GB of tiles are %s (%.2f GB may be used)",
            len(self), sum(self._counts), needed / _GB,
            f"kept on {self._device}" if needed <= allowed else "read anew in every epoch", allowed / _GB,
        )  # fmt: skip
        return needed <= allowed


def draw_tiles(count: int, wanted: int, dealer: torch.Generator) -> IntArray:
    """Draw tiles in blocks of neighbours, none twice.

    Parameters
    ----------
    count : int
        Tiles there are.
    wanted : int
        Fewer than that.
    dealer : torch.Generator
        Decides.

    Returns
    -------
    ndarray of int64, shape (wanted,)
        Ascending row numbers.
    """
    first = int(torch.randint(BLOCK_TILES, (1,), generator=dealer))
    starts = np.arange(first - BLOCK_TILES, count, BLOCK_TILES)
    order = torch.randperm(len(starts), generator=dealer).numpy()
    rows = (starts[order][:, None] + np.arange(BLOCK_TILES)[None, :]).ravel()
    return np.sort(rows[(rows >= 0) & (rows < count)][:wanted])


def take_rows_of(rows: AnyArray | TileRows, chosen: IntArray | None) -> AnyArray:
    """Copy rows; runs of neighbours at once, since an index into a mapped file reads row by row.

    Parameters
    ----------
    rows : ndarray or TileRows, shape (tiles, dim)
        In memory or mapped.
    chosen : ndarray of int64, or None
        Ascending row numbers; None for all.

    Returns
    -------
    ndarray, shape (chosen, dim)
        In memory, if some were chosen.
    """
    if chosen is None:
        return np.asarray(rows)
    breaks = np.flatnonzero(np.diff(chosen) != 1) + 1
    taken: AnyArray = np.concatenate([rows[run[0] : run[-1] + 1] for run in np.split(chosen, breaks)])
    return taken


def _free_bytes(device: str) -> float:
    return float(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else free_bytes()
