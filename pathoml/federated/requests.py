"""What a site can be asked at all: the kinds that its plan needs, each as it should be, and not over and over in other words."""

import hashlib
import json
from pathlib import Path

import numpy as np

from pathoml.errors import RefusalCode, RefusedError
from pathoml.federated.messages import Message, to_bytes
from pathoml.federated.method_settings import MOST_POINTS, EvaluationSettings, NewtonSettings, RoundsSettings
from pathoml.federated.plan import Plan
from pathoml.federated.site_sums import counted_words, number_columns
from pathoml.files import append_line, make_folder, read_lines
from pathoml.train_settings import CoxLossSettings

MOST_WAYS = 5
"""So often a site answers one kind of request of one round in different words: a network that was started again asks anew."""


def kinds_asked(plan: Plan) -> frozenset[str]:
    """Return the kinds of request that a plan needs.

    Parameters
    ----------
    plan : Plan
        What the network agreed on.

    Returns
    -------
    frozenset of str
        Nothing else is answered.
    """
    method = plan.method
    if isinstance(method, EvaluationSettings):
        return frozenset({"score"})
    rounds = method if isinstance(method, RoundsSettings) else None
    private = plan.privacy is not None
    sums = bool(number_columns(plan) or counted_words(plan)) and not private
    wanted = {
        "join": True, "setup": True, "calibrate": not private, "evaluate": not private,
        "values": sums, "squares": sums and bool(number_columns(plan)),
        "products": any(one.kind == "block" for one in plan.covariates),
        "tiles": plan.features is not None and plan.features.scaling != "none",
        "times": plan.bins.kind == "network" and not isinstance(plan.train.loss, CoxLossSettings),
        "newton": isinstance(method, NewtonSettings) or (rounds is not None and rounds.start == "newton" and bool(plan.covariates)),
        "train": rounds is not None, "validate": rounds is not None and rounds.keep == "best_validation",
        "personal": rounds is not None and rounds.personal_epochs > 0, "membership": plan.membership,
    }  # fmt: skip
    return frozenset(name for name, is_so in wanted.items() if is_so)


def require_request(request: Message, plan: Plan) -> None:
    """Refuse a request that the plan does not have a site asked, or that is not as such a request is.

    Parameters
    ----------
    request : Message
        As it came.
    plan : Plan
        What the network agreed on.

    Raises
    ------
    RefusedError
        With code BAD_REQUEST; the message says what was found and what is expected.
    """
    if request.kind not in kinds_asked(plan):
        words = f"request of kind {request.kind[:40]!r}, which plan {plan.name} does not have a site asked"
        raise RefusedError(words, RefusalCode.BAD_REQUEST)
    problem = _problem_with_round(request, plan) or _problem_with_arrays(request, plan)
    if problem:
        raise RefusedError(f"request {request.kind}: {problem}", RefusalCode.BAD_REQUEST)


def _problem_with_round(request: Message, plan: Plan) -> str:
    rounds = plan.method.rounds if isinstance(plan.method, RoundsSettings) else 0
    last = {"train": rounds - 1, "validate": rounds}.get(request.kind, 0)
    if not 0 <= request.round_number <= last:
        return f"round {request.round_number}, and the plan has it asked in rounds 0 to {last}"
    return "" if not request.numbers and not request.code else "numbers or a code, which no request has"


def _problem_with_arrays(request: Message, plan: Plan) -> str:
    columns = (len(number_columns(plan)),)
    exact = {
        "join": {}, "values": {}, "tiles": {}, "times": {}, "squares": {"numbers.mean": columns},
        "products": {"numbers.mean": columns, "numbers.scale": columns},
    }.get(request.kind)  # fmt: skip
    found = {name: one.shape for name, one in request.arrays.items()}
    if exact is not None and found != exact:
        return f"arrays {found}, expected {exact}"
    if request.kind == "newton" and (set(found) != {"parameters"} or len(found["parameters"]) != 1):
        return f"arrays {found}, expected parameters with one axis"
    if request.kind == "score":
        return _problem_with_package(request)
    if request.kind not in _PREFIXES:
        return _problem_with_values(request)
    strange = [name for name in found if not name.startswith(_PREFIXES[request.kind])]
    if strange or not any(name.startswith("model.") for name in found):
        return f"arrays {', '.join(sorted(strange)[:5]) or 'of no model'}, expected {' and '.join(_PREFIXES[request.kind])}*"
    return _problem_with_values(request)


_MODEL = ("model.",)
_PREFIXES = {
    "train": ("model.", "control."), "validate": _MODEL, "evaluate": _MODEL, "personal": _MODEL, "calibrate": _MODEL,
    "membership": _MODEL,
}  # fmt: skip


def _problem_with_package(request: Message) -> str:
    found = {name: (one.dtype.name, one.ndim) for name, one in request.arrays.items()}
    expected = dict.fromkeys(("package.description", "package.tensors"), ("uint8", 1))
    return "" if found == expected else f"arrays {found}, expected {expected}"


def _problem_with_values(request: Message) -> str:
    bad = [name for name, one in request.arrays.items() if one.dtype.kind != "i" and not np.isfinite(one).all()]
    return f"array(s) {', '.join(sorted(bad)[:5])} not finite" if bad else ""


class RequestBook:
    """Which requests of a plan a site has answered, so that nobody asks over and over until a patient stands alone.

    Parameters
    ----------
    folder : Path or None
        Where it is kept; None keeps it in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "asked.jsonl"
        self._seen: dict[tuple[str, int], set[str]] = {}
        for line in read_lines(self._path) if self._path is not None and self._path.is_file() else []:
            self._seen.setdefault((line["kind"], line["round"]), set()).add(line["sha256"])

    def enter(self, request: Message) -> None:
        """Note a request before it is answered; the very same one may come again as often as it likes.

        Parameters
        ----------
        request : Message
            About to be answered.

        Raises
        ------
        RefusedError
            With code LIMIT_OF_SITE, if it came in too many ways already.
        """
        seen = self._seen.setdefault((request.kind, request.round_number), set())
        digest = hashlib.sha256(to_bytes(request)).hexdigest()
        if digest in seen:
            return
        most = MOST_POINTS if request.kind == "newton" else MOST_WAYS
        if len(seen) >= most:
            raise RefusedError(
                f"request {request.kind} of round {request.round_number} came in {most} ways already, and this is another",
                RefusalCode.LIMIT_OF_SITE,
            )
        seen.add(digest)
        if self._path is not None:
            make_folder(self._path.parent)
            line = {"kind": request.kind, "round": request.round_number, "sha256": digest}
            append_line(self._path, json.dumps(line))
