"""A whole network in one process: the same sites, the same bytes, the same coordinator, without the wires."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort, take_rows
from pathoml.errors import FederationError, RefusalCode, RefusedError
from pathoml.federated.coordinator import FederationResult, OnRound, run_federation
from pathoml.federated.plan import Plan
from pathoml.federated.site import Site
from pathoml.federated.site_data import SiteData, divide
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings
from pathoml.federated.transport import InProcess
from pathoml.mil.patients import PatientFeatures
from pathoml.units import BoolArray


def site_name(text: str) -> str:
    """Return a hospital's name as a site of a plan is called.

    Parameters
    ----------
    text : str
        As a clinical table has it.

    Returns
    -------
    str
        Letters, digits, - and _.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text.strip()).strip("-")


def split_cohort(
    cohort: Cohort, features: PatientFeatures | None, plan: Plan, is_test: BoolArray | None = None
) -> dict[str, SiteData]:  # fmt: skip
    """Divide a cohort into the sites of a plan by its hospitals.

    Parameters
    ----------
    cohort : Cohort
        With a hospital for every patient; covariates named as in the plan.
    features : PatientFeatures or None
        Tiles.
    plan : Plan
        Its sites, and its rule for test patients.
    is_test : ndarray of bool, shape (patients,), optional
        Who is never trained on; by the plan's own rule by default.

    Returns
    -------
    dict of str to SiteData
        In the order of the plan.

    Raises
    ------
    FederationError
        If a site of the plan has no patient.
    """
    names = np.array([site_name(text) for text in cohort.site.tolist()])
    parts: dict[str, SiteData] = {}
    for site in plan.sites:
        rows = np.flatnonzero(names == site)
        if len(rows) == 0:
            raise FederationError(
                f"site {site} has no patient; the cohort's are {', '.join(sorted(set(names) - {''}))}"
            )
        chosen = replace(take_rows(cohort, rows), warnings=())
        parts[site] = divide(chosen, features, plan, None if is_test is None else is_test[rows])
    return parts


def pool(parts: Mapping[str, SiteData]) -> SiteData:
    """Put the patients of several sites into one place, which only a simulation can do.

    Parameters
    ----------
    parts : mapping of str to SiteData
        By site.

    Returns
    -------
    SiteData
        Who trains and who tests stays as it was; patients keep their hospital, for stratified losses.
    """
    cohorts = [one.cohort for one in parts.values()]
    first = cohorts[0]
    cohort = replace(
        first,
        patient_id=np.concatenate([one.patient_id for one in cohorts]),
        time_days=np.concatenate([one.time_days for one in cohorts]),
        event=np.concatenate([one.event for one in cohorts]),
        site=np.concatenate([one.site for one in cohorts]),
        covariates=pd.concat([one.covariates for one in cohorts], ignore_index=True),
    )
    features = next(iter(parts.values())).features
    return SiteData(
        cohort,
        features,
        tuple(name for one in parts.values() for name in one.train),
        tuple(name for one in parts.values() for name in one.validation),
        tuple(name for one in parts.values() for name in one.test),
    )


def simulate(
    plan: Plan, parts: Mapping[str, SiteData], folder: Path, *,
    limits: LimitsSettings | Mapping[str, LimitsSettings] = DEFAULT_LIMITS,
    device: str = "cpu", on_round: OnRound | None = None,
) -> FederationResult:  # fmt: skip
    """Run a federation with all of its sites in this process.

    Parameters
    ----------
    plan : Plan
        What the sites agree on.
    parts : mapping of str to SiteData
        The sites' patients.
    folder : Path
        Coordinator and sites have a folder each in it.
    limits : LimitsSettings or mapping of str to LimitsSettings, optional
        What every site enforces, or each.
    device : str, optional
        ``cpu`` or ``cuda``.
    on_round : callable, optional
        Told after each round.

    Returns
    -------
    FederationResult
        The same as that of a deployed federation.
    """
    enforced = dict.fromkeys(parts, limits) if isinstance(limits, LimitsSettings) else limits
    members = {
        name: Site(folder / "sites" / name, partial(_the_one, plan), partial(_given, data), enforced[name], device)
        for name, data in parts.items()
    }
    return run_federation(plan, InProcess(members), folder / "coordinator", on_round=on_round)


def _given(data: SiteData, plan: Plan) -> SiteData:
    return data


def _the_one(plan: Plan, digest: str) -> Plan:
    if digest != plan.digest:
        raise RefusedError(f"plan {digest[:12]} is not that of this simulation", RefusalCode.NOT_APPROVED)
    return plan
