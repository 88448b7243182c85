"""One slide -> one bag: batches, damage, focus, and what an encoder may not give."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from torch import Tensor, nn

from pathoml.bags import Bag, read_bag
from pathoml.cohort import SlideEntry
from pathoml.encoders.build import build_encoder
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.encoders.weights_identity import known_weights_digest
from pathoml.errors import DamagedSlideError, EncoderError, OutputError
from pathoml.extract import extract_archive, extract_slide
from pathoml.extract_settings import ExtractSettings, Recipe, recipe_from_json
from pathoml.slides import open_slide
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiling import TileFlag, TilingSettings
from pathoml.tissue import ClassicalTissueSettings

LITE0_DIGEST = known_weights_digest(Lite0Settings())
"""What stands in for the encoder says that it has its weights: bags made with others are made again."""
PLAN = TissuePlan(
    seed=(7, 0), width_um=560.0, height_um=448.0, tissue_area_mm2=0.12, necrosis=0.2, lymphocytes=0.2,
    tumour=0.5, glands=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    draw_slide(path, SlideSpec("a", PLAN, 0.5, HOSPITALS[3].stain))
    return path


def entry(path: Path) -> SlideEntry:
    return SlideEntry(path.stem, path, "P1", None, 2)


def recipe(*, tiling: TilingSettings | None = None, **extract: object) -> Recipe:
    settings = ExtractSettings(**{"workers": 0, "feature_dtype": "float32", **extract})
    return Recipe(ClassicalTissueSettings(), tiling or TilingSettings(), Lite0Settings(), settings)


class Quarters(nn.Module):
    """Mean colours of a tile's quarters, times a factor; counts the calls."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.factor


class FirstBatches(Quarters):
    """Another factor for the first batches."""

    def __init__(self, count: int, factor: float) -> None:
        super().__init__()
        self.count, self.first_factor = count, factor

    def forward(self, images: Tensor) -> Tensor:
        factor = self.first_factor if len(self.batches) < self.count else 1.0
        return super().forward(images) * factor


def toy(module: Quarters | None = None) -> Encoder:
    return Encoder("toy", module or Quarters(), 12, 0.5, 224, (0.0,) * 3, (1.0,) * 3, LITE0_DIGEST, "", "")


def spoil_level_0(path: Path, index: int) -> None:
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[index], tiff.pages[0].databytecounts[index]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes(count))


def test_features_are_those_of_the_pixels_under_the_coordinates(slide: Path) -> None:
    bag = extract_slide(entry(slide), recipe(), toy())
    with open_slide(slide) as opened:
        for (x, y), features in zip(bag.coords.tolist(), bag.features, strict=True):
            pixels = opened.read_region((x, y), 0, (224, 224)).pixels / 255
            quarters = pixels.reshape(2, 112, 2, 112, 3).mean(axis=(1, 3))
            np.testing.assert_allclose(features, quarters.transpose(2, 0, 1).ravel(), atol=3e-4)


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    return build_encoder(Lite0Settings())


@pytest.fixture(scope="module")
def in_one_batch(slide: Path, lite0: Encoder) -> Bag:
    return extract_slide(entry(slide), recipe(batch_tiles=8), lite0)


@pytest.mark.parametrize("batch_tiles", [1, 3])
def test_the_batch_size_does_not_change_the_bag(
    slide: Path, lite0: Encoder, in_one_batch: Bag, batch_tiles: int
) -> None:
    some, other = extract_slide(entry(slide), recipe(batch_tiles=batch_tiles), lite0), in_one_batch
    np.testing.assert_array_equal(some.coords, other.coords)
    np.testing.assert_array_equal(some.flags, other.flags)
    scale = float(np.abs(other.features).max())
    np.testing.assert_allclose(some.features, other.features, atol=1e-3 * scale)
    assert np.ptp(other.features, axis=0).max() > 0.1 * scale


def test_the_last_batch_is_padded_to_the_full_size_and_the_padding_left_out(slide: Path) -> None:
    encoder = toy()
    bag = extract_slide(entry(slide), recipe(batch_tiles=5), encoder)
    assert len(bag.features) % 5, "the last batch must be short for this to say anything"
    assert encoder.module.batches == [5] * -(-len(bag.features) // 5)
    np.testing.assert_array_equal(bag.features, extract_slide(entry(slide), recipe(batch_tiles=1), toy()).features)


def damaged(slide: Path, tmp_path: Path, max_lost_share: float) -> tuple[Bag, Bag]:
    path = tmp_path / "a.tif"
    shutil.copy(slide, path)
    spoil_level_0(path, 7)
    settings = recipe(max_lost_share=max_lost_share)
    return extract_slide(entry(slide), settings, toy()), extract_slide(entry(path), settings, toy())


def test_a_damaged_tile_loses_the_tiles_that_touch_it_and_no_other(slide: Path, tmp_path: Path) -> None:
    whole, rest = damaged(slide, tmp_path, 0.9)
    lost = {tuple(one) for one in whole.coords.tolist()} - {tuple(one) for one in rest.coords.tolist()}
    touching = {
        (x, y) for x, y in whole.coords.tolist() if 512 - 224 < x < 768 and 256 - 224 < y < 512
    }  # the eighth of five tiles a row
    assert lost == touching
    assert rest.header.lost_tiles == len(lost) > 0
    kept = [tuple(one) not in lost for one in whole.coords.tolist()]
    np.testing.assert_array_equal(rest.features, whole.features[kept])
    np.testing.assert_array_equal(rest.grid, whole.grid[kept])


def test_a_slide_that_loses_too_much_is_refused(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedSlideError, match=r"a\.tif: \d of \d+ tiles cannot be decoded; copy the slide again"):
        damaged(slide, tmp_path, 0.1)


def test_only_tiles_out_of_focus_are_flagged(slide: Path, tmp_path: Path) -> None:
    wide = dataclasses.replace(PLAN, width_um=1400.0, height_um=1120.0, tissue_area_mm2=0.9)
    draw_slide(tmp_path / "b.tif", SlideSpec("b", wide, 0.5, HOSPITALS[3].stain, is_blurred=True))
    sharp, blurred = (extract_slide(entry(path), recipe(), toy()) for path in (slide, tmp_path / "b.tif"))
    assert not (sharp.flags & TileFlag.OUT_OF_FOCUS).any()
    assert 0 < np.count_nonzero(blurred.flags & TileFlag.OUT_OF_FOCUS) < len(blurred.flags)


@pytest.mark.parametrize("tiling", [TilingSettings(tile_px=256), TilingSettings(target_mpp=0.25)])
def test_an_encoder_that_takes_other_tiles_stops_everything_before_work(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiling: TilingSettings
) -> None:
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy())
    with pytest.raises(EncoderError, match=r"encoder toy takes 224 px tiles at 0\.5 mpp, tiling makes"):
        extract_archive([entry(slide)], recipe(tiling=tiling), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize(("factor", "remedy"), [(np.nan, "check the encoder"), (1e6, "feature_dtype: float32")])
def test_features_that_cannot_be_kept_cost_their_slide_and_not_the_archive(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, remedy: str
) -> None:
    batches = -(-len(extract_slide(entry(slide), recipe(), toy()).features) // 8)
    monkeypatch.setattr("pathoml.extract.archive.built_encoder", lambda *_: toy(FirstBatches(batches, factor)))
    entries = [dataclasses.replace(entry(slide), slide_id=name) for name in ("wild", "tame")]
    outcomes = extract_archive(entries, recipe(feature_dtype="float16"), tmp_path)
    assert [one.status for one in outcomes] == ["failed", "done"]
    assert remedy in outcomes[0].message
    assert len(read_bag(tmp_path / "tame.h5").features) == outcomes[1].tiles


def test_a_folder_that_cannot_be_made_is_an_output_error(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        extract_archive([entry(slide)], recipe(), tmp_path / "file" / "bags")


def test_a_recipe_survives_json_with_its_digest() -> None:
    one = recipe(tiling=TilingSettings(overlap=0.25), batch_tiles=3, workers=7)
    again = recipe_from_json(one.to_json())
    assert again.digest == one.digest
    assert again.tiling == one.tiling
    assert again.extract.workers == ExtractSettings().workers, "how work is done does not travel"


def test_the_digest_of_a_recipe_changes_with_what_decides_the_result_alone() -> None:
    same = [recipe(), recipe(workers=5), recipe(slide_timeout_s=1)]
    other = [recipe(batch_tiles=3), recipe(precision="bfloat16"), recipe(tiling=TilingSettings(overlap=0.1))]
    assert len({one.digest for one in same}) == 1
    assert len({one.digest for one in [*same, *other]}) == 4
