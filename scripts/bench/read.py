"""Measure how fast tiles are read, against the bare codec and against other readers, in one run on one machine.

Usage: python scripts/bench/read.py [FOLDER] [--only CASE ...]

Draws four slides of about 30,000 x 30,000 px (256 px JPEG tiles of real H&E where the test data are at hand, drawn ones
otherwise) into FOLDER and reads the same tiles with every reader on one thread, in turns. Readers are opened anew several
times, each time with their memory elsewhere, and the fastest opening of each is compared, of which the median turn counts: a
codec is up to a fifth faster or slower by where its memory lies, and a machine is not as fast now as then.
One thread is one core: some readers decode with threads of their own, whatever the caller does (fastslide does), so that
the process is held on one core for all figures but those of two threads.
Readers other than OpenSlide are measured where they are installed (pip install "pathoml[bench]" "cucim==23.10.0").
Prints a table and, as the last line, one JSON object; exits 1 if a figure falls short.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import openslide
import simplejpeg
import tifffile

from pathoml.artefacts import QualitySettings
from pathoml.slides import ReadPlan, open_slide
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiles import Look, lay_tiles, read_tiles, tile_flags
from pathoml.tiling import TilingSettings, plan_reading

SIDE, NATIVE, TILE = 30_000, 256, 256
COLUMNS = -(-SIDE // NATIVE)
TILES = 236
PAGE = 16
"""Tiles of a page of extraction, which are read and judged while a processor's cache holds them; by every reader here."""
TURNS = 3
ROUNDS, ROUNDS_WITH_PEERS = 12, 4
"""Every round opens its readers anew, after the heap was moved by chance: the same codec takes 196, 213, 232 or 243 us by
where its working memory lies beside its output (the last bits of both addresses decide), which no reader chooses."""
MPPS = (0.5, 0.499, 0.25, 0.2527)
OWN_THREADS = ("fastslide",)
"""Readers that decode the stored tiles of one region with threads of their own."""
CUCIM_TARGETS = {"0.5": 0.97, "0.25 scaled": 1.0}
cv2.setNumThreads(1)


def stain_tiles(folder: Path) -> list[np.ndarray]:
    """Return tiles full of tissue, of a real slide where there is one."""
    path = Path(os.environ.get("PATHOML_TEST_DATA", "../shared/data")) / "slides/CMU-1-Small-Region.svs"
    if not path.is_file():
        path = folder / "source.tif"
        plan = TissuePlan(
            seed=(1, 1), width_um=1400.0, height_um=1400.0, tissue_area_mm2=1.9, necrosis=0.2, lymphocytes=0.2,
            tumour=0.5, glands=0.3,
        )  # fmt: skip
        draw_slide(path, SlideSpec("source", plan, 0.5, HOSPITALS[0].stain))
    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    height, width = (size // NATIVE for size in pixels.shape[:2])
    tiles = [
        pixels[y * NATIVE : (y + 1) * NATIVE, x * NATIVE : (x + 1) * NATIVE]
        for y in range(height)
        for x in range(width)
    ]
    return [np.ascontiguousarray(tile) for tile in tiles if tile.mean() < 215]


def encode(tile: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(tile), quality=80, colorsubsampling="420")


def write_mosaic(path: Path, tiles: list[np.ndarray], *, mpp: float, side: int, seed: int = 0) -> None:
    """Write a square pyramid (1, 4, 16) whose level 0 repeats the tiles in random order."""
    columns = -(-side // NATIVE)
    order = np.random.default_rng(seed).integers(0, len(tiles), (columns, columns))
    coded = [encode(tile) for tile in tiles]
    small = {factor: [cv2.resize(tile, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA) for tile in tiles]
             for factor in (4, 16)}  # fmt: skip

    def level(factor: int) -> Iterator[bytes]:
        if factor == 1:
            yield from (coded[index] for index in order.ravel())
            return
        count = -(-side // factor // NATIVE)
        for row in range(count):
            for column in range(count):
                part = order[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
                picture = np.full((NATIVE, NATIVE, 3), 255, dtype=np.uint8)
                piece = NATIVE // factor
                for (y, x), index in np.ndenumerate(part):
                    picture[y * piece : (y + 1) * piece, x * piece : (x + 1) * piece] = small[factor][index]
                yield encode(picture)

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor in (1, 4, 16):
            extent = side // factor
            per_cm = 1e4 / (mpp * factor)
            tiff.write(
                level(factor), shape=(extent, extent, 3), dtype=np.uint8, tile=(NATIVE, NATIVE), photometric="ycbcr",
                compression="jpeg", subsampling=(2, 2), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1), metadata=None,
            )  # fmt: skip


def grid(extent: float, offset: int) -> np.ndarray:
    """Return whole rows of a grid of such tiles from the middle of the slide, like those of a slide full of tissue."""
    columns = int((SIDE - offset) / extent) - 1
    places = [
        (offset + round(x * extent), offset + round((10 + y) * extent)) for y in range(40) for x in range(columns)
    ]
    return np.array(places[:TILES], dtype=np.int64)


def with_pathoml(path: Path, coords: np.ndarray, plan: ReadPlan, threads: int = 1) -> Callable[[], None]:
    slide = open_slide(path)
    assert slide.metadata["tier"] == "native tiles"
    batch = np.empty((PAGE if threads == 1 else 4 * PAGE, TILE, TILE, 3), dtype=np.uint8)

    def read() -> None:
        reader = slide.tile_reader(coords, plan, threads=threads)
        for start in range(0, len(coords), len(batch)):
            reader.read(start, min(len(coords), start + len(batch)), batch)

    return read


def with_transform(path: Path, coords: np.ndarray, plan: ReadPlan) -> Callable[[], None]:
    """Read as extraction does: page by page, into uint8 as the encoder takes it, lost tiles white, focus of every tile judged."""
    slide = open_slide(path)
    batch = np.empty((PAGE, TILE, TILE, 3), dtype=np.uint8)
    quality = QualitySettings()

    def read() -> None:
        reader = slide.tile_reader(coords, plan)
        for start in range(0, len(coords), len(batch)):
            stop = min(len(coords), start + len(batch))
            states = read_tiles(reader, start, stop, batch)
            tile_flags(batch[: stop - start], states, max(plan.mpp_read), quality)

    return read


def bare_codec(path: Path, coords: np.ndarray, plan: ReadPlan) -> Callable[[], None]:
    """Decode every stored tile under the grid once from memory, and shrink as many pixels as the grid asks for."""
    side = NATIVE // plan.reduction
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        corners = coords // plan.reduction
        first, last = corners // side, (corners + plan.read_px[0] - 1) // side
        wanted = {
            int(y) * COLUMNS + int(x)
            for (left, top), (right, bottom) in zip(first, last, strict=True)
            for x in range(left, right + 1) for y in range(top, bottom + 1)
        }  # fmt: skip
        data = [
            tiff.filehandle.read_array(np.uint8, page.databytecounts[index], page.dataoffsets[index]).tobytes()
            for index in sorted(wanted)
        ]
    native = np.empty((side, side, 3), dtype=np.uint8)
    region = np.random.default_rng(0).integers(0, 255, (plan.read_px[1], plan.read_px[0], 3), dtype=np.uint8)
    out = np.empty((TILE, TILE, 3), dtype=np.uint8)

    def read() -> None:
        for one in data:
            simplejpeg.decode_jpeg(one, min_height=side, min_width=side, min_factor=plan.reduction, buffer=native)
        if plan.resized:
            for _ in coords:
                cv2.resize(region, (TILE, TILE), dst=out, interpolation=cv2.INTER_AREA)

    return read


def by_regions(
    read_region: Callable[[int, int, int], np.ndarray], coords: np.ndarray, plan: ReadPlan
) -> Callable[[], None]:
    batch = np.empty((PAGE, TILE, TILE, 3), dtype=np.uint8)
    side = plan.read_px[0]

    def read() -> None:
        for index, (x, y) in enumerate(coords.tolist()):
            pixels = read_region(x, y, side)
            if side == TILE:
                batch[index % PAGE] = pixels
            else:
                batch[index % PAGE] = cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA)

    return read


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Hold all threads of this process, also those that a reader keeps, on so many cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    _hold(set(sorted(before)[:count]))
    try:
        yield
    finally:
        _hold(before)


def _hold(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:  # it has ended meanwhile
            continue


def others(path: Path) -> dict[str, Callable[[int, int, int], np.ndarray]]:
    """Return a function (x, y, side) -> pixels of level 0 for every other reader that is installed."""
    slide = openslide.OpenSlide(path)
    readers = {"openslide": lambda x, y, side: np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))}
    if importlib.util.find_spec("tiffslide"):
        import tiffslide

        tiff = tiffslide.TiffSlide(path)
        readers["tiffslide"] = lambda x, y, side: tiff.read_region((x, y), 0, (side, side), as_array=True)
    if importlib.util.find_spec("fastslide"):
        import fastslide

        fast = fastslide.FastSlide.from_file_path(str(path))
        readers["fastslide"] = lambda x, y, side: fast.read_region(location=(x, y), level=0, size=(side, side)).numpy()
    if importlib.util.find_spec("cucim"):
        from cucim import CuImage

        image = CuImage(str(path))
        readers["cucim"] = lambda x, y, side: np.asarray(image.read_region((x, y), (side, side), 0))
    return readers


TWO = ", 2 threads"


Seconds = dict[str, list[list[float]]]
"""Of each reader, round by round and turn by turn."""


def in_turns(rounds: int, opened: Callable[[], dict[str, Callable[[], None]]]) -> Seconds:
    """Take the time of every reader in each turn, forwards and backwards by turns, so that none always follows the same other."""
    spent: Seconds = {}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        moved = [bytes(size) for size in rng.integers(1, 4096, 200).tolist()]
        readers = opened()
        for name in readers:
            spent.setdefault(name, []).append([])
        for turn in range(TURNS):
            for name in list(readers)[:: 1 if turn % 2 else -1]:
                with on_cores(2 if name.endswith(TWO) else 1):
                    started = time.perf_counter()
                    readers[name]()
                    spent[name][-1].append(time.perf_counter() - started)
        del moved
    return spent


def fastest(rounds: list[list[float]]) -> float:
    """Return the seconds of the median turn of the fastest round."""
    return min(statistics.median(turns) for turns in rounds)


def as_fast(spent: Seconds, reader: str, other: str) -> float:
    """Return how many times as fast a reader is as another."""
    return fastest(spent[other]) / fastest(spent[reader])


def measure(path: Path, *, offset: int, tiling: TilingSettings) -> tuple[Seconds, Seconds, Seconds]:
    """Return seconds of pathoml beside the codec, beside its peers, and beside those of them that have threads of their own."""
    with open_slide(path) as slide:
        plan = plan_reading(slide.geometry, tiling)
        coords = grid(plan.footprint_level0_px(slide.geometry)[0], offset)
    whole = ReadPlan(plan.level, tuple(size * plan.reduction for size in plan.read_px), TILE, plan.mpp_read)

    def beside_the_codec() -> dict[str, Callable[[], None]]:
        return {
            "bare codec": bare_codec(path, coords, plan), "pathoml": with_pathoml(path, coords, plan),
            "pathoml + transform": with_transform(path, coords, plan),
            f"pathoml{TWO}": with_pathoml(path, coords, plan, threads=2),
        }  # fmt: skip

    def beside_peers() -> dict[str, Callable[[], None]]:
        with on_cores(1):  # threads that a reader keeps are started when it is opened or first asked
            peers = {name: by_regions(read, coords, whole) for name, read in others(path).items()}
            for read in peers.values():
                read()
        return {"pathoml": with_pathoml(path, coords, plan), **peers}

    def beside_threaded_peers() -> dict[str, Callable[[], None]]:
        peers = {name: read for name, read in others(path).items() if name in OWN_THREADS}
        threaded = {f"{name}{TWO}": by_regions(read, coords, whole) for name, read in peers.items()}
        return {f"pathoml{TWO}": with_pathoml(path, coords, plan, threads=2), **threaded}

    return (
        in_turns(ROUNDS, beside_the_codec), in_turns(ROUNDS_WITH_PEERS, beside_peers),
        in_turns(ROUNDS_WITH_PEERS, beside_threaded_peers),
    )  # fmt: skip


def mask_and_grid(path: Path) -> float:
    """Return CPU seconds of mask and grid, of all threads together: the median of three, the first of which finds nothing warm."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        with open_slide(path) as slide:
            lay_tiles(slide, Look(), TilingSettings(tile_px=TILE))
        spent.append(time.process_time() - started)
    print(f"mask and grid of {path.name}: {', '.join(f'{one:.2f}' for one in spent)} s of CPU", flush=True)
    return statistics.median(spent)


Figures = dict[str, dict[str, float | bool]]


def judge(figures: Figures, name: str, value: float, target: float, *, at_most: bool = False) -> None:
    ok = value <= target if at_most else value >= target
    figures[name] = {"value": round(value, 3), "target": target, "ok": bool(ok)}


def judge_slide(figures: Figures, name: str, spent: tuple[Seconds, Seconds, Seconds], target: float) -> None:
    """Hold one slide's times against the targets."""
    alone, beside, threaded = spent
    judge(figures, f"{name}: of bare codec", as_fast(alone, "pathoml", "bare codec"), target)
    for peer in ("tiffslide", "fastslide", "openslide"):
        if peer in beside:
            judge(figures, f"{name}: over {peer}", as_fast(beside, "pathoml", peer), 1.0)
        if f"{peer}{TWO}" in threaded:
            judge(figures, f"{name}: over {peer}{TWO}", as_fast(threaded, f"pathoml{TWO}", f"{peer}{TWO}"), 1.0)
    if "cucim" in beside and name in CUCIM_TARGETS:
        judge(figures, f"{name}: over cucim", as_fast(beside, "pathoml", "cucim"), CUCIM_TARGETS[name])
    if name in ("0.5", "0.25"):
        judge(figures, f"{name}: two threads over one", as_fast(alone, f"pathoml{TWO}", "pathoml"), 1.7)
        judge(figures, f"{name}: with transform over read alone", as_fast(alone, "pathoml + transform", "pathoml"), 0.8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="for the slides; by default a temporary one")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="for example: mask '0.5' '0.25 scaled'")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="pathoml-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    tiles = stain_tiles(folder)
    slides = {mpp: folder / f"{mpp}.tif" for mpp in MPPS}
    for mpp, path in slides.items():
        if not path.is_file():
            write_mosaic(path, tiles, mpp=mpp, side=SIDE)
    figures: Figures = {}
    for mpp in (0.5, 0.25) if asked.only is None or "mask" in asked.only else ():
        judge(figures, f"{mpp}: mask and grid, CPU s", mask_and_grid(slides[mpp]), 1.0, at_most=True)
    exact, scaled = TilingSettings(tile_px=TILE), TilingSettings(tile_px=TILE, decode="scaled")
    snapped = TilingSettings(tile_px=TILE, align_to_native=True)
    cases = {
        "0.5": (0.5, 0, exact, 0.92), "0.5 off the grid": (0.5, 37, exact, 0.7), "0.499": (0.499, 0, exact, 0.92),
        "0.25": (0.25, 0, exact, 0.92), "0.25 off the grid": (0.25, 37, exact, 0.7), "0.25 scaled": (0.25, 0, scaled, 0.92),
        "0.2527": (0.2527, 0, exact, 0.7), "0.2527 snapped": (0.2527, 0, snapped, 0.92),
    }  # fmt: skip
    print(f"{'slide':<20} {'reader':<34} {'tiles/s':>8}")
    if asked.only and (unknown := set(asked.only) - {"mask", *cases}):
        parser.error(f"--only knows mask, {', '.join(cases)}; not {', '.join(sorted(unknown))}")
    for name, (mpp, offset, tiling, target) in cases.items():
        if asked.only is not None and name not in asked.only:
            continue
        spent = measure(slides[mpp], offset=offset, tiling=tiling)
        for place, group in zip(("", "beside peers", "beside peers"), spent, strict=True):
            for reader, seconds in group.items():
                rate = TILES / fastest(seconds)
                print(
                    f"{name:<20} {f'{reader} {place}' if 'pathoml' in reader else reader:<34} {rate:>8.0f}", flush=True
                )
        judge_slide(figures, name, spent, target)
    judge(figures, "peak_memory_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 500, at_most=True)
    for name, figure in figures.items():
        print(f"{name:<40} {figure['value']:>9} (target {figure['target']}) {'ok' if figure['ok'] else 'FALLS SHORT'}")
    print(json.dumps(figures))
    return 0 if all(figure["ok"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
