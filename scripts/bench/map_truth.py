"""How well each head's maps find what was planted: tile AUC of contribution and attention, on a finished demo.

`python scripts/bench/map_truth.py pathoml-demo --keep heads` trains every head on the demo's bags (five folds), asks each slide
of the model that has not seen its patient, and compares with the drawing: necrosis, which the cohort was drawn with as raising
the hazard. The median over slides, with a 95 % bootstrap interval over patients. A head's figure counts against .9
(contribution). With `--keep`, what is done of a head is not done again; `--heads` for some of them.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from sklearn.metrics import roc_auc_score

from pathoml.bags import read_bag
from pathoml.config import Config, load_config
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.mil.aggregators import AGGREGATORS
from pathoml.mil.settings import AggregatorSettings
from pathoml.packages import load_package
from pathoml.pipeline.running import run
from pathoml.splits import KFoldSettings, read_folds
from pathoml.testing import KINDS, tile_composition
from pathoml.tile_scores import score_tiles

NECROSIS = KINDS.index("necrosis")
DRAWS = 2_000
TARGET = 0.9


def aucs_of_slides(demo: Path, config: Config) -> pd.DataFrame:
    """Return patient and AUCs, one row a slide that has tiles with and without necrosis."""
    folds = read_folds(config.output / "folds.csv")
    tested_in = {patient: fold for fold in folds for patient in fold.test}
    packages = {fold.key: load_package(config.output / "folds" / fold.folder_name) for fold in folds}
    rows = []
    for slide in pd.read_csv(demo / "slides.csv", dtype=str).itertuples():
        bag = read_bag(demo / "bags" / f"{slide.slide_id}.h5")
        planted = tile_composition(demo / "truth" / f"{slide.slide_id}.npz", bag)[:, NECROSIS] > 0.5
        if planted.all() or not planted.any():
            continue
        package = packages[tested_in[str(slide.patient_id)].key]
        scores = score_tiles(package.members, package, bag)
        attention = np.nan if scores.attention is None else roc_auc_score(planted, scores.attention)
        rows.append((slide.patient_id, roc_auc_score(planted, scores.contribution), attention))
    return pd.DataFrame(rows, columns=["patient", "contribution", "attention"])


def median_with_interval(table: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Return the median over slides, and its interval over bootstrap samples of patients."""
    by_patient = [rows[column].to_numpy() for _, rows in table.groupby("patient")]
    generator = np.random.default_rng(0)
    draws = [
        np.median(
            np.concatenate([by_patient[index] for index in generator.integers(0, len(by_patient), len(by_patient))])
        )
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(table[column].median()), float(low), float(high)


def found_by(kind: str, demo: Path, base: Config, folder: Path) -> dict[str, Any]:
    """Train a head, or go on from what there is of it, and return its figures."""
    head: AggregatorSettings = TypeAdapter[AggregatorSettings](AggregatorSettings).validate_python({"kind": kind})
    model = base.model.model_copy(update={"aggregator": head})
    config = base.model_copy(update={"output": folder / kind, "model": model})
    evaluation = run(config).evaluation
    table = aucs_of_slides(demo, config)
    columns = [column for column in ("contribution", "attention") if table[column].notna().all()]
    return {
        "concordance": evaluation["schemes"]["kfold"]["metrics"]["model"]["concordance"]["value"],
        "slides": len(table),
        **{column: median_with_interval(table, column) for column in columns},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--heads", nargs="*", default=list(AGGREGATORS), help="kinds of aggregators")
    parser.add_argument("--keep", type=Path, help="folder for the trained heads; by default a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = load_config(options.demo / "demo.yaml")
    update = {
        "splits": base.splits.model_copy(update={"schemes": (KFoldSettings(folds=5),)}),
        "heatmap": HeatmapSettings(slides=0),
        "evaluate": base.evaluate.model_copy(update={"bootstraps": 100}),
    }
    base = base.model_copy(update=update)
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in options.heads:
            found = found_by(kind, options.demo, base, options.keep or Path(temporary))
            words = [f"{kind:<12} concordance {found['concordance']:.3f}, {found['slides']} slides"]
            for column in ("contribution", "attention"):
                if column in found:
                    value, low, high = found[column]
                    words.append(f"{column} {value:.3f} ({low:.3f} to {high:.3f})")
            print("; ".join(words), flush=True)
            value, low, high = found["contribution"]
            result[f"{kind}: contribution"] = {"value": value, "target": TARGET, "ok": value >= TARGET}
    print(json.dumps(result))
    return 0 if all(one["ok"] for one in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
