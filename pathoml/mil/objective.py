"""What every meaning of a model's logits offers: how they are trained, ranked and turned into survival curves."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from pathoml.units import FloatArray, IntArray


class Outcome(NamedTuple):
    """Follow-up of the patients of a batch.

    Parameters
    ----------
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_days : Tensor of float64, shape (n,)
        Follow-up.
    stratum : Tensor of int64, shape (n,), optional
        Their hospital, for losses that compare within hospitals only.
    """

    event: Bool[Tensor, " n"]
    time_days: Float[Tensor, " n"]
    stratum: Int[Tensor, " n"] | None = None

    def rows(self, rows: Tensor | slice) -> "Outcome":
        """Return some of the patients.

        Parameters
        ----------
        rows : Tensor of int64, or slice
            Which.

        Returns
        -------
        Outcome
            In that order.
        """
        return Outcome(self.event[rows], self.time_days[rows], None if self.stratum is None else self.stratum[rows])


class Objective(ABC):
    """Meaning of a model's logits."""

    @property
    @abstractmethod
    def out(self) -> int:
        """Columns of the logits."""

    @property
    @abstractmethod
    def has_level(self) -> bool:
        """Whether the loss changes if a constant is added to all logits, so that a bias can be learnt."""

    @property
    @abstractmethod
    def risk_is_logit(self) -> bool:
        """Whether the risk is the logit itself, so that a part of the logit is a part of the risk, in its unit."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "n out"], outcome: Outcome) -> Float[Tensor, ""]:
        """Return what is minimised.

        Parameters
        ----------
        logits : Tensor, shape (n, out)
            The model's output.
        outcome : Outcome
            Follow-up of the same patients.

        Returns
        -------
        Tensor, shape ()
            Mean over the loss's own denominator: events for Cox, patients for time bins.
        """

    @abstractmethod
    def denominator(self, outcome: Outcome) -> int:
        """Return what the loss is a mean over.

        Parameters
        ----------
        outcome : Outcome
            Follow-up of some patients.

        Returns
        -------
        int
            Events for Cox, patients for time bins; by it losses of several hospitals are weighted.
        """

    @abstractmethod
    def tells(self, outcome: Outcome) -> bool:
        """Say whether the loss of some patients depends on their logits at all.

        Parameters
        ----------
        outcome : Outcome
            Their follow-up.

        Returns
        -------
        bool
            False for Cox's loss where nobody is at risk beside those who have the event.
        """

    @abstractmethod
    def risk(self, logits: FloatArray) -> FloatArray:
        """Return one number a patient.

        Parameters
        ----------
        logits : ndarray of float64, shape (n, out)
            The model's output.

        Returns
        -------
        ndarray of float64, shape (n,)
            Higher is worse.
        """

    @abstractmethod
    def survival(self, logits: FloatArray, curve_days: FloatArray) -> FloatArray:
        """Return survival curves.

        Parameters
        ----------
        logits : ndarray of float64, shape (n, out)
            The model's output.
        curve_days : ndarray of float64, shape (times,)
            When.

        Returns
        -------
        ndarray of float64, shape (n, times)
            Probability of no event until then.
        """

    @abstractmethod
    def calibrated(self, logits: FloatArray, time_days: FloatArray, event: IntArray) -> "Objective":
        """Return an objective whose survival curves fit these patients' logits and follow-up.

        Parameters
        ----------
        logits : ndarray of float64, shape (n, out)
            The model's output.
        time_days : ndarray of float64, shape (n,)
            Follow-up.
        event : ndarray of int, shape (n,)
            1 event, 0 censored.

        Returns
        -------
        Objective
            Ready for `survival`.
        """

    @abstractmethod
    def on_grid(self, curve_days: FloatArray) -> "Objective":
        """Return an objective that keeps of its curves only their values at some times.

        Parameters
        ----------
        curve_days : ndarray of float64, shape (times,)
            Ascending.

        Returns
        -------
        Objective
            With the same survival curves at those times.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for `objective_from_json`.

        Returns
        -------
        dict
            With the key ``kind``.
        """
