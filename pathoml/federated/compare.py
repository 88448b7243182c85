"""Does joining help? The shared model beside each hospital's own, the pooled one, and one trained without the hospital."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.errors import PathomlError
from pathoml.federated.coordinator import FederationResult
from pathoml.federated.judging import risks_of
from pathoml.federated.plan import Plan
from pathoml.federated.scores import LEAST_EVENTS
from pathoml.federated.scoring import package_at_site
from pathoml.federated.simulate import pool, simulate
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings
from pathoml.mil.patients import select_patients
from pathoml.packages import Package
from pathoml.progress import Progress, silent
from pathoml.survival.metrics import concordance_sums
from pathoml.train import follow_up
from pathoml.units import FloatArray, IntArray

SHARED, POOLED, LOCAL, WITHOUT = "shared", "pooled", "local", "without"
"""Trained by the network; on all patients in one place; by the hospital alone; by the network without the hospital."""
PAIRS = ((SHARED, LOCAL), (SHARED, POOLED), (WITHOUT, LOCAL), (SHARED, WITHOUT))
BOOTSTRAPS = 1000
_ANYBODY = LimitsSettings(public_benchmark=True)


@dataclass(frozen=True)
class Compared:
    """Concordance of one model, or the difference of two, on the same bootstrap samples.

    Parameters
    ----------
    value, low, high : float
        Point and 95 % interval over patients, conditional on the fitted models; NaN where no pair can be compared, and the
        interval of fewer than `pathoml.federated.scores.LEAST_EVENTS` events.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What joining does for each site and for the network.

    Parameters
    ----------
    patients, events : mapping of str to int
        Test patients of each site.
    sites : mapping of str to mapping of str to Compared
        Site -> model, or pair of models as ``shared - local``.
    overall : mapping of str to Compared
        Over within-site pairs of all sites.
    gives : mapping of str to Compared
        What the other sites gain by a site's joining: the shared model minus the one trained without that site, over within-site
        pairs of the others.
    impossible : mapping of str to str
        Models that could not be trained, and why.
    """

    patients: Mapping[str, int]
    events: Mapping[str, int]
    sites: Mapping[str, Mapping[str, Compared]]
    overall: Mapping[str, Compared]
    gives: Mapping[str, Compared]
    impossible: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values.

        Returns
        -------
        dict
            For comparison.json; null where nothing can be said.
        """

        def plain(one: Compared) -> dict[str, float | None]:
            return {name: value if np.isfinite(value) else None for name, value in vars(one).items()}

        return {
            "sites": {
                site: {"patients": self.patients[site], "events": self.events[site],
                       "models": {name: plain(one) for name, one in models.items()}}
                for site, models in self.sites.items()
            },
            "overall": {name: plain(one) for name, one in self.overall.items()},
            "gives": {name: plain(one) for name, one in self.gives.items()},
            "impossible": dict(self.impossible), "bootstraps": BOOTSTRAPS, "least_events": LEAST_EVENTS,
            "conditional_on": "the fitted models: patients are drawn again, models are not fitted again",
        }  # fmt: skip


@dataclass
class _Sums:
    """Pairs of one model at one site: at the patients as they are, and at bootstrap samples of them; events among them."""

    events: int
    point: tuple[float, float]
    samples: tuple[FloatArray, FloatArray]


@dataclass
class _Trained:
    risks: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    without: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)


def compare(
    plan: Plan, parts: Mapping[str, SiteData], folder: Path, *,
    limits: LimitsSettings | Mapping[str, LimitsSettings] = DEFAULT_LIMITS, device: str = "cpu", progress: Progress = silent,
) -> tuple[FederationResult, Comparison]:  # fmt: skip
    """Train the shared model and those that it is compared with, all by the same code, and judge them on the same patients.

    Parameters
    ----------
    plan : Plan
        What the sites agree on.
    parts : mapping of str to SiteData
        The sites' patients.
    folder : Path
        Each training has a folder in it.
    limits : LimitsSettings or mapping of str to LimitsSettings, optional
        What every site enforces in the shared training, or each.
    device : str, optional
        ``cpu`` or ``cuda``.
    progress : Progress, optional
        Told after each training.

    Returns
    -------
    tuple of FederationResult and Comparison
        The shared model's result, and what joining does.
    """
    steps = 2 + (2 * len(parts) if len(parts) > 1 else 0)
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        progress("federation", done, steps)

    trained = _Trained()
    result = simulate(plan, parts, folder / SHARED, limits=limits, device=device)
    trained.risks[SHARED] = {name: risks_at(result.package, plan, data) for name, data in parts.items()}
    told()

    def attempt(label: str, which: Mapping[str, SiteData], on: Mapping[str, SiteData]) -> dict[str, FloatArray]:
        alone = plan.model_copy(update={"sites": tuple(which), "quorum": min(plan.quorum, len(which))})
        try:
            package = simulate(alone, which, folder / label, limits=_ANYBODY, device=device).package
            found = {name: risks_at(package, plan, data) for name, data in on.items()}
        except PathomlError as error:
            trained.impossible[label] = str(error)
            found = {}
        told()
        return found

    trained.risks[POOLED] = attempt(POOLED, {"pooled": pool(parts)}, parts)
    if len(parts) > 1:
        trained.risks |= {LOCAL: {}, WITHOUT: {}}
        for name, data in parts.items():
            others = {one: other for one, other in parts.items() if one != name}
            trained.risks[LOCAL] |= attempt(f"{LOCAL}-{name}", {name: data}, {name: data})
            found = attempt(f"{WITHOUT}-{name}", others, parts)
            trained.risks[WITHOUT] |= {name: found[name]} if found else {}
            trained.without[name] = found
    return result, _compared(parts, trained, np.random.default_rng(plan.seed))


def risks_at(package: Package, plan: Plan, data: SiteData) -> FloatArray:
    """Return the risk of a site's test patients under a package, as the site itself would.

    Parameters
    ----------
    package : Package
        Of one member.
    plan : Plan
        Whether tiles are standardised by the site's own.
    data : SiteData
        The site.

    Returns
    -------
    ndarray of float64, shape (test patients,)
        Higher is worse.
    """
    tiles = select_patients(data.cohort, data.features, data.train).features
    return risks_of(package_at_site(package, plan, tiles).members[0], data, data.test)


def _compared(parts: Mapping[str, SiteData], trained: _Trained, dealer: np.random.Generator) -> Comparison:
    sums: dict[str, dict[str, _Sums]] = {}
    patients, events = {}, {}
    for name, data in parts.items():
        time_days, event = follow_up(data.cohort, data.test)
        patients[name], events[name] = len(event), int(event.sum())
        drawn = dealer.multinomial(len(event), np.full(len(event), 1 / len(event)), size=BOOTSTRAPS).astype(np.float64)
        told = {model: risks[name] for model, risks in trained.risks.items() if name in risks}
        told |= {_without(left): risks[name] for left, risks in trained.without.items() if name in risks}
        sums[name] = {model: _sums(time_days, event, risk, drawn) for model, risk in told.items()}
    single = {
        name: {model: one for model, one in models.items() if model in trained.risks} for name, models in sums.items()
    }
    everywhere = [model for model in trained.risks if all(model in models for models in sums.values())]
    gives = {name: _gain_of_others(sums, name) for name, found in trained.without.items() if found}
    return Comparison(
        patients, events, {name: _ratios(models) for name, models in single.items()},
        _ratios({model: _added(sums, model) for model in everywhere}), gives, trained.impossible,
    )  # fmt: skip


def _without(site: str) -> str:
    return f"{WITHOUT}-{site}"


def _sums(time_days: FloatArray, event: IntArray, risk: FloatArray, drawn: FloatArray) -> _Sums:
    above, below = concordance_sums(time_days, event, risk, np.ones((1, len(event))))
    drawn_sums = concordance_sums(time_days, event, risk, drawn)
    return _Sums(int(event.sum()), (float(above[0]), float(below[0])), drawn_sums)


def _gain_of_others(sums: Mapping[str, Mapping[str, _Sums]], site: str) -> Compared:
    """Return what the network without a site gains by its joining, judged on the network's own patients."""
    others = {name: {SHARED: one[SHARED], WITHOUT: one[_without(site)]} for name, one in sums.items() if name != site}
    return _ratios({model: _added(others, model) for model in (SHARED, WITHOUT)})[f"{SHARED} - {WITHOUT}"]


def _added(sums: Mapping[str, Mapping[str, _Sums]], model: str) -> _Sums:
    parts = [one[model] for one in sums.values()]
    point = (sum(one.point[0] for one in parts), sum(one.point[1] for one in parts))
    above, below = (np.stack([one.samples[k] for one in parts]).sum(axis=0) for k in (0, 1))
    return _Sums(sum(one.events for one in parts), point, (above, below))


def _ratios(models: Mapping[str, _Sums]) -> dict[str, Compared]:
    points = {name: _divided(np.array([one.point[0]]), np.array([one.point[1]])) for name, one in models.items()}
    samples = {name: _divided(*one.samples) for name, one in models.items()}
    found = {name: _with_interval(points[name], samples[name], one.events) for name, one in models.items()}
    for first, second in PAIRS:
        if first in models and second in models:
            found[f"{first} - {second}"] = _with_interval(
                points[first] - points[second], samples[first] - samples[second], models[first].events
            )
    return found


def _divided(above: FloatArray, below: FloatArray) -> FloatArray:
    ratio: FloatArray = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def _with_interval(point: FloatArray, samples: FloatArray, events: int) -> Compared:
    known = samples[np.isfinite(samples)]
    if not np.isfinite(point[0]) or len(known) == 0 or events < LEAST_EVENTS:
        return Compared(float(point[0]), float("nan"), float("nan"))
    low, high = np.quantile(known, [0.025, 0.975])
    return Compared(float(point[0]), float(low), float(high))
