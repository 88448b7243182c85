"""How the coordinator joins what sites send: pure functions on named arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pathoml.federated.method_settings import (
    Adaptive,
    Aggregation,
    FedAdagradSettings,
    FedAdamSettings,
    FedYogiSettings,
    ScaffoldSettings,
)
from pathoml.units import AnyArray, FloatArray

Arrays = Mapping[str, AnyArray]


@dataclass(frozen=True)
class ServerState:
    """What the coordinator remembers from round to round besides the model.

    Parameters
    ----------
    first, second : mapping of str to ndarray of float64
        Decayed mean of updates and of their squares; empty before the first round, and for plain means.
    control : mapping of str to ndarray of float64
        SCAFFOLD's shared control variate; empty for others.
    """

    first: Mapping[str, FloatArray] = field(default_factory=dict)
    second: Mapping[str, FloatArray] = field(default_factory=dict)
    control: Mapping[str, FloatArray] = field(default_factory=dict)


def weighted_mean(models: Sequence[Arrays], weights: Sequence[float]) -> dict[str, AnyArray]:
    """Return the weighted mean of named arrays.

    Parameters
    ----------
    models : sequence of mapping of str to ndarray
        The same names and shapes in each.
    weights : sequence of float
        Not negative, not all 0.

    Returns
    -------
    dict of str to ndarray
        Computed in float64, of the arrays' own type; the mean of one is that one, bit for bit.

    References
    ----------
    McMahan B et al. Communication-efficient learning of deep networks from decentralized data. AISTATS 2017, algorithm 1.
    """
    total = float(np.sum(weights))
    if total <= 0:
        raise ValueError("weights must not be all zero")
    if len(models) == 1:
        return {name: np.array(array) for name, array in models[0].items()}
    return {
        name: sum(
            (np.asarray(model[name], dtype=np.float64) * (weight / total) for model, weight in zip(models, weights, strict=True)),
            start=np.zeros(first.shape),
        ).astype(first.dtype)
        for name, first in models[0].items()
    }  # fmt: skip


def aggregate(
    settings: Aggregation, current: Arrays, mean: Arrays, state: ServerState
) -> tuple[dict[str, AnyArray], ServerState]:
    """Take the coordinator's step of one round.

    Parameters
    ----------
    settings : settings of an aggregation
        Which.
    current : mapping of str to ndarray
        The model that was sent.
    mean : mapping of str to ndarray
        Weighted mean of what came back.
    state : ServerState
        After the round before.

    Returns
    -------
    tuple of dict and ServerState
        The next model, and what to remember.

    References
    ----------
    Reddi SJ et al. Adaptive federated optimization. ICLR 2021, algorithm 2.
    """
    if not isinstance(settings, Adaptive):
        return {name: np.array(array) for name, array in mean.items()}, state
    following: dict[str, AnyArray] = {}
    first: dict[str, FloatArray] = {}
    second: dict[str, FloatArray] = {}
    for name, array in current.items():
        update = np.asarray(mean[name], dtype=np.float64) - np.asarray(array, dtype=np.float64)
        before = state.second.get(name, np.full(array.shape, settings.adaptivity**2))
        old = state.first.get(name, np.zeros(array.shape))
        first[name] = settings.first_decay * old + (1 - settings.first_decay) * update
        second[name] = _second_moment(settings, before, update**2)
        step = settings.server_rate * first[name] / (np.sqrt(second[name]) + settings.adaptivity)
        following[name] = (np.asarray(array, dtype=np.float64) + step).astype(array.dtype)
    return following, ServerState(first, second, state.control)


def _second_moment(settings: Adaptive, before: FloatArray, square: FloatArray) -> FloatArray:
    decay = settings.second_decay
    if isinstance(settings, FedAdagradSettings):
        return before + square
    if isinstance(settings, FedYogiSettings):
        return before - (1 - decay) * square * np.sign(before - square)
    assert isinstance(settings, FedAdamSettings)
    return decay * before + (1 - decay) * square


def next_control(
    settings: Aggregation,
    control: Mapping[str, FloatArray],
    changes: Sequence[Arrays],
    weights: Sequence[float],
    totals: tuple[float, float],
) -> dict[str, FloatArray]:
    """Return SCAFFOLD's shared control variate after a round.

    Parameters
    ----------
    settings : settings of an aggregation
        Others than SCAFFOLD leave it as it is.
    control : mapping of str to ndarray
        Before the round.
    changes : sequence of mapping of str to ndarray
        By how much each site that answered changed its own.
    weights : sequence of float
        Of these sites.
    totals : tuple of float
        Weight of all sites that have ever answered, before this round and after it.

    Returns
    -------
    dict of str to ndarray of float64
        The mean of the sites' own, weighted as their models are: only then do sites stop where the weighted loss is lowest.

    References
    ----------
    Karimireddy SP et al. SCAFFOLD: stochastic controlled averaging for federated learning. ICML 2020, algorithm 1, whose sites
    weigh the same.
    """
    if not isinstance(settings, ScaffoldSettings) or not changes:
        return dict(control)
    names = changes[0].keys()
    return {
        name: control.get(name, np.zeros(changes[0][name].shape)) * (totals[0] / totals[1])
        + sum(
            (
                np.asarray(change[name], dtype=np.float64) * (weight / totals[1])
                for change, weight in zip(changes, weights, strict=True)
            ),
            start=np.zeros(changes[0][name].shape),
        )
        for name in names
    }  # fmt: skip
