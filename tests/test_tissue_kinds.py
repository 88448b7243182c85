"""Tissue outlined by a person, or found by a network, instead of by its colour."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models.segmentation as architectures

from pathoml.artefacts import QualitySettings, TileFlag
from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.config import load_config
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import ConfigError, EncoderError
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe, recipe_from_json
from pathoml.files import file_digest
from pathoml.geojson import geojson_finder, mask_of_features
from pathoml.segmenters.build import build_segmenter, model_finder
from pathoml.slides import SlideGeometry, open_slide, whole_slide_image
from pathoml.slides.tiff_layout import tiled_images
from pathoml.stain_settings import MacenkoSettings
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiles import Look, lay_tiles
from pathoml.tiling import Rejection, TilingSettings
from pathoml.tissue import ClassicalTissueSettings, GeojsonTissueSettings, ModelTissueSettings

PLAN = TissuePlan(
    seed=(11, 0), width_um=1200.0, height_um=960.0, tissue_area_mm2=0.55, necrosis=0.2, lymphocytes=0.2,
    tumour=0.5, glands=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kinds") / "a.tif"
    draw_slide(path, SlideSpec("a", PLAN, 0.5, HOSPITALS[3].stain, pen="blue"))
    return path


def rectangle(left: float, top: float, right: float, bottom: float, **properties: object) -> dict[str, object]:
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": properties}


def outline(folder: Path, *features: object) -> GeojsonTissueSettings:
    folder.mkdir(exist_ok=True)
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return GeojsonTissueSettings(folder=folder)


def entry(slide: Path) -> SlideEntry:
    return SlideEntry("a", slide, "P1", None, 2)


def test_tiles_lie_where_a_person_outlined_tissue(slide: Path, tmp_path: Path) -> None:
    settings = outline(
        tmp_path, rectangle(224, 224, 1120, 896, classification={"name": "Tumor"}),
        rectangle(448, 448, 672, 672, classification={"name": "Exclude"}),
    )  # fmt: skip
    look = Look(settings.mask_mpp, geojson_finder(settings, "a"), QualitySettings(drop=()))
    with open_slide(slide) as opened:
        grid = lay_tiles(opened, look, TilingSettings()).grid
    expected = {(row, column) for row in range(1, 4) for column in range(1, 5)} - {(2, 2)}
    assert {tuple(place) for place in grid.grid.tolist()} == expected
    np.testing.assert_allclose(grid.tissue_share, 1, atol=0.03)


@pytest.mark.parametrize(
    ("properties", "include", "inside"),
    [
        ({"classification": {"name": "Tumor: Positive"}}, ("tumor",), True),
        ({"classification": {"names": ["Tumor", "Positive"]}}, ("Tumor: Positive",), True),
        ({"classification": {"names": ["Tumor", "Positive"]}}, ("positive",), True),
        ({"name": "region of interest"}, ("Region of interest",), True),
        ({"classification": {"name": "Stroma"}}, ("tumor",), False),
        ({}, (), True),
        ({"classification": {"name": "Ignore*"}}, (), False),
        ({"classification": {"name": "Stroma"}, "name": "exclude"}, (), False),
    ],
)
def test_regions_are_known_by_class_part_of_class_or_name(
    properties: dict[str, object], include: tuple[str, ...], inside: bool
) -> None:
    geometry = SlideGeometry(100, 100, (1.0,), (0.5, 0.5))
    other = rectangle(60, 60, 90, 90, classification={"name": include[0] if include else "Tissue"})
    mask = mask_of_features([rectangle(10, 10, 40, 40, **properties), other], geometry, (100, 100), include=include)
    assert bool(mask[20, 20]) is inside
    assert mask[70, 70]


def test_a_changed_outline_makes_the_bag_again_and_a_missing_one_costs_its_slide(slide: Path, tmp_path: Path) -> None:
    settings = outline(tmp_path / "regions", rectangle(0, 0, 1120, 896))
    recipe = Recipe(settings, TilingSettings(), Lite0Settings(), ExtractSettings(workers=0))
    assert extract_archive([entry(slide)], recipe, tmp_path / "bags")[0].status == "done"
    assert extract_archive([entry(slide)], recipe, tmp_path / "bags")[0].status == "kept"
    assert read_bag(tmp_path / "bags/a.h5").header.regions_digest == file_digest(tmp_path / "regions/a.geojson")
    outline(tmp_path / "regions", rectangle(0, 0, 896, 896))
    assert extract_archive([entry(slide)], recipe, tmp_path / "bags")[0].status == "done"
    (tmp_path / "regions/a.geojson").unlink()
    lost = extract_archive([entry(slide)], recipe, tmp_path / "bags")[0]
    assert (lost.status, lost.code) == ("failed", "NO_REGIONS")
    assert "export the regions from QuPath" in lost.message


def network(tmp_path: Path, architecture: str, tissue_below: float | None = None) -> ModelTissueSettings:
    """Random weights of the true architecture; with a bound, one whose answer is known: red channel below it is tissue."""
    torch.manual_seed(0)
    build = getattr(architectures, architecture)
    state = build(weights=None, weights_backbone=None, num_classes=2).state_dict()
    path = tmp_path / f"{architecture}.pth"
    torch.save(state, path)
    return ModelTissueSettings(
        architecture=architecture,
        weights=path,
        sha256=file_digest(path),
        mpp=4.0,
        window_px=128,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("architecture", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_a_network_of_the_true_architecture_is_built_and_covers_the_slide(
    slide: Path, tmp_path: Path, architecture: str
) -> None:
    segmenter = build_segmenter(network(tmp_path, architecture))
    with open_slide(slide) as opened:
        picture = whole_slide_image(opened, 8.0)
        nothing = np.zeros(picture.shape[:2], dtype=bool)
        first, again = (model_finder(segmenter)(opened, picture, 8.0, nothing) for _ in range(2))
    assert first.shape == picture.shape[:2]
    assert np.array_equal(first, again)


class RedIsLow(torch.nn.Module):
    """A network whose right answer is known: tissue is where red light is taken."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = -8 * (images[:, :1] - 1.6)  # normalised by ImageNet's mean and spread; glass is above 2
        return torch.cat([-score, score], dim=1)


def test_windows_of_a_network_are_put_together_where_they_belong(slide: Path, tmp_path: Path) -> None:
    settings = network(tmp_path, "lraspp_mobilenet_v3_large")
    segmenter = build_segmenter(settings)
    known = type(segmenter)(RedIsLow(), settings)
    with open_slide(slide) as opened:
        picture = whole_slide_image(opened, 8.0)
        found = model_finder(known)(opened, picture, 8.0, np.zeros(picture.shape[:2], dtype=bool))
    expected = (picture[..., 0] / 255 - 0.485) / 0.229 < 1.6
    assert (found == expected).mean() > 0.97


class AllTissue(torch.nn.Module):
    """A network that says tissue everywhere."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(images[:, 0]), torch.ones_like(images[:, 0])], dim=1) * 9


def test_a_damaged_tile_takes_no_window_of_a_network_with_it(slide: Path, tmp_path: Path) -> None:
    settings = network(tmp_path, "lraspp_mobilenet_v3_large")
    segmenter = type(build_segmenter(settings))(AllTissue(), settings)
    image, data = tiled_images(slide)[0], bytearray(slide.read_bytes())
    middle = image.rows // 2 * image.columns + image.columns // 2
    start = int(image.offsets[middle]) + int(image.counts[middle]) // 3
    data[start : start + 40] = b"\xff\xd8" * 20
    (tmp_path / "bad.tif").write_bytes(data)
    with open_slide(tmp_path / "bad.tif") as opened:
        picture = whole_slide_image(opened, 8.0)
        assert model_finder(segmenter)(opened, picture, 8.0, np.zeros(picture.shape[:2], dtype=bool)).all()


def test_weights_that_do_not_fit_or_are_others_are_refused(tmp_path: Path) -> None:
    good = network(tmp_path, "lraspp_mobilenet_v3_large")
    with pytest.raises(EncoderError, match="do not fit the architecture"):
        build_segmenter(good.model_copy(update={"architecture": "deeplabv3_mobilenet_v3_large"}))
    with pytest.raises(EncoderError, match="SHA-256 is"):
        build_segmenter(good.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(EncoderError, match="tumour not among the classes background, tissue"):
        build_segmenter(good.model_copy(update={"tissue_classes": ("tumour",)}))


def test_the_kind_of_tissue_may_be_left_out_and_mistakes_name_the_key(tmp_path: Path) -> None:
    base = "name: s\noutput: o\ncohort: {table: c.csv, time: t, time_unit: days, event: e}\n"
    path = tmp_path / "study.yaml"
    path.write_text(base + "tissue:\n  min_saturation: 0.1\n")
    assert load_config(path).tissue == ClassicalTissueSettings(min_saturation=0.1)
    path.write_text(base + "tissue:\n  min_saturatio: 0.1\n")
    with pytest.raises(ConfigError, match=r"study\.yaml:5: tissue\.min_saturatio: unknown key; did you mean 'min_sat"):
        load_config(path)
    path.write_text(base + "tissue:\n  kind: geojson\n  folder: regions\n")
    assert load_config(path).tissue == GeojsonTissueSettings(folder=tmp_path / "regions")
    path.write_text(base + "tissue:\n  kind: geojsn\n")
    with pytest.raises(ConfigError, match=r"'geojsn' is not one of classical, geojson, model; did you mean 'geojson'"):
        load_config(path)


def test_recipes_of_every_kind_survive_json_without_their_paths(tmp_path: Path) -> None:
    for tissue, source in (
        (ClassicalTissueSettings(), None), (GeojsonTissueSettings(folder=tmp_path), str(tmp_path)),
        (network(tmp_path, "lraspp_mobilenet_v3_large"), str(tmp_path / "lraspp_mobilenet_v3_large.pth")),
    ):  # fmt: skip
        recipe = Recipe(
            tissue,
            TilingSettings(),
            Lite0Settings(),
            ExtractSettings(),
            QualitySettings(drop=("fold",)),
            MacenkoSettings(),
        )
        stored = json.dumps(recipe.to_json())
        assert str(tmp_path) not in stored
        again = recipe_from_json(json.loads(stored), tissue_source=source)
        assert again == recipe
        assert again.digest == recipe.digest


def test_dropped_artefacts_are_cut_out_and_counted_and_others_flagged(slide: Path) -> None:
    with open_slide(slide) as opened:
        cut = lay_tiles(opened, Look(), TilingSettings())
        kept = lay_tiles(opened, Look(quality=QualitySettings(drop=(), flag_share=0)), TilingSettings())
    assert cut.grid.count_rejected(Rejection.PEN) > 0
    assert kept.grid.count_rejected(Rejection.PEN) == 0
    inked = {tuple(one) for one in kept.grid.grid[(kept.grid.flags & TileFlag.PEN) > 0].tolist()}
    dropped = {tuple(one) for one in cut.grid.rejected[cut.grid.reasons == Rejection.PEN].tolist()}
    assert dropped <= inked


def test_a_normalised_bag_says_so_and_differs(slide: Path, tmp_path: Path) -> None:
    plain = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(workers=0))
    recipes = {
        "none": plain,
        "macenko": Recipe(plain.tissue, plain.tiling, plain.encoder, plain.extract, stain=MacenkoSettings()),
    }
    bags = {}
    for name, recipe in recipes.items():
        assert extract_archive([entry(slide)], recipe, tmp_path / name)[0].status == "done"
        bags[name] = read_bag(tmp_path / name / "a.h5")
        assert bags[name].header.stain == name
    assert bags["none"].header.optical_density == bags["macenko"].header.optical_density
    assert bags["none"].header.optical_density["mean_green"] > 0.1
    assert not np.array_equal(bags["none"].features, bags["macenko"].features)
    assert np.array_equal(bags["none"].coords, bags["macenko"].coords)
