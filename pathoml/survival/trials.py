"""What a prognosis is worth to a randomised trial: a sharper comparison, or patients who have more events."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.survival.curves import breslow_hazard, kaplan_meier
from pathoml.survival.draws import survival_of_draws
from pathoml.units import FloatArray, IntArray

_MOST_PATIENTS = 2000


class TrialDesign(NamedTuple):
    """A trial of two equal arms that is planned.

    Parameters
    ----------
    horizon_days : float
        Follow-up of each patient.
    hazard_ratio : float
        Of treatment, to be found; below 1 is a benefit.
    power : float
        Probability of finding it.
    alpha : float
        Two-sided probability of finding one that is not there.
    screening_cost : float
        Cost of screening one patient, in units of the cost of one randomised patient.
    """

    horizon_days: float
    hazard_ratio: float
    power: float
    alpha: float
    screening_cost: float


def explained_share(outcome: FloatArray, covariates: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the share of the variance of an outcome that a linear regression on covariates explains, in every draw.

    In a trial that adjusts for the covariates this is the share by which the variance of the estimated difference between
    arms shrinks, and with it the number of patients that the trial needs.

    Parameters
    ----------
    outcome : ndarray of float64, shape (draws, patients)
        Pseudo-observations of each draw.
    covariates : ndarray of float64, shape (patients, columns)
        Known before randomisation; the prediction must be of a model that has not seen the patient.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.

    Returns
    -------
    ndarray of float64, shape (draws,)
        Adjusted for the number of columns: what is explained by chance is taken off, so that it may be below 0.

    References
    ----------
    Schuler A, Walsh D, Hall D, Walsh J, Fisher C. Increasing the efficiency of randomized trial estimates via linear
    adjustment for a prognostic score. Int J Biostat 18 (2022) 329-356.
    """
    size = counts.sum(axis=1)
    columns = covariates.shape[1]
    standard = (covariates - covariates.mean(axis=0)) / np.where(
        covariates.std(axis=0) > 0, covariates.std(axis=0), 1.0
    )
    centre = counts @ standard / size[:, None]
    mean = (counts * outcome).sum(axis=1) / size
    total = (counts * (outcome - mean[:, None]) ** 2).sum(axis=1)
    together = (counts * outcome) @ standard - size[:, None] * mean[:, None] * centre
    products = (counts @ (standard[:, :, None] * standard[:, None, :]).reshape(len(standard), -1)).reshape(
        -1, columns, columns
    )
    gram = products - size[:, None, None] * centre[:, :, None] * centre[:, None, :]
    slope = (np.linalg.pinv(gram, hermitian=True) @ together[:, :, None])[:, :, 0]
    explained = np.divide((slope * together).sum(axis=1), total, out=np.zeros(len(counts)), where=total > 0)
    free = np.maximum(size - columns - 1, 1)
    share: FloatArray = 1 - (1 - explained) * (size - 1) / free
    return share


class Enrichment(NamedTuple):
    """What enrolling only patients above a cut-off does to a trial.

    Parameters
    ----------
    event_rate : ndarray of float64, shape (draws, cut-offs)
        Probability of the event until the horizon among those enrolled.
    patients : ndarray of float64, shape (draws, cut-offs)
        To be randomised.
    screened : ndarray of float64, shape (draws, cut-offs)
        To be screened for that.
    cost : ndarray of float64, shape (draws, cut-offs)
        Of screening and of patients randomised, over the cost of enrolling without screening.
    """

    event_rate: FloatArray
    patients: FloatArray
    screened: FloatArray
    cost: FloatArray


def enrichment(
    time_days: FloatArray, event: IntArray, risk: FloatArray, counts: FloatArray, *, shares: FloatArray,
    trial: TrialDesign,
) -> Enrichment:  # fmt: skip
    """Enrol only the patients of highest risk, and count patients, screenings and costs until enough events are seen.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse, comparable among all of them.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn; cut-offs stay those of all patients.
    shares : ndarray of float64, shape (cut-offs,)
        Shares of the screened who lie below the cut-off and are not enrolled; from 0 to below 1.
    trial : TrialDesign
        Follow-up, what is to be found, and the cost of screening.

    Returns
    -------
    Enrichment
        NaN where nobody drawn lies above a cut-off.

    References
    ----------
    Kerr KF, Roth J, Zhu K, et al. Evaluating biomarkers for prognostic enrichment of clinical trials. Clin Trials 14 (2017)
    629-638.
    """
    rates, above = [], []
    for share in shares.tolist():
        rows = risk >= np.quantile(risk, share) if share > 0 else np.ones(len(risk), dtype=bool)
        drawn = counts[:, rows]
        at = survival_of_draws(time_days[rows], event[rows], drawn, np.array([trial.horizon_days]))
        rates.append(1 - at[:, 0])
        above.append(drawn.sum(axis=1) / counts.sum(axis=1))
    rate, enrolled = np.stack(rates, axis=1), np.stack(above, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        patients = np.where(rate > 0, events_for_trial(trial) / rate, np.nan)
        screened = np.where(enrolled > 0, patients / enrolled, np.nan)
    is_screened = (shares > 0).astype(np.float64)
    cost = patients + trial.screening_cost * screened * is_screened
    return Enrichment(rate, patients, screened, cost / patients[:, [0]])


def events_for_trial(trial: TrialDesign) -> float:
    """Return the events that a trial of two equal arms needs (Schoenfeld's formula).

    Parameters
    ----------
    trial : TrialDesign
        What is to be found, how surely.

    Returns
    -------
    float
        Events in both arms.

    References
    ----------
    Schoenfeld DA. Sample-size formula for the proportional-hazards regression model. Biometrics 39 (1983) 499-503.

    Examples
    --------
    >>> round(events_for_trial(TrialDesign(730.5, hazard_ratio=0.7, power=0.8, alpha=0.05, screening_cost=0.0)))
    247
    """
    return 4 * float(ndtri(1 - trial.alpha / 2) + ndtri(trial.power)) ** 2 / math.log(trial.hazard_ratio) ** 2


class SimulatedGain(NamedTuple):
    """Power of simulated trials analysed by Cox regression, without and with adjustment for the prognosis.

    Parameters
    ----------
    power_alone, power_adjusted : float
        Share of the trials that find the treatment.
    patients_saved : float
        Share of the patients that the adjusted analysis could do without: one minus the squared ratio of mean z-values.
    log_hazard_ratio_alone, log_hazard_ratio_adjusted : float
        Mean estimates; they differ, since the hazard ratio of a Cox model is not collapsible.
    patients : int
        Of each trial.
    """

    power_alone: float
    power_adjusted: float
    patients_saved: float
    log_hazard_ratio_alone: float
    log_hazard_ratio_adjusted: float
    patients: int


def simulate_adjustment(
    time_days: FloatArray, event: IntArray, risk: FloatArray, *, trial: TrialDesign, trials: int,
    rng: np.random.Generator,
) -> SimulatedGain:  # fmt: skip
    """Simulate trials on patients like these, to see what adjusting a Cox regression for the risk gains.

    Each trial draws patients with their risk, gives half of them a treatment, and draws event times from a Cox model of
    the risk fitted to these patients, censored as they were.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse, comparable among all of them.
    trial : TrialDesign
        The hazard ratio is that of treatment given the risk; follow-up ends at the horizon.
    trials : int
        How many.
    rng : Generator
        Source of chance.

    Returns
    -------
    SimulatedGain
        By simulation only: no formula holds for the Cox model.
    """
    standard = (risk - risk.mean()) / max(float(risk.std()), 1e-12)
    slope = float(fit_cox_draws(standard[:, None], time_days, event).coefficients[0, 0])
    slope = 0.0 if math.isnan(slope) else slope
    days, hazard = _baseline(time_days, event, standard * slope)
    censored = kaplan_meier(time_days, 1 - event)
    rate = 1 - float(kaplan_meier(time_days, event).at(np.array([trial.horizon_days]))[0])
    patients = min(_MOST_PATIENTS, math.ceil(events_for_trial(trial) / max(rate, 1e-3)))
    z_values, estimates = np.empty((trials, 2)), np.empty((trials, 2))
    for number in range(trials):
        drawn = standard[rng.integers(0, len(risk), patients)]
        treated = (rng.permutation(patients) % 2).astype(np.float64)
        linear = slope * drawn + math.log(trial.hazard_ratio) * treated
        wanted = rng.exponential(size=patients) * np.exp(-linear)
        happens = np.append(days, np.inf)[np.searchsorted(hazard, wanted, side="left")]
        leaves = np.append(censored.days, time_days.max())[
            np.searchsorted(1 - censored.values, rng.random(patients), side="left")
        ]
        leaves = np.minimum(leaves, trial.horizon_days)
        seen, happened = np.minimum(happens, leaves), (happens <= leaves).astype(np.int64)
        for place, design in enumerate((treated[:, None], np.stack([treated, drawn], axis=1))):
            fit = fit_cox_draws(design, seen, happened)
            variance = np.linalg.pinv(fit.information[0], hermitian=True)[0, 0]
            estimates[number, place] = fit.coefficients[0, 0]
            z_values[number, place] = estimates[number, place] / math.sqrt(max(variance, 1e-300))
    mean_z = np.nanmean(z_values, axis=0)
    power = np.mean(np.abs(z_values) > ndtri(1 - trial.alpha / 2), axis=0)
    saved = 1 - float(mean_z[0] / mean_z[1]) ** 2 if mean_z[1] else 0.0
    mean_log = np.nanmean(estimates, axis=0)
    return SimulatedGain(float(power[0]), float(power[1]), saved, float(mean_log[0]), float(mean_log[1]), patients)


def _baseline(time_days: FloatArray, event: IntArray, linear: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return event times and Breslow's cumulative hazard at them."""
    steps = breslow_hazard(time_days, event, linear)
    rises = np.diff(np.concatenate([[0.0], steps.values])) > 0
    return steps.days[rises], steps.values[rises]
