"""Net benefit of acting on a prediction: the decision curve."""

from typing import NamedTuple

import numpy as np

from pathoml.survival.weights import weighted_ratio
from pathoml.units import FloatArray


class NetBenefit(NamedTuple):
    """Net benefit at each threshold, in events rightly acted on per patient.

    Parameters
    ----------
    model : ndarray of float64, shape (draws, thresholds)
        Acting on patients whose predicted probability is at least the threshold.
    everybody : ndarray of float64, shape (draws, thresholds)
        Acting on all; acting on nobody has a net benefit of 0.
    """

    model: FloatArray
    everybody: FloatArray


def net_benefit(
    predicted: FloatArray, case_weight: FloatArray, control_weight: FloatArray, counts: FloatArray, *,
    thresholds: FloatArray,
) -> NetBenefit:  # fmt: skip
    """Weigh events rightly acted on against patients acted on in vain, whom the threshold says to be worth p / (1 - p) of one.

    Parameters
    ----------
    predicted : ndarray of float64, shape (patients,)
        Probability of the event until a time.
    case_weight : ndarray of float64, shape (patients,)
        Inverse probability of censoring of patients with the event until then, 0 for the others.
    control_weight : ndarray of float64, shape (patients,)
        The same of patients known to be free of it for longer.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    thresholds : ndarray of float64, shape (thresholds,)
        Probabilities from which one would act; above 0, below 1.

    Returns
    -------
    NetBenefit
        Of the model, and of acting on everybody.

    References
    ----------
    Vickers AJ, Elkin EB. Decision curve analysis. Med Decis Making 26 (2006) 565-574.
    Blanche P, Dartigues JF, Jacqmin-Gadda H. Estimating and comparing time-dependent areas under receiver operating
    characteristic curves for censored event times with competing risks. Stat Med 32 (2013) 5381-5397 (the weights).
    """
    flagged = (predicted[:, None] >= thresholds[None, :]).astype(np.float64)
    odds = thresholds / (1 - thresholds)
    patients = counts.sum(axis=1, keepdims=True)

    def benefit(acted: FloatArray) -> FloatArray:
        right, vain = counts @ (case_weight[:, None] * acted), counts @ (control_weight[:, None] * acted)
        return weighted_ratio(right - vain * odds, np.broadcast_to(patients, right.shape))

    return NetBenefit(benefit(flagged), benefit(np.ones_like(flagged)))
