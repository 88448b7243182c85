"""Bags to and from TRIDENT, CLAM and STAMP: their keys, right places on the slide, the same model, nothing hostile."""

import dataclasses
import multiprocessing
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pathoml.bags import Bag, BagHeader, read_bag, write_bag
from pathoml.cohort import SlideEntry, SlidesSettings
from pathoml.config import load_config
from pathoml.errors import BagFormatError, ConfigError, InputError, PackageError
from pathoml.foreign_bags.lattice import find_lattice
from pathoml.hdf5_audit import COMPRESSION_BOUND, open_audited
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.manifest import read_manifest
from pathoml.packages import load_package
from pathoml.pipeline import maps
from pathoml.pipeline.checking import check
from pathoml.pipeline.exchanging import ExchangeVerdict, ImportRequest, export_bags, import_bags
from pathoml.pipeline.planning import plan
from pathoml.pipeline.predicting import PredictRequest, predict
from pathoml.pipeline.running import run
from pathoml.pipeline.stages import StageContext, train_stage
from pathoml.pipeline.study import open_study
from pathoml.pipeline.verifying import verify_bags
from pathoml.predictions import read_predictions
from pathoml.testing.pyramid import write_pyramid
from tests.command_line import pathoml

LAYOUTS = ("trident", "clam", "stamp")
DIM = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """A slide and how it was tiled."""

    mpp: tuple[float, float] = (0.25, 0.25)
    tile_px: int = 224
    target_mpp: float = 0.5
    overlap: float = 0.0
    extent: tuple[int, int] = (40_011, 30_007)

    @property
    def footprint(self) -> tuple[float, float]:
        side_um = self.tile_px * self.target_mpp
        return side_um / self.mpp[0], side_um / self.mpp[1]


CASES = {
    "0.25 mpp, overlap": Case(overlap=0.25),
    "0.5 mpp, 256 px": Case(mpp=(0.5, 0.5), tile_px=256),
    "odd mpp": Case(mpp=(0.2527, 0.2527)),
    "odd mpp, overlap": Case(mpp=(0.2527, 0.2527), tile_px=299, overlap=0.5),
    "pixels not square": Case(mpp=(0.499, 0.501)),
}


def bag(case: Case = CASES["0.25 mpp, overlap"], slide_id: str = "S1", seed: int = 0, **changes: object) -> Bag:
    """Most cells of a block that starts away from the slide's corner, on a grid as pathoml lays it."""
    rng = np.random.default_rng(seed)
    stride = (case.footprint[0] * (1 - case.overlap), case.footprint[1] * (1 - case.overlap))
    grid = np.argwhere(rng.random((25, 30)) < 0.7).astype(np.int32) + np.array([3, 5], np.int32)
    coords = np.rint(grid[:, ::-1] * np.array(stride)).astype(np.int32)
    header = BagHeader(
        slide_id=slide_id, slide_fingerprint="a" * 64, slide_digest=f"{seed:064x}", width_px=case.extent[0],
        height_px=case.extent[1], slide_mpp=case.mpp, mpp_from="metadata", target_mpp=case.target_mpp,
        mpp_read=(case.target_mpp, case.target_mpp), tile_px=case.tile_px, footprint_level0_px=case.footprint,
        stride_level0_px=stride, origin_level0_px=(0.0, 0.0), encoder="toy:net/1", weights_digest="c" * 64,
        precision_asked="float32", precision_used="float32", batch_tiles=8, batch_used=8, reader="native tiles", decode="exact",
        settings_digest="d" * 64, lost_tiles=0, rejected={}, regions_digest="", stain="none", optical_density={},
        pathoml_version="0.1.0",
    )  # fmt: skip
    features = rng.normal(size=(len(grid), DIM)).astype(np.float16)
    share, flags = np.ones(len(grid), np.float32), np.zeros(len(grid), np.uint8)
    return dataclasses.replace(Bag(header, features, coords, grid, share, flags), **changes)


def exported(folder: Path, layout: str, one: Bag) -> Path:
    write_bag(folder / "bags" / f"{one.header.slide_id}.h5", one)
    verdicts = list(export_bags(layout, [folder / "bags" / f"{one.header.slide_id}.h5"], folder / layout))
    assert [verdict.status for verdict in verdicts] == ["done"], verdicts
    return feature_file(folder / layout, layout, one.header.slide_id)


def feature_file(folder: Path, layout: str, slide_id: str) -> Path:
    inner = {"trident": "features_toy_net_1", "clam": "h5_files", "stamp": "toy_net_1"}[layout]
    return folder / inner / f"{slide_id}.h5"


def request(layout: str, path: Path, **known: object) -> ImportRequest:
    known = {"encoder": "toy:net/1", **known}
    return ImportRequest(layout=layout, files=(path,), output=path.parents[2] / "imported", **known)


def imported(layout: str, path: Path, **known: object) -> Bag:
    asked = request(layout, path, **known)
    verdicts = list(import_bags(asked))
    assert [verdict.status for verdict in verdicts] == ["done"], verdicts
    return read_bag(asked.output / f"{path.stem}.h5")


def verdict_on(layout: str, path: Path, **known: object) -> ExchangeVerdict:
    asked = request(layout, path, **known)
    verdicts = list(import_bags(asked))
    assert len(verdicts) == 1
    assert verdicts[0].status == "done" or not list(asked.output.glob("*"))
    return verdicts[0]


# What the layouts' own readers find.


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trident_export_holds_the_keys_and_sizes_that_trident_reads(tmp_path: Path, case: Case) -> None:
    one = bag(case)
    with h5py.File(exported(tmp_path, "trident", one)) as file:
        features, coords = file["features"], file["coords"]
        assert (features.dtype, features.chunks, coords.dtype) == (np.float32, (1, DIM), np.int64)
        np.testing.assert_array_equal(features[:], one.features.astype(np.float32))
        np.testing.assert_array_equal(coords[:], one.coords)
        found = dict(coords.attrs)
        assert (features.attrs["name"], features.attrs["encoder"]) == ("S1", "toy:net/1")
    assert {"name", "savetodir"} < set(found)
    side = sum(case.footprint) / 2
    assert found["patch_size"] == case.tile_px
    assert found["patch_size_level0"] == round(side)
    # TRIDENT's readers compute a tile's side from the magnifications, and the pyramid's steps from their ratio.
    assert found["patch_size"] * found["level0_magnification"] / found["target_magnification"] == pytest.approx(side)
    assert found["target_magnification"] == pytest.approx(10 / case.target_mpp)
    assert found["overlap"] == pytest.approx(case.overlap * case.tile_px)
    assert (found["level0_width"], found["level0_height"]) == case.extent


def test_trident_export_of_plain_slides_names_plain_magnifications(tmp_path: Path) -> None:
    with h5py.File(exported(tmp_path, "trident", bag())) as file:
        found = file["coords"].attrs
        names = ("level0_magnification", "target_magnification", "overlap", "patch_size_level0")
        assert [int(found[name]) for name in names] == [40, 20, 56, 448]
        assert all(found[name].dtype.kind == "i" for name in names)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_clam_export_holds_the_keys_and_sizes_that_clam_reads(tmp_path: Path, case: Case) -> None:
    one = bag(case)
    features_path = exported(tmp_path, "clam", one)
    with h5py.File(tmp_path / "clam" / "patches" / "S1.h5") as file:
        coords, found = file["coords"][:], dict(file["coords"].attrs)
        assert file["coords"].dtype == np.int64
    np.testing.assert_array_equal(coords, one.coords)
    assert (found["patch_level"], found["patch_size"]) == (0, round(sum(case.footprint) / 2))
    assert found["downsample"].tolist() == [1, 1]
    assert found["level_dim"].tolist() == found["downsampled_level_dim"].tolist() == list(case.extent)
    assert (found["name"], found["save_path"]) == ("S1", "patches")
    with h5py.File(features_path) as file:
        assert (file["features"].dtype, file["features"].chunks) == (np.float32, (32, DIM))
        assert file["coords"].dtype == np.int32
        np.testing.assert_array_equal(file["coords"][:], one.coords)
        features = file["features"][:]
    tensor = torch.load(tmp_path / "clam" / "pt_files" / "S1.pt", weights_only=True)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, one.features.shape)
    np.testing.assert_array_equal(tensor.numpy(), features)
    np.testing.assert_array_equal(features, one.features.astype(np.float32))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_stamp_export_is_in_micrometres(tmp_path: Path, case: Case) -> None:
    one = bag(case)
    with h5py.File(exported(tmp_path, "stamp", one)) as file:
        assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(file["feats"][:], one.features)
        corners_um, found = file["coords"][:], dict(file.attrs)
    np.testing.assert_allclose(corners_um[:, 0], one.coords[:, 0] * case.mpp[0], rtol=1e-6)
    np.testing.assert_allclose(corners_um[:, 1], one.coords[:, 1] * case.mpp[1], rtol=1e-6)
    assert found["tile_size_um"] == pytest.approx(case.tile_px * case.target_mpp)
    assert (found["tile_size_px"], found["unit"], found["feat_type"]) == (case.tile_px, "um", "tile")
    assert found["extractor"] == "toy:net/1"
    assert {"stamp_version", "code_hash"} < set(found)


def test_exports_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        exported(tmp_path, layout, bag())
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert str(tmp_path).encode() not in path.read_bytes()


# There and back.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_there_and_back_keeps_features_places_and_grid(tmp_path: Path, layout: str, case: Case) -> None:
    one = bag(case)
    back = imported(layout, exported(tmp_path, layout, one))
    assert back.features.dtype == np.float16
    for name in ("features", "coords", "grid", "tissue_share", "flags"):
        np.testing.assert_array_equal(getattr(back, name), getattr(one, name), err_msg=name)
    header = back.header
    assert header.slide_mpp == case.mpp
    assert header.tile_px == case.tile_px
    side = round(sum(case.footprint) / 2) if layout == "clam" else case.footprint
    assert header.footprint_level0_px == pytest.approx(np.broadcast_to(side, 2), rel=3e-3)
    assert header.stride_level0_px == pytest.approx(one.header.stride_level0_px, rel=3e-3)
    assert header.mpp_read == pytest.approx((case.target_mpp,) * 2, rel=3e-3)
    placed = back.grid[:, ::-1] * np.array(header.stride_level0_px) + np.array(header.origin_level0_px)
    assert np.abs(placed - back.coords).max() <= 4
    assert (header.reader, header.encoder) == ("import", f"imported-{layout}-toy:net/1")
    assert (header.slide_fingerprint, header.slide_digest, header.weights_digest) == ("", "", "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_in_any_order_are_sorted_with_their_features(tmp_path: Path, layout: str) -> None:
    one, order = bag(), np.random.default_rng(3).permutation(len(bag().features))
    shuffled = dataclasses.replace(one, features=one.features[order], coords=one.coords[order], grid=one.grid[order])
    back = imported(layout, exported(tmp_path, layout, shuffled))
    np.testing.assert_array_equal(back.coords, one.coords)
    np.testing.assert_array_equal(back.features, one.features)


def test_clam_tensors_are_read_with_the_places_of_their_patch_file(tmp_path: Path) -> None:
    one = bag()
    exported(tmp_path, "clam", one)
    back = imported("clam", tmp_path / "clam" / "pt_files" / "S1.pt")
    np.testing.assert_array_equal(back.features, one.features)
    np.testing.assert_array_equal(back.coords, one.coords)


def test_clam_patches_of_a_deeper_level_cover_more_of_level_0(tmp_path: Path) -> None:
    path = exported(tmp_path, "clam", bag())
    with h5py.File(tmp_path / "clam" / "patches" / "S1.h5", "r+") as file:
        file["coords"].attrs.update(
            {"patch_level": 1, "patch_size": 224, "downsample": (2.0, 2.0), "level_dim": (20005, 15003)}
        )
        del file["coords"].attrs["level0_mpp"]
    header = imported("clam", path, mpp=0.25).header
    assert (header.tile_px, header.footprint_level0_px, header.mpp_read) == (224, (448.0, 448.0), (0.5, 0.5))
    assert (header.width_px, header.height_px, header.target_mpp) == (40010, 30006, 0.5)


def test_tiles_on_no_grid_are_kept_with_their_corners_and_it_is_said(tmp_path: Path) -> None:
    one = bag()
    ragged = one.coords + np.random.default_rng(1).integers(0, 150, one.coords.shape, dtype=np.int32)
    path = exported(tmp_path, "trident", dataclasses.replace(one, coords=ragged))
    assert "tiles lie on no regular grid" in verdict_on("trident", path).said
    back = read_bag(tmp_path / "imported" / "S1.h5")
    np.testing.assert_array_equal(back.grid, back.coords[:, ::-1])
    assert (back.header.stride_level0_px, back.header.origin_level0_px) == ((1.0, 1.0), (0.0, 0.0))
    order = np.lexsort((ragged[:, 0], ragged[:, 1]))
    np.testing.assert_array_equal(back.coords, ragged[order])
    np.testing.assert_array_equal(back.features, one.features[order])
    # and such a bag has no overlap to state
    again = exported(tmp_path / "again", "trident", back)
    with h5py.File(again) as file:
        assert file["coords"].attrs["overlap"] == 0


@pytest.mark.parametrize("origin", [(0, 0), (37, 1013)])
@pytest.mark.parametrize("step", [448.0, 336.0, 682.67])
def test_a_lattice_is_found_by_what_its_corners_show(step: float, origin: tuple[int, int]) -> None:
    cells = np.argwhere(np.random.default_rng(0).random((40, 60)) < 0.5)
    coords = (np.array(origin) + np.floor(cells[:, ::-1] * step)).astype(np.int64)
    found = find_lattice(coords, (448.0, 448.0), None)
    assert found.regular
    np.testing.assert_array_equal(found.grid - found.grid.min(axis=0), cells - cells.min(axis=0))
    assert found.stride == pytest.approx((step, step), abs=0.1)


def test_contours_that_each_have_their_own_grid_are_no_lattice() -> None:
    cells = np.argwhere(np.ones((6, 6), bool))[:, ::-1] * 448
    assert not find_lattice(np.concatenate([cells, cells + np.array([5100, 171])]), (448.0, 448.0), None).regular


# What is known beside the file.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resolution_that_nobody_says_is_asked_for_never_guessed(tmp_path: Path, layout: str) -> None:
    path = exported(tmp_path, layout, bag())
    for place in tmp_path.glob(f"{layout}/**/S1.h5"):
        with h5py.File(place, "r+") as file:
            for holder in (file, file["coords"]):
                holder.attrs.pop("level0_mpp", None)
    said = verdict_on(layout, path)
    assert said.status == "failed"
    assert "a magnification does not say them; give --mpp, or a --manifest whose column mpp has them" in said.said
    back = imported(layout, path, mpp=0.25)
    np.testing.assert_array_equal(back.coords, bag().coords)
    assert (back.header.slide_mpp, back.header.mpp_from) == ((0.25, 0.25), "option")


def test_stamp_corners_follow_the_resolution(tmp_path: Path) -> None:
    path = exported(tmp_path, "stamp", bag())
    half = imported("stamp", path, mpp=0.5)
    np.testing.assert_array_equal(half.coords, bag().coords // 2)
    assert half.header.footprint_level0_px == (224.0, 224.0)
    assert half.header.mpp_read == (0.5, 0.5)


def test_a_resolution_that_contradicts_the_magnifications_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path, "trident", bag())
    said = verdict_on("trident", path, mpp=0.5)
    assert "tiles are 1 microns per pixel at 0.5 of the slide (option), but 0.5 were asked for" in said.said
    assert imported("trident", path, mpp=0.5, target_mpp=1.0).header.target_mpp == 1.0


def test_scanners_that_differ_a_little_make_bags_of_one_kind(tmp_path: Path) -> None:
    specs = {
        imported("trident", exported(tmp_path / str(mpp), "trident", bag()), mpp=mpp).header.feature_spec
        for mpp in (0.2527, 0.2485)
    }
    assert len(specs) == 1


def test_clam_names_no_encoder(tmp_path: Path) -> None:
    path = exported(tmp_path, "clam", bag())
    assert "the encoder is not named in the file; give --encoder" in verdict_on("clam", path, encoder=None).said
    for layout in ("trident", "stamp"):
        back = imported(layout, exported(tmp_path, layout, bag()), encoder=None)
        assert back.header.encoder == f"imported-{layout}-toy:net/1"


def test_clam_without_its_patch_file_is_refused_until_it_is_given(tmp_path: Path) -> None:
    path = exported(tmp_path, "clam", bag())
    (tmp_path / "clam" / "patches").rename(tmp_path / "elsewhere")
    assert "no patch file S1.h5 in the folder patches" in verdict_on("clam", path).said
    np.testing.assert_array_equal(imported("clam", path, patches=tmp_path / "elsewhere").coords, bag().coords)


def test_clam_features_of_other_patches_are_refused(tmp_path: Path) -> None:
    path = exported(tmp_path, "clam", bag())
    with h5py.File(path, "r+") as file:
        file["coords"][0] = (1, 1)
    assert "its coordinates are not those of its patch file" in verdict_on("clam", path).said


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two slides: one that is there, and one of another mpp that is not."""
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 2100, 3), dtype=np.uint8)
    write_pyramid(tmp_path / "scan-1.tif", pixels, mpp=0.5)
    (tmp_path / "slides.csv").write_text("slide_id,path,patient_id,mpp\nS1,scan-1.tif,P1,\nS2,gone.svs,P2,0.26\n")
    return tmp_path / "slides.csv"


def test_a_manifest_gives_resolution_and_identity(tmp_path: Path, manifest: Path) -> None:
    case = Case(mpp=(0.5, 0.5), extent=(2100, 1000))
    few = bag(case)
    near = (few.grid < 9).all(axis=1) & (few.grid[:, 0] < 4)
    arrays = {name: getattr(few, name)[near] for name in ("features", "coords", "grid", "tissue_share", "flags")}
    path = exported(tmp_path, "stamp", dataclasses.replace(few, **arrays))
    with h5py.File(path, "r+") as file:
        del file.attrs["level0_mpp"]
    here = imported("stamp", path, manifest=manifest)
    np.testing.assert_array_equal(here.coords, arrays["coords"])
    assert (here.header.width_px, here.header.height_px, here.header.mpp_from) == (2100, 1000, "metadata")
    entries = read_manifest(SlidesSettings(manifest=manifest))
    assert next(verify_bags([tmp_path / "imported" / "S1.h5"], entries)).whole
    away = imported("trident", exported(tmp_path, "trident", bag(slide_id="S2")), manifest=manifest)
    assert (away.header.slide_mpp, away.header.mpp_from) == ((0.26, 0.26), "manifest")
    found = next(verify_bags([tmp_path / "imported" / "S2.h5"], entries))
    assert not found.whole
    assert "imported without its slide" in found.said


def test_tiles_outside_of_the_slide_and_slides_outside_of_the_manifest_are_refused(
    tmp_path: Path, manifest: Path
) -> None:
    said = verdict_on("stamp", exported(tmp_path, "stamp", bag()), manifest=manifest)
    assert "lies outside of the slide of 2100 x 1000 pixels" in said.said
    said = verdict_on("stamp", exported(tmp_path, "stamp", bag(slide_id="S3")), manifest=manifest)
    assert "the manifest names no slide S3" in said.said


def test_an_extracted_bag_is_never_replaced_by_an_imported_one(tmp_path: Path) -> None:
    path = exported(tmp_path, "trident", bag())
    write_bag(tmp_path / "imported" / "S1.h5", bag(seed=8))
    said = next(import_bags(request("trident", path)))
    assert (said.status, "was not imported; choose another" in said.said) == ("failed", True)
    np.testing.assert_array_equal(read_bag(tmp_path / "imported" / "S1.h5").features, bag(seed=8).features)


def test_one_slide_twice_and_a_digest_that_is_none_are_wrong_usage(tmp_path: Path) -> None:
    paths = (tmp_path / "a" / "S1.h5", tmp_path / "b" / "S1.h5")
    with pytest.raises(InputError, match=r"1 slide\(s\) are given more than once: S1"):
        list(import_bags(ImportRequest("trident", paths, tmp_path / "out")))
    with pytest.raises(InputError, match="expected the 64 hexadecimal digits"):
        list(import_bags(ImportRequest("trident", paths[:1], tmp_path / "out", weights_digest="abc")))


def test_a_bag_whose_slide_would_lead_out_of_the_folder_is_not_exported(tmp_path: Path) -> None:
    one = bag()
    write_bag(tmp_path / "b.h5", dataclasses.replace(one, header=dataclasses.replace(one.header, slide_id="../../x")))
    said = next(export_bags("trident", [tmp_path / "b.h5"], tmp_path / "out" / "deep"))
    assert (said.status, "cannot name a file" in said.said) == ("failed", True)
    assert not list(tmp_path.rglob("x.h5"))


# Features that cannot be used, and number formats.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slide_without_tiles_makes_no_bag_and_the_others_go_on(tmp_path: Path, layout: str) -> None:
    empty = exported(tmp_path, layout, bag(slide_id="S0"))
    full = exported(tmp_path, layout, bag(slide_id="S1"))
    for place in tmp_path.glob(f"{layout}/**/S0.h5"):
        with h5py.File(place, "r+") as file:
            for name in list(file):
                kept, dim = dict(file[name].attrs), file[name].shape[1]
                dtype = file[name].dtype
                del file[name]
                file.create_dataset(name, (0, dim), dtype, maxshape=(None, dim), chunks=(1, dim)).attrs.update(kept)
    asked = dataclasses.replace(request(layout, empty), files=(empty, full))
    assert [one.status for one in import_bags(asked)] == ["empty", "done"]
    assert [path.name for path in asked.output.iterdir()] == ["S1.h5"]
    assert "no tissue was found" in next(import_bags(asked)).said


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused(tmp_path: Path, layout: str, poison: float) -> None:
    path = exported(tmp_path, layout, bag())
    with h5py.File(path, "r+") as file:
        name = "feats" if layout == "stamp" else "features"
        file[name][3, 2] = poison
    said = verdict_on(layout, path)
    assert f"features of 1 of {len(bag().features)} tiles hold NaN or infinity" in said.said


def test_what_float16_cannot_hold_stays_float32_and_it_is_said(tmp_path: Path) -> None:
    wide = bag(features=bag().features.astype(np.float32) * np.float32(40_000))
    path = exported(tmp_path, "trident", wide)
    assert "features stay float32, since some do not fit float16" in verdict_on("trident", path).said
    back = read_bag(tmp_path / "imported" / "S1.h5")
    assert back.features.dtype == np.float32
    np.testing.assert_array_equal(back.features, wide.features)
    said = next(export_bags("stamp", [tmp_path / "bags" / "S1.h5"], tmp_path / "stamp"))
    assert (said.status, "do not fit STAMP's float16; export as trident or clam" in said.said) == ("failed", True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": None}, "coordinates in the unit 'None', expected 'um'"),
        ({"unit": "px"}, "coordinates in the unit 'px'"),
        ({"feat_type": "slide"}, "features of a slide"),
        ({"tile_size_um": None}, "attribute 'tile_size_um' is missing"),
        ({"tile_size_um": np.nan}, "attribute 'tile_size_um' is not finite"),
        ({"tile_size_px": -224}, "attribute 'tile_size_px' is -224, expected a number above zero"),
        ({"tile_size_px": 223.5}, "expected whole pixels"),
        ({"tile_size_px": "__import__('os').abort()"}, "attribute 'tile_size_px' is object of shape"),
        ({"level0_mpp": (0.25, 0.25, 0.25)}, "holds 3 values"),
        ({"level0_mpp": (352.8, 352.8)}, "outside 0.05-10"),
        ({"extractor": np.arange(3)}, "expected a text"),
        ({"extractor": "x" * 5000}, "a text of 5000 characters"),
    ],
)
def test_attributes_are_numbers_and_short_texts_or_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = exported(tmp_path, "stamp", bag())
    with h5py.File(path, "r+") as file:
        for name, value in change.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value
    found = verdict_on("stamp", path)
    assert found.status == "failed"
    assert said in found.said


def test_a_tile_of_two_sizes_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path, "trident", bag())
    with h5py.File(path, "r+") as file:
        file["coords"].attrs["patch_size_level0"] = 512
    assert "a tile is 512 level-0 pixels by patch_size_level0, 448 by" in verdict_on("trident", path).said


# Files made to harm.


def link_out(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("secret.h5", "/features")


def link_softly(file: h5py.File) -> None:
    file["features"] = h5py.SoftLink("/coords")


def store_outside(file: h5py.File) -> None:
    file.create_dataset("features", (12, DIM), "f4", external=[("secret.bin", 0, h5py.h5f.UNLIMITED)])


def map_outside(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((12, DIM), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "features", (12, DIM))
    file.create_virtual_dataset("features", layout)


def claim_much(file: h5py.File) -> None:
    file.create_dataset("features", (10_000_000, 1024), "f4", chunks=(1, 1024))


def claim_zeros(file: h5py.File) -> None:
    file.create_dataset("features", data=np.zeros((20_000, 512), np.float32), chunks=(2000, 512), compression="gzip")


def claim_a_chunk(file: h5py.File) -> None:
    file.create_dataset("features", (1, DIM), "f4", chunks=(10_000_000, DIM), maxshape=(None, DIM), compression="gzip")


def many_columns(file: h5py.File) -> None:
    file["features"] = np.zeros((2, 100_001), np.float32)


def many_axes(file: h5py.File) -> None:
    file["features"] = np.zeros((12, 2, 2), np.float32)


def objects(file: h5py.File) -> None:
    file.create_dataset("features", (12, DIM), h5py.string_dtype())


def pairs(file: h5py.File) -> None:
    file.create_dataset("features", (12,), np.dtype([("a", "f4"), ("b", "f4")]))


def a_group(file: h5py.File) -> None:
    file.create_group("features")


HOSTILE = {
    link_out: "it is a link into another file",
    link_softly: "it is a soft link",
    store_outside: "its data are stored in other files",
    map_outside: "it is virtual",
    claim_much: "claims 40960000000 bytes in a smaller file",
    claim_zeros: "claims 40960000 bytes in a smaller file",
    claim_a_chunk: "claims 400000000 bytes in a smaller file",
    many_columns: "has shape (2, 100001)",
    many_axes: "features are float32 of shape (12, 2, 2)",
    objects: "holds object, expected numbers",
    pairs: "expected numbers",
    a_group: "it is no dataset",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("make", "said"), HOSTILE.items(), ids=[make.__name__ for make in HOSTILE])
def test_what_a_hostile_file_claims_is_refused_with_the_reason(
    tmp_path: Path, layout: str, make: Callable[[h5py.File], None], said: str
) -> None:
    path = exported(tmp_path, layout, bag())
    with h5py.File(path.with_name("secret.h5"), "w") as file:
        file["features"] = np.ones((12, DIM), np.float32)
    path.with_name("secret.bin").write_bytes(bytes(12 * DIM * 4))
    with h5py.File(path, "r+") as file:
        name = "feats" if layout == "stamp" else "features"
        del file[name]
        make(file)
        if layout == "stamp":
            file.move("features", name)
    found = verdict_on(layout, path)
    assert found.status == "failed"
    assert said in found.said


def test_1400_bytes_that_claim_41_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "S1.h5", "w", libver="latest") as file:
        claim_much(file)
    assert (tmp_path / "S1.h5").stat().st_size < 1400
    refused = pytest.raises(BagFormatError, match=r"S1\.h5: dataset 'features' claims 40960000000 bytes")
    with refused, open_audited(tmp_path / "S1.h5", "file", "refused") as audited:
        audited.array("features")


def test_honest_compression_is_read(tmp_path: Path) -> None:
    path = exported(tmp_path, "trident", bag())
    plain = path.stat().st_size
    with h5py.File(path, "r+") as file:
        features = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=features, compression="gzip", chunks=(64, DIM))
    assert features.nbytes < plain * COMPRESSION_BOUND
    np.testing.assert_array_equal(imported("trident", path).features, bag().features)


def read_through_a_link(path: Path) -> None:
    verdict_on("trident", path)


def test_a_link_into_another_file_is_not_even_followed(tmp_path: Path) -> None:
    """The file that it names is a pipe, which whoever opens it waits at for ever."""
    path = exported(tmp_path, "trident", bag())
    os.mkfifo(path.with_name("secret.h5"))
    with h5py.File(path, "r+") as file:
        del file["features"]
        link_out(file)
    child = multiprocessing.get_context("fork").Process(target=read_through_a_link, args=(path,))
    child.start()
    child.join(timeout=20)
    followed = child.is_alive()
    child.kill()
    child.join()
    assert not followed
    assert child.exitcode == 0


class Harm:
    """Pickled, it is a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def save_code(path: Path) -> None:
    torch.save(Harm(path.with_name("trace")), path)


def save_bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Harm(path.with_name("trace"))))


def save_stretched(path: Path) -> None:
    torch.save(torch.zeros(1, 1).expand(1_000_000, 1000), path)


def save_compressed(path: Path) -> None:
    torch.save(torch.zeros(100_000, DIM), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def save_dictionary(path: Path) -> None:
    torch.save({"features": torch.zeros(3, DIM)}, path)


def save_integers(path: Path) -> None:
    torch.save(torch.zeros(3, DIM, dtype=torch.int64), path)


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (save_code, "not a plain tensor"),
        (save_bare_pickle, "not an archive as torch.save writes it"),
        (save_stretched, "a tensor of shape (1000000, 1000) in a smaller file"),
        (save_compressed, "compressed, or larger than its file"),
        (save_dictionary, "something else than one tensor of floats"),
        (save_integers, "something else than one tensor of floats"),
    ],
)
def test_a_clam_tensor_that_is_none_is_refused_and_runs_no_code(
    tmp_path: Path, save: Callable[[Path], None], said: str
) -> None:
    exported(tmp_path, "clam", bag())
    path = tmp_path / "clam" / "pt_files" / "S1.pt"
    save(path)
    found = verdict_on("clam", path)
    assert found.status == "failed"
    assert said in found.said
    assert not path.with_name("trace").exists()


# Training.

STUDY = """\
name: Imported
output: {output}
cohort: {{table: cohort.csv, time: time_days, time_unit: days, event: event}}
slides: {{manifest: slides.csv, bags: {bags}}}
encoder: {encoder}
splits: {{schemes: [{{kind: kfold, folds: 2}}]}}
model: {{tile_components: 4}}
train: {{max_epochs: 6, patience: 6}}
evaluate: {{bootstraps: 100}}
"""
PATIENTS = 24


def study(folder: Path, bags: str, encoder: str, output: str) -> Path:
    path = folder / f"{output}.yaml"
    path.write_text(STUDY.format(bags=bags, encoder=encoder, output=output))
    return path


def cohort_bag(index: int, digest: str) -> Bag:
    one = bag(CASES["odd mpp"], slide_id=f"S{index:02d}", seed=index)
    features = one.features.copy()
    features[: index * len(features) // PATIENTS, 0] += 3
    own = f"{index:064x}"  # each slide is a file of its own
    header = dataclasses.replace(one.header, settings_digest=digest, slide_fingerprint=own, slide_digest=own)
    return dataclasses.replace(one, header=header, features=features)


@dataclasses.dataclass(frozen=True)
class Trained:
    folder: Path
    risks: pd.DataFrame


def risks_of(folder: Path) -> pd.DataFrame:
    table = read_predictions(folder / "predictions.csv").table
    return table[["model", "scheme", "fold", "role", "patient_id", "risk", "risk_group"]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Bags as an extraction leaves them, and the risks of the models that they train in the usual way."""
    folder = tmp_path_factory.mktemp("cohort")
    rng, names = np.random.default_rng(0), [f"S{index:02d}" for index in range(PATIENTS)]
    times = np.rint(rng.exponential(900, PATIENTS) / np.linspace(0.5, 3, PATIENTS)) + 1
    clinical = {"patient_id": [f"P{name}" for name in names], "time_days": times, "event": [1, 1, 0] * (PATIENTS // 3)}
    pd.DataFrame(clinical).to_csv(folder / "cohort.csv", index=False)
    paths = [f"{name}.svs" for name in names]
    pd.DataFrame({"slide_id": names, "path": paths, "patient_id": clinical["patient_id"]}).to_csv(
        folder / "slides.csv", index=False
    )
    config = load_config(study(folder, "bags", "{kind: lite0}", "run"))
    for index, path in enumerate(paths):
        (folder / path).touch()
        one = cohort_bag(index, config.recipe.digest)
        write_bag(folder / "bags" / f"{one.header.slide_id}.h5", one)
    (folder / "run").mkdir()
    pd.DataFrame({"slide_id": names, "has_bag": True, "code": "", "message": ""}).to_csv(
        folder / "run" / "slides.csv", index=False
    )
    train_stage(open_study(config), StageContext())
    for path in paths:
        (folder / path).unlink()
    return Trained(folder, risks_of(folder / "run"))


def bring(cohort: Trained, layout: str) -> str:
    """Export the cohort and import it into a fresh folder."""
    sent, back = cohort.folder / f"sent-{layout}", f"bags-{layout}"
    if not (cohort.folder / back).exists():
        bags = sorted((cohort.folder / "bags").glob("*.h5"))
        assert {one.status for one in export_bags(layout, bags, sent)} == {"done"}
        files = tuple(feature_file(sent, layout, path.stem) for path in bags)
        asked = ImportRequest(layout, files, cohort.folder / back, encoder="toy", mpp=0.2527)
        assert {one.status for one in import_bags(asked)} == {"done"}
    return back


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_imported_bags_train_to_the_same_risks(cohort: Trained, layout: str) -> None:
    encoder = f"{{kind: imported, name: imported-{layout}-toy, licence: MIT}}"
    config = load_config(study(cohort.folder, bring(cohort, layout), encoder, f"run-{layout}"))
    if layout == "trident":
        result = run(config, StageContext())
        assert "imported-trident-toy" in result.report.read_text()
        assert (result.heatmaps, result.failed) == ((), ())
    else:
        train_stage(open_study(config), StageContext())
    pd.testing.assert_frame_equal(risks_of(config.output), cohort.risks, check_exact=True)
    assert cohort.risks["risk"].nunique() > PATIENTS
    package = load_package(config.output / "package")
    assert package.summary["encoder_licence"] == "MIT"
    assert package.feature_spec is not None
    assert package.feature_spec.encoder == f"imported-{layout}-toy"


def test_a_model_of_imported_bags_scores_imported_bags_and_no_slides(cohort: Trained, tmp_path: Path) -> None:
    bags = bring(cohort, "stamp")
    config = load_config(study(cohort.folder, bags, "{kind: imported, name: imported-stamp-toy}", "run-scored"))
    train_stage(open_study(config), StageContext())
    given = tuple(cohort.folder / bags / f"S0{index}.h5" for index in (1, 2))
    predictions, _ = predict(PredictRequest(config.output / "package", given, tmp_path), StageContext())
    assert predictions.table["patient_id"].tolist() == ["S01", "S02"]
    write_pyramid(tmp_path / "new.tif", np.full((600, 600, 3), 200, np.uint8), mpp=0.5)
    with pytest.raises(PackageError, match=r"trained on imported features, so it scores no slides; give it bags"):
        predict(PredictRequest(config.output / "package", (tmp_path / "new.tif",), tmp_path), StageContext())


def test_maps_are_drawn_on_a_slide_whose_size_the_bag_does_not_know(
    cohort: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = cohort.folder / bring(cohort, "stamp")
    config = load_config(study(cohort.folder, bags.name, "{kind: imported, name: imported-stamp-toy}", "run-maps"))
    train_stage(open_study(config), StageContext())
    assert read_bag(bags / "S01.h5").header.width_px == 0
    write_pyramid(tmp_path / "S01.tif", np.full((3000, 4000, 3), 200, np.uint8), mpp=0.2527)
    painted = []
    original = maps.tile_raster

    def watched(*arguments: Any) -> np.ndarray:
        painted.append(original(*arguments))
        return painted[-1]

    monkeypatch.setattr(maps, "tile_raster", watched)
    entry = SlideEntry("S01", tmp_path / "S01.tif", "PS01", None, 2)
    asked = maps.MapRequest(entry, bags, load_package(config.output / "package"), "caption", tmp_path)
    drawn = maps.draw_maps_of_slide(asked, HeatmapSettings())
    assert {one.path.name for one in drawn} == {"S01_attention.png", "S01_contribution.png"}
    first = read_bag(bags / "S01.h5").coords.min(axis=0) * 0.2527 / HeatmapSettings().picture_mpp
    top, left = (np.flatnonzero(np.isfinite(painted[0]).any(axis=axis))[0] for axis in (1, 0))
    assert (left, top) == pytest.approx(tuple(first), abs=1.5)


def test_check_and_plan_ask_for_bags_and_not_for_slides(cohort: Trained) -> None:
    path = study(cohort.folder, bring(cohort, "trident"), "{kind: imported, name: imported-trident-toy}", "planned")
    assert check(path, open_slides=True).problems == ()
    assert f"{PATIENTS}, of which 0 have no bag" in dict(plan(load_config(path)).facts)["Slides"]
    absent = study(cohort.folder, "nowhere", "{kind: imported, name: imported-trident-toy}", "planned")
    assert dict(plan(load_config(absent)).facts)["Left out unless imported"] == "S00, S01, S02, S03, S04, ..."
    usual = study(cohort.folder, "bags", "{kind: lite0}", "planned")
    assert any("no such file" in str(problem) for problem in check(usual).problems)


def test_bags_that_are_missing_damaged_or_of_another_encoder_are_left_out_with_the_reason(cohort: Trained) -> None:
    folder = cohort.folder / "mixed"
    folder.mkdir()
    for path in sorted((cohort.folder / bring(cohort, "clam")).glob("*.h5"))[2:]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "S01.h5").write_bytes(b"no bag")
    other = read_bag(folder / "S02.h5")
    write_bag(
        folder / "S02.h5",
        dataclasses.replace(other, header=dataclasses.replace(other.header, encoder="imported-clam-uni")),
    )
    config = load_config(study(cohort.folder, "mixed", "{kind: imported, name: imported-clam-toy}", "run-mixed"))
    result = run(config, StageContext())
    failed = {outcome.slide_id: (outcome.code, outcome.message) for outcome in result.failed}
    assert {slide: code for slide, (code, _) in failed.items()} == {"S00": "NO_BAG", "S01": "BAD_BAG", "S02": "BAD_BAG"}
    assert "its bag is of the encoder imported-clam-uni, the configuration names imported-clam-toy" in failed["S02"][1]
    assert "PS03" in set(risks_of(config.output)["patient_id"])
    assert "PS00" not in set(risks_of(config.output)["patient_id"])


def test_settings_that_would_do_nothing_are_refused(cohort: Trained) -> None:
    path = study(cohort.folder, "bags", "{kind: imported, name: toy}", "idle")
    with pytest.raises(ConfigError, match=r"idle\.yaml:5: encoder: kind imported .* leave out tiling, which make bags"):
        load_config(path, ["tiling.target_mpp=1.0"])
    (cohort.folder / "bare.yaml").write_text("\n".join(path.read_text().replace("slides:", "# ").splitlines()))
    with pytest.raises(ConfigError, match="kind imported needs the section slides"):
        load_config(cohort.folder / "bare.yaml")


# The command line.


def test_export_and_import_on_the_command_line(tmp_path: Path) -> None:
    for name in ("S1", "S2"):
        write_bag(tmp_path / "bags" / f"{name}.h5", bag(slide_id=name))
    sent = pathoml("bags", "export", "--layout", "trident", "out", "bags/S1.h5", "bags/S2.h5", folder=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert f"S1.h5: {len(bag().features)} tiles to features_toy_net_1/S1.h5" in sent.stdout
    assert "bags: 2 exported, 0 without tissue, 0 failed" in sent.stdout
    files = [f"out/features_toy_net_1/{name}.h5" for name in ("S1", "S2")]
    (tmp_path / files[1]).write_bytes(b"<html>404</html>")
    back = pathoml("bags", "import", "--layout", "trident", "--mpp", "0.25", "in", *files, folder=tmp_path)
    assert back.returncode == 1
    assert "S2.h5: not a readable TRIDENT feature file" in back.stderr
    assert "bags: 1 imported, 0 without tissue, 1 failed" in back.stdout
    assert read_bag(tmp_path / "in" / "S1.h5").header.mpp_from == "option"
    wrong = pathoml("bags", "import", "--layout", "zarr", "in", files[0], folder=tmp_path)
    assert wrong.returncode == 2
