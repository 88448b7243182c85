"""Small networks of hospitals for tests: two covariates, a word, a block, and tiles where a plan wants them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathoml.bags import FeatureSpec
from pathoml.cohort import Cohort
from pathoml.federated.plan import Plan
from pathoml.federated.simulate import split_cohort
from pathoml.federated.site_data import SiteData
from pathoml.mil.patients import PatientFeatures

SITES = ("north", "south", "west")
DIM = 6
FEATURES = {
    "encoder": "drawn", "weights_digest": "0" * 64, "target_mpp": 0.5, "tile_px": 224, "precision_asked": "float32",
    "settings_digest": "1" * 64, "dim": DIM,
}  # fmt: skip
GENES = tuple(f"gene{number}" for number in range(8))
CANARY = "Canary-Malibran"


def plan_of(sites: Sequence[str] = SITES, **changes: Any) -> Plan:
    """Return a plan that the cohorts of this module fit."""
    settings: dict[str, Any] = {
        "name": "tests", "sites": list(sites), "quorum": len(sites), "endpoint": "overall survival",
        "horizon_days": 3000.0, "grid_days": 300.0,
        "covariates": [
            {"kind": "numeric", "column": "age"},
            {"kind": "categorical", "column": "sex", "words": ["female", "male"]},
            {"kind": "block", "name": "genes", "columns": list(GENES), "components": 3},
        ],
        "train": {"loss": {"kind": "discrete"}, "learning_rate": 0.02, "covariate_ridge": 5.0},
        "method": {"kind": "rounds", "rounds": 3, "local_epochs": 2, "aggregation": {"kind": "fedavg"}},
    }  # fmt: skip
    return Plan.model_validate({**settings, **changes})


def cohort_of(patients: int = 240, seed: int = 0, sites: Sequence[str] = SITES) -> Cohort:
    """Draw patients whose age and first genes matter; some values are missing."""
    rng = np.random.default_rng(seed)
    genes = rng.normal(size=(patients, len(GENES))) @ (np.eye(len(GENES)) + 0.5 * rng.normal(size=(len(GENES),) * 2))
    age = rng.normal(60, 12, size=patients)
    log_hazard = (age - 60) / 15 + 0.4 * genes[:, 0]
    time_days = rng.exponential(1200 * np.exp(-log_hazard))
    censored = rng.exponential(2500, size=patients)
    age[rng.random(patients) < 0.05] = np.nan
    sex = rng.choice(["female", "male", ""], p=[0.5, 0.4, 0.1], size=patients)
    table = pd.DataFrame(genes, columns=list(GENES)).assign(age=age, sex=sex)
    return Cohort(
        patient_id=np.array([f"{CANARY}-{number:04d}" for number in rng.permutation(patients)]),
        time_days=np.minimum(time_days, censored),
        event=(time_days <= censored).astype(np.int64),
        site=np.array([sites[number % len(sites)] for number in range(patients)]),
        covariates=table,
        endpoint="overall survival",
    )


def features_of(cohort: Cohort, seed: int = 1) -> PatientFeatures:
    """Draw tiles, whose first column follows the first gene, and whose mean follows the hospital's stain."""
    rng = np.random.default_rng(seed)
    shift = {site: 0.5 * rng.normal(size=DIM) for site in sorted(set(cohort.site.tolist()))}
    gene = cohort.covariates[GENES[0]].to_numpy()
    tiles, places = {}, {}
    for row, name in enumerate(cohort.patient_id.tolist()):
        count = int(rng.integers(3, 9))
        drawn = rng.normal(size=(count, DIM)) + shift[str(cohort.site[row])]
        drawn[:, 0] += gene[row]
        tiles[name] = drawn.astype(np.float32)
        places[name] = np.column_stack([np.zeros(count), np.arange(count), np.arange(count)]).astype(np.int64)
    spec = FeatureSpec(**{name: value for name, value in FEATURES.items() if name != "dim"})  # type: ignore[arg-type]
    return PatientFeatures(tiles, spec, "2" * 64, places)


def parts_of(plan: Plan, cohort: Cohort | None = None) -> dict[str, SiteData]:
    """Return the sites' patients."""
    cohort = cohort_of(sites=plan.sites) if cohort is None else cohort
    return split_cohort(cohort, None if plan.features is None else features_of(cohort), plan)


class Recorder:
    """A transport that keeps every byte that left a site, and can lose or alter answers."""

    def __init__(self, members: Mapping[str, Any], folder: Path | None = None) -> None:
        self.members = dict(members)
        self.left: list[tuple[str, bytes]] = []
        self.requests: dict[tuple[str, int], bytes] = {}
        self.lost: set[tuple[str, str, int]] = set()
        self.altered: dict[tuple[str, str], Any] = {}
        self.stop_before: tuple[str, int] | None = None

    @property
    def sites(self) -> Sequence[str]:
        """Names."""
        return tuple(self.members)

    def asked(self, kind: str, number: int) -> bytes:
        """Return the last request of a kind and round, as it went out."""
        return self.requests[kind, number]

    def exchange(self, request: Any, sites: Sequence[str], quorum: int) -> Mapping[str, bytes]:
        """Ask one after another."""
        from pathoml.federated.messages import to_bytes

        self.requests[request.kind, request.round_number] = to_bytes(request)
        if self.stop_before == (request.kind, request.round_number):
            raise KeyboardInterrupt
        answers = {}
        for name in sites:
            if (name, request.kind, request.round_number) in self.lost:
                continue
            content = self.members[name].answer(to_bytes(request))
            self.left.append((name, content))
            change = self.altered.get((name, request.kind))
            answers[name] = content if change is None else change(content)
        return answers
