"""What noised releases cost: epsilon at delta, by Renyi divergences as Opacus computes them; torch-free until it is asked."""

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pathoml.errors import FederationError
from pathoml.extras import install_words
from pathoml.units import FloatArray

_ORDERS = (
    *(1 + step / 10 for step in range(1, 100)),
    *map(float, range(11, 64)),
    72.0,
    96.0,
    128.0,
    192.0,
    256.0,
    512.0,
)
_LEAST_NOISE, _MOST_NOISE = 0.2, 1e5
_PRECISION = 1e-4


@dataclass(frozen=True)
class Release:
    """A sum over patients, noised, that was let out so many times.

    Each patient takes part with the same chance, drawn anew each time and kept secret; one patient's share is no longer
    than a bound.

    Parameters
    ----------
    sample_rate : float
        That chance; 1 if all take part.
    noise_multiplier : float
        Standard deviation of the noise over the bound.
    times : int
        How often.
    """

    sample_rate: float
    noise_multiplier: float
    times: int


def joint_noise(*noise_multipliers: float) -> float:
    """Return the noise multiplier of several sums over the same patients let out together.

    Parameters
    ----------
    *noise_multipliers : float
        Of each sum.

    Returns
    -------
    float
        Of one sum that tells as much. Gaussian noise of s_1, s_2, ... on values of bound 1 each hides as much as noise of
        (1/s_1^2 + 1/s_2^2 + ...)^(-1/2) on their scaled joint vector, whose bound is 1.
    """
    return sum(one**-2 for one in noise_multipliers) ** -0.5 if all(noise_multipliers) else 0.0


def epsilon_of(releases: Sequence[Release], delta: float) -> float:
    """Return what a series of releases costs together.

    Parameters
    ----------
    releases : sequence of Release
        All that left, in any order.
    delta : float
        Chance with which epsilon may fail.

    Returns
    -------
    float
        Upper bound of epsilon for one patient more or less, however each release depended on those before; infinite without
        noise.

    Raises
    ------
    FederationError
        If the package opacus is not installed.

    References
    ----------
    Mironov I, Talwar K, Zhang L. Renyi differential privacy of the sampled Gaussian mechanism. arXiv:1908.10530 (2019),
    section 3.3; to epsilon by Balle B et al. Hypothesis testing interpretations and Renyi differential privacy. AISTATS
    2020, theorem 21.
    """
    done = [one for one in releases if one.times]
    if not done:
        return 0.0
    if any(one.noise_multiplier < _LEAST_NOISE for one in done):
        return math.inf  # so little noise that no epsilon worth the name comes out, and sums that no longer converge
    total = sum(one.times * _divergences(one.sample_rate, one.noise_multiplier) for one in done)
    with warnings.catch_warnings():  # it warns where the best order is the last one: the bound holds all the same
        warnings.simplefilter("ignore", UserWarning)
        epsilon, _ = _opacus().get_privacy_spent(orders=list(_ORDERS), rdp=total, delta=delta)
    return max(float(epsilon), 0.0)


def noise_for(epsilon: float, delta: float, planned: Callable[[float], Sequence[Release]]) -> float:
    """Return the least noise with which everything that is planned stays within a budget.

    Parameters
    ----------
    epsilon : float
        The budget.
    delta : float
        Chance with which epsilon may fail.
    planned : callable
        Noise multiplier -> all releases that are planned with it.

    Returns
    -------
    float
        Noise multiplier, to a ten-thousandth, rounded up.

    Raises
    ------
    FederationError
        If no noise is enough, because releases whose noise is fixed spend more than the budget already.
    """
    high = 1.0
    while epsilon_of(planned(high), delta) > epsilon:
        high *= 2
        if high > _MOST_NOISE:
            raise FederationError(
                f"privacy: no noise keeps the plan within epsilon {epsilon:g}; release fewer metrics, with more noise "
                "(privacy.metric_noise), or allow a larger epsilon"
            )
    low = _LEAST_NOISE
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if epsilon_of(planned(middle), delta) <= epsilon else (middle, high)
    return high


@lru_cache(maxsize=4096)
def _divergences(sample_rate: float, noise_multiplier: float) -> FloatArray:
    """Return the Renyi divergence of one release, one number an order."""
    found = _opacus().compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(_ORDERS))
    return np.asarray(found, dtype=np.float64)


def _opacus() -> Any:
    """Load what counts; only a plan with privacy needs it."""
    try:
        import opacus  # noqa: F401
    except ImportError as error:
        raise FederationError(
            f"privacy: the package opacus, which counts what is spent, is not here; {install_words('federated')}"
        ) from error
    return importlib.import_module("opacus.accountants.analysis.rdp")
