"""Pen, defocus, folds and bubbles, laid over real H&E from physical models, are found, and good tiles are not lost.

A tile counts as bad if the artefact covers a fifth of it, as good if it leaves no trace in it; between the two nothing is
asked.
Only tiles that hold tissue without the artefact count.
"""

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from pathoml.artefacts import QualitySettings, TileFlag, sharp_share
from pathoml.slides import Slide, open_slide
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiles import Look, lay_tiles
from pathoml.tiling import TilingSettings
from tests.counts import ARTEFACT_SEED, ARTEFACTS_OF_EACH_KIND
from tests.physical_artefacts import ARTEFACTS, Specimen

pytestmark = pytest.mark.slow

NOTHING_DROPPED = Look(quality=QualitySettings(drop=()))
TILING = TilingSettings()
FLAG_OF = {"out of focus": TileFlag.OUT_OF_FOCUS, "fold": TileFlag.FOLD, "bubble": TileFlag.BUBBLE}
SPECIMENS = {
    "CMU-1-Small-Region.svs": (None, 1), "TCGA-CR-7395-01A-01-TS1.svs": (0.25, 1), "ome_OS-1-detail_HE.ome.tif": (None, 3)
}  # fmt: skip
"""Real H&E: the file, its mpp where the file does not say it, and how often a small one is repeated, mirrored."""
BAD_SHARE = 0.2

Flags = dict[tuple[int, int], int]


def specimen(data_dir: Path, name: str) -> Specimen:
    mpp, repeats = SPECIMENS[name]
    with open_slide(data_dir / "slides" / name, mpp=mpp) as slide:
        geometry = slide.geometry
        pixels = slide.read_region((0, 0), 0, (geometry.width_px, geometry.height_px)).pixels
    assert geometry.mpp is not None
    factor = geometry.mpp[0] / TILING.target_mpp
    if abs(factor - 1) > TILING.mpp_tolerance:
        pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    for axis in (0, 1):
        pixels = np.concatenate([np.flip(pixels, axis) if turn % 2 else pixels for turn in range(repeats)], axis=axis)
    blurred = cv2.GaussianBlur(pixels, (0, 0), 8).astype(int)
    return Specimen(np.ascontiguousarray(pixels), TILING.target_mpp, blurred.max(axis=-1) - blurred.min(axis=-1) > 20)


def flags_of(slide: Slide) -> Flags:
    """Return the flags of each tile by row and column, as extraction gives them."""
    grid = lay_tiles(slide, NOTHING_DROPPED, TILING).grid
    tiles = np.empty((len(grid), TILING.tile_px, TILING.tile_px, 3), dtype=np.uint8)
    slide.tile_reader(grid.coords, grid.plan).read(0, len(grid), tiles)
    quality = NOTHING_DROPPED.quality
    blurred = sharp_share(tiles, grid.plan.mpp_read[0], quality) < quality.min_sharp_share
    flags = grid.flags | np.where(blurred, TileFlag.OUT_OF_FOCUS, 0).astype(np.uint8)
    return {tuple(place): int(flag) for place, flag in zip(grid.grid.tolist(), flags, strict=True)}


def written(path: Path, picture: np.ndarray) -> Flags:
    write_pyramid(path, picture, mpp=TILING.target_mpp)
    with open_slide(path) as slide:
        return flags_of(slide)


def covered(where: np.ndarray) -> dict[tuple[int, int], float]:
    side = TILING.tile_px
    rows, columns = -(-where.shape[0] // side), -(-where.shape[1] // side)
    return {
        (row, column): float(where[row * side : (row + 1) * side, column * side : (column + 1) * side].mean())
        for row in range(rows) for column in range(columns)
    }  # fmt: skip


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_real_slide_as_it_is_read_keeps_its_tiles(name: str, data_dir: Path) -> None:
    """Not through a picture of ours: five tiles of keratin were taken for a fold at 0.499, and none at 0.5."""
    with open_slide(data_dir / "slides" / name, mpp=SPECIMENS[name][0]) as slide:
        flags = flags_of(slide)
    wrong = int(TileFlag.PEN | TileFlag.FOLD | TileFlag.BUBBLE)
    assert sum(bool(flag & wrong) for flag in flags.values()) <= 0.02 * len(flags)


@pytest.mark.parametrize("name", SPECIMENS)
@pytest.mark.parametrize("turns", range(4))
def test_real_tissue_without_artefacts_keeps_its_tiles_however_it_lies(
    name: str, turns: int, data_dir: Path, tmp_path: Path
) -> None:
    one = specimen(data_dir, name)
    flags = written(tmp_path / "turned.tif", np.ascontiguousarray(np.rot90(one.picture, turns)))
    wrong = int(TileFlag.PEN | TileFlag.FOLD | TileFlag.BUBBLE)
    assert sum(bool(flag & wrong) for flag in flags.values()) <= 0.02 * len(flags)


def test_artefacts_on_real_tissue_are_found_and_good_tiles_are_kept(data_dir: Path, tmp_path: Path) -> None:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    lost: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    wrong = int(TileFlag.PEN | TileFlag.OUT_OF_FOCUS | TileFlag.FOLD | TileFlag.BUBBLE)
    for number, name in enumerate(SPECIMENS):
        one = specimen(data_dir, name)
        clean = written(tmp_path / "clean.tif", one.picture)
        lost[f"{name}, as it is"] = [sum(bool(flag & wrong) for flag in clean.values()), len(clean)]
        for kind, lay in ARTEFACTS.items():
            flag = FLAG_OF.get(kind, TileFlag.PEN)
            for turn in range(ARTEFACTS_OF_EACH_KIND):
                picture, where, trace = lay(one, np.random.default_rng([ARTEFACT_SEED, number, turn, len(kind)]))
                seen = written(tmp_path / "bad.tif", picture)
                share, touched = covered(where), covered(trace)
                bad = [place for place in clean if share[place] >= BAD_SHARE]
                # A tile that is no tissue any more is dropped, which finds it too.
                found[kind][0] += sum(place not in seen or bool(seen[place] & flag) for place in bad)
                found[kind][1] += len(bad)
                good = [place for place in clean if touched[place] == 0]
                lost[kind][0] += sum(place not in seen or bool(seen[place] & wrong) for place in good)
                lost[kind][1] += len(good)
    for kind, (hits, total) in found.items():
        print(f"{kind:<14} found {hits}/{total} = {hits / total:.3f}, good tiles lost {lost[kind][0]}/{lost[kind][1]}")
    for name, (hits, total) in lost.items():
        if name not in found:
            print(f"{name}: {hits}/{total} tiles flagged")
    for name in SPECIMENS:
        assert lost[f"{name}, as it is"][0] <= 0.02 * lost[f"{name}, as it is"][1], f"{name}: good tiles flagged"
    for kind, (hits, total) in found.items():
        assert total >= 50, f"{kind}: too few tiles to judge by"
        assert hits >= 0.9 * total, f"{kind}: {hits} of {total} found"
    assert sum(hits for hits, _ in lost.values()) <= 0.02 * sum(total for _, total in lost.values())
