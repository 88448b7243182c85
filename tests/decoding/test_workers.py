"""The pool of decoding processes: each slide gives its own tiles, whatever became of the slide before it."""

import time

import numpy as np
import pytest

from pathoml.cohort import SlideEntry
from pathoml.decoding.workers import Decoding, DecodingPool
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import WorkerLostError
from pathoml.extract.line import Work
from pathoml.extract.stream import SlideFeatures
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

RECIPE = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(workers=1))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SlideEntry:
    path = tmp_path_factory.mktemp("slide") / "s.tif"
    plan = TissuePlan(
        seed=(29, 0), width_um=900.0, height_um=700.0, tissue_area_mm2=0.4, necrosis=0.2, lymphocytes=0.2, tumour=0.5, glands=0.3
    )  # fmt: skip
    draw_slide(path, SlideSpec("s", plan, 0.5, HOSPITALS[0].stain))
    return SlideEntry("s", path, "P", None, 2)


def rows_of(pool: DecodingPool, one: Decoding) -> list[int]:
    rows: list[int] = []
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        is_done = one.future.done()
        for _, page_rows in pool.pages(one):
            rows += page_rows.tolist()
        if is_done:
            return rows
        time.sleep(0.01)
    raise AssertionError("no end of it")


def test_a_slide_given_up_before_its_process_began_leaves_the_next_ones_tiles_alone(slide: SlideEntry) -> None:
    with DecodingPool(RECIPE, 1, 4, None, "cpu") as pool:
        first = pool.begin(slide)
        time.sleep(0.5)  # it is on its way to a process, which loads libraries for seconds
        first.given_up = WorkerLostError("given up")
        assert first.future.cancel()
        with pytest.raises(WorkerLostError, match="given up"):
            pool.end(first)
        assert pool.free_lanes() == 1, "nobody had begun"
        second = pool.begin(slide)
        rows = rows_of(pool, second)
        tiles = pool.end(second)
    assert len(rows) == len(tiles) > 8
    assert (np.diff(rows) > 0).all()


def test_waiting_for_a_process_to_begin_is_not_the_slides_time(
    slide: SlideEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ExtractSettings(workers=1, slide_timeout_s=0.001)
    recipe = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), settings)
    with DecodingPool(recipe, 1, 4, None, "cpu") as pool:
        one = pool.begin(slide)
        time.sleep(0.05)
        pool.supervise(one)
        assert one.given_up is None
        monkeypatch.setattr("pathoml.decoding.workers._START_S", 0.01)
        pool.supervise(one)
        assert "no process began with it" in str(one.given_up)


def test_tiles_that_did_not_come_are_an_error_and_not_waited_for(slide: SlideEntry) -> None:
    work = Work(slide, [(None, SlideFeatures(tiles=3))])  # type: ignore[list-item]
    work.tiles = [0] * 4  # type: ignore[assignment]
    with pytest.raises(WorkerLostError, match=r"s\.tif: 3 tiles have come of 4 that its process delivered"):
        work.require_all_tiles()
    work.tiles = [0] * 3  # type: ignore[assignment]
    work.require_all_tiles()
