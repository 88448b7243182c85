"""One stream of batches over all slides: tiles go in page by page, features come back to the slide they belong to."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathoml.encoders.record import Encoder
from pathoml.errors import EncoderError
from pathoml.extract.precision import PRECISIONS, exact_float32
from pathoml.stain import StainChange
from pathoml.units import RgbImage

logger = logging.getLogger(__name__)


@dataclass
class SlideFeatures:
    """The features of one slide while they come in.

    Parameters
    ----------
    change : StainChange or None
        How its colours are changed.
    tiles : int
        Tiles that have come.
    batch_used : int
        The smallest batch that any of them was encoded in.
    pieces : dict of int to ndarray of float32
        Features by the place of the first among the slide's tiles.
    encoded : int
        Tiles whose features have come.
    """

    change: StainChange | None = None
    tiles: int = 0
    batch_used: int = 0
    pieces: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    encoded: int = 0

    def is_whole(self, tiles: int) -> bool:
        """Say whether all tiles have their features.

        Parameters
        ----------
        tiles : int
            Of the slide.

        Returns
        -------
        bool
            True if that many were encoded.
        """
        return self.encoded == tiles

    def array(self) -> NDArray[np.float32]:
        """Return the features in the order in which their tiles came.

        Returns
        -------
        ndarray of float32, shape (tiles, dim)
            One row a tile.
        """
        return np.concatenate([self.pieces[first] for first in sorted(self.pieces)])


@dataclass(frozen=True)
class _Segment:
    """Neighbouring tiles of a batch that belong to one slide."""

    slide: SlideFeatures
    at: int  # first place in the batch
    first: int  # first place among the slide's tiles
    rows: NDArray[np.int64]  # of the slide's grid


@dataclass
class _Batch:
    tiles: Tensor
    filled: int = 0
    segments: list[_Segment] = field(default_factory=list)


class EncodingPlace(NamedTuple):
    """Where a batch can be encoded.

    Parameters
    ----------
    encoder : Encoder
        On the device.
    device : str
        ``cpu``, or a GPU.
    """

    encoder: Encoder
    device: str


class BatchStream:
    """Fills batches with tiles of any slides and has them encoded, several at a time.

    Batches are full but for the last, which is padded with white; an encoder's result for a tile does not depend on
    the other tiles of a batch, nor on its place, so that resuming, sharding and the number of workers change no byte.

    Parameters
    ----------
    places : sequence of EncodingPlace
        Of one and the same encoder; as many batches are encoded side by side. One place may stand there several times.
    batch_tiles : int
        Tiles of one call.
    tile_px : int
        Side of a tile.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.

    Attributes
    ----------
    busy_s : float
        Seconds that encoder calls took, summed.
    encoded_tiles : int
        Tiles whose features have come back.
    first_batch : float
        `time.monotonic` when the first batch was full; 0 before.
    """

    def __init__(self, places: Sequence[EncodingPlace], *, batch_tiles: int, tile_px: int, precision: str) -> None:
        self._precision, self._largest = PRECISIONS[precision], batch_tiles
        self._pool = ThreadPoolExecutor(len(places), thread_name_prefix="encode")
        self._places: SimpleQueue[EncodingPlace] = SimpleQueue()
        for place in places:
            self._places.put(place)
        self._empty: SimpleQueue[_Batch] = SimpleQueue()
        on_gpu = places[0].device.startswith("cuda")
        for _ in range(len(places) + 1):
            tiles = torch.empty((batch_tiles, tile_px, tile_px, 3), dtype=torch.uint8)
            self._empty.put(_Batch(tiles.pin_memory() if on_gpu else tiles))
        self._filling: _Batch | None = None
        self._running: deque[tuple[Future[_Encoded], _Batch]] = deque()
        self.busy_s, self.encoded_tiles, self.first_batch = 0.0, 0, 0.0
        self._while_open = ExitStack()

    def __enter__(self) -> Self:
        if self._precision == torch.float32:
            self._while_open.enter_context(exact_float32())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._while_open.close()

    def add(self, slide: SlideFeatures, tiles: RgbImage, rows: NDArray[np.int64]) -> None:
        """Take tiles of a slide, in its order; waits for a batch to be encoded where all are full.

        Parameters
        ----------
        slide : SlideFeatures
            Receives their features, later.
        tiles : ndarray of uint8, shape (tiles, side, side, 3)
            Copied.
        rows : ndarray of int64, shape (tiles,)
            Their rows of the slide's grid.
        """
        taken = 0
        while taken < len(tiles):
            batch = self._batch()
            count = min(len(tiles) - taken, len(batch.tiles) - batch.filled)
            batch.tiles[batch.filled : batch.filled + count] = torch.from_numpy(tiles[taken : taken + count])
            batch.segments.append(_Segment(slide, batch.filled, slide.tiles, rows[taken : taken + count]))
            batch.filled += count
            slide.tiles += count
            taken += count
            if batch.filled == len(batch.tiles):
                self.flush()

    def flush(self) -> None:
        """Have the batch that is being filled encoded as it is, padded."""
        batch, self._filling = self._filling, None
        if batch is not None:
            batch.tiles[batch.filled :] = 255
            self.first_batch = self.first_batch or time.monotonic()
            self._running.append((self._pool.submit(self._encode, batch), batch))

    def collect(self, *, wait: bool = False) -> bool:
        """Bring the features of encoded batches to their slides.

        Parameters
        ----------
        wait : bool, optional
            Whether to wait for all that are being encoded.

        Returns
        -------
        bool
            True if any came.

        Raises
        ------
        EncoderError
            If the encoder cannot work.
        """
        any_came = False
        while self._running and (wait or self._running[0][0].done()):
            future, batch = self._running.popleft()
            encoded = future.result()
            self.busy_s += encoded.seconds  # here, since several threads encode
            for one in batch.segments:
                one.slide.pieces[one.first] = encoded.features[one.at : one.at + len(one.rows)]
                one.slide.encoded += len(one.rows)
                one.slide.batch_used = min(one.slide.batch_used or encoded.size, encoded.size)
            self.encoded_tiles += batch.filled
            batch.segments, batch.filled = [], 0
            self._empty.put(batch)
            any_came = True
        return any_came

    def _batch(self) -> _Batch:
        while self._filling is None:
            if self._empty.empty():
                self._running[0][0].result()
                self.collect()
            else:
                self._filling = self._empty.get()
        return self._filling

    def _encode(self, batch: _Batch) -> "_Encoded":
        place = self._places.get()
        try:
            started = time.perf_counter()
            features, used = self._call(place, batch)
            array: NDArray[np.float32] = features.cpu().numpy()
            return _Encoded(array, used, time.perf_counter() - started)
        finally:
            self._places.put(place)

    def _call(self, place: EncodingPlace, batch: _Batch) -> tuple[Tensor, int]:
        """Bring a batch to its device, change its colours and encode it; where memory is too small, in halves from here on."""
        while True:
            size = min(self._largest, len(batch.tiles))
            try:
                parts = [
                    place.encoder.encode(_on_device(batch, start, size, place.device), precision=self._precision)
                    for start in range(0, len(batch.tiles), size)
                ]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise EncoderError(
                        f"encoder {place.encoder.name}: {place.device} has no memory for a single tile of its own size; use "
                        "extract.precision: bfloat16, a smaller encoder, or a device with more memory"
                    ) from error
                self._largest = (size + 1) // 2
                logger.warning(
                    "%s has no memory for %d tiles at once; going on with %d", place.device, size, self._largest
                )
                continue
            return torch.cat(parts)[: len(batch.tiles)], size


class _Encoded(NamedTuple):
    """Features of a batch, the size of the parts in which they were computed, and the seconds that took."""

    features: NDArray[np.float32]
    size: int
    seconds: float


def _on_device(batch: _Batch, start: int, size: int, device: str) -> Tensor:
    """Return a part of a batch on its device, in its slides' changed colours; the last part is padded with white."""
    tiles = batch.tiles[start : start + size].to(device, non_blocking=True)
    for one in batch.segments:
        low, high = max(one.at, start), min(one.at + len(one.rows), start + size)
        if one.slide.change is None or low >= high:
            continue
        if tiles.data_ptr() == batch.tiles[start].data_ptr():
            tiles = tiles.clone()  # a second attempt, in smaller parts, begins with the colours as they came
        tiles[low - start : high - start] = one.slide.change(
            tiles[low - start : high - start], one.rows[low - one.at : high - one.at]
        )
    if len(tiles) == size:
        return tiles
    white = torch.full((size - len(tiles), *tiles.shape[1:]), 255, dtype=tiles.dtype, device=tiles.device)
    return torch.cat([tiles, white])
