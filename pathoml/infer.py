"""A package and patients -> predictions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pathoml.covariates import SLIDES_PART
from pathoml.errors import BagMismatchError, PackageError
from pathoml.mil.packed import Packed, pack
from pathoml.mil.patients import Patients, given_parts
from pathoml.mil.prognosis import PrognosisModel
from pathoml.mil.tile_rows import TileRows
from pathoml.packages import Member, Package
from pathoml.predictions import Predictions
from pathoml.units import AnyArray, BoolArray, FloatArray, IntArray

GROUPS = ("low", "high")


def predict_logits(member: Member, patients: Patients, *, device: str = "cpu") -> FloatArray:
    """Run one member on patients, one at a time.

    Parameters
    ----------
    member : Member
        A fitted model.
    patients : Patients
        Who.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    ndarray of float64, shape (patients, out)
        Its logits.
    """
    return predict_shares(member, patients, device=device).logits


class PartShares(NamedTuple):
    """What a member says of patients, part by part.

    Parameters
    ----------
    logits : ndarray of float64, shape (patients, out)
        Its logits.
    values : ndarray of float64, shape (patients, parts, out)
        Shares that sum, with the model's level, to the logits.
    present : ndarray of bool, shape (patients, parts)
        Which parts each patient has.
    """

    logits: FloatArray
    values: FloatArray
    present: BoolArray


def predict_shares(member: Member, patients: Patients, *, device: str = "cpu") -> PartShares:
    """Run one member on patients, one at a time, and keep what each part of the model says.

    Parameters
    ----------
    member : Member
        A fitted model.
    patients : Patients
        Who.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    PartShares
        In the order of patients; parts as `member.model.layout` names them.
    """
    require_grid(member.model, patients.without_grid)
    covariates = torch.from_numpy(member.covariates.apply(patients.covariates).astype(np.float32))
    present = given_parts(patients, member.covariates)
    tiles = patients.features if patients.features is not None else [None] * len(patients.patient_id)
    places = patients.places or [None] * len(tiles)
    model = member.model.to(device)
    rows = []
    for index, (one, place) in enumerate(zip(tiles, places, strict=True)):
        own = slice(index, index + 1)
        with torch.inference_mode():
            packed = projected(member, one, place).to(device)
            rows.append(model.shares(packed, covariates[own].to(device), torch.from_numpy(present[own]).to(device)))
    return PartShares(
        np.concatenate([_array(row.output.logits) for row in rows]),
        np.concatenate([_array(row.values) for row in rows]),
        present,
    )


def require_grid(model: PrognosisModel, without_grid: Sequence[str]) -> None:
    """Refuse slides whose tiles lie on no grid where a model looks at which are neighbours.

    Parameters
    ----------
    model : PrognosisModel
        Trained or not.
    without_grid : sequence of str
        Slides whose rows and columns are no places on a grid.

    Raises
    ------
    BagMismatchError
        If there are any, and the model looks at places.
    """
    if without_grid and model.slides is not None and model.slides.needs_places:
        raise BagMismatchError(
            f"bag(s) of {', '.join(without_grid[:5])} ({len(without_grid)} in all): tiles lie on no regular grid, and the model "
            "looks at which are neighbours; extract these slides with pathoml, or choose a model.aggregator that does not, "
            "such as abmil"
        )


def slides_alone(member: Member, patients: Patients, *, device: str = "cpu") -> FloatArray:
    """Score the slides of patients as if nothing else were known of them.

    Parameters
    ----------
    member : Member
        A fitted model with slides.
    patients : Patients
        Those without tiles are passed over.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    ndarray of float64, shape (patients with tiles, out)
        The slides' share of the logits.
    """
    model = member.model.to(device)
    features = patients.features or ()
    places = patients.places or [None] * len(features)
    rows = []
    for one, place in zip(features, places, strict=True):
        if len(one):
            with torch.inference_mode():
                rows.append(_array(model.slides_alone(projected(member, one, place).to(device)).logits))
    return np.concatenate(rows)


def predict_member(
    member: Member, patients: Patients, curve_days: FloatArray, *, device: str = "cpu"
) -> tuple[pd.DataFrame, FloatArray]:
    """Predict risk, risk group and survival with one member.

    Parameters
    ----------
    member : Member
        A fitted model.
    patients : Patients
        Who.
    curve_days : ndarray of float64, shape (times,)
        When survival is wanted.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    tuple of DataFrame and ndarray
        Columns patient_id, risk, risk_group; survival of shape (patients, times).
    """
    logits = predict_logits(member, patients, device=device)
    risk = member.objective.risk(logits)
    table = pd.DataFrame(
        {"patient_id": patients.patient_id, "risk": risk, "risk_group": risk_groups(risk, member.risk_cutoff)}
    )
    return table, member.objective.survival(logits, curve_days)


def predict_members(
    members: Sequence[Member], patients: Patients, curve_days: FloatArray, *, device: str = "cpu"
) -> tuple[pd.DataFrame, FloatArray]:
    """Predict with one member, in its own unit, or with the mean of several, each centred and scaled by its own patients.

    Parameters
    ----------
    members : sequence of Member
        Fitted on the same patients.
    patients : Patients
        Who.
    curve_days : ndarray of float64, shape (times,)
        When survival is wanted.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    tuple of DataFrame and ndarray
        As of `predict_member`.
    """
    if len(members) == 1:
        return predict_member(members[0], patients, curve_days, device=device)
    risk, cutoff, survival = _mean_prediction(members, patients, curve_days, device)
    table = pd.DataFrame({"patient_id": patients.patient_id, "risk": risk, "risk_group": risk_groups(risk, cutoff)})
    return table, survival


def _mean_prediction(
    members: Sequence[Member], patients: Patients, curve_days: FloatArray, device: str
) -> tuple[FloatArray, float, FloatArray]:  # fmt: skip
    """Return the mean of members' centred and scaled risks, that of their cut-offs, and that of their curves."""
    risks, cutoffs, curves = [], [], []
    for member in members:
        logits = predict_logits(member, patients, device=device)
        risks.append((member.objective.risk(logits) - member.risk_centre) / member.risk_scale)
        cutoffs.append((member.risk_cutoff - member.risk_centre) / member.risk_scale)
        curves.append(member.objective.survival(logits, curve_days))
    return np.mean(risks, axis=0), float(np.mean(cutoffs)), np.mean(curves, axis=0)


def predict_package(package: Package, patients: Patients, *, device: str = "cpu") -> Predictions:
    """Predict patients that the package has never seen.

    Parameters
    ----------
    package : Package
        One or more members.
    patients : Patients
        Who; their outcome is not needed.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    Predictions
        With role ``external`` and no outcome; risk 0 is the average training patient, 1 one standard deviation above.

    Raises
    ------
    PackageError
        If the patients have slides and the model takes none, or the other way round; or if a patient has no slides and
        the model was never trained without.
    """
    _require_what_was_learnt(package, patients)
    if (patients.features is None) != (package.feature_spec is None):
        raise PackageError(
            "the model was trained "
            + ("without slides" if package.feature_spec is None else "with slides, none are given")
        )
    days = np.asarray(package.curve_days, dtype=np.float64)
    risk, cutoff, curves = _mean_prediction(package.members, patients, days, device)
    if not np.isfinite(risk).all():
        unknown = [name for name, value in zip(patients.patient_id, risk, strict=True) if not np.isfinite(value)]
        raise PackageError(
            f"the risk of patient(s) {', '.join(unknown[:5])} is not a finite number; check their covariates"
        )
    count = len(patients.patient_id)
    table = pd.DataFrame(
        {
            "model": "package", "scheme": "external", "fold": "", "role": "external",
            "patient_id": patients.patient_id, "site": "",
            "endpoint": package.summary.get("endpoint", ""), "repeat": 0, "seed": 0, "time_days": np.full(count, np.nan),
            "event": pd.array([pd.NA] * count, dtype="Int64"), "risk": risk,
            "risk_group": risk_groups(risk, cutoff),
        }
    )  # fmt: skip
    return Predictions(table, days, curves)


def _require_what_was_learnt(package: Package, patients: Patients) -> None:
    """Refuse patients without tiles unless every member has learnt to do without."""
    without = [
        name for name, tiles in zip(patients.patient_id, patients.features or (), strict=False) if len(tiles) == 0
    ]
    if without and not all(SLIDES_PART in member.may_lack for member in package.members):
        raise PackageError(
            f"patient(s) {', '.join(without[:5])} have no tiles, and the model was not trained to do without slides; train"
            " with slides.required: false or train.modality_dropout, or leave these patients out"
        )


def risk_groups(risk: FloatArray, cutoff: float) -> list[str]:
    """Name each patient's risk group.

    Parameters
    ----------
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    cutoff : float
        From training patients.

    Returns
    -------
    list of str
        ``high`` above the cut-off, else ``low``.
    """
    return [GROUPS[int(value > cutoff)] for value in risk]


def _array(values: Tensor) -> FloatArray:
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float64)


def projected(member: Member, features: AnyArray | TileRows | None, places: IntArray | None) -> Packed:
    """Bring the tiles of one patient into the form that a member takes.

    Parameters
    ----------
    member : Member
        With its projection.
    features : ndarray or TileRows, shape (tiles, dim), or None
        As bags hold them; None for a model without slides.
    places : ndarray of int64, shape (tiles, 3), or None
        Where they lie.

    Returns
    -------
    Packed
        One bag.
    """
    columns = torch.zeros((0, 0))
    if features is not None and member.projection is not None:
        columns = torch.from_numpy(member.projection.apply(features))
    return pack([columns], None if places is None else [torch.from_numpy(places)])
