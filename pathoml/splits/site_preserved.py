"""Whole hospitals dealt into even folds by mixed-integer programming (HiGHS, through scipy)."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from pathoml.cohort import Cohort
from pathoml.errors import CohortError
from pathoml.splits.settings import SitePreservedSettings
from pathoml.splits.sites import named_sites
from pathoml.units import FloatArray, IntArray

_ROUNDING = 1e-9
"""Shares that differ by no more are the same."""


@dataclass(frozen=True)
class SiteBalance:
    """How evenly whole hospitals could be dealt.

    Parameters
    ----------
    events_off, patients_off : float
        Largest distance of a fold's share of all events, or patients, from an equal share (0.02: two percentage points).
    events_bound : float
        What `events_off` cannot fall below with whole hospitals, as proved.
    unevenness, unevenness_bound : float
        Sum over folds of the distances of both shares from an equal one; and what it cannot fall below, as proved, among
        the dealings whose `events_off` is no larger.
    seconds : float
        Time of the solver.
    """

    events_off: float
    patients_off: float
    events_bound: float
    unevenness: float
    unevenness_bound: float
    seconds: float

    @property
    def gap(self) -> float:
        """How much nearer to equal shares of events a dealing might still be; 0 where this one is proved to be the best."""
        return max(0.0, self.events_off - self.events_bound)


class SiteDealing(NamedTuple):
    """Hospitals dealt into folds.

    Parameters
    ----------
    fold_of_site : dict of str to int
        Each hospital's fold.
    balance : SiteBalance
        How even it is.
    """

    fold_of_site: dict[str, int]
    balance: SiteBalance


def preserve_sites(
    cohort: Cohort, settings: SitePreservedSettings, seed: int
) -> tuple[dict[str, IntArray], SiteBalance]:
    """Deal whole hospitals into folds.

    Parameters
    ----------
    cohort : Cohort
        All patients, each with a hospital.
    settings : SitePreservedSettings
        Folds and the solver's time.
    seed : int
        Decides which of equally even dealings is found.

    Returns
    -------
    tuple of dict and SiteBalance
        Fold to the cohort's rows that test it; how even the folds are.

    Raises
    ------
    CohortError
        If there are fewer hospitals than folds, or fewer with an event.
    """
    sites = named_sites(cohort, settings.kind)
    patients = np.array([(cohort.site == site).sum() for site in sites], dtype=np.int64)
    events = np.array([cohort.event[cohort.site == site].sum() for site in sites], dtype=np.int64)
    if (events > 0).sum() < settings.folds:
        raise CohortError(
            f"site_preserved: {settings.folds} folds need as many hospitals with an event, there are {(events > 0).sum()} "
            f"among {len(sites)}; use fewer folds, or leave_one_site_out"
        )
    dealt = deal_sites(sites, events, patients, settings, seed)
    fold = np.array([dealt.fold_of_site[site] for site in cohort.site.tolist()])
    return {str(index): np.flatnonzero(fold == index) for index in range(settings.folds)}, dealt.balance


def deal_sites(
    sites: list[str], events: IntArray, patients: IntArray, settings: SitePreservedSettings, seed: int = 0
) -> SiteDealing:
    """Deal hospitals into folds so that the fold furthest from an equal share of events is as near to it as can be.

    Of the dealings that reach this, one is sought whose folds are nearest to equal shares of events and patients, all
    folds added up.

    Parameters
    ----------
    sites : list of str
        Names.
    events, patients : ndarray of int64, shape (sites,)
        What each has; one event or more in all.
    settings : SitePreservedSettings
        Folds and the solver's time, half for each of the two aims.
    seed : int, optional
        Order in which the solver sees the hospitals.

    Returns
    -------
    SiteDealing
        The best found in the time, and what is proved about it.
    """
    started = time.monotonic()
    order = np.random.default_rng(seed).permutation(len(sites))
    amounts = _Amounts(events[order] / events.sum(), patients[order] / patients.sum(), settings.folds)
    floor = _events_floor(events, settings.folds)
    limit = settings.time_limit_s / 2
    assignment, events_bound = _furthest_nearest(amounts, _greedy(amounts), floor, limit)
    assignment, unevenness_bound = _all_nearest(amounts, assignment, limit)
    distance = amounts.distances(assignment)
    balance = SiteBalance(
        float(distance[0].max()), float(distance[1].max()), events_bound, float(distance.sum()), unevenness_bound,
        time.monotonic() - started,
    )  # fmt: skip
    return SiteDealing({sites[site]: int(fold) for site, fold in zip(order, assignment, strict=True)}, balance)


@dataclass(frozen=True)
class _Amounts:
    """Each hospital's share of all events and of all patients, and how many folds there are."""

    events: FloatArray
    patients: FloatArray
    folds: int

    def distances(self, assignment: IntArray) -> FloatArray:
        """Return how far each fold is from an equal share of events and of patients, shape (2, folds)."""
        sums = [np.bincount(assignment, weights=one, minlength=self.folds) for one in (self.events, self.patients)]
        distances: FloatArray = np.abs(np.stack(sums) - 1 / self.folds)
        return distances

    @property
    def binaries(self) -> int:
        """Variables x[site, fold] that say who stands where."""
        return len(self.events) * self.folds

    @property
    def columns(self) -> int:
        """All variables: x, each fold's two distances, and the largest distance of events."""
        return self.binaries + 2 * self.folds + 1


def _furthest_nearest(
    amounts: _Amounts, start: IntArray, floor: float, time_limit_s: float
) -> tuple[IntArray, float]:  # fmt: skip
    """Minimise the largest distance of events; return the assignment and a proved bound of what was minimised."""
    best = float(amounts.distances(start)[0].max())
    if best <= floor + _ROUNDING:
        return start, floor
    aim = np.zeros(amounts.columns)
    aim[-1] = 1
    found, bound = _solved(amounts, aim, (floor, best), time_limit_s)
    better = found is not None and amounts.distances(found)[0].max() <= best
    assignment = found if found is not None and better else start
    return assignment, min(max(floor, bound), float(amounts.distances(assignment)[0].max()))


def _all_nearest(amounts: _Amounts, start: IntArray, time_limit_s: float) -> tuple[IntArray, float]:
    """Minimise the sum of all distances without a larger one of events; return assignment and proved bound."""
    aim = np.zeros(amounts.columns)
    aim[amounts.binaries : -1] = 1
    largest = float(amounts.distances(start)[0].max())
    found, bound = _solved(amounts, aim, (0.0, largest + _ROUNDING), time_limit_s)
    better = found is not None and amounts.distances(found).sum() <= amounts.distances(start).sum()
    assignment = found if found is not None and better else start
    return assignment, min(max(0.0, bound), float(amounts.distances(assignment).sum()))


def _solved(
    amounts: _Amounts, aim: FloatArray, largest: tuple[float, float], time_limit_s: float
) -> tuple[IntArray | None, float]:
    """Return the best assignment found in the time, None where none was, and a proved bound of the aim.

    sum over folds of x[site, fold] = 1; |sum over sites of share[site] x[site, fold] - 1 / folds| <= distance[fold] for
    events and for patients; distance of events <= largest. The largest hospital stands in the first fold, since folds that
    are only numbered differently are the same.
    """
    lower, upper = np.zeros(amounts.columns), np.ones(amounts.columns)
    first = int(amounts.events.argmax()) * amounts.folds
    upper[first + 1 : first + amounts.folds] = 0
    lower[-1], upper[-1] = largest
    integrality = np.zeros(amounts.columns)
    integrality[: amounts.binaries] = 1
    result = milp(
        c=aim, constraints=_constraints(amounts), integrality=integrality, bounds=Bounds(lower, upper),
        options={"time_limit": time_limit_s},
    )  # fmt: skip
    bound = -np.inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
    if result.x is None:
        return None, bound
    return result.x[: amounts.binaries].reshape(-1, amounts.folds).argmax(axis=1).astype(np.int64), bound


def _constraints(amounts: _Amounts) -> list[LinearConstraint]:
    folds, columns, sites = amounts.folds, amounts.columns, len(amounts.events)
    once = csr_array(
        (np.ones(amounts.binaries), (np.repeat(np.arange(sites), folds), np.arange(amounts.binaries))),
        shape=(sites, columns),
    )
    constraints = [LinearConstraint(once, 1, 1)]
    fold = np.arange(folds)
    for number, share in enumerate((amounts.events, amounts.patients)):
        sums = csr_array(
            (np.repeat(share, folds), (np.tile(fold, sites), np.arange(amounts.binaries))), shape=(folds, columns)
        )
        place = amounts.binaries + number * folds + fold
        distance = csr_array((np.ones(folds), (fold, place)), shape=(folds, columns))
        constraints.append(LinearConstraint(sums - distance, -np.inf, 1 / folds))
        constraints.append(LinearConstraint(sums + distance, 1 / folds, np.inf))
    of_events = csr_array((np.ones(folds), (fold, amounts.binaries + fold)), shape=(folds, columns))
    largest = csr_array((np.ones(folds), (fold, np.full(folds, columns - 1))), shape=(folds, columns))
    constraints.append(LinearConstraint(of_events - largest, -np.inf, 0))
    return constraints


def _events_floor(events: IntArray, folds: int) -> float:
    """Return what no dealing falls below: events are whole numbers, and the largest hospital stands in some fold."""
    total = int(events.sum())
    rest = total % folds
    # Whole numbers that add up to a share with a rest: one of them is above the share, and one below it.
    rounding = max(rest, folds - rest) / folds if rest else 0.0
    return max(rounding, float(events.max()) - total / folds) / total


def _greedy(amounts: _Amounts) -> IntArray:
    """Give each hospital, the largest first, to the fold with the fewest events: where the solver starts from."""
    assignment = np.zeros(len(amounts.events), dtype=np.int64)
    have = np.zeros((amounts.folds, 2))
    for site in np.lexsort((-amounts.patients, -amounts.events)):
        fold = np.lexsort((have[:, 1], have[:, 0]))[0]
        assignment[site] = fold
        have[fold] += amounts.events[site], amounts.patients[site]
    return assignment
