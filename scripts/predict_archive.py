"""Predict the patients of a whole archive with a model package.

Usage: python scripts/predict_archive.py PACKAGE SLIDES OUT [--table patients.csv] [--device auto] [--impute-covariates]

SLIDES is a manifest (CSV, TSV or Parquet with slide_id, path, patient_id and, where files do not say it, mpp), or a folder
of bags made by extract_archive.py or `pathoml extract`, each a patient of its own. OUT gets predictions.csv and the bags of
slides; the same command goes on after an interruption. Exit codes are those of `pathoml`: 0 done, 1 some slides failed
(listed; one without tissue does not count), 2 wrong input, 3 interrupted.
"""

import argparse
import sys
from pathlib import Path

from pathoml.cli.exits import exit_code_of
from pathoml.cli.terminal import say, say_outcomes, stage_context
from pathoml.errors import InputError


def inputs_of(slides: Path) -> tuple[Path, ...]:
    """Return the manifest, or the bags of a folder."""
    if slides.is_dir():
        bags = tuple(sorted(slides.glob("*.h5")))
        if not bags:
            raise InputError(f"{slides}: no bag (.h5) in it; give a manifest, or extract the slides first")
        return bags
    return (slides,)


def predict_archive(options: argparse.Namespace) -> int:
    """Predict, and say what became of every slide."""
    from pathoml.pipeline.predicting import PredictRequest, predict

    request = PredictRequest(
        options.package,
        inputs_of(options.slides),
        options.out,
        table=options.table,
        impute_covariates=options.impute_covariates,
    )
    with stage_context(options.device) as context:
        predictions, outcomes = predict(request, context)
    say(f"{len(predictions.table)} patients in {options.out / 'predictions.csv'}; research use only")
    say_outcomes(outcomes)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", type=Path, help="covariates of the patients")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--impute-covariates", action="store_true", help="fill covariates that no table gives")
    options = parser.parse_args()
    return exit_code_of(lambda: predict_archive(options))


if __name__ == "__main__":
    sys.exit(main())
