"""One fitted and saved model a fold, one fold after another or several side by side."""

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from pebble import ProcessPool

from pathoml.baseline_settings import BaselineSettings
from pathoml.cohort import Seal, take_rows
from pathoml.errors import LeakError, PackageError
from pathoml.files import file_digest, make_folder, write_text
from pathoml.leakage import check_fit, note_seen, read_seen, require_unseen, write_seen
from pathoml.mil.projection import NOT_FITTED
from pathoml.mil.settings import ModelSettings
from pathoml.mil.tile_rows import free_bytes
from pathoml.packages import Member, Package, load_package, save_package
from pathoml.processes import end_with
from pathoml.provenance import digest_of, pathoml_version
from pathoml.settings import result_settings
from pathoml.splits import Fold
from pathoml.tracking import Tracking
from pathoml.train import FitContext, TrainingData, fit_member, fit_tile_projection
from pathoml.train_settings import TrackingSettings, TrainSettings
from pathoml.train_state import ResumeFile
from pathoml.tune_settings import TuneSettings, with_values
from pathoml.tuning import Search, tune

logger = logging.getLogger(__name__)

_GB = 1e9


@dataclass(frozen=True)
class FitPlan:
    """How every fold is fitted and where its model goes.

    Parameters
    ----------
    model : ModelSettings
        What the model is made of.
    train : TrainSettings
        How it is fitted.
    template : Package
        What each fold's package says besides its member.
    folder : Path
        Where the folds' packages go.
    device : str
        ``cpu`` or ``cuda``.
    tune : TuneSettings or None
        Which settings are sought inside each fold.
    tracking : Tracking or None
        Who is told the numbers of each epoch; None writes metrics.jsonl beside the packages.
    baselines : BaselineSettings
        How the models beside it are fitted.
    """

    model: ModelSettings
    train: TrainSettings
    template: Package
    folder: Path
    device: str = "cpu"
    tune: TuneSettings | None = None
    tracking: Tracking | None = None
    baselines: BaselineSettings = field(default_factory=BaselineSettings)


def fit_folds(data: TrainingData, folds: Sequence[Fold], plan: FitPlan) -> Iterator[Package]:
    """Fit every fold, `train.folds_at_once` of them side by side if memory allows.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    folds : sequence of Fold
        Who trains and who decides when to stop.
    plan : FitPlan
        How, and where to.

    Yields
    ------
    Package
        Of each fold, in their order.
    """
    workers = _affordable(data, plan, len(folds))
    if plan.tracking is not None:
        plan.tracking.prepare()
    if workers == 1:
        for fold in folds:
            yield fit_fold(data, fold, plan)
        return
    share = replace(plan, train=_share_of_memory(plan.train, workers))
    threads = max(1, torch.get_num_threads() // workers)
    spawn = multiprocessing.get_context("spawn")
    begin = (share, data, os.getpid(), threads)
    with ProcessPool(workers, initializer=_begin, initargs=begin, context=spawn) as pool:
        try:
            for fold, fitted in [(fold, pool.schedule(_fit, args=(fold,))) for fold in folds]:
                fitted.result()
                yield fit_fold(data, fold, plan)  # as the process has saved it
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def fit_fold(data: TrainingData, fold: Fold, plan: FitPlan) -> Package:
    """Fit a fold's model and save it, or take the saved one if it was fitted on the same data with the same settings.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains and who decides when to stop.
    plan : FitPlan
        How, and where to.

    Returns
    -------
    Package
        With a member for each seed.
    """
    folder = plan.folder / fold.folder_name
    digest = _digest(data, fold, plan)
    check_fit(fold, {})
    saved = _saved_fold(folder, digest, fold)
    if saved is not None:
        return saved
    make_folder(plan.folder)
    data, seal = sealed(data, fold)
    model, train, summary = plan.model, plan.train, {**plan.template.summary, "training_digest": digest}
    if plan.tune is not None:
        record = folder.with_name(f"{folder.name}.trials.jsonl")
        best = tune(data, fold, Search(plan.tune, model, train, plan.device), record, digest)
        model, train = with_values(model, train, best.values)
        summary["tuned"] = {fold.key: best.values}
    days = np.asarray(plan.template.curve_days, dtype=np.float64)
    tracking = plan.tracking or Tracking(plan.folder, "", TrackingSettings())
    projection = fit_tile_projection(data, fold, model)
    members, rows, records = [], [], []
    for number in range(train.members):
        seeded = train.model_copy(update={"seed": train.seed + number})
        path = folder.with_name(f"{folder.name}-{number}.resume")
        records.append(path)
        resume = ResumeFile(path, digest_of([digest, number]), seeded.checkpoint_s)
        with tracking.of(fold.key, seeded.seed, digest[:8]) as listener:
            context = FitContext(plan.device, resume, projection, listener)
            member, history = fit_member(data, fold, model, seeded, context)
        # Times at which single patients had their event stay here: curves are given on the package's grid only.
        members.append(replace(member, objective=member.objective.on_grid(days)))
        rows += [{"training": digest[:8], "fold": fold.key, "seed": seeded.seed, **row} for row in history]
    package = replace(plan.template, members=tuple(members), summary=summary)
    fitted_on = _fitted_on(members)
    check_fit(fold, fitted_on)
    write_text(folder.with_name(f"{folder.name}.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
    save_package(folder, package)
    noted = note_seen(fold, digest, seal.seen, fitted_on)
    write_seen(
        seen_path(folder), replace(noted, package_digest=_package_digest(folder))
    )  # a package without it is fitted again
    for path in records:
        path.unlink(missing_ok=True)
    return package


def _digest(data: TrainingData, fold: Fold, plan: FitPlan) -> str:
    settings = [result_settings(one) for one in (plan.model, plan.train, plan.tune) if one is not None]
    groups = [fold.key, fold.train, fold.validation]
    return digest_of(
        [data.digest, groups, settings, plan.template.recipe, list(plan.template.curve_days), pathoml_version()]
    )


def sealed(data: TrainingData, fold: Fold) -> tuple[TrainingData, Seal]:
    """Take everybody but a fold's training and validation patients out of the data, and lay a seal on those that test it.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains, who stops early, who tests.

    Returns
    -------
    tuple of TrainingData and Seal
        What a fit may be given; who is looked at in it.
    """
    seal = Seal(fold.key, frozenset(fold.test))
    left = [*fold.train, *fold.validation]
    rows = np.sort(data.cohort.rows_of(left))
    cohort = replace(take_rows(data.cohort, rows), seal=seal)
    cohort = replace(cohort, covariates=cohort.covariates.set_axis(cohort.patient_id.tolist()))
    features = data.features
    if features is not None:
        kept = set(left)
        bags = {name: bag for name, bag in features.of_patient.items() if name in kept}
        places = features.places and {name: one for name, one in features.places.items() if name in kept}
        features = replace(features, of_patient=bags, places=places)
    return replace(data, cohort=cohort, features=features), seal


def seen_path(folder: Path) -> Path:
    """Name the record of whom a fold's model has seen.

    Parameters
    ----------
    folder : Path
        Of the fold's package.

    Returns
    -------
    Path
        Beside it, since it stays when the package travels.
    """
    return folder.with_name(f"{folder.name}.seen.json")


def require_unseen_test(fold: Fold, models: Path) -> None:
    """Refuse to score a fold's saved model on its test patients if it has seen one of them, or if nobody knows.

    Parameters
    ----------
    fold : Fold
        Whose test patients are to be scored.
    models : Path
        Folder of the models of all folds.

    Raises
    ------
    LeakError
        If there is no record or it is of another model, a transform was fitted on others than training patients, or a test
        patient was seen.
    """
    folder = models / fold.folder_name
    record = read_seen(seen_path(folder))
    if record is None or record.package_digest != _package_digest(folder):
        raise LeakError(
            f"model_saw_test_patients: fold {fold.key}: no record of whom its model has seen, or one of another model; train it"
            " again"
        )
    require_unseen(record, fold.test, f"fold {fold.key}")
    check_fit(fold, record.fitted_on)


def _fitted_on(members: Sequence[Member]) -> dict[str, str]:
    found = {}
    for number, member in enumerate(members):
        if member.covariates.parts:
            found[f"covariate transform of member {number}"] = member.covariates.fitted_on
        if member.projection is not None and member.projection.fitted_on != NOT_FITTED:
            found[f"tile projection of member {number}"] = member.projection.fitted_on
    return found


def _saved_fold(folder: Path, digest: str, fold: Fold) -> Package | None:
    record = read_seen(seen_path(folder))
    if not folder.is_dir() or record is None or (record.training_digest, record.fold) != (digest, fold.key):
        return None
    try:
        package = load_package(folder)
    except PackageError:
        return None
    if record.package_digest != _package_digest(folder):
        logger.warning("%s: not the model that was fitted and recorded here; it is fitted again", folder)
        return None
    return package if package.summary.get("training_digest") == digest else None


def _package_digest(folder: Path) -> str:
    return digest_of([[path.name, file_digest(path)] for path in sorted(folder.glob("model.*"))])


def _affordable(data: TrainingData, plan: FitPlan, folds: int) -> int:
    """Return how many folds are fitted side by side: each process has the tiles for itself."""
    wanted = min(plan.train.folds_at_once, folds)
    if wanted == 1:
        return 1
    if plan.device != "cpu":
        logger.warning("train.folds_at_once: folds are fitted one after another on %s", plan.device)
        return 1
    bags = () if data.features is None else data.features.of_patient.values()
    size = sum(bag.shape[0] * bag.shape[1] * bag.dtype.itemsize for bag in bags)
    fitting = max(1, min(wanted, int(free_bytes() / 2 / max(size, 1))))
    if fitting < wanted:
        logger.warning(
            "train.folds_at_once: %d of %d folds are fitted side by side, since each needs %.1f GB for its tiles and half of "
            "the free memory is %.1f GB", fitting, wanted, size / _GB, free_bytes() / 2 / _GB,
        )  # fmt: skip
    return fitting


def _share_of_memory(settings: TrainSettings, workers: int) -> TrainSettings:
    whole = free_bytes() / 2 / _GB if settings.resident_gb is None else settings.resident_gb
    return settings.model_copy(update={"resident_gb": whole / workers})


_given: list[tuple[FitPlan, TrainingData]] = []
"""What a process that fits folds has been given at its start."""


def _begin(plan: FitPlan, data: TrainingData, parent: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends its processes
    end_with(parent)
    torch.set_num_threads(threads)
    _given.append((plan, data))


def _fit(fold: Fold) -> None:
    plan, data = _given[0]
    fit_fold(data, fold, plan)
