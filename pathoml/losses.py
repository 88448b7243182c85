"""Every differentiable survival loss, once. Means over their own denominator; logits in, scalar out."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

Ties = Literal["breslow", "efron"]

_PAIRS_AT_ONCE = 4_000_000


def cox_loss(
    log_hazard: Float[Tensor, " n"],
    event: Bool[Tensor, " n"],
    time_days: Float[Tensor, " n"],
    *,
    ties: Ties = "breslow",
    stratum: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Return the negative log partial likelihood of Cox's model per event.

    Adding a constant to all log hazards, or reordering the patients, does not change it. A batch without events gives
    a zero that is still connected to the graph.

    Parameters
    ----------
    log_hazard : Tensor, shape (n,)
        Higher is worse; float32 or float64, and the loss is of the same kind.
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_days : Tensor, shape (n,)
        Follow-up.
    ties : str, optional
        Whether events at the same time are taken one by one after another's risk set (``breslow``), or with those that
        had it before them partly removed (``efron``), which is nearer to the truth where many are tied.
    stratum : Tensor of int64, shape (n,), optional
        Patients are compared within strata only; each has its own baseline hazard.

    Returns
    -------
    Tensor, shape ()
        Mean over all events.

    References
    ----------
    Cox DR. Partial likelihood. Biometrika 62 (1975) 269-276. Breslow NE. Covariance analysis of censored survival
    data. Biometrics 30 (1974) 89-99. Efron B. The efficiency of Cox's likelihood function for censored data. J Am Stat
    Assoc 72 (1977) 557-565.
    """
    groups = [slice(None)] if stratum is None else [stratum == one for one in torch.unique(stratum)]
    total = sum(
        (_cox_sum(log_hazard[one], event[one], time_days[one], ties) for one in groups), start=0 * log_hazard.sum()
    )
    return total / event.sum().clamp(min=1)


def cause_specific_cox_loss(
    log_hazards: Float[Tensor, "n causes"],
    cause: Int[Tensor, " n"],
    time_days: Float[Tensor, " n"],
    *,
    ties: Ties = "breslow",
) -> Float[Tensor, ""]:
    """Return the negative log partial likelihood of one Cox model for each cause, per event of any cause.

    Parameters
    ----------
    log_hazards : Tensor, shape (n, causes)
        One column a cause.
    cause : Tensor of int64, shape (n,)
        0 censored, 1 to ``causes`` what happened first; an event of another cause censors.
    time_days : Tensor, shape (n,)
        Follow-up.
    ties : str, optional
        As in `cox_loss`.

    Returns
    -------
    Tensor, shape ()
        Mean over events of all causes.

    References
    ----------
    Prentice RL et al. The analysis of failure times in the presence of competing risks. Biometrics 34 (1978) 541-554.
    """
    sums = [
        _cox_sum(column, cause == number, time_days, ties)
        for number, column in enumerate(log_hazards.unbind(dim=1), start=1)
    ]
    return torch.stack(sums).sum() / (cause > 0).sum().clamp(min=1)


def _cox_sum(log_hazard: Tensor, event: Tensor, time_days: Tensor, ties: Ties) -> Tensor:
    """Return the negative log partial likelihood, summed over events."""
    order = torch.argsort(time_days, descending=True, stable=True)
    log_hazard, event, time_days = log_hazard[order], event[order], time_days[order]
    # The risk set of a patient is everyone followed at least as long: up to the last one of the same time.
    last_of_time = torch.searchsorted(-time_days, -time_days, right=True) - 1
    at_risk = torch.logcumsumexp(log_hazard, dim=0)[last_of_time]
    if ties == "efron":
        at_risk = at_risk + _log_share_left(log_hazard, event, last_of_time, at_risk)
    return torch.where(event, at_risk - log_hazard, 0 * log_hazard).sum()


def _log_share_left(log_hazard: Tensor, event: Tensor, last_of_time: Tensor, at_risk: Tensor) -> Tensor:
    """Return the log of what is left of each event's risk set after Efron took a part of those tied with it away."""
    rows = torch.nonzero(event)[:, 0]
    _, group, count = torch.unique_consecutive(last_of_time[rows], return_inverse=True, return_counts=True)
    tied = count[group] > 1
    rows, group = rows[tied], group[tied]
    left = torch.zeros_like(log_hazard)
    if len(rows) == 0:
        return left
    _, group, count = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
    own = log_hazard[rows]
    highest = own.detach().new_full((len(count),), -torch.inf).scatter_reduce(0, group, own.detach(), "amax")
    summed = own.new_zeros(len(count)).index_add(0, group, torch.exp(own - highest[group]))
    log_tied = (torch.log(summed) + highest)[group]
    number = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[group]
    share = number.to(own.dtype) / count[group].to(own.dtype)
    # Those tied are a part of the risk set; of two float32 sums of many the part may come out larger.
    part = torch.exp((log_tied - at_risk[rows]).clamp(max=0))
    return left.index_copy(0, rows, torch.log1p(-share * part))


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
        Bin in which follow-up ends. A patient censored in a bin is taken as free of the event through the bins before it, and
        may have the number of bins, if free through them all.

    Returns
    -------
    Tensor, shape ()
        Mean over patients.

    Raises
    ------
    ValueError
        If an event lies in no bin.

    References
    ----------
    Gensheimer MF, Narasimhan B. A scalable discrete-time survival model for neural networks. PeerJ 7 (2019) e6257,
    equation 3.
    """
    _require_bins(event, time_bin, logits.shape[1])
    bins = torch.arange(logits.shape[1], device=logits.device)
    before = bins[None, :] < time_bin[:, None]
    at_event = (bins[None, :] == time_bin[:, None]) & event[:, None]
    log_likelihood = torch.where(before, logsigmoid(-logits), 0.0) + torch.where(at_event, logsigmoid(logits), 0.0)
    return -log_likelihood.sum() / len(logits)


def pmf_loss(
    logits: Float[Tensor, "n bins"], event: Bool[Tensor, " n"], time_bin: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the negative log likelihood of a probability for each time bin, and of surviving them all, per patient.

    Parameters
    ----------
    logits : Tensor, shape (n, bins)
        Before a softmax together with a zero for surviving all bins.
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_bin : Tensor of int64, shape (n,)
        Bin in which follow-up ends. A patient censored in a bin is taken as free of the event through the bins before it, and
        may have the number of bins, if free through them all.

    Returns
    -------
    Tensor, shape ()
        Mean over patients.

    Raises
    ------
    ValueError
        If an event lies in no bin.

    References
    ----------
    Kvamme H, Borgan O. Continuous and discrete-time survival prediction with neural networks. Lifetime Data Anal 27 (2021)
    710-736, section 2.2.
    """
    _require_bins(event, time_bin, logits.shape[1])
    return -_log_likelihood(_log_pmf(logits), event, time_bin).mean()


def _require_bins(event: Tensor, time_bin: Tensor, bins: int) -> None:
    """Refuse events behind the last bin, which would count as survival, and bins below 0."""
    wrong = (time_bin < 0) | (time_bin > bins) | (event & (time_bin == bins))
    if bool(wrong.any()):
        raise ValueError(
            f"time_bin {int(time_bin[wrong][0])}: events lie in bins 0 to {bins - 1}, only who is censored may have {bins}"
        )


def mtlr_loss(
    logits: Float[Tensor, "n bins"], event: Bool[Tensor, " n"], time_bin: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the negative log likelihood of multi-task logistic regression per patient.

    Parameters
    ----------
    logits : Tensor, shape (n, bins)
        One a bin; those of a bin and all later ones are summed to its score.
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_bin : Tensor of int64, shape (n,)
        As in `pmf_loss`.

    Returns
    -------
    Tensor, shape ()
        Mean over patients.

    References
    ----------
    Yu CN et al. Learning patient-specific cancer survival distributions as a sequence of dependent regressors. NeurIPS 2011.
    """
    return pmf_loss(mtlr_scores(logits), event, time_bin)


def mtlr_scores(logits: Float[Tensor, "n bins"]) -> Float[Tensor, "n bins"]:
    """Sum each bin's logit with those of all later bins.

    Parameters
    ----------
    logits : Tensor, shape (n, bins)
        Of multi-task logistic regression.

    Returns
    -------
    Tensor, shape (n, bins)
        Logits for `pmf_loss`.
    """
    return logits.flip(1).cumsum(1).flip(1)


def deep_hit_loss(
    logits: Float[Tensor, "n causes bins"],
    cause: Int[Tensor, " n"],
    time_bin: Int[Tensor, " n"],
    *,
    likelihood_share: float = 0.2,
    scale: float = 0.1,
) -> Float[Tensor, ""]:
    """Return DeepHit's loss: likelihood of cause and bin, and ranking of cumulative incidences, per patient.

    Parameters
    ----------
    logits : Tensor, shape (n, causes, bins)
        Before a softmax over all causes and bins together with a zero for none of them.
    cause : Tensor of int64, shape (n,)
        0 censored, 1 to ``causes`` what happened first.
    time_bin : Tensor of int64, shape (n,)
        Bin in which follow-up ends. A patient censored in a bin is taken as free of any event through the bins before it, and
        may have the number of bins, if free through them all.
    likelihood_share : float, optional
        Weight of the likelihood; the ranking has the rest.
    scale : float, optional
        Difference of incidences that counts.

    Returns
    -------
    Tensor, shape ()
        Mean over patients, of the ranking over all pairs.

    References
    ----------
    Lee C et al. DeepHit: a deep learning approach to survival analysis with competing risks. AAAI 2018, equations 2 to 5; in the
    form of Kvamme H, Borgan O, Scheel I. Time-to-event prediction with neural networks and Cox regression. JMLR 20 (2019) 129.
    """
    count, causes, bins = logits.shape
    log_pmf = _log_pmf(logits.reshape(count, causes * bins))
    inside, beyond = log_pmf[:, :-1].reshape(count, causes, bins), log_pmf[:, -1:]
    at_event = inside[torch.arange(count), (cause - 1).clamp(min=0), time_bin.clamp(max=bins - 1)]
    later = torch.arange(bins, device=logits.device)[None, None, :] >= time_bin[:, None, None]
    free = torch.cat([inside.masked_fill(~later, -torch.inf).flatten(1), beyond], dim=1).logsumexp(dim=1)
    likelihood = -torch.where(cause > 0, at_event, free).mean()
    incidence = inside.exp().cumsum(dim=2)
    ranking = sum(
        (
            _incidence_ranking(incidence[:, number - 1], cause, number, time_bin, scale)
            for number in range(1, causes + 1)
        ),
        start=0 * likelihood,
    )
    return likelihood_share * likelihood + (1 - likelihood_share) * ranking


def _incidence_ranking(incidence: Tensor, cause: Tensor, number: int, time_bin: Tensor, scale: float) -> Tensor:
    """Return how much those with an event have less incidence by then than those who went on, over all pairs."""
    count = len(cause)
    with_event = torch.nonzero(cause == number)[:, 0]
    total = 0 * incidence.sum()
    for rows in with_event.split(max(1, _PAIRS_AT_ONCE // max(count, 1))):  # type: ignore[no-untyped-call]
        own = incidence[rows, time_bin[rows]]
        others = incidence[:, time_bin[rows]].T
        longer = time_bin[None, :] > time_bin[rows, None]  # who is censored in the same bin may have been so before
        total = total + torch.where(longer, torch.exp((others - own[:, None]) / scale), 0.0).sum()
    return total / count**2


def ranking_loss(
    risk: Float[Tensor, " n"], event: Bool[Tensor, " n"], time_days: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the logistic loss of all pairs of which it is known who had the event first: a smooth concordance.

    Parameters
    ----------
    risk : Tensor, shape (n,)
        Higher is worse.
    event : Tensor of bool, shape (n,)
        True event, False censored.
    time_days : Tensor, shape (n,)
        Follow-up; a pair counts if the shorter ended with the event.

    Returns
    -------
    Tensor, shape ()
        Mean over pairs; a zero connected to the graph if there are none.

    References
    ----------
    Raykar VC et al. On ranking in survival analysis: bounds on the concordance index. NeurIPS 2007, equation 15.
    """
    total, pairs = 0 * risk.sum(), torch.zeros((), dtype=torch.int64, device=risk.device)
    for rows in torch.nonzero(event)[:, 0].split(max(1, _PAIRS_AT_ONCE // max(len(risk), 1))):  # type: ignore[no-untyped-call]
        longer = time_days[None, :] > time_days[rows, None]
        total = total + torch.where(longer, softplus(risk[None, :] - risk[rows, None]), 0.0).sum()
        pairs = pairs + longer.sum()
    return total / pairs.clamp(min=1)


def _log_pmf(logits: Tensor) -> Tensor:
    """Return log probabilities of the bins and, in a last column, of surviving them all."""
    return torch.log_softmax(torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1), dim=1)


def _log_likelihood(log_pmf: Tensor, event: Tensor, time_bin: Tensor) -> Tensor:
    at_event = log_pmf.gather(1, time_bin[:, None])[:, 0]
    later = torch.arange(log_pmf.shape[1], device=log_pmf.device)[None, :] >= time_bin[:, None]
    free = log_pmf.masked_fill(~later, -torch.inf).logsumexp(dim=1)
    return torch.where(event, at_event, free)
