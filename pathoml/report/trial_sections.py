"""What a prognosis is worth to a trial."""

from collections.abc import Mapping
from typing import Any

from pathoml.report.drawn import count_words
from pathoml.report.parts import Picture, Section, Table
from pathoml.report.trial_figures import ENRICHMENT, enrichment_figure
from pathoml.report.words import days_words, estimate_at, estimate_words


def trial_section(scheme: Mapping[str, Any]) -> Section:
    """Show adjustment for the risk and enrichment by it.

    Parameters
    ----------
    scheme : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    Section
        Empty where no horizon lies within follow-up.
    """
    trial = scheme["trial"]
    rows = []
    for one in trial["adjustment"]:
        for name, label in (("landmark", "survival at"), ("restricted_mean", "mean time without event until")):
            share = one[name]
            rows.append(
                (
                    f"{label} {days_words(one['days'])}", estimate_words(share["model"]),
                    *(estimate_words(share[key]) if key in share else "-" for key in ("covariates", "both", "added")),
                )
            )  # fmt: skip
    header = ("outcome", "the risk alone", "clinical covariates alone", "both", "added by the risk")
    tables = [Table("Share of the patients that a trial could save by adjusting for", header, rows)] if rows else []
    tables += [_enrichment_table(one) for one in trial["enrichment"]]
    figures = [
        Picture(
            enrichment_figure(trial["enrichment"], name),
            f"Enrichment by the risk: {title}; {count_words(scheme)}. Each line: outcomes until one time. Shaded: 95 % intervals.",
        )
        for name, title in ENRICHMENT.items()
        if trial["enrichment"]
    ]
    text = [
        "By pseudo-observations; a share below 0 means that nothing is saved. In a trial whose analysis adjusts for the prognosis"
        " the variance of the estimated effect falls by this share, and so does the number of patients needed.",
        *_simulation_text(trial["simulation"], trial["design"]["power"]),
        *_design_text(trial),
    ]
    return Section("Use in a trial", text, figures, tables)


def _simulation_text(simulated: Mapping[str, Any] | None, power: float) -> list[str]:
    if simulated is None:
        return []
    trials = simulated["trials"]
    ratios = [f"{simulated[name]:.2f}" for name in ("log_hazard_ratio_alone", "log_hazard_ratio_adjusted")]
    found = [round(trials * simulated[name]) for name in ("power_alone", "power_adjusted")]
    return [
        f"What a Cox regression gains is told by simulation only: of {trials} simulated trials of {simulated['patients']} patients"
        f" {found[0]} found the effect without and {found[1]} with adjustment for the risk; the mean log hazard ratio was"
        f" {ratios[0]} and {ratios[1]}"
        + (". " if ratios[0] == ratios[1] else ", which differ because the hazard ratio is not collapsible. ")
        + ("" if found[1] > found[0] else "No gain is seen. ")
        + (_short_of_power(power) if found[1] < trials * power else "")
    ]


def _short_of_power(power: float) -> str:
    return (
        f"Less than the design's {power:.0%} find it: simulated patients are censored as these were, and treatment prevents events,"
        " while the number of patients counts on everybody being followed, untreated."
    )


def _design_text(trial: Mapping[str, Any]) -> list[str]:
    if not trial["enrichment"]:
        return []
    design = trial["design"]
    return [
        f"Enrichment is of a trial that finds a hazard ratio of {design['hazard_ratio']:g} with a power of {design['power']:.0%} at"
        f" a two-sided level of {design['alpha']:g}; screening one patient costs {design['screening_cost']:g} of what a randomised"
        " one does."
    ]


def _enrichment_table(one: Mapping[str, Any]) -> Table:
    rows = [
        (f"{share:.0%}", *(estimate_words(estimate_at(one[name], place), digits) for name, digits in _DIGITS.items()))
        for place, share in enumerate(one["not_enrolled_share"])
    ]
    header = ("not enrolled (lowest risk)", *(ENRICHMENT[name] for name in _DIGITS))
    return Table(f"Enrichment, outcomes until {days_words(one['days'])}", header, rows, folded=True)


_DIGITS = {"event_rate": 3, "screened": 0, "cost": 2}
