"""Open slides, few at a time, each handle used by one thread at a time; and overviews of those that store none."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pathoml.errors import PathomlError
from pathoml.files import atomic_path
from pathoml.slides import Slide, SlideGeometry, open_slide, shrunken_image, slide_fingerprint
from pathoml.units import RgbImage
from pathoml.viewer.library import ViewedSlide
from pathoml.viewer.pyramid import OverviewLevel, ZoomSteps, needs_overview

logger = logging.getLogger(__name__)

_OVERVIEW_PX = 40_000_000
"""Pixels that the finest level of an overview has at most."""
_IDLE_HANDLES = 8


@dataclass(frozen=True)
class SlideFacts:
    """What is known of a slide once it has been open.

    Parameters
    ----------
    geometry : SlideGeometry
        Size, levels and resolution.
    steps : ZoomSteps
        Of its deep zoom.
    """

    geometry: SlideGeometry
    steps: ZoomSteps


class SlideShelf:
    """Lends open slides and keeps a few of them open.

    Parameters
    ----------
    slides : sequence of ViewedSlide
        All slides; positions in it name them.
    cache : Path
        Folder for overviews.
    """

    def __init__(self, slides: Sequence[ViewedSlide], cache: Path) -> None:
        self._slides, self._cache = slides, cache
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, list[Slide]] = OrderedDict()
        self._facts: dict[int, SlideFacts] = {}
        self._overviews: dict[int, Future[tuple[OverviewLevel, ...]]] = {}
        self._builder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overview")

    def facts(self, position: int) -> SlideFacts:
        """Return what is known of a slide; the first call opens it.

        Parameters
        ----------
        position : int
            Of the slide.

        Returns
        -------
        SlideFacts
            Size, levels, steps.

        Raises
        ------
        SlideError
            If it cannot be opened.
        """
        known = self._facts.get(position)
        if known is not None:
            return known
        with self.lend(position):
            return self._facts[position]

    @contextmanager
    def lend(self, position: int) -> Iterator[Slide]:
        """Lend a handle to one thread.

        Parameters
        ----------
        position : int
            Of the slide.

        Yields
        ------
        Slide
            Open; not to be closed by the borrower.

        Raises
        ------
        SlideError
            If it cannot be opened.
        """
        handle = self._take(position)
        try:
            yield handle
        finally:
            self._give_back(position, handle)

    def overview(self, position: int) -> tuple[OverviewLevel, ...] | None:
        """Return the overview of a slide that stores none, or begin to make it.

        Parameters
        ----------
        position : int
            Of a slide whose `facts` are known.

        Returns
        -------
        tuple of OverviewLevel, or None
            Empty where the slide needs none; None while it is being made.

        Raises
        ------
        PathomlError
            If it could not be made.
        """
        if not needs_overview(self.facts(position).geometry):
            return ()
        with self._lock:
            made = self._overviews.get(position)
            if made is None:
                made = self._overviews[position] = self._builder.submit(self._make_overview, position)
            elif made.done() and made.exception() is not None:
                del self._overviews[position]  # what failed is told once, and tried again when it is asked for next
        return made.result() if made.done() else None

    def close(self) -> None:
        """Close every handle that nobody uses, and wait for the overview in work."""
        self._builder.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            idle = [handle for handles in self._idle.values() for handle in handles]
            self._idle.clear()
        for handle in idle:
            handle.close()

    def _take(self, position: int) -> Slide:
        with self._lock:
            idle = self._idle.get(position)
            if idle:
                return idle.pop()
        entry = self._slides[position]
        handle = open_slide(entry.path, mpp=entry.mpp)
        geometry = handle.geometry
        self._facts.setdefault(position, SlideFacts(geometry, ZoomSteps(geometry.width_px, geometry.height_px)))
        return handle

    def _give_back(self, position: int, handle: Slide) -> None:
        with self._lock:
            self._idle.setdefault(position, []).append(handle)
            self._idle.move_to_end(position)
            surplus = []
            while sum(map(len, self._idle.values())) > _IDLE_HANDLES:
                oldest = next(key for key, handles in self._idle.items() if handles)
                surplus.append(self._idle[oldest].pop())
            for empty in [key for key, handles in self._idle.items() if not handles]:
                del self._idle[empty]
        for one in surplus:
            one.close()

    def _make_overview(self, position: int) -> tuple[OverviewLevel, ...]:
        try:
            with self.lend(position) as slide:
                return _overview_levels(slide, self._cache)
        except PathomlError as error:
            logger.warning("no overview of slide %s: %s", self._slides[position].name, getattr(error, "code", "FAILED"))
            raise


def _overview_levels(slide: Slide, cache: Path) -> tuple[OverviewLevel, ...]:
    """Make or find the levels, each a file of plain pixels that is mapped, not read."""
    geometry = slide.geometry
    name = slide_fingerprint(slide.path)[:32]
    downsample = 8.0
    while geometry.width_px * geometry.height_px / downsample**2 > _OVERVIEW_PX:
        downsample *= 2
    levels: list[OverviewLevel] = []
    pixels = None
    while not levels or max(levels[-1].pixels.shape[:2]) > 512:
        size = (max(1, round(geometry.width_px / downsample)), max(1, round(geometry.height_px / downsample)))
        path = cache / f"{name}-{downsample:.0f}.npy"
        kept = _read_level(path, (size[1], size[0], 3))
        if kept is None:
            if pixels is None:
                finer = levels[-1].pixels if levels else None
                pixels = shrunken_image(slide, size) if finer is None else _halved(finer, size)
            else:
                pixels = _halved(pixels, size)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, pixels, allow_pickle=False)
            kept = np.load(path, mmap_mode="r", allow_pickle=False)
        levels.append(OverviewLevel(downsample, kept))
        downsample *= 2
    return tuple(levels)


def _read_level(path: Path, shape: tuple[int, ...]) -> RgbImage | None:
    """Map a level that is there; None where there is none, or where it is not what it should be and has to be made again."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, cut off, or no array
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _halved(pixels: RgbImage, size: tuple[int, int]) -> RgbImage:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
