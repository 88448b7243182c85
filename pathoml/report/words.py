"""How numbers, measures and models are said."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pathoml.baseline_settings import BASELINE_TITLES
from pathoml.evaluate.scheme import RECALIBRATED
from pathoml.units import DAYS_PER_UNIT

MEASURES = {
    "concordance": "Concordance (Harrell), higher is better",
    "concordance_ipcw": "Concordance (Uno, IPCW), higher is better",
    "concordance_within_site": "Concordance (Harrell) within hospitals, higher is better",
    "concordance_ipcw_within_site": "Concordance (Uno, IPCW) within hospitals, higher is better",
    "integrated_brier": "Integrated Brier score, lower is better",
    "scaled_brier": "Share of the Brier score saved over Kaplan-Meier, higher is better",
}
MODELS = {
    "model": "this model",
    **BASELINE_TITLES,
    "package": "the package as it is",
    RECALIBRATED: "the package, recalibrated",
}
_BOUNDLESS = 1000.0
"""A hazard ratio beyond this is of a sample in which nothing held it."""
SCHEMES = {
    "kfold": "Cross-validation",
    "site_preserved": "Cross-validation by whole hospitals",
    "leave_one_site_out": "Leaving one hospital out",
    "external": "Hospitals kept for the test",
    "fixed": "Given folds",
    "files": "Given folds",
    "validation": "Validation on other patients",
}


def measure_words(name: str) -> str:
    """Name a measure.

    Parameters
    ----------
    name : str
        As the evaluation calls it.

    Returns
    -------
    str
        With which direction is better.
    """
    for prefix, words in (
        ("auc_", "AUC at {} days, higher is better"),
        ("brier_", "Brier score at {} days, lower is better"),
    ):
        if name.startswith(prefix):
            return words.format(name.removeprefix(prefix).removesuffix("d"))
    return MEASURES.get(name, name.replace("_", " "))


def model_words(name: str) -> str:
    """Name a model.

    Parameters
    ----------
    name : str
        As the predictions call it.

    Returns
    -------
    str
        For people.
    """
    return MODELS.get(name, name.replace("_", " "))


def estimate_words(estimate: Mapping[str, Any], digits: int = 3, *, signed: bool = False) -> str:
    """Say an estimate with its interval.

    Parameters
    ----------
    estimate : mapping
        With value, low and high.
    digits : int, optional
        Behind the point.
    signed : bool, optional
        Whether to write a plus too, as for differences.

    Returns
    -------
    str
        For example ``0.710 (0.660 to 0.760)``.
    """
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    form = f"{'+' if signed else ''}.{digits}f"
    if value is None:
        return "not defined"
    if low is None:
        return f"{value:{form}} (no interval)"
    if low == high:
        return f"{value:{form}} (the same in every draw)"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def ratio_words(estimate: Mapping[str, Any]) -> str:
    """Say a hazard ratio with its interval; limits that nothing holds are not spelt out.

    Parameters
    ----------
    estimate : mapping
        With value, low and high.

    Returns
    -------
    str
        For example ``1.50 (1.20 to 1.90)``, or ``30.00 (2.10, no upper limit)``.
    """
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None or low is None or (low >= 1 / _BOUNDLESS and high <= _BOUNDLESS):
        return estimate_words(estimate, 2)
    ends = (
        "no lower limit" if low < 1 / _BOUNDLESS else f"{low:.2f}",
        "no upper limit" if high > _BOUNDLESS else f"{high:.2f}",
    )
    said = f"{value:.2f}" if 1 / _BOUNDLESS <= value <= _BOUNDLESS else "no limit"
    return f"{said} ({ends[0]}, {ends[1]})"


def estimate_at(curve: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return one point of a curve as an estimate.

    Parameters
    ----------
    curve : mapping
        Lists value, low and high.
    place : int
        Which point.

    Returns
    -------
    dict
        With value, low and high.
    """
    return {name: curve[name][place] for name in ("value", "low", "high")}


def number_words(value: float | None, digits: int = 3) -> str:
    """Say a number.

    Parameters
    ----------
    value : float or None
        Any.
    digits : int, optional
        Behind the point.

    Returns
    -------
    str
        ``not defined`` for None.
    """
    return "not defined" if value is None else f"{value:.{digits}f}"


def p_value_words(value: float | None) -> str:
    """Say a p-value with two digits that mean something.

    Parameters
    ----------
    value : float or None
        From 0 to 1.

    Returns
    -------
    str
        ``p < 0.0001`` where it is smaller.
    """
    if value is None:
        return "p not defined"
    if value < 1e-4:
        return "p < 0.0001"
    digits = max(2, 1 - math.floor(math.log10(value))) if value < 1 else 2
    return f"p = {value:.{min(digits, 4)}f}"


def unbroken(text: str) -> str:
    """Keep an interval, or a p-value, on one line where a narrow cell or title wraps.

    Parameters
    ----------
    text : str
        Of a cell or a title.

    Returns
    -------
    str
        The same with spaces that do not break.
    """
    for words in (" to ", "p = ", "p < ", "χ² = "):
        text = text.replace(words, words.replace(" ", "\N{NO-BREAK SPACE}"))
    return text


def days_words(days: float) -> str:
    """Say a time in days, with years where that is easier to picture.

    Parameters
    ----------
    days : float
        Any.

    Returns
    -------
    str
        For example ``730 days (2.0 years)``.
    """
    years = days / DAYS_PER_UNIT["years"]
    return f"{days:.0f} days ({years:.1f} years)" if years >= 0.95 else f"{days:.0f} days"


def verdict_words(scheme: Mapping[str, Any]) -> list[str]:
    """Say of each other model whether the first is better, and no more than interval and repetitions allow.

    Parameters
    ----------
    scheme : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    list of str
        One sentence or two a pair.
    """
    sentences = []
    for pair, name in _others(scheme["differences"]):
        differences, other = scheme["differences"][pair], model_words(name)
        sentences.append(
            _rank_words(
                other, differences["concordance"], scheme["verdicts"][pair], scheme["repeats"]["differences"][pair]
            )
            + _brier_words(differences.get("integrated_brier"))
        )
    if sentences and scheme["repeats"]["count"] < 2:
        sentences.append(
            "Each fold's models were fitted once: how much models fitted anew, on other folds where there are any, would differ is"
            " not known. No model is called better before repetitions show it too."
        )
    return sentences


def _others(pairs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair of models with the name of the other; a recalibrated one ranks as it did."""
    for pair in pairs:
        other = pair.split(" - ", 1)[1]
        if other != RECALIBRATED:
            yield pair, other


def _rank_words(
    other: str, difference: Mapping[str, Any], verdict: Mapping[str, Any], repeats: Mapping[str, Any]
) -> str:  # fmt: skip
    if difference["value"] is None or difference["low"] is None:
        return f"The difference in concordance to the {other} cannot be computed."
    text = f"Difference in concordance to the {other}: {estimate_words(difference)}."
    if verdict["by_interval"] == 0:
        return f"{text} The interval includes 0: these patients do not show that the model ranks better."
    winner = "the model" if verdict["by_interval"] > 0 else f"the {other}"
    spread = _spread_words(verdict, len(repeats["values"]))
    if verdict["better"]:
        return f"{text} The interval excludes 0{spread}: on these patients {winner} ranks better."
    if verdict["by_repeats"] is None:
        return f"{text} The interval excludes 0 in favour of {winner}; whether models fitted anew show it is not known."
    return f"{text} The interval excludes 0 in favour of {winner}, but the repetitions do not show it{spread}."


def _spread_words(verdict: Mapping[str, Any], repeats: int) -> str:
    """Say what other divisions of the patients would change, refitting counted."""
    if verdict["repeats_low"] is None:
        return ""
    low, high = verdict["repeats_low"], verdict["repeats_high"]
    return f"; over {repeats} repetitions, refitting counted, 95 % {low:+.3f} to {high:+.3f}"


def _brier_words(estimate: Mapping[str, Any] | None) -> str:
    """Say whose probabilities are nearer to what happened, where the interval says so, and no more."""
    if (
        estimate is None
        or estimate["value"] is None
        or estimate["low"] is None
        or estimate["low"] <= 0 <= estimate["high"]
    ):
        return ""
    verdict = "further from" if estimate["low"] > 0 else "nearer to"
    return (
        f" By its interval, the difference in integrated Brier score ({estimate_words(estimate)}) puts the model's survival"
        f" probabilities {verdict} what happened to these patients."
    )


def summary_words(schemes: Mapping[str, Mapping[str, Any]], clinical: str) -> list[str]:
    """Say in plain words what was found, for readers who know no statistics.

    Parameters
    ----------
    schemes : mapping of str to mapping
        As `pathoml.evaluate` gives them.
    clinical : str
        What the clinical model is made of.

    Returns
    -------
    list of str
        Whether the model is of use, then a paragraph a scheme in which a model was trained.
    """
    judged = {name: one for name, one in schemes.items() if "model" in one["metrics"]}
    if not judged:
        return []
    paragraphs = [_use_words(judged, clinical)]
    for name, scheme in judged.items():
        found = estimate_words(scheme["metrics"]["model"]["concordance"])
        said = f"the patient with the higher predicted risk had the event first in a share of {found} of pairs."
        paragraphs.append(" ".join([f"{SCHEMES.get(name, name)}: {said}", *_ranks_words(scheme)]))
    paragraphs.append(
        "In brackets: 95 % intervals for other patients like these and the models as they were fitted. A share of 0.5 is guessing."
    )
    return paragraphs


def _use_words(schemes: Mapping[str, Mapping[str, Any]], clinical: str) -> str:
    """Say whether the model is of use, and no more than verdicts allow in every scheme."""
    kinds: dict[str, list[str]] = {}
    for scheme in schemes.values():
        for pair, other in _others(scheme["verdicts"]):
            kinds.setdefault(other, []).append(_kind_of(scheme["verdicts"][pair]))
    sentences = [_guessing_words(schemes)]
    if "clinical" in kinds and clinical:
        sentences.append(_against_words(f"{clinical} alone", kinds["clinical"]))
    kinds.pop("clinical", None)
    above = [
        f"{model_words(other)} ({_ways(found, *_WORSE)})" for other, found in kinds.items() if set(_WORSE) & set(found)
    ]
    unbeaten = [
        model_words(other)
        for other, found in kinds.items()
        if not set(_WORSE) & set(found) and not {"better", "unrepeated"}.issuperset(found)
    ]
    if above:
        sentences.append(f"By its interval alone it ranks worse than: {', '.join(above)}.")
    if unbeaten:
        sentences.append(f"Not every way of testing shows that it ranks better than: {', '.join(unbeaten)}.")
    if above or unbeaten:
        sentences.append("By ranking, these patients give little reason to prefer it to them.")
    elif kinds:
        sure = all(one == "better" for found in kinds.values() for one in found)
        sentences.append(
            "It ranks better than every other model, and repetitions confirm it."
            if sure
            else "By its intervals it ranks better than every other model; that was not confirmed by repetitions everywhere."
        )
    nearer = _nearer_probabilities(schemes)
    if nearer:
        sentences.append(f"Survival probabilities nearer to what happened have: {', '.join(nearer)}.")
    sentences.append("Whether patients fare better where doctors decide by it was not studied.")
    return "Of use? " + " ".join(sentences)


def _nearer_probabilities(schemes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the models whose integrated Brier score is lower than the model's, by the interval of the difference."""
    found: dict[str, list[bool]] = {}
    for scheme in schemes.values():
        for pair, other in _others(scheme["verdicts"]):
            estimate = scheme["differences"].get(pair, {}).get("integrated_brier")
            if estimate is not None and estimate["low"] is not None:
                found.setdefault(other, []).append(estimate["low"] > 0)
    return [
        f"{model_words(other)} ({_of_ways(sum(is_nearer), len(schemes))})"
        for other, is_nearer in found.items()
        if any(is_nearer)
    ]


_WORSE = ("worse", "worse_unrepeated", "worse_unconfirmed")


def _ways(found: Sequence[str], *kinds: str) -> str:
    return _of_ways(sum(one in kinds for one in found), len(found))


def _of_ways(some: int, ways: int) -> str:
    return f"in {some} of {ways} ways of testing" if ways > 1 else "in the only way of testing"


def _against_words(other: str, found: Sequence[str]) -> str:
    """Say how the model ranks against another, over all schemes."""
    kinds = set(found)
    if kinds == {"better"}:
        return f"It ranks better than {other}."
    if kinds <= {"better", "unrepeated"}:
        return f"By its intervals it ranks better than {other}; {_ways(found, 'unrepeated')} nothing was repeated to confirm it."
    if kinds <= {"none", "unknown"}:
        return f"It is not shown to rank better than {other}."
    said = [
        f"{words} {_ways(found, *some)}"
        for some, words in (
            (("better",), "better, confirmed by repetitions,"), (("unrepeated",), "better by its interval, not repeated,"),
            (("unconfirmed",), "better by its interval, which repetitions do not confirm,"), (_WORSE, "worse by its interval"),
            (("none",), "neither"), (("unknown",), "not comparable"),
        )
        if kinds & set(some)
    ]  # fmt: skip
    return f"Against {other} it ranks {'; '.join(said)}."


def _guessing_words(schemes: Mapping[str, Mapping[str, Any]]) -> str:
    found = [one["metrics"]["model"]["concordance"] for one in schemes.values()]
    if any(one["value"] is None or one["low"] is None for one in found):
        return "How well it tells patients apart cannot be said."
    shares = sorted({round(100 * one["value"]) for one in found})
    counts = ", ".join(map(str, shares[:-1])) + (" and " if len(shares) > 1 else "") + str(shares[-1])
    by_way = ", by way of testing," if len(shares) > 1 else ""
    holding = sum(one["low"] <= 0.5 for one in found)
    doubt = f", which its interval holds {_of_ways(holding, len(found))}" if holding else ""
    return f"It puts {counts} of 100 pairs of patients{by_way} in the right order, where guessing gives 50{doubt}."


def _ranks_words(scheme: Mapping[str, Any]) -> list[str]:
    """Say against which models the first ranks better, and how sure that is."""
    kinds: dict[str, list[str]] = {}
    for pair, other in _others(scheme["verdicts"]):
        kinds.setdefault(_kind_of(scheme["verdicts"][pair]), []).append(f"the {model_words(other)}")
    said = {
        "better": "It ranks better than {}.",
        "unrepeated": "By its interval it ranks better than {}; whether repetitions would confirm that is not known.",
        "unconfirmed": "By its interval it ranks better than {}; repetitions do not confirm that.",
        "none": "It is not shown to rank better than {}.",
        "worse": "By its interval, and by repetitions, it ranks worse than {}.",
        "worse_unrepeated": "By its interval it ranks worse than {}; whether repetitions would confirm that is not known.",
        "worse_unconfirmed": "By its interval it ranks worse than {}; repetitions do not confirm that.",
        "unknown": "It cannot be compared with {}.",
    }
    return [words.format(", ".join(kinds[kind])) for kind, words in said.items() if kind in kinds]


def _kind_of(verdict: Mapping[str, Any]) -> str:
    """Name what a verdict allows to be said."""
    if verdict["by_interval"] is None:
        return "unknown"
    if verdict["by_interval"] == 0:
        return "none"
    unsure = "unrepeated" if verdict["by_repeats"] is None else "unconfirmed"
    if verdict["by_interval"] < 0:
        return "worse" if verdict["better"] else f"worse_{unsure}"
    return "better" if verdict["better"] else unsure
