"""Parts of an archive: together all slides, none twice; the same bags whichever way."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings, LocalSettings
from pathoml.errors import InputError
from pathoml.extract import Shard, extract_archive, extract_with_ray, parse_shard
from pathoml.extract.kept import folder_beside
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings


def entry(path: Path) -> SlideEntry:
    return SlideEntry(path.stem, path, "P1", None, 2)


@given(slides=st.integers(0, 40), parts=st.integers(1, 12))
def test_all_shards_together_are_all_slides_once(slides: int, parts: int) -> None:
    entries = [entry(Path(f"{number}.tif")) for number in range(slides)]
    taken = [one.slide_id for number in range(1, parts + 1) for one in Shard(number, parts).of(entries)]
    assert sorted(taken) == sorted(one.slide_id for one in entries)
    sizes = [len(Shard(number, parts).of(entries)) for number in range(1, parts + 1)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected I/N with I from 1 to N"):
        parse_shard(text)


def recipe(workers: int) -> Recipe:
    settings = ExtractSettings(workers=workers, cpu_encoders=2)
    return Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), settings)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[SlideEntry]:
    folder = tmp_path_factory.mktemp("slides")
    for index in range(4):
        plan = TissuePlan(
            seed=(17, index), width_um=450.0, height_um=340.0, tissue_area_mm2=0.08, necrosis=0.2, lymphocytes=0.2,
            tumour=0.5, glands=0.3,
        )  # fmt: skip
        name = f"s{index}"
        draw_slide(folder / f"{name}.tif", SlideSpec(name, plan, 0.5, HOSPITALS[index].stain))
    return [entry(path) for path in sorted(folder.glob("*.tif"))]


def bags(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.h5")}


@pytest.fixture(scope="module")
def alone(slides: list[SlideEntry], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """By one process, slide by slide."""
    folder = tmp_path_factory.mktemp("alone")
    assert {one.status for one in extract_archive(slides, recipe(0), folder)} == {"done"}
    return bags(folder)


def test_decoding_processes_give_the_same_bags(
    slides: list[SlideEntry], alone: dict[str, bytes], tmp_path: Path
) -> None:
    extract_archive(slides, recipe(2), tmp_path)
    assert bags(tmp_path) == alone


def test_two_shards_give_the_same_bags(slides: list[SlideEntry], alone: dict[str, bytes], tmp_path: Path) -> None:
    for number in (1, 2):
        extract_archive(Shard(number, 2).of(slides), recipe(0), tmp_path)
    assert bags(tmp_path) == alone


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_several_encoders_share_one_decoding_and_their_bags_are_those_of_each_alone(
    workers: int, slides: list[SlideEntry], alone: dict[str, bytes], tmp_path: Path
) -> None:
    head = Lite0Settings(features="head")
    both = Recipe(
        ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(workers=workers, also=(head,))
    )
    assert {one.status for one in extract_archive(slides, both, tmp_path / "bags")} == {"done"}
    assert bags(tmp_path / "bags") == alone
    second = folder_beside(tmp_path / "bags", head)
    assert second.name == "bags-lite0-head"
    expected = Recipe(ClassicalTissueSettings(), TilingSettings(), head, ExtractSettings(workers=0))
    extract_archive(slides[:2], expected, tmp_path / "head")
    assert {name: content for name, content in bags(second).items() if name in bags(tmp_path / "head")} == bags(
        tmp_path / "head"
    )
    (second / "s1.h5").unlink()
    before = (tmp_path / "bags" / "s1.h5").stat().st_mtime_ns
    assert [one.status for one in extract_archive(slides, both, tmp_path / "bags")] == ["kept", "done", "kept", "kept"]
    assert (tmp_path / "bags" / "s1.h5").stat().st_mtime_ns == before, "only what is missing is made"
    assert len(bags(second)) == 4


def test_further_encoders_that_would_share_a_folder_are_refused() -> None:
    head = Lite0Settings(features="head")
    first, second = (LocalSettings(architecture="resnet18", weights=f"{n}.pth", sha256=n * 64) for n in "ab")
    assert len(ExtractSettings(also=(head, first)).also) == 2
    for also in ((head, head), (head, first, second)):
        with pytest.raises(ValidationError, match=r"would write to one folder, '<bags>-(lite0-head|local-resnet18)'"):
            ExtractSettings(also=also)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt '\.\[ray\]'"):
        extract_with_ray([], recipe(0), tmp_path)
