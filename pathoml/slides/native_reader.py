"""Tiles of a grid out of the native tiles of a level, each native tile decoded once however the grid lies."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.errors import DamagedSlideError
from pathoml.slides.base import ReadPlan, TileReader, TileState
from pathoml.slides.codecs import TileDecodeError
from pathoml.slides.native_tiles import NativeLevel
from pathoml.slides.resample import resample
from pathoml.units import BoolArray, IntArray, RgbImage

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 32
"""Tiles put together from native ones at a time: bounds what is held decoded, and is enough for threads to share."""

_MOST_HELD_BYTES = 200 << 20
"""Decoded native tiles that are kept for the next row of the grid; what a very wide slide has beyond that is decoded again."""

_WHOLE, _ABSENT_PART, _LOST = int(TileState.WHOLE), int(TileState.ABSENT_PART), int(TileState.LOST)
"""Plain numbers: looking a member of an enumeration up shows at thousands of tiles a second."""

Work = Callable[[Iterable[int]], None]
Share = Callable[[Work, Sequence[int]], None]
"""Does work on items, by one thread or several."""


class NativeTileReader(TileReader):
    """Reads tiles of a grid from one level.

    A tile that coincides with native tiles used by no other is decoded straight into its place. The others are put
    together from decoded native tiles, which are kept for as long as a later tile of the grid needs them: about one
    row of the level.

    Parameters
    ----------
    level : NativeLevel
        The level to read.
    coords : ndarray of int32, shape (tiles, 2)
        Top-left corners (x, y) in level-0 pixels.
    plan : ReadPlan
        How each tile is read.
    background : tuple of int
        RGB beyond the slide's edge.
    name : str
        Of the slide, for the log.
    threads : int
        Threads that decode.
    """

    def __init__(
        self, level: NativeLevel, coords: IntArray, plan: ReadPlan, *, background: tuple[int, int, int], name: str,
        threads: int,
    ) -> None:  # fmt: skip
        self._level, self._plan, self._background, self._name = level, plan, background, name
        self._threads = threads
        # Its threads begin with the first read and end when the reader is gone.
        self._pool = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="decode")
        self._corners = np.rint(coords / (level.downsample * plan.reduction)).astype(np.int64)
        self._first, self._last = self._spans()
        self._uses = self._count_uses()
        self._steps = self._native_steps()
        self._direct = self._find_direct()
        self._held: dict[int, RgbImage | None] = {}
        self._absent: set[int] = set()
        self._free: list[RgbImage] = []
        width, height = level.tile_px(plan.reduction)
        self._most_held = max(1, _MOST_HELD_BYTES // (3 * width * height))

    def _read(self, start: int, stop: int, out: RgbImage) -> NDArray[np.uint8]:
        states = np.zeros(stop - start, dtype=np.uint8)
        self._read_all(start, stop, out, states, self._shared_out if self._threads > 1 else _one_after_the_other)
        return states

    def _read_all(self, start: int, stop: int, out: RgbImage, states: NDArray[np.uint8], share: Share) -> None:
        direct = [row for row in range(start, stop) if self._direct[row]]
        pieced = [row for row in range(start, stop) if not self._direct[row]]
        share(lambda part: self._read_direct(part, start, out, states), direct)
        for first in range(0, len(pieced), _ROWS_AT_ONCE):
            rows = pieced[first : first + _ROWS_AT_ONCE]
            needed = sorted({index for row in rows for index in self._natives_of(row)} - self._held.keys())
            self._held.update((index, self._buffer()) for index in needed)
            share(self._decode, needed)
            share(lambda part: self._piece_together(part, start, out, states), rows)
            self._let_go(rows)

    def _shared_out(self, work: Work, items: Sequence[int]) -> None:
        """Let each thread, this one too, take the next item whenever it is free."""
        left = iter(items)
        others = [self._pool.submit(work, left) for _ in range(min(self._threads, len(items)) - 1)]
        try:
            work(left)
        finally:
            wait(others)  # they write into the same arrays
        for other in others:
            other.result()

    def _spans(self) -> tuple[IntArray, IntArray]:
        """Return the first and last (column, row) of native tiles under every tile; last < first where there is none."""
        native = np.array(self._level.tile_px(self._plan.reduction))
        grid = np.array([self._level.image.columns, self._level.image.rows])
        first = self._corners // native
        last = (self._corners + np.array(self._plan.read_px) - 1) // native
        return np.maximum(first, 0), np.minimum(last, grid - 1)

    def _count_uses(self) -> NDArray[np.int32]:
        image = self._level.image
        uses = np.zeros((image.rows, image.columns), dtype=np.int32)
        width, height = (self._last - self._first + 1).max(axis=0, initial=0).tolist()
        for right in range(width):
            for down in range(height):
                at = self._first + np.array([right, down])
                there = (at <= self._last).all(axis=1)
                np.add.at(uses, (at[there, 1], at[there, 0]), 1)
        return uses.ravel()

    def _native_steps(self) -> tuple[int, int] | None:
        """Return the whole number of native pixels in a pixel of the tile, in x and y, or None."""
        steps = (round(1 / self._plan.scale[0]), round(1 / self._plan.scale[1]))
        native = self._level.tile_px(self._plan.reduction)
        fits = all(
            step >= 1
            and abs(step * scale - 1) < 1e-9
            and step * self._plan.tile_px == read
            and side % step == 0
            and read % side == 0
            for step, scale, read, side in zip(steps, self._plan.scale, self._plan.read_px, native, strict=True)
        )
        return steps if fits else None

    def _find_direct(self) -> BoolArray:
        """Return which tiles consist of whole native tiles that no other tile uses."""
        if self._steps is None or len(self._corners) == 0:
            return np.zeros(len(self._corners), dtype=bool)
        native = np.array(self._level.tile_px(self._plan.reduction))
        size = np.array(self._level.size_px(self._plan.reduction))
        aligned = (self._corners % native == 0).all(axis=1)
        inside = ((self._corners >= 0) & (self._corners + np.array(self._plan.read_px) <= size)).all(axis=1)
        direct: BoolArray = aligned & inside
        for row in np.flatnonzero(direct).tolist():
            direct[row] = all(self._uses[index] == 1 for index in self._natives_of(row))
        return direct

    def _natives_of(self, row: int) -> Iterable[int]:
        (left, top), (right, bottom) = self._first[row].tolist(), self._last[row].tolist()
        columns = self._level.image.columns
        return [y * columns + x for y in range(top, bottom + 1) for x in range(left, right + 1)]

    def _buffer(self) -> RgbImage:
        width, height = self._level.tile_px(self._plan.reduction)
        return self._free.pop() if self._free else _memory_for_pixels(width, height)

    def _read_direct(self, rows: Iterable[int], start: int, out: RgbImage, states: NDArray[np.uint8]) -> None:
        """Decode whole native tiles into their place, shrinking each on the way where the plan says so."""
        width, height = self._level.tile_px(self._plan.reduction)
        steps = self._steps or (1, 1)
        scratch = _memory_for_pixels(width, height)
        straight = (width, height, *steps) == (self._plan.tile_px, self._plan.tile_px, 1, 1)
        places = self._places_in_a_tile(width // steps[0], height // steps[1])
        for row in rows:
            left, top = self._first[row].tolist()
            first = top * self._level.image.columns + left
            if straight:
                if state := self._decode_one(first, out[row - start]):
                    states[row - start] = state
                continue
            tile, worst = out[row - start], _WHOLE
            for offset, place in places:
                state = self._decode_one(first + offset, scratch)
                worst = max(worst, state)
                if state == _LOST:
                    continue
                if steps == (1, 1):
                    tile[place] = scratch
                else:
                    part = tile[place]
                    cv2.resize(scratch, part.shape[1::-1], dst=part, interpolation=cv2.INTER_AREA)
            states[row - start] = worst

    def _places_in_a_tile(self, width: int, height: int) -> list[tuple[int, tuple[slice, slice]]]:
        """Return of each native tile under a direct tile its number after the first, and where its pixels go."""
        side, columns = self._plan.tile_px, self._level.image.columns
        return [
            (
                y * columns + x,
                (slice(y * height, (y + 1) * height), slice(x * width, (x + 1) * width)),
            )
            for y in range(side // height)
            for x in range(side // width)
        ]

    def _decode_one(self, index: int, out: RgbImage) -> int:
        """Decode a native tile; return its `TileState` as a plain number."""
        try:
            whole = self._level.decode(index, out, self._plan.reduction)
        except (TileDecodeError, DamagedSlideError) as error:
            row, column = divmod(index, self._level.image.columns)
            logger.warning("%s: the stored tile in row %d, column %d is damaged: %s", self._name, row, column, error)
            return _LOST
        return _WHOLE if whole else _ABSENT_PART

    def _decode(self, indices: Iterable[int]) -> None:
        for index in indices:
            buffer = self._held[index]
            assert buffer is not None  # put there by _read_all
            state = self._decode_one(index, buffer)
            if state == _LOST:
                self._held[index] = None
            elif state == _ABSENT_PART:
                self._absent.add(index)

    def _piece_together(self, rows: Iterable[int], start: int, out: RgbImage, states: NDArray[np.uint8]) -> None:
        width, height = self._plan.read_px
        mosaic = np.empty((height, width, 3), dtype=np.uint8) if self._plan.resized else None
        for row in rows:
            natives = self._natives_of(row)
            tiles = {index: self._held[index] for index in natives}
            if any(pixels is None for pixels in tiles.values()):
                states[row - start] = _LOST
                continue
            if not self._absent.isdisjoint(natives):
                states[row - start] = _ABSENT_PART
            target = out[row - start] if mosaic is None else mosaic
            corner = self._corners[row].tolist()
            paste(tiles, self._level, self._plan.reduction, (corner[0], corner[1]), self._background, target)
            if mosaic is not None:
                resample(mosaic, self._plan, out[row - start])

    def _let_go(self, rows: list[int]) -> None:
        """Drop the native tiles that no later tile needs, and those beyond the room; keep their memory for the next."""
        for row in rows:
            for index in self._natives_of(row):
                self._uses[index] -= 1
                if self._uses[index] == 0:
                    self._forget(index)
        # What was decoded last is needed last: the next row of the grid begins on the other side.
        while len(self._held) > self._most_held:
            self._forget(next(reversed(self._held)))

    def _forget(self, index: int) -> None:
        buffer = self._held.pop(index, None)
        self._absent.discard(index)
        if buffer is not None and len(self._free) < self._most_held:
            self._free.append(buffer)


def paste(
    tiles: dict[int, RgbImage | None], level: NativeLevel, reduction: int, corner: tuple[int, int],
    background: tuple[int, int, int] | None, out: RgbImage,
) -> None:  # fmt: skip
    """Put decoded native tiles together to one rectangle.

    Parameters
    ----------
    tiles : dict of int to ndarray
        Decoded native tiles by number, all that the rectangle touches.
    level : NativeLevel
        Where they lie.
    reduction : int
        By which they were shrunk.
    corner : tuple of int
        (x, y) of the rectangle at that level after reduction; may lie outside.
    background : tuple of int, or None
        RGB for what lies beyond the level's edge; None leaves it as it is.
    out : ndarray of uint8, shape (height, width, 3)
        Receives the rectangle.
    """
    height, width = out.shape[:2]
    tile_width, tile_height = level.tile_px(reduction)
    level_width, level_height = level.size_px(reduction)
    x0, y0 = corner
    x1, y1 = min(x0 + width, level_width), min(y0 + height, level_height)
    if background is not None and (x0 < 0 or y0 < 0 or x1 < x0 + width or y1 < y0 + height):
        out[...] = background
    for index, pixels in tiles.items():
        if pixels is None:
            continue
        row, column = divmod(index, level.image.columns)
        left, top = column * tile_width, row * tile_height
        a, b = max(left, x0, 0), min(left + tile_width, x1)
        c, d = max(top, y0, 0), min(top + tile_height, y1)
        if a < b and c < d:
            out[c - y0 : d - y0, a - x0 : b - x0] = pixels[c - top : d - top, a - left : b - left]


def _memory_for_pixels(width: int, height: int) -> RgbImage:
    """Return memory to decode into that begins 16 bytes behind a multiple of 32.

    Pixels that begin on a multiple of 32 libjpeg-turbo writes past the cache, and they are read again at once: a tenth of the
    time of decoding.
    """
    size = 3 * width * height
    raw = np.empty(size + 32, dtype=np.uint8)
    start = (16 - raw.ctypes.data) % 32
    return raw[start : start + size].reshape(height, width, 3)


def _one_after_the_other(work: Work, items: Sequence[int]) -> None:
    work(items)
