"""How well a model fits each patient: the number that membership attacks look at."""

import numpy as np
import torch

from pathoml.mil.batches import TrainingPatients
from pathoml.mil.gradients import forward
from pathoml.mil.objective import Objective
from pathoml.mil.objectives import CoxObjective
from pathoml.mil.prognosis import PrognosisModel
from pathoml.train_settings import TrainSettings
from pathoml.units import FloatArray

_LEAST_LOSS = 1e-6


def patient_losses(
    model: PrognosisModel, patients: TrainingPatients, objective: Objective, settings: TrainSettings
) -> FloatArray:  # fmt: skip
    """Return the loss of each patient by itself, without dropout or noise.

    Parameters
    ----------
    model : PrognosisModel
        Left in evaluation mode.
    patients : TrainingPatients
        Who.
    objective : Objective
        What the logits mean. Cox's loss is no sum over patients: its stand-in is the full negative log likelihood with the
        baseline hazard of these patients, less the log hazard at the event, which is the same for all models.
    settings : TrainSettings
        Precision.

    Returns
    -------
    ndarray of float64, shape (patients,)
        In their order.
    """
    model.eval()
    with torch.no_grad():
        logits = torch.cat([forward(model, part, settings).logits for part in patients.parts()]).double()
        outcome = patients.outcome
        if not isinstance(objective, CoxObjective):
            rows = [slice(row, row + 1) for row in range(len(logits))]
            return np.array([float(objective.loss(logits[row], outcome.rows(row))) for row in rows])
    values, time_days = logits.cpu().numpy(), outcome.time_days.cpu().numpy()
    event = outcome.event.cpu().numpy().astype(np.int64)
    hazard = objective.calibrated(values, time_days, event).hazard
    assert hazard is not None  # calibrated
    losses: FloatArray = hazard.at(time_days) * np.exp(values[:, 0]) - event * values[:, 0]
    return losses


def patient_fit(
    model: PrognosisModel, patients: TrainingPatients, objective: Objective, settings: TrainSettings
) -> FloatArray:  # fmt: skip
    """Return how well a model fits each patient, on a scale on which attacks compare it.

    Parameters
    ----------
    model : PrognosisModel
        Left in evaluation mode.
    patients : TrainingPatients
        Who.
    objective : Objective
        What the logits mean.
    settings : TrainSettings
        Precision.

    Returns
    -------
    ndarray of float64, shape (patients,)
        Higher is better: the logit of the probability that a model of time bins gives to what happened, whose spread over models
        is nearly normal; for Cox minus the loss.
    """
    losses = patient_losses(model, patients, objective, settings)
    if isinstance(objective, CoxObjective):
        return -losses
    fit: FloatArray = -np.log(np.expm1(np.maximum(losses, _LEAST_LOSS)))
    return fit
