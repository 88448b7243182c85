"""A package and new slides or patients -> predictions and maps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.bags import BagHeader, check_same_features, read_bag, read_bag_header
from pathoml.cohort import SlideEntry, SlidesSettings
from pathoml.covariates import SLIDES_PART, CovariateTransform, FittedCategorical, FittedOrdinal, unseen_words
from pathoml.errors import CohortError, InputError, PackageError, Problem
from pathoml.extract import SlideOutcome, extract_archive, release_encoders
from pathoml.extract_settings import recipe_from_json
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.infer import predict_package
from pathoml.manifest import read_manifest
from pathoml.mil.patients import Patients
from pathoml.packages import Package, load_package
from pathoml.part_shares import part_shares, write_part_shares
from pathoml.pipeline.maps import MapRequest, draw_maps_of_slide, map_ends
from pathoml.pipeline.stages import StageContext
from pathoml.pipeline.validating import read_recalibration
from pathoml.predictions import Predictions, write_predictions
from pathoml.tables import FIRST_DATA_ROW, missing_columns_message, parse_number_columns, read_text_table
from pathoml.units import AnyArray

logger = logging.getLogger(__name__)

_SHOWN = 10
_TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class PredictRequest:
    """What is to be predicted, and where to.

    Parameters
    ----------
    package : Path
        Folder of the model package.
    inputs : tuple of Path
        Slides (each a patient of its own), or one manifest (.csv, .tsv, .parquet) that lists slides and patients, or
        bags (.h5). Empty for a model without slides.
    output : Path
        Folder for predictions.csv or maps, and for bags.
    table : Path or None
        Table with a column patient_id and the covariates that the model takes.
    impute_covariates : bool
        Whether covariates that no table gives are filled with the training patients' medians and most frequent words.
    encoder_weights : str or None
        Weights file of a ``local`` or ``registered`` encoder on this machine.
    tissue_source : str or None
        Folder of outlined regions, or weights file of the segmentation network, on this machine.
    recalibration : Path or None
        As ``pathoml validate`` wrote it, for this package; survival curves are changed by it.
    """

    package: Path
    inputs: tuple[Path, ...]
    output: Path
    table: Path | None = None
    impute_covariates: bool = False
    encoder_weights: str | None = None
    tissue_source: str | None = None
    recalibration: Path | None = None


def predict(request: PredictRequest, context: StageContext) -> tuple[Predictions, list[SlideOutcome]]:
    """Predict patients that the model has never seen.

    Parameters
    ----------
    request : PredictRequest
        What, and where to.
    context : StageContext
        Device and listener.

    Returns
    -------
    tuple of Predictions and list of SlideOutcome
        Also written to ``predictions.csv``; what became of every slide.

    Raises
    ------
    PackageError
        If the package does not fit the input.
    CohortError
        If the manifest or the table has problems, or a slide is given twice.
    """
    package = load_package(request.package)
    _require_files(request.inputs)
    change = None if request.recalibration is None else read_recalibration(request.recalibration, request.package)
    outcomes: list[SlideOutcome] = []
    transforms = [member.covariates for member in package.members]
    if package.feature_spec is None:
        patients = _table_patients(request, package)
    else:
        without = _patients_without_slides(request, package)
        named = (*(_patient_names(request.inputs) if request.inputs or not without else ()), *without)
        read_covariates(request, transforms, named)  # says what is missing before any work
        features: dict[str, AnyArray] = {}
        if request.inputs:
            features, outcomes = _patient_features(request, package, context)
        width = len(package.members[0].projection.mean) if package.members[0].projection is not None else 0
        features |= {name: np.zeros((0, width), dtype=np.float16) for name in without}
        names = tuple(features)
        patients = Patients(names, tuple(features.values()), read_covariates(request, transforms, names))
    table_name = "no table" if request.table is None else request.table.name
    _say_what_is_filled(patients.covariates, transforms, table_name)
    predictions = predict_package(package, patients, device=context.device)
    if change is not None:
        curves = change.apply(predictions.survival, predictions.curve_days)
        predictions = replace(predictions, survival=curves)
    write_predictions(request.output / "predictions.csv", predictions)
    shares = part_shares(package.members, patients, device=context.device)
    write_part_shares(request.output / "part_shares.csv", shares)
    return predictions, outcomes


def _require_files(inputs: Sequence[Path]) -> None:
    """Refuse what is not there before anything is loaded for it."""
    missing = [str(path) for path in inputs if not path.exists()]
    if missing:
        raise InputError(f"no such file: {', '.join(missing)}; give slides, bags (.h5), or one manifest")


def draw_maps(
    request: PredictRequest, context: StageContext, settings: HeatmapSettings
) -> tuple[list[Path], list[SlideOutcome]]:
    """Draw the maps of slides.

    Parameters
    ----------
    request : PredictRequest
        Package, slides and output folder.
    context : StageContext
        Device and listener.
    settings : HeatmapSettings
        Which maps, and how.

    Returns
    -------
    tuple of list of Path and list of SlideOutcome
        The PNGs; what became of every slide.

    Raises
    ------
    PackageError
        If the model takes no slides.
    """
    package = load_package(request.package)
    _require_files(request.inputs)
    entries = _entries(request.inputs)
    outcomes = _extract(request, package, entries, context)
    drawn: list[Path] = []
    for entry, outcome in zip(entries, outcomes, strict=True):
        if not outcome.has_bag:
            continue
        caption = f"Slide {entry.slide_id}, mean of {len(package.members)} model(s)"
        one = MapRequest(entry, request.output / "bags", package, caption, request.output, map_ends(package))
        drawn += [drawn_map.path for drawn_map in draw_maps_of_slide(one, settings, device=context.device)]
    return drawn, outcomes


def read_covariates(
    request: PredictRequest, transforms: Sequence[CovariateTransform], patient_ids: Sequence[str]
) -> pd.DataFrame:
    """Read the covariates that a model takes for some patients.

    Parameters
    ----------
    request : PredictRequest
        Table, or the permission to fill what it lacks.
    transforms : sequence of CovariateTransform
        What each member of the model takes: the same columns.
    patient_ids : sequence of str
        Who, in order.

    Returns
    -------
    DataFrame
        One row a patient; numbers NaN where unknown, words as they stand in the table.

    Raises
    ------
    CohortError
        If the table lacks a column or a patient, a cell is not a number, or a word is one that no member has seen.
    """
    parts = transforms[0].parts
    of_words = [part for part in parts if isinstance(part, FittedCategorical | FittedOrdinal)]
    words = [part.column for part in of_words]
    numbers = list(dict.fromkeys(name for part in parts if part not in of_words for name in part.columns))
    columns = [*words, *numbers]
    if not columns:
        return pd.DataFrame(index=pd.RangeIndex(len(patient_ids)))
    if request.table is None:
        if not request.impute_covariates:
            raise CohortError(
                f"the model takes the covariate(s) {', '.join(columns[:8])}; give a table with --table, or"
                " --impute-covariates to fill in the training patients' medians and most frequent words"
            )
        blank = {name: ([""] if name in words else [np.nan]) * len(patient_ids) for name in columns}
        return pd.DataFrame(blank)
    table = _patient_rows(request.table, patient_ids, columns)
    table, problems = _read_numbers(table, numbers, request.table.name, patient_ids)
    problems += _unseen_words(table, transforms, request.table.name, patient_ids)
    if problems:
        raise CohortError(f"{request.table.name}: {len(problems)} problem(s)", problems)
    return table


def _read_numbers(
    table: pd.DataFrame, columns: Sequence[str], file_name: str, patient_ids: Sequence[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Turn the table's columns of numbers into numbers, and return what is none."""
    cells = table[list(columns)]
    values, wrong = parse_number_columns(cells)
    problems = [
        Problem(
            f"{file_name}: patient {patient_ids[row]}, column {columns[column]}",
            f"'{cells.iat[row, column]!s}' is not a number",
        )
        for row, column in np.argwhere(wrong)[:_SHOWN]
    ]
    others = table.drop(columns=list(columns))
    return pd.concat([others, pd.DataFrame(values, columns=list(columns), index=table.index)], axis=1), problems


def _say_what_is_filled(table: pd.DataFrame, transforms: Sequence[CovariateTransform], file_name: str) -> None:
    """Count the cells that are blank: the model takes something else in their place."""
    filled: dict[str, int] = {}
    patients = np.zeros(len(table), dtype=bool)
    transform = transforms[0]
    for part in transform.parts:
        missing = ~part.is_given(table)
        patients |= missing
        if missing.any():
            filled[part.columns[0] if len(part.columns) == 1 else part.part] = int(missing.sum())
    if not filled:
        return
    shown = ", ".join(f"{name} ({count})" for name, count in list(filled.items())[:_SHOWN])
    logger.warning(
        "%s: %d of %d patient(s) lack covariates, which are filled as in training (medians or means, most frequent words): %s",
        file_name, int(patients.sum()), len(table), shown,
    )  # fmt: skip
    lacking = ~transform.given(table)
    for name, column in zip(transform.part_names, lacking.T, strict=True):
        if column.any():
            logger.warning("%s: %d of %d patient(s) have nothing of %s", file_name, int(column.sum()), len(table), name)


def _unseen_words(
    table: pd.DataFrame, transforms: Sequence[CovariateTransform], file_name: str, patient_ids: Sequence[str]
) -> list[Problem]:
    """Return the words that no member has seen: a model can say nothing of them, and 'Male' is most often meant as 'm'."""
    return [
        Problem(
            f"{file_name}: patient {patient_ids[found.row]}, column {found.column}",
            f"'{found.value}' was not seen in training, the model knows {', '.join(map(repr, found.known)) or 'none'};"
            " write it as one of these, or leave the cell blank if it is not known",
        )
        for found in unseen_words(transforms, table)[:10]
    ]


def _patient_rows(path: Path, patient_ids: Sequence[str], columns: list[str]) -> pd.DataFrame:
    table = read_text_table(path)
    for name in ("patient_id", *columns):
        if name not in table.columns:
            raise CohortError(missing_columns_message(path, table, name))
    table = table[["patient_id", *columns]].drop_duplicates()
    double = table["patient_id"][table["patient_id"].duplicated()].tolist()
    if double:
        raise CohortError(
            f"{path.name}: patient {double[0]} stands more than once with different values; keep the right row"
        )
    table = table.set_index("patient_id")
    unknown = [patient for patient in patient_ids if patient not in table.index]
    if unknown:
        raise CohortError(
            f"{path.name}: no row for patient(s) {', '.join(unknown[:5])} (a slide given by itself is a patient named as its file)"
        )
    return table.loc[list(patient_ids)].reset_index(drop=True)


def _table_patients(request: PredictRequest, package: Package) -> Patients:
    if request.inputs or request.table is None:
        raise PackageError("the model was trained without slides; give only --table with the patients")
    table = read_text_table(request.table)
    if "patient_id" not in table.columns:
        raise CohortError(missing_columns_message(request.table, table, "patient_id"))
    names = tuple(dict.fromkeys(table["patient_id"]))
    if "" in names:
        raise CohortError(f"{request.table.name}: row {table.index[table['patient_id'] == ''][0]}: blank patient_id")
    return Patients(names, None, read_covariates(request, [member.covariates for member in package.members], names))


def _patients_without_slides(request: PredictRequest, package: Package) -> tuple[str, ...]:
    """Return the patients whom only the table names, if the model has learnt to do without slides."""
    if request.table is None or not all(SLIDES_PART in member.may_lack for member in package.members):
        return ()
    table = read_text_table(request.table)
    if "patient_id" not in table.columns:
        raise CohortError(missing_columns_message(request.table, table, "patient_id"))
    with_slides = set(_patient_names(request.inputs)) if request.inputs else set()
    return tuple(name for name in dict.fromkeys(table["patient_id"]) if name and name not in with_slides)


def _patient_features(
    request: PredictRequest, package: Package, context: StageContext
) -> tuple[dict[str, AnyArray], list[SlideOutcome]]:
    parts: dict[str, list[AnyArray]] = {}
    bags = [path for path in request.inputs if path.suffix == ".h5"]
    for path in bags:
        bag = read_bag(path)
        _check_bag(package, bag.header)
        parts.setdefault(bag.header.slide_id, []).append(bag.features)
    entries = _entries([path for path in request.inputs if path.suffix != ".h5"])
    outcomes = _extract(request, package, entries, context) if entries else []
    for entry, outcome in zip(entries, outcomes, strict=True):
        if outcome.has_bag:
            bag = read_bag(request.output / "bags" / f"{entry.slide_id}.h5")
            _check_bag(package, bag.header)
            parts.setdefault(entry.patient_id, []).append(bag.features)
    if not parts:
        reasons = "; ".join(f"{outcome.slide_id}: {outcome.message}" for outcome in outcomes[:5])
        raise InputError(f"no slide could be used. {reasons}" if reasons else "no slides were given")
    return {patient: np.concatenate(own) for patient, own in parts.items()}, outcomes


def _patient_names(inputs: Sequence[Path]) -> tuple[str, ...]:
    bags = [(path, read_bag_header(path)) for path in inputs if path.suffix == ".h5"]
    entries = _entries([path for path in inputs if path.suffix != ".h5"])
    if not bags and not entries:
        raise InputError("no slides were given; name slides, bags (.h5) or a manifest (.csv)")
    _refuse_twice(bags, entries)
    return tuple(dict.fromkeys([*(header.slide_id for _, header in bags), *(entry.patient_id for entry in entries)]))


def _refuse_twice(bags: Sequence[tuple[Path, BagHeader]], entries: Sequence[SlideEntry]) -> None:
    """Refuse a slide that is given twice: its tiles would count twice in its patient's risk."""
    given: dict[str, Path] = {}
    named = [(path, header.slide_id, header.slide_digest) for path, header in bags]
    named += [(entry.path, entry.slide_id, str(entry.path.resolve())) for entry in entries]
    for path, slide_id, content in named:
        for mark in (slide_id, content):
            if mark and mark in given:  # a bag that was imported without its slide does not know its content
                raise CohortError(
                    f"{path}: slide {slide_id} is given by {given[mark]} already; give each slide once, and different"
                    " slides of one name in a manifest with unique slide_id"
                )
        given.update(dict.fromkeys((slide_id, content), path))


def _check_bag(package: Package, header: BagHeader) -> None:
    if package.feature_spec is None:
        raise PackageError("the model was trained without slides")
    check_same_features(header, package.feature_spec, "the model")


def _entries(inputs: Sequence[Path]) -> list[SlideEntry]:
    entries: list[SlideEntry] = []
    for path in inputs:
        if path.suffix in _TABLES:
            entries += read_manifest(SlidesSettings(manifest=path))
        else:
            entries.append(SlideEntry(path.stem, path, path.stem, None, FIRST_DATA_ROW + len(entries)))
    _refuse_twice((), entries)
    return entries


def _extract(
    request: PredictRequest, package: Package, entries: Sequence[SlideEntry], context: StageContext
) -> list[SlideOutcome]:
    if package.recipe is None:
        raise PackageError("the model was trained without slides, so it cannot score any")
    if package.recipe["encoder"]["kind"] == "imported":
        raise PackageError("the model was trained on imported features, so it scores no slides; give it bags (.h5)")
    recipe = recipe_from_json(
        package.recipe, encoder_weights=request.encoder_weights, tissue_source=request.tissue_source
    )
    outcomes = extract_archive(
        entries, recipe, request.output / "bags", device=context.device, progress=context.progress, watch=context.watch
    )
    release_encoders()
    return outcomes
