"""How far an extraction is: for whoever watches, and for `metrics.jsonl`."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pathoml.extract.outcomes import SlideOutcome, stamp
from pathoml.extract.stream import BatchStream
from pathoml.files import append_line

EVERY_S = 5.0


@dataclass(frozen=True)
class ExtractStatus:
    """How far an extraction is.

    Parameters
    ----------
    slides, done, kept, failed, skipped : int
        All slides, and those of each status.
    tiles : int
        Tiles encoded in this call.
    seconds : float
        Since it began.
    tiles_per_s : float
        Over all of that time.
    device_busy_share : float
        Share of the time since the first batch in which the encoder was at work, over all calls that can run side by side.
    encoding_s : float
        Since the first batch was full; what came before is starting up.
    seconds_left : float
        At the pace of the slides so far; -1 before the first is finished.
    """

    slides: int
    done: int
    kept: int
    failed: int
    skipped: int
    tiles: int
    seconds: float
    tiles_per_s: float
    device_busy_share: float
    encoding_s: float
    seconds_left: float

    @property
    def ended(self) -> int:
        """Slides of which it is known what became of them."""
        return self.done + self.kept + self.failed + self.skipped


Watch = Callable[[ExtractStatus], None]


class StatusKeeper:
    """Counts outcomes, tells a listener at most once in a while, and appends to ``metrics.jsonl``.

    Parameters
    ----------
    folder : Path
        Of the bags.
    slides : int
        In all.
    at_once : int
        Encoder calls that can run side by side.
    watch : callable or None
        Told each status.
    """

    def __init__(self, folder: Path, slides: int, at_once: int, watch: Watch | None) -> None:
        self._folder, self._slides, self._at_once, self._watch = folder, slides, at_once, watch
        self._counts = dict.fromkeys(("done", "kept", "failed", "skipped"), 0)
        self._began = self._told = time.monotonic()

    def count(self, outcome: SlideOutcome) -> None:
        """Count what became of a slide.

        Parameters
        ----------
        outcome : SlideOutcome
            Of one slide.
        """
        self._counts[outcome.status] += 1

    def tell(self, stream: BatchStream, *, now: bool = False) -> None:
        """Tell how far it is, if it is time to.

        Parameters
        ----------
        stream : BatchStream
            That encodes.
        now : bool, optional
            Whether it is time whatever the clock says: at the beginning and at the end.
        """
        time_s = time.monotonic()
        if not now and time_s - self._told < EVERY_S:
            return
        self._told = time_s
        status = self._status(time_s, stream)
        append_line(self._folder / "metrics.jsonl", json.dumps({**asdict(status), **stamp()}))
        if self._watch is not None:
            self._watch(status)

    def _status(self, now: float, stream: BatchStream) -> ExtractStatus:
        seconds = now - self._began
        encoding_s = now - stream.first_batch if stream.first_batch else 0.0
        worked = self._counts["done"] + self._counts["failed"]
        left = self._slides - sum(self._counts.values())
        return ExtractStatus(
            slides=self._slides, **self._counts, tiles=stream.encoded_tiles, seconds=round(seconds, 2),
            tiles_per_s=round(stream.encoded_tiles / max(seconds, 1e-9), 2),
            device_busy_share=round(min(1.0, stream.busy_s / max(encoding_s * self._at_once, 1e-9)), 4),
            encoding_s=round(encoding_s, 3),
            seconds_left=round(seconds / worked * left, 1) if worked else -1.0,
        )  # fmt: skip
