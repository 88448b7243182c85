"""Contributions by one look backwards beside integrated gradients of the whole head by many steps, on planted bags.

For every head that is no sum over tiles, trained as in `witness.py` (5 % of tiles matter): correlation over tiles, the area under
the ROC curve with which absolute contributions tell the planted tiles, and what the logit changes by when the tiles that raise it
most, or lower it most, are taken out of the bag (mean over both, and over 2, 5, 10 and 20 % of the tiles): the more, the better
the map says what matters. The last is held against that of the many steps.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from witness import bags

from pathoml.mil.aggregator import NonAdditiveAggregator
from pathoml.mil.packed import Packed, pack
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import ModelSettings
from pathoml.splits import Fold
from pathoml.train import fit_member
from pathoml.train_settings import TrainSettings

HEADS = ("chowder", "deepmil", "ilra", "transmil", "transformer")
STEPS, RATE = 32, 0.05
TAKEN = (0.02, 0.05, 0.1, 0.2)
WANTED = 0.95
"""Change of the logit by the tiles named, over that by those which the many steps name."""


def many_steps(head: NonAdditiveAggregator, tiles: Packed) -> Tensor:
    """Return integrated gradients of the whole head from average tiles, by Gauss and Legendre's rule."""
    total = torch.zeros_like(tiles.values)
    places, weights = np.polynomial.legendre.leggauss(STEPS)
    for place, weight in zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
        values = (tiles.values * place).requires_grad_()
        (gradient,) = torch.autograd.grad(head(tiles.filled(values)).logits.sum(), values)
        total += gradient * weight
    return (total * tiles.values).sum(dim=1)


def changed_by(head: NonAdditiveAggregator, tiles: Packed, shares: Tensor) -> float:
    """Return the mean change of the logit when the tiles at either end of a map are taken out."""
    assert tiles.places is not None
    changes = []
    with torch.inference_mode():
        whole = float(head(tiles).logits)
        for part in TAKEN:
            for sign in (1, -1):
                kept = torch.ones(len(shares), dtype=torch.bool)
                kept[(sign * shares).topk(max(1, int(part * len(shares)))).indices] = False
                less = float(head(pack([tiles.values[kept]], [tiles.places[kept]])).logits)
                changes.append(sign * (whole - less))
    return float(np.mean(changes))


def compare(head: NonAdditiveAggregator, tested: Sequence[tuple[Packed, np.ndarray]]) -> np.ndarray:
    """Return correlation; areas and changes, each of the one look and of the many steps; means over bags."""
    rows = []
    for tiles, planted in tested:
        found, truth = head.explained(tiles, torch.ones(1))[1], many_steps(head, tiles)
        areas = [roc_auc_score(planted, one.abs().numpy()) for one in (found, truth)]
        changes = [changed_by(head, tiles, one) for one in (found, truth)]
        rows.append((np.corrcoef(found.numpy(), truth.numpy())[0, 1], *areas, *changes))
    return np.mean(rows, axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="*", default=list(HEADS))
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--bags", type=int, default=20, help="of patients never seen, that are compared")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainSettings(
        learning_rate=3e-3,
        batch_patients=64,
        max_epochs=25,
        patience=8,
        schedule="cosine",
        warmup_epochs=2,
        clip_norm=5.0,
    )
    data, _, witness = bags(options.patients, RATE)
    names = data.cohort.patient_id.tolist()
    cut = [round(options.patients * share) for share in (0.6, 0.75)]
    fold = Fold("witness", "0", tuple(names[: cut[0]]), tuple(names[cut[0] : cut[1]]), tuple(names[cut[1] :]))
    chosen = fold.test[: options.bags]
    patients = select_patients(data.cohort, data.features, chosen)
    result = {}
    print(f"{'head':<12} {'r':>6} {'AUC':>6} {'many':>6} {'change':>7} {'many':>7}")
    for kind in options.heads:
        model = ModelSettings.model_validate({"aggregator": {"kind": kind}, "tile_components": None})
        member, _ = fit_member(data, fold, model, settings)
        head, projection = member.model.slides, member.projection
        assert isinstance(head, NonAdditiveAggregator)
        assert projection is not None
        tested = [
            (pack([torch.from_numpy(projection.apply(bag))], [torch.from_numpy(place)]), witness[name])
            for name, bag, place in zip(chosen, patients.features or (), patients.places or (), strict=True)
        ]
        r, area, area_many, change, change_many = compare(head, tested)
        print(f"{kind:<12} {r:>6.3f} {area:>6.3f} {area_many:>6.3f} {change:>7.4f} {change_many:>7.4f}", flush=True)
        ratio = change / change_many
        result[f"{kind}: change by the tiles named, over that of many steps"] = {
            "value": ratio, "target": WANTED, "ok": bool(ratio >= WANTED),
        }  # fmt: skip
    print(json.dumps(result))
    return 0 if all(one["ok"] for one in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
