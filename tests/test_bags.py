"""Bags: what goes in comes out, and what was altered, cut, foreign or hostile is refused."""

import contextlib
import dataclasses
import json
import multiprocessing
import random
import re
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest

from pathoml.bags import (
    BAG_VERSION,
    Bag,
    BagHeader,
    header_from_dict,
    read_bag,
    read_bag_header,
    write_bag,
)
from pathoml.errors import BagFormatError

BIT_FLIPS = runpy.run_path(str(Path(__file__).with_name("counts.py")))["BIT_FLIPS"]
ARRAYS = ("features", "coords", "grid", "tissue_share", "flags")


def bag(tiles: int = 12, dtype: str = "float16", seed: int = 0) -> Bag:
    header = BagHeader(
        slide_id="S1", slide_fingerprint="a" * 64, slide_digest="b" * 64, width_px=9000, height_px=8000,
        slide_mpp=(0.499, 0.501), mpp_from="metadata", target_mpp=0.5, mpp_read=(0.499, 0.501), tile_px=224,
        footprint_level0_px=(224.1, 224.2), stride_level0_px=(1 / 3, 0.1), origin_level0_px=(0.0, 0.0),
        encoder="toy", weights_digest="c" * 64, precision_asked="float32", precision_used="float32", batch_tiles=8, batch_used=8,
        reader="native tiles", decode="exact",
        settings_digest="d" * 64, lost_tiles=1, rejected={"little_tissue": 5, "pen": 2}, regions_digest="",
        stain="none", optical_density={"mean_red": 0.2},
        pathoml_version="0.1.0",
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    where = np.stack([np.arange(tiles), np.arange(tiles)], axis=1).astype(np.int32)
    share, flags = rng.random(tiles, dtype=np.float32), rng.integers(0, 8, tiles, dtype=np.uint8)
    return Bag(header, rng.normal(size=(tiles, 16)).astype(dtype), where * 224, where, share, flags)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_bag(tmp_path / "S1.h5", bag())
    return tmp_path / "S1.h5"


def assert_same(one: Bag, other: Bag) -> None:
    assert one.header == other.header
    for name in ARRAYS:
        first, second = getattr(one, name), getattr(other, name)
        assert first.dtype == second.dtype, name
        np.testing.assert_array_equal(first, second, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("tiles", [1, 12])
def test_what_is_written_is_read(tmp_path: Path, tiles: int, dtype: str) -> None:
    write_bag(tmp_path / "S1.h5", bag(tiles, dtype))
    assert_same(read_bag(tmp_path / "S1.h5"), bag(tiles, dtype))
    assert read_bag_header(tmp_path / "S1.h5") == bag(tiles, dtype).header


def test_the_same_bag_gives_the_same_bytes_and_another_others(tmp_path: Path, path: Path) -> None:
    write_bag(tmp_path / "again.h5", bag())
    write_bag(tmp_path / "other.h5", bag(seed=1))
    assert path.read_bytes() == (tmp_path / "again.h5").read_bytes() != (tmp_path / "other.h5").read_bytes()


def test_memory_layout_does_not_change_the_bytes(tmp_path: Path, path: Path) -> None:
    turned = dataclasses.replace(bag(), features=np.asfortranarray(bag().features), coords=bag().coords[::-1][::-1])
    write_bag(tmp_path / "turned.h5", turned)
    assert (tmp_path / "turned.h5").read_bytes() == path.read_bytes()


def test_writing_replaces_the_old_bag(path: Path) -> None:
    write_bag(path, bag(3, seed=4))
    assert_same(read_bag(path), bag(3, seed=4))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("dtype", "remedy"), [("float16", "set extract.feature_dtype: float32"), ("float32", "check the encoder")]
)
def test_features_that_are_no_numbers_are_refused_when_written(
    tmp_path: Path, poison: float, dtype: str, remedy: str
) -> None:
    one = bag(dtype=dtype)
    one.features[7, 3] = poison
    with pytest.raises(BagFormatError, match=f"S1: features hold NaN or infinity; {remedy}"):
        write_bag(tmp_path / "S1.h5", one)
    assert not list(tmp_path.iterdir())


def test_a_float16_overflow_is_refused_with_its_remedy(tmp_path: Path) -> None:
    wide = bag(dtype="float32")
    wide.features[0, 0] = 70_000
    with np.errstate(over="ignore"):
        narrow = dataclasses.replace(wide, features=wide.features.astype(np.float16))
    with pytest.raises(BagFormatError, match=r"set extract\.feature_dtype: float32"):
        write_bag(tmp_path / "S1.h5", narrow)
    write_bag(tmp_path / "S1.h5", wide)
    assert read_bag(tmp_path / "S1.h5").features[0, 0] == 70_000


def test_a_bag_without_tiles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagFormatError, match="arrays of different or zero length"):
        write_bag(tmp_path / "S1.h5", bag(0))


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_different_length_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BagFormatError, match="arrays of different or zero length"):
        write_bag(tmp_path / "S1.h5", dataclasses.replace(bag(), **{name: getattr(bag(), name)[:-1]}))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_a_cut_bag_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BagFormatError, match=r"S1\.h5: not a readable bag .*; extract the slide again"):
        read_bag(path)


def test_a_missing_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagFormatError, match=r"gone\.h5: not a readable bag"):
        read_bag(tmp_path / "gone.h5")


def data_positions(path: Path) -> list[int]:
    with h5py.File(path) as file:
        places = [(file[name].id.get_offset(), file[name].nbytes) for name in ARRAYS]
    return [offset + index for offset, size in places for index in range(size)]


def test_any_flipped_bit_of_the_data_is_noticed(path: Path) -> None:
    content, dice = bytearray(path.read_bytes()), random.Random(11)
    for position in dice.sample(data_positions(path), BIT_FLIPS):
        bit = 1 << dice.randrange(8)
        content[position] ^= bit
        path.write_bytes(content)
        with pytest.raises(BagFormatError, match=r"checksum of .* differs|features hold NaN or infinity"):
            read_bag(path)
        content[position] ^= bit


def test_without_verification_a_flipped_bit_passes_and_so_checksums_are_what_notices_it(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[data_positions(path)[-1]] ^= 1
    path.write_bytes(content)
    assert read_bag(path, verify=False).flags[-1] == bag().flags[-1] ^ 1


def flip_metadata(path: Path) -> list[str]:
    """Flip seeded bits outside the data; name what came of those that were neither refused nor harmless."""
    content, dice = bytearray(path.read_bytes()), random.Random(12)
    found = []
    for position in dice.sample(sorted(set(range(len(content))) - set(data_positions(path))), 8 * BIT_FLIPS):
        content[position] ^= 1
        path.write_bytes(content)
        try:
            if read_bag(path).header != bag().header:
                found.append(f"byte {position}: another header")
        except BagFormatError:
            pass
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            found.append(f"byte {position}: {type(error).__name__}")
        content[position] ^= 1
    return found


def test_any_flipped_bit_of_the_metadata_is_harmless_or_refused(path: Path) -> None:
    assert flip_metadata(path) == []


def read_or_refuse(path: Path) -> None:
    with contextlib.suppress(BagFormatError):
        read_bag(path)


def test_no_flipped_bit_in_the_heap_of_texts_makes_reading_hang(path: Path) -> None:
    """The size of the heap's free space is altered, as one flipped bit can; the read runs where it can be ended."""
    content = bytearray(path.read_bytes())
    for heap in [match.start() for match in re.finditer(b"GCOL", bytes(content))]:
        position = heap + 16
        while int.from_bytes(content[position : position + 2], "little"):
            position += 16 + -(-int.from_bytes(content[position + 8 : position + 16], "little") // 8) * 8
        content[position + 9] ^= 1
    path.write_bytes(content)
    child = multiprocessing.get_context("fork").Process(target=read_or_refuse, args=(path,))
    child.start()
    child.join(timeout=2)
    hangs = child.is_alive()
    child.kill()
    child.join()
    assert not hangs


def test_a_bag_of_an_unknown_version_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = BAG_VERSION + 1
    with pytest.raises(BagFormatError, match=f"bag version {BAG_VERSION + 1}, this pathoml reads {BAG_VERSION}"):
        read_bag(path)


def test_a_bag_that_says_it_is_incomplete_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(BagFormatError, match="incomplete; extract it again"):
        read_bag_header(path)


def test_foreign_hdf5_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"] = np.zeros((3, 4))
    with pytest.raises(BagFormatError, match=r"clam\.h5: not a pathoml bag \(its attribute 'format'"):
        read_bag(tmp_path / "clam.h5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tile_px": "224"}, "tile_px is '224'"),
        ({"slide_mpp": None}, "slide_mpp is None"),
        ({"rejected": ["pen"]}, "rejected is"),
        ({"mpp_read": [0.5]}, "mpp_read"),
        ({"slide_mpp": [0.5, 0.0]}, r"slide_mpp is \(0\.5, 0\.0\), expected more than 0"),
        ({"target_mpp": float("nan")}, "target_mpp is nan"),
        ({"tile_px": 0}, "tile_px is 0, expected more than 0"),
    ],
)
def test_a_header_whose_values_cannot_be_is_refused(change: dict[str, object], said: str) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(bag().header)))
    with pytest.raises(BagFormatError, match=f"bag header: {said}.*extract it again"):
        header_from_dict({**values, **change})


@pytest.mark.parametrize("attribute", ["header", "digests"])
@pytest.mark.parametrize("content", ["[]", "3", '"x"', "null"])
def test_attributes_that_are_no_tables_are_refused(path: Path, attribute: str, content: str) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = np.bytes_(content)
    with pytest.raises(BagFormatError, match=r"S1\.h5: .* no table of names; extract"):
        read_bag(path)


def test_a_header_that_lacks_a_field_is_refused_by_its_name() -> None:
    values = json.loads(json.dumps(dataclasses.asdict(bag().header)))
    assert header_from_dict(values) == bag().header
    del values["tile_px"]
    with pytest.raises(BagFormatError, match="bag header lacks tile_px"):
        header_from_dict(values)
