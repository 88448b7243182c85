"""The fast tier gives OpenSlide's pixels, decodes each stored tile once, and resamples by the exact ratio."""

import errno
import itertools
import os
from pathlib import Path

import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile

from pathoml.errors import SlideError
from pathoml.slides import ReadPlan, SlideGeometry, TileState, native_reader, open_slide
from pathoml.slides.codecs import TileDecodeError, codec_for
from pathoml.slides.native_tiles import NativeLevel
from pathoml.slides.openslide_backend import OpenSlideSlide
from pathoml.slides.tiff_layout import tiled_images
from pathoml.testing.pyramid import TILE_PX, write_pyramid
from pathoml.tiling import TilingSettings, plan_reading

CMU = "slides/CMU-1-Small-Region.svs"
SKIN = "slides/TCGA-CR-7395-01A-01-TS1.svs"


def picture(height: int = 1100, width: int = 1300) -> np.ndarray:
    """Blurred noise: structure at every scale, different everywhere."""
    rng = np.random.default_rng(5)
    image = np.zeros((height, width, 3))
    for step in (1, 7, 40):
        coarse = rng.uniform(-1, 1, (height // step + 2, width // step + 2, 3))
        image += np.kron(coarse, np.ones((step, step, 1)))[:height, :width] * (20 + step)
    return np.clip(150 + image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "drawn.tif"
    write_pyramid(path, picture(), mpp=0.25, downsamples=(4,))
    return path


def read_all(
    path: Path, coords: np.ndarray, plan: ReadPlan, *, threads: int = 1, step: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    out = np.full((len(coords), plan.tile_px, plan.tile_px, 3), 7, dtype=np.uint8)
    states = np.full(len(coords), 99, dtype=np.uint8)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.metadata["tier"] == "native tiles"
        reader = slide.tile_reader(coords, plan, threads=threads)
        for start in range(0, len(coords), step):
            stop = min(len(coords), start + step)
            states[start:stop] = reader.read(start, stop, out[start:stop])
    return out, states


def lattice(width: int, height: int, step: int, offset: int = 0) -> np.ndarray:
    return np.array([(x, y) for y in range(offset, height, step) for x in range(offset, width, step)], dtype=np.int32)


@pytest.mark.parametrize("name", [CMU, SKIN])
@pytest.mark.parametrize(("tile_px", "offset"), [(240, 0), (256, 0), (224, 0), (256, 61), (100, -30)])
def test_every_native_tile_of_a_real_slide_has_the_pixels_of_openslide(
    data_dir: Path, name: str, tile_px: int, offset: int
) -> None:
    path = data_dir / name
    with openslide.OpenSlide(path) as reference:
        for level, (width, height) in enumerate(reference.level_dimensions):
            downsample = reference.level_downsamples[level]
            exact = lattice(width, height, tile_px, offset) * downsample
            coords = np.rint(exact).astype(np.int32)
            # Between pixels OpenSlide interpolates, so only corners on the pixels of the level can be compared.
            coords = coords[(np.abs(coords - exact) / downsample < 1 / 512).all(axis=1)]
            if not len(coords):
                assert level > 0, "at level 0 every corner falls on a whole pixel"
                continue
            chosen = coords[:: max(1, len(coords) // 60)]
            plan = ReadPlan(level, (tile_px, tile_px), tile_px, (0.25, 0.25))
            tiles, states = read_all(path, chosen, plan)
            assert (states == TileState.WHOLE).all()
            for tile, (x, y) in zip(tiles, chosen.tolist(), strict=True):
                rgba = np.asarray(reference.read_region((x, y), level, (tile_px, tile_px)))
                theirs = np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])
                np.testing.assert_array_equal(tile, theirs)


@pytest.mark.parametrize("read_px", [256, 512, 300, 507])
@pytest.mark.parametrize("offset", [0, 13])
def test_both_tiers_give_the_same_tiles_at_any_resolution(drawn: Path, read_px: int, offset: int) -> None:
    coords = lattice(1300, 1100, read_px, offset)
    plan = ReadPlan(0, (read_px, read_px), 256, (0.5, 0.5), (256 / read_px, 256 / read_px))
    fast, states = read_all(drawn, coords, plan)
    slow = np.empty_like(fast)
    with OpenSlideSlide(drawn) as slide:
        np.testing.assert_array_equal(slide.tile_reader(coords, plan).read(0, len(coords), slow), states)
    np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize(("tile_px", "step", "offset"), [(256, 256, 0), (224, 224, 0), (256, 128, 0), (300, 150, 33)])
def test_each_stored_tile_is_decoded_once_however_the_grid_lies(
    drawn: Path, monkeypatch: pytest.MonkeyPatch, tile_px: int, step: int, offset: int
) -> None:
    decoded: list[int] = []
    original = NativeLevel.decode

    def counted(self: NativeLevel, index: int, out: np.ndarray, reduction: int = 1) -> bool:
        decoded.append(index)
        return original(self, index, out, reduction)

    coords = lattice(1300, 1100, step, offset)
    with open_slide(drawn) as slide:
        monkeypatch.setattr(NativeLevel, "decode", counted)
        reader = slide.tile_reader(coords, ReadPlan(0, (tile_px, tile_px), tile_px, (0.25, 0.25)))
        buffer = np.empty((len(coords), tile_px, tile_px, 3), dtype=np.uint8)
        for start, stop in itertools.pairwise([*range(0, len(coords), 5), len(coords)]):
            reader.read(start, stop, buffer)
    assert len(decoded) == len(set(decoded))
    assert set(decoded) == set(range(-(-1300 // TILE_PX) * -(-1100 // TILE_PX))), "the grid covers the slide"


@pytest.mark.parametrize("read_px", [256, 512, 507])
def test_threads_and_the_size_of_requests_do_not_change_a_byte(drawn: Path, read_px: int) -> None:
    coords = lattice(1300, 1100, 97, -40)
    plan = ReadPlan(0, (read_px, read_px), 256, (0.5, 0.5), (256 / read_px, 256 / read_px))
    alone, states = read_all(drawn, coords, plan, step=1)
    for threads, step in ((2, 64), (3, 5), (1, 1000)):
        tiles, again = read_all(drawn, coords, plan, threads=threads, step=step)
        np.testing.assert_array_equal(tiles, alone)
        np.testing.assert_array_equal(again, states)


def test_a_reader_keeps_no_more_decoded_tiles_than_a_row_of_the_level(drawn: Path) -> None:
    coords = lattice(1300, 1100, 100)
    with open_slide(drawn) as slide:
        reader = slide.tile_reader(coords, ReadPlan(0, (100, 100), 100, (0.25, 0.25)))
        buffer = np.empty((1, 100, 100, 3), dtype=np.uint8)
        most = 0
        for row in range(len(coords)):
            reader.read(row, row + 1, buffer)
            most = max(most, len(reader._held))
    assert most <= -(-1300 // TILE_PX) + 2
    assert not reader._held, "all are let go in the end"


def area_average(pixels: np.ndarray, extent: float, size: int) -> np.ndarray:
    """Average over equal parts of an extent, by weights written out: the definition, in float64."""
    edges = np.arange(size + 1) * extent / size
    cells = np.arange(pixels.shape[0])
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0, None) / (extent / size)
    return np.einsum("yr,rcd,xc->yxd", weights, pixels.astype(float), weights, optimize=True)


@pytest.mark.parametrize("mpp", [0.2527, 0.25, 0.231, 0.4])
def test_a_tile_is_the_area_average_over_its_exact_extent(tmp_path: Path, mpp: float) -> None:
    path = tmp_path / "exact.tif"
    write_pyramid(path, picture(), mpp=mpp, downsamples=())
    with open_slide(path) as slide:
        geometry = SlideGeometry(1300, 1100, (1.0,), (mpp, mpp))
        plan = plan_reading(geometry, TilingSettings(tile_px=256))
        out = np.empty((1, 256, 256, 3), dtype=np.uint8)
        slide.tile_reader([(37, 55)], plan).read(0, 1, out)
        extent = 256 * 0.5 / mpp
        side = int(np.ceil(extent))
        expected = area_average(slide.read_region((37, 55), 0, (side, side)).pixels, extent, 256)
    assert plan.mpp_read == pytest.approx((0.5, 0.5), rel=1e-12)
    # Rounding to grey levels takes half of one; OpenCV leaves out source pixels that cover under a thousandth.
    np.testing.assert_allclose(out[0], expected, atol=0.6)


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("offset", [0, 64])
def test_shrinking_while_decoding_stays_close_to_the_exact_average(drawn: Path, reduction: int, offset: int) -> None:
    coords = lattice(1300 - 256 * reduction, 1100 - 128 * reduction, 128 * reduction, offset)[:20]
    coords = coords if len(coords) else np.array([[offset, offset]], dtype=np.int32)
    exact = ReadPlan(0, (128 * reduction, 128 * reduction), 128, (1.0, 1.0), (1 / reduction, 1 / reduction))
    scaled = ReadPlan(0, (128, 128), 128, (1.0, 1.0), (1.0, 1.0), reduction)
    one, _ = read_all(drawn, coords, exact)
    other, _ = read_all(drawn, coords, scaled)
    assert np.abs(one.astype(int) - other).mean() < 3  # noise of every frequency, far harsher than tissue


def spoiled(path: Path, index: int, *, content: bytes | None) -> Path:
    """Overwrite the stream of one stored tile, or take its bytes away."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages[0]
        offset, counts = page.dataoffsets[index], list(page.databytecounts)
        if content is None:
            counts[index] = 0
            page.tags["TileByteCounts"].overwrite(counts)
    if content is not None:
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(content * (counts[index] // len(content)))
    return path


@pytest.mark.parametrize("step", [256, 200])
def test_a_damaged_stored_tile_costs_the_tiles_it_lies_under_and_no_other(
    tmp_path: Path, drawn: Path, step: int
) -> None:
    path = tmp_path / "bad.tif"
    path.write_bytes(drawn.read_bytes())
    coords = lattice(1300, 1100, step)
    plan = ReadPlan(0, (step, step), step, (0.25, 0.25))
    before, _ = read_all(drawn, coords, plan)
    spoiled(path, 8, content=b"\0\xff\xd9")
    after, states = read_all(path, coords, plan)
    left, top = 8 % 6 * TILE_PX, 8 // 6 * TILE_PX
    under = (np.abs(coords - (left, top) + np.array([step - TILE_PX, step - TILE_PX]) / 2) < (step + TILE_PX) / 2).all(
        1
    )
    np.testing.assert_array_equal(states == TileState.LOST, under)
    np.testing.assert_array_equal(after[~under], before[~under])


@pytest.mark.parametrize("step", [256, 200])
def test_a_tile_that_was_never_written_is_background_and_counted(tmp_path: Path, drawn: Path, step: int) -> None:
    path = tmp_path / "gap.tif"
    path.write_bytes(drawn.read_bytes())
    spoiled(path, 8, content=None)
    coords = lattice(1300, 1100, step)
    tiles, states = read_all(path, coords, ReadPlan(0, (step, step), step, (0.25, 0.25)))
    hole = np.zeros((1100, 1300), dtype=bool)
    hole[TILE_PX : 2 * TILE_PX, 2 * TILE_PX : 3 * TILE_PX] = True
    for tile, state, (x, y) in zip(tiles, states, coords.tolist(), strict=True):
        inside = hole[y : y + step, x : x + step]
        assert (tile[: inside.shape[0], : inside.shape[1]][inside] == 255).all()
        assert state == (TileState.ABSENT_PART if inside.any() else TileState.WHOLE)


def test_a_slide_whose_pixels_would_differ_is_left_to_openslide_with_the_reason(
    drawn: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = NativeLevel.decode

    def one_grey_level_off(self: NativeLevel, index: int, out: np.ndarray, reduction: int = 1) -> bool:
        whole = original(self, index, out, reduction)
        out[3, 3] ^= 1
        return whole

    monkeypatch.setattr(NativeLevel, "decode", one_grey_level_off)
    with caplog.at_level("INFO"), open_slide(drawn) as slide:
        assert slide.metadata["tier"] == "openslide"
    assert "drawn.tif: read through OpenSlide: level 0, stored tile in row" in caplog.text
    assert "pixels differ by up to 1" in caplog.text


def test_a_compression_without_a_fast_codec_is_left_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "lzw.tif"
    tifffile.imwrite(path, picture(), tile=(256, 256), compression="lzw", photometric="rgb")
    with open_slide(path) as slide:
        assert slide.metadata["tier"] == "openslide"
        np.testing.assert_array_equal(slide.read_region((10, 20), 0, (500, 300)).pixels, picture()[20:320, 10:510])


def test_closing_twice_is_allowed_and_frees_the_file(drawn: Path) -> None:
    slide = open_slide(drawn)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match=r"drawn\.tif: stored tile 0 .* cannot be read from the file"):
        slide.read_region((0, 0), 0, (64, 64))


def test_a_closed_slide_does_not_read_another_file_that_got_its_number(drawn: Path, tmp_path: Path) -> None:
    slide = open_slide(drawn)
    reader = slide.tile_reader(np.array([[0, 0]]), ReadPlan(0, (256, 256), 256, (0.25, 0.25)))
    slide.close()
    with open_slide(drawn), open_slide(drawn):  # one of them has the number that the closed one had
        assert reader.read(0, 1, np.empty((1, 256, 256, 3), dtype=np.uint8)).tolist() == [TileState.LOST]


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 256, 256, 3), dtype=np.float32), np.empty((2, 256, 256), dtype=np.uint8),
        np.empty((2, 256, 256, 4), dtype=np.uint8)[..., :3], np.empty((1, 256, 256, 3), dtype=np.uint8),
    ],
)  # fmt: skip
def test_tiles_are_not_read_into_memory_that_does_not_fit(drawn: Path, out: np.ndarray) -> None:
    with open_slide(drawn) as slide, OpenSlideSlide(drawn) as other:
        for one in (slide, other):
            reader = one.tile_reader(np.array([[0, 0], [256, 0]]), ReadPlan(0, (256, 256), 256, (0.25, 0.25)))
            with pytest.raises(ValueError, match="tiles are"):
                reader.read(0, 2, out)


def rewritten(source: Path, target: Path, number: int, tile: bytes) -> None:
    """Copy a slide with another JPEG, appended, in place of one stored tile of level 0."""
    data = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        for name, value in (("TileOffsets", len(data)), ("TileByteCounts", len(tile))):
            tag = page.tags[name]
            size = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
            place = tag.valueoffset + number * size
            data[place : place + size] = value.to_bytes(size, "little")
    target.write_bytes(bytes(data) + tile)


@pytest.mark.parametrize("side", [64, 128, 255, 511, 512])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_a_stored_tile_of_another_size_is_lost_and_not_shrunk_to_fit(
    drawn: Path, tmp_path: Path, side: int, reduction: int
) -> None:
    number = 7
    tile = simplejpeg.encode_jpeg(np.full((side, side, 3), 90, dtype=np.uint8), quality=20)
    rewritten(drawn, tmp_path / "odd.tif", number, tile)
    with open_slide(tmp_path / "odd.tif") as slide:
        assert slide.metadata["tier"] == "native tiles"
        px = TILE_PX // reduction
        columns = -(-1300 // TILE_PX)
        corner = np.array([[number % columns, number // columns]]) * TILE_PX
        plan = ReadPlan(0, (px, px), px, (0.25 * reduction,) * 2, reduction=reduction)
        out = np.empty((2, px, px, 3), dtype=np.uint8)
        states = slide.tile_reader(np.vstack([corner, [[0, 0]]]), plan).read(0, 2, out)
    assert states.tolist() == [TileState.LOST, TileState.WHOLE]


def test_a_grey_tile_among_coloured_ones_is_lost(drawn: Path, tmp_path: Path) -> None:
    grey = simplejpeg.encode_jpeg(np.full((TILE_PX, TILE_PX, 1), 90, dtype=np.uint8), colorspace="GRAY", quality=20)
    rewritten(drawn, tmp_path / "grey.tif", 7, grey)
    with open_slide(tmp_path / "grey.tif") as slide:
        plan = ReadPlan(0, (TILE_PX, TILE_PX), TILE_PX, (0.25, 0.25))
        corner = np.array([[7 % 6, 7 // 6]]) * TILE_PX
        states = slide.tile_reader(corner, plan).read(0, 1, np.empty((1, TILE_PX, TILE_PX, 3), dtype=np.uint8))
    assert states.tolist() == [TileState.LOST]


@pytest.mark.parametrize("tiles", [1, 3])
def test_little_room_for_decoded_tiles_changes_no_pixel(
    drawn: Path, monkeypatch: pytest.MonkeyPatch, tiles: int
) -> None:
    coords = lattice(1300, 1100, 200, 30)
    plan = ReadPlan(0, (300, 300), 256, (0.3, 0.3), (256 / 300, 256 / 300))
    expected, states = read_all(drawn, coords, plan)
    monkeypatch.setattr(native_reader, "_MOST_HELD_BYTES", tiles * 3 * TILE_PX**2)
    found, again = read_all(drawn, coords, plan, threads=2)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again, states)
    with open_slide(drawn) as slide:
        reader = slide.tile_reader(coords, plan)
        for row in range(len(coords)):
            reader.read(row, row + 1, np.empty((1, 256, 256, 3), dtype=np.uint8))
            assert len(reader._held) + len(reader._free) <= 2 * tiles + 4, "those of one tile beside"


@pytest.mark.parametrize("mpp", [0.2503, 0.2497, 0.2527])
def test_a_tile_does_not_depend_on_which_other_tiles_are_asked_for(tmp_path: Path, mpp: float) -> None:
    path = tmp_path / "near.tif"
    write_pyramid(path, picture(), mpp=mpp, downsamples=())
    plan = plan_reading(SlideGeometry(1300, 1100, (1.0,), (mpp, mpp)), TilingSettings(tile_px=256, mpp_tolerance=0))
    coords = np.array([[0, 0], [round(256 * 0.5 / mpp), 0]], dtype=np.int32)
    together, _ = read_all(path, coords, plan)
    alone, _ = read_all(path, coords[:1], plan)
    slow = np.empty_like(together)
    with OpenSlideSlide(path) as slide:
        slide.tile_reader(coords, plan).read(0, 2, slow)
    np.testing.assert_array_equal(together, slow)
    np.testing.assert_array_equal(alone[0], slow[0])


@pytest.mark.parametrize("filling", [b"\0", b"\xff\xd9"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_a_tile_whose_second_half_is_broken_is_lost_and_not_made_up(
    tmp_path: Path, drawn: Path, filling: bytes, reduction: int
) -> None:
    path = tmp_path / "half.tif"
    whole = bytearray(drawn.read_bytes())
    with tifffile.TiffFile(drawn) as tiff:
        offset, count = tiff.pages[0].dataoffsets[8], tiff.pages[0].databytecounts[8]
    half = count // 2
    whole[offset + half : offset + count] = (filling * count)[: count - half]
    path.write_bytes(bytes(whole))
    coords = lattice(1300, 1100, 256)
    plan = ReadPlan(0, (256 // reduction,) * 2, 256 // reduction, (0.25, 0.25), (1.0, 1.0), reduction)
    _, states = read_all(path, coords, plan)
    assert np.flatnonzero(states == TileState.LOST).tolist() == [8]


@pytest.mark.parametrize(("stray", "harmless"), [(4, True), (16, True), (40, False)])
def test_a_few_bytes_between_the_last_pixel_and_the_end_mark_do_no_harm(
    drawn: Path, stray: int, *, harmless: bool
) -> None:
    """Some writers leave them, and OpenSlide reads past them; many are what is left of a stream that went astray."""
    image, data = tiled_images(drawn)[0], drawn.read_bytes()
    codec = codec_for(image)
    assert codec is not None
    lost = 0
    for start, count in zip(image.offsets.tolist(), image.counts.tolist(), strict=True):
        clean = data[start : start + count]
        assert clean.endswith(b"\xff\xd9")
        expected, found = (np.empty((TILE_PX, TILE_PX, 3), dtype=np.uint8) for _ in range(2))
        codec.decode(clean, expected)
        try:
            codec.decode(clean[:-2] + bytes(range(1, stray + 1)) + clean[-2:], found)
        except TileDecodeError:
            lost += 1
            continue
        np.testing.assert_array_equal(found, expected)
    assert (lost == 0) == harmless


def test_a_share_that_fails_under_one_tile_costs_that_tile(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coords = lattice(1300, 1100, 256)
    plan = ReadPlan(0, (256, 256), 256, (0.25, 0.25))
    with tifffile.TiffFile(drawn) as tiff:
        bad = tiff.pages[0].dataoffsets[9]
    original = os.pread

    def fails_once(descriptor: int, count: int, offset: int) -> bytes:
        if offset == bad:
            raise OSError(errno.EIO, "Input/output error")
        return original(descriptor, count, offset)

    with open_slide(drawn) as slide:
        monkeypatch.setattr("os.pread", fails_once)
        reader = slide.tile_reader(coords, plan)
        states = reader.read(0, len(coords), np.empty((len(coords), 256, 256, 3), dtype=np.uint8))
    assert np.flatnonzero(states == TileState.LOST).tolist() == [9]
