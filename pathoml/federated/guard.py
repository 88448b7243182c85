"""The last thing between a site and the network: what is not on the list does not leave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pathoml.errors import FederationError, RefusalCode, RefusedError
from pathoml.federated.clipping import change_norm
from pathoml.federated.messages import Message
from pathoml.federated.method_settings import RoundsSettings, ScaffoldSettings
from pathoml.federated.plan import METRICS, Plan
from pathoml.federated.site_sums import counted_words, number_columns
from pathoml.units import AnyArray

Shape = tuple[int, ...]
Arrays = dict[str, tuple[str, Shape]]

COUNTS = frozenset({"patients", "events"})
"""Without these no site can be weighted; they are told by any site that takes part, above its thresholds."""
REPLICATES = 200
"""Bootstrap samples of a site's test patients; drawn with randomness of the site's own, so that none can be undone."""


@dataclass(frozen=True)
class Allowed:
    """What an answer may hold.

    Parameters
    ----------
    arrays : mapping of str to tuple of (str, tuple of int)
        Name to type and shape; each of them has to be there.
    numbers : frozenset of str
        Names of numbers.
    norm : float or None
        Longest change of ``model.*`` against what was asked with; None if no model is sent.
    required : frozenset of str
        Numbers that may not be absent.
    """

    arrays: Mapping[str, tuple[str, Shape]] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    norm: float | None = None
    required: frozenset[str] = frozenset()


def release(answer: Message, request: Message, allowed: Allowed) -> Message:
    """Let an answer through, or refuse to send it.

    Parameters
    ----------
    answer : Message
        What a site is about to send.
    request : Message
        What it answers.
    allowed : Allowed
        What it may hold.

    Returns
    -------
    Message
        The same answer.

    Raises
    ------
    RefusedError
        With code MAY_NOT_LEAVE, or LIMIT_OF_SITE for an update that is too long; the message says which array or number.
    """
    problem = _problem_with(answer, request, allowed)
    if problem:
        raise RefusedError(f"answer {answer.kind}: {problem}", RefusalCode.MAY_NOT_LEAVE)
    if allowed.norm is not None:
        norm = change_norm(models_of(request.arrays), models_of(answer.arrays))
        if norm > allowed.norm:
            raise RefusedError(
                f"the update of round {answer.round_number} is {norm:.3g} long, and no more than {allowed.norm:.3g} may leave",
                RefusalCode.LIMIT_OF_SITE,
            )
    return answer


def accept(answer: Message, request: Message, allowed: Allowed) -> Message:
    """Hold a site's answer against what was asked; the coordinator's side of `release`.

    Parameters
    ----------
    answer : Message
        As it came.
    request : Message
        What was asked.
    allowed : Allowed
        What an answer may hold.

    Returns
    -------
    Message
        The same answer.

    Raises
    ------
    FederationError
        If anything in it is not what was agreed on.
    """
    try:
        return release(answer, request, allowed)
    except RefusedError as error:
        raise FederationError(str(error)) from error


def models_of(arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Return the arrays of a model among others.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of a message.

    Returns
    -------
    dict of str to ndarray
        Without the prefix ``model.``.
    """
    return {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}


def metrics_allowed(plan: Plan, refused: tuple[str, ...]) -> frozenset[str]:
    """Return the metrics that a site sends.

    Parameters
    ----------
    plan : Plan
        Which it is asked for.
    refused : tuple of str
        Which it refuses.

    Returns
    -------
    frozenset of str
        Names.
    """
    return frozenset(name for name in METRICS if name in plan.metrics and name not in refused)


def allowed_answer(
    request: Message, plan: Plan, *, refused: tuple[str, ...] = (), norm: float | None = None
) -> Allowed:  # fmt: skip
    """Return what an answer may hold, from plan and request alone, whatever a site has computed.

    Parameters
    ----------
    request : Message
        What was asked.
    plan : Plan
        What the network agreed on.
    refused : tuple of str, optional
        Metrics that the site never sends.
    norm : float, optional
        Longest update that the site sends; the plan's by default.

    Returns
    -------
    Allowed
        Names, types, shapes. Nothing for a request that is not of the protocol.
    """
    metrics = metrics_allowed(plan, refused)
    if plan.privacy is not None:
        return _allowed_with_privacy(request, plan, metrics, plan.update_norm if norm is None else norm)
    arrays = _ARRAYS[request.kind](request, plan) if request.kind in _ARRAYS else {}
    numbers = {
        "join": COUNTS, "newton": frozenset({"loss"}), "train": metrics | COUNTS, "validate": metrics,
        "evaluate": metrics | COUNTS, "personal": metrics | COUNTS, "score": metrics | COUNTS,
        "calibrate": frozenset({"patients", "risk_sum", "risk_squares"}),
    }.get(request.kind, frozenset())  # fmt: skip
    limit = plan.update_norm if norm is None else norm
    required = (
        COUNTS
        if request.kind in ("join", "train")
        else numbers
        if request.kind in ("newton", "calibrate")
        else frozenset()
    )
    return Allowed(arrays, numbers, limit if request.kind == "train" else None, required)


PRIVATE_REQUESTS = frozenset({"join", "setup", "train", "validate", "personal", "membership"})
"""All that a plan with privacy asks; every other answer would be a sum over patients without noise."""


def _allowed_with_privacy(request: Message, plan: Plan, metrics: frozenset[str], norm: float) -> Allowed:
    """Return what leaves with noise, or says nothing of patients; of their outcomes not even the number of events."""
    if request.kind not in PRIVATE_REQUESTS:
        return Allowed()
    numbers = {
        "join": frozenset({"patients"}), "validate": metrics & NOISED,
        "train": metrics & NOISED | {"patients", "epsilon"},
    }.get(request.kind, frozenset())  # fmt: skip
    arrays = _ARRAYS[request.kind](request, plan) if request.kind in _ARRAYS else {}
    required = frozenset({"patients"}) if request.kind in ("join", "train") else frozenset()
    return Allowed(arrays, numbers, norm if request.kind == "train" else None, required)


NOISED = frozenset({"train_loss", "validation_loss", "validation_patients"})
"""Metrics that are sums over patients of which each has a bounded share, or say nothing of outcomes."""

_REAL, _WHOLE = "float64", "int64"


def _of_values(request: Message, plan: Plan) -> Arrays:
    numbers = (len(number_columns(plan)),)
    return {
        "numbers.count": (_WHOLE, numbers), "numbers.sum": (_REAL, numbers), "patients": (_WHOLE, (1,)),
        **{f"words.{index}": (_WHOLE, (len(one.words) + 1,)) for index, one in enumerate(counted_words(plan))},
    }  # fmt: skip


def _of_squares(request: Message, plan: Plan) -> Arrays:
    return {"numbers.square": (_REAL, (len(number_columns(plan)),))}


def _of_products(request: Message, plan: Plan) -> Arrays:
    blocks = [one for one in plan.covariates if one.kind == "block"]
    return {f"products.{index}": (_REAL, (len(one.columns), len(one.columns))) for index, one in enumerate(blocks)}


def _of_tiles(request: Message, plan: Plan) -> Arrays:
    if plan.features is None:
        return {}
    dim = plan.features.dim
    arrays: Arrays = {
        "tiles.count": (_WHOLE, (1,)), "tiles.total": (_REAL, (dim,)), "tiles.products": (_REAL, (dim, dim))
    }  # fmt: skip
    return arrays | ({"tiles.standard": (_REAL, (dim, dim))} if plan.features.scaling == "site" else {})


def _of_times(request: Message, plan: Plan) -> Arrays:
    return {"times.events": (_WHOLE, (len(plan.grid),))}


def _of_newton(request: Message, plan: Plan) -> Arrays:
    width = request.arrays["parameters"].shape[0]
    return {"gradient": (_REAL, (width,)), "hessian": (_REAL, (width, width))}


def _of_train(request: Message, plan: Plan) -> Arrays:
    model = {name: (one.dtype.name, one.shape) for name, one in request.arrays.items() if name.startswith("model.")}
    method = plan.method
    if not isinstance(method, RoundsSettings) or not isinstance(method.aggregation, ScaffoldSettings):
        return model
    return model | {name: (_REAL, one.shape) for name, one in request.arrays.items() if name.startswith("control.")}


def _of_evaluate(request: Message, plan: Plan) -> Arrays:
    return {f"replicates.{name}": (_REAL, (REPLICATES,)) for name in ("concordant", "comparable")}


def _of_calibrate(request: Message, plan: Plan) -> Arrays:
    cells = (len(plan.grid),)
    out = request.arrays["model.bias"].shape
    return {"slides": (_REAL, out), "hazard.events": (_WHOLE, cells), "hazard.exposure": (_REAL, cells)}


_ARRAYS: dict[str, Callable[[Message, Plan], Arrays]] = {
    "values": _of_values, "squares": _of_squares, "products": _of_products, "tiles": _of_tiles, "times": _of_times,
    "newton": _of_newton, "train": _of_train, "evaluate": _of_evaluate, "personal": _of_evaluate, "score": _of_evaluate,
    "calibrate": _of_calibrate,
}  # fmt: skip


def _problem_with(answer: Message, request: Message, allowed: Allowed) -> str:
    if answer.plan != request.plan or answer.round_number != request.round_number:
        return "it is of another plan or round than what was asked"
    return (
        _problem_with_arrays(answer.arrays, allowed) or _problem_with_numbers(answer.numbers, allowed)
        or _problem_with_counts(answer)
    )  # fmt: skip


def _problem_with_arrays(arrays: Mapping[str, AnyArray], allowed: Allowed) -> str:
    names = set(arrays) ^ set(allowed.arrays)
    if names:
        return f"arrays {', '.join(sorted(names)[:5])} are missing or not on the list"
    for name, (dtype, shape) in allowed.arrays.items():
        array = arrays[name]
        if array.dtype.name != dtype or array.shape != shape:
            return f"array {name} is {array.dtype.name} {array.shape}, not {dtype} {shape}"
    endless = {name for name, array in arrays.items() if not np.isfinite(array).all()}
    if endless:
        return f"array(s) {', '.join(sorted(endless)[:5])} not finite"
    return ""


def _problem_with_numbers(numbers: Mapping[str, float], allowed: Allowed) -> str:
    unlisted = set(numbers) - allowed.numbers
    infinite = {name for name, value in numbers.items() if not np.isfinite(value)}
    if unlisted or infinite:
        return f"numbers {', '.join(sorted(unlisted | infinite)[:5])} are not on the list, or not finite"
    missing = allowed.required - set(numbers)
    return f"numbers {', '.join(sorted(missing))} are missing" if missing else ""


_COUNTED = ("patients", "events", "validation_patients")


def _problem_with_counts(answer: Message) -> str:
    """Say what is no count: a weight of it would turn the shared model around, or make it one site's."""
    numbers = {name: answer.numbers[name] for name in _COUNTED if name in answer.numbers}
    odd = [name for name, value in numbers.items() if value < 0 or value != int(value)]
    odd += [name for name, one in answer.arrays.items() if one.dtype.kind == "i" and (one < 0).any()]
    if odd:
        return f"{', '.join(odd[:5])}: no count of patients or events"
    if numbers.get("events", 0.0) > numbers.get("patients", float("inf")):
        return f"{numbers['events']:.0f} events of {numbers['patients']:.0f} patients"
    return ""
