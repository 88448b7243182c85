"""Rows of several arrays behave as their concatenation, in memory and mapped; mapped bags train to the same bytes."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from pathoml.bags import read_bag
from pathoml.mil import patients as patients_module
from pathoml.mil.patients import load_features
from pathoml.mil.tile_rows import TileRows
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")


@pytest.fixture
def parts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(count, 3)).astype(np.float16) for count in (4, 1, 7)]


def test_rows_are_those_of_all_parts_in_turn(parts: list[np.ndarray]) -> None:
    rows, whole = TileRows(parts), np.concatenate(parts)
    assert (len(rows), rows.shape, rows.dtype) == (12, (12, 3), np.float16)
    np.testing.assert_array_equal(np.asarray(rows), whole)
    for start in range(12):
        for stop in range(start, 13):
            np.testing.assert_array_equal(rows[start:stop], whole[start:stop])
    with pytest.raises(IndexError, match="neighbours"):
        rows[::2]


def owner_of(array: object) -> object:
    """Return whose memory an array shows."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def test_mapped_bags_hold_the_same_numbers(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pathoml.config import load_config
    from pathoml.pipeline.study import open_study

    study = open_study(load_config(finished.config))
    folder = study.config.slides.bags
    names = [entry.slide_id for entry in study.entries if (folder / f"{entry.slide_id}.h5").is_file()]
    bag = read_bag(folder / f"{names[0]}.h5", mapped=True)
    assert isinstance(owner_of(bag.features), mmap.mmap)
    assert not bag.features.flags.writeable
    np.testing.assert_array_equal(bag.features, read_bag(folder / f"{names[0]}.h5").features)
    kept = load_features(study.cohort, folder, names)
    monkeypatch.setattr(patients_module, "free_bytes", lambda: 0.0)
    mapped = load_features(study.cohort, folder, names)
    assert kept.digest == mapped.digest
    for patient, rows in kept.of_patient.items():
        np.testing.assert_array_equal(np.asarray(rows), np.asarray(mapped.of_patient[patient]))
        np.testing.assert_array_equal(kept.places[patient], mapped.places[patient])
