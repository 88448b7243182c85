"""One validation scheme as tables, figures and sentences of the page."""

from collections.abc import Mapping
from typing import Any

from pathoml.evaluate.hazards import EXTREME_RISK
from pathoml.evaluate.risk_groups import WELL_FOLLOWED
from pathoml.report.drawn import Drawn, count_words, drawn_models
from pathoml.report.forest_figures import concordance_figure, contribution_figure, forest_figure, row_words
from pathoml.report.parts import Picture, SchemePart, Section, Table
from pathoml.report.probability_sections import calibration_section, decision_section
from pathoml.report.survival_figures import incidence_figure, kaplan_meier_figure
from pathoml.report.trial_sections import trial_section
from pathoml.report.words import (
    SCHEMES,
    estimate_at,
    estimate_words,
    measure_words,
    model_words,
    number_words,
    p_value_words,
    ratio_words,
    verdict_words,
)

_MANY_SHUFFLES = 100
_COLUMNS = 4
"""Columns of estimates that a printed page, or a narrow screen, holds."""
_KINDS = {
    "Ranking": ("concordance",),
    "Area under the ROC curve": ("auc_",),
    "Brier score": ("brier_", "integrated_brier"),
    "Share of the Brier score saved": ("scaled_brier",),
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
    drawn = drawn_models(scheme)
    sections = [
        _ranking(scheme),
        _groups(scheme, drawn, endpoint),
        calibration_section(scheme, drawn),
        decision_section(scheme, drawn),
        _hazards(scheme),
        _contributions(scheme),
        _subgroups(scheme),
        _controls(scheme),
        trial_section(scheme),
        _folds(scheme),
    ]
    repeats = scheme["repeats"]["count"]
    note = (
        f"Measures, differences and folds are of all {repeats} repetitions; all else, from risk groups to controls, is of the"
        " first one, so that each patient counts once."
        if repeats > 1
        else ""
    )
    return SchemePart(SCHEMES.get(name, name), verdict_words(scheme), sections, note)


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
    figure = Picture(
        concordance_figure(rows),
        f"Concordance of each model; {count_words(scheme)}. Lines: 95 % intervals; dotted: guessing.",
    )
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


def _groups(scheme: Mapping[str, Any], drawn: Drawn, endpoint: str) -> Section:
    figures = []
    for model, label in drawn.models.items():
        groups = scheme["groups"][model]
        figures.append(
            Picture(
                kaplan_meier_figure(groups, title=label, endpoint=endpoint, refitted=_refitted(scheme, model)),
                f"Kaplan-Meier by risk group, {label}; {count_words(scheme)}. Shaded: 95 % intervals at each time. Drawn while"
                f" {WELL_FOLLOWED} patients of both groups together are followed.",
            )
        )
        if "incidence" in groups:
            figures.append(
                Picture(
                    incidence_figure(groups, title=label),
                    f"Aalen-Johansen incidence of competing causes, {label}; {count_words(scheme)}. Cause 1 is what is predicted;"
                    " in all other measures competing causes end the follow-up.",
                )
            )
    first = next(iter(scheme["groups"].values()))
    text = [f"Groups are divided at the {first['cutoff']}. " + _p_value_text(first) + drawn.left_out]
    tables = [_survival_table(model, groups) for model, groups in scheme["groups"].items()]
    return Section("Risk groups", text, figures, tables)


def _survival_table(model: str, groups: Mapping[str, Any]) -> Table:
    """Return what the curves show at the end of each year."""
    rows = [
        (
            f"{year}",
            *(
                cell
                for curve in groups["curves"].values()
                for cell in (
                    str(curve["at_risk"][year]),
                    estimate_words(estimate_at(curve["at_years"], year), 2)
                    if year < len(curve["at_years"]["value"])
                    else "nobody is followed so long",
                )
            ),
        )
        for year in range(len(groups["at_risk_days"]))
    ]
    header = ("years", *(words for name in groups["curves"] for words in (f"{name} risk: at risk", f"{name} risk")))
    return Table(f"Survival by risk group, {model_words(model)} (Kaplan-Meier)", header, rows, folded=True)


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


def _hazards(scheme: Mapping[str, Any]) -> Section:
    rows = []
    for model, one in scheme["hazards"].items():
        constancy, adjusted = one["proportional_hazards"], one["adjusted"]
        rows.append(
            (
                model_words(model),
                ratio_words(one["hazard_ratio"]),
                "-" if adjusted is None else ratio_words(adjusted["hazard_ratio"]),
                "-" if adjusted is None else _test_words(adjusted["added_likelihood_ratio"]),
                "-" if adjusted is None else estimate_words(adjusted["added_share"], 2),
                p_value_words(constancy["p_value"]),
            )
        )  # fmt: skip
    first = next(iter(scheme["hazards"].values()))
    adjusted_ones = [one["adjusted"] for one in scheme["hazards"].values() if one["adjusted"] is not None]
    covariates = ", ".join(adjusted_ones[0]["covariates"]) if adjusted_ones else ""
    header = (
        "model", "hazard ratio", "adjusted hazard ratio", "added to clinical covariates", "share added", "proportional hazards",
    )  # fmt: skip
    adjusted_for = (
        f" Adjusted for {covariates}, where the risk is not made of them."
        if covariates
        else " There is nothing to adjust for."
    )
    text = [
        f"Hazard ratio for {first['unit']}; Cox regression with a baseline hazard for each fold; {count_words(scheme)}."
        f"{adjusted_for} Added: likelihood ratio of what the risk adds to the covariates (its p-value does not"
        " hold after cross-validation and is left out), and its share of the likelihood ratio of both. Small p for"
        " proportional hazards: the ratio changes with time; in simulated cross-validations with proportional hazards it fell below"
        " 0.05 in 1 to 4 %, so that it errs on the side of saying nothing.",
        *_extreme_words(scheme),
    ]
    return Section("Hazard ratios and added value", text, [], [Table("Cox regression on the risk", header, rows)])


def _extreme_words(scheme: Mapping[str, Any]) -> list[str]:
    """Say where few patients make the hazard ratio."""
    said = [f"{one['extreme']} by {model_words(model)}" for model, one in scheme["hazards"].items() if one["extreme"]]
    if not said:
        return []
    return [
        f"Risks more than {EXTREME_RISK:g} standard deviations from those of the patients that fitted the model: {', '.join(said)}."
        " Hazard ratios and calibration slopes follow such patients more than all others; look at their data."
    ]


def _test_words(test: Mapping[str, Any]) -> str:
    statistic = f"χ² = {test['value']:.1f}"
    return statistic if test["p_value"] is None else f"{statistic}, {p_value_words(test['p_value'])}"


def _subgroups(scheme: Mapping[str, Any]) -> Section:
    found = scheme["subgroups"]
    caption = (
        f"Hospitals and clinical subgroups (events/patients), first model; {count_words(scheme)}. Lines: 95 % intervals; an arrow:"
        " it runs on; dotted: guessing, no effect. Limits of numbers are medians, in the unit of the table."
    )
    text = [
        "Many rows are compared here, and none of the differences between them has been tested: some look large by chance alone."
        " Pairs of all folds are counted together here, since a fold has few of a subgroup; the tables above average over folds, so"
        " that all patients have a slightly different concordance there."
    ]
    if found["left_out"]:
        text.append(f"Not shown, fewer than {found['least_events']} events: {', '.join(found['left_out'])}.")
    rows = [
        (
            row_words(one), str(one["patients"]), str(one["events"]), estimate_words(one["concordance"]),
            ratio_words(one["hazard_ratio"]),
        )
        for one in found["rows"]
    ]  # fmt: skip
    header = ("subgroup", "patients", "events", "concordance", "hazard ratio for one SD of risk")
    table = Table("Hospitals and clinical subgroups, first model", header, rows, folded=True)
    return Section("Hospitals and subgroups", text, [Picture(forest_figure(found), caption)], [table])


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
        fewest = min(one["permutations"] for one in scheme["permutation"].values())
        if fewest < _MANY_SHUFFLES:
            text.append(f"With {fewest} shuffles no p-value can be below {1 / (fewest + 1):.3f}.")
        if "model" in scheme["metrics"] and "model" not in scheme["permutation"]:
            text.append("The model itself was not fitted on shuffled outcomes; evaluate.permute_model asks for that.")
        if scheme["repeats"]["count"] > 1:
            text.append("Concordances here are of the first repetition alone.")
    sites = [
        (name, str(one["hospitals"]), str(one["patients"]), estimate_words(one["auc"]))
        for name, one in (
            ("the risk", scheme["sites"]["from_risk"]), ("mean features of the slides", scheme["sites"]["from_features"]),
        )
        if one is not None
    ]  # fmt: skip
    if sites:
        columns = ("hospital told from", "hospitals", "patients", "AUC (0.5 = cannot be told)")
        caption = (
            "Can the hospital be told? 95 % intervals: over patients, for the classifiers as fitted in cross-validation"
        )
        tables.append(Table(caption, columns, sites))
        text.append(
            "Where the hospital can be told from features, a model can learn hospitals instead of disease; where it can be told"
            " from the risk, hospitals differ in risk, or the model has learnt them."
        )
    return Section("Controls", text, [], tables)


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
        " same of everybody tells nobody apart; a share below 0 works against the others."
    ]
    header = (
        "part",
        "patients that have it",
        "standard deviation, in those of the risk",
        "share of the variance of the risk",
    )
    figure = Picture(
        contribution_figure([(one["part"], one["part_of_variance"]) for one in found["parts"]]),
        f"Share of the variance of the risk between patients that each part of the model makes; {count_words(scheme)}. Lines: 95 %"
        " intervals; dotted: none.",
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
