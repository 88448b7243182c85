"""A federation on one page: what joining does for each hospital and for the network, and what left the hospitals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathoml.files import write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.report.forest_figures import concordance_figure, difference_figure
from pathoml.report.page import template
from pathoml.report.parts import Picture, Section, Table
from pathoml.report.words import estimate_words

_MODELS = {
    "shared": "the network's model",
    "pooled": "all patients in one place",
    "local": "this hospital alone",
    "without": "the network without this hospital",
}
_OVER_ALL = {
    **_MODELS,
    "local": "each hospital alone",
    "without": "the network without each hospital, at that hospital",
}
_ALL = "all that told, pairs within sites"


@dataclass(frozen=True)
class FederationPage:
    """Everything that the page shows.

    Parameters
    ----------
    title : str
        Name of the network.
    facts : sequence of (str, str)
        What was agreed on.
    scores : mapping
        federation.json.
    comparison : mapping or None
        comparison.json, where the models that the shared one is compared with could be trained.
    left : sequence of tuple of str
        Kind of message, how many, and bytes, of everything that left a site.
    provenance : sequence of (str, str)
        Digests and versions.
    refusals : sequence of tuple of str
        Site, what it was asked last without a good answer, what it said or why that could not be used, when, and how often.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    scores: Mapping[str, Any]
    comparison: Mapping[str, Any] | None
    left: Sequence[tuple[str, ...]]
    provenance: Sequence[tuple[str, str]]
    refusals: Sequence[tuple[str, ...]] = ()


def write_federation_page(path: Path, page: FederationPage) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        The HTML file; it needs nothing else.
    page : FederationPage
        What it shows.
    """
    sections = [_told(page)]
    verdicts: list[str] = []
    if page.comparison is not None:
        sections = [_overall(page.comparison), *_by_site(page.comparison), *sections]
        verdicts = _verdicts(page.comparison)
    left = Table("Everything that left a site", ("answer to", "messages", "bytes"), page.left)
    header = ("site", "asked last", "said, or why it was of no use", "when", "times")
    html = template("federation.html.j2").render(
        refusals=Table("Who said no, or nothing that could be used", header, page.refusals),
        page=page,
        sections=sections,
        verdicts=verdicts,
        left=left,
        privacy=privacy_sentences(page),
        notice=RESEARCH_USE_ONLY,
    )
    write_text(path, html)


def privacy_sentences(page: FederationPage) -> list[str]:
    """Say what of the page is private, and what is not; nothing is called private that is not.

    Parameters
    ----------
    page : FederationPage
        With the entry ``privacy`` of federation.json.

    Returns
    -------
    list of str
        Sentences.
    """
    privacy = page.scores["privacy"]
    if privacy is None:
        return [
            "Differential privacy: none. No slide, row or identifier left a hospital, but updates, sums and figures left without "
            "noise; nothing on this page is private."
        ]
    delta = "1 / (10 x its patients)" if privacy["delta"] is None else f"{privacy['delta']:g}"
    found = [
        f"Differential privacy: epsilon {privacy['epsilon']:g} for each patient at delta {delta}; the hospital that "
        f"spent most has spent {privacy['epsilon_spent']:.3g}."
    ]
    if page.comparison is not None:
        found.append(
            "Every model that is compared was trained with noise for the same epsilon. The comparison itself is not private: its "
            "concordances are of patients as they are, without noise, as only a simulation on one machine can have them."
        )
    return found


def _verdicts(comparison: Mapping[str, Any]) -> list[str]:
    """Say what joining does, and no more than the intervals allow; first for all together."""
    found = [_at_a_glance(comparison)]
    overall = comparison["overall"].get("shared - local")
    if overall is not None:
        found.append(f"Over all hospitals, the network's model minus each hospital's own: {_difference(overall)}")
    pooled = comparison["overall"].get("shared - pooled")
    if pooled is not None:
        found.append(f"Over all hospitals, the network's model minus all patients in one place: {_difference(pooled)}")
    for site, one in comparison["sites"].items():
        gain, given = one["models"].get("shared - local"), one["models"].get("shared - without")
        if gain is not None and gain["value"] is not None:
            also = (
                ""
                if given is None or given["value"] is None
                else f" The network with its training patients minus the network without them: {_difference(given)}"
            )
            found.append(
                f"{site} ({one['patients']} test patients, {one['events']} events), by joining: {_difference(gain)}{also}"
            )
        others = comparison["gives"].get(site)
        if others is not None and others["value"] is not None:
            found.append(f"The other hospitals' patients, by {site}'s joining: {_difference(others)}")
    return found


def _at_a_glance(comparison: Mapping[str, Any]) -> str:
    """Count the hospitals that gain, lose, and cannot tell."""
    gains = {site: one["models"].get("shared - local") for site, one in comparison["sites"].items()}
    told = {site: one for site, one in gains.items() if one is not None and one["low"] is not None}
    better = [site for site, one in told.items() if one["low"] > 0]
    worse = [site for site, one in told.items() if one["high"] < 0]
    alike = [site for site, one in told.items() if one["low"] == one["high"] == 0]
    unsure = [site for site in told if site not in (*better, *worse, *alike)]
    parts = [
        f"{word} {len(sites)} ({', '.join(sites)})"
        for word, sites in (
            ("gain:", better), ("lose:", worse), ("rank alike with both:", alike),
            ("may gain or lose, their patients do not show which:", unsure),
            ("too few events to tell, or no model of their own:", [site for site in gains if site not in told]),
        )
        if sites
    ]  # fmt: skip
    return f"Of {len(gains)} hospitals, by joining, on their own test patients: {'; '.join(parts)}."


def _difference(estimate: Mapping[str, Any]) -> str:
    words = estimate_words(estimate, signed=True)
    if estimate["value"] is None:
        return f"{words}."
    if estimate["low"] is None:
        return f"{words}; too few events to tell."
    if estimate["low"] == estimate["high"] == 0:
        return "none: both rank every pair of these patients alike."
    if estimate["low"] > 0:
        return f"{words}; better."
    if estimate["high"] < 0:
        return f"{words}; worse."
    return f"{words}; not shown to differ, which is not the same as shown not to."


def _overall(comparison: Mapping[str, Any]) -> Section:
    patients = sum(one["patients"] for one in comparison["sites"].values())
    events = sum(one["events"] for one in comparison["sites"].values())
    count = f"{patients} test patients, {events} events"
    return _section("All hospitals", comparison["overall"], count, comparison, over_all=True)


def _by_site(comparison: Mapping[str, Any]) -> list[Section]:
    return [
        _section(site, one["models"], f"{one['patients']} test patients, {one['events']} events", comparison)
        for site, one in comparison["sites"].items()
    ]


def _section(
    title: str, models: Mapping[str, Any], count: str, comparison: Mapping[str, Any], *, over_all: bool = False
) -> Section:
    words = _OVER_ALL if over_all else _MODELS
    single, pairs = _singles(models, words), _pairs(models, words)
    figures = []
    if single:
        caption = f"Concordance within hospitals; {count}.{_lines_words(single)}"
        figures.append(Picture(concordance_figure(single), caption))
    if pairs:
        caption = f"Differences in concordance on the same draws of patients; {count}.{_lines_words(pairs)}"
        figures.append(Picture(difference_figure(pairs), caption))
    rows = named_estimates(models, over_all=over_all)
    table = Table(f"Concordance, {title}", ("model", "value (95 % interval)"), rows)
    text = [f"{count}. Intervals are conditional on {comparison['conditional_on']}."]
    if any(value["low"] is None for _, value in [*single, *pairs]):
        text.append(
            f"None is given of fewer than {comparison['least_events']} events: of so few patients drawn again it is too narrow, "
            "and would call a difference shown that is none."
        )
    return Section(title, text, figures, [table] if rows else [])


def _lines_words(estimates: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return " Lines: 95 % intervals." if any(value["low"] is not None for _, value in estimates) else ""


def named_estimates(models: Mapping[str, Any], *, over_all: bool = False) -> list[tuple[str, str]]:
    """Put models and their differences into words.

    Parameters
    ----------
    models : mapping
        As comparison.json has them, of a site or of all.
    over_all : bool, optional
        Whether they are of all sites together.

    Returns
    -------
    list of (str, str)
        Name, and concordance or difference with its interval; those that cannot be computed are left out.
    """
    words = _OVER_ALL if over_all else _MODELS
    rows = [(name, estimate_words(value)) for name, value in _singles(models, words)]
    return rows + [(name, estimate_words(value, signed=True)) for name, value in _pairs(models, words)]


def _singles(models: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(words[name], value) for name, value in models.items() if name in words and value["value"] is not None]


def _pairs(models: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{words[first]} minus {words[second]}", models[name])
        for name in models
        if " - " in name and models[name]["value"] is not None
        for first, second in [name.split(" - ")]
    ]


def _told(page: FederationPage) -> Section:
    scores, personal = page.scores, page.scores["personal"].get("sites", {})
    told = {**scores["shared"]["sites"]}
    if scores["shared"]["overall"]:
        told[_ALL] = scores["shared"]["overall"]
    expected = any("expected_events" in numbers for numbers in told.values())
    header = ["site", "patients", "events"]
    header += ["events expected"] if expected else []
    header += ["pairs", "concordance (95 % interval)"]
    header += ["fitted to the site's own patients"] if personal else []
    own = {**personal, _ALL: scores["personal"].get("overall", {})}
    rows = []
    for site, numbers in told.items():
        row = [site, _count(numbers, "patients"), _count(numbers, "events")]
        row += [_count(numbers, "expected_events", digits=1)] if expected else []
        row += [_count(numbers, "comparable"), told_words(numbers)]
        rows.append((*row, told_words(own.get(site, {}))) if personal else tuple(row))
    table = Table("What sites told of the patients whom they scored", tuple(header), rows)
    drawings = scores.get("replicates", 200)  # so many before it was written down
    text = [
        "What each site told the coordinator. Nothing is told of too few patients or events, and a site can refuse a number. "
        f"Intervals are those of {drawings} drawings of each site's patients, which the site makes itself, so that nobody "
        "can draw the same again: their ends differ from run to run, by a few hundredths where patients are few.",
    ]
    if page.comparison is not None:
        text.append("The other tables are made by whoever simulates the network, who has all patients at hand.")
    return Section("As the coordinator sees it", text, [], [table])


def _count(numbers: Mapping[str, Any], name: str, digits: int = 0) -> str:
    return f"{numbers[name]:.{digits}f}" if name in numbers else ""


def told_words(numbers: Mapping[str, Any], otherwise: str = "not told") -> str:
    """Put the concordance that a site has told into words.

    Parameters
    ----------
    numbers : mapping
        What it told, as federation.json has it.
    otherwise : str, optional
        What to say where there is none among it.

    Returns
    -------
    str
        Value and interval.
    """
    if "concordance" not in numbers:
        return otherwise
    ends = {end: numbers.get(f"concordance_{end}") for end in ("low", "high")}
    return estimate_words({"value": numbers["concordance"], **ends})
