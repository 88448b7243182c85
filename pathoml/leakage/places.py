"""Leaks through hospitals: sites on both sides of a fold, and outcomes that the hospital alone foretells."""

import re
from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc

from pathoml.cohort import Cohort
from pathoml.cohort.spelling import plain_name
from pathoml.leakage.findings import Finding, Level, shown
from pathoml.leakage.people import Sides
from pathoml.survival import concordance
from pathoml.units import FloatArray, IntArray

BY_SITE = ("site_preserved", "leave_one_site_out", "external")
"""Schemes that promise whole hospitals on one side."""

_TELLING_CONCORDANCE = 0.58
_TELLING_P = 0.001
_NOTED_P = 0.05
_LEAST_EXPECTED = 5.0
"""Expected events of a hospital that the log-rank test's distribution needs."""
_UNLIKELY = 0.01
_LEAST_OF_BEGINNING = 5
_MOST_RANKED = 1000
"""Test patients of a fold that are ranked by their hospital, evenly spread: pairs grow with the square."""


def shared_sites(
    cohort: Cohort, scheme: str, sides: Sequence[Sides], *, beside: Set[str] = frozenset()
) -> list[Finding]:
    """Find hospitals on both sides of a fold.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    scheme : str
        Kind.
    sides : sequence of Sides
        Of its folds.
    beside : set of str, optional
        Kinds of all schemes of the split.

    Returns
    -------
    list of Finding
        A leak where the scheme promises whole hospitals; else a note that says for how many test patients, or that nobody knows.
    """
    if not (cohort.site != "").any():
        message = "hospitals are not known, so that nothing could be looked for; name their column in cohort.site"
        return [Finding("shared_sites", "note", scheme, message)]
    shared: set[str] = set()
    alike: set[str] = set()
    tested = in_training = 0
    for one in sides:
        training = set(cohort.site[one.side == 1].tolist()) - {""}
        test = cohort.site[one.side == 2].tolist()
        shared |= training & set(test)
        tested += len(test)
        in_training += sum(site in training for site in test)
        plain = {plain_name(site) for site in training}
        alike |= {site for site in set(test) - training if site and plain_name(site) in plain}
    found = []
    if alike:
        message = f"hospitals that differ in capitals or separators only train and test: {shown(sorted(alike))}; spell them as one"
        found.append(Finding("alike_site_names", "warning", scheme, message))
    if shared and scheme in BY_SITE:
        message = (
            f"{len(shared)} hospital(s) train and test, though the scheme keeps them whole: {shown(sorted(shared))}"
        )
        found.append(Finding("shared_sites", "leak", scheme, message))
    elif shared:
        message = (
            f"{in_training / tested:.0%} of the test patients are of a hospital that trains too, so that scanner, stain and "
            f"case mix are shared; {_elsewhere(beside)} says what holds elsewhere"
        )
        found.append(Finding("shared_sites", "note", scheme, message))
    return found


def _elsewhere(beside: Set[str]) -> str:
    """Name the schemes that keep hospitals whole: those of this split, or those that could be added."""
    own = [one for one in BY_SITE if one in beside]
    return f"{own[0]}, judged beside it," if own else "site_preserved or leave_one_site_out"


def confounded_outcome(cohort: Cohort, scheme: str, sides: Sequence[Sides]) -> list[Finding]:
    """Find out how well the hospital alone foretells the outcome, where a model could recognise it.

    Each hospital's rate of events among training patients, drawn towards that of all, is the risk of its test patients.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    scheme : str
        Kind.
    sides : sequence of Sides
        Of its folds; those of the first dealing are used.

    Returns
    -------
    list of Finding
        A warning where the rates differ beyond chance and the hospital ranks test patients; a note where they may differ by chance.
    """
    if scheme in BY_SITE:
        return []
    said, of_whom, what = "the hospital", "hospitals", "the hospital"
    if not (cohort.site != "").any():
        guessed = hospitals_of_ids(cohort.patient_id.tolist())
        if guessed is None:
            return []
        cohort = replace(cohort, site=guessed)
        names = shown(sorted(set(guessed.tolist()) - {""})[:3])
        said = f"what ids begin with ({names}, ...; a hospital? name its column in cohort.site)"
        of_whom, what = "these groups", "them"
    if len(set(cohort.site[cohort.site != ""].tolist())) < 2:
        return []
    p_value = _rates_differ(cohort)
    if p_value > _NOTED_P:
        return []
    values = [_site_concordance(cohort, one) for one in sides if one.fold.repeat == 0]
    defined = [value for value in values if not np.isnan(value)]
    if not defined:
        return []
    value = float(np.mean(defined))
    p_words = "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.4f}"
    message = (
        f"{said} alone ranks test patients with a concordance of {value:.2f} (0.5 is guessing; event rates of {of_whom} "
        f"differ, {p_words}): a model that recognises {what} scores that without looking at disease; judge it "
        "by site_preserved or leave_one_site_out"
    )
    level: Level = "warning" if value >= _TELLING_CONCORDANCE and p_value <= _TELLING_P else "note"
    return [Finding("site_confounded_outcome", level, scheme, message)]


def hospitals_of_ids(patient_ids: Sequence[str]) -> NDArray[np.str_] | None:
    """Return what ids begin with, where that looks like a hospital: few beginnings, of many patients each.

    Parameters
    ----------
    patient_ids : sequence of str
        Of a cohort whose hospitals are not named.

    Returns
    -------
    ndarray of str or None
        The second part of TCGA's barcodes, else what stands before the first separator, or before the number at the end; empty
        text for beginnings of few; None where they do not look like hospitals.
    """
    parts = [re.split(r"[-_. /]", one.strip()) for one in patient_ids]
    if all(len(one) > 2 and one[0].upper() == "TCGA" for one in parts):
        beginnings = [one[1] for one in parts]
    elif all(len(one) > 1 for one in parts):
        beginnings = [one[0] for one in parts]
    else:
        beginnings = [re.sub(r"\d+$", "", one.strip()) for one in patient_ids]
    names, place, sizes = np.unique(np.array(beginnings, dtype=str), return_inverse=True, return_counts=True)
    large = sizes >= _LEAST_OF_BEGINNING
    if large.sum() < 2 or sizes[large].sum() < 0.8 * len(place):
        return None
    return np.where(large[place], names[place], "")


def one_sided_hospitals(cohort: Cohort) -> list[Finding]:
    """Find hospitals all or none of whose patients have had the event, where chance would hardly do that.

    Parameters
    ----------
    cohort : Cohort
        All patients.

    Returns
    -------
    list of Finding
        A warning: most often the column is coded in another way there.
    """
    names, group = np.unique(cohort.site, return_inverse=True)
    size, events = np.bincount(group), np.bincount(group, weights=cohort.event)
    rate = float(cohort.event.mean()) if len(cohort) else 0.0
    said = []
    for place, name in enumerate(names.tolist()):
        count, had = int(size[place]), int(events[place])
        chance = {count: rate**count, 0: (1 - rate) ** count}.get(had, 1.0)
        if name and count < len(cohort) and chance * len(names) < _UNLIKELY:
            said.append(f"{name} ({had} events in {count} patients)")
    if not said:
        return []
    message = (
        f"of {len(said)} hospital(s) everybody or nobody has had the event: {shown(said)}; is it coded or followed in another way"
        " there? A model that recognises such a hospital needs to know nothing else"
    )
    return [Finding("one_sided_hospital", "warning", "", message)]


def _site_concordance(cohort: Cohort, one: Sides) -> float:
    train, test = one.side == 1, one.side == 2
    if not train.any() or not test.any():
        return float("nan")
    rate = max(cohort.event[train].sum() / max(cohort.time_days[train].sum(), 1e-9), 1e-12)
    sums = pd.DataFrame({"site": cohort.site[train], "event": cohort.event[train], "time": cohort.time_days[train]})
    by_site = sums.groupby("site")[["event", "time"]].sum()
    risk_of = ((by_site["event"] + 1) / (by_site["time"] + 1 / rate)).to_dict()
    tested = np.flatnonzero(test)
    ranked = tested[:: -(-len(tested) // _MOST_RANKED)]
    risk: FloatArray = np.array([np.log(risk_of.get(site, rate)) for site in cohort.site[ranked].tolist()])
    return concordance(cohort.time_days[ranked], cohort.event[ranked], risk)


def _rates_differ(cohort: Cohort) -> float:
    """Return the p-value of the log-rank test of hospitals, those with few expected events taken together."""
    group = np.unique(cohort.site, return_inverse=True)[1]
    expected = _expected_events(cohort, group).sum(axis=0)
    small = expected < _LEAST_EXPECTED
    group = np.unique(np.where(small[group], -1, group), return_inverse=True)[1]
    share = _expected_events(cohort, group)
    if share.shape[1] < 2:
        return 1.0
    difference = np.bincount(group, weights=cohort.event) - share.sum(axis=0)
    variance = np.diag(share.sum(axis=0)) - share.T @ share
    statistic = float(difference @ np.linalg.pinv(variance, hermitian=True) @ difference)
    return float(chdtrc(share.shape[1] - 1, max(statistic, 0.0)))


def _expected_events(cohort: Cohort, group: IntArray) -> FloatArray:
    """Return for each event what share of those at risk each group has."""
    order = np.argsort(-cohort.time_days, kind="stable")
    time, event = cohort.time_days[order], cohort.event[order]
    at_risk = np.cumsum(np.eye(int(group.max()) + 1)[group[order]], axis=0)
    last = np.searchsorted(-time, -time, side="right") - 1
    rows = np.flatnonzero(event == 1)
    share: FloatArray = at_risk[last[rows]] / at_risk[last[rows]].sum(axis=1, keepdims=True)
    return share
