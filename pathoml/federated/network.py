"""What the coordinator asks of a network, and how it holds the answers against what was asked."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.bags import FeatureSpec
from pathoml.errors import FederationError, RefusalCode
from pathoml.federated.guard import COUNTS, accept, allowed_answer
from pathoml.federated.judging import calibrated, centred_by_plan, member_of
from pathoml.federated.linear import LinearTerms, add_terms, newton_step, penalised
from pathoml.federated.messages import Message, from_bytes
from pathoml.federated.method_settings import MOST_POINTS
from pathoml.federated.plan import FixedBins, Plan
from pathoml.federated.preprocessing import (
    Spread,
    add_sums,
    edges_from_counts,
    given_transform,
    mean_of,
    spread_of,
    transform_of,
)
from pathoml.federated.requests import kinds_asked
from pathoml.federated.scores import SiteScore, score_of
from pathoml.federated.setup import Setup
from pathoml.federated.transport import Transport
from pathoml.files import append_line
from pathoml.mil.projection import TileProjection, TileSums, as_they_are, principal_components, projection_of
from pathoml.packages import Member, Package
from pathoml.provenance import pathoml_version
from pathoml.train_settings import CoxLossSettings
from pathoml.units import AnyArray, FloatArray

logger = logging.getLogger(__name__)
_TRIES = 4
_ASKS_AGAIN_S = 5.0
_OF_TIME = 10
"""Waiting for sites that are away takes at most one part in so many of a run."""
_NO_ANSWER = "no answer"
_OTHERWISE = "raise train.covariate_ridge, take fewer time bins, or method.kind: rounds with start: zero"
_SHORTEST, _LOSS_TOLERANCE = 1e-3, 1e-12
"""Part of a Newton step that is tried at least, and by what part a loss may rise for rounding."""


COORDINATOR_LOG = "coordinator.jsonl"
"""In the folder of a run: who said no, or nothing that could be used."""


class _SiteLeftError(FederationError):
    """Sums of several requests would be of different sites."""

    def __init__(self, sites: Sequence[str]) -> None:
        super().__init__(f"site(s) {', '.join(sites)} left between two sums")
        self.sites = tuple(sites)


class Network:
    """The sites as the coordinator asks them; it keeps a log of who did not answer, and why.

    Parameters
    ----------
    plan : Plan
        What the sites agreed on.
    transport : Transport
        The wires.
    output : Path
        Folder for the log.
    """

    def __init__(self, plan: Plan, transport: Transport, output: Path) -> None:
        self.plan, self._transport, self._log = plan, transport, output / COORDINATOR_LOG
        self._setup: dict[str, AnyArray] = {}
        self._set_up: set[str] = set()
        self._too_few: set[str] = set()
        self._counted: dict[str, tuple[float, ...]] = {}
        self._why: dict[str, str] = {}
        self._leave_alone_until: dict[str, float] = {}
        self._points = 0

    def ask(self, request: Message, sites: Sequence[str] | None = None) -> dict[str, Message]:
        """Send a request to sites, all by default, and return the answers that are as they should be.

        Parameters
        ----------
        request : Message
            The same for all.
        sites : sequence of str, optional
            Who is asked.

        Returns
        -------
        dict of str to Message
            By site; what is wrong with the others is in the log.
        """
        asked = tuple(self._transport.sites if sites is None else sites)
        answers: dict[str, Message] = {}
        self._why = {}
        got = self._transport.exchange(request, asked, self.plan.quorum)
        for name in asked:
            if name not in got:
                self._note(request, name, _NO_ANSWER)
                self._set_up.discard(name)
                continue
            try:
                answer = from_bytes(got[name])
                if answer.code:
                    self._note(request, name, answer.code)
                    if answer.code == RefusalCode.NOT_APPROVED:
                        self._leave_alone_until[name] = time.monotonic() + _ASKS_AGAIN_S
                    if answer.code == RefusalCode.TOO_FEW_PATIENTS:
                        self._too_few.add(name)
                    else:
                        self._set_up.discard(name)
                    continue
                accept(answer, request, allowed_answer(request, self.plan))
                self._require_same_counts(name, answer)
                answers[name] = answer
            except FederationError as error:
                self._note(request, name, f"refused here: {error}")
        return answers

    def _require_same_counts(self, site: str, answer: Message) -> None:
        """Refuse a site that says in one round that it has so many training patients, and in another so many."""
        if answer.kind in ("join", "train"):
            counts = tuple(answer.numbers[name] for name in sorted(COUNTS & answer.numbers.keys()))
            if self._counted.setdefault(site, counts) != counts:
                raise FederationError(f"training events and patients {counts}, and {self._counted[site]} before")

    def need(self, request: Message, sites: Sequence[str] | None = None) -> dict[str, Message]:
        """Ask, and stop if fewer sites than the quorum give a good answer.

        Parameters
        ----------
        request : Message
            The same for all.
        sites : sequence of str, optional
            Who is asked.

        Returns
        -------
        dict of str to Message
            By site.

        Raises
        ------
        FederationError
            With how many answered.
        """
        answers = self.ask(request, sites)
        if len(answers) < self.plan.quorum:
            why = "; ".join(f"{site}: {what}" for site, what in self._why.items())
            raise FederationError(
                f"{request.kind}, round {request.round_number}: {len(answers)} of {len(self._transport.sites)} sites gave an "
                f"answer that can be used, and the quorum is {self.plan.quorum} ({why or 'the others were not asked'})"
            )
        return answers

    def message(self, kind: str, arrays: Mapping[str, AnyArray] | None = None, number: int = 0) -> Message:
        """Return a request of this plan.

        Parameters
        ----------
        kind : str
            What is asked.
        arrays : mapping of str to ndarray, optional
            What is sent along.
        number : int, optional
            The round.

        Returns
        -------
        Message
            To be sent.
        """
        return Message(kind, self.plan.digest, number, arrays or {})

    def use(self, setup: Setup) -> None:
        """Give the sites what they share before training.

        Parameters
        ----------
        setup : Setup
            Transforms and time bins.
        """
        self._setup = setup.to_arrays(self.plan)
        self._set_up = set()
        self.ready()

    def ready(self) -> list[str]:
        """Return the sites that have the setup, after sending it to those that do not: one that was away may be back.

        Returns
        -------
        list of str
            In the order of the network.
        """
        missing = [name for name in self._transport.sites if name not in self._set_up and self._may_be_asked(name)]
        if missing:
            began = time.monotonic()
            self._set_up |= set(self.ask(self.message("setup", self._setup), missing))
            now = time.monotonic()
            away = {
                name: now + (_OF_TIME - 1) * (now - began) for name, what in self._why.items() if what == _NO_ANSWER
            }
            self._leave_alone_until |= away
        return [name for name in self._transport.sites if name in self._set_up]

    def _may_be_asked(self, site: str) -> bool:
        """Leave a site alone for a while that has not approved the plan, whose staff type, or is away, and holds up the others."""
        return time.monotonic() >= self._leave_alone_until.get(site, 0.0)

    def trainers(self) -> list[str]:
        """Return the sites that have the setup and, as far as they have said, enough patients to train on.

        Returns
        -------
        list of str
            In the order of the network; the others are told the model, and judge it.
        """
        return [name for name in self.ready() if name not in self._too_few]

    def prepare(self) -> Setup:
        """Fit the network's transforms on sums of the sites that take part.

        Returns
        -------
        Setup
            The same that their patients in one place would give.

        Raises
        ------
        FederationError
            If too few sites answer, or sites leave between two sums again and again.
        """
        among = tuple(self._transport.sites)
        for _ in range(_TRIES):
            try:
                return self._prepared(among)
            except _SiteLeftError as error:
                logger.warning("%s; transforms are fitted anew on the others", error)
                among = tuple(name for name in among if name not in error.sites)
        raise FederationError(f"sites left while transforms were fitted, {_TRIES} times; start again when they stay")

    def _prepared(self, among: Sequence[str]) -> Setup:
        plan = self.plan
        sites = list(self.need(self.message("join"), among))
        edges = np.zeros(0)
        if not isinstance(plan.train.loss, CoxLossSettings):
            edges = self._edges(sites)
        if "values" not in kinds_asked(plan):  # the plan has given it all
            return Setup(given_transform(plan), self._projection(sites), edges)
        values = self.need(self.message("values"), sites)
        sites = list(values)
        sums = add_sums([one.arrays for one in values.values()])
        spread = Spread(np.zeros(0), np.ones(0))
        if "squares" in kinds_asked(plan):
            squares = self._same(self.message("squares", {"numbers.mean": mean_of(sums)}), sites)
            spread = spread_of(sums, add_sums([one.arrays for one in squares.values()]))
        products: dict[str, AnyArray] = {}
        if any(one.kind == "block" for one in plan.covariates):
            asked = self.message("products", {"numbers.mean": spread.mean, "numbers.scale": spread.scale})
            products = add_sums([one.arrays for one in self._same(asked, sites).values()])
        return Setup(transform_of(plan, sums, spread, products), self._projection(sites), edges)

    def _same(self, request: Message, sites: Sequence[str]) -> dict[str, Message]:
        """Ask the sites whose sums are in already: without one of them the sums would not fit together."""
        answers = self.need(request, sites)
        gone = [name for name in sites if name not in answers]
        if gone:
            raise _SiteLeftError(gone)
        return answers

    def _edges(self, sites: Sequence[str]) -> FloatArray:
        bins = self.plan.bins
        if isinstance(bins, FixedBins):
            return np.asarray(bins.edges_days, dtype=np.float64)
        counts = add_sums([one.arrays for one in self.need(self.message("times"), sites).values()])["times.events"]
        return edges_from_counts(counts, np.asarray(self.plan.grid), bins.bins)

    def _projection(self, sites: Sequence[str]) -> TileProjection | None:
        if self.plan.features is None:
            return None
        if self.plan.features.scaling == "none":
            return as_they_are(self.plan.features.dim)
        sums = add_sums([one.arrays for one in self.need(self.message("tiles"), sites).values()])
        count = int(sums["tiles.count"][0])
        components = self.plan.model.tile_components
        tiles = TileSums(count, sums["tiles.total"], sums["tiles.products"])
        if self.plan.features.scaling == "network":
            return projection_of(tiles, components)
        shared = projection_of(tiles, None)  # for hospitals that have no tiles of their own yet to be standardised by
        if components is None:
            return shared
        return replace(shared, components=principal_components(sums["tiles.standard"] / count, components, count))

    def linear(self, setup: Setup, ridge: float, tolerance: float, steps: int) -> FloatArray:
        """Fit the linear model of the covariates by Newton steps, each shortened until the loss falls.

        Parameters
        ----------
        setup : Setup
            Transforms.
        ridge : float
            Of the coefficients, on the summed loss.
        tolerance : float
            Longest step at which it has converged.
        steps : int
            At most.

        Returns
        -------
        ndarray of float64, shape (columns + levels,)
            Coefficients, then levels.

        Raises
        ------
        FederationError
            If it does not converge, or the loss cannot be lowered further while steps are long.
        """
        objective = setup.objective(self.plan)
        columns = len(setup.transform.names)
        self._points = 0
        point = np.zeros(columns + (objective.out if objective.has_level else 0))
        sites, terms = self._terms_of_all(point, columns, ridge)
        for _ in range(steps):
            try:
                step = newton_step(terms)
                moved, following = self._descend(point, step, terms, sites=sites, penalty=(columns, ridge))
            except _SiteLeftError as error:
                logger.warning("%s; those that are there go on from the same point", error)
                sites, terms = self._terms_of_all(point, columns, ridge)
                continue
            point, terms = moved, following
            if np.abs(step).max(initial=0.0) < tolerance:
                return point
        raise FederationError(f"Newton's steps did not converge in {steps}; {_OTHERWISE}")

    def _descend(
        self, point: FloatArray, step: FloatArray, terms: LinearTerms, *, sites: Sequence[str],
        penalty: tuple[int, float],
    ) -> tuple[FloatArray, LinearTerms]:  # fmt: skip
        """Take one step, shortened until the loss falls; as it is where it is too short for a float64 loss to tell."""
        length = 1.0
        while length >= _SHORTEST:
            following = self._terms(point + length * step, sites, *penalty)
            if following.loss <= terms.loss + _LOSS_TOLERANCE * abs(terms.loss):
                return point + length * step, following
            length /= 2
        raise FederationError(
            f"Newton's steps: the loss, {terms.loss:.6g}, falls no further along a step of length {np.linalg.norm(step):.3g}; "
            f"{_OTHERWISE}"
        )

    def _terms_of_all(self, point: FloatArray, columns: int, ridge: float) -> tuple[list[str], LinearTerms]:
        """Ask all that train; who answers takes part from here on."""
        self._count_point()
        answers = self.need(self.message("newton", {"parameters": point}), self.trainers())
        return list(answers), _penalised_sum(answers, point, columns, ridge)

    def _terms(self, point: FloatArray, sites: Sequence[str], columns: int, ridge: float) -> LinearTerms:
        self._count_point()
        answers = self._same(self.message("newton", {"parameters": point}), sites)
        return _penalised_sum(answers, point, columns, ridge)

    def _count_point(self) -> None:
        """Say that it does not converge before sites, which compute so many points and no more, refuse without a word why."""
        self._points += 1
        if self._points > MOST_POINTS:
            raise FederationError(f"Newton's steps did not converge at {MOST_POINTS} points; {_OTHERWISE}")

    def judge(self, kind: str, model: Mapping[str, AnyArray]) -> dict[str, SiteScore]:
        """Have the sites score a model.

        Parameters
        ----------
        kind : str
            ``evaluate`` as it is, ``personal`` after each has fitted it to its own patients.
        model : mapping of str to ndarray
            Weights.

        Returns
        -------
        dict of str to SiteScore
            By site.
        """
        answers = self.ask(self.message(kind, named(model)), self.ready())
        return {name: score_of(one) for name, one in answers.items()}

    def package(self, setup: Setup, model: Mapping[str, AnyArray]) -> Package:
        """Calibrate a model by sums of the sites, and make a package of it.

        Parameters
        ----------
        setup : Setup
            Transforms.
        model : mapping of str to ndarray
            Weights.

        Returns
        -------
        Package
            Of one member.

        Raises
        ------
        FederationError
            If too few sites answer.
        """
        plan, features = self.plan, self.plan.features
        draft = member_of(plan, setup, dict(model))
        events: int | None = None
        if plan.privacy is None:
            answers = self.need(self.message("calibrate", named(model)), self.trainers())
            arrays = [dict(one.arrays) for one in answers.values()]
            member: Member = calibrated(draft, plan, arrays, [dict(one.numbers) for one in answers.values()])
            events = int(sum(one["hazard.events"].sum() for one in arrays))
        else:
            answers = self.need(self.message("join"), self.ready())
            member = centred_by_plan(draft)
        spec = None
        if features is not None:
            spec = FeatureSpec(
                features.encoder, features.weights_digest, features.target_mpp, features.tile_px, features.precision_asked,
                features.settings_digest,
            )  # fmt: skip
        summary: dict[str, Any] = {
            "endpoint": plan.endpoint, "plan": plan.digest, "network": plan.name, "sites": len(answers),
            "sites_away": sorted(self._counted.keys() - answers.keys()),
            "patients": int(sum(one.numbers["patients"] for one in answers.values())), "events": events,
            "privacy": None if plan.privacy is None else plan.privacy.model_dump(mode="json"),
            "pathoml_version": pathoml_version(), "config_digest": plan.digest,
            "encoder_licence": "as of the encoder" if features else "no encoder",
            "encoder_pretraining": "as of the encoder" if features else "no encoder",
        }  # fmt: skip
        return Package((member,), spec, None, plan.grid, summary)

    def _note(self, request: Message, site: str, what: str) -> None:
        self._why[site] = what
        logger.warning("site %s, %s of round %d: %s", site, request.kind, request.round_number, what)
        row = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"), "plan": request.plan, "round": request.round_number,
            "asked": request.kind, "site": site, "what": what,
        }  # fmt: skip
        append_line(self._log, json.dumps(row))


def named(model: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Return a model's weights under the names by which they travel.

    Parameters
    ----------
    model : mapping of str to ndarray
        Weights.

    Returns
    -------
    dict of str to ndarray
        With the prefix ``model.``.
    """
    return {f"model.{name}": one for name, one in model.items()}


def _penalised_sum(answers: Mapping[str, Message], point: FloatArray, columns: int, ridge: float) -> LinearTerms:
    parts = [
        LinearTerms(one.numbers["loss"], one.arrays["gradient"], one.arrays["hessian"]) for one in answers.values()
    ]
    return penalised(add_terms(parts), point, columns, ridge)
