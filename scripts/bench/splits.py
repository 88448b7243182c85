"""Measure the dealing of whole hospitals into folds on five real cohorts, and a leakage report on 10,000 patients.

Usage: python scripts/bench/splits.py TCGA_FOLDER

TCGA_FOLDER holds tcga_<cohort>_all_clean.csv.zip (CONTRIBUTING.md says where from) and tcga-institution-sites.csv. Each
cohort is dealt by its site codes and by hospitals, to which several codes may belong. Prints a table and, as the last line,
one JSON object; exits 1 if a figure falls short.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort, CohortSettings, read_cohort
from pathoml.leakage import SlideMark, examine_leakage, hash_rows
from pathoml.splits import SitePreservedSettings, SplitsSettings, deal, make_folds

COHORTS = ("blca", "brca", "gbmlgg", "luad", "ucec")
PATIENTS, SLIDES, LEAKAGE_S = 10_000, 12_000, 5.0
TARGETS = {"seconds": 10.0, "points_from_bound": 5.0, "sites_in_two_folds": 0}


def tcga_cohort(folder: Path, name: str) -> Cohort:
    return read_cohort(
        CohortSettings(
            table=folder / f"tcga_{name}_all_clean.csv.zip",
            patient_id="case_id",
            time="survival_months",
            time_unit="months",
            event="censorship",
            event_codes={"0": 1, "1": 0},
            site="site",
        )
    )


def hospitals(folder: Path, codes: np.ndarray) -> np.ndarray:
    """Return the hospital of each site code; numbers have lost their leading zero in the cohorts' tables."""
    table = pd.read_csv(folder / "tcga-institution-sites.csv", sep=";", dtype=str, keep_default_na=False)
    code, hospital = table.columns[0], table.columns[1]
    of_code = {row[code].lstrip("0"): row[hospital] for _, row in table.iterrows()}
    return np.array([of_code.get(one.lstrip("0"), one) for one in codes])


def measure(cohort: Cohort) -> dict[str, float]:
    started = time.perf_counter()
    dealing = deal(cohort, SplitsSettings(schemes=(SitePreservedSettings(),)))
    seconds = time.perf_counter() - started
    (balance,) = dealing.balances["site_preserved"]
    tested: dict[str, set[str]] = {}
    for fold in dealing.folds:
        for site in cohort.site[cohort.rows_of(fold.test)]:
            tested.setdefault(str(site), set()).add(fold.name)
    return {
        "sites": len(tested), "off": 100 * balance.events_off, "bound": 100 * balance.events_bound,
        "patients_off": 100 * balance.patients_off, "points_from_bound": 100 * balance.gap,
        "sites_in_two_folds": sum(len(folds) > 1 for folds in tested.values()), "seconds": seconds,
    }  # fmt: skip


def leakage_seconds() -> float:
    """Time every check on 10,000 patients with 12,000 slides of 1,024 mean features."""
    rng = np.random.default_rng(0)
    names = np.array([f"P{index:05d}" for index in range(PATIENTS)])
    table = pd.DataFrame(rng.normal(size=(PATIENTS, 40))).add_prefix("g")
    site = np.array([f"H{index:02d}" for index in rng.integers(0, 40, PATIENTS)])
    cohort = Cohort(names, rng.exponential(900, PATIENTS), rng.integers(0, 2, PATIENTS), site, table, "os")
    marks = [
        SlideMark(
            f"S{index}", str(names[index % PATIENTS]), f"{index:064d}", hash_rows(rng.normal(size=(100, 64))), mean
        )
        for index, mean in enumerate(rng.normal(size=(SLIDES, 1024)))
    ]
    folds = make_folds(cohort, SplitsSettings())
    started = time.perf_counter()
    report = examine_leakage(cohort, folds, marks)
    seconds = time.perf_counter() - started
    assert not report.leaks
    return seconds


def main() -> int:
    folder = Path(sys.argv[1])
    figures: dict[str, dict[str, float | bool]] = {}
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; 5 folds; shares in percentage points")
    print(f"{'cohort':<22}{'sites':>6}{'events off':>12}{'proved bound':>14}{'patients off':>14}{'seconds':>9}")
    for name in COHORTS:
        cohort = tcga_cohort(folder, name)
        by_hospital = Cohort(**{**vars(cohort), "site": hospitals(folder, cohort.site)})
        for label, one in ((name, cohort), (f"{name}_hospitals", by_hospital)):
            found = measure(one)
            print(
                f"{label:<22}{found['sites']:>6}{found['off']:>12.2f}{found['bound']:>14.2f}"
                f"{found['patients_off']:>14.2f}{found['seconds']:>9.2f}"
            )
            for figure, target in TARGETS.items():
                value = round(found[figure], 3)
                key = f"{label}_{'s' if figure == 'seconds' else figure}"
                figures[key] = {"value": value, "target": target, "ok": value <= target}
    seconds = round(leakage_seconds(), 3)
    print(f"leakage report on {PATIENTS:,} patients, {SLIDES:,} slides: {seconds} s")
    figures["leakage_10000_patients_s"] = {"value": seconds, "target": LEAKAGE_S, "ok": seconds <= LEAKAGE_S}
    print(json.dumps(figures))
    return 0 if all(one["ok"] for one in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
