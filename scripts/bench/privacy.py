"""What patients' privacy costs: concordance on Fed-TCGA-BRCA at epsilon 8 and 1, time a patient, and what attacks find.

Six regions of Fed-TCGA-BRCA (folder fed_tcga_brca of PATHOML_TEST_DATA) train one discrete-time model on the clinical table by
federated averaging, plainly and with patients' privacy, on the same repeated splits: 20 % of each region's patients test.
Centre and scale of age, time bins and the start at zero are the plan's in all three, so that privacy is all that differs.
Step size and clip norm of each were chosen on training patients of the first split (--tune).

Prints a table and, last, one JSON object; exit code 1 if a figure falls short of its target.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pathoml.cohort import Cohort
from pathoml.covariates import fit_covariates
from pathoml.federated.accountant import Release
from pathoml.federated.compare import risks_at
from pathoml.federated.membership import membership_report, train_references
from pathoml.federated.patient_fit import patient_fit
from pathoml.federated.plan import Plan
from pathoml.federated.preprocessing import given_transform
from pathoml.federated.privacy_plan import noise_of_plan
from pathoml.federated.privacy_settings import PatientPrivacySettings
from pathoml.federated.private_update import PrivateTraining, private_update
from pathoml.federated.simulate import simulate, site_name, split_cohort
from pathoml.federated.site_settings import LimitsSettings
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objectives import DiscreteObjective
from pathoml.mil.patients import Patients, select_patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import as_they_are
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings
from pathoml.survival import concordance
from pathoml.train import follow_up, local_update
from pathoml.train_settings import DiscreteLossSettings, TrainSettings
from pathoml.train_state import start_state

Figures = dict[str, dict[str, object]]

EDGES_DAYS = (0.0, 730.0, 1460.0, 2920.0, 9000.0)
ROUNDS = 20
PUBLIC = LimitsSettings(public_benchmark=True)
PLAIN = TrainSettings(loss=DiscreteLossSettings(), learning_rate=0.03)


@dataclass(frozen=True)
class Setting:
    """What is chosen for one epsilon."""

    optimizer: str
    learning_rate: float
    clip_norm: float = 0.3
    sample_rate: float = 0.5


CHOSEN: Mapping[float | None, Setting] = {
    None: Setting("adamw", 0.03), 8.0: Setting("adamw", 0.003), 1.0: Setting("adamw", 0.001),
}  # fmt: skip
TRIED: Mapping[float | None, list[Setting]] = {
    None: [Setting("adamw", rate) for rate in (0.01, 0.03, 0.1)] + [Setting("sgd", rate) for rate in (0.1, 0.3, 1.0)],
    8.0: [
        *(Setting("adamw", rate) for rate in (0.003, 0.01)),
        *(Setting("sgd", rate, clip) for rate in (0.3, 1.0) for clip in (0.3, 1.0)),
    ],
    1.0: [
        *(Setting("adamw", rate) for rate in (0.001, 0.003)),
        *(Setting("sgd", rate, clip) for rate in (0.1, 0.3) for clip in (0.3, 1.0)),
    ],
}  # fmt: skip


def read_brca() -> Cohort:
    folder = Path(os.environ.get("PATHOML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "fed_tcga_brca"
    if not folder.is_dir():
        raise SystemExit(f"{folder}: not there; set PATHOML_TEST_DATA to the folder that CONTRIBUTING.md describes")
    table = pd.read_csv(folder / "brca.csv")
    centres = pd.read_csv(folder / "centers.csv", dtype=str, keep_default_na=False)
    region = dict(zip(centres["TSS Code"], centres["Region"], strict=True))
    known = set(pd.read_csv(folder / "train_test_split.csv")["pid"])
    table = table[table["pid"].isin(known) & (table["T"] > 0)].reset_index(drop=True)
    site = np.array([site_name(region[name.split("-")[1]]) for name in table["pid"]])
    return Cohort(
        table["pid"].to_numpy(), table["T"].to_numpy(dtype=np.float64), table["E"].to_numpy().astype(np.int64), site,
        table.drop(columns=["pid", "E", "T"]).astype(float), "overall survival",
    )  # fmt: skip


def plan_of(cohort: Cohort, epsilon: float | None, setting: Setting, seed: int) -> Plan:
    sites = sorted(set(cohort.site.tolist()))
    covariates: list[dict[str, Any]] = [
        {
            "kind": "numeric",
            "column": name,
            **({"mean": 58, "scale": 13} if name == "age_at_index" else {"mean": 0, "scale": 1}),
        }
        for name in cohort.covariates
    ]
    plan: dict[str, Any] = {
        "name": "brca", "sites": sites, "quorum": len(sites), "endpoint": "overall survival", "horizon_days": EDGES_DAYS[-1],
        "covariates": covariates, "bins": {"kind": "fixed", "edges_days": EDGES_DAYS}, "validation_share": 0.0,
        "train": {
            "loss": {"kind": "discrete"}, "optimizer": setting.optimizer, "learning_rate": setting.learning_rate, "seed": seed,
            # A plain pass takes as many steps as one with privacy takes on average.
            "batch_patients": None if epsilon is not None or setting.sample_rate == 1 else 75,
        },
        "method": {"kind": "rounds", "rounds": ROUNDS, "weight": "patients", "start": "zero", "aggregation": {"kind": "fedavg"}},
        "minimum_patients": 1, "minimum_events": 0, "seed": seed,
    }  # fmt: skip
    if epsilon is not None:
        plan["privacy"] = {
            "epsilon": epsilon, "clip_norm": setting.clip_norm, "sample_rate": setting.sample_rate, "spare_passes": 0,
        }  # fmt: skip
    return Plan.model_validate(plan)


def federate(
    cohort: Cohort, is_test: np.ndarray, epsilon: float | None, setting: Setting, seed: int
) -> tuple[float, float]:
    """Return the concordance on all test patients, and the epsilon that the site that spent most has spent."""
    plan = plan_of(cohort, epsilon, setting, seed)
    parts = split_cohort(cohort, None, plan, is_test)
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(plan, parts, Path(folder), limits=PUBLIC)
    risk = np.concatenate([risks_at(result.package, plan, one) for one in parts.values()])
    outcome = [follow_up(one.cohort, one.test) for one in parts.values()]
    time_days, event = (np.concatenate([one[k] for one in outcome]) for k in (0, 1))
    return concordance(time_days, event, risk), result.history[-1].get("epsilon", 0.0)


def drawn_test(cohort: Cohort, seed: int, share: float) -> np.ndarray:
    """Mark a share of each region's patients, with and without event."""
    rng, test = np.random.default_rng(seed), np.zeros(len(cohort.patient_id), dtype=bool)
    for site in np.unique(cohort.site):
        for event in (0, 1):
            group = np.flatnonzero((cohort.site == site) & (cohort.event == event))
            test[rng.permutation(group)[: round(share * len(group))]] = True
    return test


def rows_of(cohort: Cohort, rows: np.ndarray) -> Cohort:
    return Cohort(
        cohort.patient_id[rows], cohort.time_days[rows], cohort.event[rows], cohort.site[rows],
        cohort.covariates.iloc[rows].reset_index(drop=True), cohort.endpoint,
    )  # fmt: skip


def tune(splits: int) -> None:
    """Print concordances on inner test patients, drawn from the training patients of the first split alone."""
    cohort = read_brca()
    inner = rows_of(cohort, np.flatnonzero(~drawn_test(cohort, 0, 0.2)))
    for epsilon, settings in TRIED.items():
        for setting in settings:
            found = [
                federate(inner, drawn_test(inner, 1000 + seed, 0.25), epsilon, setting, seed)[0]
                for seed in range(splits)
            ]
            print(f"epsilon {epsilon}: {setting}: {np.mean(found):.3f} +- {np.std(found):.3f}", flush=True)


def cost(figures: Figures, splits: int) -> None:
    cohort = read_brca()
    sizes = {str(name): int((cohort.site == name).sum()) for name in np.unique(cohort.site)}
    print(f"{len(cohort.patient_id)} patients, {int(cohort.event.sum())} events, {sizes}")
    found: dict[float | None, list[float]] = {None: [], 8.0: [], 1.0: []}
    spent = {8.0: 0.0, 1.0: 0.0}
    for seed in range(splits):
        is_test = drawn_test(cohort, seed, 0.2)
        for epsilon, values in found.items():
            value, used = federate(cohort, is_test, epsilon, CHOSEN[epsilon], seed)
            values.append(value)
            if epsilon is not None:
                spent[epsilon] = max(spent[epsilon], used)
        print(f"split {seed}: " + ", ".join(f"{name}: {values[-1]:.3f}" for name, values in found.items()), flush=True)
    plain = np.array(found[None])
    for epsilon in (8.0, 1.0):
        lost = plain - np.array(found[epsilon])
        print(
            f"concordance plain {plain.mean():.3f} (sd over splits {plain.std():.3f}), epsilon {epsilon:g} "
            f"{np.mean(found[epsilon]):.3f} ({np.std(found[epsilon]):.3f}); paired loss {lost.mean():.3f} (sd {lost.std():.3f})"
        )
        # A price, not a target: it is for the hospitals to say what privacy is worth to them.
        name = f"Fed-TCGA-BRCA: concordance lost at epsilon {epsilon:g}"
        figures[name] = {"value": float(f"{lost.mean():.4g}"), "target": None, "ok": None}
        judge(figures, f"Fed-TCGA-BRCA: most that a site spent of epsilon {epsilon:g}", spent[epsilon], epsilon)
    judge(figures, "Fed-TCGA-BRCA: concordance of the plain federated model", float(plain.mean()), 0.68, at_least=True)


def judge(figures: Figures, name: str, value: float, target: float, *, at_least: bool = False) -> None:
    ok = value >= target if at_least else value <= target
    figures[name] = {"value": float(f"{value:.4g}"), "target": target, "ok": bool(ok)}
    print(f"{name:<78} {value:>9.3f} (target {target}) {'ok' if ok else 'SHORT'}", flush=True)


def let_out(release: Release) -> None:
    """Count nothing: the benchmark knows what it lets out."""


def pace(figures: Figures) -> None:
    """CPU time of a gradient a patient, over the plain batch, for bags of 500 x 32 under an ABMIL head."""
    rng, count = np.random.default_rng(0), 64
    bags = tuple(rng.normal(size=(500, 32)).astype(np.float32) for _ in range(count))
    cohort = Cohort(
        np.array([str(number) for number in range(count)]), rng.exponential(900, count), rng.integers(0, 2, count),
        np.array(["a"] * count), pd.DataFrame(index=range(count)), "overall survival",
    )  # fmt: skip
    patients = TrainingPatients(
        Patients(tuple(cohort.patient_id), bags, cohort.covariates), cohort, as_they_are(32),
        fit_covariates((), cohort.covariates), PLAIN, "cpu",
    )  # fmt: skip
    objective = DiscreteObjective(np.array(EDGES_DAYS), DiscreteLossSettings())
    state = start_state(PrognosisModel(AbmilSettings(), ModelShape(32, 0, 4)), PLAIN)
    privacy = PrivateTraining(1.0, 1.0, 1.0, 5.0, 4.0, let_out)
    times: dict[str, list[float]] = {"plain": [], "private": []}
    for _ in range(7):
        for name, work in (
            ("plain", lambda: local_update(state, patients, objective, PLAIN)),
            ("private", lambda: private_update(state, patients, objective, PLAIN, privacy)),
        ):
            started = time.process_time()
            work()
            times[name].append((time.process_time() - started) / count * 1e3)
    plain, private = (float(np.median(times[name])) for name in ("plain", "private"))
    print(f"ABMIL, bags of 500 x 32: {plain:.2f} ms a patient plainly, {private:.2f} ms with privacy")
    judge(figures, "CPU ms of a patient's clipped gradient, ABMIL, 500 x 32", private, 3.0)


def attacks(figures: Figures) -> None:
    """Attack the largest region's own model: trained long and plainly, and with epsilon 1."""
    whole = read_brca()
    names, counts = np.unique(whole.site, return_counts=True)
    cohort = rows_of(whole, np.flatnonzero(whole.site == names[counts.argmax()]))
    objective = DiscreteObjective(np.array(EDGES_DAYS), DiscreteLossSettings())
    plan = plan_of(cohort, None, CHOSEN[1.0], 0)
    transform, count = given_transform(plan), len(cohort.patient_id)

    def ready(rows: np.ndarray) -> TrainingPatients:
        chosen = select_patients(cohort, None, tuple(cohort.patient_id[rows]))
        return TrainingPatients(chosen, cohort, None, transform, PLAIN, "cpu")

    everyone = ready(np.arange(count))
    member = np.isin(np.arange(count), np.random.default_rng(0).permutation(count)[: count // 2])
    auc = {}
    for epsilon in (None, 1.0):
        settings = TrainSettings(
            loss=DiscreteLossSettings(), learning_rate=0.03 if epsilon is None else 0.003, weight_decay=0
        )

        def fit(
            rows: np.ndarray, seed: int, epsilon: float | None = epsilon, settings: TrainSettings = settings
        ) -> np.ndarray:
            torch.manual_seed(seed)
            model = PrognosisModel(MeanPoolSettings(), ModelShape(0, len(transform.names), objective.out))
            model.bias.requires_grad_()
            state, patients = start_state(model, settings), ready(rows)
            if epsilon is None:
                for _ in range(300):
                    local_update(state, patients, objective, settings)
            else:
                privacy = PatientPrivacySettings(epsilon=epsilon, clip_norm=0.3, sample_rate=0.5, spare_passes=0)
                noise = noise_of_plan(privacy, len(rows), ROUNDS, 0)
                training = PrivateTraining(0.3, noise, 0.5, privacy.loss_bound, privacy.loss_noise * noise, let_out)
                for _ in range(ROUNDS):
                    private_update(state, patients, objective, settings, training)
            return patient_fit(model, everyone, objective, settings)

        report = membership_report(fit(np.flatnonzero(member), 99), member, train_references(fit, count, 32, 1))
        print(f"\nmembership, {names[counts.argmax()]}, {'plain' if epsilon is None else f'epsilon {epsilon:g}'}:")
        print(*report.sentences(), sep="\n")
        auc[epsilon] = report.attacks[1].auc
    judge(figures, "membership attack on the plain model: AUC", auc[None], 0.6, at_least=True)
    judge(figures, "membership attack on the model with epsilon 1: AUC", auc[1.0], 0.58)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="cost,pace,attacks", help="of cost, pace, attacks")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--tune", type=int, metavar="SPLITS", help="choose settings on training patients and stop")
    asked = parser.parse_args()
    if asked.tune:
        tune(asked.tune)
        return 0
    figures: Figures = {}
    for name in asked.only.split(","):
        {
            "cost": lambda: cost(figures, asked.splits),
            "pace": lambda: pace(figures),
            "attacks": lambda: attacks(figures),
        }[name]()
    print(json.dumps(figures))
    return 1 if any(one["ok"] is False for one in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
