"""How a model does, by site and over all of them, from pairs of patients that never leave their site."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathoml.federated.messages import Message
from pathoml.units import FloatArray

LEAST_EVENTS = 10
"""Of fewer events a bootstrap interval is too narrow: two models that are equally good differ by it in 26 % of samples with 1
event, 11 % with 3, 5 % with 8 or more."""


@dataclass(frozen=True)
class SiteScore:
    """How a model does on one site's test patients.

    Parameters
    ----------
    numbers : mapping of str to float
        Patients, events, concordance with its interval, pairs; empty where there are too few to tell.
    concordant, comparable : ndarray of float64, shape (replicates,)
        Pairs in bootstrap samples of the site's patients.
    """

    numbers: Mapping[str, float]
    concordant: FloatArray
    comparable: FloatArray


def score_of(answer: Message) -> SiteScore:
    """Return what a site has told of a model.

    Parameters
    ----------
    answer : Message
        To ``evaluate``, ``personal`` or ``score``.

    Returns
    -------
    SiteScore
        Of its patients.
    """
    return SiteScore(answer.numbers, answer.arrays["replicates.concordant"], answer.arrays["replicates.comparable"])


def scores_to_json(scores: Mapping[str, SiteScore]) -> dict[str, Any]:
    """Return scores by site, and over all sites by their pairs, as plain JSON values.

    Parameters
    ----------
    scores : mapping of str to SiteScore
        By site.

    Returns
    -------
    dict
        ``sites`` with the numbers of each; ``overall`` with concordance over within-site pairs, its 95 % interval (of
        `LEAST_EVENTS` events or more), and the mean over sites.
    """
    told = [one for one in scores.values() if one.numbers.get("comparable") and "concordant" in one.numbers]
    overall: dict[str, float] = {}
    if told:
        above = np.sum([one.concordant for one in told], axis=0)
        below = np.sum([one.comparable for one in told], axis=0)
        ratio = above[below > 0] / below[below > 0]
        pairs = sum(one.numbers["comparable"] for one in told)
        overall = {
            "concordance": sum(one.numbers["concordant"] for one in told) / pairs,
            "mean_over_sites": float(np.mean([one.numbers["concordant"] / one.numbers["comparable"] for one in told])),
            "sites": float(len(told)),
        }  # fmt: skip
        drawn = all(one.comparable.any() for one in told)  # a site may keep its drawings to itself
        if len(ratio) and drawn and sum(_least_events(one) for one in told) >= LEAST_EVENTS:
            low, high = np.quantile(ratio, [0.025, 0.975])
            overall |= {"concordance_low": float(low), "concordance_high": float(high)}
    return {"sites": {name: dict(one.numbers) for name, one in scores.items()}, "overall": overall}


def _least_events(score: SiteScore) -> float:
    """Return the events of a site; of one that does not tell them, so many as its own interval says that there are at least."""
    return score.numbers.get("events", LEAST_EVENTS if "concordance_low" in score.numbers else 0.0)
