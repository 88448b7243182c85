"""Fixtures that several test files share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: test processes side by side, tiny matrices

from pathlib import Path

import pytest

from tests.small_cohort import copy_of_cohort, drawn_cohort, finished

__all__ = ["copy_of_cohort", "data_dir", "drawn_cohort", "finished"]

_DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real slides and tables; see CONTRIBUTING.md for what it holds and how to get it."""
    folder = Path(os.environ.get("PATHOML_TEST_DATA", _DEFAULT_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set PATHOML_TEST_DATA to the folder that CONTRIBUTING.md describes")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module on one process, where tests are dealt out by group, so that it is prepared once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
