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
    """

    title: str
    facts: Sequence[tuple[str, str]]
    scores: Mapping[str, Any]
    comparison: Mapping[str, Any] | None
    left: Sequence[tuple[str, ...]]
    provenance: Sequence[tuple[str, str]]


def write_federation_page(path: Path, page: FederationPage) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        The HTML file; it needs nothing else.
    page : FederationPage
        What it shows.
    """
    sections = [_told(page.scores)]
    verdicts: list[str] = []
    if page.comparison is not None:
        sections = [_overall(page.comparison), *_by_site(page.comparison), *sections]
        verdicts = _verdicts(page.comparison)
    left = Table("Everything that left a site", ("answer to", "messages", "bytes"), page.left)
    html = template("federation.html.j2").render(
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
            "Privacy of patients: none. Updates, sums and figures left the hospitals without noise; nothing on this page is "
            "private."
        ]
    delta = "1 / (10 x its patients)" if privacy["delta"] is None else f"{privacy['delta']:g}"
    found = [
        f"Privacy of patients: differential, epsilon {privacy['epsilon']:g} for each patient at delta {delta}; the hospital that "
        f"spent most has spent {privacy['epsilon_spent']:.3g}."
    ]
    if page.comparison is not None:
        found.append(
            "Every model that is compared was trained with noise for the same epsilon. The comparison itself is not private: its "
            "concordances are of patients as they are, without noise, as only a simulation on one machine can have them."
        )
    return found


def _verdicts(comparison: Mapping[str, Any]) -> list[str]:
    """Say what joining does, and no more than the intervals allow."""
    found = []
    overall = comparison["overall"].get("shared - local")
    if overall is not None:
        found.append(f"Over all hospitals, the network's model against each hospital's own: {_difference(overall)}")
    for site, one in comparison["sites"].items():
        gain, given = one["models"].get("shared - local"), one["models"].get("shared - without")
        if gain is not None and gain["value"] is not None:
            also = (
                ""
                if given is None or given["value"] is None
                else f" Its own patients' part in that: {_difference(given)}"
            )
            found.append(
                f"{site} ({one['patients']} test patients, {one['events']} events), joining: {_difference(gain)}{also}"
            )
        others = comparison["gives"].get(site)
        if others is not None and others["value"] is not None:
            found.append(f"The other hospitals' patients, by {site}'s joining: {_difference(others)}")
    return found


def _difference(estimate: Mapping[str, Any]) -> str:
    words = estimate_words(estimate)
    if estimate["value"] is None:
        return f"{words}."
    if estimate["low"] is None:
        return f"{words}; too few events to tell."
    if estimate["low"] > 0:
        return f"{words}; better."
    if estimate["high"] < 0:
        return f"{words}; worse."
    return f"{words}; these patients do not show a difference."


def _overall(comparison: Mapping[str, Any]) -> Section:
    patients = sum(one["patients"] for one in comparison["sites"].values())
    events = sum(one["events"] for one in comparison["sites"].values())
    return _section("All hospitals", comparison["overall"], f"{patients} test patients, {events} events", comparison)


def _by_site(comparison: Mapping[str, Any]) -> list[Section]:
    return [
        _section(site, one["models"], f"{one['patients']} test patients, {one['events']} events", comparison)
        for site, one in comparison["sites"].items()
    ]


def _section(title: str, models: Mapping[str, Any], count: str, comparison: Mapping[str, Any]) -> Section:
    single = [
        (_MODELS[name], value) for name, value in models.items() if name in _MODELS and value["value"] is not None
    ]
    pairs = [
        (f"{_MODELS[first]} minus {_MODELS[second]}", models[name])
        for name in models
        if " - " in name and models[name]["value"] is not None
        for first, second in [name.split(" - ")]
    ]
    figures = []
    if single:
        figures.append(
            Picture(concordance_figure(single), f"Concordance within hospitals; {count}. Lines: 95 % intervals.")
        )
    if pairs:
        caption = f"Differences in concordance on the same draws of patients; {count}. Lines: 95 % intervals."
        figures.append(Picture(difference_figure(pairs), caption))
    rows = [(name, estimate_words(value)) for name, value in [*single, *pairs]]
    table = Table(f"Concordance, {title}", ("model", "value (95 % interval)"), rows)
    text = [f"{count}. Intervals are conditional on {comparison['conditional_on']}."]
    if any(value["low"] is None for _, value in [*single, *pairs]):
        text.append(
            f"None is given of fewer than {comparison['least_events']} events: of so few patients drawn again it is too narrow, "
            "and would call a difference shown that is none."
        )
    return Section(title, text, figures, [table] if rows else [])


def _told(scores: Mapping[str, Any]) -> Section:
    rows = []
    for site, numbers in scores["shared"]["sites"].items():
        own = scores["personal"].get("sites", {}).get(site, {})
        rows.append((site, _told_words(numbers), _told_words(own)))
    overall = scores["shared"]["overall"]
    if overall:
        rows.append(
            ("all, pairs within sites", _told_words(overall), _told_words(scores["personal"].get("overall", {})))
        )
    table = Table(
        "What sites told of their test patients", ("site", "the network's model", "fitted to the site's own"), rows
    )
    text = [
        "What each site told the coordinator. Nothing is told of too few patients or events, and a site can refuse a number. "
        f"Intervals are those of {scores['replicates']} drawings of each site's patients, which the site makes itself.",
    ]
    return Section("As the coordinator sees it", text, [], [table])


def _told_words(numbers: Mapping[str, Any]) -> str:
    if "concordance" not in numbers:
        return "not told"
    low, high = numbers.get("concordance_low"), numbers.get("concordance_high")
    if low is None or high is None:
        return f"{numbers['concordance']:.3f}"
    return estimate_words({"value": numbers["concordance"], "low": low, "high": high})
