"""The fault matrix: what happens to users of such tools, row by row; the rows are those of docs/faults.md.

Most rows are one archive with every kind of bad slide in it, since that is how they come.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
import torch
from torch import Tensor, nn

from pathoml.bags import Bag, read_bag, write_bag
from pathoml.cohort import CohortSettings, SlideEntry, SlidesSettings, read_cohort
from pathoml.decoding.slide_tiles import SlideTiles, decode_slide
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.encoders.weights_identity import known_weights_digest
from pathoml.errors import BagFormatError, CohortError, InputError, OutputError, SlideError
from pathoml.extract import SlideOutcome, extract_archive, floor
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.manifest import read_manifest
from pathoml.pipeline.run_folder import require_writable
from pathoml.pipeline.verifying import verify_bags
from pathoml.splits import FixedSettings, SplitsSettings, make_folds
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiling import TileFlag, TilingSettings
from pathoml.tissue import ClassicalTissueSettings
from tests.lethal_paths import Deadly, DeadlyOnce, Greedy, GreedyOnce, Hanging, Hungry, HungryOnce, Puzzling

ROOT = Path(__file__).parents[1]
LITE0_DIGEST = known_weights_digest(Lite0Settings())
"""What stands in for the encoder says that it has its weights: bags made with others are made again."""
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


class Quarters(nn.Module):
    """Mean colours of a tile's quarters, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.factor


def toy(module: nn.Module | None = None) -> Encoder:
    return Encoder("toy", module or Quarters(), 12, 0.5, 224, (0.0,) * 3, (1.0,) * 3, LITE0_DIGEST, "", "")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy())


def recipe(**extract: object) -> Recipe:
    settings = ExtractSettings(**{"workers": 0, **extract})
    return Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), settings)


def entry(path: Path, mpp: float | None = None, name: str | None = None) -> SlideEntry:
    return SlideEntry(name or path.stem, path, "P1", mpp, 2)


def outcome(path: Path, folder: Path, **changes: object) -> SlideOutcome:
    return extract_archive([entry(path)], recipe(**changes), folder)[0]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn slide of about thirty tiles."""
    path = tmp_path_factory.mktemp("good") / "good.tif"
    plan = TissuePlan(
        seed=(29, 0), width_um=900.0, height_um=700.0, tissue_area_mm2=0.4, necrosis=0.2, lymphocytes=0.2, tumour=0.5,
        glands=0.3,
    )  # fmt: skip
    draw_slide(path, SlideSpec("good", plan, 0.5, HOSPITALS[3].stain))
    return path


def spoiled(good: Path, folder: Path, change: Callable[[bytearray], None]) -> Path:
    path = folder / "spoiled.tif"
    data = bytearray(good.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    return path


def tags_of_level_0(path: Path, **values: object) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in values.items():
            tiff.pages[0].tags[name].overwrite(value)


def stored_tiles(path: Path) -> list[tuple[int, int]]:
    with tifffile.TiffFile(path) as tiff:
        return list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))


def test_row_01_what_is_no_slide_has_a_code_of_its_own(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "jpeg.svs", np.full((300, 300, 3), 200, np.uint8), mpp=0.5)
    from PIL import Image

    Image.new("RGB", (300, 300), "pink").save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "jpeg.svs")
    (tmp_path / "empty.svs").touch()
    (tmp_path / "page.svs").write_text("<html><body>404</body></html>", encoding="ascii")
    (tmp_path / "folder.svs").mkdir()
    names = ("empty", "page", "jpeg", "folder", "missing")
    found = extract_archive([entry(tmp_path / f"{name}.svs") for name in names], recipe(), tmp_path / "bags")
    codes = {name: one.code for name, one in zip(names, found, strict=True)}
    assert codes["empty"] == "EMPTY"
    assert codes["page"] == "TEXT"
    assert codes["jpeg"] == "RENAMED_IMAGE"
    assert codes["missing"] == "NOT_FOUND"
    assert len(set(codes.values())) == 5, codes


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_row_02_a_real_slide_cut_short_is_truncated(share: float, data_dir: Path, tmp_path: Path) -> None:
    data = (data_dir / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(data[: int(share * len(data))])
    assert outcome(path, tmp_path / "bags").code == "TRUNCATED"


def test_row_03_a_directory_first_tiff_cut_short_is_truncated(good: Path, tmp_path: Path) -> None:
    path = spoiled(good, tmp_path, lambda data: data.__delitem__(slice(len(data) * 2 // 3, None)))
    assert outcome(path, tmp_path / "bags").code == "TRUNCATED"


def test_row_04_a_slide_whose_second_half_is_zero_is_damaged(good: Path, tmp_path: Path) -> None:
    def zero(data: bytearray) -> None:
        first = min(offset for offset, _ in stored_tiles(good)) + 20_000
        data[first : len(data) * 9 // 10] = bytes(len(data) * 9 // 10 - first)

    assert outcome(spoiled(good, tmp_path, zero), tmp_path / "bags").code == "DAMAGED"


def spoil_a_middle_tile(good: Path, folder: Path) -> Path:
    offset, count = sorted(stored_tiles(good), key=lambda one: one[1])[-1]  # the largest: full of tissue
    return spoiled(good, folder, lambda data: data.__setitem__(slice(offset, offset + count), bytes(count)))


def test_row_05_a_damaged_tile_costs_the_tiles_that_touch_it_only(good: Path, tmp_path: Path) -> None:
    whole = outcome(good, tmp_path / "whole")
    some = outcome(spoil_a_middle_tile(good, tmp_path), tmp_path / "bags", max_lost_share=0.5)
    before, after = read_bag(tmp_path / "whole" / "good.h5"), read_bag(tmp_path / "bags" / "spoiled.h5")
    assert whole.status == some.status == "done"
    assert 1 <= after.header.lost_tiles <= 4
    gone = {tuple(place) for place in before.coords.tolist()} - {tuple(place) for place in after.coords.tolist()}
    assert len(gone) == after.header.lost_tiles
    corners = np.array(sorted(gone))
    assert (np.ptp(corners, axis=0) <= 224).all(), "neighbours, around one stored tile of 256 px"
    strict = outcome(tmp_path / "spoiled.tif", tmp_path / "strict", max_lost_share=0.0)
    assert strict.code == "DAMAGED"


def test_row_06_a_flipped_bit_differs_from_the_digest_of_extraction(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    shutil.copy(good, path)
    outcome(path, tmp_path / "bags")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 4096 * 3] ^= 1
    path.write_bytes(bytes(data))
    verdict = next(iter(verify_bags([tmp_path / "bags" / "s.h5"], [entry(path)])))
    assert not verdict.whole


def test_row_07_a_tile_that_was_never_written_is_masked_and_counted(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    shutil.copy(good, path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages[0]
        counts = list(page.databytecounts)
        counts[int(np.argmax(counts))] = 0
        page.tags["TileByteCounts"].overwrite(counts)
    outcome(path, tmp_path / "bags")
    flags = read_bag(tmp_path / "bags" / "s.h5").flags
    assert ((flags & TileFlag.ABSENT_PART) > 0).any()


def test_row_08_what_hangs_over_the_edge_is_background_and_flagged(good: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = np.clip(np.array([200, 130, 180]) + rng.normal(0, 12, (400, 400, 3)), 0, 255).astype(np.uint8)
    write_pyramid(tmp_path / "s.tif", picture, mpp=0.5)
    outcome(tmp_path / "s.tif", tmp_path / "bags")
    bag = read_bag(tmp_path / "bags" / "s.h5")
    over = (bag.flags & TileFlag.OVERHANG) > 0
    assert over.any()
    assert not over.all()
    assert bag.features[over].min() > 0.3, "black would pull the mean of a quarter down"


@pytest.mark.parametrize(
    ("code", "resolution", "said"),
    [("NO_MPP", None, "manifest"), ("NO_MPP", (0, 1), "manifest"), ("BAD_MPP", (283, 10_000), "0.05")],
    ids=["row_09_missing", "row_10_zero", "row_11_absurd"],
)
def test_rows_09_to_11_a_resolution_that_cannot_be_used(
    code: str, resolution: tuple[int, int] | None, said: str, good: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.tif"
    shutil.copy(good, path)
    if resolution is None:
        tags_of_level_0(path, ResolutionUnit=1)
    else:
        tags_of_level_0(path, XResolution=resolution, YResolution=resolution)
    found = outcome(path, tmp_path / "bags")
    assert found.code == code
    assert said in found.message
    given = extract_archive([entry(path, 0.5)], recipe(), tmp_path / "given")[0]
    assert given.status == "done"


def test_row_12_a_decimal_comma_is_not_read_as_a_number(data_dir: Path, tmp_path: Path) -> None:
    data = (data_dir / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    assert data.count(b"MPP = 0.4990") >= 1
    path = tmp_path / "comma.svs"
    path.write_bytes(data.replace(b"MPP = 0.4990", b"MPP = 0,4990"))
    with openslide.OpenSlide(path) as reference:
        said = reference.properties.get("openslide.mpp-x")
    found = outcome(path, tmp_path / "bags")
    if said is None:
        assert found.code == "NO_MPP"
    else:  # OpenSlide knows how to read it; nobody else tries to
        assert read_bag(tmp_path / "bags" / "comma.h5").header.slide_mpp == pytest.approx((float(said), float(said)))


def test_row_13_a_white_slide_has_no_tissue_no_bag_and_is_counted(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "white.tif", np.full((900, 900, 3), 244, np.uint8), mpp=0.5)
    found = outcome(tmp_path / "white.tif", tmp_path / "bags")
    assert found.code == "NO_TISSUE"
    assert not list((tmp_path / "bags").glob("*.h5"))
    assert json.loads((tmp_path / "bags" / "ledger.jsonl").read_text())["code"] == "NO_TISSUE"


def test_row_14_two_slides_of_one_name_are_refused_before_work_starts(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("slide_id,path,patient_id\ns,a/s.svs,P1\ns,b/s.svs,P2\n", encoding="ascii")
    with pytest.raises(CohortError, match="slide s stands already in row 2; ids must be unique"):
        read_manifest(SlidesSettings(manifest=tmp_path / "m.csv", bags=tmp_path / "bags"))


def test_row_15_a_slide_that_changed_after_extraction_is_extracted_again(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    shutil.copy(good, path)
    assert [outcome(path, tmp_path / "bags").status for _ in range(2)] == ["done", "kept"]
    with path.open("ab") as stream:
        stream.write(bytes(16))
    assert outcome(path, tmp_path / "bags").status == "done"


@pytest.fixture(scope="module")
def archive_of_lethal_slides(
    good: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, SlideOutcome], list[dict[str, object]], Path]:
    """Slides that do the worst to their process, and good ones between them; outcomes, ledger and bags."""
    folder = tmp_path_factory.mktemp("lethal")
    once = folder / "once.tif"
    fed = folder / "fed.tif"
    for path in (once, fed):
        shutil.copy(good, path)
    entries = [
        entry(Deadly(good), name="segfault"), entry(good, name="first"), entry(Greedy(good), name="greedy"),
        entry(Hanging(good), name="hang"), entry(DeadlyOnce(once), name="once"), entry(Hungry(good), name="hungry"),
        entry(HungryOnce(fed), name="fed"), entry(good, name="last"),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy())
        found = extract_archive(entries, recipe(workers=2, slide_timeout_s=8, worker_memory_gb=0.7), folder / "bags")
    assert not list((folder / "bags").glob("locks*"))
    lines = (folder / "bags" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return {one.slide_id: one for one in found}, [json.loads(line) for line in lines], folder / "bags"


@pytest.fixture
def by_workers(archive_of_lethal_slides: tuple) -> dict[str, SlideOutcome]:
    return archive_of_lethal_slides[0]


def test_row_16_a_segfault_costs_its_slide_and_the_others_go_on(by_workers: dict[str, SlideOutcome]) -> None:
    assert by_workers["segfault"].code == "WORKER_LOST"
    assert by_workers["first"].status == by_workers["last"].status == "done"


def test_row_17_out_of_memory_is_tried_once_more_smaller_then_given_up(
    archive_of_lethal_slides: tuple, good: Path, tmp_path: Path
) -> None:
    found, ledger, folder = archive_of_lethal_slides
    for name in ("greedy", "hungry"):
        assert (found[name].code, found[name].attempt) == ("OUT_OF_MEMORY", 2)
    assert "more than extract.worker_memory_gb: 0.7" in found["hungry"].message
    assert found["once"].status == "done", "killed the first time, as by the kernel, and done the second"
    assert (found["fed"].status, found["fed"].attempt) == ("done", 2)
    outcome(good, tmp_path)
    for name in ("once", "fed"):  # fewer tiles at a time change no byte of what they say
        again, usual = read_bag(folder / f"{name}.h5"), read_bag(tmp_path / "good.h5")
        np.testing.assert_array_equal(again.features, usual.features)
        np.testing.assert_array_equal(again.coords, usual.coords)
    attempts = [(one["status"], one["code"], one["attempt"]) for one in ledger if one["slide_id"] == "fed"]
    assert attempts == [("failed", "OUT_OF_MEMORY", 1), ("done", "", 2)]
    assert [one["attempt"] for one in ledger if one["slide_id"] == "greedy"] == [1, 2]
    assert [one["attempt"] for one in ledger if one["slide_id"] == "first"] == [1]


@pytest.mark.parametrize("kind", [GreedyOnce, Greedy])
def test_row_17_the_same_without_decoding_processes(
    kind: type[Path], good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.lethal_paths.parent_process", lambda: "here too")
    sizes = []
    decode = floor.decode_here
    monkeypatch.setattr(
        "pathoml.extract.floor.decode_here", lambda *given: (sizes.append(len(given[2].page())), decode(*given))[1]
    )
    path = tmp_path / "s.tif"
    shutil.copy(good, path)
    found = extract_archive([entry(kind(path)), entry(good)], recipe(), tmp_path / "bags")
    first = ("done", "") if kind is GreedyOnce else ("failed", "OUT_OF_MEMORY")
    assert [(one.status, one.code, one.attempt) for one in found] == [(*first, 2), ("done", "", 1)]
    assert sizes == [16, 4, 16]


def test_row_18_a_hang_is_ended_after_its_deadline(by_workers: dict[str, SlideOutcome], tmp_path: Path) -> None:
    assert by_workers["hang"].code == "WORKER_LOST"
    assert "extract.slide_timeout_s" in by_workers["hang"].message
    os.mkfifo(tmp_path / "pipe.svs")
    assert stat.S_ISFIFO((tmp_path / "pipe.svs").stat().st_mode)
    assert outcome(tmp_path / "pipe.svs", tmp_path / "bags").status == "failed"


KILLED_WRITER = """
import sys, signal, os
from pathlib import Path
import pathoml.files as files
from pathoml.bags import read_bag, write_bag
bag = read_bag(Path(sys.argv[1]))
real = os.fsync
def killed(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = killed
write_bag(Path(sys.argv[2]), bag)
"""


def test_row_19_a_writer_killed_before_its_file_is_safe_leaves_none(good: Path, tmp_path: Path) -> None:
    """Two hundred random moments are in tests/slow/test_killed_extraction.py."""
    outcome(good, tmp_path / "bags")
    target = tmp_path / "target.h5"
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path / "bags" / "good.h5"), str(target)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not target.exists()


@pytest.mark.skipif(
    not AS_ROOT, reason="mounting a small disk needs root; the same is mocked in tests/test_bags_hostile.py"
)
def test_row_20_a_full_disk_stops_cleanly_with_sizes(good: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        (disk / "filler").write_bytes(bytes(40_000))
        with pytest.raises(OutputError, match=r"(?i)space|bytes|full"):
            outcome(good, disk / "bags")
        assert not list(disk.rglob("*.tmp"))
        assert not list(disk.rglob("*.h5"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_row_21_a_folder_that_cannot_be_written_is_found_before_work_starts(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    folder.mkdir()
    if AS_ROOT:
        bound = subprocess.run(["mount", "--bind", "-o", "ro", str(folder), str(folder)], check=False).returncode == 0
        if not bound or os.access(folder, os.W_OK):
            if bound:
                subprocess.run(["umount", str(folder)], check=True)
            pytest.skip("this container may not mount read-only, and root ignores modes")
    else:
        folder.chmod(0o500)
    try:
        with pytest.raises(InputError, match="bags cannot be written to"):
            require_writable(folder)
    finally:
        if AS_ROOT:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o700)


def test_row_22_a_bag_that_rots_on_disk_is_extracted_again(good: Path, tmp_path: Path) -> None:
    outcome(good, tmp_path)
    path = tmp_path / "good.h5"
    before = path.read_bytes()
    rotten = bytearray(before)
    rotten[before.index(read_bag(path).features.tobytes()) + 5] ^= 8
    path.write_bytes(bytes(rotten))
    with pytest.raises(BagFormatError, match="checksum"):
        read_bag(path)
    assert outcome(good, tmp_path).status == "done"
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_row_23_features_that_are_not_finite_are_refused_when_written_and_when_made(
    value: float, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(good, tmp_path)
    bag = read_bag(tmp_path / "good.h5")
    wild = bag.features.copy()
    wild[3, 2] = value
    with pytest.raises(BagFormatError, match="NaN or infinity"):
        write_bag(tmp_path / "wild.h5", Bag(**{**vars(bag), "features": wild}))
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy(Quarters(value)))
    assert outcome(good, tmp_path / "again").code == "BAD_FEATURES"


def test_row_24_a_float16_overflow_is_detected_with_its_remedy(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy(Quarters(140_000.0)))
    found = outcome(good, tmp_path)
    assert found.code == "BAD_FEATURES"
    assert "extract.feature_dtype: float32" in found.message
    assert outcome(good, tmp_path, feature_dtype="float32").status == "done"


class Small(Quarters):
    """An encoder on a device with memory for two tiles."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def test_row_27_too_little_device_memory_halves_the_batch_and_is_recorded(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcome(good, tmp_path / "enough")
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy(Small()))
    outcome(good, tmp_path / "small")
    enough, small = (read_bag(tmp_path / name / "good.h5") for name in ("enough", "small"))
    np.testing.assert_allclose(small.features, enough.features, rtol=2e-3, atol=1e-3)
    assert (small.header.batch_tiles, small.header.batch_used) == (8, 2)
    assert "going on with 4" in caplog.text


def test_row_29_two_runs_on_one_folder_share_the_slides(good: Path, tmp_path: Path) -> None:
    """Races between processes and stale locks are in tests/extract/test_locks.py."""
    from pathoml.extract.locks import Locks

    other = Locks(tmp_path)
    assert other.acquire("first")
    entries = [entry(good, name="first"), entry(good, name="second")]
    found = extract_archive(entries, recipe(), tmp_path)
    assert [one.status for one in found] == ["skipped", "done"]
    assert found[0].code == "IN_WORK"
    assert f"process {os.getpid()}" in found[0].message
    other.close()
    assert [one.status for one in extract_archive(entries, recipe(), tmp_path)] == ["done", "kept"]


def test_row_31_a_patient_in_two_folds_is_refused_with_the_rows(tmp_path: Path) -> None:
    """Every other kind of leak is planted in tests/leakage."""
    patients = [f"P{number}" for number in range(40)]
    table = [f"{name},{100 + number},{number % 2}" for number, name in enumerate(patients)]
    (tmp_path / "cohort.csv").write_text("patient_id,time,event\n" + "\n".join(table), encoding="ascii")
    folds = [f"{name},{number // 2 % 2}" for number, name in enumerate(patients)]
    (tmp_path / "folds.csv").write_text("patient_id,fold\n" + "\n".join([*folds, "P3,0"]), encoding="ascii")
    cohort = read_cohort(CohortSettings(table=tmp_path / "cohort.csv", time="time", time_unit="days", event="event"))
    splits = SplitsSettings(schemes=(FixedSettings(table=tmp_path / "folds.csv"),))
    with pytest.raises(
        CohortError, match=r"folds\.csv: rows 5, 42, column patient_id: patient P3 stands in more than one"
    ):
        make_folds(cohort, splits)


SIGNALLED = """
import sys
from pathlib import Path
from tests.test_faults import entry, recipe, toy
import pathoml.extract.archive as archive
import signal
def stop(number, frame):
    raise KeyboardInterrupt
if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs are started deaf to the second
        signal.signal(number, stop)
    archive.built_encoder = lambda *_: toy()
    slides = [entry(Path(sys.argv[1]), name=f"s{number}") for number in range(40)]
    archive.extract_archive(slides, recipe(workers=2), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_row_32_a_signal_leaves_whole_bags_and_no_lock_and_the_rest_is_done_later(
    number: signal.Signals, good: Path, tmp_path: Path
) -> None:
    script = tmp_path / "run.py"
    script.write_text(SIGNALLED, encoding="ascii")
    folder = tmp_path / "bags"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(good), str(folder)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.h5"))) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
    done = sorted(path.stem for path in folder.glob("*.h5"))
    assert 3 <= len(done) < 40
    for path in folder.glob("*.h5"):
        read_bag(path)
    assert not list(folder.glob("locks/*.lock"))
    again = extract_archive([entry(good, name=name) for name in (done[0], "s39")], recipe(), folder)
    assert [one.status for one in again] == ["kept", "done"]


@pytest.mark.parametrize("workers", [0, 2])
def test_row_33_what_nobody_foresaw_costs_its_slide_and_is_said(
    workers: int, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[Path] = [good, Puzzling(good), good]
    if workers == 0:
        honest = decode_slide

        def stumbling(slide: SlideEntry, *rest: Any, **named: Any) -> SlideTiles:
            if slide.slide_id == "s1":
                raise IndexError("list index out of range")
            return honest(slide, *rest, **named)

        paths[1] = good
        monkeypatch.setattr("pathoml.decoding.workers.decode_slide", stumbling)
    entries = [entry(path, name=f"s{number}") for number, path in enumerate(paths)]
    found = extract_archive(entries, recipe(workers=workers), tmp_path)
    assert [one.code or one.status for one in found] == ["done", "INTERNAL", "done"]
    assert re.search(
        r"good\.tif: IndexError: list index out of range \(at \w+\.py:\d+\).*please report it", found[1].message
    )
    assert str(good.parent) not in found[1].message
    again = extract_archive(entries, recipe(workers=workers), tmp_path)
    assert [one.code or one.status for one in again] == ["kept", "INTERNAL", "kept"]


def codes_of(kind: type[SlideError]) -> set[str]:
    return {kind.code}.union(*(codes_of(one) for one in kind.__subclasses__()))


def test_every_row_of_the_documented_matrix_has_a_test_or_names_its_file() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| \d", line)]
    named = {int(number) for name in globals() for number in re.findall(r"(?<=_)\d\d(?=_)", name)}
    documented = set()
    for cells in rows:
        numbers = {int(number) for number in cells[0].split(",")}
        documented |= numbers
        files = re.findall(r"`(tests/\S+\.py)`", cells[2])
        assert all((ROOT / file).is_file() for file in files)
        assert files or numbers <= named | {10}, cells
        assert set(re.findall(r"[A-Z_]{4,}", cells[3])) <= {*codes_of(SlideError), "IN_WORK"}, cells
    assert documented == set(range(1, 34))


def test_slides_of_the_fixture_are_as_the_rows_need_them(good: Path, tmp_path: Path) -> None:
    assert outcome(good, tmp_path).tiles >= 20
