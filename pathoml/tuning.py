"""Search for settings inside the training patients of a fold: nested cross-validation."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import JsonValue, ValidationError

from pathoml.cohort import take_rows
from pathoml.errors import InputError, TrainingError
from pathoml.extras import install_words
from pathoml.files import write_text
from pathoml.infer import predict_logits
from pathoml.mil.patients import select_patients
from pathoml.mil.projection import TileProjection
from pathoml.mil.settings import ModelSettings
from pathoml.splits import Fold, KFoldSettings, SplitsSettings, make_folds
from pathoml.survival import concordance
from pathoml.train import FitContext, TrainingData, fit_member, fit_tile_projection, follow_up
from pathoml.train_settings import TrainSettings
from pathoml.tune_settings import RangeSettings, Space, TuneSettings, with_values

logger = logging.getLogger(__name__)

_MOST_FOR_EARLY_STOPPING = 0.45


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Parameters
    ----------
    values : dict of str to JSON value
        What differs from the configuration; nothing in the first trial, which is the configuration itself.
    concordances : tuple of float
        Harrell's, on the test patients of each inner fold; 0.5 where no pair can be compared, 0 where training failed.
    """

    values: dict[str, JsonValue]
    concordances: tuple[float, ...]

    @property
    def mean(self) -> float:
        """What trials are compared by."""
        return float(np.mean(self.concordances))


@dataclass(frozen=True)
class Search:
    """What a search starts from.

    Parameters
    ----------
    settings : TuneSettings
        Space, trials, inner folds.
    model : ModelSettings
        As configured.
    train : TrainSettings
        As configured.
    device : str
        ``cpu`` or ``cuda``.
    """

    settings: TuneSettings
    model: ModelSettings
    train: TrainSettings
    device: str = "cpu"


def tune(data: TrainingData, fold: Fold, search: Search, record: Path, digest: str) -> Trial:
    """Find settings for a fold without its test patients.

    Training and validation patients of the fold are dealt into inner folds. A trial fits a model on each, stops early on
    patients of the inner fold's own training part, and is scored on its inner test patients, whom that model has not seen.
    The next trial is proposed by a tree-structured Parzen estimator (Bergstra 2011) from those before.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Whose training and validation patients are used.
    search : Search
        Space and configured settings.
    record : Path
        JSON lines, one a trial, from which a killed search goes on to the same result.
    digest : str
        What the record has to be of.

    Returns
    -------
    Trial
        The first of those with the highest mean concordance.

    Raises
    ------
    InputError
        If Optuna is not installed.
    CohortError
        If the patients are too few for inner folds.
    """
    optuna = _optuna()
    folds = inner_folds(data, fold, search.settings)
    projections: dict[tuple[str, int | None], TileProjection | None] = {}
    trials = _recorded(record, digest)
    while len(trials) <= search.settings.trials:
        values = _proposal(optuna, search.settings, trials) if trials else {}
        trials.append(Trial(values, _scores(data, folds, (search, values), projections)))
        lines = [json.dumps({"digest": digest}), *(json.dumps(asdict(one)) for one in trials)]
        write_text(record, "\n".join(lines) + "\n")
    best = max(trials, key=lambda one: one.mean)
    logger.info("fold %s: %s (inner concordance %.3f)", fold.key, best.values or "as configured", best.mean)
    return best


def inner_folds(data: TrainingData, fold: Fold, settings: TuneSettings) -> tuple[Fold, ...]:
    """Deal a fold's training and validation patients into folds of their own.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Whose test patients are left out.
    settings : TuneSettings
        How many, and the seed.

    Returns
    -------
    tuple of Fold
        As large a share stops training early as in the fold itself.
    """
    rows = np.sort(data.cohort.rows_of((*fold.train, *fold.validation)))
    share = min(len(fold.validation) / len(rows), _MOST_FOR_EARLY_STOPPING)
    splits = SplitsSettings(schemes=(KFoldSettings(folds=settings.folds),), validation_share=share, seed=settings.seed)
    return make_folds(take_rows(data.cohort, rows), splits)


def _scores(
    data: TrainingData, folds: Sequence[Fold], wanted: tuple[Search, Mapping[str, JsonValue]],
    projections: dict[tuple[str, int | None], TileProjection | None],
) -> tuple[float, ...]:  # fmt: skip
    """Fit and judge on each inner fold; values between those that the check tried may not go together."""
    search, values = wanted
    try:
        model, train = with_values(search.model, search.train, values)
    except ValidationError as error:
        logger.warning("%s: no model can have these, the trial counts as 0: %s", dict(values), error.errors()[0]["msg"])
        return (0.0,) * len(folds)
    scores = []
    for inner in folds:
        key = (inner.name, model.tile_components)
        if key not in projections:
            projections[key] = fit_tile_projection(data, inner, model)
        scores.append(_score(data, inner, (model, train), projections[key], search.device))
    return tuple(scores)


def _score(
    data: TrainingData, inner: Fold, settings: tuple[ModelSettings, TrainSettings], projection: TileProjection | None,
    device: str,
) -> float:  # fmt: skip
    try:
        member, _ = fit_member(data, inner, *settings, FitContext(device, projection=projection))
    except TrainingError as error:  # a step size that makes the loss infinite is no reason to stop looking
        logger.warning("inner fold %s: this trial counts as 0: %s", inner.key, error)
        return 0.0
    logits = predict_logits(member, select_patients(data.cohort, data.features, inner.test))
    value = concordance(*follow_up(data.cohort, inner.test), member.objective.risk(logits))
    return value if math.isfinite(value) else 0.5


def _proposal(optuna: ModuleType, settings: TuneSettings, trials: Sequence[Trial]) -> dict[str, JsonValue]:
    """Ask for the next values; the same trials before give the same, whether or not the search was interrupted."""
    distributions = {key: _distribution(optuna, space) for key, space in settings.space.items()}
    sampler = optuna.samplers.TPESampler(seed=settings.seed + len(trials))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for one in trials[1:]:
        numbers = {key: _number(settings.space[key], value) for key, value in one.values.items()}
        study.add_trial(optuna.trial.create_trial(params=numbers, distributions=distributions, value=one.mean))
    asked: Mapping[str, Any] = study.ask(distributions).params
    return {key: _value(space, asked[key]) for key, space in settings.space.items()}


def _distribution(optuna: ModuleType, space: Space) -> Any:
    """Return Optuna's distribution of a space."""
    if not isinstance(space, RangeSettings):
        return optuna.distributions.CategoricalDistribution(range(len(space.values)))
    if space.whole:
        return optuna.distributions.IntDistribution(int(space.low), int(space.high), log=space.log, step=space.step)
    return optuna.distributions.FloatDistribution(space.low, space.high, log=space.log)


def _value(space: Space, number: float) -> JsonValue:
    """Return the setting that a number of the search stands for; choices are numbered, since they may be mappings."""
    return number if isinstance(space, RangeSettings) else space.values[int(number)]


def _number(space: Space, value: Any) -> float:
    return value if isinstance(space, RangeSettings) else space.values.index(value)


def _recorded(record: Path, digest: str) -> list[Trial]:
    if not record.is_file():
        return []
    try:
        first, *rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        trials = [Trial(row["values"], tuple(row["concordances"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s: not readable (%s); the search begins anew", record, error)
        return []
    return trials if first == {"digest": digest} else []


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise InputError(f"section tune: needs Optuna, which is not here; {install_words('tune')}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
