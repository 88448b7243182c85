"""Columns that were made outside: prepared on all patients, a name of the hospital, or known only once the outcome is."""

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort
from pathoml.leakage.findings import Finding, shown
from pathoml.leakage.prepared import prepared_columns
from pathoml.survival import concordance
from pathoml.units import BoolArray, FloatArray, IntArray

_LEAST_PATIENTS = 50
_MOST_COLUMNS = 500
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
    return [
        *prepared_columns(cohort, names, values),
        *_hospital_names(cohort, names, values),
        *_foretelling(cohort, names, values),
    ]


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
