"""Fixtures that several test files share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: test processes side by side, tiny matrices

from pathlib import Path

import pytest

from tests.chromium import browser
from tests.small_cohort import copy_of_cohort, drawn_cohort, finished

__all__ = ["browser", "copy_of_cohort", "data_dir", "drawn_cohort", "finished"]

_DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real slides and tables; see CONTRIBUTING.md for what it holds and how to get it."""
    folder = Path(os.environ.get("PATHOML_TEST_DATA", _DEFAULT_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set PATHOML_TEST_DATA to the folder that CONTRIBUTING.md describes")
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep the tests of a file, and all tests on the small cohort, on one process, so that each thing is prepared once."""
    from xdist.scheduler import LoadScopeScheduling

    if config.getvalue("dist") != "loadgroup":
        return None

    class ByPreparation(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            uses_it = 'xdist_group("small_cohort")' in (config.rootpath / file).read_text(encoding="utf-8")
            return "small_cohort" if uses_it else file

    return ByPreparation(config, log)
