"""`demo`: a synthetic cohort through the whole pipeline, beside what the best possible model would reach."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.config import load_config
from pathoml.cross_validation import MODEL
from pathoml.evaluate import fold_mean_concordance
from pathoml.files import write_text
from pathoml.pipeline.running import RunResult, run
from pathoml.pipeline.stages import StageContext
from pathoml.predictions import read_predictions
from pathoml.testing import DEMO_DESIGN, DEMO_SEED, CohortDesign, make_cohort

DEMO_CONFIG = """\
# The configuration of 'pathoml demo'. Everything that is not written here has its default;
# 'pathoml plan demo.yaml' shows what would be done, 'pathoml run demo.yaml' does it.
name: Demo on a synthetic cohort
output: run
cohort:
  table: cohort.csv
  time: time_days
  time_unit: days
  event: event
  site: site
  covariates:
    - {kind: numeric, column: age}
    - {kind: categorical, column: sex}
slides:
  manifest: slides.csv
  bags: bags
splits:
  schemes:
    - {kind: kfold, folds: 5}
    - {kind: leave_one_site_out}
model:
  tile_components: 6  # a cohort of 96 patients bears few
"""


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows.

    Parameters
    ----------
    run : RunResult
        Where everything stands.
    oracle_concordance : float
        Of the true hazard on the test patients, within the same folds as the model's.
    """

    run: RunResult
    oracle_concordance: float


def demo(
    folder: Path, context: StageContext, *, seed: int = DEMO_SEED, design: CohortDesign = DEMO_DESIGN
) -> DemoResult:
    """Draw a cohort and run the whole pipeline on it; an interrupted demo goes on where it stopped.

    Parameters
    ----------
    folder : Path
        Where to.
    context : StageContext
        Device and listener.
    seed : int, optional
        Of the cohort.
    design : CohortDesign, optional
        Its size and effects.

    Returns
    -------
    DemoResult
        The run, and the oracle's concordance.

    Raises
    ------
    InputError
        If the folder holds another cohort.
    """
    make_cohort(
        folder, seed=seed, design=design, on_slide=lambda done, total: context.progress("draw slides", done, total)
    )
    config_path = folder / "demo.yaml"
    if not config_path.is_file():
        write_text(config_path, DEMO_CONFIG)
    result = run(load_config(config_path), context)
    return DemoResult(result, _oracle_concordance(result, folder / "truth" / "patients.csv"))


def _oracle_concordance(result: RunResult, truth: Path) -> float:
    test = read_predictions(result.folder.predictions).select(model=MODEL, scheme="kfold", role="test").table
    oracle = pd.read_csv(truth, dtype={"patient_id": str}).set_index("patient_id")["log_hazard"]
    risk = oracle.loc[test["patient_id"]].to_numpy(dtype=np.float64)
    time_days, event = test["time_days"].to_numpy(dtype=np.float64), test["event"].to_numpy(dtype=np.int64)
    return fold_mean_concordance(time_days, event, risk, test["fold"].tolist())
