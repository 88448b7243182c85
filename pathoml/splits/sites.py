"""Folds by hospital: each left out once, or some of them kept for the test alone."""

import numpy as np

from pathoml.cohort import Cohort
from pathoml.errors import CohortError
from pathoml.splits.settings import ExternalSettings, LeaveOneSiteOutSettings
from pathoml.units import IntArray

SMALL_SITES = "(small hospitals)"
"""Name of the fold that tests hospitals too small to be tested alone."""


def site_groups(cohort: Cohort, settings: LeaveOneSiteOutSettings) -> dict[str, IntArray]:
    """Return each hospital's patients.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : LeaveOneSiteOutSettings
        What is too small, and what becomes of it.

    Returns
    -------
    dict of str to ndarray of int64
        Fold to the cohort's rows that test it, by name of the hospital.

    Raises
    ------
    CohortError
        If patients have no hospital, if there are fewer than two test sets, or if small hospitals are refused.
    """
    sites = named_sites(cohort, settings.kind)
    rows = {str(site): np.flatnonzero(cohort.site == site) for site in sites}
    events = {site: int(cohort.event[own].sum()) for site, own in rows.items()}
    small = [
        site for site in rows if len(rows[site]) < settings.min_patients or events[site] < settings.min_events
    ]  # fmt: skip
    groups = {site: own for site, own in rows.items() if site not in small}
    if small and settings.small == "refuse":
        shown = ", ".join(f"{site} ({len(rows[site])} patients, {events[site]} events)" for site in small[:8])
        more = f" and {len(small) - 8} more" if len(small) > 8 else ""
        raise CohortError(
            f"leave_one_site_out: {len(small)} of {len(rows)} hospitals are too small to test a model: {shown}{more}; set "
            "small: join to test them together, small: train_only to let them train alone, or join hospitals by region in "
            "the column of cohort.site; kind: site_preserved deals whole hospitals into even folds"
        )
    if small and settings.small == "join":
        groups[SMALL_SITES] = np.sort(np.concatenate([rows[site] for site in small]))
    if len(groups) < 2:
        raise CohortError(
            f"leave_one_site_out: {len(groups)} test set(s) are left of {len(rows)} hospitals; lower min_patients or "
            "min_events, or take kind: site_preserved"
        )
    return groups


def external_group(cohort: Cohort, settings: ExternalSettings) -> dict[str, IntArray]:
    """Return the patients of the hospitals that are kept for the test.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : ExternalSettings
        Names of the hospitals.

    Returns
    -------
    dict of str to ndarray of int64
        One fold.

    Raises
    ------
    CohortError
        If a hospital has no patients, or nobody is left to train.
    """
    sites = named_sites(cohort, settings.kind)
    unknown = [site for site in settings.sites if site not in sites]
    if unknown:
        raise CohortError(
            f"external: no patients of hospital(s) {', '.join(unknown)}; there are {', '.join(sites[:12])}"
        )
    if set(sites) <= set(settings.sites):
        raise CohortError("external: every hospital is kept for the test, so nobody is left to train; name fewer")
    return {"external": np.flatnonzero(np.isin(cohort.site, settings.sites))}


def named_sites(cohort: Cohort, kind: str) -> list[str]:
    """Return the hospitals of a cohort in which every patient has one.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    kind : str
        The scheme that asks, for messages.

    Returns
    -------
    list of str
        Sorted.

    Raises
    ------
    CohortError
        If there are fewer than two, or a patient has none.
    """
    sites = sorted(set(cohort.site.tolist()))
    if len(sites) < 2:
        raise CohortError(f"{kind} needs two hospitals or more; name the column in cohort.site")
    if "" in sites:
        blank = cohort.patient_id[cohort.site == ""]
        raise CohortError(f"{kind}: {len(blank)} patient(s) have no hospital ({', '.join(blank[:5])}); fill it in")
    return sites
