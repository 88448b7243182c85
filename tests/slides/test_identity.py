"""Which file a slide is: replacement is noticed fast, a flipped bit surely."""

import hashlib
import random
import runpy
from pathlib import Path

import numpy as np
import pytest

from pathoml.slides import slide_digest, slide_fingerprint
from pathoml.testing.pyramid import write_pyramid

BIT_FLIPS = runpy.run_path(str(Path(__file__).parents[1] / "counts.py"))["BIT_FLIPS"]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tif"
    noise = np.random.default_rng(1).integers(0, 255, (768, 768, 3), dtype=np.uint8)
    write_pyramid(path, noise, mpp=0.5, downsamples=(4,))
    assert path.stat().st_size > 4 * 65536, "larger than header and tail together, or sampling is not tested"
    return path


def test_digest_is_the_sha256_of_the_file(slide: Path) -> None:
    assert slide_digest(slide) == hashlib.sha256(slide.read_bytes()).hexdigest()


def test_digest_changes_with_any_flipped_bit(slide: Path) -> None:
    content, dice = bytearray(slide.read_bytes()), random.Random(7)
    before = slide_digest(slide)
    for _ in range(BIT_FLIPS):
        position, bit = dice.randrange(len(content)), 1 << dice.randrange(8)
        content[position] ^= bit
        slide.write_bytes(content)
        assert slide_digest(slide) != before, f"bit {bit} of byte {position}"
        content[position] ^= bit


def test_fingerprint_depends_on_content_and_not_on_name_or_time(slide: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    copy.write_bytes(slide.read_bytes())
    assert slide_fingerprint(copy) == slide_fingerprint(slide)


@pytest.mark.parametrize("lost", [1, 1000, 100_000])
def test_fingerprint_changes_when_the_file_is_cut(slide: Path, lost: int) -> None:
    before = slide_fingerprint(slide)
    slide.write_bytes(slide.read_bytes()[:-lost])
    assert slide_fingerprint(slide) != before


def test_fingerprint_changes_when_the_slide_is_replaced_by_one_of_the_same_size(slide: Path) -> None:
    before, size = slide_fingerprint(slide), slide.stat().st_size
    slide.write_bytes(np.random.default_rng(2).bytes(size))
    assert slide_fingerprint(slide) != before


def test_fingerprint_changes_when_the_slide_is_saved_again(slide: Path) -> None:
    before = slide_fingerprint(slide)
    noise = np.random.default_rng(1).integers(0, 255, (768, 768, 3), dtype=np.uint8)
    write_pyramid(slide, noise, mpp=0.5000001, downsamples=(4,))
    assert slide_fingerprint(slide) != before


@pytest.mark.parametrize("where", ["start", "end"])
def test_fingerprint_sees_every_byte_of_header_and_tail(slide: Path, where: str) -> None:
    content, before = bytearray(slide.read_bytes()), slide_fingerprint(slide)
    for distance in (0, 1, 30_000, 65_535):
        position = distance if where == "start" else len(content) - 1 - distance
        content[position] ^= 1
        slide.write_bytes(content)
        assert slide_fingerprint(slide) != before, position
        content[position] ^= 1


def test_a_multi_file_slide_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"index")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixels")
    fingerprint, digest = slide_fingerprint(tmp_path / "a.mrxs"), slide_digest(tmp_path / "a.mrxs")
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixelz")
    assert slide_fingerprint(tmp_path / "a.mrxs") != fingerprint
    assert slide_digest(tmp_path / "a.mrxs") != digest


def test_a_folder_beside_a_single_file_slide_does_not_count(slide: Path) -> None:
    before = slide_fingerprint(slide), slide_digest(slide)
    slide.with_suffix("").mkdir()
    (slide.with_suffix("") / "notes.txt").write_text("x", encoding="ascii")
    assert (slide_fingerprint(slide), slide_digest(slide)) == before
