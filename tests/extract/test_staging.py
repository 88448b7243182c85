"""Staging: what is read from a copy is what lies at the source; copies stay within their quota and go away."""

import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from pathoml.cohort import SlideEntry, SlidesSettings
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import InputError, OutputError, SlideError, SlideNotFoundError, UnreadableSlideError
from pathoml.extract import SlideOutcome, extract_archive
from pathoml.extract import staging as staging_module
from pathoml.extract.staging import Staging, source_fingerprint
from pathoml.extract_settings import ExtractSettings, Recipe, StagingSettings
from pathoml.manifest import read_manifest
from pathoml.pipeline.checking import check
from pathoml.processes import this_process
from pathoml.slides import slide_digest, slide_fingerprint
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings
from tests.ended import dead_process
from tests.slides.several_files import slide_of_several_files
from tests.test_extract import toy

PLAN = TissuePlan(
    seed=(8, 0), width_um=560.0, height_um=448.0, tissue_area_mm2=0.1, necrosis=0.2, lymphocytes=0.2, tumour=0.5,
    glands=0.3,
)  # fmt: skip
BYTES = 1000


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[SlideEntry]:
    folder = tmp_path_factory.mktemp("share")
    for number in range(3):
        plan = replace(PLAN, seed=(8, number))
        draw_slide(folder / f"s{number}.tif", SlideSpec(f"s{number}", plan, 0.5, HOSPITALS[number].stain))
    (folder / "text.tif").write_text("not a slide", encoding="ascii")
    return [SlideEntry(path.stem, path, "P1", None, 2) for path in sorted(folder.glob("*.tif"))]


@pytest.fixture
def store(slides: list[SlideEntry]) -> Iterator[list[SlideEntry]]:
    """The same slides in an object store; here one in memory."""
    system = fsspec.filesystem("memory")
    for entry in slides:
        system.pipe(f"/bucket/{entry.path.name}", entry.path.read_bytes())
    yield [replace(one, url=f"memory://bucket/{one.path.name}", path=Path(one.path.name)) for one in slides]
    system.rm("/bucket", recursive=True)


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy())


def recipe(staging: StagingSettings | None, **extract: object) -> Recipe:
    settings = ExtractSettings(**{"workers": 0, "staging": staging, **extract})
    return Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), settings)


def codes(outcomes: list[SlideOutcome]) -> list[str]:
    return [one.code or one.status for one in outcomes]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def blank(folder: Path, name: str = "a.tif", size: int = BYTES) -> SlideEntry:
    path = folder / name
    path.write_bytes(bytes(np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)))
    return SlideEntry(path.stem, path, "P1", None, 2)


@pytest.mark.usefixtures("_toy")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_staged_slides_give_the_same_bags_as_slides_in_place(
    slides: list[SlideEntry], store: list[SlideEntry], tmp_path: Path, workers: int
) -> None:
    staging = StagingSettings(folder=tmp_path / "near")
    expected = ["done", "done", "done", "TEXT"]
    assert codes(extract_archive(slides, recipe(None, workers=workers), tmp_path / "in_place")) == expected
    assert codes(extract_archive(slides, recipe(staging, workers=workers), tmp_path / "copied")) == expected
    assert codes(extract_archive(store, recipe(staging, workers=workers), tmp_path / "fetched")) == expected
    for entry in slides[:3]:
        bag = (tmp_path / "in_place" / f"{entry.slide_id}.h5").read_bytes()
        assert (tmp_path / "copied" / f"{entry.slide_id}.h5").read_bytes() == bag
        assert (tmp_path / "fetched" / f"{entry.slide_id}.h5").read_bytes() == bag
    assert not files(tmp_path / "near")
    again = extract_archive(store, recipe(staging, workers=workers), tmp_path / "fetched")
    assert codes(again) == ["kept", "kept", "kept", "TEXT"]


@pytest.mark.usefixtures("_toy")
def test_in_one_process_the_next_slides_are_copied_meanwhile_and_a_tight_quota_blocks_nothing(
    slides: list[SlideEntry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(entry.path.stat().st_size for entry in slides)
    staging = StagingSettings(folder=tmp_path / "near", quota_gb=1.2 * largest / 1e9, copies_at_once=3)
    reserve, first = Staging._reserve, threading.Event()

    def second_comes_first(self: Staging, entry: SlideEntry, size: int) -> None:
        if entry.slide_id == "s0":
            assert first.wait(timeout=60)
        reserve(self, entry, size)
        first.set()

    monkeypatch.setattr(Staging, "_reserve", second_comes_first)
    found = extract_archive(slides[:3], recipe(staging), tmp_path / "bags")
    assert codes(found) == ["done", "done", "done"]
    assert not files(tmp_path / "near")


@pytest.mark.usefixtures("_toy")
def test_a_slide_replaced_in_its_store_is_extracted_again(
    slides: list[SlideEntry], store: list[SlideEntry], tmp_path: Path
) -> None:
    wanted = recipe(StagingSettings(folder=tmp_path / "near"))
    extract_archive(store[:2], wanted, tmp_path / "bags")
    fsspec.filesystem("memory").pipe("/bucket/s1.tif", slides[2].path.read_bytes())
    assert codes(extract_archive(store[:2], wanted, tmp_path / "bags")) == ["kept", "done"]


@pytest.mark.usefixtures("_toy")
def test_a_slide_that_is_not_in_its_store_is_said_to_be_missing(store: list[SlideEntry], tmp_path: Path) -> None:
    gone = replace(store[0], url="memory://bucket/gone.tif")
    outcomes = extract_archive([gone], recipe(StagingSettings(folder=tmp_path / "near")), tmp_path / "bags")
    assert codes(outcomes) == ["NOT_FOUND"]
    assert "memory://bucket/gone.tif" in outcomes[0].message


def test_a_store_without_staging_is_refused_before_anything_is_made(store: list[SlideEntry], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"extract\.staging\.folder"):
        extract_archive(store, recipe(None), tmp_path / "bags")
    assert not (tmp_path / "bags").exists()


def test_a_kind_of_store_that_is_not_installed_says_what_is_lacking(tmp_path: Path) -> None:
    entry = SlideEntry("a", Path("a.tif"), "P1", None, 2, "nosuchstore://bucket/a.tif")
    with (
        Staging(StagingSettings(folder=tmp_path)) as staging,
        pytest.raises(UnreadableSlideError, match="nosuchstore"),
    ):
        staging.fetch(entry).result()


def test_copies_wait_until_there_is_room(tmp_path: Path) -> None:
    entries = [blank(tmp_path, f"{name}.tif") for name in "abc"]
    settings = StagingSettings(folder=tmp_path / "near", quota_gb=2.5 * BYTES / 1e9, copies_at_once=3)
    with Staging(settings) as staging:
        futures = [staging.fetch(entry) for entry in entries]
        deadline = time.monotonic() + 60
        while sum(one.done() for one in futures) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(path.stat().st_size for path in files(tmp_path / "near")) <= 2.5 * BYTES
        waiting = next(one for one in futures if not one.done())
        first = next(entry for entry, one in zip(entries, futures, strict=True) if one.done())
        staging.release(first)
        assert waiting.result(timeout=60).path.is_file()
    assert not files(tmp_path / "near")


def test_leaving_ends_copies_that_wait(tmp_path: Path) -> None:
    entries = [blank(tmp_path, f"{name}.tif") for name in "ab"]
    settings = StagingSettings(folder=tmp_path / "near", quota_gb=1.5 * BYTES / 1e9)
    staging = Staging(settings)
    futures = [staging.fetch(entry) for entry in entries]
    leaving = threading.Thread(target=staging.__exit__, args=(None, None, None))
    leaving.start()
    leaving.join(timeout=60)
    assert not leaving.is_alive()
    assert all(one.done() for one in futures)
    assert not files(tmp_path / "near")


def test_leaving_begins_no_copy(tmp_path: Path) -> None:
    entries = [blank(tmp_path, f"{name}.tif") for name in "abc"]
    staging = Staging(StagingSettings(folder=tmp_path / "near", quota_gb=1.5 * BYTES / 1e9, copies_at_once=3))
    futures = [staging.fetch(entry) for entry in entries]
    deadline = time.monotonic() + 60
    while not any(one.done() for one in futures) and time.monotonic() < deadline:
        time.sleep(0.01)
    staging.__exit__(None, None, None)
    outcomes = [one.exception() is None for one in futures if not one.cancelled()]
    assert outcomes.count(True) == 1


def test_a_full_disk_stops_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = blank(tmp_path)
    opened = Path.open

    def full(self: Path, mode: str = "r", **options: object) -> object:
        if mode == "wb":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, **options)

    with Staging(StagingSettings(folder=tmp_path / "near")) as staging:
        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(OutputError, match="quota_gb"):
            staging.fetch(entry).result()


def test_signatures_of_urls_are_neither_names_nor_shown(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    secret = "X-Signature=" + "s" * 300
    table.write_text(f"slide_id,path,patient_id\na,memory://bucket/gone.svs?{secret},P1\n", encoding="utf-8")
    (entry,) = read_manifest(SlidesSettings(manifest=table))
    assert entry.path.name == "gone.svs"
    with Staging(StagingSettings(folder=tmp_path / "near")) as staging, pytest.raises(SlideError) as raised:
        staging.fetch(entry).result()
    assert "Signature" not in str(raised.value)


def test_a_slide_larger_than_the_quota_is_read_where_it_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = blank(tmp_path)
    with Staging(StagingSettings(folder=tmp_path / "near", quota_gb=BYTES / 2e9)) as staging:
        assert staging.fetch(entry).result() == entry
        assert "quota" in caplog.text
        staging.release(entry)
        assert entry.path.is_file()
        far = replace(entry, url=entry.path.as_uri())
        with pytest.raises(UnreadableSlideError, match="raise the quota"):
            staging.fetch(far).result()


def test_a_copy_that_differs_from_its_source_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = blank(tmp_path)

    monkeypatch.setattr(staging_module._Remote, "blocks", lambda self, one: [entry.path.read_bytes()[:-1]])
    with Staging(StagingSettings(folder=tmp_path / "near")) as staging:
        with pytest.raises(UnreadableSlideError, match="differs"):
            staging.fetch(entry).result()
        assert not files(tmp_path / "near")


class StoreError(Exception):
    """What a store's package may raise: no OSError."""


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StoreError("Input/output error")])
def test_a_copy_that_fails_leaves_room_and_names_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    entries = [blank(tmp_path, f"{name}.tif") for name in "ab"]
    opened = LocalFileSystem.open

    def failing(self: LocalFileSystem, path: str, *rest: object, **options: object) -> object:
        if Path(path).name == "a.tif":
            raise error
        return opened(self, path, *rest, **options)

    monkeypatch.setattr(LocalFileSystem, "open", failing)
    with Staging(StagingSettings(folder=tmp_path / "near", quota_gb=BYTES / 1e9, copies_at_once=1)) as staging:
        futures = [staging.fetch(entry) for entry in entries]
        with pytest.raises(SlideError, match=r"a\.tif.*Input/output"):
            futures[0].result()
        assert futures[1].result(timeout=60).path.read_bytes() == entries[1].path.read_bytes()


@pytest.mark.parametrize("name", ["a.mrxs", "a.dcm", "a.vms"])
def test_what_belongs_to_a_slide_is_copied_with_it(tmp_path: Path, name: str) -> None:
    share = tmp_path / "share"
    share.mkdir()
    path, beside = slide_of_several_files(share, name)
    (share / "c.txt").write_bytes(b"does not")
    entry = SlideEntry("a", path, "P1", None, 2)
    far = fsspec.filesystem("memory")
    far.put(str(share), "/far", recursive=True)
    with Staging(StagingSettings(folder=tmp_path / "near")) as staging:
        for source in (entry, replace(entry, url=path.as_uri()), replace(entry, url=f"memory://far/{name}")):
            assert source_fingerprint(source) == slide_fingerprint(path)
            near = staging.fetch(source).result()
            assert slide_fingerprint(near.path) == slide_fingerprint(path)
            assert slide_digest(near.path) == slide_digest(path)
            assert {one.name for one in files(near.path.parent)} == {name, beside.name}
            assert (near.path.parent / beside.relative_to(share)).read_bytes() == beside.read_bytes()
            staging.release(source)
    far.rm("/far", recursive=True)


def test_copies_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    here = this_process()
    owners = {
        "dead": dead_process(),
        "recycled number": replace(here, started=here.started - 1),
        "alive": here,
        "elsewhere": replace(here, host="elsewhere", machine="0" * 16),
    }
    names = {what: staging_module._folder_name(owner) for what, owner in owners.items()} | {"mine": "mine"}
    for name in names.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "copy.tif").write_bytes(b"x")
    with Staging(StagingSettings(folder=tmp_path)):
        left = {path.parent.name for path in files(tmp_path)}
    assert left == {names[what] for what in ("alive", "elsewhere", "mine")}


def test_a_manifest_may_name_urls(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("slide_id,path,patient_id\na,s3://bucket/x/a.svs,P1\nb,b.svs,P1\n", encoding="utf-8")
    first, second = read_manifest(SlidesSettings(manifest=table))
    assert (first.url, first.path.name) == ("s3://bucket/x/a.svs", "a.svs")
    assert (second.url, second.path) == (None, tmp_path / "b.svs")


def test_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    entry = SlideEntry("a", tmp_path / "a.tif", "P1", None, 2)
    with Staging(StagingSettings(folder=tmp_path / "near")) as staging, pytest.raises(SlideNotFoundError):
        staging.fetch(entry).result()


def test_check_reports_slides_of_a_store_that_nothing_copies(tmp_path: Path) -> None:
    (tmp_path / "slides.csv").write_text("slide_id,path,patient_id\na,s3://bucket/a.svs,P1\n", encoding="utf-8")
    (tmp_path / "patients.csv").write_text("patient_id,days,status\nP1,100,1\nP2,50,0\n", encoding="utf-8")
    text = (
        "name: s\noutput: run\ncohort: {table: patients.csv, time: days,"
        " time_unit: days, event: status}\nslides: {manifest: slides.csv}\n"
    )
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    said = [str(one) for one in check(tmp_path / "study.yaml").problems]
    assert any("s3://bucket/a.svs" in one and "extract.staging.folder" in one for one in said), said
    staged = check(tmp_path / "study.yaml", [f"extract.staging.folder={tmp_path / 'near'}"])
    assert not any("staging" in str(one) for one in staged.problems), staged.problems
