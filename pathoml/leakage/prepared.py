"""Columns in which test patients have had a part before they came here: scaled, turned, evened, filled, weighted or chosen."""

import numpy as np
from scipy.stats import f as f_distribution

from pathoml.cohort import Cohort
from pathoml.leakage.findings import Finding, shown
from pathoml.leakage.neighbours import independent_directions, standardised
from pathoml.survival.associations import cox_score_test
from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.units import FloatArray, IntArray

_LEAST_PATIENTS = 50
_DISTINCT = 10
"""A column with fewer values is no measurement."""
_MOST_COLUMNS = 500
_STANDARD = 1e-3
_UNCORRELATED = 1e-5
_CENTRED = 1e-4
"""Mean, in standard deviations, and correlation of components that were written with few digits."""
_MOSTLY_ONE, _FAR_MORE = 0.15, 3
_MOST_SCALED_STEPS = 1000
_OFF_GRID = 0.03
"""Steps by which a scaled whole number may lie beside its grid, since it was rounded."""
_FOLLOWS = 1e-4
"""Share of a column's variance that others leave unexplained where it is their sum."""
_GRAIN = 1e-9
_SAME_SCORE = 0.999
_MOST_SUMMED = 60
_TOO_EVEN = 1e-4
_MOST_EVENED = 20
_LEAST_OF_HOSPITAL = 10
_CHOSEN = 0.8
"""Share of the columns that go with survival at p < 0.05, where columns were chosen by it."""
_LEAST_CHOSEN, _MOST_CHOSEN = 10, 300


def prepared_columns(cohort: Cohort, names: list[str], values: FloatArray) -> list[Finding]:
    """Find columns in which test patients have had a part.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    names : list of str
        Of the columns of numbers.
    values : ndarray of float64, shape (patients, columns)
        NaN where blank.

    Returns
    -------
    list of Finding
        A warning, or none.
    """
    names, values = names[:_MOST_COLUMNS], values[:, :_MOST_COLUMNS]
    measured = [place for place in range(len(names)) if _has_many_values(values[:, place])]
    found = {
        "mean 0 and standard deviation 1 over all patients": _standardised(values, measured),
        "whole numbers scaled to a mean near 0 and a standard deviation near 1": _scaled_whole_numbers(
            values, measured
        ),
        "no correlation at all with each other, as principal components have": _uncorrelated(values, measured),
        "one value, the middle of all others, for many patients": [
            place for place in range(len(names)) if _is_filled(values[:, place])
        ],
        "a sum of others with the weights that a Cox regression on all patients gives": _scores(
            cohort, values, measured
        ),
        "hospitals more alike than chance leaves them, as batch correction over all makes them": _evened(
            cohort, values, measured
        ),
        "nearly every one going with survival, as columns do that were chosen by it": _chosen(cohort, values, measured),
    }
    said = [f"{what}: {shown([names[one] for one in places], 3)}" for what, places in found.items() if places]
    if not said:
        return []
    message = (
        f"columns with {'; '.join(said)}: were they prepared with the test patients among the others? Give columns as they were"
        " measured, all of them, blanks as blanks: filling, scaling, components, weights and choices are made in each fold here"
    )
    return [Finding("prepared_on_all_patients", "warning", "", message)]


def _has_many_values(column: FloatArray) -> bool:
    given = column[np.isfinite(column)]
    return len(given) >= _LEAST_PATIENTS and len(np.unique(given)) >= _DISTINCT


def _standardised(values: FloatArray, measured: list[int]) -> list[int]:
    found = []
    for place in measured:
        given = values[np.isfinite(values[:, place]), place]
        spreads = (float(given.std()), float(given.std(ddof=1)))
        if abs(given.mean()) < _STANDARD and min(abs(one - 1) for one in spreads) < _STANDARD:
            found.append(place)
    return found


def _scaled_whole_numbers(values: FloatArray, measured: list[int]) -> list[int]:
    """Return columns whose values are steps apart that nobody measures in: years of age, less their mean, over their deviation."""
    found = []
    for place in measured:
        given = values[np.isfinite(values[:, place]), place]
        if abs(given.mean()) < _STANDARD or abs(given.mean()) > 0.5 or not 0.7 < given.std() < 1.4:
            continue  # standardised columns are told of as such
        step = _grid_step(np.unique(given))
        if step is not None and len(np.unique(given)) < 0.8 * len(given) and not _is_round(step):
            found.append(place)
    return found


def _grid_step(distinct: FloatArray) -> float | None:
    """Return the step between neighbouring values that all differences are multiples of; None where there is none."""
    offset = distinct - distinct[0]
    step = float(np.diff(distinct).min())
    for _ in range(2):
        count = np.rint(offset / step)
        step = float((offset @ count) / (count @ count))
    count = np.rint(offset / step)
    on_grid = np.abs(offset / step - count).max() < _OFF_GRID
    return step if on_grid and _DISTINCT <= count[-1] < _MOST_SCALED_STEPS else None


def _is_round(step: float) -> bool:
    """Tell whether somebody may have measured in such steps: in decimals, or in parts of a whole such as months of a year."""
    return any(abs(one - round(one)) < 0.02 for one in (1000 * step, 1 / step))


def _uncorrelated(values: FloatArray, measured: list[int]) -> list[int]:
    """Return columns that have no correlation with one another: four or more, or two whose means are 0 as well."""
    own = [place for place in measured if np.isfinite(values[:, place]).all()]
    centred = [place for place in own if abs(values[:, place].mean()) < _CENTRED * values[:, place].std()]
    for places, tolerance, least in ((own, _UNCORRELATED, 4), (centred, _CENTRED, 2)):
        if len(places) < least:
            continue
        none = np.abs(np.corrcoef(values[:, places], rowvar=False)) < tolerance
        best = int(none.sum(axis=1).argmax())
        group = [best, *np.flatnonzero(none[best]).tolist()]
        inside = none[np.ix_(group, group)]
        if len(group) >= least and (inside | np.eye(len(group), dtype=bool)).all():
            return [places[place] for place in sorted(group)]
    return []


def _is_filled(column: FloatArray) -> bool:
    """Tell whether many patients have the very median or mean of the others."""
    given = column[np.isfinite(column)]
    found, counts = np.unique(given, return_counts=True)
    if len(found) < 2 * _DISTINCT:
        return False
    most = float(found[counts.argmax()])
    others = given[given != most]
    if counts.max() < _MOSTLY_ONE * len(given) or most in (0.0, found[0], found[-1]):
        return False
    if counts.max() < _FAR_MORE * np.partition(counts, -2)[-2]:  # rounded measurements have many common values
        return False
    step = max(float(np.median(np.diff(found))), 1e-9)
    return min(abs(float(np.median(others)) - most), abs(float(others.mean()) - most)) <= step


def _scores(cohort: Cohort, values: FloatArray, measured: list[int]) -> list[int]:
    """Return columns that are what a Cox regression on all patients makes of other columns."""
    own = [place for place in measured if np.isfinite(values[:, place]).all()]
    if not 3 <= len(own) <= _MOST_SUMMED or len(values) < 3 * len(own):
        return []
    standard = standardised(values[:, own])
    # A column that is exactly a sum has no inverse: a grain of ridge leaves its share near 0 instead.
    left = 1 / np.diag(np.linalg.inv(np.corrcoef(standard, rowvar=False) + _GRAIN * np.eye(len(own))))
    found = []
    for place in np.flatnonzero(np.abs(left) < _FOLLOWS).tolist():
        others = [one for one in range(len(own)) if one != place]
        weights = np.linalg.lstsq(standard[:, others], standard[:, place], rcond=None)[0]
        summed = [one for one, weight in zip(others, weights, strict=True) if abs(weight) > 0.01]
        rest = standard[:, place] - standard[:, others] @ weights
        if len(summed) < 2 or rest.var() > _FOLLOWS:
            continue
        fits = fit_cox_draws(
            standard[:, summed], cohort.time_days, (cohort.event == 1).astype(np.int64), counts=np.ones((1, len(values)))
        )  # fmt: skip
        score = standard[:, summed] @ fits.coefficients[0]
        if score.std() > 0 and abs(np.corrcoef(score, standard[:, place])[0, 1]) > _SAME_SCORE:
            found.append(own[place])
    return found


def _evened(cohort: Cohort, values: FloatArray, measured: list[int]) -> list[int]:
    """Return columns whose means by hospital differ less than those of random groups would."""
    site, group, sizes = np.unique(cohort.site, return_inverse=True, return_counts=True)
    large = (sizes >= _LEAST_OF_HOSPITAL) & (site != "")
    own = [place for place in measured if np.isfinite(values[:, place]).all()]
    rows = np.flatnonzero(large[group])
    if large.sum() < 2 or not own:
        return []
    chances = {place: _chance_of_so_even(values[rows, place], group[rows]) for place in own[:_MOST_EVENED]}
    evened = [place for place, chance in chances.items() if chance < 0.05]
    # Columns go together, so that their chances do not all multiply: as many as there are independent directions do.
    directions = independent_directions(standardised(values[np.ix_(rows, np.array(list(chances)))]))
    together = float(np.exp(np.log(list(chances.values())).mean() * directions))
    return evened if len(evened) > len(chances) / 2 and together < _TOO_EVEN else []


def _chance_of_so_even(column: FloatArray, group: IntArray) -> float:
    """Return how often means of groups differ so little by chance (lower tail of the F-test)."""
    place = np.unique(group, return_inverse=True)[1]
    sizes = np.bincount(place)
    means = np.bincount(place, weights=column) / sizes
    between, within = len(sizes) - 1, len(column) - len(sizes)
    inside = float(((column - means[place]) ** 2).sum()) / within
    if inside <= 0:
        return 1.0
    statistic = float((sizes * (means - column.mean()) ** 2).sum()) / between / inside
    return max(float(f_distribution.cdf(statistic, between, within)), 1e-12)


def _chosen(cohort: Cohort, values: FloatArray, measured: list[int]) -> list[int]:
    """Return the columns that go with survival, where nearly all do."""
    if not _LEAST_CHOSEN <= len(measured) <= _MOST_CHOSEN:
        return []
    event = (cohort.event == 1).astype(np.int64)
    found = []
    for place in measured:
        given = np.isfinite(values[:, place])
        _, p_value = cox_score_test(cohort.time_days[given], event[given], values[given, place])
        if p_value < 0.05:
            found.append(place)
    if len(found) < _CHOSEN * len(measured):
        return []
    filled = np.nan_to_num(values[:, found] - np.nanmean(values[:, found], axis=0))
    # Genes of one programme go with survival together; chosen ones need not have anything to do with each other.
    return found if independent_directions(filled / filled.std(axis=0)) >= _LEAST_CHOSEN else []
