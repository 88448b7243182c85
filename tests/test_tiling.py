"""Where the tiles are: arithmetic held against brute force on drawn and on arbitrary slides."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathoml.errors import BadMppError, MissingMppError
from pathoml.slides import SlideGeometry
from pathoml.tiling import Rejection, TileFlag, TileGrid, TilingSettings, make_grid, plan_reading
from pathoml.tissue import TissueMask

CASES = settings(max_examples=60, deadline=None, derandomize=True)


def geometry(width: int, height: int, mpp: tuple[float, float], levels: tuple[float, ...] = (1.0,)) -> SlideGeometry:
    return SlideGeometry(width, height, levels, mpp)


def mask_of(tissue: np.ndarray, pen: np.ndarray | None = None) -> TissueMask:
    return TissueMask(tissue, *([] if pen is None else [{TileFlag.PEN: pen}] * 2))


@st.composite
def slides(draw: st.DrawFn) -> tuple[SlideGeometry, TilingSettings]:
    mpp = draw(st.sampled_from([(0.25, 0.25), (0.499, 0.499), (0.5, 0.5), (0.24, 0.26), (1.0, 1.0)]))
    size = draw(st.tuples(st.integers(1, 1500), st.integers(1, 1500)))
    tiling = TilingSettings(
        tile_px=draw(st.sampled_from([64, 224, 256])),
        overlap=draw(st.sampled_from([0.0, 0.25, 0.5])),
        min_tissue_share=draw(st.sampled_from([1e-6, 0.5])),
        max_enlargement=2,
    )
    return geometry(*size, mpp), tiling


def full_mask(one: SlideGeometry) -> TissueMask:
    return mask_of(np.ones((one.height_px, one.width_px), dtype=bool))


@CASES
@given(slides())
def test_tiles_of_a_slide_full_of_tissue_cover_it_and_none_starts_beyond(
    case: tuple[SlideGeometry, TilingSettings],
) -> None:
    one, tiling = case
    grid = make_grid(one, full_mask(one), tiling.model_copy(update={"min_tissue_share": 1e-6}))
    covered = np.zeros((one.height_px, one.width_px), dtype=bool)
    for x, y in grid.coords:
        assert 0 <= x < one.width_px
        assert 0 <= y < one.height_px
        covered[y : y + round(grid.footprint_level0_px[1]) + 1, x : x + round(grid.footprint_level0_px[0]) + 1] = True
    assert covered.all()


@CASES
@given(slides(), st.integers(0, 2**32 - 1))
def test_rows_are_sorted_and_coords_are_the_rounded_grid(case: tuple[SlideGeometry, TilingSettings], seed: int) -> None:
    one, tiling = case
    noise = np.random.default_rng(seed).random((40, 30)) < 0.6
    grid = make_grid(one, mask_of(noise), tiling)
    order = grid.grid[:, 0].astype(np.int64) * 10**6 + grid.grid[:, 1]
    assert (np.diff(order) > 0).all()
    assert (np.diff(grid.coords[:, 1]) >= 0).all()
    exact = grid.grid[:, ::-1] * np.array(grid.stride_level0_px) + np.array(grid.origin_level0_px)
    np.testing.assert_array_equal(grid.coords, np.rint(exact))


@CASES
@given(st.integers(200, 900), st.integers(200, 900), st.sampled_from([0.0, 0.5]), st.integers(0, 2**32 - 1))
def test_tissue_share_equals_brute_force_where_mask_and_slide_have_the_same_pixels(
    width: int, height: int, overlap: float, seed: int
) -> None:
    tissue = np.random.default_rng(seed).random((height, width)) < 0.5
    tiling = TilingSettings(tile_px=64, overlap=overlap, min_tissue_share=0.2)
    grid = make_grid(geometry(width, height, (0.5, 0.5)), mask_of(tissue), tiling)
    padded = np.pad(tissue, ((0, 64), (0, 64)))
    brute = {
        (row, column): padded[row * step : row * step + 64, column * step : column * step + 64].mean()
        for step in [int(64 * (1 - overlap))]
        for row in range(-(-max(0, height - 64) // step) + 1)
        for column in range(-(-max(0, width - 64) // step) + 1)
    }
    assert {tuple(one) for one in grid.grid.tolist()} == {key for key, share in brute.items() if share >= 0.2}
    np.testing.assert_allclose(grid.tissue_share, [brute[tuple(one)] for one in grid.grid.tolist()], atol=1e-6)


@CASES
@given(slides(), st.integers(0, 2**32 - 1))
def test_a_finer_scan_of_the_same_glass_gives_the_same_grid(
    case: tuple[SlideGeometry, TilingSettings], seed: int
) -> None:
    one, tiling = case
    fine = dataclasses.replace(
        one, width_px=4 * one.width_px, height_px=4 * one.height_px, mpp=(one.mpp[0] / 4, one.mpp[1] / 4)
    )
    coarser = tiling.model_copy(update={"mpp_tolerance": 0.0})
    noise = mask_of(np.random.default_rng(seed).random((40, 30)) < 0.6)
    # Only where the tile is a whole number of pixels in both is the footprint the same.
    first, second = make_grid(one, noise, coarser), make_grid(fine, noise, coarser)
    same = np.isclose(np.array(first.footprint_level0_px) * 4, second.footprint_level0_px).all()
    if same:
        np.testing.assert_array_equal(first.grid, second.grid)
        np.testing.assert_allclose(first.tissue_share, second.tissue_share, atol=1e-6)


def test_twice_the_mpp_and_half_the_pixels_is_the_same_grid_in_micrometres() -> None:
    tissue = mask_of(np.random.default_rng(3).random((120, 150)) < 0.7)
    fine = make_grid(geometry(4800, 3840, (0.25, 0.25)), tissue, TilingSettings())
    coarse = make_grid(geometry(2400, 1920, (0.5, 0.5)), tissue, TilingSettings())
    assert len(fine) > 50
    np.testing.assert_array_equal(fine.grid, coarse.grid)
    np.testing.assert_array_equal(fine.coords * 0.25, coarse.coords * 0.5)
    np.testing.assert_array_equal(fine.tissue_share, coarse.tissue_share)


@pytest.mark.parametrize(
    ("mpp", "read_px", "mpp_read"),
    [
        (0.25, 448, 0.5), (0.5, 224, 0.5), (0.499, 224, 0.499), (0.491, 224, 0.491), (0.489, 230, 0.5),
        (0.509, 224, 0.509), (0.24, 467, 0.5), (1.0, 112, 0.5), (0.52, 216, 0.5), (0.2527, 444, 0.5),
    ],
)  # fmt: skip
def test_tiles_have_the_asked_resolution(mpp: float, read_px: int, mpp_read: float) -> None:
    plan = plan_reading(geometry(4000, 3000, (mpp, mpp)), TilingSettings(max_enlargement=2))
    assert plan.read_px == (read_px, read_px)
    assert plan.mpp_read == pytest.approx((mpp_read, mpp_read))
    assert plan.mpp_read == pytest.approx((0.5, 0.5), rel=0.02)
    assert plan.resized == (read_px != 224)


@pytest.mark.parametrize(
    ("levels", "mpp", "level", "read_px"),
    [
        ((1.0, 2.0, 4.0), 0.25, 1, 224), ((1.0, 4.0, 16.0), 0.25, 0, 448), ((1.0, 4.0, 16.0), 0.0625, 1, 448),
        ((1.0, 2.0005), 0.25, 1, 224), ((1.0, 2.0), 0.5, 0, 224), ((1.0, 4.0), 1.0, 0, 112),
    ],
)  # fmt: skip
def test_the_coarsest_level_that_is_fine_enough_is_read(
    levels: tuple[float, ...], mpp: float, level: int, read_px: int
) -> None:
    plan = plan_reading(geometry(40000, 30000, (mpp, mpp), levels), TilingSettings(max_enlargement=2))
    assert (plan.level, plan.read_px) == (level, (read_px, read_px))


@pytest.mark.parametrize(("mpp", "most"), [(0.62, 1.25), (4.0, 8.0)])
def test_a_slide_is_not_enlarged_beyond_what_the_settings_allow(mpp: float, most: float) -> None:
    allowed = plan_reading(geometry(4000, 3000, (mpp, mpp)), TilingSettings(max_enlargement=most))
    assert allowed.scale == pytest.approx((mpp / 0.5, mpp / 0.5))
    with pytest.raises(
        BadMppError, match=rf"old\.svs: .*{1.02 * mpp:.4g} microns.*target_mpp.*max_enlargement \({most:g}\)"
    ):
        plan_reading(geometry(4000, 3000, (1.02 * mpp,) * 2), TilingSettings(max_enlargement=most), "old.svs")


def test_anisotropic_pixels_give_square_tiles_of_tissue() -> None:
    grid = make_grid(geometry(4000, 3000, (0.25, 0.4)), mask_of(np.ones((60, 80), dtype=bool)), TilingSettings())
    assert grid.plan.read_px == (448, 280)
    assert grid.plan.mpp_read == pytest.approx((0.5, 0.5))
    assert np.array(grid.footprint_level0_px) * (0.25, 0.4) == pytest.approx([112, 112])


def test_half_overlap_keeps_every_tile_and_adds_those_between() -> None:
    one, tissue = geometry(2240, 2240, (0.5, 0.5)), mask_of(np.random.default_rng(1).random((140, 140)) < 0.7)
    plain = make_grid(one, tissue, TilingSettings())
    dense = make_grid(one, tissue, TilingSettings(overlap=0.5))
    assert {tuple(xy) for xy in plain.coords.tolist()} <= {tuple(xy) for xy in dense.coords.tolist()}
    assert dense.grid.max() == 18
    assert len(dense) == 19**2


def flags_at(grid: TileGrid) -> dict[tuple[int, int], int]:
    return {tuple(where): int(flag) for where, flag in zip(grid.grid.tolist(), grid.flags, strict=True)}


def test_pen_and_overhang_are_flagged_where_they_are() -> None:
    tissue, pen = np.ones((50, 50), dtype=bool), np.zeros((50, 50), dtype=bool)
    pen[5, 5] = True
    grid = make_grid(
        geometry(500, 448, (0.5, 0.5)), mask_of(tissue, pen), TilingSettings(min_tissue_share=0.1), flag_share=0
    )
    assert flags_at(grid) == {
        (0, 0): TileFlag.PEN, (0, 1): 0, (0, 2): TileFlag.OVERHANG, (1, 0): 0, (1, 1): 0, (1, 2): TileFlag.OVERHANG,
    }  # fmt: skip


def test_no_tissue_gives_an_empty_grid() -> None:
    grid = make_grid(geometry(500, 500, (0.5, 0.5)), mask_of(np.zeros((50, 50), dtype=bool)), TilingSettings())
    assert len(grid) == 0
    assert grid.coords.shape == (0, 2)


def test_a_slide_without_resolution_is_refused_by_name() -> None:
    with pytest.raises(MissingMppError, match=r"S1: no microns-per-pixel in the metadata; .* manifest's column mpp"):
        make_grid(SlideGeometry(9, 9, (1.0,), None), mask_of(np.ones((1, 1), dtype=bool)), TilingSettings(), "S1")


@pytest.mark.parametrize(("mpp", "pixels"), [(0.504, (2381, 1905)), (0.499, (2220, 2967))])
def test_a_tile_full_of_tissue_has_share_one_at_any_resolution(mpp: float, pixels: tuple[int, int]) -> None:
    one = geometry(*pixels, (mpp, mpp))
    shape = (round(pixels[1] * mpp / 8), round(pixels[0] * mpp / 8))
    grid = make_grid(one, mask_of(np.ones(shape, dtype=bool)), TilingSettings())
    inside = (grid.flags & TileFlag.OVERHANG) == 0
    assert inside.sum() > 50
    np.testing.assert_allclose(grid.tissue_share[inside], 1.0, atol=0.005)
    assert grid.tissue_share.max() <= 1.0


@CASES
@given(
    st.floats(0.1, 2.0), st.sampled_from([64, 224, 256]), st.sampled_from([0.0, 0.25, 0.5]),
    st.tuples(st.integers(600, 6000), st.integers(600, 6000)),
)  # fmt: skip
def test_row_and_column_times_the_stride_is_exact_and_corners_lie_within_half_a_pixel(
    mpp: float, tile_px: int, overlap: float, size: tuple[int, int]
) -> None:
    one = geometry(*size, (mpp, mpp))
    tiling = TilingSettings(tile_px=tile_px, overlap=overlap, mpp_tolerance=0.0, max_enlargement=4)
    grid = make_grid(one, mask_of(np.ones((20, 20), dtype=bool)), tiling)
    side = tile_px * 0.5 / mpp
    assert grid.footprint_level0_px == pytest.approx((side, side), rel=1e-12)
    assert grid.stride_level0_px == pytest.approx((side * (1 - overlap),) * 2, rel=1e-12)
    exact = grid.grid[:, ::-1] * np.array(grid.stride_level0_px)
    assert np.abs(grid.coords - exact).max(initial=0) <= 0.5 + 1e-9


def test_a_tile_of_256_px_on_a_slide_of_02527_covers_five_hundred_and_six_and_a_half() -> None:
    one = geometry(30_000, 30_000, (0.2527, 0.2527))
    grid = make_grid(one, mask_of(np.ones((100, 100), dtype=bool)), TilingSettings(tile_px=256))
    assert grid.footprint_level0_px[0] == pytest.approx(506.529, abs=1e-3)
    assert grid.coords[1, 0] == 507
    assert grid.coords[2, 0] == 1013
    assert grid.plan.read_px == (507, 507)
    assert grid.plan.mpp_read == pytest.approx((0.5, 0.5), rel=1e-12)


def test_a_grid_may_snap_to_the_tiles_of_the_slide_within_the_tolerance() -> None:
    one = dataclasses.replace(geometry(30_000, 30_000, (0.2527, 0.2527)), native_tile_px=(256, 256))
    grid = make_grid(one, mask_of(np.ones((100, 100), dtype=bool)), TilingSettings(tile_px=256, align_to_native=True))
    assert (grid.coords % 256 == 0).all()
    assert grid.plan.read_px == (512, 512)
    assert grid.plan.mpp_read == pytest.approx((0.5054, 0.5054))
    far = dataclasses.replace(one, mpp=(0.23, 0.23))
    assert plan_reading(far, TilingSettings(tile_px=256, align_to_native=True)) == plan_reading(
        far, TilingSettings(tile_px=256)
    )


@pytest.mark.parametrize(
    ("mpp", "reduction"),
    [(0.25, 2), (0.2527, 2), (0.125, 4), (0.0625, 8), (0.24, 1), (0.2425, 1), (0.1, 1), (0.5, 1), (0.495, 1)],
)
def test_the_codec_shrinks_only_to_the_resolution_asked_for(mpp: float, reduction: int) -> None:
    one = dataclasses.replace(geometry(30_000, 30_000, (mpp, mpp)), reductions=(1, 2, 4, 8))
    scaled = plan_reading(one, TilingSettings(decode="scaled"))
    assert scaled.reduction == reduction
    assert plan_reading(one, TilingSettings()).reduction == 1
    if reduction == 1:
        assert scaled == plan_reading(one, TilingSettings())
        return
    assert not scaled.resized
    assert scaled.mpp_read == pytest.approx((mpp * reduction,) * 2)
    grid = make_grid(one, mask_of(np.ones((100, 100), dtype=bool)), TilingSettings(decode="scaled", overlap=0.3))
    assert (grid.coords % reduction == 0).all(), "corners lie on the pixels that the codec can give"
    exact = grid.grid[:, ::-1] * np.array(grid.stride_level0_px)
    assert np.abs(grid.coords - exact).max() <= (reduction + 1) / 2, "at most half of such a pixel away, and rounded"


def test_the_coarsest_level_is_shrunk_that_can_be() -> None:
    one = dataclasses.replace(geometry(32_768, 32_768, (0.25, 0.25), (1.0, 4.0)), reductions=(1, 2, 4, 8))
    plan = plan_reading(one, TilingSettings(decode="scaled", target_mpp=2.0))
    assert (plan.level, plan.reduction) == (1, 2)


def test_at_most_so_many_tiles_are_kept_drawn_by_the_seed_and_in_order() -> None:
    one, tissue = geometry(9000, 7000, (0.5, 0.5)), mask_of(np.random.default_rng(1).random((70, 90)) < 0.8)
    every = make_grid(one, tissue, TilingSettings())
    some = make_grid(one, tissue, TilingSettings(max_tiles=100))
    again = make_grid(one, tissue, TilingSettings(max_tiles=100))
    other = make_grid(one, tissue, TilingSettings(max_tiles=100, sample_seed=1))
    assert len(some) == 100
    np.testing.assert_array_equal(some.grid, again.grid)
    assert (some.grid != other.grid).any()
    places = [tuple(place) for place in some.grid.tolist()]
    assert places == sorted(places)
    assert set(places) <= {tuple(place) for place in every.grid.tolist()}
    assert len(make_grid(one, tissue, TilingSettings(max_tiles=10**6))) == len(every)


def test_the_side_of_a_tile_can_be_given_in_micrometres() -> None:
    assert TilingSettings(tile_um=112, tile_px=224).target_mpp == 0.5
    assert TilingSettings(tile_um=256).target_mpp == pytest.approx(256 / 224)
    assert TilingSettings(tile_um=112, tile_px=224, target_mpp=0.5).target_mpp == 0.5
    with pytest.raises(ValueError, match=r"but target_mpp says 0\.25; leave one of the two out"):
        TilingSettings(tile_um=112, tile_px=224, target_mpp=0.25)


@pytest.mark.parametrize("mpp", [0.25, 0.2527, 0.499, 0.7])
@pytest.mark.parametrize("changes", [{}, {"decode": "scaled"}, {"align_to_native": True}, {"tile_px": 100}])
def test_a_tile_covers_its_pixels_at_the_resolution_that_results(mpp: float, changes: dict[str, object]) -> None:
    geometry = SlideGeometry(30_000, 20_000, (1.0, 4.0), (mpp, mpp), (1, 2, 4, 8), (256, 256))
    settings = TilingSettings(max_enlargement=2, **changes)  # type: ignore[arg-type]
    plan = plan_reading(geometry, settings)
    width, height = plan.footprint_level0_px(geometry)
    assert width * mpp == pytest.approx(plan.mpp_read[0] * plan.tile_px, rel=1e-9)
    assert height * mpp == pytest.approx(plan.mpp_read[1] * plan.tile_px, rel=1e-9)
    grid = make_grid(geometry, TissueMask(np.ones((20, 30), dtype=bool)), settings)
    assert grid.footprint_level0_px == (width, height)
    assert len(grid) + len(grid.rejected) == grid.shape[0] * grid.shape[1]


def test_a_tile_without_a_pixel_of_tissue_is_not_said_to_hold_a_little() -> None:
    """Differences of sums over a whole slide leave rounding behind, which is no tissue."""
    rng = np.random.default_rng(0)
    tissue = np.zeros((700, 900), dtype=bool)
    tissue[40:330, 60:480] = rng.random((290, 420)) < 0.7
    one = geometry(29_873, 23_311, (0.2527, 0.2527))
    grid = make_grid(one, mask_of(tissue), TilingSettings(tile_px=128))
    sides = [grid.footprint_level0_px[0] * 900 / 29_873, grid.footprint_level0_px[1] * 700 / 23_311]
    for (row, column), reason in zip(grid.rejected.tolist(), grid.reasons.tolist(), strict=True):
        top, left = row * sides[1], column * sides[0]
        part = tissue[int(top) : int(np.ceil(top + sides[1])), int(left) : int(np.ceil(left + sides[0]))]
        if not part.any():
            assert reason == Rejection.NO_TISSUE, (row, column)
