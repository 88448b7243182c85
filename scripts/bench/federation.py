"""A network against the same patients in one place: coefficients, concordance, stability over seeds, what joining brings.

Usage: python scripts/bench/federation.py --data FOLDER [--only linear,rounds,aggregations,hospitals] [--demo DEMO]

FOLDER holds fed_tcga_brca/ (brca.csv, train_test_split.csv, centers.csv). Settings of the network are chosen among a few by
splits inside the training patients, before any test patient is looked at. DEMO is a folder of `pathoml demo DEMO --federated`,
whose hospitals are shown beside the drawn ones.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from pathoml.cohort import Cohort, CohortSettings, read_cohort
from pathoml.covariates import NumericCovariate
from pathoml.evaluate.verdicts import corrected_interval
from pathoml.federated.compare import risks_at
from pathoml.federated.coordinator import run_federation  # noqa: F401 - loaded before the clock of the first run
from pathoml.federated.method_settings import RoundsSettings
from pathoml.federated.plan import Plan
from pathoml.federated.simulate import pool, simulate, split_cohort
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import LimitsSettings
from pathoml.packages import Package
from pathoml.survival.metrics import concordance_sums
from pathoml.testing.hospital_features import SPEC, HospitalsDesign, draw_hospitals
from pathoml.train import follow_up

DESIGN = HospitalsDesign()
"""Five hospitals of 1,200 patients together."""
PUBLIC = LimitsSettings(public_benchmark=True)
CANDIDATES = {
    "newton": tuple(("fedavg", ridge, rate) for ridge in (3.0, 10.0, 30.0, 100.0) for rate in (0.05, 0.2)),
    "zero": tuple((kind, 10.0, rate) for kind in ("fedavg", "scaffold") for rate in (0.2, 0.5, 1.0)),
}
"""Aggregation, penalty (of the linear model that rounds start from) and step size, by where rounds start: from zero there is a
longer way to go, on which hospitals that differ pull apart what is averaged."""
WEIGHT = {"newton": "events", "zero": "patients"}
Candidate = tuple[str, float, float]
ROUNDS = {"newton": 10, "zero": 100}
INNER_SPLITS = 5


def read_brca(folder: Path, scratch: Path) -> tuple[Cohort, np.ndarray, list[str]]:  # type: ignore[type-arg]
    """Return the patients with their region, who tests in the fixed split, and the names of the columns."""
    table = pd.read_csv(folder / "brca.csv").merge(pd.read_csv(folder / "train_test_split.csv"), on="pid")
    centres = pd.read_csv(folder / "centers.csv", dtype=str).drop_duplicates("TSS Code").set_index("TSS Code")["Region"]
    table["region"] = table["pid"].str.split("-").str[1].map(centres)
    columns = [name for name in table.columns if name not in ("pid", "E", "T", "region", "fold", "fold2")]
    table["E"] = table["E"].astype(int)
    table.to_csv(scratch / "brca.csv", index=False)
    settings = CohortSettings(
        table=scratch / "brca.csv", patient_id="pid", time="T", time_unit="days", event="E", site="region",
        covariates=tuple(NumericCovariate(column=name) for name in columns),
    )  # fmt: skip
    cohort = read_cohort(settings)
    fold = table.set_index("pid")["fold"]
    return cohort, (fold.loc[cohort.patient_id] == "test").to_numpy(), columns


def brca_plan(cohort: Cohort, columns: list[str], **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "name": "fed-tcga-brca", "sites": sorted(set(cohort.site.tolist())), "quorum": 6, "endpoint": cohort.endpoint,
        "covariates": [{"kind": "numeric", "column": name} for name in columns], "minimum_patients": 1, "minimum_events": 0,
        "bins": {"kind": "network", "bins": 8}, "validation_share": 0.0,
        "train": {"loss": {"kind": "discrete"}}, "method": {"kind": "newton"}, "test": {"kind": "column", "column": "fold"},
    }  # fmt: skip
    return Plan.model_validate({**settings, **changes})


def rounds_changes(candidate: Candidate, seed: int = 0, *, start: str = "newton") -> dict[str, Any]:
    """Return a network trained by rounds: batches of patients, so that the seed matters; more rounds if it starts from zero."""
    kind, ridge, rate = candidate
    return {
        "train": {
            "loss": {"kind": "discrete"}, "optimizer": "sgd", "learning_rate": rate, "covariate_ridge": ridge, "seed": seed,
            "batch_patients": 32, "weight_decay": 0.01, "schedule": "cosine",
        },
        "method": {
            "kind": "rounds", "rounds": ROUNDS[start], "local_epochs": 1, "start": start,
            "aggregation": {"kind": kind}, "weight": WEIGHT[start],
        },
        "update_norm": 1000.0,
    }  # fmt: skip


def trained(plan: Plan, parts: dict[str, SiteData]) -> Package:
    with tempfile.TemporaryDirectory() as folder:
        return simulate(plan, parts, Path(folder), limits=PUBLIC).package


def trained_pooled(plan: Plan, parts: dict[str, SiteData]) -> Package:
    return trained(plan.model_copy(update={"sites": ("pooled",), "quorum": 1}), {"pooled": pool(parts)})


def judged(package: Package, plan: Plan, parts: dict[str, SiteData]) -> tuple[float, dict[str, float]]:
    """Return concordance over within-site pairs of all sites, and of each site."""
    above, below, by_site = 0.0, 0.0, {}
    for name, data in parts.items():
        time_days, event = follow_up(data.cohort, data.test)
        won, pairs = concordance_sums(time_days, event, risks_at(package, plan, data), np.ones((1, len(event))))
        above, below = above + won[0], below + pairs[0]
        by_site[name] = float(won[0] / pairs[0]) if pairs[0] else float("nan")
    return above / below, by_site


def choose(cohort: Cohort, columns: list[str], is_test: np.ndarray, start: str) -> Candidate:  # type: ignore[type-arg]
    """Choose aggregation, penalty and step size by splits of the training patients alone."""
    rows = np.flatnonzero(~is_test)
    training = replace(
        cohort, patient_id=cohort.patient_id[rows], time_days=cohort.time_days[rows], event=cohort.event[rows],
        site=cohort.site[rows], covariates=cohort.covariates.iloc[rows].reset_index(drop=True),
    )  # fmt: skip
    found = {}
    for candidate in CANDIDATES[start]:
        values = []
        for seed in range(INNER_SPLITS):
            plan = brca_plan(
                training, columns, **rounds_changes(candidate, start=start), test={"kind": "share"}, seed=1000 + seed
            )
            parts = split_cohort(training, None, plan)
            values.append(judged(trained(plan, parts), plan, parts)[0])
        found[candidate] = float(np.mean(values))
        print(f"  {described(candidate)}: {found[candidate]:.3f} inside the training patients", flush=True)
    return max(found, key=lambda one: found[one])


def described(candidate: Candidate) -> str:
    return f"{candidate[0]}, ridge {candidate[1]:g}, step {candidate[2]:g}"


def measure_linear(cohort: Cohort, columns: list[str], is_test: np.ndarray) -> float:  # type: ignore[type-arg]
    plan = brca_plan(cohort, columns, train={"loss": {"kind": "discrete"}, "covariate_ridge": 10.0})
    parts = split_cohort(cohort, None, plan, is_test)
    first, second = (one(plan, parts).members[0].model.covariate_weight.detach() for one in (trained, trained_pooled))
    return float((first - second).abs().max())


def measure_rounds(
    cohort: Cohort, columns: list[str], is_test: np.ndarray, seeds: int, splits: int
) -> dict[str, float]:  # type: ignore[type-arg]
    chosen = choose(cohort, columns, is_test, "newton")
    print(f"chosen without test patients: {described(chosen)}")
    fixed, by_site = [], []
    plan = brca_plan(cohort, columns, train={"loss": {"kind": "discrete"}, "covariate_ridge": chosen[1]})
    parts = split_cohort(cohort, None, plan, is_test)
    print(f"fixed split, the linear model that rounds start from: {judged(trained(plan, parts), plan, parts)[0]:.3f}")
    for seed in range(seeds):
        plan = brca_plan(cohort, columns, **rounds_changes(chosen, seed))
        parts = split_cohort(cohort, None, plan, is_test)
        overall, sites = judged(trained(plan, parts), plan, parts)
        if seed == 0:
            mean_low, mean_high = show_sites(trained(plan, parts), plan, parts)
        fixed.append(overall)
        by_site.append(float(np.nanmean(list(sites.values()))))
    shared, differences = [], []
    for split in range(splits):
        plan = brca_plan(cohort, columns, **rounds_changes(chosen), test={"kind": "share"}, seed=split)
        parts = split_cohort(cohort, None, plan)
        federated, _ = judged(trained(plan, parts), plan, parts)
        shared.append(federated)
        differences.append(federated - judged(trained_pooled(plan, parts), plan, parts)[0])
    low, high = corrected_interval(np.array(differences), tested_over_trained(parts))
    from_zero = []
    chosen = choose(cohort, columns, is_test, "zero")
    print(f"chosen for rounds from zero: {described(chosen)}")
    for split in range(splits):
        changes = rounds_changes(chosen, start="zero")
        plan = brca_plan(cohort, columns, **changes, test={"kind": "share"}, seed=split)
        parts = split_cohort(cohort, None, plan)
        from_zero.append(
            judged(trained(plan, parts), plan, parts)[0] - judged(trained_pooled(plan, parts), plan, parts)[0]
        )
    zero_low, zero_high = corrected_interval(np.array(from_zero), tested_over_trained(parts))
    return {
        "by_site_low": mean_low, "by_site_high": mean_high,
        "zero": float(np.mean(from_zero)), "zero_low": zero_low, "zero_high": zero_high,
        "fixed": float(np.mean(fixed)), "fixed_sd": float(np.std(fixed, ddof=1)), "by_site": float(np.mean(by_site)),
        "shared": float(np.mean(shared)), "shared_sd": float(np.std(shared, ddof=1)),
        "difference": float(np.mean(differences)), "low": low, "high": high,
    }  # fmt: skip


def tested_over_trained(parts: dict[str, SiteData]) -> float:
    """Return what the interval over splits of the same patients is to be widened for."""
    return sum(len(one.test) for one in parts.values()) / sum(len(one.train) for one in parts.values())


def show_sites(package: Package, plan: Plan, parts: dict[str, SiteData]) -> tuple[float, float]:
    """Print each site's concordance with its interval over its patients; return that of the mean of the sites.

    A draw of a site's patients without any pair says nothing of it: the mean of that draw is over the others.
    """
    dealer, ratios = np.random.default_rng(0), []
    by_site = judged(package, plan, parts)[1]
    for name, data in parts.items():
        time_days, event = follow_up(data.cohort, data.test)
        drawn = dealer.multinomial(len(event), np.full(len(event), 1 / len(event)), size=2000).astype(np.float64)
        won, pairs = concordance_sums(time_days, event, risks_at(package, plan, data), drawn)
        ratio = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
        ratios.append(ratio)
        low, high = np.nanquantile(ratio, [0.025, 0.975])
        print(
            f"  {name}: {by_site[name]:.3f} ({low:.3f} to {high:.3f}), {len(event)} test patients, {int(event.sum())} events"
        )
    low, high = np.quantile(np.nanmean(np.array(ratios), axis=0), [0.025, 0.975])
    return float(low), float(high)


def measure_aggregations(cohort: Cohort, columns: list[str], is_test: np.ndarray, seeds: int) -> dict[str, list[float]]:  # type: ignore[type-arg]
    """Return, for each way of joining updates, the concordance of each seed on the fixed split, from weights of zero.

    Settings are those of a plan that says nothing of them, but for plain gradient steps, which SCAFFOLD needs; ridge and step size
    are those of the middle of what `choose` looks at.
    """
    found: dict[str, list[float]] = {}
    for kind in ("fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad"):
        found[kind] = []
        for seed in range(seeds):
            changes = rounds_changes((kind, 10.0, 0.2), seed, start="zero")
            method = {**changes["method"], "rounds": 20, "weight": RoundsSettings().weight}
            plan = brca_plan(cohort, columns, **{**changes, "method": method})
            parts = split_cohort(cohort, None, plan, is_test)
            found[kind].append(judged(trained(plan, parts), plan, parts)[0])
        print(
            f"  {kind}: {np.mean(found[kind]):.3f} +- {np.std(found[kind], ddof=1):.3f} over {seeds} seeds", flush=True
        )
    return found


def hospitals_plan(sites: list[str], seed: int) -> Plan:
    return Plan.model_validate(
        {
            "name": "hospitals", "sites": sites, "quorum": len(sites), "endpoint": "overall survival",
            "covariates": [{"kind": "numeric", "column": "age"}], "features": {**vars(SPEC), "dim": DESIGN.dim, "scaling": "site"},
            "model": {"aggregator": {"kind": "abmil"}, "tile_components": 12},
            "minimum_patients": 10, "minimum_events": 5, "seed": seed, "validation_share": 0.2,
            "train": {"loss": {"kind": "discrete"}, "learning_rate": 0.005, "batch_patients": 64, "seed": seed},
            "method": {
                "kind": "rounds", "rounds": 15, "local_epochs": 2, "aggregation": {"kind": "fedavg"}, "weight": "patients",
                "keep": "best_validation",  # by each model's own validation patients: the network's, all of them, or one hospital's
            },
        }
    )  # fmt: skip


def measure_hospitals(cohorts: range) -> list[dict[str, float]]:
    """Return each drawn cohort's mean concordance over all hospitals of the network's model, the pooled, and each local one."""
    found = []
    for seed in cohorts:
        cohort, features = draw_hospitals(seed, DESIGN)
        plan = hospitals_plan(sorted(set(cohort.site.tolist())), seed)
        parts = split_cohort(cohort, features, plan)
        mean = {"federated": np.nanmean(list(judged(trained(plan, parts), plan, parts)[1].values()))}
        mean["pooled"] = np.nanmean(list(judged(trained_pooled(plan, parts), plan, parts)[1].values()))
        for name, data in parts.items():
            alone = plan.model_copy(update={"sites": (name,), "quorum": 1})
            mean[name] = np.nanmean(list(judged(trained(alone, {name: data}), plan, parts)[1].values()))
        print("  " + ", ".join(f"{name} {value:.3f}" for name, value in mean.items()), flush=True)
        found.append({name: float(value) for name, value in mean.items()})
    return found


def judge_hospitals(found: list[dict[str, float]]) -> dict[str, Any]:
    """Print the network's model against the pooled and against each hospital's, paired by cohort; return the figures."""
    figures: dict[str, Any] = {}
    lows = {}
    print(
        f"drawn hospitals, {len(found)} cohorts: the network's model {np.mean([one['federated'] for one in found]):.3f}"
    )
    for name in found[0]:
        if name == "federated":
            continue
        differences = [one["federated"] - one[name] for one in found]
        low, high = interval(differences)
        lows[name] = low
        print(f"  minus {name}: {np.mean(differences):+.4f} ({low:+.4f} to {high:+.4f})")
    best = [
        one["federated"] - max(value for name, value in one.items() if name.startswith("hospital")) for one in found
    ]
    low, high = interval(best)
    print(f"  minus whichever hospital's is the best in each cohort, chosen by the test patients: {np.mean(best):+.4f} "
          f"({low:+.4f} to {high:+.4f})")  # fmt: skip
    pooled = lows.pop("pooled")
    figures["hospitals_minus_pooled_low"] = {"value": pooled, "target": -0.01, "ok": pooled >= -0.01}
    worst = min(lows.values())
    figures["hospitals_above_each_local_low"] = {"value": worst, "target": 0.0, "ok": worst > 0}
    return figures


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over cohorts, each drawn anew."""
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def show_demo(folder: Path) -> None:
    """Print what joining brought to the hospitals of the demo; four of 20 to 30 patients each, so that no target rests on it."""
    found = json.loads((folder / "federation" / "comparison.json").read_text())
    print(
        f"the demo's {len(found['sites'])} hospitals, {sum(one['patients'] for one in found['sites'].values())} test patients:"
    )
    for name, one in found["overall"].items():
        print(f"  {name}: {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})")
    for site, one in found["sites"].items():
        gain = one["models"].get("shared - local")
        told = (
            "cannot be told"
            if gain is None or gain["value"] is None
            else f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        )
        print(f"  {site} ({one['patients']} test patients, {one['events']} events), joining: {told}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="linear,rounds,aggregations,hospitals")
    parser.add_argument("--demo", type=Path, help="folder of `pathoml demo FOLDER --federated`, to be shown beside")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=20, help="cohorts of drawn hospitals")
    parser.add_argument(
        "--first", type=int, default=20, help="number of the first; 0 and 1 were looked at for the design"
    )
    options = parser.parse_args()
    wanted, figures = options.only.split(","), {}
    with tempfile.TemporaryDirectory() as scratch:
        cohort, is_test, columns = read_brca(options.data / "fed_tcga_brca", Path(scratch))
    if "linear" in wanted:
        worst = measure_linear(cohort, columns, is_test)
        print(f"linear model: largest difference of a coefficient from the pooled fit {worst:.1e}")
        figures["linear_difference"] = {"value": worst, "target": 1e-6, "ok": worst <= 1e-6}
    if "rounds" in wanted:
        found = measure_rounds(cohort, columns, is_test, options.seeds, options.splits)
        print(f"fixed split, {options.seeds} seeds: {found['fixed']:.3f} +- {found['fixed_sd']:.3f}")
        print(f"mean of the sites' own concordances: {found['by_site']:.3f}, over patients drawn again "
              f"{found['by_site_low']:.3f} to {found['by_site_high']:.3f}")  # fmt: skip
        print(f"{options.splits} splits: {found['shared']:.3f} +- {found['shared_sd']:.3f}")
        print(f"minus pooled {found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})")
        print(
            f"from weights of zero, minus pooled {found['zero']:+.4f} ({found['zero_low']:+.4f} to {found['zero_high']:+.4f})"
        )
        low = found["zero_low"]
        figures["rounds_from_zero_minus_pooled_low"] = {"value": low, "target": -0.02, "ok": low >= -0.02}
        figures["rounds_minus_pooled_low"] = {"value": found["low"], "target": -0.02, "ok": found["low"] >= -0.02}
        figures["rounds_sd_over_seeds"] = {"value": found["fixed_sd"], "target": 0.03, "ok": found["fixed_sd"] <= 0.03}
        figures["rounds_mean_of_sites"] = {"value": found["by_site"], "target": 0.80, "ok": found["by_site"] >= 0.80}
    if "aggregations" in wanted:
        kinds = measure_aggregations(cohort, columns, is_test, options.seeds)
        default = RoundsSettings().aggregation.kind
        deviation = float(np.std(kinds[default], ddof=1))
        print(f"the default is {default}")
        figures["default_aggregation_sd_over_seeds"] = {"value": deviation, "target": 0.03, "ok": deviation <= 0.03}
    if "hospitals" in wanted:
        figures |= judge_hospitals(measure_hospitals(range(options.first, options.first + options.repeats)))
    if options.demo is not None:
        show_demo(options.demo)
    print(json.dumps(figures))
    return 0 if all(one["ok"] for one in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
