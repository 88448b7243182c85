"""What patients' privacy costs: concordance on Fed-TCGA-BRCA at epsilon 8 and 1, time a patient, and what attacks find.

Six regions of Fed-TCGA-BRCA (folder fed_tcga_brca of PATHOML_TEST_DATA) train one discrete-time model on the clinical table by
federated averaging, plainly and with patients' privacy, on the same repeated splits. Everything that a plan would fix is fixed
beforehand (bin edges, centre and scale of age, start at zero), so that nothing but what is counted leaves a site. Step
size, clip norm and sample rate were chosen on training patients only (--tune).

Prints a table and, last, one JSON object; exit code 1 if a figure falls short of its target.
"""

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pathoml.cohort import Cohort
from pathoml.covariates import NumericCovariate, fit_covariates
from pathoml.federated.accountant import Release, epsilon_of
from pathoml.federated.membership import membership_report, train_references
from pathoml.federated.patient_fit import patient_fit
from pathoml.federated.privacy_plan import delta_of, noise_of_plan
from pathoml.federated.privacy_settings import PatientPrivacySettings
from pathoml.federated.private_update import PrivateTraining, private_update
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objective import DiscreteObjective
from pathoml.mil.patients import Patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import as_they_are
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings
from pathoml.survival import concordance
from pathoml.train import local_update
from pathoml.train_settings import DiscreteLossSettings, TrainSettings
from pathoml.train_state import TrainState, start_state

Figures = dict[str, dict[str, object]]

EDGES_DAYS = np.array([0.0, 730.0, 1460.0, 2920.0, 9000.0])
ROUNDS = 20
PLAIN = TrainSettings(loss=DiscreteLossSettings(), learning_rate=0.03, weight_decay=0.01)


@dataclass(frozen=True)
class Setting:
    """What was chosen for one epsilon."""

    learning_rate: float
    clip_norm: float
    sample_rate: float


CHOSEN: Mapping[float, Setting] = {8.0: Setting(0.03, 1.0, 0.5), 1.0: Setting(0.03, 1.0, 0.5)}
TRIED = [Setting(rate, clip, sample) for clip in (0.3, 1.0) for sample in (1.0, 0.5) for rate in (0.001, 0.003, 0.01)]


def read_brca() -> Cohort:
    folder = Path(os.environ.get("PATHOML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "fed_tcga_brca"
    if not folder.is_dir():
        raise SystemExit(f"{folder}: not there; set PATHOML_TEST_DATA to the folder that CONTRIBUTING.md describes")
    table = pd.read_csv(folder / "brca.csv")
    centres = pd.read_csv(folder / "centers.csv", dtype=str, keep_default_na=False)
    region = dict(zip(centres["TSS Code"], centres["Region"], strict=True))
    known = set(pd.read_csv(folder / "train_test_split.csv")["pid"])
    table = table[table["pid"].isin(known) & (table["T"] > 0)].reset_index(drop=True)
    site = np.array([region[name.split("-")[1]] for name in table["pid"]])
    design = table.drop(columns=["pid", "E", "T"]).astype(float)
    design["age_at_index"] = (design["age_at_index"] - 58) / 13
    return Cohort(
        table["pid"].to_numpy(), table["T"].to_numpy(dtype=np.float64), table["E"].to_numpy().astype(np.int64), site,
        design, "overall survival",
    )  # fmt: skip


def ready(cohort: Cohort, rows: np.ndarray, settings: TrainSettings) -> TrainingPatients:
    covariates = cohort.covariates.iloc[rows].reset_index(drop=True)
    unit = fit_covariates(tuple(NumericCovariate(column=name) for name in covariates), plus_and_minus_one(covariates))
    return TrainingPatients(
        Patients(tuple(cohort.patient_id[rows]), None, covariates), cohort, None, unit, settings, "cpu"
    )


def plus_and_minus_one(covariates: pd.DataFrame) -> pd.DataFrame:
    """Make a table of mean 0 and deviation 1, so that the transform fitted on it changes nothing and depends on no patient."""
    return pd.DataFrame([[1.0] * covariates.shape[1], [-1.0] * covariates.shape[1]], columns=covariates.columns)


def fresh(columns: int, seed: int) -> PrognosisModel:
    torch.manual_seed(seed)
    model = PrognosisModel(MeanPoolSettings(), ModelShape(0, columns, len(EDGES_DAYS) - 1))
    model.bias.requires_grad_()
    with torch.no_grad():
        model.bias.fill_(-3.0)
    return model


def spend_nothing(release: Release) -> None:
    """Let it out; the bench counts itself."""


def private_training(setting: Setting, epsilon: float, patients: int) -> tuple[PrivateTraining, float]:
    settings = PatientPrivacySettings(epsilon=epsilon, clip_norm=setting.clip_norm, sample_rate=setting.sample_rate)
    noise = noise_of_plan(settings, patients, ROUNDS, 0)
    spent: list[Release] = []
    training = PrivateTraining(
        setting.clip_norm, noise, setting.sample_rate, settings.loss_bound, settings.loss_noise * noise, spent.append
    )
    return training, delta_of(settings, patients)


def federate(cohort: Cohort, train: np.ndarray, epsilon: float | None, setting: Setting, seed: int) -> PrognosisModel:
    """Average after each round, weighted by patients; each site keeps its own optimiser."""
    objective = DiscreteObjective(EDGES_DAYS, DiscreteLossSettings())
    settings = PLAIN.model_copy(update={"learning_rate": setting.learning_rate})
    shared = fresh(cohort.covariates.shape[1], seed)
    sites = [train[cohort.site[train] == name] for name in np.unique(cohort.site)]
    patients = [ready(cohort, rows, settings) for rows in sites]
    states = [start_state(copy.deepcopy(shared), settings) for _ in sites]
    for _ in range(ROUNDS):
        for one, state in zip(patients, states, strict=True):
            state.model.load_state_dict(shared.state_dict())
            if epsilon is None:
                for _ in range(max(1, round(1 / setting.sample_rate))):
                    local_update(state, one, objective, settings)
            else:
                private_update(state, one, objective, settings, private_training(setting, epsilon, len(one))[0])
        shared.load_state_dict(averaged(states, [len(rows) for rows in sites]))
    return shared.eval()


def averaged(states: list[TrainState], weights: list[int]) -> dict[str, torch.Tensor]:
    every = [state.model.state_dict() for state in states]
    return {
        name: sum(
            (one[name] * (weight / sum(weights)) for one, weight in zip(every, weights, strict=True)), start=0 * value
        )
        for name, value in every[0].items()
    }


def split(cohort: Cohort, rows: np.ndarray, seed: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Train and test rows, a share of each region's patients with and without event."""
    rng, test = np.random.default_rng(seed), []
    for site in np.unique(cohort.site):
        for event in (0, 1):
            group = rows[(cohort.site[rows] == site) & (cohort.event[rows] == event)]
            test.append(rng.permutation(group)[: round(share * len(group))])
    chosen = np.concatenate(test)
    return np.setdiff1d(rows, chosen), np.sort(chosen)


def score(model: PrognosisModel, cohort: Cohort, rows: np.ndarray) -> float:
    objective = DiscreteObjective(EDGES_DAYS, DiscreteLossSettings())
    (part,) = ready(cohort, rows, PLAIN).parts()
    with torch.no_grad():
        logits = model(part.tiles, part.covariates).logits.numpy().astype(np.float64)
    return concordance(cohort.time_days[rows], cohort.event[rows], objective.risk(logits))


def tune(splits: int) -> None:
    """Concordance on inner test patients, drawn from training patients of the first split alone."""
    cohort = read_brca()
    outer, _ = split(cohort, np.arange(len(cohort.patient_id)), 0)
    for epsilon in (1.0, None, 8.0):
        for setting in TRIED:
            found = []
            for seed in range(splits):
                train, test = split(cohort, outer, 1000 + seed, 0.25)
                found.append(score(federate(cohort, train, epsilon, setting, seed), cohort, test))
            print(f"epsilon {epsilon}: {setting}: {np.mean(found):.3f} +- {np.std(found):.3f}", flush=True)


def judge(figures: Figures, name: str, value: float, target: float, *, at_least: bool = False) -> None:
    ok = value >= target if at_least else value <= target
    figures[name] = {"value": float(f"{value:.4g}"), "target": target, "ok": bool(ok)}
    print(f"{name:<78} {value:>9.3f} (target {target}) {'ok' if ok else 'SHORT'}", flush=True)


def cost(figures: Figures, splits: int) -> None:
    cohort = read_brca()
    everyone = np.arange(len(cohort.patient_id))
    sizes = {name: int((cohort.site == name).sum()) for name in np.unique(cohort.site)}
    print(f"{len(everyone)} patients, {int(cohort.event.sum())} events, {sizes}")
    found: dict[float | None, list[float]] = {None: [], 8.0: [], 1.0: []}
    for seed in range(splits):
        train, test = split(cohort, everyone, seed)
        for epsilon, values in found.items():
            setting = CHOSEN[8.0 if epsilon is None else epsilon]
            values.append(score(federate(cohort, train, epsilon, setting, seed), cohort, test))
        print(f"split {seed}: " + ", ".join(f"{name}: {values[-1]:.3f}" for name, values in found.items()), flush=True)
    for epsilon, target in ((8.0, 0.03), (1.0, 0.12)):
        lost = np.array(found[None]) - np.array(found[epsilon])
        print(
            f"concordance plain {np.mean(found[None]):.3f} (sd {np.std(found[None]):.3f}), epsilon {epsilon:g} "
            f"{np.mean(found[epsilon]):.3f} (sd {np.std(found[epsilon]):.3f}); paired loss {lost.mean():.3f} (sd {lost.std():.3f})"
        )
        judge(figures, f"Fed-TCGA-BRCA: concordance lost at epsilon {epsilon:g}", float(lost.mean()), target)
    judge(
        figures,
        "Fed-TCGA-BRCA: concordance of the plain federated model",
        float(np.mean(found[None])),
        0.68,
        at_least=True,
    )
    judge(figures, "largest epsilon that a site spent of 8", largest_spent(cohort, everyone), 8.0)


def largest_spent(cohort: Cohort, rows: np.ndarray) -> float:
    """Count what a whole plan costs from the releases themselves."""
    spent = []
    for name in np.unique(cohort.site):
        patients = int((cohort.site[rows] == name).sum())
        training, delta = private_training(CHOSEN[8.0], 8.0, patients)
        noise = (training.noise_multiplier**-2 + training.loss_noise_multiplier**-2) ** -0.5
        spent.append(
            epsilon_of([Release(training.sample_rate, noise, ROUNDS * round(1 / training.sample_rate))], delta)
        )
    return max(spent)


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
    objective = DiscreteObjective(EDGES_DAYS, DiscreteLossSettings())
    state = start_state(PrognosisModel(AbmilSettings(), ModelShape(32, 0, 4)), PLAIN)
    privacy = PrivateTraining(1.0, 1.0, 1.0, 5.0, 4.0, spend_nothing)
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
    """Membership attacks on the largest region's own model, trained long: plainly, and with epsilon 1."""
    cohort = read_brca()
    names, counts = np.unique(cohort.site, return_counts=True)
    rows = np.flatnonzero(cohort.site == names[counts.argmax()])
    objective = DiscreteObjective(EDGES_DAYS, DiscreteLossSettings())
    everyone = ready(cohort, rows, PLAIN)
    rng = np.random.default_rng(0)
    member = np.isin(np.arange(len(rows)), rng.permutation(len(rows))[: len(rows) // 2])
    auc = {}
    for epsilon in (None, 1.0):

        def fit(chosen: np.ndarray, seed: int, epsilon: float | None = epsilon) -> np.ndarray:
            settings = PLAIN.model_copy(update={"weight_decay": 0.0})
            state = start_state(fresh(cohort.covariates.shape[1], seed), settings)
            patients = ready(cohort, rows[chosen], settings)
            for _ in range(200 if epsilon is None else ROUNDS):
                if epsilon is None:
                    local_update(state, patients, objective, settings)
                else:
                    private_update(
                        state, patients, objective, settings, private_training(CHOSEN[1.0], epsilon, len(patients))[0]
                    )
            return patient_fit(state.model, everyone, objective, settings)

        report = membership_report(fit(np.flatnonzero(member), 99), member, train_references(fit, len(rows), 32, 1))
        print(f"\nmembership, {names[counts.argmax()]}, {'plain' if epsilon is None else f'epsilon {epsilon:g}'}:")
        print(*report.sentences(), sep="\n")
        auc[epsilon] = report.attacks[1].auc
    judge(figures, "membership attack on the plain model: AUC", auc[None], 0.55, at_least=True)
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
