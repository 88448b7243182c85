"""Patients divided by every scheme of a configuration, or everything that stands against it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pathoml.cohort import Cohort
from pathoml.errors import CohortError, Problem
from pathoml.splits.folds import ROLES, Fold, fold_problems
from pathoml.splits.given import file_groups, fixed_groups
from pathoml.splits.settings import (
    ExternalSettings,
    FixedSettings,
    FoldFilesSettings,
    KFoldSettings,
    LeaveOneSiteOutSettings,
    Scheme,
    SitePreservedSettings,
    SplitsSettings,
)
from pathoml.splits.site_preserved import SiteBalance, preserve_sites
from pathoml.splits.sites import external_group, site_groups
from pathoml.units import IntArray


@dataclass(frozen=True)
class Dealing:
    """The folds of all schemes.

    Parameters
    ----------
    folds : tuple of Fold
        Scheme by scheme; of those that could be made.
    problems : tuple of Problem
        What is wrong.
    balances : mapping of str to tuple of SiteBalance
        For schemes that a solver dealt: how even each repeat is, and what is proved.
    """

    folds: tuple[Fold, ...]
    problems: tuple[Problem, ...]
    balances: Mapping[str, tuple[SiteBalance, ...]] = field(default_factory=dict)


def make_folds(cohort: Cohort, settings: SplitsSettings) -> tuple[Fold, ...]:
    """Divide the patients by every scheme.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : SplitsSettings
        Schemes, share for early stopping, seed.

    Returns
    -------
    tuple of Fold
        Scheme by scheme.

    Raises
    ------
    CohortError
        If there are too few events, or a fold has none, or a fixed table does not fit the cohort.
    """
    return deal(cohort, settings).folds


def deal(cohort: Cohort, settings: SplitsSettings) -> Dealing:
    """Divide the patients by every scheme, with what a solver says of its dealing.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : SplitsSettings
        Schemes, share for early stopping, seed.

    Returns
    -------
    Dealing
        Without problems.

    Raises
    ------
    CohortError
        As of `make_folds`.
    """
    dealing = examine_folds(cohort, settings)
    if dealing.problems:
        raise CohortError(f"folds: {len(dealing.problems)} problem(s)", dealing.problems)
    return dealing


def examine_folds(cohort: Cohort, settings: SplitsSettings, *, outcomes_known: bool = True) -> Dealing:
    """Divide the patients by every scheme, as far as it can be done.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : SplitsSettings
        Schemes, share for early stopping, seed.
    outcomes_known : bool, optional
        Whether events can be counted; without, only who stands where is judged.

    Returns
    -------
    Dealing
        The folds of the schemes that could be made, and what is wrong.
    """
    folds: list[Fold] = []
    problems: list[Problem] = []
    balances: dict[str, tuple[SiteBalance, ...]] = {}
    for index, scheme in enumerate(settings.schemes):
        if isinstance(scheme, (KFoldSettings, SitePreservedSettings, LeaveOneSiteOutSettings)) and not outcomes_known:
            continue
        try:
            made, of_solver = _scheme_folds(cohort, scheme, settings, outcomes_known=outcomes_known)
        except CohortError as error:
            key = ("splits", "schemes", index)
            found = error.problems or (Problem("", str(error)),)
            problems += [Problem(one.where, one.message, key) for one in found]
            continue
        folds += made
        if of_solver:
            balances[scheme.kind] = of_solver
    return Dealing(tuple(folds), (*problems, *fold_problems(cohort, folds)), balances)


def _scheme_folds(
    cohort: Cohort, scheme: Scheme, settings: SplitsSettings, *, outcomes_known: bool
) -> tuple[list[Fold], tuple[SiteBalance, ...]]:
    folds: list[Fold] = []
    balances: list[SiteBalance] = []
    for repeat in range(scheme.repeats if isinstance(scheme, (KFoldSettings, SitePreservedSettings)) else 1):
        seed = settings.seed + repeat
        if isinstance(scheme, (FixedSettings, FoldFilesSettings)):
            given = fixed_groups(cohort, scheme) if isinstance(scheme, FixedSettings) else file_groups(cohort, scheme)
            if outcomes_known:
                folds += [_given_fold(cohort, scheme.kind, name, roles, settings) for name, roles in given.items()]
            continue
        if isinstance(scheme, SitePreservedSettings):
            groups, balance = preserve_sites(cohort, scheme, seed)
            balances.append(balance)
        else:
            groups = _test_groups(cohort, scheme, seed)
        several = isinstance(scheme, (KFoldSettings, SitePreservedSettings)) and scheme.repeats > 1
        for name, test in groups.items() if outcomes_known else ():
            label = f"{repeat}-{name}" if several else name
            folds.append(_fold(cohort, scheme.kind, label, test, settings, repeat))
    return folds, tuple(balances)


def _test_groups(
    cohort: Cohort, scheme: KFoldSettings | LeaveOneSiteOutSettings | ExternalSettings, seed: int
) -> dict[str, IntArray]:
    if isinstance(scheme, LeaveOneSiteOutSettings):
        return site_groups(cohort, scheme)
    if isinstance(scheme, ExternalSettings):
        return external_group(cohort, scheme)
    events = int(cohort.event.sum())
    fewest = min(events, len(cohort) - events) if events < len(cohort) else events
    if fewest < scheme.folds:
        raise CohortError(
            f"{scheme.folds} folds need {scheme.folds} events and as many censored patients; the cohort has {events} events"
            f" in {len(cohort)} patients: too few to train and judge a model on (`pathoml extract` and `slide thumbnail`"
            f" work with any number); fewer folds are set by splits: {{schemes: [{{kind: kfold, folds: N}}]}}"
        )
    from sklearn.model_selection import StratifiedKFold  # slow to load, and reading a configuration needs none

    splitter = StratifiedKFold(scheme.folds, shuffle=True, random_state=seed)
    return {str(index): test for index, (_, test) in enumerate(splitter.split(cohort.event, cohort.event))}


def _fold(
    cohort: Cohort, scheme: str, name: str, test: IntArray, settings: SplitsSettings, repeat: int = 0
) -> Fold:  # fmt: skip
    rest = np.setdiff1d(np.arange(len(cohort)), test)
    train, validation = _inner_split(cohort, rest, settings)
    return _fold_of_rows(cohort, scheme, name, {"train": train, "validation": validation, "test": test}, repeat)


def _given_fold(
    cohort: Cohort, scheme: str, name: str, roles: Mapping[str, IntArray], settings: SplitsSettings
) -> Fold:  # fmt: skip
    """Keep the roles that are given: of test patients alone the others train, of training patients some stop early."""
    if "train" not in roles:
        return _fold(cohort, scheme, name, roles["test"], settings)
    if "validation" in roles:
        return _fold_of_rows(cohort, scheme, name, roles)
    train, validation = _inner_split(cohort, np.sort(roles["train"]), settings)
    return _fold_of_rows(cohort, scheme, name, {"train": train, "validation": validation, "test": roles["test"]})


def _fold_of_rows(
    cohort: Cohort, scheme: str, name: str, roles: Mapping[str, IntArray], repeat: int = 0
) -> Fold:  # fmt: skip
    train, validation, test = (tuple(cohort.patient_id[np.sort(roles[role])].tolist()) for role in ROLES)
    return Fold(scheme, name, train, validation, test, repeat)


def _inner_split(cohort: Cohort, rest: IntArray, settings: SplitsSettings) -> tuple[IntArray, IntArray]:
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=settings.validation_share, random_state=settings.seed)
    try:
        train, validation = next(splitter.split(rest, cohort.event[rest]))
    except ValueError as error:
        events = int(cohort.event[rest].sum())
        raise CohortError(
            f"of {len(rest)} training patients {settings.validation_share:.0%} are set aside for early stopping; that needs two"
            f" or more with the event and two censored, there are {events} and {len(rest) - events}; use more folds or patients"
        ) from error
    return rest[train], rest[validation]
