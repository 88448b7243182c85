"""Contact sheets show what became of every tile of a slide's grid, where it is, and not by colour alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from pathoml.artefacts import QualitySettings, TileFlag
from pathoml.contact_sheets import SlideRow, draw_contact_sheet, sheet_path, write_archive_page, write_contact_sheet
from pathoml.contact_sheets.fates import fates_of
from pathoml.contact_sheets.footer import ScaleBar, legend_of, nice_length, say_sizes, say_sum
from pathoml.contact_sheets.marks import FATE_OF, FLAG_MARKS, MARKS, Fate, Mark, hatched, swatch
from pathoml.slides import ReadPlan, Region, Slide, SlideGeometry, TileReader
from pathoml.tiles import LaidTiles, Look, ReadTiles, TileJudge
from pathoml.tiling import Rejection, TilingSettings, make_grid
from pathoml.tissue import TissueMask

BLUE, ORANGE, BLACK = (MARKS[fate].colour for fate in (Fate.KEPT, Fate.LITTLE_TISSUE, Fate.PEN))
GLASS = 240


class GlassSlide(Slide):
    """Plain glass of a geometry, with one dark line of level-0 pixels where x is 100."""

    def __init__(self, geometry: SlideGeometry) -> None:
        super().__init__(Path("glass.svs"))
        self._geometry = geometry

    @property
    def geometry(self) -> SlideGeometry:
        return self._geometry

    @property
    def metadata(self) -> dict[str, str]:
        return {}

    def read_region(
        self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
    ) -> Region:
        pixels = np.full((size_px[1], size_px[0], 3), GLASS, dtype=np.uint8)
        if level == 0 and xy_level0_px[0] <= 100 < xy_level0_px[0] + size_px[0]:
            pixels[:, 100 - xy_level0_px[0]] = 0
        return Region(pixels, None)

    def tile_reader(
        self, coords: np.ndarray | Sequence[Sequence[int]], plan: ReadPlan, *, threads: int = 1
    ) -> TileReader:
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Case:
    """A slide, and what was seen of it."""

    slide: GlassSlide
    laid: LaidTiles

    def sheet(self, read: ReadTiles | None = None, title: str = "S1") -> np.ndarray:
        return draw_contact_sheet(self.slide, self.laid, title, read=read)


def case(
    mask: TissueMask,
    geometry: SlideGeometry,
    tiling: TilingSettings | None = None,
    *,
    picture: np.ndarray | None = None,
) -> Case:
    seen = np.full((*mask.tissue.shape, 3), GLASS, dtype=np.uint8) if picture is None else picture
    laid = LaidTiles(seen, mask, make_grid(geometry, mask, tiling or TilingSettings()))
    return Case(GlassSlide(geometry), laid)


def common(tiling: TilingSettings | None = None, *, drop: bool = True) -> Case:
    """Lay tiles on a slide of 20 x 10 tiles: tissue on the left half, a sliver beyond, ink over two tiles' tissue."""
    geometry = SlideGeometry(20 * 224, 10 * 224, (1.0, 4.0), (0.5, 0.5))
    tissue, pen = np.zeros((100, 200), dtype=bool), np.zeros((100, 200), dtype=bool)
    tissue[:, :102] = True
    pen[0:10, 20:40] = True
    mask = TissueMask(tissue & ~pen, {TileFlag.PEN: pen}, {TileFlag.PEN: pen}) if drop else TissueMask(
        tissue, {TileFlag.PEN: pen}
    )  # fmt: skip
    return case(mask, geometry, tiling)


def coloured(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (sheet == np.array(colour, dtype=np.uint8)).all(axis=-1)


def read_as(one: Case, **changed: np.ndarray) -> ReadTiles:
    none = np.zeros(len(one.laid.grid), dtype=bool)
    return ReadTiles(**{"flags": one.laid.grid.flags.copy(), "lost": none, "blurred": none.copy(), **changed})


def test_each_tile_of_the_grid_is_kept_or_has_one_reason() -> None:
    grid = common().laid.grid
    reasons = {
        (int(row), int(column)): Rejection(reason)
        for (row, column), reason in zip(grid.rejected, grid.reasons, strict=True)
    }
    bare = {(row, column): Rejection.NO_TISSUE for row in range(10) for column in range(11, 20)}
    assert len(grid) == 98
    assert reasons == {
        (0, 2): Rejection.PEN, (0, 3): Rejection.PEN, **{(row, 10): Rejection.LITTLE_TISSUE for row in range(10)}, **bare,
    }  # fmt: skip
    assert grid.shape == (10, 20)


@pytest.mark.parametrize(
    "tiling",
    [TilingSettings(), TilingSettings(max_tiles=40), TilingSettings(overlap=0.5), TilingSettings(tile_px=300)],
    ids=["plain", "drawn", "overlapping", "overhanging"],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_counts_of_the_legend_add_up_to_the_grid(tiling: TilingSettings, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = common(tiling)
    lost = rng.random(len(one.laid.grid)) < 0.1
    flags = rng.integers(0, 128, len(one.laid.grid)).astype(np.uint8)
    read = read_as(one, lost=lost, blurred=(rng.random(len(lost)) < 0.2) & ~lost, flags=flags)
    fates = fates_of(one.laid.grid, read)
    rows, columns = one.laid.grid.shape
    texts = [entry.text for entry in legend_of(fates, lettered=True)]
    counts = {text: int(text.split()[0].replace(",", "")) for text in texts if text[0].isdigit()}
    assert sum(count for text, count in counts.items() if "of the kept" not in text) == rows * columns
    told = re.findall(r"[\d,]+", say_sum(fates, judged=True))
    assert int(told[2].replace(",", "")) == rows * columns == sum(int(part.replace(",", "")) for part in told[3:])
    for flag, mark in FLAG_MARKS.items():
        assert counts.get(f"{(flags[read.kept] & flag > 0).sum()} of the kept: {mark.text}"), mark.text


def test_what_the_random_draw_left_out_is_said_so() -> None:
    grid = common(TilingSettings(max_tiles=40)).laid.grid
    assert len(grid) == 40
    assert (grid.reasons == Rejection.NOT_DRAWN).sum() == 58
    places = {tuple(place) for place in [*grid.grid.tolist(), *grid.rejected.tolist()]}
    assert len(places) == 200, "kept and rejected share no tile"


def test_tiles_are_drawn_where_they_lie_in_the_colour_of_their_reason() -> None:
    sheet = common().sheet()
    side = sheet.shape[1] / 20
    body = sheet[: round(10 * side)]
    columns = np.nonzero(coloured(body, ORANGE).any(axis=0))[0]
    assert columns.min() == pytest.approx(10 * side, abs=1.5)
    assert columns.max() == pytest.approx(11 * side, abs=1.5)
    inked = coloured(body, BLACK)[2 : round(side) - 2, round(2 * side) + 3 : round(4 * side) - 3]
    assert inked.mean() > 0.1, "hatched"
    assert coloured(body, BLUE)[:, : round(9.5 * side)].any()
    assert not coloured(body, BLUE)[:, round(10 * side) + 2 :].any()


@pytest.mark.parametrize("flag", list(FLAG_MARKS), ids=lambda flag: flag.name)
@pytest.mark.parametrize("mpp", [0.5, 0.05], ids=["large cells", "small cells"])
def test_every_flag_of_a_kept_tile_is_shown_in_it_and_nowhere_else(flag: TileFlag, mpp: float) -> None:
    """At 0.05 microns per pixel of tiles, 20 x 10 of them become 200 x 100, of 5 pixels on the sheet."""
    one = common(TilingSettings(target_mpp=mpp, max_enlargement=16), drop=False)
    flags = np.zeros(len(one.laid.grid), dtype=np.uint8)
    plain = one.sheet(read_as(one, flags=flags))
    at = len(flags) // 2 + 3
    rows, columns = one.laid.grid.shape
    row, column = one.laid.grid.grid[at].tolist()
    flags[(np.abs(one.laid.grid.grid - [row, column]) <= 1).all(axis=1)] |= np.uint8(flag)
    shown = one.sheet(read_as(one, flags=flags))
    height = min(round(rows * plain.shape[1] / columns), 550)
    changed = (plain[:height] != shown[:height]).any(axis=-1)
    inside = np.zeros_like(changed)
    cell = height / rows
    inside[
        round((row - 1) * cell) - 1 : round((row + 2) * cell) + 1,
        round((column - 1) * cell) - 1 : round((column + 2) * cell) + 1,
    ] = True
    assert changed[inside].mean() > 0.05
    assert not changed[~inside].any()


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.OUT_OF_FOCUS], ids=lambda fate: fate.name)
def test_what_is_known_only_after_reading_is_shown(fate: Fate) -> None:
    one = common()
    where = np.zeros(len(one.laid.grid), dtype=bool)
    where[-8:] = True
    sheet = one.sheet(read_as(one, **{"lost" if fate == Fate.LOST else "blurred": where}))
    marked = coloured(sheet[:550], MARKS[fate].colour)
    assert np.nonzero(marked.any(axis=1))[0].min() > 8.9 * 55, "the last eight tiles lie in the last row"
    assert not coloured(one.sheet()[:550], MARKS[fate].colour).any()


def test_tiles_kept_in_spite_of_ink_are_told_from_those_dropped_for_it() -> None:
    kept, dropped = (common(drop=drop).sheet()[:550] for drop in (False, True))
    tile = np.s_[4:50, 114:162]
    for sheet in (kept, dropped):
        assert coloured(sheet, MARKS[Fate.PEN].colour)[tile].mean() > 0.1
    between = {name: np.median(sheet[tile][~coloured(sheet, MARKS[Fate.PEN].colour)[tile]]) for name, sheet in
               (("kept", kept), ("dropped", dropped))}  # fmt: skip
    assert between["kept"] == GLASS
    assert between["dropped"] < GLASS - 15, "tinted"
    assert coloured(kept, BLUE)[4:48, 165].mean() > 0.5, "the frame of a kept tile"


def test_marks_differ_in_more_than_colour() -> None:
    dropped = [mark for fate, mark in MARKS.items() if fate not in (Fate.KEPT, Fate.NO_TISSUE)]
    marks = list(dict.fromkeys([*dropped, *FLAG_MARKS.values()]))
    for one, other in combinations(marks, 2):
        assert one.hatching != other.hatching, f"{one.text}, {other.text}"
        assert one.letter != other.letter
        assert (hatched(one, 40, 40) != hatched(other, 40, 40)).mean() > 0.04
    assert all(0 < hatched(mark, 60, 60).mean() < 0.55 for mark in marks), "tissue is seen between the lines"


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("mark", [mark for fate, mark in MARKS.items() if fate != Fate.NO_TISSUE], ids=lambda m: m.text)
def test_marks_stand_out_from_glass(mark: Mark) -> None:
    assert (1.05) / (luminance(mark.colour) + 0.05) > 2


def test_every_reason_and_flag_has_a_mark() -> None:
    assert set(FATE_OF) == set(Rejection)
    assert set(MARKS) == set(Fate)
    assert set(FLAG_MARKS) == {flag for flag in TileFlag if flag}


def test_a_slide_without_tissue_has_a_sheet_too() -> None:
    one = case(TissueMask(np.zeros((56, 125), dtype=bool)), SlideGeometry(2000, 900, (1.0,), (0.5, 0.5)))
    sheet = one.sheet(title="S2")
    assert sheet.shape[1] == 1100
    assert coloured(sheet[:400], (GLASS,) * 3).mean() > 0.9
    assert say_sum(fates_of(one.laid.grid, None), judged=True).endswith("0 kept + 0 dropped + 45 no tissue")


def test_a_small_slide_is_drawn_from_its_own_pixels_and_never_enlarged() -> None:
    tiny = case(TissueMask(np.zeros((8, 16), dtype=bool)), SlideGeometry(256, 128, (1.0,), (0.5, 0.5)))
    sheet = tiny.sheet()
    assert sheet.shape[1] >= 500, "white beside it: the legend can be read"
    dark = np.nonzero((sheet[:128, :256] < 20).all(axis=-1).mean(axis=0) > 0.9)[0]
    assert dark.tolist() == [100], "one pixel of level 0 is one pixel"
    assert (sheet[:128, 256:] == 255).all()


def test_on_a_large_slide_the_tissue_can_still_be_seen() -> None:
    tissue = np.zeros((1875, 3125), dtype=bool)
    tissue[200:1600, 300:2800] = True
    picture = np.full((1875, 3125, 3), GLASS, dtype=np.uint8)
    picture[tissue] = (200, 120, 170)
    geometry = SlideGeometry(100_000, 60_000, (1.0, 32.0), (0.25, 0.25))
    inside = case(TissueMask(tissue), geometry, picture=picture).sheet(title="big")[150:500, 200:900].reshape(-1, 3)
    assert (inside == (200, 120, 170)).all(), "kept tissue is left as it is"


def test_a_sheet_of_a_thin_slide_has_a_legend_that_can_be_read() -> None:
    one = case(TissueMask(np.zeros((2500, 12), dtype=bool)), SlideGeometry(200, 40_000, (1.0, 16.0), (0.5, 0.5)))
    assert one.sheet(title="thin").shape[1] >= 400


def test_an_overlapping_grid_gives_each_place_to_its_nearest_tile() -> None:
    one = common(TilingSettings(overlap=0.5))
    body = one.sheet()[:550]
    columns = np.nonzero(coloured(body, ORANGE).any(axis=0))[0]
    sliver = one.laid.grid.rejected[one.laid.grid.reasons == Rejection.LITTLE_TISSUE]
    expected = 55 * (0.5 * sliver[:, 1].min() + 0.25), 55 * (0.5 * sliver[:, 1].max() + 0.75)
    assert columns.min() == pytest.approx(expected[0], abs=2)
    assert columns.max() == pytest.approx(expected[1], abs=2)


def test_the_artefacts_area_is_outlined() -> None:
    geometry = SlideGeometry(20 * 224, 10 * 224, (1.0, 4.0), (0.5, 0.5))
    tissue, fold = np.ones((100, 200), dtype=bool), np.zeros((100, 200), dtype=bool)
    fold[22:28, 42:58] = True
    plain, found = (case(TissueMask(tissue, artefacts), geometry) for artefacts in ({}, {TileFlag.FOLD: fold}))
    nothing = np.zeros(len(plain.laid.grid), dtype=np.uint8)
    sheets = [one.sheet(read_as(one, flags=nothing))[:550] for one in (plain, found)]
    changed = (sheets[0] != sheets[1]).any(axis=-1)
    around = cv2.dilate(
        cv2.resize(fold.astype(np.uint8), (1100, 550), interpolation=cv2.INTER_NEAREST), np.ones((7, 7))
    )
    assert changed.any()
    assert not changed[around == 0].any()


@pytest.mark.parametrize(
    ("width_px", "mpp", "text", "px"),
    [(4480, 0.5, "500 microns", 246), (100_000, 0.25, "5 mm", 220), (256, 0.5, "20 microns", 172)],
)
def test_the_scale_bar_is_a_round_length_at_the_scale_of_the_picture(
    width_px: int, mpp: float, text: str, px: int
) -> None:
    bar = ScaleBar.of(SlideGeometry(width_px, 100, (1.0,), (mpp, mpp)), 1100)
    assert bar.text == text
    assert bar.length_px == px == pytest.approx(bar.length_um / (width_px * mpp) * 1100, abs=0.5)


@pytest.mark.parametrize("at_most", [0.7, 1, 4.99, 5, 19, 20, 730, 12_345])
def test_a_nice_length_is_at_least_two_fifths_of_what_may_be(at_most: float) -> None:
    assert 0.4 * at_most <= nice_length(at_most) <= at_most


def test_sizes_of_slide_and_tiles_are_said() -> None:
    one = common(TilingSettings(overlap=0.25))
    assert say_sizes(one.slide.geometry, one.laid.grid, "S1") == [
        "S1", "slide: 2.24 x 1.12 mm, 4,480 x 2,240 px at 0.5 microns per pixel",
        "tiles: 224 px at 0.5 microns per pixel = 112 microns, overlapping by 25%: each place shows the nearest",
    ]  # fmt: skip


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


def test_a_judge_of_tiles_that_drops_nothing_keeps_what_is_out_of_focus() -> None:
    grid = common().laid.grid
    blurred = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8), (0, 0), 8)
    tiles = np.repeat(cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)[None], 2, axis=0)
    states = np.zeros(2, dtype=np.uint8)
    for drop, kept in (((), [True, True]), (("out_of_focus",), [False, False])):
        judge = TileJudge(grid, QualitySettings(drop=drop))
        assert judge.see(5, tiles, states).tolist() == kept
        assert np.flatnonzero(judge.seen.flags & TileFlag.OUT_OF_FOCUS).tolist() == [5, 6]
        assert judge.seen.kept.sum() == len(grid) - 2 + sum(kept)


def rows_of_a_page(folder: Path) -> list[SlideRow]:
    one = common()
    path = sheet_path(folder, "S<1>")
    write_contact_sheet(path, one.sheet(title="S<1>"))
    fates = {fate: fates_of(one.laid.grid, None).count(fate) for fate in Fate}
    return [
        SlideRow("S<1>", "05", "", "", path, fates, {TileFlag.PEN: 0, TileFlag.OVERHANG: 7}),
        SlideRow("S3", "07", "", "", None, {Fate.KEPT: 5_000, Fate.LITTLE_TISSUE: 3}, {TileFlag.OVERHANG: 1}),
        SlideRow("S2", "", "NO_TISSUE", "S2: no tile <here>", None),
    ]


def test_the_page_lists_failures_first_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    write_archive_page(tmp_path / "page.html", "A & B", rows_of_a_page(tmp_path), table="quality.csv")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.index("S2") < text.index("S&lt;1&gt;")
    assert "S<1>" not in text
    assert "S2: no tile &lt;here&gt;" in text
    assert 'src="contact_sheets/S%3C1%3E.png"' in text
    assert "1 of 3 slides have no bag" in text
    assert "esearch use only" in text
    assert '<a href="quality.csv">' in text
    assert "<b>Site</b> is the hospital" in text


def cells_of(text: str) -> list[list[str]]:
    lines = re.findall(r"<tr.*?</tr>", text, flags=re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, flags=re.DOTALL) for line in lines]


def test_the_table_of_the_page_counts_the_tiles_of_each_slide_and_of_all(tmp_path: Path) -> None:
    write_archive_page(tmp_path / "page.html", "A", rows_of_a_page(tmp_path), table="quality.csv")
    head, groups, *rows = cells_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert head == [
        "slide", "site", "outcome", "tiles of the grid", "kept", "no tissue", "dropped", "of the kept, flagged"
    ]  # fmt: skip
    assert groups == ["little tissue", "pen", "over the slide&#x27;s edge"]
    assert rows == [
        ["S2", "", "NO_TISSUE", "S2: no tile &lt;here&gt;"],
        ["S&lt;1&gt;", "05", "bag", "200", "98", "90", "10", "2", "7"],
        ["S3", "07", "bag", "", "5,000", "", "3", "", "1"],
        ["1 slide", "05", "1 with a bag", "200", "98 (49%)", "90 (45%)", "10 (5%)", "2 (1%)", "7 (4%)"],
        ["1 slide", "07", "1 with a bag", "", "5,000", "", "3", "", "1"],
        ["3 slides", "2 sites", "2 with a bag", "200", "5,098", "90", "13", "2", "8"],
    ]


def test_a_page_of_slides_without_sites_has_no_column_for_them(tmp_path: Path) -> None:
    write_archive_page(tmp_path / "page.html", "A", [SlideRow("S1", "", "", "", None, {Fate.KEPT: 3})], table="q.csv")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert cells_of(text)[0] == ["slide", "outcome", "tiles of the grid", "kept"]
    assert "Site" not in text


def test_samples_of_the_legend_look_like_the_sheet() -> None:
    sample = swatch(MARKS[Fate.PEN], dropped=True)
    assert coloured(sample, BLACK).mean() > 0.2
    assert (swatch(MARKS[Fate.KEPT], dropped=False)[1:-1, 1:-1] == 255).all()
    assert coloured(swatch(FLAG_MARKS[TileFlag.FOLD], dropped=False), BLUE)[0].all()
    assert Look().quality.drops(TileFlag.PEN), "so the common case is dropped ink"
