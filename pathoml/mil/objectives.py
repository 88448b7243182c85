"""What a model's logits mean: a log hazard, or time bins."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import TypeAdapter
from torch import Tensor

from pathoml.losses import cox_loss, deep_hit_loss, discrete_hazard_loss, mtlr_loss, pmf_loss, ranking_loss
from pathoml.mil.objective import Objective, Outcome
from pathoml.survival import StepFunction, breslow_hazard, cox_survival, discrete_risk, discrete_survival, event_bins
from pathoml.survival.discrete import Form, coarse_edges
from pathoml.train_settings import BinnedLoss, CoxLossSettings, DeepHitLossSettings, DiscreteLossSettings, Loss
from pathoml.units import FloatArray, IntArray

logger = logging.getLogger(__name__)

_COX, _DISCRETE = CoxLossSettings(), DiscreteLossSettings()


@dataclass(frozen=True)
class CoxObjective(Objective):
    """One log hazard.

    Parameters
    ----------
    hazard : StepFunction or None
        Cumulative baseline hazard, once the model is fitted.
    settings : CoxLossSettings
        Ties, strata and ranking, for training.
    """

    hazard: StepFunction | None = None
    settings: CoxLossSettings = _COX

    @property
    def out(self) -> int:
        """One column."""
        return 1

    @property
    def has_level(self) -> bool:
        """No: only differences of log hazards matter to Cox's loss."""
        return False

    @property
    def risk_is_logit(self) -> bool:
        """Yes: the log hazard."""
        return True

    def loss(self, logits: Float[Tensor, "n out"], outcome: Outcome) -> Float[Tensor, ""]:
        """Return the negative log partial likelihood per event."""
        stratum = outcome.stratum if self.settings.stratified else None
        loss = cox_loss(logits[:, 0], outcome.event, outcome.time_days, ties=self.settings.ties, stratum=stratum)
        if self.settings.ranking_weight:
            loss = loss + self.settings.ranking_weight * ranking_loss(logits[:, 0], outcome.event, outcome.time_days)
        return loss

    def denominator(self, outcome: Outcome) -> int:
        """Return the events."""
        return int(outcome.event.sum())

    def tells(self, outcome: Outcome) -> bool:
        """Yes if at the first event, of a hospital where those are compared, somebody else is at risk."""
        strata = outcome.stratum
        if strata is None or not self.settings.stratified or self.settings.ranking_weight:
            strata = torch.zeros_like(outcome.event, dtype=torch.int64)
        first = torch.full((int(strata.max()) + 1 if len(strata) else 0,), torch.inf).to(outcome.time_days)
        first.scatter_reduce_(0, strata[outcome.event], outcome.time_days[outcome.event], "amin")
        at_risk = torch.zeros_like(first).index_add(0, strata, (outcome.time_days >= first[strata]).to(first))
        return bool((at_risk > 1).any())

    def risk(self, logits: FloatArray) -> FloatArray:
        """Return the log hazard."""
        return logits[:, 0]

    def survival(self, logits: FloatArray, curve_days: FloatArray) -> FloatArray:
        """Return curves from the baseline hazard."""
        if self.hazard is None:
            raise RuntimeError("survival curves need a calibrated objective")
        return cox_survival(self.hazard, logits[:, 0], curve_days)

    def calibrated(self, logits: FloatArray, time_days: FloatArray, event: IntArray) -> "CoxObjective":
        """Return the objective with Breslow's baseline hazard of these patients."""
        return replace(self, hazard=breslow_hazard(time_days, event, logits[:, 0]))

    def on_grid(self, curve_days: FloatArray) -> "CoxObjective":
        """Return the objective with the baseline hazard at those times only."""
        if self.hazard is None:
            return self
        return replace(self, hazard=StepFunction(curve_days, self.hazard.at(curve_days), 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return the baseline hazard's steps."""
        steps = (
            None if self.hazard is None else {"days": self.hazard.days.tolist(), "values": self.hazard.values.tolist()}
        )
        return {"kind": "cox", "hazard": steps, "settings": self.settings.model_dump(mode="json")}


@dataclass(frozen=True)
class DiscreteObjective(Objective):
    """One logit for each time bin.

    Parameters
    ----------
    edges : ndarray of float64, shape (bins + 1,)
        From training patients.
    settings : settings of a loss over time bins
        What the logits mean, and how they are trained.
    """

    edges: FloatArray
    settings: BinnedLoss = _DISCRETE

    @property
    def form(self) -> Form:
        """What a bin's logit means."""
        return _FORMS[self.settings.kind]

    @property
    def out(self) -> int:
        """One column a bin; there may be only one."""
        return len(self.edges) - 1

    @property
    def has_level(self) -> bool:
        """Yes: a bin's logit is a probability's."""
        return True

    @property
    def risk_is_logit(self) -> bool:
        """No: the risk is in days."""
        return False

    def loss(self, logits: Float[Tensor, "n out"], outcome: Outcome) -> Float[Tensor, ""]:
        """Return the negative log likelihood per patient."""
        time_bin = self.bin_of(outcome)
        if isinstance(self.settings, DeepHitLossSettings):
            return deep_hit_loss(
                logits[:, None, :], outcome.event.long(), time_bin,
                likelihood_share=self.settings.likelihood_share, scale=self.settings.scale,
            )  # fmt: skip
        return _BINNED_LOSSES[self.form](logits, outcome.event, time_bin)

    def bin_of(self, outcome: Outcome) -> Tensor:
        """Return the bin of each event, and of each censored patient the first that is not known to have been survived.

        Who is censored in the second half of a bin counts as its survivor, as in Gensheimer and Narasimhan (PeerJ 7 (2019)
        e6257): if nobody did, a bin in which many are censored would seem deadlier than it is, and the last one deadly to all.

        Parameters
        ----------
        outcome : Outcome
            Follow-up.

        Returns
        -------
        Tensor of int64, shape (n,)
            The number of bins for who is known to have survived them all.
        """
        edges = torch.as_tensor(self.edges, device=outcome.time_days.device, dtype=outcome.time_days.dtype)
        own = torch.searchsorted(edges[1:-1].contiguous(), outcome.time_days)
        survived = ~outcome.event & (outcome.time_days >= (edges[own] + edges[own + 1]) / 2)
        return own + survived.long()

    def denominator(self, outcome: Outcome) -> int:
        """Return the patients."""
        return len(outcome.event)

    def tells(self, outcome: Outcome) -> bool:
        """Yes: each patient's own bins do."""
        return len(outcome.event) > 0

    def risk(self, logits: FloatArray) -> FloatArray:
        """Return minus the expected days without event."""
        return discrete_risk(logits, self.edges, form=self.form)

    def survival(self, logits: FloatArray, curve_days: FloatArray) -> FloatArray:
        """Return curves from the bins' hazards."""
        return discrete_survival(logits, self.edges, curve_days, form=self.form)

    def calibrated(self, logits: FloatArray, time_days: FloatArray, event: IntArray) -> "DiscreteObjective":
        """Return itself: the bins' hazards are the survival curves already."""
        return self

    def on_grid(self, curve_days: FloatArray) -> "DiscreteObjective":
        """Return itself: it holds nothing but edges."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the edges."""
        return {"kind": "discrete", "edges": self.edges.tolist(), "settings": self.settings.model_dump(mode="json")}


_FORMS: dict[str, Form] = {"discrete": "hazard", "pmf": "pmf", "mtlr": "mtlr", "deephit": "pmf"}
_BINNED_LOSSES = {"hazard": discrete_hazard_loss, "pmf": pmf_loss, "mtlr": mtlr_loss}


def fit_objective(loss: Loss, time_days: FloatArray, event: IntArray) -> Objective:
    """Fit what the loss needs to know beforehand on training patients: the time bins.

    Parameters
    ----------
    loss : settings of a loss
        Which.
    time_days : ndarray of float64, shape (patients,)
        Training patients' follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    Returns
    -------
    Objective
        Ready for training.
    """
    if not isinstance(loss, CoxLossSettings):
        # The edges travel with the model: coarse ones tell of no single patient.
        edges = coarse_edges(event_bins(time_days, event, loss.bins), time_days)
        if len(edges) - 1 < loss.bins:
            logger.warning(
                "only %d of the %d time bins asked for could be made: the training patients' event times are tied or lie"
                " too close together to be told apart without telling of single patients; set train.loss.bins lower",
                len(edges) - 1,
                loss.bins,
            )
        return DiscreteObjective(edges, loss)
    return CoxObjective(settings=loss)


def objective_from_json(values: dict[str, Any]) -> Objective:
    """Rebuild an objective from `Objective.to_json`.

    Parameters
    ----------
    values : dict
        Plain JSON values.

    Returns
    -------
    Objective
        Equal to the one that was written.
    """
    loss = TypeAdapter[Loss](Loss).validate_python(values["settings"])
    if not isinstance(loss, CoxLossSettings):
        return DiscreteObjective(np.asarray(values["edges"], dtype=np.float64), loss)
    steps = values["hazard"]
    if steps is None:
        return CoxObjective(settings=loss)
    hazard = StepFunction(
        np.asarray(steps["days"], dtype=np.float64), np.asarray(steps["values"], dtype=np.float64), 0.0
    )
    return CoxObjective(hazard, loss)
