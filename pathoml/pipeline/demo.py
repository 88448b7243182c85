"""`demo`: a synthetic cohort through the whole pipeline, beside what the best possible model would reach."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.bags import read_bag
from pathoml.config import load_config
from pathoml.cross_validation import MODEL
from pathoml.evaluate import fold_mean_concordance
from pathoml.federated.plan import Plan
from pathoml.federated.simulate import site_name
from pathoml.federated.site_settings import LimitsSettings
from pathoml.files import write_text
from pathoml.pipeline.federating import network_of_cohort, simulate_network
from pathoml.pipeline.running import RunResult, run
from pathoml.pipeline.stages import StageContext, usable_study
from pathoml.pipeline.study import open_study, slides_of
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


def federated_demo(folder: Path, context: StageContext) -> Path:
    """Let the hospitals of the demo's cohort train one model together, each with its own slides.

    Parameters
    ----------
    folder : Path
        Of a finished demo.
    context : StageContext
        Device and listener.

    Returns
    -------
    Path
        The page that says what joining does.
    """
    config = load_config(folder / "demo.yaml")
    study = usable_study(open_study(config))
    bags = slides_of(config).bags
    first = next(entry.slide_id for entry in study.entries if (bags / f"{entry.slide_id}.h5").is_file())
    bag = read_bag(bags / f"{first}.h5")
    plan = Plan.model_validate(
        {
            "name": "demo", "sites": sorted({site_name(text) for text in study.cohort.site.tolist()}),
            "endpoint": study.cohort.endpoint, "minimum_patients": 1, "minimum_events": 1,
            "covariates": [
                {"kind": "numeric", "column": "age"},
                {"kind": "categorical", "column": "sex", "words": sorted(set(study.cohort.covariates["sex"]) - {""})},
            ],
            "features": {**vars(bag.header.feature_spec), "dim": bag.features.shape[1], "scaling": "site"},
            "model": {"tile_components": 6}, "train": {"loss": {"kind": "discrete"}, "learning_rate": 0.01},
            "method": {"kind": "rounds", "rounds": 15, "local_epochs": 2, "aggregation": {"kind": "fedavg"}},
            "test": {"kind": "share", "share": 0.3}, "validation_share": 0.0,
        }
    )  # fmt: skip
    write_text(folder / "plan.yaml", json.dumps(plan.model_dump(mode="json"), indent=1))
    parts = network_of_cohort(plan, folder / "demo.yaml", [])
    limits = LimitsSettings(public_benchmark=True)  # the patients are drawn
    simulate_network(plan, parts, folder / "federation", context, compared=True, limits=limits)
    return folder / "federation" / "federation.html"


def _oracle_concordance(result: RunResult, truth: Path) -> float:
    test = read_predictions(result.folder.predictions).select(model=MODEL, scheme="kfold", role="test").table
    oracle = pd.read_csv(truth, dtype={"patient_id": str}).set_index("patient_id")["log_hazard"]
    risk = oracle.loc[test["patient_id"]].to_numpy(dtype=np.float64)
    time_days, event = test["time_days"].to_numpy(dtype=np.float64), test["event"].to_numpy(dtype=np.int64)
    return fold_mean_concordance(time_days, event, risk, test["fold"].tolist())
