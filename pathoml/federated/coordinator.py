"""The coordinator: it has no data. It asks, checks what comes back, adds up, and can be killed at any moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.errors import FederationError
from pathoml.federated.aggregation import aggregate, next_control, weighted_mean
from pathoml.federated.checkpoint import Progress, arrays_below, read_checkpoint, write_checkpoint
from pathoml.federated.guard import REPLICATES, models_of
from pathoml.federated.messages import Message
from pathoml.federated.method_settings import EvaluationSettings, NewtonSettings, RoundsSettings, ScaffoldSettings
from pathoml.federated.network import COORDINATOR_LOG, Network, named
from pathoml.federated.plan import Plan
from pathoml.federated.scores import SiteScore, score_of, scores_to_json
from pathoml.federated.scoring import arrays_of_files, problems_with
from pathoml.federated.setup import Setup, arrays_of, build_model
from pathoml.federated.transport import Transport
from pathoml.files import make_folder, write_json, write_text
from pathoml.package_files import PackageFiles
from pathoml.packages import Package, package_of, save_package
from pathoml.provenance import pathoml_version
from pathoml.units import AnyArray

PLAN_COPY = "plan.json"
"""The plan beside what came of it."""
RESULT = "federation.json"
"""What came of a run."""
Answers = Mapping[str, Message]
OnRound = Callable[[int, int, Mapping[str, float]], None]
"""Told after each round: its number, how many there are, and what sites said, weighted."""


@dataclass(frozen=True)
class FederationResult:
    """What a federation leaves.

    Parameters
    ----------
    package : Package
        The network's model.
    scores : mapping of str to SiteScore
        Of the shared model, by site.
    personal : mapping of str to SiteScore
        Of each site's own version of it; empty if the plan asks for none.
    history : list of dict
        One row a round.
    """

    package: Package
    scores: Mapping[str, SiteScore]
    personal: Mapping[str, SiteScore]
    history: list[dict[str, float]]


def run_federation(
    plan: Plan, transport: Transport, output: Path, *, on_round: OnRound | None = None
) -> FederationResult:  # fmt: skip
    """Train, calibrate and judge one model over a network; called again with the same plan, go on after the last whole round.

    Parameters
    ----------
    plan : Plan
        What the sites agreed on.
    transport : Transport
        The network.
    output : Path
        Folder for checkpoint, log, package and scores.
    on_round : callable, optional
        Told after each round.

    Returns
    -------
    FederationResult
        Also written to the folder.

    Raises
    ------
    FederationError
        If fewer sites than the quorum answer, Newton's steps do not converge, or the plan trains nothing.
    """
    if isinstance(plan.method, EvaluationSettings):
        raise FederationError(f"plan {plan.name} trains nothing; `pathoml federate evaluate` has its package scored")
    make_folder(output)
    write_text(output / PLAN_COPY, plan.model_dump_json(indent=1))
    network = Network(plan, transport, output)
    checkpoint = output / "checkpoint.safetensors"
    setup, progress = read_checkpoint(checkpoint, plan)
    if setup is None:
        _set_aside(output)
        setup = network.prepare()
        write_checkpoint(checkpoint, plan, setup, Progress({}))
    network.use(setup)
    if progress is None:
        progress = Progress(_first_model(network, plan, setup))
        write_checkpoint(checkpoint, plan, setup, progress)
    if isinstance(plan.method, RoundsSettings):
        _take_rounds(network, plan.method, progress, setup, checkpoint, on_round)
    final = progress.best if progress.best else progress.model
    package = network.package(setup, final)
    save_package(output / "package", package)
    # A concordance compares pairs of patients: no noise fits it, so that with privacy each site keeps its own.
    scores = {} if plan.privacy is not None else network.judge("evaluate", final)
    personal = isinstance(plan.method, RoundsSettings) and plan.method.personal_epochs
    own = network.judge("personal", final) if personal else {}
    if plan.membership:
        network.ask(network.message("membership", named(final)), network.ready())
    result = FederationResult(package, scores, own, progress.history)
    write_json(output / RESULT, result_to_json(plan, result))
    return result


def run_evaluation(plan: Plan, files: PackageFiles, transport: Transport, output: Path) -> Mapping[str, SiteScore]:
    """Have every site score a package on its own patients; nothing is trained.

    Parameters
    ----------
    plan : Plan
        An evaluation that the sites agreed on.
    files : PackageFiles
        Of the package that it names.
    transport : Transport
        The network.
    output : Path
        Folder for log and scores.

    Returns
    -------
    mapping of str to SiteScore
        By site; also written to the folder.

    Raises
    ------
    FederationError
        If the package is not the plan's or does not fit it, or fewer sites than the quorum answer.
    """
    require_package(plan, files)
    make_folder(output)
    write_text(output / PLAN_COPY, plan.model_dump_json(indent=1))
    _set_aside(output)
    network = Network(plan, transport, output)
    answers = network.need(network.message("score", arrays_of_files(files)))
    scores = {name: score_of(one) for name, one in answers.items()}
    write_json(output / RESULT, evaluation_to_json(plan, scores))
    return scores


def _set_aside(output: Path) -> None:
    """Keep log and scores of an earlier run of the same plan under another name: its refusals are not those of this run."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for name in (COORDINATOR_LOG, RESULT):
        if (output / name).is_file():
            (output / name).rename(output / f"{stamp}-{name}")


def require_package(plan: Plan, files: PackageFiles) -> None:
    """Refuse a package that a plan does not have its sites score, before anything is sent.

    Parameters
    ----------
    plan : Plan
        An evaluation.
    files : PackageFiles
        Of a package.

    Raises
    ------
    FederationError
        If the plan evaluates nothing, or something else, or the package does not fit what it has sites read.
    PackageError
        If it is no package.
    """
    if not isinstance(plan.method, EvaluationSettings):
        raise FederationError(
            f"plan {plan.name} trains a model; a package is scored by method: {{kind: evaluation, package: ...}}"
        )
    if files.digest != plan.method.package:
        raise FederationError(
            f"the package's digest is {files.digest}, and plan {plan.name} has {plan.method.package} scored; a plan with the other"
            " digest has a hash of its own, which the sites have to approve"
        )
    if problems := problems_with(plan, package_of(files, "the package")):
        raise FederationError(f"the package does not fit plan {plan.name}: {'; '.join(problems)}")


def evaluation_to_json(plan: Plan, scores: Mapping[str, SiteScore]) -> dict[str, Any]:
    """Return what an evaluation found as plain JSON values.

    Parameters
    ----------
    plan : Plan
        An evaluation.
    scores : mapping of str to SiteScore
        By site.

    Returns
    -------
    dict
        For federation.json, of the same keys as that of a training.
    """
    return _to_json(plan, None, scores, {}, [])


def result_to_json(plan: Plan, result: FederationResult) -> dict[str, Any]:
    """Return what a federation found as plain JSON values.

    Parameters
    ----------
    plan : Plan
        What the sites agreed on.
    result : FederationResult
        What came of it.

    Returns
    -------
    dict
        For federation.json.
    """
    return _to_json(plan, _privacy_to_json(plan, result), result.scores, result.personal, result.history)


def _to_json(
    plan: Plan, privacy: dict[str, Any] | None, shared: Mapping[str, SiteScore], personal: Mapping[str, SiteScore],
    history: list[dict[str, float]],
) -> dict[str, Any]:  # fmt: skip
    return {
        "plan": plan.digest, "name": plan.name, "pathoml_version": pathoml_version(), "privacy": privacy,
        "shared": scores_to_json(shared), "personal": scores_to_json(personal), "replicates": REPLICATES,
        "history": history,
    }  # fmt: skip


def _privacy_to_json(plan: Plan, result: FederationResult) -> dict[str, Any] | None:
    """Return what was allowed and what the site that spent most has spent; None, which means: no privacy of patients."""
    if plan.privacy is None:
        return None
    spent = max((row["epsilon"] for row in result.history if "epsilon" in row), default=0.0)
    return {**plan.privacy.model_dump(mode="json"), "epsilon_spent": spent}


def _first_model(network: Network, plan: Plan, setup: Setup) -> dict[str, AnyArray]:
    """Return the model that training starts with; its linear part is the network's own linear model."""
    model = arrays_of(build_model(plan, setup))
    width = len(model["covariate_weight"])
    method = plan.method
    if isinstance(method, NewtonSettings):
        tolerance, steps = method.tolerance, method.steps
    elif isinstance(method, RoundsSettings) and method.start == "newton" and width:
        tolerance, steps = 1e-6, NewtonSettings().steps
    else:
        return model
    point = network.linear(setup, plan.train.covariate_ridge, tolerance, steps)
    model["covariate_weight"] = point[:width].astype(np.float32)
    if len(point) > width:
        model["bias"] = point[width:].astype(np.float32)
    return model


def _take_rounds(
    network: Network, method: RoundsSettings, progress: Progress, setup: Setup, checkpoint: Path,
    on_round: OnRound | None,
) -> None:  # fmt: skip
    """Train by rounds, from where the checkpoint stands; the round loop of the federation."""
    plan = network.plan
    for number in range(len(progress.history), method.rounds):
        request = network.message("train", named(progress.model) | _controls(progress, plan, setup), number)
        answers = network.need(request, network.trainers())
        weights = [one.numbers[method.weight] for one in answers.values()]
        known = sum(progress.weights.values())
        progress.weights |= dict(zip(answers, weights, strict=True))
        totals = (known, sum(progress.weights.values()))
        if not sum(weights):
            raise FederationError(
                f"round {number}: no site that answered has any {method.weight}; set method.weight: patients"
            )
        row = {"round": float(number), "sites": float(len(answers)), **_weighted(answers, method.judges)}
        spent = [one.numbers["epsilon"] for one in answers.values() if "epsilon" in one.numbers]
        row |= {"epsilon": max(spent)} if spent else {}
        if method.keep == "best_validation":
            _keep_if_better(progress, row, _judges(answers, method.judges))
        mean = weighted_mean([models_of(one.arrays) for one in answers.values()], weights)
        changes = [arrays_below(one.arrays, "control.") for one in answers.values()]
        control = next_control(method.aggregation, progress.server.control, changes, weights, totals)
        progress.model, server = aggregate(method.aggregation, progress.model, mean, progress.server)
        progress.server = replace(server, control=control)
        progress.history.append(row)
        write_checkpoint(checkpoint, plan, setup, progress)
        if on_round is not None:
            on_round(number, method.rounds, row)
    if method.keep == "best_validation":
        answers = network.ask(network.message("validate", named(progress.model), method.rounds), network.ready())
        _keep_if_better(progress, _weighted(answers, method.judges), _judges(answers, method.judges))


def _judges(answers: Answers, named: Sequence[str]) -> list[str]:
    """Return the sites that have told a validation loss, of those that count."""
    return sorted(
        name for name, one in answers.items() if (not named or name in named) and "validation_loss" in one.numbers
    )


def _keep_if_better(progress: Progress, row: Mapping[str, float], judges: list[str]) -> None:
    """Keep the model that was just judged, if its loss is the lowest so far; losses of other sites than at first do not compare."""
    progress.judges = progress.judges or judges
    if judges != progress.judges:
        return
    if row.get("validation_loss", float("inf")) < progress.best_loss:
        progress.best, progress.best_loss = dict(progress.model), row["validation_loss"]


def _weighted(answers: Answers, judges: Sequence[str]) -> dict[str, float]:
    """Return the sites' losses, each weighted by the patients that it is a mean over; that of validation of the judges alone."""
    row = {}
    heard = {name: one for name, one in answers.items() if not judges or name in judges}
    for loss, count, of in (
        ("train_loss", "patients", answers), ("validation_loss", "validation_patients", heard),
    ):  # fmt: skip
        told = [one.numbers for one in of.values() if loss in one.numbers and one.numbers.get(count)]
        if told:
            row[loss] = sum(one[loss] * one[count] for one in told) / sum(one[count] for one in told)
    return row


def _controls(progress: Progress, plan: Plan, setup: Setup) -> dict[str, AnyArray]:
    method = plan.method
    if not isinstance(method, RoundsSettings) or not isinstance(method.aggregation, ScaffoldSettings):
        return {}
    if not progress.server.control:
        trained = {name for name, one in build_model(plan, setup).named_parameters() if one.requires_grad}
        return {f"control.{name}": np.zeros(progress.model[name].shape) for name in sorted(trained)}
    return {f"control.{name}": one for name, one in progress.server.control.items()}
