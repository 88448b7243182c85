"""A frozen package on the patients of another cohort: how good it is there, and how it would have to be recalibrated."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.bags import check_same_features, read_bag_header
from pathoml.cohort import flow_to_csv, flow_to_json
from pathoml.config import Config
from pathoml.covariates import unseen_words
from pathoml.errors import CohortError, InputError, PackageError, Problem
from pathoml.evaluate import Background, evaluate
from pathoml.evaluate.scheme import RECALIBRATED, build_scheme
from pathoml.extract import SlideOutcome, extract_archive
from pathoml.extract_settings import recipe_from_json
from pathoml.files import file_digest, write_json, write_text
from pathoml.infer import predict_package
from pathoml.leakage import read_seen, require_unseen
from pathoml.mil.patients import load_features, select_patients
from pathoml.packages import Package, load_package
from pathoml.pipeline.checking import cohort_facts
from pathoml.pipeline.run_folder import RunFolder, read_json, require_writable
from pathoml.pipeline.stages import StageContext
from pathoml.pipeline.study import Study, keep_patients, open_study
from pathoml.predictions import Predictions, join_predictions, write_predictions
from pathoml.provenance import RESEARCH_USE_ONLY, environment, pathoml_version
from pathoml.report import Page, write_report
from pathoml.report.words import days_words
from pathoml.settings import result_settings
from pathoml.survival.recalibration import Method, Recalibration, fit_level, fit_slope
from pathoml.units import BoolArray

RECALIBRATION_FORMAT = "pathoml-recalibration"
RECALIBRATION_VERSION = 1
SCHEME, PACKAGE = "validation", "package"
_PARTS = 5
_FEWEST_EVENTS = 10


@dataclass(frozen=True)
class ValidateRequest:
    """What is to be validated on whom.

    Parameters
    ----------
    package : Path
        Folder of the model package; it is read and never written to.
    config : Config
        Cohort, slides and evaluation settings of the other patients; its models and splits are not used.
    output : Path
        Folder for predictions, evaluation, recalibration and report.
    recalibration : str
        ``level`` or ``slope``.
    encoder_weights, tissue_source : str or None
        As in `pathoml.pipeline.predicting.PredictRequest`.
    """

    package: Path
    config: Config
    output: Path
    recalibration: Method = "level"
    encoder_weights: str | None = None
    tissue_source: str | None = None


def validate(request: ValidateRequest, context: StageContext) -> tuple[dict[str, Any], list[SlideOutcome]]:
    """Judge a package on patients that it has never seen, as it is and recalibrated.

    Parameters
    ----------
    request : ValidateRequest
        What, on whom, where to.
    context : StageContext
        Device and listener.

    Returns
    -------
    tuple of dict and list of SlideOutcome
        As `pathoml.evaluate.evaluate` gives it, with the models package and recalibrated; what became of every slide.

    Raises
    ------
    InputError
        If the patients have too few events.
    PackageError
        If the package does not fit the cohort.
    CohortError
        If a word of a covariate was not seen in training.
    LeakError
        If the run of the package lies beside it and its records know one of the patients.
    """
    if request.output.resolve() == request.package.resolve():
        raise InputError(
            f"{request.output}: the package's own folder; name another with --output, the package stays as it is"
        )
    package, digest = load_package(request.package), file_digest(request.package / "model.json")
    require_writable(request.output)
    study = open_study(request.config)
    records = _refuse_seen(request.package, study)
    _check_words(package, study)
    study, features, outcomes = _features(request, package, study, context)
    events = int((study.cohort.event == 1).sum())
    if events < _FEWEST_EVENTS:
        raise InputError(
            f"{events} event(s) among {len(study.cohort)} patients; a validation needs {_FEWEST_EVENTS} or more"
        )
    patients = select_patients(study.cohort, features, tuple(study.cohort.patient_id.tolist()))
    frozen = _with_outcome(predict_package(package, patients, device=context.device), study)
    recalibration, adjusted = recalibrate(frozen, request.recalibration, seed=request.config.evaluate.seed)
    predictions = join_predictions([frozen, adjusted])
    write_predictions(request.output / "predictions.csv", predictions)
    _write_recalibration(request.output / "recalibration.json", recalibration, package, digest, study)
    background = Background(study.cohort.patient_id, study.cohort.covariates, request.config.cohort.covariates)
    evaluation = evaluate(predictions, request.config.evaluate, background) | {"package_sha256": digest}
    write_json(request.output / "evaluation.json", evaluation)
    write_json(request.output / "flow.json", flow_to_json(study.cohort.flow))
    write_text(request.output / "flow.csv", flow_to_csv(study.cohort.flow))
    _write_page(request, package, study, evaluation, (outcomes, records))
    return evaluation, outcomes


def read_recalibration(path: Path, package: Path) -> Recalibration:
    """Read a recalibration, and refuse it if it was made for another package.

    Parameters
    ----------
    path : Path
        As `validate` wrote it.
    package : Path
        Folder of the package.

    Returns
    -------
    Recalibration
        To be applied to survival curves.

    Raises
    ------
    PackageError
        If it is of another version or another package.
    """
    stored = read_json(path, "run 'pathoml validate' again")
    if stored.get("format") != RECALIBRATION_FORMAT or stored.get("format_version") != RECALIBRATION_VERSION:
        raise PackageError(f"{path}: not a recalibration that this pathoml reads; run 'pathoml validate' again")
    if stored.get("package_sha256") != file_digest(package / "model.json"):
        raise PackageError(f"{path}: made for another package than {package}; run 'pathoml validate' with this package")
    values = stored["recalibration"]
    return Recalibration(**{**values, "hazard": tuple(values["hazard"])})


def recalibrate(frozen: Predictions, method: Method, *, seed: int) -> tuple[Recalibration, Predictions]:
    """Fit a recalibration to all patients, and show it on patients that it was not fitted on.

    Parameters
    ----------
    frozen : Predictions
        Of one model, with outcomes.
    method : str
        ``level`` or ``slope``.
    seed : int
        Of the parts into which patients are divided.

    Returns
    -------
    tuple of Recalibration and Predictions
        The one to be kept; curves of each fifth of the patients by a recalibration of the others.
    """
    everyone = np.ones(len(frozen.table), dtype=bool)
    event = (frozen.table["event"] == 1).to_numpy()
    order = np.lexsort((np.random.default_rng(seed).random(len(event)), event))
    part = np.empty(len(event), dtype=np.int64)
    part[order] = np.arange(len(event)) % _PARTS
    curves = np.empty_like(frozen.survival)
    for one in range(_PARTS):
        fitted = _fit(frozen, part != one, method)
        curves[part == one] = fitted.apply(frozen.survival[part == one], frozen.curve_days)
    table = frozen.table.assign(model=RECALIBRATED)
    return _fit(frozen, everyone, method), Predictions(table, frozen.curve_days, curves)


def _fit(frozen: Predictions, rows: BoolArray, method: Method) -> Recalibration:
    table = frozen.table[rows]
    time_days = table["time_days"].to_numpy(dtype=np.float64)
    event = (table["event"] == 1).to_numpy().astype(np.int64)
    if method == "level":
        tested = build_scheme(frozen, bootstraps=0, seed=0).tested(PACKAGE)
        at_end = dict(zip(tested.patient_id.tolist(), tested.survival_at(tested.time_days).tolist(), strict=True))
        return fit_level(event, np.array([at_end[name] for name in table["patient_id"]]))
    middle = float(np.median(time_days[event == 1]))
    return fit_slope(time_days, event, frozen.survival[rows], frozen.curve_days, reference_day=middle)


def _refuse_seen(package: Path, study: Study) -> int:
    """Refuse patients whom the models have seen, as far as records of the run that made the package lie beside it."""
    records = [read_seen(path) for path in sorted(RunFolder(package.parent).members.glob("*.seen.json"))]
    known = [record for record in records if record is not None]
    for record in known:
        require_unseen(record, study.cohort.patient_id.tolist(), f"validation of {package.name}")
    return len(known)


def _check_words(package: Package, study: Study) -> None:
    transforms = [member.covariates for member in package.members]
    absent = [
        name for part in transforms[0].parts for name in _columns(part) if name not in study.cohort.covariates.columns
    ]
    if absent:
        raise PackageError(
            f"the model was trained with column(s) {', '.join(absent[:5])}; name them under cohort.covariates of the"
            " configuration"
        )
    found = unseen_words(transforms, study.cohort.covariates)
    if found:
        problems = [
            Problem(f"patient {study.cohort.patient_id[one.row]}, column {one.column}",
                    f"'{one.value}' was not seen in training, the model knows {', '.join(map(repr, one.known))}")
            for one in found[:10]
        ]  # fmt: skip
        raise CohortError(f"{len(found)} word(s) that the model does not know", problems)


def _columns(part: Any) -> tuple[str, ...]:
    return tuple(part.columns) if hasattr(part, "columns") else (part.column,)


def _features(
    request: ValidateRequest, package: Package, study: Study, context: StageContext
) -> tuple[Study, Any, list[SlideOutcome]]:
    """Take the bags that fit the package, or make them by its own recipe."""
    slides = study.config.slides
    if package.feature_spec is None:
        return study, None, []
    if slides is None or package.recipe is None:
        raise PackageError("the model was trained with slides; name them in the section slides of the configuration")
    outcomes: list[SlideOutcome] = []
    folder, present = (
        slides.bags,
        [one.slide_id for one in study.entries if (slides.bags / f"{one.slide_id}.h5").is_file()],
    )
    if package.recipe["encoder"]["kind"] == "imported" or len(present) == len(study.entries):
        for slide in present:
            check_same_features(read_bag_header(folder / f"{slide}.h5"), package.feature_spec, "the model")
    else:
        folder = request.output / "bags"
        recipe = recipe_from_json(
            package.recipe, encoder_weights=request.encoder_weights, tissue_source=request.tissue_source
        )
        outcomes = extract_archive(study.entries, recipe, folder, device=context.device, progress=context.progress)
        present = [outcome.slide_id for outcome in outcomes if outcome.has_bag]
    usable = [
        patient
        for patient in study.cohort.patient_id.tolist()
        if any(entry.slide_id in set(present) for entry in study.cohort.slides[patient])
    ]
    study = replace(study, cohort=keep_patients(study.cohort, usable, "no slide could be used"))
    features = load_features(study.cohort, folder, present)
    return study, features, outcomes


def _with_outcome(predictions: Predictions, study: Study) -> Predictions:
    cohort = study.cohort
    rows = cohort.rows_of(predictions.table["patient_id"])
    table = predictions.table.assign(
        model=PACKAGE, scheme=SCHEME, fold="all", site=cohort.site[rows], endpoint=cohort.endpoint,
        time_days=cohort.time_days[rows], event=cohort.causes[rows],
    )  # fmt: skip
    return Predictions(table, predictions.curve_days, predictions.survival)


def _write_recalibration(
    path: Path, recalibration: Recalibration, package: Package, digest: str, study: Study
) -> None:  # fmt: skip
    content = {
        "format": RECALIBRATION_FORMAT,
        "format_version": RECALIBRATION_VERSION,
        "notice": RESEARCH_USE_ONLY,
        "package_sha256": digest,
        "curve_days": list(package.curve_days),
        "recalibration": recalibration.to_json(),
        "endpoint": study.cohort.endpoint,
        "patients": len(study.cohort),
        "events": int((study.cohort.event == 1).sum()),
        "pathoml_version": pathoml_version(),
    }
    write_json(path, content)


def _write_page(
    request: ValidateRequest,
    package: Package,
    study: Study,
    evaluation: Mapping[str, Any],
    noted: tuple[list[SlideOutcome], int],
) -> None:
    outcomes, records = noted
    warnings = [str(one) for one in study.cohort.warnings]
    seen = (
        f"held against {records} record(s) of whom the models have seen: none of these patients is among them"
        if records
        else "not checked: a package does not say whom it was trained on, and the run that made it does not lie beside it"
    )
    if not records:
        warnings.append(f"Whether the models have seen these patients was {seen}. Make sure of it.")
    warnings += [f"Slide {one.slide_id} was left out: {one.code}: {one.message}" for one in outcomes if not one.has_bag]
    trained_for = str(package.summary.get("endpoint"))
    if trained_for != study.cohort.endpoint:
        warnings.append(f"The package was trained for {trained_for}; these patients have {study.cohort.endpoint}.")
    facts = [
        (name, value)
        for name, value in cohort_facts(study)
        if name not in {"Clinical model", "Slides"} and not name.startswith("Left out")
    ]
    facts.append(
        ("Package trained on", f"{package.summary.get('patients')} patients, {package.summary.get('events')} events")
    )
    horizons = ", ".join(days_words(day) for day in evaluation["horizons_days"])
    stored = read_json(request.output / "recalibration.json", "run 'pathoml validate' again")["recalibration"]
    change = (
        f"cumulative hazards are multiplied by {math.exp(stored['level']):.2f}"
        if stored["method"] == "level"
        else f"log cumulative hazards are multiplied by {stored['slope']:.2f}, with a baseline hazard of these patients"
    )
    methods = [
        f"A model package with {len(package.members)} member(s) was applied as it is to {len(study.cohort)} patients of"
        f" {study.config.cohort.table.name}. Nothing of it was fitted again; its model.json has the SHA-256"
        f" {evaluation['package_sha256'][:16]}... Whether the models have seen these patients: {seen}. Probabilities were judged"
        f" at {horizons}.",
        f"Recalibrated: {change}. What is shown of the recalibrated model was computed on each fifth of the patients with a"
        " recalibration fitted on the others; the one fitted on all stands in recalibration.json, beside the package"
        " and never in it,"
        " and is used with 'pathoml predict --recalibration'.",
        f"Censoring weights: {evaluation['censoring_weights']}. Intervals: {evaluation['condition']}.",
    ]
    page = Page(
        title=f"{study.config.name}: validation of a frozen model", endpoint=study.cohort.endpoint, facts=facts,
        warnings=warnings, evaluation=evaluation, heatmaps=[],
        provenance=[
            ("Package (SHA-256 of model.json)", evaluation["package_sha256"]),
            *((str(name), str(value)) for name, value in environment("cpu").items()),
        ],
        settings=json.dumps(result_settings(study.config), indent=2), methods=methods, flow=study.cohort.flow,
        answers={
            "objective": "evaluation of an existing model (external validation)", "use": "research use only",
            "division": seen, "updating": change,
            "outcome": f"{study.cohort.endpoint}; judged at {horizons}", "computation": "'pathoml validate'",
        },
    )  # fmt: skip
    write_report(request.output / "report.html", page)
