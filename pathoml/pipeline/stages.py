"""The stages of a run: each reads what the one before wrote, and does nothing that is done already."""

import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pathoml.baseline_settings import CLINICAL
from pathoml.cohort import FlowStep, flow_step, flow_to_csv, flow_to_json
from pathoml.cross_validation import cross_validate
from pathoml.encoders.settings import ImportedSettings
from pathoml.errors import BagMismatchError, InputError
from pathoml.evaluate import evaluate
from pathoml.extract import Shard, SlideOutcome, Watch, extract_archive, extract_with_ray, release_encoders
from pathoml.files import file_digest, write_json, write_text
from pathoml.fold_fitting import FitPlan, require_unseen_test
from pathoml.leakage import check_predictions, examine_leakage, refuse_leaks
from pathoml.mil.patients import load_features
from pathoml.packages import Package, join_packages, save_package
from pathoml.part_shares import shares_of_tested, write_part_shares
from pathoml.pipeline.given_bags import take_bags
from pathoml.pipeline.judged_study import background_of, permute_clinical, permute_models, permute_ridge
from pathoml.pipeline.map_scale import cohort_map_ends
from pathoml.pipeline.quality import write_quality
from pathoml.pipeline.run_folder import check_training, record_training, require_writable
from pathoml.pipeline.slide_marks import slide_marks
from pathoml.pipeline.study import Study, is_imported, keep_patients
from pathoml.predictions import read_predictions, write_predictions
from pathoml.progress import Progress, silent
from pathoml.provenance import digest_of, environment, pathoml_version
from pathoml.settings import result_settings
from pathoml.splits import FixedSettings, Fold, FoldFilesSettings, Scheme, deal, fold_files, read_folds, write_folds
from pathoml.survival.discrete import coarse_ceiling
from pathoml.tracking import Tracking
from pathoml.train import TrainingData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageContext:
    """What every stage is given besides the study.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.
    progress : Progress
        Told how far a stage is.
    watch : callable or None
        Told every few seconds how an extraction goes.
    """

    device: str = "cpu"
    progress: Progress = silent
    watch: Watch | None = None


def extract_stage(
    study: Study, context: StageContext, *, shard: Shard | None = None, on_ray: bool = False
) -> list[SlideOutcome]:  # fmt: skip
    """Make the bags that are missing; where bags are imported, look at those that are given.

    Parameters
    ----------
    study : Study
        With slides.
    context : StageContext
        Device and listener.
    shard : Shard, optional
        Only this part of the slides; tables and pages about all slides are left to a call without.
    on_ray : bool, optional
        Whether a Ray cluster does the work.

    Returns
    -------
    list of SlideOutcome
        One a slide.

    Raises
    ------
    InputError
        If the study has no slides.
    """
    if study.config.slides is None:
        raise InputError(f"study {study.config.name} names no slides; add the section slides: to extract features")
    for folder in (study.folder.root, study.config.slides.bags):
        require_writable(folder)
    entries = study.entries if shard is None else shard.of(study.entries)
    recipe, bags = study.config.recipe, study.config.slides.bags
    if isinstance(study.config.encoder, ImportedSettings):
        outcomes = take_bags(entries, bags, study.config.encoder.name, progress=context.progress)
    elif on_ray:
        outcomes = extract_with_ray(
            entries, recipe, bags, device=context.device, address=recipe.extract.ray_address, progress=context.progress
        )
    else:
        outcomes = extract_archive(
            entries, recipe, bags, device=context.device, progress=context.progress, watch=context.watch
        )
        release_encoders()  # what comes next wants the device's memory for itself
    if shard is None:
        _write_tables(study, context, outcomes, bags)
    return outcomes


def _write_tables(study: Study, context: StageContext, outcomes: list[SlideOutcome], bags: Path) -> None:
    write_json(study.folder.environment, environment(context.device))
    table = pd.DataFrame([vars(outcome) for outcome in outcomes]).drop(columns=["seconds", "status", "attempt"])
    table.insert(1, "has_bag", [outcome.has_bag for outcome in outcomes])
    write_text(study.folder.slides, table.to_csv(index=False))
    site_of = dict(zip(study.cohort.patient_id.tolist(), study.cohort.site.tolist(), strict=True))
    write_quality(study.entries, outcomes, site_of, bags, study.config.name)


def train_stage(study: Study, context: StageContext) -> Study:
    """Fit and predict every fold, and save the models of the first scheme as one package.

    Parameters
    ----------
    study : Study
        With bags, if it has slides.
    context : StageContext
        Device and listener.

    Returns
    -------
    Study
        With the patients that could be used.
    """
    if is_imported(study.config.encoder) and not study.folder.slides.is_file():
        extract_stage(study, context)
    data, study = _training_data(study)
    folder = study.folder
    require_writable(folder.root)
    folder.training.unlink(missing_ok=True)  # from here on its files change one after the other
    write_json(folder.environment, environment(context.device))
    folds = _saved_or_new_folds(study)
    write_json(folder.flow, flow_to_json(study.cohort.flow))
    write_text(folder.flow_table, flow_to_csv(study.cohort.flow))
    leakage = examine_leakage(study.cohort, folds, slide_marks(study, data.features, slides_with_bags(study)))
    write_json(folder.leakage, leakage.to_json())
    refuse_leaks(leakage)
    write_json(folder.config, study.config.model_dump(mode="json"))
    template = _template(study, data)
    config = study.config
    tracking = Tracking(folder.root, config.name, config.tracking)
    fit_plan = FitPlan(
        config.model, config.train, template, folder.members, context.device, config.tune, tracking, config.baselines
    )
    packages, predictions = cross_validate(data, folds, fit_plan, progress=context.progress)
    write_predictions(folder.predictions, predictions)
    write_part_shares(folder.part_shares, shares_of_tested(data, folds, packages, device=context.device))
    first = [fold for fold in folds if fold.scheme == folds[0].scheme and fold.repeat == 0]
    joined = join_packages([packages[fold.key] for fold in first])
    ends = cohort_map_ends(study, sorted(slides_with_bags(study)), first, packages, device=context.device)
    scale = {"map_ends": ends} if ends else {}
    sought = {"tuned": joined.summary["tuned"]} if config.tune is not None else {}
    save_package(folder.package, replace(joined, summary={**template.summary, **sought, **scale}))
    record_training(folder, study.config.digest)
    return study


def evaluate_stage(study: Study, context: StageContext | None = None) -> dict[str, Any]:
    """Judge the saved predictions.

    Parameters
    ----------
    study : Study
        After training, with the patients that could be used.
    context : StageContext, optional
        Device and listener, for models that are fitted again on shuffled outcomes.

    Returns
    -------
    dict
        What `evaluation.json` holds.

    Raises
    ------
    InputError
        If training was not finished, or its files have been changed.
    LeakError
        If predictions or folds score a model on patients that it has seen.
    """
    folder, config = study.folder, study.config
    training = check_training(folder)
    predictions = read_predictions(folder.predictions)
    check_predictions(predictions.table)
    for fold in read_folds(folder.folds):
        require_unseen_test(fold, folder.members)
    evaluation = evaluate(predictions, config.evaluate, background_of(study, slides_with_bags(study)))
    for name, scheme in evaluation["schemes"].items():
        scheme["permutation"] = _permutation(study, name, context or StageContext())
    evaluation |= {"config_digest": config.digest, "training": training}
    write_json(folder.evaluation, evaluation)
    return evaluation


def _permutation(study: Study, scheme: str, context: StageContext) -> dict[str, Any]:
    """Fit on shuffled outcomes what is quick to fit, and what the configuration asks for."""
    settings = study.config.evaluate
    folds = [fold for fold in read_folds(study.folder.folds) if fold.scheme == scheme and fold.repeat == 0]
    found = {}
    if settings.permutations:
        found[CLINICAL] = permute_clinical(study, folds)
    if settings.permute_baselines:
        found |= permute_ridge(study, folds, slides_with_bags(study))
    if settings.permute_model:
        data, _ = _training_data(study)
        plan = FitPlan(
            study.config.model, study.config.train, _template(study, data), study.folder.members, context.device,
            study.config.tune, baselines=study.config.baselines,
        )  # fmt: skip
        found |= permute_models(
            data, folds, plan, permutations=settings.permute_model, seed=settings.seed
        )  # fmt: skip
    return found


def usable_study(study: Study) -> Study:
    """Return the study with the patients that have a bag.

    Parameters
    ----------
    study : Study
        After extraction.

    Returns
    -------
    Study
        The same study without patients all of whose slides failed.
    """
    present = slides_with_bags(study)
    if study.config.slides is None or not study.config.slides.required:
        return study
    used = [
        patient
        for patient in study.cohort.patient_id
        if any(entry.slide_id in present for entry in study.cohort.slides[patient])
    ]
    cohort = replace(study.cohort, flow=(*study.cohort.flow, *_slides_without_bag(study, present)))
    return replace(study, cohort=keep_patients(cohort, used, "no slide could be used"))


def _slides_without_bag(study: Study, present: set[str]) -> list[FlowStep]:
    """Return the steps of the flow of slides that an extraction could not use, by its code."""
    said = {one for step in study.cohort.flow if step.unit == "slides" for one in step.ids}
    listed = {entry.slide_id for entry in study.entries} - said
    table = pd.read_csv(study.folder.slides, dtype=str, keep_default_na=False)
    lost = table[table["slide_id"].isin(listed - present)]
    steps: list[FlowStep] = []
    left = len(listed)
    for code, rows in lost.groupby("code"):
        left -= len(rows)
        steps.append(flow_step("slides", f"no features: {code}", rows["slide_id"].tolist(), left))
    return steps


def _training_data(study: Study) -> tuple[TrainingData, Study]:
    study = usable_study(study)
    features = None
    if study.config.slides is not None:
        features = load_features(study.cohort, study.config.slides.bags, sorted(slides_with_bags(study)))
        imported = is_imported(study.config.encoder)  # such bags were held against the configuration one by one
        if not imported and features.spec.settings_digest != study.config.recipe.digest:
            raise BagMismatchError(
                "the bags were made with other settings than the configuration's; run 'pathoml extract'"
            )
    elif not study.config.cohort.covariates:
        raise InputError("the study names neither slides nor covariates, so there is nothing to predict from")
    return TrainingData(study.cohort, features, study.config.cohort.covariates), study


def slides_with_bags(study: Study) -> set[str]:
    """Return the slides that the last extraction left with a bag; the run's own record decides, not what lies about.

    Parameters
    ----------
    study : Study
        After extraction.

    Returns
    -------
    set of str
        Their ids; empty for a study without slides.

    Raises
    ------
    InputError
        If slides have not been extracted.
    """
    if study.config.slides is None:
        return set()
    if not study.folder.slides.is_file():
        raise InputError(f"{study.folder.root}: slides have not been extracted; run 'pathoml extract' first")
    table = pd.read_csv(study.folder.slides, dtype={"slide_id": str}, keep_default_na=False)
    listed = {entry.slide_id for entry in study.entries}
    return set(table.loc[table["has_bag"], "slide_id"]) & listed


def _saved_or_new_folds(study: Study) -> tuple[Fold, ...]:
    """Make the folds once; they stay as they are while patients and splits settings do."""
    folder, cohort = study.folder, study.cohort
    splits = study.config.splits
    tables = [file_digest(path) for scheme in splits.schemes for path in _tables_of(scheme)]
    patients = [cohort.patient_id.tolist(), cohort.event.tolist(), cohort.site.tolist()]
    digest = digest_of([result_settings(splits), tables, patients])
    stamp = folder.folds.with_suffix(".sha256")
    # The stamp names the inputs and the table, so that neither alone, nor the table of other inputs, is taken over.
    if folder.folds.is_file() and stamp.is_file():
        if stamp.read_text(encoding="utf-8").split() == [digest, file_digest(folder.folds)]:
            return read_folds(folder.folds)
        logger.warning("%s: made again, since patients, settings or the table itself have changed", folder.folds)
    dealing = deal(cohort, study.config.splits)
    write_folds(folder.folds, dealing.folds)
    write_json(folder.balance, {name: [asdict(one) for one in made] for name, made in dealing.balances.items()})
    write_text(stamp, f"{digest}\n{file_digest(folder.folds)}\n")
    return dealing.folds


def _tables_of(scheme: Scheme) -> list[Path]:
    if isinstance(scheme, FixedSettings):
        return [scheme.table]
    return list(fold_files(scheme).values()) if isinstance(scheme, FoldFilesSettings) else []


def _template(study: Study, data: TrainingData) -> Package:
    cohort = study.cohort
    days = curve_grid(float(cohort.time_days.max()), study.config.evaluate.curve_step_days)
    summary: dict[str, Any] = {
        "endpoint": cohort.endpoint,
        "patients": len(cohort),
        "events": int(cohort.event.sum()),
        "sites": len(set(cohort.site) - {""}),
        "pathoml_version": pathoml_version(),
        "config_digest": study.config.digest,
        "encoder_licence": "no encoder",
        "encoder_pretraining": "no encoder",
    }
    if data.features is None:
        return Package((), None, None, days, summary)
    from pathoml.encoders.build import build_encoder  # timm takes two seconds, and few stages need it

    settings = study.config.encoder
    encoder = settings if isinstance(settings, ImportedSettings) else build_encoder(settings)
    summary.update(encoder_licence=encoder.licence, encoder_pretraining=encoder.pretraining)
    return Package((), data.features.spec, study.config.recipe.to_json(), days, summary)


def curve_grid(longest_days: float, step_days: float) -> tuple[float, ...]:
    """Return the days on which survival curves are given.

    The step is a setting, so that nobody's follow-up moves a point of it; the longest follow-up, rounded up, only says
    where it ends.

    Parameters
    ----------
    longest_days : float
        Longest follow-up of the cohort.
    step_days : float
        Distance of the points.

    Returns
    -------
    tuple of float
        At least two days.
    """
    points = max(2, math.ceil(coarse_ceiling(longest_days) / step_days))
    return tuple(step_days * number for number in range(1, points + 1))
