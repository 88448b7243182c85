"""Archive of slides -> feature bags: the only place where slides, tiling and encoders meet."""

import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from pathoml.artefacts import TileFlag
from pathoml.bags import Bag, BagHeader, read_bag, write_bag
from pathoml.cohort import SlideEntry
from pathoml.contact_sheets import draw_contact_sheet, sheet_path, write_contact_sheet
from pathoml.encoders.build import build_encoder
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import EncoderSettings
from pathoml.errors import (
    BadFeaturesError,
    BagError,
    DamagedSlideError,
    NoTissueError,
    PathomlError,
    SlideError,
    UnreadableSlideError,
    WorkerLostError,
)
from pathoml.extract_settings import Recipe
from pathoml.files import append_line, file_digest, make_folder
from pathoml.geojson import geojson_finder, regions_path
from pathoml.progress import Progress, silent
from pathoml.provenance import pathoml_version
from pathoml.segmenters.build import Segmenter, build_segmenter, model_finder
from pathoml.slides import Slide, SlideGeometry, TileState, open_slide, slide_digest, slide_fingerprint
from pathoml.stain import StainChange, fit_stain, optical_density_statistics
from pathoml.stain_settings import MacenkoSettings, ReinhardSettings
from pathoml.tiles import (
    LaidTiles,
    Look,
    TissueFinder,
    classical_finder,
    filled_grid,
    lay_tiles,
    read_tiles,
    tile_flags,
)
from pathoml.tiling import Rejection, TileGrid
from pathoml.tissue import GeojsonTissueSettings, ModelTissueSettings, TissueSettings

logger = logging.getLogger(__name__)

_GLASS = 230
"""Grey level from which a pixel is glass in every colour."""
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SlideOutcome:
    """What became of one slide; one line of the ledger.

    Parameters
    ----------
    slide_id : str
        The slide.
    status : str
        ``done``, ``kept`` (a valid bag was there) or ``failed``.
    code : str
        Why it failed; empty otherwise.
    message : str
        The same in a sentence.
    tiles : int
        Tiles in the bag.
    seconds : float
        Time spent on it.
    """

    slide_id: str
    status: Literal["done", "kept", "failed"]
    code: str = ""
    message: str = ""
    tiles: int = 0
    seconds: float = 0.0


def extract_archive(
    entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, *, device: str = "cpu", progress: Progress = silent
) -> list[SlideOutcome]:
    """Make a bag of every slide that has no valid one yet.

    A slide that fails is recorded and the others go on. Each outcome is appended to ``ledger.jsonl`` in the folder.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    recipe : Recipe
        What their bags hold.
    folder : Path
        Where ``<slide_id>.h5`` are kept.
    device : str, optional
        ``cpu`` or ``cuda``.
    progress : Progress, optional
        Told after every slide.

    Returns
    -------
    list of SlideOutcome
        In the order of the entries.

    Raises
    ------
    EncoderError
        If the encoder cannot be had or does not take tiles of this size and resolution; nothing is written.
    OutputError
        If the folder cannot be written to.
    """
    outcomes: dict[str, SlideOutcome] = {}
    todo = []
    for entry in entries:
        tiles = _valid_tiles(entry, folder / f"{entry.slide_id}.h5", recipe)
        if tiles:
            outcomes[entry.slide_id] = SlideOutcome(entry.slide_id, "kept", tiles=tiles)
        else:
            todo.append(entry)
    progress("extract", len(outcomes), len(entries))
    if todo:
        make_folder(folder)
        for outcome in _extract_all(todo, recipe, folder, device):
            outcomes[outcome.slide_id] = outcome
            _append_to_ledger(folder / "ledger.jsonl", outcome)
            progress("extract", len(outcomes), len(entries))
    return [outcomes[entry.slide_id] for entry in entries]


def extract_slide(
    entry: SlideEntry, recipe: Recipe, encoder: Encoder, *, device: str = "cpu",
    on_laid: Callable[[LaidTiles, SlideGeometry], None] | None = None,
) -> Bag:  # fmt: skip
    """Turn one slide into a bag, in memory.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    recipe : Recipe
        What its bag holds.
    encoder : Encoder
        Built from ``recipe.encoder``, on the device.
    device : str, optional
        ``cpu`` or ``cuda``.
    on_laid : callable, optional
        Given the slide's picture, mask and grid before anything is encoded, also where no tile is kept.

    Returns
    -------
    Bag
        Its tiles by (row, column).

    Raises
    ------
    SlideError
        If the slide cannot be opened, has no usable mpp, holds no tissue, or is damaged.
    EncoderError
        If the encoder does not take such tiles.
    """
    encoder.check_tiles(target_mpp=recipe.tiling.target_mpp, tile_px=recipe.tiling.tile_px)
    with open_slide(entry.path, mpp=entry.mpp) as slide:
        laid = lay_tiles(slide, _look(recipe, entry.slide_id, device), recipe.tiling)
        if on_laid is not None:
            on_laid(laid, slide.geometry)
        grid = filled_grid(laid, slide, recipe.tiling)
        encoded = _encode_grid(slide, grid, recipe, encoder, device)
        header = _header(entry, slide, recipe, encoder, laid, encoded)
    with np.errstate(over="ignore"):  # what overflows is refused by the check below, with its remedy
        stored = encoded.features.astype(recipe.extract.feature_dtype)
    if not np.isfinite(stored).all():
        remedy = "set extract.feature_dtype: float32" if np.isfinite(encoded.features).all() else "check the encoder"
        raise BadFeaturesError(
            f"{entry.path.name}: features hold NaN or infinity as {recipe.extract.feature_dtype}; {remedy}"
        )
    kept = encoded.kept
    return Bag(header, stored, grid.coords[kept], grid.grid[kept], grid.tissue_share[kept], encoded.flags)


class _Encoded(NamedTuple):
    """What reading and encoding the tiles of a grid gave."""

    features: NDArray[np.float32]  # of the tiles that are kept
    flags: NDArray[np.uint8]  # of the same
    kept: NDArray[np.int64]  # rows of the grid
    lost: int
    out_of_focus: int  # tiles dropped for that


def _look(recipe: Recipe, slide_id: str, device: str) -> Look:
    """Return how a slide is looked at."""
    return Look(recipe.tissue.mask_mpp, _tissue_finder(recipe.tissue, slide_id, device), recipe.quality)


def _tissue_finder(settings: TissueSettings, slide_id: str, device: str) -> TissueFinder:
    if isinstance(settings, GeojsonTissueSettings):
        return geojson_finder(settings, slide_id)
    if isinstance(settings, ModelTissueSettings):
        return model_finder(_worker_segmenter(settings), device=device)
    return classical_finder(settings)


def _header(
    entry: SlideEntry, slide: Slide, recipe: Recipe, encoder: Encoder, laid: LaidTiles, encoded: _Encoded
) -> BagHeader:
    geometry, grid = slide.geometry, laid.grid
    rejected = {reason.name.lower(): grid.count_rejected(reason) for reason in Rejection}
    return BagHeader(
        slide_id=entry.slide_id,
        slide_fingerprint=slide_fingerprint(entry.path),
        slide_digest=slide_digest(entry.path),
        width_px=geometry.width_px,
        height_px=geometry.height_px,
        slide_mpp=geometry.checked_mpp(entry.slide_id),
        mpp_from="metadata" if entry.mpp is None else "manifest",
        target_mpp=recipe.tiling.target_mpp,
        mpp_read=grid.plan.mpp_read,
        tile_px=recipe.tiling.tile_px,
        footprint_level0_px=grid.footprint_level0_px,
        stride_level0_px=grid.stride_level0_px,
        origin_level0_px=grid.origin_level0_px,
        encoder=encoder.name,
        weights_digest=encoder.weights_digest,
        precision_asked=recipe.extract.precision,
        precision_used=recipe.extract.precision,
        reader=slide.metadata["tier"],
        decode="exact" if grid.plan.reduction == 1 else "scaled",
        batch_tiles=recipe.extract.batch_tiles,
        settings_digest=recipe.digest,
        lost_tiles=encoded.lost,
        rejected={**rejected, "out_of_focus": encoded.out_of_focus},
        regions_digest=_regions_digest(recipe.tissue, entry.slide_id),
        stain=recipe.stain.kind,
        optical_density=optical_density_statistics(laid.picture[laid.mask.tissue]),
        pathoml_version=pathoml_version(),
    )


def _regions_digest(settings: TissueSettings, slide_id: str) -> str:
    """Return the SHA-256 of a slide's outlined regions, empty where there are none."""
    if not isinstance(settings, GeojsonTissueSettings):
        return ""
    path = regions_path(settings, slide_id)
    return file_digest(path) if path.is_file() else ""


def _encode_grid(slide: Slide, grid: TileGrid, recipe: Recipe, encoder: Encoder, device: str) -> _Encoded:
    """Read and encode every tile of a grid, batch by batch, all batches of one shape."""
    settings, reader = recipe.extract, slide.tile_reader(grid.coords, grid.plan)
    change = _stain_change(slide, grid, recipe)
    side = grid.plan.tile_px
    batch = np.empty((settings.batch_tiles, side, side, 3), dtype=np.uint8)
    features: list[NDArray[np.float32]] = []
    flags, lost = grid.flags.copy(), np.zeros(len(grid), dtype=bool)
    for start in range(0, len(grid), settings.batch_tiles):
        stop = min(len(grid), start + settings.batch_tiles)
        states = read_tiles(reader, start, stop, batch)
        lost[start:stop] = states == TileState.LOST
        flags[start:stop] |= tile_flags(batch[: stop - start], states, max(grid.plan.mpp_read), recipe.quality)
        tiles = torch.from_numpy(batch).to(device)
        if change is not None:
            tiles = change(tiles, np.arange(start, start + settings.batch_tiles))
        encoded = encoder.encode(tiles, precision=_PRECISIONS[settings.precision])
        features.append(encoded[: stop - start].cpu().numpy())
    if lost.sum() > settings.max_lost_share * len(grid):
        raise DamagedSlideError(
            f"{slide.path.name}: {lost.sum()} of {len(grid)} tiles cannot be decoded; copy the slide again from its source"
        )
    blurred = ((flags & TileFlag.OUT_OF_FOCUS) > 0) & ~lost & recipe.quality.drops(TileFlag.OUT_OF_FOCUS)
    kept = np.flatnonzero(~lost & ~blurred)
    if len(kept) == 0:
        raise NoTissueError(f"{slide.path.name}: none of its {len(grid)} tiles is in focus; scan it again")
    return _Encoded(np.concatenate(features)[kept], flags[kept], kept, int(lost.sum()), int(blurred.sum()))


def _stain_change(slide: Slide, grid: TileGrid, recipe: Recipe) -> StainChange | None:
    """Estimate a slide's stains from some of its tiles, spread evenly over the grid."""
    if not isinstance(recipe.stain, MacenkoSettings | ReinhardSettings):
        return fit_stain(np.zeros((0, 3), np.uint8), recipe.stain, slide.path.name)
    count = min(recipe.stain.sampled_tiles, len(grid))
    rows = np.unique(np.linspace(0, len(grid) - 1, count).round().astype(np.int64))
    tiles = np.empty((len(rows), grid.plan.tile_px, grid.plan.tile_px, 3), dtype=np.uint8)
    states = slide.tile_reader(grid.coords[rows], grid.plan).read(0, len(rows), tiles)
    pixels = tiles[states == TileState.WHOLE][:, ::4, ::4].reshape(-1, 3)
    return fit_stain(pixels[pixels.min(axis=1) < _GLASS], recipe.stain, slide.path.name)


def _valid_tiles(entry: SlideEntry, path: Path, recipe: Recipe) -> int:
    """Return the number of tiles of a bag that is whole and up to date, else 0."""
    if not path.is_file() or not entry.path.is_file():
        return 0
    try:
        bag = read_bag(path)
        fingerprint = slide_fingerprint(entry.path)
    except (BagError, OSError) as error:
        logger.warning("extracting slide %s again: %s", entry.slide_id, error)
        return 0
    same_mpp = (
        bag.header.mpp_from == "metadata" if entry.mpp is None else bag.header.slide_mpp == (entry.mpp, entry.mpp)
    )
    same = bag.header.settings_digest == recipe.digest and bag.header.slide_fingerprint == fingerprint
    same &= bag.header.regions_digest == _regions_digest(recipe.tissue, entry.slide_id)
    if not same or not same_mpp:
        logger.info("extracting slide %s again: the slide or the settings changed", entry.slide_id)
        return 0
    return len(bag.features)


def _extract_all(todo: Sequence[SlideEntry], recipe: Recipe, folder: Path, device: str) -> Iterator[SlideOutcome]:
    if recipe.extract.workers == 0:
        for entry in todo:
            threads = torch.get_num_threads()
            try:
                yield _extract_and_write(entry, recipe, folder, device)
            except SlideError as error:
                yield SlideOutcome(entry.slide_id, "failed", error.code, str(error))
            finally:
                torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(recipe.extract.workers, len(todo))
    with ProcessPool(max_workers=workers, context=context) as pool:
        running: dict[Future[SlideOutcome], SlideEntry] = {}
        try:
            for entry in todo:
                future: Future[SlideOutcome] = pool.schedule(
                    _extract_and_write, args=[entry, recipe, folder, device], timeout=recipe.extract.slide_timeout_s
                )
                running[future] = entry
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield _outcome_of(future, running.pop(future))
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _outcome_of(future: Future[SlideOutcome], entry: SlideEntry) -> SlideOutcome:
    try:
        return future.result()
    except (ProcessExpired, FutureTimeoutError) as error:
        lost = WorkerLostError(f"{entry.path.name}: the process that read it died or took too long ({error})")
        return SlideOutcome(entry.slide_id, "failed", lost.code, str(lost))
    except SlideError as error:
        return SlideOutcome(entry.slide_id, "failed", error.code, str(error))


def _extract_and_write(entry: SlideEntry, recipe: Recipe, folder: Path, device: str) -> SlideOutcome:
    started = time.monotonic()
    torch.set_num_threads(recipe.extract.threads_per_worker)
    encoder = _worker_encoder(recipe.encoder, recipe.extract.precision, device)
    sheet = sheet_path(folder, entry.slide_id)
    sheet.unlink(missing_ok=True)  # what an earlier run saw may be another slide
    seen: list[tuple[LaidTiles, SlideGeometry]] = []

    def draw_early(laid: LaidTiles, geometry: SlideGeometry) -> None:
        seen.append((laid, geometry))
        write_contact_sheet(sheet, draw_contact_sheet(laid, geometry, entry.slide_id))

    try:
        bag = extract_slide(entry, recipe, encoder, device=device, on_laid=draw_early)
    except OSError as error:
        if isinstance(error, PathomlError):
            raise
        raise UnreadableSlideError(
            f"{entry.path.name}: cannot be read ({error}); is the share there, are you allowed to?"
        ) from error
    write_bag(folder / f"{entry.slide_id}.h5", bag)
    for laid, geometry in seen:
        if len(bag.grid) < len(laid.grid):  # some could not be read or were out of focus: only now is it known
            write_contact_sheet(sheet, draw_contact_sheet(laid, geometry, entry.slide_id, in_bag=bag.grid))
    return SlideOutcome(entry.slide_id, "done", tiles=len(bag.features), seconds=round(time.monotonic() - started, 3))


@lru_cache(maxsize=1)
def _worker_encoder(settings: EncoderSettings, precision: str, device: str) -> Encoder:
    """Build the encoder once in each worker process."""
    if precision == "float32":
        # Without this a GPU rounds the inputs of convolutions to 10 bits and still calls it float32.
        torch.backends.cudnn.allow_tf32 = False
    encoder = build_encoder(settings)
    encoder.module.to(device=device, dtype=_PRECISIONS[precision])
    return encoder


@lru_cache(maxsize=1)
def _worker_segmenter(settings: ModelTissueSettings) -> Segmenter:
    """Build the segmentation network once in each worker process."""
    return build_segmenter(settings)


def _append_to_ledger(path: Path, outcome: SlideOutcome) -> None:
    append_line(path, json.dumps(asdict(outcome)))
