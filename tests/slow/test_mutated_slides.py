"""Thousands of broken copies of real and drawn slides: no hang, no crash, every failure with a code."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pebble import ProcessPool

from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import SlideError
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.pipeline.slide_facts import slide_facts
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings
from tests.counts import MUTATED_SLIDES

pytestmark = pytest.mark.slow

DECKS = 10
"""Parts of the whole number, one test each."""
AT_ONCE = 250
SECONDS_EACH = 60
KNOWN = {"NOT_BRIGHTFIELD",
    "", "NOT_FOUND", "NO_PERMISSION", "UNREADABLE", "EMPTY", "TEXT", "NOT_AN_IMAGE", "RENAMED_IMAGE", "UNSUPPORTED",
    "TRUNCATED", "MISSING_FILES", "TOO_LARGE", "DAMAGED", "NO_MPP", "BAD_MPP", "NO_TISSUE", "WORKER_LOST", "OUT_OF_MEMORY",
}  # fmt: skip


def truncated(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(0, len(data))) :]


def with_flipped_bits(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, len(data), int(10 ** rng.uniform(0, 3))).tolist():
        data[at] ^= 1 << int(rng.integers(0, 8))


def with_a_spoiled_directory(data: bytearray, rng: np.random.Generator) -> None:
    """Change bytes near the first kilobytes or the end, where directories and headers lie."""
    span = min(len(data), 4096)
    start = 0 if rng.random() < 0.5 else len(data) - span
    for at in rng.integers(start, start + span, int(rng.integers(1, 30))).tolist():
        data[at] = int(rng.choice([0, 1, 0x7F, 0xFF, int(rng.integers(0, 256))]))


def with_a_zeroed_stretch(data: bytearray, rng: np.random.Generator) -> None:
    start, stop = sorted(rng.integers(0, len(data), 2).tolist())
    data[start:stop] = bytes(stop - start)


def with_a_stretch_moved(data: bytearray, rng: np.random.Generator) -> None:
    start, target = rng.integers(0, len(data), 2).tolist()
    piece = data[start : start + int(10 ** rng.uniform(0, 5))]
    data[target : target + len(piece)] = piece


MUTATIONS = (truncated, with_flipped_bits, with_a_spoiled_directory, with_a_zeroed_stretch, with_a_stretch_moved)


@pytest.fixture(scope="module")
def sources(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    drawn = tmp_path_factory.mktemp("drawn") / "drawn.tif"
    picture = np.random.default_rng(0).integers(120, 230, (700, 900, 3), dtype=np.uint8)
    write_pyramid(drawn, picture, mpp=0.5, downsamples=(4,))
    return [*sorted(path for path in (data_dir / "slides").iterdir() if path.is_file()), drawn]


def mutated(sources: list[Path], folder: Path, seeds: range) -> Iterator[SlideEntry]:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        source = sources[seed % len(sources)]
        data = bytearray(source.read_bytes())
        MUTATIONS[int(rng.integers(0, len(MUTATIONS)))](data, rng)
        path = folder / f"m{seed}{''.join(source.suffixes[-2:])}"
        path.write_bytes(data)
        yield SlideEntry(f"m{seed}", path, f"P{seed}", 0.5, seed + 2)


def code_of(path: Path) -> str:
    try:
        facts = slide_facts(path, mpp=0.5)
    except SlideError as error:
        return error.code if str(error).startswith(path.name) else f"does not name the slide: {error}"
    assert dict(facts)["size"]
    return ""


@pytest.mark.parametrize("deck", range(DECKS))
def test_no_mutated_slide_hangs_crashes_or_fails_without_a_code(deck: int, sources: list[Path], tmp_path: Path) -> None:
    recipe = Recipe(
        ClassicalTissueSettings(), TilingSettings(max_tiles=4), Lite0Settings(),
        ExtractSettings(workers=2, slide_timeout_s=SECONDS_EACH),
    )  # fmt: skip
    shown, extracted = Counter[str](), Counter[str]()
    seeds = range(MUTATED_SLIDES)[deck * MUTATED_SLIDES // DECKS : (deck + 1) * MUTATED_SLIDES // DECKS]
    for first in range(0, len(seeds), AT_ONCE):
        entries = list(mutated(sources, tmp_path, seeds[first : first + AT_ONCE]))
        with ProcessPool(max_workers=2) as pool:
            shown.update(pool.map(code_of, [entry.path for entry in entries], timeout=SECONDS_EACH).result())
        outcomes = extract_archive(entries, recipe, tmp_path / "bags")
        assert [one.slide_id for one in outcomes] == [entry.slide_id for entry in entries]
        assert all(one.message for one in outcomes if one.status == "failed")
        extracted.update(one.code for one in outcomes)
        for entry in entries:
            entry.path.unlink()
    assert sum(shown.values()) == sum(extracted.values()) == len(seeds)
    assert set(shown) <= KNOWN - {"WORKER_LOST"}, shown
    assert set(extracted) <= KNOWN, extracted
    assert extracted["WORKER_LOST"] == 0, "no slide kills or hangs its worker"
    assert min(shown[""], extracted[""]) > len(seeds) / 20, "some survive, or nothing was tried"
