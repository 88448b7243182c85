"""Which aggregators find the few tiles that matter: synthetic bags with planted witness tiles.

Each patient has a severity that only witness tiles show, a stated share of each bag; the log hazard is 1.5 times the severity.
Reported: (C - .5) / (C_oracle - .5) on patients never seen, where the oracle knows the severity, and the area under the ROC
curve with which attention (contributions where there is none) tells witness tiles from others, median over bags.

Usage: python scripts/bench/witness.py [--heads abmil,mean] [--rates 0.2,0.05,0.01] [--patients 600]
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from pathoml.bags import FeatureSpec
from pathoml.cohort import Cohort
from pathoml.infer import predict_logits
from pathoml.mil.aggregators import AGGREGATORS
from pathoml.mil.packed import pack
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.settings import ModelSettings
from pathoml.packages import Member
from pathoml.splits import Fold
from pathoml.survival import concordance
from pathoml.train import TrainingData, fit_member, follow_up
from pathoml.train_settings import TrainSettings

DIM, TILES = 16, (150, 300)
MARK, SHOWN, EFFECT = 3.0, 2.0, 1.5
SEED = 90210
"""Chosen before the first model was run on these bags."""
RATES = (0.2, 0.05, 0.01)
WANTED = 0.8
WITHOUT_ATTENTION = ("mean", "max", "chowder")
"""The others are expected to reach that at 20 and 5 % of witness tiles; and mean to fail at 1 %."""
FAILS_BELOW = 0.5

Figures = dict[str, dict[str, float | bool]]


def bags(patients: int, rate: float) -> tuple[TrainingData, np.ndarray, dict[str, np.ndarray]]:
    """Plant severity along one axis of witness tiles, which another axis marks."""
    rng = np.random.default_rng([SEED, round(rate * 1000)])
    severity = rng.normal(size=patients)
    features, places, witness = {}, {}, {}
    names = [f"p{number:04d}" for number in range(patients)]
    for name, own in zip(names, severity, strict=True):
        count = int(rng.integers(*TILES))
        side = int(np.ceil(np.sqrt(count)))
        tiles = rng.normal(size=(count, DIM))
        chosen = rng.permutation(count)[: max(1, round(rate * count))]
        tiles[chosen, 0] += MARK
        tiles[chosen, 1] += SHOWN * own
        features[name] = tiles.astype(np.float16)
        number = np.arange(count)
        places[name] = np.column_stack([0 * number, number // side, number % side]).astype(np.int64)
        witness[name] = np.isin(number, chosen)
    event_time, censoring = rng.exponential(1000 * np.exp(-EFFECT * severity)), rng.exponential(2500, patients)
    cohort = Cohort(
        np.array(names), np.minimum(event_time, censoring), (event_time <= censoring).astype(np.int64),
        np.array([""] * patients), pd.DataFrame(index=range(patients)), "planted",
    )  # fmt: skip
    spec = FeatureSpec("planted", "w" * 64, 0.5, 224, "float32", "s" * 64)
    return TrainingData(cohort, PatientFeatures(features, spec, "planted", places), ()), severity, witness


def found_witnesses(member: Member, data: TrainingData, names: Sequence[str], witness: dict[str, np.ndarray]) -> float:
    patients = select_patients(data.cohort, data.features, names)
    areas = []
    for name, bag, place in zip(names, patients.features or (), patients.places or (), strict=True):
        assert member.projection is not None
        assert member.model.slides is not None
        tiles = pack([torch.from_numpy(member.projection.apply(bag))], [torch.from_numpy(place)])
        with torch.inference_mode():
            output = member.model.slides(tiles)
        if output.attention is not None:
            score = output.attention.values.mean(dim=1)
        elif output.contributions is not None:
            score = output.contributions.values[:, 0].abs()
        else:
            return float("nan")
        areas.append(roc_auc_score(witness[name], score.numpy()))
    return float(np.median(areas))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", default=",".join(AGGREGATORS))
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--patients", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainSettings(
        learning_rate=3e-3,
        batch_patients=64,
        max_epochs=40,
        patience=12,
        schedule="cosine",
        warmup_epochs=2,
        clip_norm=5.0,
    )
    figures: Figures = {}
    print(f"{'head':<12} {'rate':>5} {'C':>6} {'oracle':>7} {'score':>6} {'AUC':>6} {'s':>6}")
    for rate in map(float, options.rates.split(",")):
        data, severity, witness = bags(options.patients, rate)
        names = data.cohort.patient_id.tolist()
        cut = [round(options.patients * share) for share in (0.6, 0.75)]
        fold = Fold("witness", "0", tuple(names[: cut[0]]), tuple(names[cut[0] : cut[1]]), tuple(names[cut[1] :]))
        oracle = concordance(*follow_up(data.cohort, fold.test), severity[cut[1] :])
        for head in options.heads.split(","):
            started = time.perf_counter()
            model = ModelSettings.model_validate({"aggregator": {"kind": head}, "tile_components": None})
            member, _ = fit_member(data, fold, model, settings)
            risk = predict_logits(member, select_patients(data.cohort, data.features, fold.test))[:, 0]
            own = concordance(*follow_up(data.cohort, fold.test), risk)
            score = (own - 0.5) / (oracle - 0.5)
            area = found_witnesses(member, data, fold.test, witness)
            seconds = time.perf_counter() - started
            print(
                f"{head:<12} {rate:>5} {own:>6.3f} {oracle:>7.3f} {score:>6.2f} {area:>6.3f} {seconds:>6.0f}",
                flush=True,
            )
            if head not in WITHOUT_ATTENTION and rate >= 0.05:
                figures[f"{head} at {rate}"] = {"value": round(score, 3), "target": WANTED, "ok": score >= WANTED}
            if head == "mean" and rate == 0.01:
                figures["mean at 0.01 fails"] = {
                    "value": round(score, 3),
                    "target": FAILS_BELOW,
                    "ok": score < FAILS_BELOW,
                }
    print(json.dumps(figures))
    return 0 if all(one["ok"] for one in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
