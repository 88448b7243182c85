"""Bags from others, killed writers, and full disks."""

import errno
import json
import multiprocessing
import os
import random
import runpy
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import h5py
import numpy as np
import pytest

from pathoml.bags import Bag, BagHeader, check_same_features, read_bag, read_bag_header, write_bag
from pathoml.errors import BagFormatError, BagMismatchError, OutputError

BAG_WRITE_KILLS = runpy.run_path(str(Path(__file__).with_name("counts.py")))["BAG_WRITE_KILLS"]


def header(**changes: str | float) -> BagHeader:
    values = {
        "slide_id": "S1", "slide_fingerprint": "a" * 64, "slide_digest": "b" * 64, "width_px": 9000, "height_px": 8000,
        "slide_mpp": (0.5, 0.5), "mpp_from": "metadata", "target_mpp": 0.5, "mpp_read": (0.5, 0.5), "tile_px": 224,
        "footprint_level0_px": (224.0, 224.0), "stride_level0_px": (224.0, 224.0), "origin_level0_px": (0.0, 0.0),
        "encoder": "toy", "weights_digest": "c" * 64, "precision_asked": "float32", "precision_used": "float32",
        "batch_tiles": 8, "batch_used": 8,
        "reader": "native tiles", "decode": "exact", "settings_digest": "d" * 64, "lost_tiles": 0,
        "rejected": {"little_tissue": 5, "pen": 2}, "regions_digest": "", "stain": "none",
        "optical_density": {"mean_red": 0.2}, "pathoml_version": "0.1.0",
    }  # fmt: skip
    return BagHeader(**{**values, **changes})


def bag(seed: int = 0, tiles: int = 12) -> Bag:
    where = np.stack([np.arange(tiles), np.arange(tiles)], axis=1).astype(np.int32)
    features = np.random.default_rng(seed).normal(size=(tiles, 16)).astype(np.float16)
    return Bag(header(), features, where, where, np.ones(tiles, np.float32), np.zeros(tiles, np.uint8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_bag(tmp_path / "S1.h5", bag())
    return tmp_path / "S1.h5"


def replace_features(path: Path, make: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        del file["features"]
        make(file)


def link_out(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("secret.h5", "/features")


def link_inside(file: h5py.File) -> None:
    file["features"] = h5py.SoftLink("/coords")


def store_outside(file: h5py.File) -> None:
    file.create_dataset("features", (12, 16), "f2", external=[("secret.bin", 0, h5py.h5f.UNLIMITED)])


def map_outside(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((12, 16), "f2")
    layout[:] = h5py.VirtualSource("secret.h5", "features", (12, 16))
    file.create_virtual_dataset("features", layout)


@pytest.mark.parametrize("make", [link_out, link_inside, store_outside, lambda file: file.create_group("features")])
def test_features_that_are_not_in_the_file_itself_are_refused(path: Path, make: Callable[[h5py.File], object]) -> None:
    with h5py.File(path.with_name("secret.h5"), "w") as other:
        other["features"] = np.ones((12, 16), np.float16)
    path.with_name("secret.bin").write_bytes(bytes(12 * 16 * 2))
    replace_features(path, make)
    with pytest.raises(BagFormatError, match=r"S1\.h5: no dataset 'features' inside the file"):
        read_bag(path, verify=False)


def test_a_virtual_dataset_is_refused(path: Path) -> None:
    with h5py.File(path.with_name("secret.h5"), "w") as other:
        other["features"] = np.ones((12, 16), np.float16)
    replace_features(path, map_outside)
    with pytest.raises(BagFormatError, match=r"S1\.h5: (no dataset 'features'|dataset 'features' claims)"):
        read_bag(path, verify=False)


@pytest.mark.parametrize("shape", [(10**9, 20), (12, 10**9), (5000, 16)])
def test_a_dataset_larger_than_its_file_is_refused_unread(path: Path, shape: tuple[int, int]) -> None:
    replace_features(path, lambda file: file.create_dataset("features", shape, "f2", chunks=(1, 16)))
    assert path.stat().st_size < 50_000
    with pytest.raises(BagFormatError, match=r"S1\.h5: dataset 'features' claims \d+ bytes in a smaller file; refused"):
        read_bag(path, verify=False)


@pytest.mark.parametrize(
    "value",
    [
        np.float16(1),
        np.zeros((12, 2, 2), np.float16),
        np.zeros(12, np.float16),
    ],
    ids=["scalar", "three dimensions", "one dimension"],
)
def test_features_that_are_no_table_are_refused(path: Path, value: np.ndarray) -> None:
    replace_features(path, lambda file: file.create_dataset("features", data=value))
    with pytest.raises(BagFormatError, match=r"'features' is float16 of shape .* expected float16 or float32"):
        read_bag(path, verify=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", np.array([[b"x"] * 16] * 12)),
        ("features", np.zeros((12, 16), np.int16)),
        ("features", np.zeros((12, 16), np.complex64)),
        ("coords", np.zeros((12, 3), np.int32)),
        ("grid", np.zeros((12, 2), np.float32)),
        ("flags", np.zeros((12, 1), np.uint8)),
    ],
    ids=["text", "integers", "complex", "three coordinates", "fractional grid", "two-dimensional flags"],
)
def test_arrays_of_another_kind_are_refused(path: Path, name: str, value: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(BagFormatError, match=rf"S1\.h5: .*{name}"):
        read_bag(path, verify=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("header", "{"), ("header", None), ("header", "[]"), ("digests", None), ("format_version", "one")],
)
def test_broken_attributes_are_refused(path: Path, name: str, value: str | None) -> None:
    with h5py.File(path, "r+") as file:
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value
    with pytest.raises(BagFormatError, match=r"S1\.h5: .*extract"):
        read_bag_header(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": "uni"}, "encoder is 'uni', the model has 'toy'"),
        ({"weights_digest": "e" * 64}, "weights_digest is"),
        ({"target_mpp": 0.25}, r"target_mpp is 0\.25, the model has 0\.5"),
        ({"tile_px": 256}, "tile_px is 256, the model has 224"),
        ({"precision_asked": "bfloat16"}, "precision_asked is 'bfloat16'"),
        ({"settings_digest": "f" * 64}, "settings_digest is"),
    ],
)
def test_a_bag_of_other_features_is_refused_with_the_difference(change: dict[str, str | float], named: str) -> None:
    with pytest.raises(BagMismatchError, match=f"bag of slide S1: {named}.*extract it with the same settings"):
        check_same_features(header(**change), header().feature_spec, "the model")


def test_bags_of_different_slides_have_the_same_kind_of_features() -> None:
    other = header(slide_id="S2", slide_fingerprint="9" * 64, width_px=1, lost_tiles=7, mpp_read=(0.499, 0.499))
    check_same_features(other, header().feature_spec, "the model")


def write_for_ever(path: Path, ready: Connection) -> None:
    ready.send(os.getpid())
    while True:
        for seed in (1, 2):
            write_bag(path, bag(seed, tiles=2000))


def test_a_killed_writer_leaves_the_old_bag_the_new_one_or_none(tmp_path: Path) -> None:
    """The moment of the kill is drawn from the time that one bag takes; every second round starts from nothing."""
    path, dice, seen = tmp_path / "S1.h5", random.Random(5), []
    expected = [bag(seed, tiles=2000).features for seed in (1, 2)]
    started = time.monotonic()
    write_bag(path, bag(1, tiles=2000))
    one_write_s = time.monotonic() - started
    fork = multiprocessing.get_context("fork")
    for round_ in range(BAG_WRITE_KILLS):
        if round_ % 2:
            path.unlink(missing_ok=True)
        ours, theirs = fork.Pipe()
        child = fork.Process(target=write_for_ever, args=(path, theirs))
        child.start()
        ours.recv()
        time.sleep(dice.uniform(0, 2 * one_write_s))
        child.kill()
        child.join()
        seen.append(path.exists())
        if path.exists():
            features = read_bag(path).features
            assert any(np.array_equal(features, one) for one in expected)
    assert True in seen
    assert all(one.name.startswith(".S1.h5.") for one in tmp_path.iterdir() if one != path)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.open", "tempfile.mkstemp"])
def test_a_full_disk_leaves_the_old_bag_and_no_rubbish(path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(where, full_disk if where != "tempfile.mkstemp" else lambda **_: full_disk())
        with pytest.raises(OutputError, match=r"S1\.h5: cannot be written \(No space left on device\); free space"):
            write_bag(path, bag(1))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_header_is_plain_json_that_other_tools_can_read(path: Path) -> None:
    with h5py.File(path, "r") as file:
        values = json.loads(file.attrs["header"])
        assert file["features"].chunks is None, "contiguous"
        assert (file.attrs["format"], file.attrs["complete"]) == (b"pathoml-bag", True)
    assert values["slide_id"] == "S1"
    assert values["slide_mpp"] == [0.5, 0.5]
