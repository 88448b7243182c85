"""One small drawn cohort and one finished run of it, shared by the tests of the pipeline."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pathoml.config import load_config
from pathoml.pipeline.demo import DEMO_CONFIG
from pathoml.pipeline.running import RunResult, run
from pathoml.pipeline.stages import StageContext
from pathoml.testing import SMALL_DESIGN, make_cohort

SMALL_SEED = 7
DESIGN = dataclasses.replace(SMALL_DESIGN, tissue_area_mm2=0.2)
SMALL_SPLITS = """
  schemes:
    - {kind: kfold, folds: 3}
    - {kind: leave_one_site_out}
"""


@dataclass(frozen=True)
class FinishedRun:
    folder: Path
    result: RunResult

    @property
    def config(self) -> Path:
        return self.folder / "study.yaml"


def write_config(folder: Path) -> Path:
    path = folder / "study.yaml"
    head = DEMO_CONFIG.split("splits:")[0]
    path.write_text(
        f"{head}splits:{SMALL_SPLITS}train:\n  max_epochs: 30\nevaluate:\n  bootstraps: 100\nheatmap:\n  slides: 2\n"
    )
    return path


@pytest.fixture(scope="session")
def drawn_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(folder, seed=SMALL_SEED, design=DESIGN)
    return folder


@pytest.fixture(scope="session")
def finished(drawn_cohort: Path) -> FinishedRun:
    return FinishedRun(drawn_cohort, run(load_config(write_config(drawn_cohort)), StageContext()))


@pytest.fixture
def copy_of_cohort(drawn_cohort: Path, tmp_path: Path) -> Callable[[], Path]:
    """Give a folder with its own tables and configuration and links to the same slides."""

    def copy() -> Path:
        for name in ("cohort.csv", "slides.csv"):
            shutil.copy(drawn_cohort / name, tmp_path / name)
        (tmp_path / "slides").symlink_to(drawn_cohort / "slides")
        write_config(tmp_path)
        return tmp_path

    return copy
