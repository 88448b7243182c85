"""A fitted model -> a member: what patients may lack, and what turns logits into risks, groups and curves."""

from dataclasses import replace

import numpy as np
import torch

from pathoml.covariates import CovariateTransform
from pathoml.cox_start import level_beside
from pathoml.infer import predict_shares, slides_alone
from pathoml.mil.objective import Outcome
from pathoml.mil.patients import Patients, given_parts
from pathoml.mil.prognosis import PrognosisModel
from pathoml.packages import Member
from pathoml.train_settings import TrainSettings
from pathoml.units import FloatArray, IntArray


def lacking_parts(
    model: PrognosisModel, patients: Patients, transform: CovariateTransform, settings: TrainSettings
) -> tuple[str, ...]:
    """Return the parts that patients lack, or that are hidden from the model now and then.

    Parameters
    ----------
    model : PrognosisModel
        Its parts.
    patients : Patients
        Who trains.
    transform : CovariateTransform
        Of their covariates.
    settings : TrainSettings
        Whether parts are hidden.

    Returns
    -------
    tuple of str
        Names of parts.
    """
    hidden = settings.modality_dropout > 0 and settings.max_epochs > 0 and len(model.layout.names) > 1
    given = given_parts(patients, transform)
    return tuple(name for part, name in enumerate(model.layout.names) if hidden or not given[:, part].all())


def _settle_absent(draft: Member, values: FloatArray) -> None:
    """Let a part that nobody lacked in training, should it ever be missing, say what it says on average."""
    with torch.no_grad():
        for part, name in enumerate(draft.model.layout.names):
            if name not in draft.may_lack:
                draft.model.absent[part] = torch.from_numpy(values[:, part].mean(axis=0))


def restore_prevalence(draft: Member, patients: Patients, time_days: FloatArray, event: IntArray) -> None:
    """Bring the level of time bins back to patients as they are, after a training that saw more events than there are.

    What the model says of one patient beside another stays. Cox models have no level; their baseline hazard is fitted later.

    Parameters
    ----------
    draft : Member
        A fitted model, changed in place.
    patients : Patients
        Training and validation patients.
    time_days : ndarray of float64, shape (patients,)
        Their follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    """
    if not draft.objective.has_level:
        return
    logits = torch.from_numpy(predict_shares(draft, patients).logits)
    outcome = Outcome(torch.from_numpy(event == 1), torch.from_numpy(time_days))
    with torch.no_grad():
        draft.model.bias.add_(level_beside(logits, draft.objective, outcome))


def finish_member(draft: Member, patients: Patients, time_days: FloatArray, event: IntArray) -> Member:
    """Fit what turns logits into risks, groups and curves, on the patients that fitted the model.

    Parameters
    ----------
    draft : Member
        A fitted model; what it says of parts that nobody lacked in training is settled in place.
    patients : Patients
        Training and validation patients.
    time_days : ndarray of float64, shape (patients,)
        Their follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    Returns
    -------
    Member
        Ready for any patient.
    """
    shares = predict_shares(draft, patients)
    _settle_absent(draft, shares.values)
    objective = draft.objective.calibrated(shares.logits, time_days, event)
    risk = objective.risk(shares.logits)
    slide_centre: FloatArray = np.zeros(objective.out)
    if patients.features is not None:
        stand_alone = draft.model.fusion.slides_stand_alone
        of_slides = shares.values[shares.present[:, -1], -1] if stand_alone else slides_alone(draft, patients)
        slide_centre = of_slides.mean(axis=0)
    return replace(
        draft,
        objective=objective,
        risk_centre=float(risk.mean()),
        risk_scale=float(risk.std()) or 1.0,
        risk_cutoff=float(np.median(risk)),
        slide_centre=tuple(slide_centre.tolist()),
        part_centre=tuple(shares.values.mean(axis=(0, 2)).tolist()),
    )
