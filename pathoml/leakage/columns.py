"""Columns that were made outside: prepared on all patients, a name of the hospital, or known only once the outcome is."""

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort
from pathoml.leakage.findings import Finding, shown
from pathoml.survival import concordance
from pathoml.units import BoolArray, FloatArray, IntArray

_LEAST_PATIENTS = 50
_DISTINCT = 10
"""A column with fewer values is no measurement."""
_STANDARD = 1e-3
_UNCORRELATED = 1e-5
_CENTRED = 1e-4
"""Mean, in standard deviations, and correlation of components that were written with few digits."""
_MOST_COLUMNS = 500
_MOSTLY_ONE = 0.15
_TELLS = 0.98
"""Area under the ROC curve from which a number names a hospital."""
_MOSTLY_HOSPITAL = 0.4
"""Share of a column's variance between hospitals from which it says of what hospital a patient is."""
_LEAST_OF_HOSPITAL = 10
_FORETELLS = 0.85
_MOST_RANKED = 1000


def examine_columns(cohort: Cohort) -> list[Finding]:
    """Look at covariates for what no split can mend.

    Parameters
    ----------
    cohort : Cohort
        All patients.

    Returns
    -------
    list of Finding
        Warnings, said of the cohort.
    """
    if len(cohort) < _LEAST_PATIENTS:
        return []
    numbers = cohort.covariates.select_dtypes("number")
    values: FloatArray = numbers.to_numpy(dtype=np.float64)
    names = [str(name) for name in numbers.columns]
    return [*_prepared(names, values), *_hospital_names(cohort, names, values), *_foretelling(cohort, names, values)]


def _prepared(names: list[str], values: FloatArray) -> list[Finding]:
    """Find columns that test patients have had a part in: scaled, turned or filled over the whole table."""
    with np.errstate(invalid="ignore", divide="ignore"):
        count = np.isfinite(values).sum(axis=0)
        mean = np.nansum(values, axis=0) / np.maximum(count, 1)
        spread = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / np.maximum(count, 1))
        sample = spread * np.sqrt(count / np.maximum(count - 1, 1))
    scaled = (np.abs(mean) < _STANDARD) & (
        (np.abs(spread - 1) < _STANDARD) | (np.abs(sample - 1) < _STANDARD)
    ) & (count >= _LEAST_PATIENTS)  # fmt: skip
    said = []
    measured = [place for place in np.flatnonzero(scaled).tolist() if _is_measured(values[:, place])]
    if measured:
        said.append(f"mean 0 and standard deviation 1 over all patients: {shown([names[one] for one in measured], 3)}")
    turned = _uncorrelated(values)
    if turned:
        said.append(
            f"no correlation at all with each other, as principal components have: {shown([names[one] for one in turned], 3)}"
        )
    filled = [names[place] for place in range(min(len(names), _MOST_COLUMNS)) if _is_filled(values[:, place])]
    if filled:
        said.append(f"one value, the middle of all others, for many patients: {shown(filled, 3)}")
    if not said:
        return []
    message = (
        f"columns with {'; '.join(said)}: they were prepared with the test patients among the others. Give columns as they were"
        " measured, blanks as blanks: filling, scaling and components are fitted in each fold here"
    )
    return [Finding("prepared_on_all_patients", "warning", "", message)]


def _is_measured(column: FloatArray) -> bool:
    return len(np.unique(column[np.isfinite(column)])) >= _DISTINCT


def _uncorrelated(values: FloatArray) -> list[int]:
    """Return columns that have no correlation with one another: four or more, or two whose means are 0 as well."""
    own = [place for place in range(min(values.shape[1], _MOST_COLUMNS)) if np.isfinite(values[:, place]).all()]
    own = [place for place in own if _is_measured(values[:, place])]
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
    step = max(float(np.median(np.diff(found))), 1e-9)
    return min(abs(float(np.median(others)) - most), abs(float(others.mean()) - most)) <= step


def _hospital_names(cohort: Cohort, names: list[str], values: FloatArray) -> list[Finding]:
    """Find covariates from which a hospital can be read."""
    site, group = np.unique(cohort.site, return_inverse=True)
    sizes = np.bincount(group)
    large = [
        place
        for place, name in enumerate(site.tolist())
        if name and sizes[place] >= _LEAST_OF_HOSPITAL and len(group) - sizes[place] >= _LEAST_OF_HOSPITAL
    ]
    if not large:
        return []
    said = []
    for place in range(min(values.shape[1], _MOST_COLUMNS)):
        given = np.isfinite(values[:, place])
        ranks: FloatArray = np.asarray(pd.Series(values[given, place]).rank())
        own = group[given]
        told = next((site[one] for one in large if _tells(ranks, own == one)), None)
        if told is not None:
            said.append(f"{names[place]} ({told})")
        elif (share := _share_between(ranks, own, large)) >= _MOSTLY_HOSPITAL:
            said.append(f"{names[place]} ({share:.0%} of its differences lie between hospitals)")
    words = cohort.covariates.select_dtypes(exclude="number")
    said += [
        f"{name} ({found})" for name in words.columns if (found := _word_of_hospital(words[name].astype(str), cohort))
    ]
    if not said:
        return []
    message = (
        f"{len(said)} covariate(s) name a hospital: {shown(said)}; a model learns the hospital from them, whatever it was that was"
        " measured: another unit, another machine, another ward. Bring them to one scale, or leave them out"
    )
    return [Finding("covariate_names_hospital", "warning", "", message)]


def _tells(ranks: FloatArray, inside: BoolArray) -> bool:
    """Tell whether patients of one hospital stand nearly all above, or below, those of all others."""
    within, outside = int(inside.sum()), int((~inside).sum())
    if min(within, outside) < _LEAST_OF_HOSPITAL:
        return False
    area = (float(ranks[inside].sum()) - within * (within + 1) / 2) / (within * outside)
    return max(area, 1 - area) >= _TELLS


def _share_between(ranks: FloatArray, group: IntArray, large: list[int]) -> float:
    """Return the share of the variance of ranks that lies between the larger hospitals, what chance gives taken off."""
    held = np.isin(group, large)
    ranks, group = ranks[held], np.unique(group[held], return_inverse=True)[1]
    sizes = np.bincount(group)
    if len(sizes) < 2 or len(ranks) <= len(sizes) or sizes.min() < _LEAST_OF_HOSPITAL:
        return 0.0
    means = np.bincount(group, weights=ranks) / sizes
    within, total = float(((ranks - means[group]) ** 2).mean()), float(ranks.var())
    return 1 - within / total * (len(ranks) - 1) / (len(ranks) - len(sizes)) if total > 0 else 0.0


def _word_of_hospital(words: "pd.Series[str]", cohort: Cohort) -> str:
    """Return a hospital nearly all of whose patients have a word that nearly nobody else has; nothing if there is none."""
    held = pd.crosstab(words.to_numpy(), cohort.site).to_numpy(dtype=np.float64)
    names = np.unique(cohort.site)
    if min(held.shape) < 2:
        return ""
    of_word, of_site = held / held.sum(axis=1, keepdims=True), held / held.sum(axis=0, keepdims=True)
    same = (of_word >= _TELLS) & (of_site >= _TELLS) & (held >= 10) & (names != "")[None]
    return str(names[int(same.any(axis=0).argmax())]) if same.any() else ""


def _foretelling(cohort: Cohort, names: list[str], values: FloatArray) -> list[Finding]:
    """Find single covariates that rank outcomes as only what is known afterwards does."""
    rows = np.arange(len(cohort))[:: -(-len(cohort) // _MOST_RANKED)]
    said = []
    for place in range(min(values.shape[1], _MOST_COLUMNS)):
        own = rows[np.isfinite(values[rows, place])]
        if len(own) < _LEAST_PATIENTS or cohort.event[own].sum() < 10:
            continue
        value = concordance(cohort.time_days[own], cohort.event[own], values[own, place])
        if max(value, 1 - value) >= _FORETELLS:
            said.append(f"{names[place]} ({max(value, 1 - value):.2f})")
    if not said:
        return []
    message = (
        f"{len(said)} single covariate(s) rank outcomes with a concordance of {_FORETELLS} or more: {shown(said)}; was that"
        " known at time zero, and measured without the outcomes?"
    )
    return [Finding("covariate_foretells_outcome", "warning", "", message)]
