"""Archive -> bags: the same whoever works, only what is needed, and one bad slide costs one slide."""

import dataclasses
import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.decoding.workers import Decoding, DecodingPool
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.encoders.weights_identity import known_weights_digest
from pathoml.extract import SlideOutcome, extract_archive
from pathoml.extract.locks import STALE_S, Locks
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.slides import slide_digest, slide_fingerprint
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

LITE0_DIGEST = known_weights_digest(Lite0Settings())
"""What stands in for the encoder says that it has its weights: bags made with others are made again."""
PLAN = TissuePlan(
    seed=(7, 0), width_um=560.0, height_um=448.0, tissue_area_mm2=0.12, necrosis=0.2, lymphocytes=0.2,
    tumour=0.5, glands=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for name, index, mpp in (("a", 0, 0.5), ("b", 1, 0.25)):
        plan = dataclasses.replace(PLAN, seed=(7, index))
        draw_slide(folder / f"{name}.tif", SlideSpec(name, plan, mpp, HOSPITALS[3].stain))
    (folder / "text.tif").write_text("not a slide", encoding="ascii")
    write_pyramid(folder / "white.tif", np.full((900, 900, 3), 244, dtype=np.uint8), mpp=0.5)
    shutil.copy(folder / "a.tif", folder / "no_mpp.tif")
    with tifffile.TiffFile(folder / "no_mpp.tif", mode="r+") as tiff:
        tiff.pages[0].tags["ResolutionUnit"].overwrite(1)
    return folder


def entry(path: Path, mpp: float | None = None) -> SlideEntry:
    return SlideEntry(path.stem, path, "P1", mpp, 2)


def recipe(*, tiling: TilingSettings | None = None, **extract: object) -> Recipe:
    settings = ExtractSettings(**{"workers": 0, **extract})
    return Recipe(ClassicalTissueSettings(), tiling or TilingSettings(), Lite0Settings(), settings)


def statuses(outcomes: list[SlideOutcome]) -> list[str]:
    return [one.code or one.status for one in outcomes]


def toy(module: nn.Module | None = None) -> Encoder:
    """Mean colours of a tile's quarters."""
    module = module or nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Encoder("toy", module, 12, 0.5, 224, zero, one, LITE0_DIGEST, "", "")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy())


@pytest.fixture(scope="module")
def archive(
    slides: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[SlideEntry], list[SlideOutcome], Path]:
    entries = [entry(slides / f"{name}.tif") for name in ("text", "a", "no_mpp", "white", "b", "gone")]
    folder = tmp_path_factory.mktemp("bags")
    return entries, extract_archive(entries, recipe(), folder), folder


def test_bad_slides_get_their_code_and_the_others_go_on(archive: tuple) -> None:
    entries, outcomes, folder = archive
    assert statuses(outcomes) == ["TEXT", "done", "NO_MPP", "NO_TISSUE", "done", "NOT_FOUND"]
    assert [one.slide_id for one in outcomes] == [one.slide_id for one in entries]
    assert {path.name for path in folder.iterdir()} == {
        "a.h5",
        "b.h5",
        "ledger.jsonl",
        "metrics.jsonl",
        "contact_sheets",
    }


def test_a_share_that_fails_under_a_slide_costs_that_slide_alone(
    slides: Path, tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_share(path: Path) -> str:
        if path.name == "a.tif":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return slide_digest(path)

    monkeypatch.setattr("pathoml.decoding.slide_tiles.slide_digest", failing_share)
    outcomes = extract_archive([entry(slides / "a.tif"), entry(slides / "b.tif")], recipe(), tmp_path)
    assert statuses(outcomes) == ["UNREADABLE", "done"]
    assert outcomes[0].message.startswith("a.tif: cannot be read (")


def test_the_ledger_holds_one_line_a_slide_as_the_outcome_says(archive: tuple) -> None:
    _, outcomes, folder = archive
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    written = {"at", "host", "process", "settings_digest"}
    assert [{key: value for key, value in line.items() if key not in written} for line in lines] == [
        dataclasses.asdict(one) for one in outcomes
    ]
    assert {line["settings_digest"] for line in lines} == {recipe().digest}
    assert {line["process"] for line in lines} == {os.getpid()}
    assert all(datetime.fromisoformat(line["at"]).utcoffset() == timedelta(0) for line in lines)
    assert all(line["message"] for line in lines if line["status"] == "failed")


def test_the_same_tissue_at_two_resolutions_fills_both_bags(archive: tuple, slides: Path) -> None:
    _, outcomes, folder = archive
    for name in ("a", "b"):
        bag = read_bag(folder / f"{name}.h5")
        assert bag.header.slide_fingerprint == slide_fingerprint(slides / f"{name}.tif")
        assert bag.header.slide_digest == slide_digest(slides / f"{name}.tif")
        assert len(bag.features) == next(one.tiles for one in outcomes if one.slide_id == name) >= 6
        assert bag.features.dtype == np.float16
        assert np.ptp(bag.features.astype(float), axis=0).max() > 0.1, "tiles differ"


@pytest.fixture(scope="module")
def by_workers(archive: tuple, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SlideOutcome], Path]:
    """The same archive by two processes. Slides that end or hold up their process: tests/test_faults.py, rows 16 to 18."""
    folder = tmp_path_factory.mktemp("workers")
    return extract_archive(archive[0], recipe(workers=2), folder / "bags"), folder / "bags"


def test_worker_processes_say_the_same_of_bad_slides(archive: tuple, by_workers: tuple) -> None:
    assert [one.message for one in by_workers[0]] == [one.message for one in archive[1]]


@pytest.mark.skipif(torch.get_num_threads() == 1, reason="with one thread there is nothing to differ")
def test_worker_processes_give_the_same_bytes(archive: tuple, by_workers: tuple) -> None:
    for name in ("a.h5", "b.h5"):
        assert (by_workers[1] / name).read_bytes() == (archive[2] / name).read_bytes()


def test_worker_processes_give_the_same_features_up_to_rounding(archive: tuple, by_workers: tuple) -> None:
    for name in ("a.h5", "b.h5"):
        here, there = read_bag(archive[2] / name), read_bag(by_workers[1] / name)
        assert here.header == there.header
        np.testing.assert_array_equal(here.coords, there.coords)
        np.testing.assert_allclose(here.features.astype(float), there.features.astype(float), rtol=2e-3, atol=2e-3)


def test_a_second_call_keeps_valid_bags_untouched(slides: Path, tmp_path: Path, fast: None) -> None:
    entries = [entry(slides / "a.tif"), entry(slides / "b.tif")]
    first = extract_archive(entries, recipe(), tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    second = extract_archive(entries, recipe(workers=2, slide_timeout_s=5), tmp_path)
    assert statuses(second) == ["kept", "kept"]
    assert [one.tiles for one in second] == [one.tiles for one in first]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")} == before


def rot(slide: Path, bag: Path) -> None:
    content = bytearray(bag.read_bytes())
    features = read_bag(bag).features.tobytes()
    content[bytes(content).index(features) + 3] ^= 1
    bag.write_bytes(content)


def cut(slide: Path, bag: Path) -> None:
    bag.write_bytes(bag.read_bytes()[:-100])


def replace_slide(slide: Path, bag: Path) -> None:
    draw_slide(slide, SlideSpec("s", dataclasses.replace(PLAN, seed=(8, 8)), 0.5, HOSPITALS[1].stain))


def save_again(slide: Path, bag: Path) -> None:
    with slide.open("ab") as stream:
        stream.write(bytes(16))


@pytest.mark.parametrize("spoil", [rot, cut, replace_slide, save_again], ids=lambda one: one.__name__)
def test_a_rotten_bag_or_a_changed_slide_is_extracted_again(
    slides: Path, tmp_path: Path, fast: None, spoil: Callable[[Path, Path], None]
) -> None:
    slide, other, bag = tmp_path / "s.tif", tmp_path / "other.tif", tmp_path / "bags" / "s.h5"
    shutil.copy(slides / "a.tif", slide)
    shutil.copy(slides / "b.tif", other)
    extract_archive([entry(slide), entry(other)], recipe(), tmp_path / "bags")
    before = bag.read_bytes()
    spoil(slide, bag)
    assert statuses(extract_archive([entry(slide), entry(other)], recipe(), tmp_path / "bags")) == ["done", "kept"]
    assert (bag.read_bytes() == before) == (spoil in {rot, cut})
    assert read_bag(bag).header.slide_fingerprint == slide_fingerprint(slide)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (recipe(tiling=TilingSettings(min_tissue_share=0.4)), "done"),
        (recipe(feature_dtype="float32"), "done"),
        (recipe(slide_timeout_s=60), "kept"),
    ],
    ids=["tiling", "dtype", "how work is done"],
)
def test_only_settings_that_decide_the_result_cause_work(
    slides: Path, tmp_path: Path, fast: None, changed: Recipe, status: str
) -> None:
    extract_archive([entry(slides / "a.tif")], recipe(), tmp_path)
    assert statuses(extract_archive([entry(slides / "a.tif")], changed, tmp_path)) == [status]


def test_bags_of_other_weights_are_made_again(
    slides: Path, tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [entry(slides / "a.tif"), entry(slides / "b.tif")]
    extract_archive(entries, recipe(), tmp_path)
    other = dataclasses.replace(toy(), weights_digest="f" * 64)
    monkeypatch.setattr("pathoml.extract.kept.known_weights_digest", lambda _: "f" * 64)
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: other)
    with caplog.at_level("INFO"):
        assert statuses(extract_archive(entries, recipe(), tmp_path)) == ["done", "done"]
    assert "extracting slide a again: the encoder's weights changed" in caplog.text
    assert read_bag(tmp_path / "a.h5").header.weights_digest == "f" * 64
    assert statuses(extract_archive(entries, recipe(), tmp_path)) == ["kept", "kept"]


def test_weights_that_only_building_tells_are_compared_once_the_encoder_is_built(
    slides: Path, tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = entry(slides / "a.tif"), entry(slides / "b.tif")
    extract_archive([first], recipe(), tmp_path)
    other = dataclasses.replace(toy(), weights_digest="f" * 64)
    monkeypatch.setattr("pathoml.extract.kept.known_weights_digest", lambda _: None)
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: other)
    assert statuses(extract_archive([first], recipe(), tmp_path)) == ["kept"], "nothing to do, nothing built"
    assert statuses(extract_archive([first, second], recipe(), tmp_path)) == ["done", "done"]


def test_a_new_mpp_in_the_manifest_causes_work(slides: Path, tmp_path: Path, fast: None) -> None:
    given = [statuses(extract_archive([entry(slides / "a.tif", mpp)], recipe(), tmp_path)) for mpp in (None, 0.4, 0.4)]
    assert given == [["done"], ["done"], ["kept"]]


def test_an_mpp_taken_out_of_the_manifest_causes_work(slides: Path, tmp_path: Path, fast: None) -> None:
    extract_archive([entry(slides / "a.tif", 0.4)], recipe(), tmp_path)
    assert statuses(extract_archive([entry(slides / "a.tif")], recipe(), tmp_path)) == ["done"]


def test_every_slide_that_opens_has_a_contact_sheet_tissue_or_not(archive: tuple) -> None:
    _, _, folder = archive
    assert {path.name for path in (folder / "contact_sheets").iterdir()} == {"a.png", "b.png", "white.png"}


def test_the_bag_counts_what_was_rejected_and_why(slides: Path, tmp_path: Path, fast: None) -> None:
    extract_archive([entry(slides / "a.tif")], recipe(tiling=TilingSettings(max_tiles=3)), tmp_path)
    every = extract_archive([entry(slides / "a.tif")], recipe(), tmp_path / "all")
    header = read_bag(tmp_path / "a.h5").header
    assert header.rejected["not_drawn"] == every[0].tiles - 3 > 0
    assert header.rejected["little_tissue"] == read_bag(tmp_path / "all/a.h5").header.rejected["little_tissue"] > 0


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_slide_whose_owner_dies_meanwhile_is_taken_up(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (tmp_path / "locks").mkdir()
    lock = tmp_path / "locks" / "a.lock"
    lock.write_text(json.dumps({"host": "elsewhere", "machine": "0" * 16, "number": 1, "started": 1}), encoding="ascii")
    release = Locks.release

    def dies(self: Locks, slide_id: str) -> None:
        release(self, slide_id)
        if slide_id == "b" and lock.exists():  # by then its owner has not been heard of for long
            os.utime(lock, (time.time() - 2 * STALE_S,) * 2)

    monkeypatch.setattr(Locks, "release", dies)
    outcomes = extract_archive([entry(slides / f"{name}.tif") for name in "ab"], recipe(workers=workers), tmp_path)
    assert statuses(outcomes) == ["done", "done"]


def test_time_in_which_nobody_looked_is_not_held_against_a_slide() -> None:
    class Ring:
        def is_waiting(self, lane: int) -> bool:
            return False

        def writer(self, lane: int) -> int:
            return os.getpid()  # a process has begun with it

    pool = DecodingPool.__new__(DecodingPool)
    pool._ring, pool._recipe = Ring(), recipe(slide_timeout_s=10)
    one = Decoding(entry(Path("a.tif")), 0, Future(), looked_at=time.monotonic() - 100)
    pool.supervise(one, not_looking_s=95)
    assert not one.future.cancelled()
    assert 4 < one.busy_s < 10
    one.looked_at -= 6
    pool.supervise(one)
    assert one.future.cancelled()
