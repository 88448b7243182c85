"""Every differentiable survival loss, once. Means over their own denominator; logits in, scalar out."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


def cox_loss(
    log_hazard: Float[Tensor, " n"], event: Bool[Tensor, " n"], time_days: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the negative log partial likelihood of Cox's model per event, ties as Breslow.

    Adding a constant to all log hazards, or reordering the patients, does not change it. A batch without events gives
    a zero that is still connected to the graph.

    Parameters
    ----------
    log_hazard : Tensor, shape (n,)
        Higher is worse; float32 or float64.
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_days : Tensor, shape (n,)
        Follow-up.

    Returns
    -------
    Tensor, shape ()
        Mean over events.

    References
    ----------
    Cox DR. Partial likelihood. Biometrika 62 (1975) 269-276. Breslow NE. Covariance analysis of censored survival
    data. Biometrics 30 (1974) 89-99.
    """
    order = torch.argsort(time_days, descending=True, stable=True)
    log_hazard, event, time_days = log_hazard[order], event[order], time_days[order]
    # The risk set of a patient is everyone followed at least as long: up to the last one of the same time.
    last_of_time = torch.searchsorted(-time_days, -time_days, right=True) - 1
    log_risk_set = torch.logcumsumexp(log_hazard, dim=0)[last_of_time]
    events = event.sum().clamp(min=1)
    return torch.where(event, log_risk_set - log_hazard, 0 * log_hazard).sum() / events


def discrete_hazard_loss(
    logits: Float[Tensor, "n bins"], event: Bool[Tensor, " n"], time_bin: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the negative log likelihood of discrete-time hazards per patient, in logits form.

    Parameters
    ----------
    logits : Tensor, shape (n, bins)
        Logit of the probability of the event in a bin, given none before.
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_bin : Tensor of int64, shape (n,)
        Bin in which follow-up ends. A patient censored in a bin is taken as free of the event through the bins before it.

    Returns
    -------
    Tensor, shape ()
        Mean over patients.

    References
    ----------
    Gensheimer MF, Narasimhan B. A scalable discrete-time survival model for neural networks. PeerJ 7 (2019) e6257,
    equation 3.
    """
    bins = torch.arange(logits.shape[1], device=logits.device)
    before = bins[None, :] < time_bin[:, None]
    at_event = (bins[None, :] == time_bin[:, None]) & event[:, None]
    log_likelihood = torch.where(before, logsigmoid(-logits), 0.0) + torch.where(at_event, logsigmoid(logits), 0.0)
    return -log_likelihood.sum() / len(logits)
