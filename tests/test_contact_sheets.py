"""Contact sheets show what was kept, what was dropped and why, where it is."""

from pathlib import Path

import numpy as np
import pytest

from pathoml.artefacts import TileFlag
from pathoml.contact_sheets import (
    SheetEntry,
    draw_contact_sheet,
    sheet_path,
    write_archive_page,
    write_contact_sheet,
)
from pathoml.slides import SlideGeometry
from pathoml.tiles import LaidTiles
from pathoml.tiling import Rejection, TilingSettings, make_grid
from pathoml.tissue import TissueMask

BLUE, ORANGE, MAGENTA, GREY = (0, 90, 200), (240, 140, 0), (220, 0, 200), (150, 150, 150)


def laid(tiling: TilingSettings | None = None) -> tuple[LaidTiles, SlideGeometry]:
    """Lay tiles on a slide of 20 x 10 tiles: tissue on the left half, a sliver beyond, ink over two tiles' tissue."""
    geometry = SlideGeometry(20 * 224, 10 * 224, (1.0,), (0.5, 0.5))
    tissue, pen = np.zeros((100, 200), dtype=bool), np.zeros((100, 200), dtype=bool)
    tissue[:, :102] = True
    pen[0:10, 20:40] = True
    tissue &= ~pen
    picture = np.full((100, 200, 3), 240, dtype=np.uint8)
    mask = TissueMask(tissue, {TileFlag.PEN: pen}, {TileFlag.PEN: pen})
    return LaidTiles(picture, mask, make_grid(geometry, mask, tiling or TilingSettings())), geometry


def coloured(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (sheet == np.array(colour, dtype=np.uint8)).all(axis=-1)


def test_each_tile_that_touches_tissue_or_ink_is_kept_or_has_one_reason() -> None:
    one, _ = laid()
    reasons = {
        (int(row), int(column)): Rejection(reason)
        for (row, column), reason in zip(one.grid.rejected, one.grid.reasons, strict=True)
    }
    assert len(one.grid) == 98
    assert reasons == {
        (0, 2): Rejection.PEN, (0, 3): Rejection.PEN, **{(row, 10): Rejection.LITTLE_TISSUE for row in range(10)},
    }  # fmt: skip


def test_what_the_random_draw_left_out_is_said_so() -> None:
    one, _ = laid(TilingSettings(max_tiles=40))
    assert len(one.grid) == 40
    assert (one.grid.reasons == Rejection.NOT_DRAWN).sum() == 58
    places = {tuple(place) for place in [*one.grid.grid.tolist(), *one.grid.rejected.tolist()]}
    assert len(places) == 40 + len(one.grid.rejected), "kept and rejected share no tile"


def test_tiles_are_drawn_where_they_lie_in_the_colour_of_their_reason() -> None:
    one, geometry = laid()
    sheet = draw_contact_sheet(one, geometry, "S1")
    side = sheet.shape[1] / 20
    body = sheet[: round(10 * side)]
    for colour, columns in ((MAGENTA, (2, 4)), (ORANGE, (10, 11))):
        xs = np.nonzero(coloured(body, colour).any(axis=0))[0]
        assert xs.min() == pytest.approx(columns[0] * side, abs=1.5)
        assert xs.max() == pytest.approx(columns[1] * side, abs=1.5)
    assert coloured(body, MAGENTA).any(axis=1).nonzero()[0].max() < side + 1
    assert coloured(body, BLUE)[:, : round(9.5 * side)].any()
    assert not coloured(body, GREY).any()


def test_a_slide_without_tissue_has_a_sheet_too() -> None:
    geometry = SlideGeometry(2000, 900, (1.0,), (0.5, 0.5))
    empty = TissueMask(np.zeros((56, 125), dtype=bool))
    picture = np.full((56, 125, 3), 250, dtype=np.uint8)
    sheet = draw_contact_sheet(LaidTiles(picture, empty, make_grid(geometry, empty, TilingSettings())), geometry, "S2")
    assert sheet.shape[1] == 1100
    assert (sheet[:300] == 250).all()


def test_the_page_lists_failures_first_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    one, geometry = laid()
    path = sheet_path(tmp_path, "S<1>")
    path.parent.mkdir()
    write_contact_sheet(path, draw_contact_sheet(one, geometry, "S<1>"))
    page = tmp_path / "contact_sheets.html"
    write_archive_page(
        page, "A & B",
        [SheetEntry("S<1>", "05", "done", path), SheetEntry("S2", "", "NO_TISSUE: S2: no tile <here>", None)],
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert text.index("S2") < text.index("S&lt;1&gt;")
    assert "S<1>" not in text
    assert "NO_TISSUE: S2: no tile &lt;here&gt;" in text
    assert 'src="contact_sheets/S%3C1%3E.png"' in text
    assert "1 of 2 slides have no bag" in text
    assert "esearch use only" in text


def test_tiles_that_did_not_come_into_the_bag_are_shown_as_such() -> None:
    one, geometry = laid()
    sheet = draw_contact_sheet(one, geometry, "S1", in_bag=one.grid.grid[:90])
    violet = coloured(sheet[: round(10 * sheet.shape[1] / 20)], (120, 80, 170))
    rows = np.nonzero(violet.any(axis=1))[0]
    assert rows.min() > 8.9 * sheet.shape[1] / 20, "the last eight tiles lie in the last row"
    assert not coloured(draw_contact_sheet(one, geometry, "S1"), (120, 80, 170)).any()


def test_on_a_large_slide_the_tissue_can_still_be_seen() -> None:
    geometry = SlideGeometry(100_000, 60_000, (1.0,), (0.25, 0.25))
    tissue = np.zeros((1875, 3125), dtype=bool)
    tissue[200:1600, 300:2800] = True
    picture = np.full((1875, 3125, 3), 240, dtype=np.uint8)
    picture[tissue] = (200, 120, 170)
    mask = TissueMask(tissue)
    sheet = draw_contact_sheet(LaidTiles(picture, mask, make_grid(geometry, mask, TilingSettings())), geometry, "big")
    inside = sheet[150:500, 200:900].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) <= 2, "one even tint instead of a mesh of lines"
    assert np.abs(inside.mean(axis=0) - np.array([200, 120, 170])).max() < 90


def test_a_sheet_of_a_thin_slide_has_a_legend_that_can_be_read() -> None:
    geometry = SlideGeometry(200, 40_000, (1.0,), (0.5, 0.5))
    mask = TissueMask(np.zeros((2500, 12), dtype=bool))
    picture = np.full((2500, 12, 3), 240, dtype=np.uint8)
    sheet = draw_contact_sheet(LaidTiles(picture, mask, make_grid(geometry, mask, TilingSettings())), geometry, "thin")
    assert sheet.shape[1] >= 400


def test_tiles_mostly_beyond_the_edge_of_a_slide_full_of_tissue_are_said_to_be_so() -> None:
    geometry = SlideGeometry(2 * 224 + 60, 224, (1.0,), (0.5, 0.5))
    full = TissueMask(np.ones((28, 63), dtype=bool))
    grid = make_grid(geometry, full, TilingSettings())
    assert grid.grid.tolist() == [[0, 0], [0, 1]]
    assert grid.rejected.tolist() == [[0, 2]]
    assert grid.reasons.tolist() == [Rejection.EDGE]
    half = np.ones((28, 63), dtype=bool)
    half[:, 57:] = False  # a sliver of tissue on the part that lies on the slide
    assert make_grid(geometry, TissueMask(half), TilingSettings()).reasons.tolist() == [Rejection.LITTLE_TISSUE]


def test_an_artefact_whose_tiles_stay_is_tinted_and_counted() -> None:
    geometry = SlideGeometry(20 * 224, 10 * 224, (1.0,), (0.5, 0.5))
    tissue, fold = np.ones((100, 200), dtype=bool), np.zeros((100, 200), dtype=bool)
    fold[22:28, 42:58] = True  # in two tiles
    plain, flagged = (TissueMask(tissue, artefacts) for artefacts in ({}, {TileFlag.FOLD: fold}))
    picture = np.full((100, 200, 3), 240, dtype=np.uint8)
    sheets = [
        draw_contact_sheet(LaidTiles(picture, mask, make_grid(geometry, mask, TilingSettings())), geometry, "s")
        for mask in (plain, flagged)
    ]
    changed = (sheets[0][:550] != sheets[1][:550]).any(axis=-1)
    inside = np.zeros_like(changed)
    inside[round(22 * 5.5) : round(28 * 5.5), round(42 * 5.5) : round(58 * 5.5)] = True
    assert changed[inside].mean() > 0.9
    assert not changed[~inside].any()
    assert len(sheets[1]) == len(sheets[0]) + 22, "one line more in the legend"
