"""How long it takes to judge predictions of 1,000 patients with every measure, and to write the page.

Usage: python scripts/bench/evaluate.py
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.covariates import CategoricalCovariate, NumericCovariate
from pathoml.evaluate import Background, EvaluateSettings, evaluate
from pathoml.evaluate.permutation import LinearFold, permute_linear, shuffles
from pathoml.predictions import Predictions, join_predictions
from pathoml.report import Page, write_report

PATIENTS, FOLDS, SITES, BOOTSTRAPS, DIM = 1000, 5, 8, 1000, 512
DAYS = np.arange(30.0, 3000.0, 30.0)


def predictions_of(noise: dict[str, float], seed: int = 0) -> tuple[Predictions, Background]:
    """Return predictions of models whose risk is the truth with noise, and the patients' covariates and features."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, SITES, PATIENTS)
    age, truth = rng.normal(62, 10, PATIENTS), rng.normal(size=PATIENTS)
    log_hazard = truth + 0.03 * (age - 62) + 0.1 * site
    happens, leaves = rng.exponential(1200 * np.exp(-log_hazard)), rng.uniform(200, 3000, PATIENTS)
    outcome = {"time_days": np.minimum(happens, leaves).round() + 1, "event": (happens <= leaves).astype(np.int64)}
    names = np.array([f"p{number:04d}" for number in range(PATIENTS)])
    parts = []
    for model, amount in noise.items():
        risk = log_hazard + rng.normal(0, amount, PATIENTS)
        curves = np.exp(-DAYS[None] / 1200 * np.exp(risk * 0.8)[:, None])
        for fold in range(FOLDS):
            tested = np.arange(PATIENTS) % FOLDS == fold
            table = pd.DataFrame(
                {
                    "model": model, "scheme": "kfold", "fold": str(fold), "patient_id": names, "site": site.astype(str),
                    "role": np.where(tested, "test", "train"), "endpoint": "overall survival", "repeat": 0, "seed": 0,
                    "risk": risk, "risk_group": np.where(risk > np.median(risk[~tested]), "high", "low"), **outcome,
                }
            )  # fmt: skip
            parts.append(Predictions(table, DAYS, curves))
    covariates = pd.DataFrame(
        {"age": age, "sex": rng.choice(["f", "m"], PATIENTS), "grade": rng.choice(["1", "2", "3"], PATIENTS)}
    )
    definitions = (
        NumericCovariate(column="age"), CategoricalCovariate(column="sex"), CategoricalCovariate(column="grade"),
    )  # fmt: skip
    features = rng.normal(size=(PATIENTS, DIM)) + 0.1 * site[:, None]
    return join_predictions(parts), Background(names, covariates, definitions, features)


def main() -> int:
    given, background = predictions_of({"model": 0.7, "clinical": 2.0})
    started, spent = time.perf_counter(), time.process_time()
    evaluation = evaluate(given, EvaluateSettings(bootstraps=BOOTSTRAPS), background)
    evaluation["schemes"]["kfold"]["permutation"] = {"clinical": permuted(background, given)}
    evaluated, on_cpu = time.perf_counter() - started, time.process_time() - spent
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        page = Page("Benchmark", "overall survival", [], [], evaluation, [], [], "")
        write_report(Path(folder) / "report.html", page)
        reported = time.perf_counter() - started
    figures = {
        f"every measure, {BOOTSTRAPS} bootstraps, {PATIENTS} patients, 2 models, s": (evaluated, 20.0),
        "the same, CPU s over two cores": (on_cpu / 2, 20.0),
        "report, s": (reported, 5.0),
    }
    found = {
        name: {"value": round(value, 2), "target": target, "ok": value <= target}
        for name, (value, target) in figures.items()
    }
    for name, one in found.items():
        print(f"{name:<70} {one['value']:>8} (target {one['target']}) {'ok' if one['ok'] else 'SHORT'}")
    print(json.dumps(found))
    return 0 if all(one["ok"] for one in found.values()) else 1


def permuted(background: Background, given: Predictions) -> dict[str, object]:
    """Fit the clinical model on 200 shuffles of the outcomes."""
    table = given.select(model="model", fold="0").table
    _, design = background.design(table["patient_id"].to_numpy(dtype=str))
    places = np.arange(PATIENTS) % FOLDS
    folds = [LinearFold(design, np.flatnonzero(places != one), np.flatnonzero(places == one)) for one in range(FOLDS)]
    outcome = table["time_days"].to_numpy(), table["event"].to_numpy()
    return permute_linear(folds, *outcome, order=shuffles(PATIENTS, 200, seed=0), ridge=1.0).to_json()


if __name__ == "__main__":
    sys.exit(main())
