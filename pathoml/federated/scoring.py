"""A package on its way to the sites of an evaluation: as arrays of a message, held against the plan, ready to score."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pathoml.federated.plan import Plan, PlanBlock
from pathoml.federated.setup import Setup
from pathoml.mil.tile_rows import TileRows
from pathoml.package_files import PackageFiles
from pathoml.packages import Package
from pathoml.predictions import Predictions
from pathoml.units import AnyArray, FloatArray

_DESCRIPTION, _TENSORS = "package.description", "package.tensors"


def arrays_of_files(files: PackageFiles) -> dict[str, AnyArray]:
    """Return a package's files as a message carries them.

    Parameters
    ----------
    files : PackageFiles
        Of any package.

    Returns
    -------
    dict of str to ndarray of uint8
        Bytes.
    """
    return {
        _DESCRIPTION: np.frombuffer(files.description, dtype=np.uint8),
        _TENSORS: np.frombuffer(files.tensors, dtype=np.uint8),
    }


def files_in(arrays: Mapping[str, AnyArray]) -> PackageFiles:
    """Return the files that a message carries, unverified.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of a message.

    Returns
    -------
    PackageFiles
        As they came.
    """
    return PackageFiles(arrays[_DESCRIPTION].tobytes(), arrays[_TENSORS].tobytes())


def problems_with(plan: Plan, package: Package) -> list[str]:
    """Say why the sites of a plan cannot score a package with what the plan has them read.

    Parameters
    ----------
    plan : Plan
        An evaluation.
    package : Package
        Any.

    Returns
    -------
    list of str
        Key, what the package needs and what the plan says; empty if they fit.
    """
    said = [one.columns if isinstance(one, PlanBlock) else (one.column,) for one in plan.covariates]
    given = {name for columns in said for name in columns}
    needed = {name for member in package.members for part in member.covariates.parts for name in part.columns}
    problems = []
    if missing := sorted(needed - given):
        problems.append(
            f"covariates: the package needs {', '.join(missing[:5])}, which the plan does not have sites read"
        )
    endpoint = package.summary.get("endpoint")
    if endpoint != plan.endpoint:
        problems.append(f"endpoint: the package predicts '{endpoint}', the plan is about '{plan.endpoint}'")
    spec = package.feature_spec
    if spec is None or plan.features is None:
        if (spec is None) != (plan.features is None):
            words = "no features, and the plan has some" if spec is None else "features, and the plan has none"
            problems.append(f"features: the package takes {words}")
        return problems
    for name, value in vars(spec).items():
        if getattr(plan.features, name) != value:
            problems.append(f"features.{name}: the package takes {value}, the plan says {getattr(plan.features, name)}")
    return problems


def package_at_site(package: Package, plan: Plan, tiles: Sequence[AnyArray | TileRows] | None) -> Package:
    """Return a package as a site uses it: with the site's own standardisation of tiles, where the plan says so.

    Parameters
    ----------
    package : Package
        As it came.
    plan : Plan
        Whose standardisation is used.
    tiles : sequence of ndarray or TileRows, or None
        Of the site's patients by whom it standardises; None without features.

    Returns
    -------
    Package
        The same in everything else.
    """
    members = []
    for member in package.members:
        setup = Setup(member.covariates, member.projection, np.zeros(0)).at_site(plan, tiles)
        members.append(replace(member, projection=setup.projection))
    return replace(package, members=tuple(members))


def expected_events(told: Predictions, time_days: FloatArray) -> float:
    """Return how many events a package expected within the patients' own follow-up.

    Parameters
    ----------
    told : Predictions
        With survival curves.
    time_days : ndarray of float64, shape (patients,)
        Follow-up of the same patients.

    Returns
    -------
    float
        Sum of cumulative hazards at the end of follow-up; the share of events that came is the calibration in the large.
    """
    days = np.concatenate([[0.0], told.curve_days])
    hazard = -np.log(np.clip(told.survival, 1e-12, 1.0))
    curves = np.column_stack([np.zeros(len(hazard)), hazard])
    return float(sum(np.interp(end, days, curve) for end, curve in zip(time_days, curves, strict=True)))
