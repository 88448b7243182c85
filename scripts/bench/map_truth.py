"""How well each head's maps find what was planted: tile AUC of contribution and attention, on a finished demo.

`python scripts/bench/map_truth.py pathoml-demo` trains every head on the demo's bags (five folds), asks each slide of the
model that has not seen its patient, and compares with the drawing: necrosis, which the cohort was drawn with as raising the
hazard. The median over slides, with a 95 % bootstrap interval over patients. A head's figure counts against .9 (contribution).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from sklearn.metrics import roc_auc_score

from pathoml.bags import read_bag
from pathoml.config import Config, load_config
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.infer import score_tiles
from pathoml.mil.aggregators import AGGREGATORS
from pathoml.mil.settings import AggregatorSettings
from pathoml.packages import load_package
from pathoml.pipeline.running import run
from pathoml.splits import KFoldSettings, read_folds
from pathoml.testing import KINDS, tile_composition

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--heads", nargs="*", default=list(AGGREGATORS), help="kinds of aggregators")
    options = parser.parse_args()
    base = load_config(options.demo / "demo.yaml")
    splits = base.splits.model_copy(update={"schemes": (KFoldSettings(folds=5),)})
    base = base.model_copy(update={"splits": splits, "heatmap": HeatmapSettings(slides=0)})
    result = {}
    for kind in options.heads:
        head: AggregatorSettings = TypeAdapter[AggregatorSettings](AggregatorSettings).validate_python({"kind": kind})
        with tempfile.TemporaryDirectory() as folder:
            model = base.model.model_copy(update={"aggregator": head})
            config = base.model_copy(update={"output": Path(folder), "model": model})
            evaluation = run(config).evaluation
            table = aucs_of_slides(options.demo, config)
        concordance = evaluation["schemes"]["kfold"]["metrics"]["model"]["concordance"]["value"]
        words = [f"{kind:<12} concordance {concordance:.3f}"]
        for column in ("contribution", "attention"):
            if table[column].notna().all():
                value, low, high = median_with_interval(table, column)
                words.append(f"{column} {value:.3f} ({low:.3f} to {high:.3f})")
                if column == "contribution":
                    result[f"{kind}: {column}"] = {"value": value, "target": TARGET, "ok": value >= TARGET}
        print("; ".join(words), flush=True)
    print(json.dumps(result))
    return 0 if all(one["ok"] for one in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
