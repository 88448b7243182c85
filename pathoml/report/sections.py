"""One validation scheme as tables, figures and sentences of the page."""

from collections.abc import Mapping
from typing import Any

from pathoml.report.forest_figures import concordance_figure, contribution_figure, forest_figure
from pathoml.report.parts import Picture, SchemePart, Section, Table
from pathoml.report.probability_figures import calibration_figure, decision_figure, distribution_figure
from pathoml.report.survival_figures import incidence_figure, kaplan_meier_figure
from pathoml.report.trial_figures import enrichment_figure
from pathoml.report.words import (
    SCHEMES,
    days_words,
    estimate_words,
    measure_words,
    model_words,
    number_words,
    p_value_words,
    verdict_words,
)

_SHOWN = 3
"""Models that figures show; tables hold all."""
_COLUMNS = 5
"""Columns of estimates that a printed page, or a narrow screen, holds."""
_KINDS = {
    "Ranking": ("concordance",),
    "Area under the ROC curve": ("auc_",),
    "Brier score": ("brier_", "integrated_brier", "scaled_brier"),
}


def scheme_part(name: str, scheme: Mapping[str, Any], endpoint: str) -> SchemePart:
    """Turn the evaluation of a scheme into what the page shows.

    Parameters
    ----------
    name : str
        Of the scheme.
    scheme : mapping
        As `pathoml.evaluate` gives it.
    endpoint : str
        What the time runs to.

    Returns
    -------
    SchemePart
        Heading, verdicts, sections.
    """
    shown = {model: model_words(model) for model in list(scheme["metrics"])[:_SHOWN]}
    sections = [
        _ranking(scheme),
        _groups(scheme, shown, endpoint),
        _calibration(scheme, shown),
        _decisions(scheme, shown),
        _hazards(scheme),
        _contributions(scheme),
        _subgroups(scheme),
        _controls(scheme),
        _trial(scheme),
        _folds(scheme),
    ]
    return SchemePart(SCHEMES.get(name, name), verdict_words(scheme), sections)


def _count(scheme: Mapping[str, Any]) -> str:
    tested = scheme["tested"]
    return f"{tested['patients']} test patients, {tested['events']} events"


def _ranking(scheme: Mapping[str, Any]) -> Section:
    metrics = scheme["metrics"]
    rows = [(model_words(model), values["concordance"]) for model, values in metrics.items()]
    tables = _measure_tables("on test patients, computed within folds and averaged", "model", metrics)
    if scheme["differences"]:
        first = model_words(next(iter(metrics)))
        others = {pair.split(" - ", 1)[1]: values for pair, values in scheme["differences"].items()}
        tables += _measure_tables(
            f"differences: {first} minus each other, on the same draws of patients", "minus", others
        )
    figure = Picture(concordance_figure(rows), f"Concordance of each model; {_count(scheme)}. Lines: 95 % intervals.")
    text = [
        "Intervals hold for the models as they were fitted: one above 0.5 is no test of whether there is anything to find."
        " Models fitted again on shuffled outcomes, under Controls, are."
    ]
    return Section("Who is at higher risk", text, [figure], tables)


def _measure_tables(what: str, head: str, metrics: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return a table for each kind of measure, a row a model, no more columns than a page holds."""
    names = list(next(iter(metrics.values())))
    tables = []
    for title, starts in _KINDS.items():
        own = [name for name in names if name.startswith(starts)]
        for start in range(0, len(own), _COLUMNS):
            part = own[start : start + _COLUMNS]
            header = (head, *(measure_words(name) for name in part))
            rows = [
                (model_words(model), *(estimate_words(values[name]) for name in part))
                for model, values in metrics.items()
            ]  # fmt: skip
            tables.append(Table(f"{title}, {what}", header, rows))
    return tables


def _groups(scheme: Mapping[str, Any], shown: Mapping[str, str], endpoint: str) -> Section:
    figures = []
    for model, label in shown.items():
        groups = scheme["groups"][model]
        figures.append(
            Picture(
                kaplan_meier_figure(groups, title=label, endpoint=endpoint, refitted=_refitted(scheme, model)),
                f"Kaplan-Meier by risk group, {label}; {_count(scheme)}. Shaded: 95 % intervals at each time.",
            )
        )
        if "incidence" in groups:
            figures.append(
                Picture(
                    incidence_figure(groups, title=label),
                    f"Aalen-Johansen incidence of competing causes, {label}; {_count(scheme)}. Cause 1 is what is predicted;"
                    " in all other measures competing causes end the follow-up.",
                )
            )
    first = scheme["groups"][next(iter(shown))]
    text = [f"Groups are divided at the {first['cutoff']}. " + _p_value_text(first)]
    return Section("Risk groups", text, figures, [])


def _p_value_text(groups: Mapping[str, Any]) -> str:
    if groups["p_value"] is not None:
        return "No outcome of these patients decided anything about the model, so that the usual log-rank test holds."
    return (
        "Usual log-rank p-values do not hold for groups made by cross-validation: where there is nothing to find they find it three"
        " times too often. A p-value stands only where models were fitted again on shuffled outcomes (evaluate.permutations,"
        " permute_baselines, permute_model)."
    )


def _refitted(scheme: Mapping[str, Any], model: str) -> float | None:
    """Return the p-value of risk groups of models fitted again on shuffled outcomes, where there is one."""
    control = scheme.get("permutation", {}).get(model)
    return None if control is None else control["log_rank_p_value"]


def _calibration(scheme: Mapping[str, Any], shown: Mapping[str, str]) -> Section:
    found = {label: scheme["calibration"][model] for model, label in shown.items()}
    left_out = next(iter(found.values())).get("left_out")
    if left_out is not None:
        note = Table("Calibration, decision curves and use in a trial", ("what", "why"), [("not shown", left_out)])
        return Section("Calibration", [], [], [note])
    svg = calibration_figure(found)
    figures = []
    if svg:
        events = ", ".join(str(one["events"]) for one in next(iter(found.values()))["horizons"])
        figures.append(
            Picture(
                svg,
                f"Calibration; {scheme['tested']['patients']} test patients, {events} events until the times shown. Marks:"
                " Kaplan-Meier in groups of rising prediction, with 95 % intervals; lines: smooth; dotted: right.",
            )
        )
    figures.append(
        Picture(
            distribution_figure(found),
            f"D-calibration; {_count(scheme)}. Dotted: right. Small p: the predicted distributions are wrong somewhere. Where many"
            " are censored p lies near 1 even so: their events are spread over all bins still to come.",
        )
    )
    rows = [
        (
            f"{model_words(model)}, until {days_words(one['days'])}", str(one["events"]),
            estimate_words(one["observed_to_expected"], 2), estimate_words(one["slope"], 2),
            estimate_words(one["mean_error"]),
        )
        for model, calibration in scheme["calibration"].items()
        for one in calibration["horizons"]
    ]  # fmt: skip
    table = Table(
        "Calibration: 1, 1 and 0 are right; chance alone makes the mean absolute error larger than 0",
        ("model and time", "events", "observed / expected", "slope", "mean absolute error"),
        rows,
    )
    text = [
        "Can the probabilities be taken at their word? Observed over expected above 1: more events than predicted. A"
        " slope below 1:"
        " predictions lie too far apart."
    ]
    return Section("Calibration", text, figures, [table] if rows else [])


def _decisions(scheme: Mapping[str, Any], shown: Mapping[str, str]) -> Section:
    svg = decision_figure(scheme["decisions"], shown)
    caption = (
        f"Decision curves; {_count(scheme)}. Shaded: 95 % intervals. A model is of use where its line lies above both"
        " acting on all"
        " and acting on nobody (0). Where a line lies below the frame acting does harm."
    )
    text = ["What would be gained by acting on patients whose predicted probability is at least what the axis says?"]
    return Section("Decision curves", text, [Picture(svg, caption)] if svg else [], [])


def _hazards(scheme: Mapping[str, Any]) -> Section:
    rows = []
    for model, one in scheme["hazards"].items():
        constancy, adjusted = one["proportional_hazards"], one["adjusted"]
        rows.append(
            (
                model_words(model),
                estimate_words(one["hazard_ratio"], 2),
                "-" if adjusted is None else estimate_words(adjusted["hazard_ratio"], 2),
                "-" if adjusted is None else _test_words(adjusted["added_likelihood_ratio"]),
                "-" if adjusted is None else estimate_words(adjusted["added_share"], 2),
                p_value_words(constancy["p_value"]),
            )
        )  # fmt: skip
    first = next(iter(scheme["hazards"].values()))
    covariates = ", ".join(first["adjusted"]["covariates"]) if first["adjusted"] is not None else ""
    header = (
        "model", "hazard ratio", "adjusted hazard ratio", "added to clinical covariates", "share added", "proportional hazards",
    )  # fmt: skip
    adjusted_for = f" Adjusted for {covariates}." if covariates else " There is nothing to adjust for."
    text = [
        f"Hazard ratio for {first['unit']}; Cox regression with a baseline hazard for each fold; {_count(scheme)}."
        f"{adjusted_for} Added: likelihood ratio of what the risk adds to the covariates (its p-value does not"
        " hold after cross-validation and is left out), and its share of the likelihood ratio of both. Small p for"
        " proportional hazards: the ratio changes with time."
    ]
    return Section("Hazard ratios and added value", text, [], [Table("Cox regression on the risk", header, rows)])


def _test_words(test: Mapping[str, Any]) -> str:
    statistic = f"χ² = {test['value']:.1f}"
    return statistic if test["p_value"] is None else f"{statistic}, {p_value_words(test['p_value'])}"


def _subgroups(scheme: Mapping[str, Any]) -> Section:
    found = scheme["subgroups"]
    caption = (
        f"Hospitals and clinical subgroups (events/patients), first model; {_count(scheme)}. Lines: 95 % intervals. Pairs are"
        " compared within folds; lines that would run far beyond all marks end at the edge."
    )
    text = [
        "Many rows are compared here, and none of the differences between them has been tested: some look large by chance alone."
    ]
    if found["left_out"]:
        text.append(f"Not shown, fewer than {found['least_events']} events: {', '.join(found['left_out'])}.")
    return Section("Hospitals and subgroups", text, [Picture(forest_figure(found), caption)], [])


def _controls(scheme: Mapping[str, Any]) -> Section:
    tables: list[Table] = []
    text: list[str] = []
    rows = [
        (
            model_words(model), str(one["permutations"]), number_words(one["concordance"]["observed"]),
            f"{number_words(one['concordance']['null_median'])} ({number_words(one['concordance']['null_low'])} to"
            f" {number_words(one['concordance']['null_high'])})",
            p_value_words(one["p_value"]), p_value_words(one["log_rank_p_value"]),
        )
        for model, one in scheme.get("permutation", {}).items()
    ]  # fmt: skip
    if rows:
        header = (
            "model",
            "shuffles",
            "concordance",
            "shuffled: median (95 % of them)",
            "concordance, p",
            "risk groups, p",
        )
        tables.append(Table("Models fitted again on shuffled outcomes; each row is of that model alone", header, rows))
    sites = [
        (name, str(one["hospitals"]), str(one["patients"]), estimate_words(one["auc"]))
        for name, one in (
            ("the risk", scheme["sites"]["from_risk"]), ("mean features of the slides", scheme["sites"]["from_features"]),
        )
        if one is not None
    ]  # fmt: skip
    if sites:
        columns = ("hospital told from", "hospitals", "patients", "AUC (0.5 = cannot be told)")
        tables.append(Table("Can the hospital be told?", columns, sites))
        text.append(
            "Where the hospital can be told from features, a model can learn hospitals instead of disease; where it can be told"
            " from the risk, hospitals differ in risk, or the model has learnt them."
        )
    return Section("Controls", text, [], tables)


def _trial(scheme: Mapping[str, Any]) -> Section:
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
    svg = enrichment_figure(trial)
    design = trial["design"]
    caption = (
        f"Enrichment by the risk; {_count(scheme)}; a trial that finds a hazard ratio of {design['hazard_ratio']:g} with a power"
        f" of {design['power']:.0%} at a two-sided level of {design['alpha']:g}; screening one patient costs"
        f" {design['screening_cost']:g} of what a randomised one does. Shaded: 95 % intervals."
    )
    text = [
        "By pseudo-observations; a share below 0 means that nothing is saved. In a trial whose analysis adjusts for"
        " the prognosis the"
        " variance of the estimated effect falls by this share, and so does the number of patients needed."
    ]
    simulated = trial["simulation"]
    if simulated is not None:
        text.append(
            f"A Cox regression gains by simulation only: in {simulated['trials']} simulated trials of"
            f" {simulated['patients']} patients"
            f" power was {simulated['power_alone']:.0%} without and {simulated['power_adjusted']:.0%} with adjustment"
            " for the risk;"
            f" the mean log hazard ratio was {simulated['log_hazard_ratio_alone']:.2f} and"
            f" {simulated['log_hazard_ratio_adjusted']:.2f}, which differ because the hazard ratio is not collapsible."
        )
    return Section("Use in a trial", text, [Picture(svg, caption)] if svg else [], tables)


def _contributions(scheme: Mapping[str, Any]) -> Section:
    """Show what each part of the first model adds, where it has several."""
    found = scheme.get("parts")
    if found is None or len(found["parts"]) < 2:
        return Section("Contributions of the parts", [], [], [])
    rows = [
        (
            one["part"], f"{one['patients']} of {scheme['tested']['patients']}", estimate_words(one["deviation"], 2),
            estimate_words(one["part_of_variance"], 2),
        )
        for one in found["parts"]
    ]  # fmt: skip
    text = [
        "What slides, clinical columns, blocks and gene groups each say of a patient adds up to the risk. A part that says the"
        " same of everybody tells nobody apart; a part of the differences below 0 works against the others."
    ]
    header = (
        "part",
        "patients that have it",
        "standard deviation, in those of the risk",
        "part of the differences in risk",
    )
    figure = Picture(
        contribution_figure([(one["part"], one["part_of_variance"]) for one in found["parts"]]),
        f"Part of the differences in risk between patients that each part of the model makes; {_count(scheme)}. Lines: 95 %"
        " intervals.",
    )
    return Section("Contributions of the parts", text, [figure], [Table("Contributions, first model", header, rows)])


def _folds(scheme: Mapping[str, Any]) -> Section:
    models = list(scheme["metrics"])
    repeated = scheme["repeats"]["count"] > 1
    tables = []
    for start in range(0, len(models), _COLUMNS):
        part = models[start : start + _COLUMNS]
        rows = [
            (
                f"{fold['fold']} (repetition {fold['repeat'] + 1})" if repeated else fold["fold"],
                str(fold["patients"]), str(fold["events"]), *(number_words(fold["concordance"][model]) for model in part),
            )
            for fold in scheme["folds"]
        ]  # fmt: skip
        header = ("fold", "patients", "events", *(model_words(model) for model in part))
        tables.append(Table("Concordance in each fold", header, rows))
    return Section("Folds", [], [], tables)
