"""Which models figures show, and of whom."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pathoml.report.words import model_words

_MOST = 3
"""Models that the lines of a figure tell apart; tables hold all."""


class Drawn(NamedTuple):
    """Models of the figures.

    Parameters
    ----------
    models : dict of str to str
        Name to label: the first model, the clinical one, and of all others that with the highest concordance.
    left_out : str
        Says which models stand in tables only; empty where there are none.
    """

    models: dict[str, str]
    left_out: str


def drawn_models(scheme: Mapping[str, Any]) -> Drawn:
    """Choose the models that figures show.

    Parameters
    ----------
    scheme : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    Drawn
        The strongest competitor is always among them.
    """
    names = list(scheme["metrics"])
    first = [names[0], *(["clinical"] if "clinical" in names[1:] else [])]
    others = sorted((one for one in names if one not in first), key=lambda one: -_concordance(scheme, one))
    chosen = [*first, *others[: _MOST - len(first)]]
    left = [model_words(one) for one in names if one not in chosen]
    words = (
        f" Drawn are at most {_MOST} models, the strongest other one among them; in tables only: {', '.join(left)}."
        if left
        else ""
    )
    return Drawn({one: model_words(one) for one in chosen}, words)


def _concordance(scheme: Mapping[str, Any], model: str) -> float:
    value = scheme["metrics"][model]["concordance"]["value"]
    return -1.0 if value is None else float(value)


def count_words(scheme: Mapping[str, Any]) -> str:
    """Say how many were tested.

    Parameters
    ----------
    scheme : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    str
        Patients and events.
    """
    tested = scheme["tested"]
    return f"{tested['patients']} test patients, {tested['events']} events"
