"""Which p-values hold after cross-validation: how often they are small where the null hypothesis is true.

Usage: python scripts/bench/p_values.py [STUDIES]

Survival follows a proportional-hazards model of which every column is known; ridge Cox models are fitted in five folds and judged
on the patients they have not seen, or fitted on as many other patients and judged on all. D-calibration's p-value is printed by
the report for models from elsewhere only, since after cross-validation it is hardly ever small; that of proportional hazards is
printed for both, since it is no more often small than it says.
"""

import json
import sys

import numpy as np
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pathoml.survival.calibration import d_calibration
from pathoml.survival.cox_regression import proportional_hazards_test

SETTINGS = ((100, 2, 0.7), (300, 2, 0.7), (300, 10, 0.7), (300, 2, 0.0), (300, 20, 0.0))
"""Patients, columns, and the standard deviation of the log hazard."""
FOLDS, STUDIES, LEAST_STUDIES, RIDGE = 5, 400, 160, 0.1


def p_values(patients: int, columns: int, strength: float, seed: int, *, crossed: bool) -> tuple[float, float]:
    """Return the p-values of D-calibration and of proportional hazards in one study."""
    rng = np.random.default_rng(seed)
    everybody = patients if crossed else 2 * patients
    design = rng.normal(size=(everybody, columns))
    happens = rng.exponential(np.exp(-design @ np.full(columns, strength / np.sqrt(columns))))
    leaves = rng.exponential(2.0, everybody)
    time, event = np.minimum(happens, leaves), happens <= leaves
    fold = rng.permutation(patients) % FOLDS
    splits = (
        [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(FOLDS)]
        if crossed
        else [(np.arange(patients, everybody), np.arange(patients))]
    )
    survival, risk, stratum = np.zeros(patients), np.zeros(patients), np.zeros(patients, dtype=np.int64)
    for number, (train, test) in enumerate(splits):
        model = CoxPHSurvivalAnalysis(alpha=RIDGE).fit(design[train], Surv.from_arrays(event[train], time[train]))
        curves = model.predict_survival_function(design[test])
        survival[test] = [curve(np.clip(time[place], *curve.domain)) for place, curve in zip(test, curves, strict=True)]
        risk[test], stratum[test] = model.predict(design[test]), number
    time, seen = time[:patients], event[:patients].astype(np.int64)
    found = d_calibration(survival, seen, np.ones((1, patients)))
    constancy = proportional_hazards_test(risk[:, None], time, seen, stratum=stratum)
    return found.p_value, float(constancy.p_value[0])


def main() -> int:
    """Print the table and the figures."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    if studies < LEAST_STUDIES:
        raise SystemExit(f"{studies} studies a setting cannot tell 0.05 from 0.07; at least {LEAST_STUDIES}")
    print(
        f"{'patients':>8} {'columns':>8} {'SD':>4} {'fitted':>16} {'D-calibration':>14} {'prop. hazards':>14}   share below 0.05"
    )
    small: dict[tuple[bool, int], list[float]] = {}
    for patients, columns, strength in SETTINGS:
        for crossed in (True, False):
            found = np.array([p_values(patients, columns, strength, seed, crossed=crossed) for seed in range(studies)])
            below = (found < 0.05).mean(axis=0)
            for which in (0, 1):
                small.setdefault((crossed, which), []).append(float(below[which]))
            how = "in five folds" if crossed else "on others"
            print(f"{patients:>8} {columns:>8} {strength:>4} {how:>16} {below[0]:>14.3f} {below[1]:>14.3f}")
    largest = {key: max(values) for key, values in small.items()}
    figures = {
        "d_calibration_in_folds": (largest[True, 0], 0.01),
        "proportional_hazards_in_folds": (largest[True, 1], 0.07),
        "proportional_hazards_on_others": (largest[False, 1], 0.07),
    }
    result = {
        name: {"value": round(value, 4), "target": target, "ok": value <= target}
        for name, (value, target) in figures.items()
    }
    print(json.dumps(result))
    return 0 if all(one["ok"] for one in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
