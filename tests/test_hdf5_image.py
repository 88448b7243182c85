"""HDF5 written and read past HDF5 is what HDF5 itself says it is."""

import errno
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pathoml.errors import BagFormatError, OutputError
from pathoml.hdf5_audit import open_audited
from pathoml.hdf5_image import write_hdf5


def arrays(rows: int, columns: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "large": rng.normal(size=(rows, columns)).astype(np.float16),
        "small": rng.integers(0, 9, (rows, 2), dtype=np.int32),
        "flags": rng.integers(0, 9, rows, dtype=np.uint8),
    }


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (3000, 1024)])
@pytest.mark.parametrize("text_bytes", [10, 5_000, 60_000])
def test_hdf5_reads_what_was_written_past_it(tmp_path: Path, rows: int, columns: int, text_bytes: int) -> None:
    given, text = arrays(rows, columns), "x" * text_bytes
    write_hdf5(tmp_path / "a.h5", "large", given, lambda: {"text": np.bytes_(text), "number": 3})
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == set(given)
        for name, array in given.items():
            assert file[name].dtype == array.dtype
            assert file[name].chunks is None
            np.testing.assert_array_equal(file[name][()], array)
        assert file.attrs["text"] == text.encode("ascii")
        assert file.attrs["number"] == 3


def test_the_hour_does_not_change_the_file(tmp_path: Path) -> None:
    for name in "ab":
        write_hdf5(tmp_path / name, "large", arrays(9, 4), lambda: {"text": np.bytes_("x")})
        time.sleep(1.1)  # HDF5's clock has seconds
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_attributes_are_asked_for_once_the_large_array_is_on_its_way(tmp_path: Path) -> None:
    given = arrays(40, 8)

    def attributes() -> dict[str, int]:
        (part,) = tmp_path.glob(".a.h5.*")
        seen.append(part.stat().st_size)
        return {"a": 1}

    seen: list[int] = []
    given["large"] = np.zeros((4000, 1024), np.float16)
    given["small"], given["flags"] = np.zeros((4000, 2), np.int32), np.zeros(4000, np.uint8)
    write_hdf5(tmp_path / "a.h5", "large", given, attributes)
    assert seen[0] >= given["large"].nbytes


def test_what_fails_while_attributes_are_made_leaves_no_file(tmp_path: Path) -> None:
    def attributes() -> dict[str, int]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_hdf5(tmp_path / "a.h5", "large", arrays(5, 5), attributes)
    assert not list(tmp_path.iterdir())


def odd_integers(file: h5py.File) -> h5py.Dataset:
    """Of 12 bits in 16, shifted: no numpy array looks like that."""
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(2)
    dataset = h5py.Dataset(h5py.h5d.create(file.id, b"a", kind, h5py.h5s.create_simple((4, 2))))
    dataset[...] = np.arange(8, dtype=np.int16).reshape(4, 2)
    return dataset


LAYOUTS = {
    "contiguous": lambda file: file.create_dataset("a", data=np.arange(8, dtype="<f4").reshape(4, 2)),
    "big endian": lambda file: file.create_dataset("a", data=np.arange(8, dtype=">f4").reshape(4, 2)),
    "chunked": lambda file: file.create_dataset("a", data=np.arange(8, dtype="<i4").reshape(4, 2), chunks=(1, 2)),
    "compressed": lambda file: file.create_dataset("a", data=np.zeros((4, 2)), chunks=(4, 2), compression="gzip"),
    "never written": lambda file: file.create_dataset("a", shape=(4, 2), dtype="<f4"),
    "no rows": lambda file: file.create_dataset("a", shape=(0, 2), dtype="<f4"),
    "odd integers": odd_integers,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["array", "mapped"])
@pytest.mark.parametrize("user_block", [0, 512])
def test_audited_numbers_are_those_that_hdf5_reads(tmp_path: Path, layout: str, way: str, user_block: int) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=user_block) as file:
        LAYOUTS[layout](file)
        file.attrs["padding"] = np.zeros(512)  # so that what was never written is no more than the file could hold
        expected = file["a"][()]
    with open_audited(path, "test file", "do something") as audited:
        found = getattr(audited, way)("a")
    np.testing.assert_array_equal(found, expected)


def test_a_file_cut_behind_its_own_structure_is_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", "large", arrays(500, 64), dict)
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[:-3000])
    with (
        pytest.raises(BagFormatError, match="do something"),
        open_audited(tmp_path / "a.h5", "x", "do something") as one,
    ):
        one.array("large")
