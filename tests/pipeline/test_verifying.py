"""FAULTS row 6: pixels that changed without an error are noticed, by digest; replaced files by fingerprint."""

from pathlib import Path

import numpy as np
import pytest

from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import InputError
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.pipeline.verifying import BagVerdict, verify_bags
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

RECIPE = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(workers=0))


@pytest.fixture
def extracted(tmp_path: Path) -> tuple[SlideEntry, Path]:
    """A slide of more bytes than its fingerprint samples, and its bag."""
    noise = np.random.default_rng(0).normal(0, 40, (1400, 1400, 3))
    path = tmp_path / "s.tif"
    write_pyramid(path, np.clip(np.array([200, 120, 170]) + noise, 0, 255).astype(np.uint8), mpp=0.5)
    entry = SlideEntry("s", path, "P1", None, 2)
    assert [one.status for one in extract_archive([entry], RECIPE, tmp_path / "bags")] == ["done"]
    return entry, tmp_path / "bags" / "s.h5"


def verdict(bag: Path, entry: SlideEntry) -> BagVerdict:
    return next(iter(verify_bags([bag], [entry])))


def test_a_bag_of_an_untouched_slide_is_whole(extracted: tuple[SlideEntry, Path]) -> None:
    entry, bag = extracted
    assert verdict(bag, entry).whole
    assert "of this very slide" in verdict(bag, entry).said
    assert next(iter(verify_bags([bag]))).whole


def test_a_flipped_bit_between_the_samples_of_the_fingerprint_is_found_by_the_digest(
    extracted: tuple[SlideEntry, Path],
) -> None:
    entry, bag = extracted
    size = entry.path.stat().st_size
    assert size > 64 * 2 * 4096 + 2 * (1 << 16)
    with entry.path.open("r+b") as file:
        place = size * 32 // 64 + 4096 + 10
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    found = verdict(bag, entry)
    assert not found.whole
    assert "bytes of s.tif changed after extraction" in found.said
    assert next(iter(verify_bags([bag]))).whole  # the bag itself is


def test_a_slide_saved_again_is_found_by_the_fingerprint(extracted: tuple[SlideEntry, Path]) -> None:
    entry, bag = extracted
    write_pyramid(entry.path, np.full((1400, 1400, 3), (200, 120, 170), np.uint8), mpp=0.5)
    assert "replaced or saved again" in verdict(bag, entry).said


def test_a_slide_that_is_away_and_one_that_is_unknown(extracted: tuple[SlideEntry, Path]) -> None:
    entry, bag = extracted
    entry.path.unlink()
    assert "not where the manifest says" in verdict(bag, entry).said
    with pytest.raises(InputError, match="its slide s is not in the manifest"):
        list(verify_bags([bag], []))
