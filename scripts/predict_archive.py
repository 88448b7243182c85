"""Predict the patients of a whole archive with a model package.

Usage: python scripts/predict_archive.py PACKAGE SLIDES OUT [--table patients.csv] [--device auto] [--impute-covariates]

SLIDES is a manifest (CSV, TSV or Parquet with slide_id, path, patient_id and, where files do not say it, mpp), or a folder
of bags made by extract_archive.py or `pathoml extract`, each a patient of its own. OUT gets predictions.csv and the bags of
slides; the same command goes on after an interruption. Exit code 1 if a slide failed.
"""

import argparse
import sys
from pathlib import Path

from pathoml.errors import PathomlError
from pathoml.pipeline.doctor import resolve_device
from pathoml.pipeline.predicting import PredictRequest, predict
from pathoml.pipeline.stages import StageContext


def inputs_of(slides: Path) -> tuple[Path, ...]:
    """Return the manifest, or the bags of a folder."""
    if slides.is_dir():
        bags = tuple(sorted(slides.glob("*.h5")))
        if not bags:
            sys.exit(f"{slides}: no bag (.h5) in it; give a manifest, or extract the slides first")
        return bags
    return (slides,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", type=Path, help="covariates of the patients")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--impute-covariates", action="store_true", help="fill covariates that no table gives")
    options = parser.parse_args()
    request = PredictRequest(
        options.package,
        inputs_of(options.slides),
        options.out,
        table=options.table,
        impute_covariates=options.impute_covariates,
    )
    try:
        predictions, outcomes = predict(request, StageContext(resolve_device(options.device)))
    except PathomlError as error:
        print(error, file=sys.stderr)
        return 2
    lost = [one for one in outcomes if not one.has_bag]
    for one in lost:
        print(f"{one.slide_id}: {one.code}: {one.message}", file=sys.stderr)
    print(f"{len(predictions.table)} patients in {options.out / 'predictions.csv'}; research use only")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
