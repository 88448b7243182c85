"""Maps: every value where its tile is, and a picture that says what it shows."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from pathoml.bags import BagHeader
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.heatmaps import (
    STYLES,
    Window,
    colour_end,
    draw_heatmap,
    extreme_tiles,
    kind_of,
    name_of_way,
    paint,
    relative_to_average,
    scaled_map,
    tile_lattice,
    tile_raster,
)


def header(width: int, height: int, side: float, stride: float | None = None) -> BagHeader:
    stride = side if stride is None else stride
    return BagHeader(
        slide_id="S1", slide_fingerprint="a" * 64, slide_digest="b" * 64, width_px=width, height_px=height,
        slide_mpp=(0.5, 0.5), mpp_from="metadata", target_mpp=0.5, mpp_read=(0.5, 0.5), tile_px=224,
        footprint_level0_px=(side, side),
        stride_level0_px=(stride, stride), origin_level0_px=(0.0, 0.0), encoder="toy", weights_digest="c" * 64,
        precision_asked="float32", precision_used="float32", batch_tiles=8, batch_used=8,
        reader="native tiles", decode="exact", settings_digest="d" * 64, lost_tiles=0,
        rejected={"little_tissue": 5, "pen": 2}, regions_digest="",
        stain="none", optical_density={"mean_red": 0.2},
        pathoml_version="0.1.0",
    )  # fmt: skip


def grid_of(rows: int, columns: int, share: float = 1.0) -> np.ndarray:
    every = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2)
    return every[np.random.default_rng(1).random(len(every)) < share].astype(np.int32)


@pytest.mark.parametrize("side", [224.0, 224.4, 451.7])
@pytest.mark.parametrize("size", [(2220, 2967), (1001, 997), (4800, 3840)])
def test_every_pixel_holds_the_tile_under_its_centre(size: tuple[int, int], side: float) -> None:
    width, height = size
    shape = (round(height / 8), round(width / 8))
    grid = grid_of(int(-(-height // side)), int(-(-width // side)), share=0.7)
    values = np.random.default_rng(2).normal(size=len(grid))
    raster = tile_raster(header(width, height, side), grid, values, shape)
    lookup = {tuple(where): value for where, value in zip(grid.tolist(), values, strict=True)}
    y, x = ((np.arange(count) + 0.5) * extent / count for count, extent in zip(shape, (height, width), strict=True))
    truth = np.array([[lookup.get((int(row // side), int(column // side)), np.nan) for column in x] for row in y])
    # A centre exactly on an edge may fall to either side.
    clear = np.ix_(np.abs((y / side) % 1 - 0.5) < 0.499, np.abs((x / side) % 1 - 0.5) < 0.499)
    np.testing.assert_array_equal(raster[clear], truth[clear])
    assert np.isnan(truth).any()
    assert np.isfinite(truth).any()


def test_where_tiles_overlap_the_map_is_their_mean_and_nothing_where_none_is() -> None:
    grid = np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int32)
    raster = tile_raster(header(400, 400, 200, 100), grid, np.array([1.0, 3.0, 8.0]), (4, 4))
    nan = np.nan
    expected = [[1, 2, 3, nan], [4.5, 4, 3, nan], [8, 8, nan, nan], [nan, nan, nan, nan]]
    np.testing.assert_array_equal(raster, expected)


def test_a_tile_that_hangs_over_the_edge_is_painted_to_the_edge() -> None:
    raster = tile_raster(header(300, 200, 200), np.array([[0, 1]], dtype=np.int32), np.array([5.0]), (2, 3))
    np.testing.assert_array_equal(raster, [[np.nan, np.nan, 5], [np.nan, np.nan, 5]])


def test_the_order_of_tiles_does_not_matter() -> None:
    grid, values = grid_of(9, 9, 0.6), np.arange(81.0)[: len(grid_of(9, 9, 0.6))]
    one, other = header(1000, 1000, 224, 112), slice(None, None, -1)
    np.testing.assert_allclose(
        tile_raster(one, grid, values, (125, 125)), tile_raster(one, grid[other], values[other], (125, 125))
    )


def test_attention_relative_to_the_average_does_not_depend_on_the_number_of_tiles() -> None:
    few, many = np.array([0.5, 0.25, 0.25]), np.tile([0.5, 0.25, 0.25], 4) / 4
    np.testing.assert_allclose(np.tile(relative_to_average(few), 4), relative_to_average(many))
    assert relative_to_average(many).mean() == pytest.approx(1.0)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    seen, save = [], Figure.savefig

    def remember(self: Figure, *args: object, **options: object) -> None:
        seen.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return seen


def draw(
    path: Path, *, kind: str = "attention", scale: str = "raw", factor: float = 1.0, mpp: float = 4.0
) -> np.ndarray:
    """Draw half of a grey slide covered by a ramp, the rest without tiles."""
    raster = np.full((150, 200), np.nan)
    raster[:, :100] = np.linspace(-1, 2, 100) * factor
    picture = np.full((150, 200, 3), 225, dtype=np.uint8)
    scaled = scaled_map(raster[np.isfinite(raster)], kind, scale, cohort_end=5.0)
    settings = HeatmapSettings(picture_mpp=mpp)
    draw_heatmap(path, picture, raster, scaled=scaled, caption="slide S1, model M", settings=settings)
    return imread(path)[..., :3]


@pytest.mark.parametrize(
    ("scale", "said"),
    [("raw", "98th percentile of this slide"), ("percentile", "percentile among"), ("cohort", "training cohort")],
)
@pytest.mark.parametrize("kind", list(STYLES))
def test_the_picture_says_what_it_shows_how_it_was_scaled_and_what_for(
    tmp_path: Path, figures: list[Figure], kind: str, scale: str, said: str
) -> None:
    draw(tmp_path / "map.png", kind=kind, scale=scale)
    words = " ".join(text.get_text() for text in figures[0].findobj(lambda one: hasattr(one, "get_text")))
    for part in ("slide S1, model M", STYLES[kind].title, STYLES[kind].quantity, said, "research use only"):
        assert part in words


def test_the_labels_state_quantity_zero_point_unit_and_normalisation() -> None:
    contribution, attention = (" ".join(STYLES[kind].quantity.split()) for kind in ("contribution", "attention"))
    for part in (
        "contribution to the risk x tiles of the slide",
        "0 = average training patient",
        "SD of the training patients' risk (Cox), or hazard logits (time bins)",
    ):
        assert part in contribution
    assert "share of the score" not in contribution
    assert "1 = average" in attention


@pytest.mark.parametrize(("mpp", "label", "length_px"), [(4.0, "200 µm", 50), (8.0, "200 µm", 25), (20.0, "1 mm", 50)])
def test_the_scale_bar_is_as_long_as_it_says(
    tmp_path: Path, figures: list[Figure], mpp: float, label: str, length_px: int
) -> None:
    draw(tmp_path / "map.png", mpp=mpp)
    for axis in figures[0].axes[:2]:
        left, right = axis.lines[0].get_xdata()
        assert [text.get_text() for text in axis.texts] == [label]
        assert right - left == pytest.approx(length_px)


def test_the_map_colours_the_slide_where_there_are_tiles_and_leaves_the_rest(tmp_path: Path) -> None:
    image = draw(tmp_path / "map.png")
    spread = np.ptp(image, axis=-1)
    overlay, plain = spread[:, image.shape[1] // 2 :], spread[:, : image.shape[1] // 3]
    assert image.std() > 0.05
    assert (overlay > 0.15).mean() > 0.1
    assert (plain > 0.15).mean() < 0.001
    grey = np.abs(image - 225 / 255).max(axis=-1) < 0.01
    assert grey[:, image.shape[1] // 2 :].mean() > 0.1, "tissue without tiles keeps its own colour"


def test_contributions_are_coloured_symmetrically_about_zero_and_attention_from_zero(
    tmp_path: Path, figures: list[Figure]
) -> None:
    for kind in ("contribution", "attention"):
        draw(tmp_path / "map.png", kind=kind)
    limits = [figure.axes[2].get_ylim() for figure in figures]  # of the colour bar
    assert limits[0][0] == -limits[0][1]
    assert limits[1][0] == 0
    assert limits[0][1] == pytest.approx(np.quantile(np.abs(np.linspace(-1, 2, 100)), 0.98), rel=1e-6)


def test_the_same_map_gives_the_same_bytes_and_another_others(tmp_path: Path) -> None:
    for name, kind in (("a", "attention"), ("b", "attention"), ("c", "contribution")):
        draw(tmp_path / f"{name}.png", kind=kind)
    first, second, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == second != other


@pytest.mark.parametrize("factor", [0.0, np.nan], ids=["all zero", "no tile"])
def test_a_map_of_nothing_is_still_drawn(tmp_path: Path, factor: float) -> None:
    assert draw(tmp_path / "map.png", factor=factor).size > 0


@pytest.mark.parametrize("stride", [224.0, 112.0, 74.7])
@pytest.mark.parametrize("side", [256 * 8, 256, 61])
def test_the_pieces_of_a_map_are_the_map(stride: float, side: int) -> None:
    """Tiles of the viewer, whatever their step, join to what is painted at once."""
    one = header(2048, 2048, 224.0, stride)
    grid = grid_of(int(2048 // stride), int(2048 // stride), 0.7)
    lattice = tile_lattice(one, grid, np.random.default_rng(3).normal(size=len(grid)))
    pixels = 2048 // 8
    whole = paint(lattice, Window(0, 0, pixels * 8, pixels * 8, (pixels, pixels)))
    step = max(1, side // 8)
    for top in range(0, pixels, step):
        for left in range(0, pixels, step):
            piece = paint(lattice, Window(left * 8, top * 8, step * 8, step * 8, (step, step)))
            expected = whole[top : top + step, left : left + step]
            np.testing.assert_array_equal(piece[: expected.shape[0], : expected.shape[1]], expected)


def test_seen_from_far_away_every_tile_still_counts() -> None:
    """At one pixel for many tiles the map is about their mean, and no tile of an empty neighbourhood is lost."""
    grid = grid_of(64, 64)
    values = np.where(grid[:, 1] < 32, 1.0, 3.0)
    raster = tile_raster(header(64 * 100, 64 * 100, 100), grid, values, (8, 8))
    np.testing.assert_allclose(raster[:, :3], 1.0)
    np.testing.assert_allclose(raster[:, 5:], 3.0)
    lone = tile_raster(header(64 * 100, 64 * 100, 100), np.array([[33, 17]], dtype=np.int32), np.ones(1), (8, 8))
    assert np.isfinite(lone).sum() == 1
    assert np.isfinite(lone[4, 2])


@pytest.mark.parametrize("stride_share", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("mpp", [0.25, 0.2527, 0.499, 1.0])
def test_a_synthetic_truth_is_found_where_it_is_at_any_overlap_and_resolution(mpp: float, stride_share: float) -> None:
    """A bright disc: the centre of mass of its map is at most half a tile away, and stays on odd sizes."""
    width, height = round(9001 * 0.5 / mpp), round(7003 * 0.5 / mpp)
    side = 224 * 0.5 / mpp
    stride = side * stride_share
    grid = grid_of(int((height - side) // stride) + 1, int((width - side) // stride) + 1)
    centre = np.array([0.62 * width, 0.37 * height])
    middle = grid[:, ::-1] * stride + side / 2
    values = (np.hypot(*(middle - centre).T) < 4 * side).astype(float)
    raster = np.nan_to_num(tile_raster(header(width, height, side, stride), grid, values, (701, 901)))
    y, x = np.mgrid[:701, :901] + 0.5
    found = np.array([(raster * x).sum() * width / 901, (raster * y).sum() * height / 701]) / raster.sum()
    assert np.abs(found - centre).max() < side / 2


def test_colours_are_numbered_from_low_to_high_and_0_is_no_tile() -> None:
    scaled = scaled_map(np.array([-2.0, 0.0, 2.0]), "contribution", "cohort", cohort_end=2.0)
    painted = np.array([[-9.0, -2.0, 0.0, 2.0, 9.0, np.nan]])
    np.testing.assert_array_equal(scaled.steps_of(painted), [[1, 1, 128, 255, 255, 0]])
    blue, grey, yellow = scaled.palette()[[0, 127, 254]].astype(int)
    assert blue[2] > blue[0]
    assert yellow[0] > yellow[2]
    assert np.ptp(grey) < 10
    assert (np.diff(scaled.palette() @ [0.299, 0.587, 0.114]) >= -1).all()  # read without colour as well


def test_percentiles_are_ranks_and_the_cohort_scale_is_the_same_on_every_slide() -> None:
    values = np.array([5.0, -1.0, 2.0, 2.0])
    np.testing.assert_allclose(scaled_map(values, "attention", "percentile").values, [100, 25, 62.5, 62.5])
    ends = {scaled_map(one, "contribution", "cohort", cohort_end=3.0).high for one in (values, values * 9)}
    assert ends == {3.0}
    with pytest.raises(ValueError, match="needs the training cohort's colour end"):
        scaled_map(values, "attention", "cohort")
    assert colour_end(np.array([np.nan, 0.0])) == 1.0


def test_a_map_by_way_of_a_part_names_it_and_says_that_0_adds_nothing() -> None:
    name = name_of_way("copy/number $1")
    assert (name, kind_of(name), kind_of("attention")) == ("by copy/number $1", "modality", "attention")
    scaled = scaled_map(np.array([-1.0, 2.0]), name, "raw")
    assert scaled.title == "What each tile adds by way of copy/number $1"
    assert "0 = adds nothing" in scaled.label
    assert (scaled.signed, scaled.low) == (True, -scaled.high)
    with pytest.raises(ValueError, match="no map 'saliency'"):
        kind_of("saliency")


def test_extreme_tiles_stand_in_order_and_ties_as_on_the_slide() -> None:
    values = np.array([1.0, 3.0, -2.0, 3.0])
    assert extreme_tiles(values, 3, "highest").tolist() == [1, 3, 0]
    assert extreme_tiles(values, 9, "lowest").tolist() == [2, 0, 1, 3]
