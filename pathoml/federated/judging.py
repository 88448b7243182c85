"""What a site says about a model on its own patients: sums and counts, never a patient's number."""

from dataclasses import replace

import numpy as np

from pathoml.federated.guard import REPLICATES
from pathoml.federated.plan import Plan
from pathoml.federated.scores import LEAST_EVENTS
from pathoml.federated.setup import Setup, build_model, load_arrays_into
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_sums import merged_counts, merged_exposure
from pathoml.infer import predict_logits, predict_shares
from pathoml.mil.objectives import CoxObjective
from pathoml.mil.patients import select_patients
from pathoml.packages import Member
from pathoml.survival.curves import StepFunction
from pathoml.survival.metrics import concordance_sums
from pathoml.train import follow_up
from pathoml.units import AnyArray, FloatArray, IntArray


def member_of(plan: Plan, setup: Setup, model: dict[str, AnyArray]) -> Member:
    """Put a model together that can predict, but for its calibration.

    Parameters
    ----------
    plan : Plan
        Architecture.
    setup : Setup
        Transforms.
    model : dict of str to ndarray
        Weights.

    Returns
    -------
    Member
        On the CPU, in evaluation mode; centre 0, scale 1.
    """
    network = build_model(plan, setup)
    load_arrays_into(network, model)
    return Member(
        "federation", plan.model.aggregator, network.eval(), setup.projection, setup.transform, setup.objective(plan),
        0.0, 1.0, 0.0, (0.0,) * network.shape.out,
    )  # fmt: skip


def risks_of(member: Member, data: SiteData, patients: tuple[str, ...]) -> FloatArray:
    """Return the risk of some patients.

    Parameters
    ----------
    member : Member
        A model.
    data : SiteData
        The site.
    patients : tuple of str
        Who.

    Returns
    -------
    ndarray of float64, shape (patients,)
        In the unit of the objective.
    """
    logits = predict_logits(member, select_patients(data.cohort, data.features, patients))
    return member.objective.risk(logits)


def pair_sums(
    time_days: FloatArray, event: IntArray, risk: FloatArray, dealer: np.random.Generator
) -> tuple[dict[str, AnyArray], dict[str, float]]:
    """Return what Harrell's concordance of a site is made of, and of bootstrap samples of its patients.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    dealer : Generator
        The site's own.

    Returns
    -------
    tuple of dict
        Arrays ``replicates.concordant`` and ``replicates.comparable``; numbers concordance, pairs and, of `LEAST_EVENTS` events or
        more, the 95 % interval.
    """
    concordant, comparable = (
        float(value[0]) for value in concordance_sums(time_days, event, risk, np.ones((1, len(risk))))
    )
    counts = dealer.multinomial(len(risk), np.full(len(risk), 1 / len(risk)), size=REPLICATES).astype(np.float64)
    above, below = concordance_sums(time_days, event, risk, counts)
    arrays = {"replicates.concordant": above, "replicates.comparable": below}
    numbers = {
        "patients": float(len(risk)),
        "events": float(event.sum()),
        "concordant": concordant,
        "comparable": comparable,
    }
    if comparable:
        numbers["concordance"] = concordant / comparable
    if comparable and event.sum() >= LEAST_EVENTS:
        low, high = np.quantile(above[below > 0] / below[below > 0], [0.025, 0.975])
        numbers |= {"concordance_low": float(low), "concordance_high": float(high)}
    return arrays, numbers


def calibration_sums(
    member: Member, data: SiteData, plan: Plan, smallest: int, fitted_on: tuple[str, ...]
) -> tuple[dict[str, AnyArray], dict[str, float]]:
    """Return what the network's mean risk, its spread and, for Cox, its baseline hazard are made of.

    Parameters
    ----------
    member : Member
        The final model.
    data : SiteData
        The site.
    plan : Plan
        With its grid of times.
    smallest : int
        Fewest events that are told together.
    fitted_on : tuple of str
        Patients that are taken.

    Returns
    -------
    tuple of dict
        Arrays ``slides`` of shape (out,), ``hazard.events`` and ``hazard.exposure`` of shape (cells,); numbers of sums.
    """
    patients = select_patients(data.cohort, data.features, fitted_on)
    shares = predict_shares(member, patients)
    risk = member.objective.risk(shares.logits)
    time_days, event = follow_up(data.cohort, fitted_on)
    slides = np.zeros_like(shares.logits) if patients.features is None else shares.values[:, -1]
    grid = np.asarray(plan.grid)
    events = merged_counts(time_days[event == 1], grid, smallest)
    exposure = np.zeros(len(grid))
    if isinstance(member.objective, CoxObjective):  # others have their own baseline
        lengths = np.diff(np.concatenate([[0.0], grid]))
        in_cell = np.clip(time_days[:, None] - (grid - lengths)[None, :], 0, lengths[None, :])
        exposure = merged_exposure(events, (np.exp(np.clip(risk, -50, 50))[:, None] * in_cell).sum(axis=0))
    arrays = {"slides": slides.sum(axis=0), "hazard.events": events, "hazard.exposure": exposure}
    numbers = {"patients": float(len(risk)), "risk_sum": float(risk.sum()), "risk_squares": float((risk**2).sum())}
    return arrays, numbers


def calibrated(
    member: Member, plan: Plan, arrays: list[dict[str, AnyArray]], numbers: list[dict[str, float]]
) -> Member:
    """Calibrate the network's model by the sums of its sites.

    The cut-off between the risk groups is the mean risk: a median cannot be had from sums.

    Parameters
    ----------
    member : Member
        The final model.
    plan : Plan
        With its grid of times.
    arrays, numbers : list of dict
        Of `calibration_sums`, one a site.

    Returns
    -------
    Member
        For a package.
    """
    total = {name: sum(one[name] for one in numbers) for name in numbers[0]}
    centre = total["risk_sum"] / total["patients"]
    spread = float(np.sqrt(max(total["risk_squares"] / total["patients"] - centre**2, 0.0)))
    objective = member.objective
    if isinstance(objective, CoxObjective):
        lengths = np.diff(np.concatenate([[0.0], plan.grid]))
        told = [one["hazard.events"] for one in arrays]
        events = np.sum([spread_out(one, one, lengths) for one in told], axis=0)
        exposure = np.sum(
            [spread_out(one, part["hazard.exposure"], lengths) for one, part in zip(told, arrays, strict=True)], axis=0
        )
        steps = np.divide(events * lengths, exposure, out=np.zeros(len(lengths)), where=exposure > 0)
        objective = replace(objective, hazard=StepFunction(np.asarray(plan.grid), np.cumsum(steps), 0.0))
    slides = np.sum([one["slides"] for one in arrays], axis=0) / total["patients"]
    return replace(
        member, objective=objective, risk_centre=centre, risk_scale=spread or 1.0, risk_cutoff=centre,
        slide_centre=tuple(slides.tolist()),
    )  # fmt: skip


def centred_by_plan(member: Member) -> Member:
    """Calibrate a model without any patient: its centre and cut-off are the risk of who is average by the plan's own numbers.

    Parameters
    ----------
    member : Member
        The final model, over time bins.

    Returns
    -------
    Member
        For a package; risks keep their unit.
    """
    level = member.model.bias.detach().numpy().astype(np.float64)[None, :]
    centre = float(member.objective.risk(level)[0])
    return replace(member, risk_centre=centre, risk_scale=1.0, risk_cutoff=centre)


def spread_out(told: IntArray, joined: AnyArray, lengths: FloatArray) -> FloatArray:
    """Give what was joined over cells back to them, in proportion to their lengths.

    Parameters
    ----------
    told : ndarray of int, shape (cells,)
        As `merged_counts` gives them: where it is not 0, cells before it were joined with it.
    joined : ndarray, shape (cells,)
        Events or time at risk, joined alike.
    lengths : ndarray of float64, shape (cells,)
        Days.

    Returns
    -------
    ndarray of float64, shape (cells,)
        With the same sum; cells after the last that was told belong to it.
    """
    spread = np.zeros(len(told))
    cells = np.flatnonzero(told)
    if len(cells):
        place = np.minimum(np.searchsorted(cells, np.arange(len(told))), len(cells) - 1)
        spread = joined[cells[place]] * lengths / np.bincount(place, weights=lengths)[place]
    return spread
