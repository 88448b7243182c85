"""What a report says of how a study was done: methods in plain words, and answers to the TRIPOD+AI checklist."""

from collections.abc import Mapping, Sequence
from typing import Any

from pathoml.config import Config
from pathoml.covariates import covariate_name
from pathoml.packages import Package
from pathoml.pipeline.study import Study
from pathoml.report.words import SCHEMES, days_words, model_words
from pathoml.splits import Fold


def methods_of(
    study: Study, evaluation: Mapping[str, Any], folds: Sequence[Fold], package: Package, balance: Mapping[str, Any]
) -> list[str]:
    """Say how a study was done.

    Parameters
    ----------
    study : Study
        With the patients that were used.
    evaluation : mapping
        As `pathoml.evaluate.evaluate` gives it.
    folds : sequence of Fold
        Who trained and who was tested.
    package : Package
        The models.
    balance : mapping
        How even the folds are that a solver dealt: what `folds.balance.json` holds.

    Returns
    -------
    list of str
        Paragraphs.
    """
    horizons = ", ".join(days_words(day) for day in evaluation["horizons_days"])
    return [
        f"The study predicts {study.cohort.endpoint} of {len(study.cohort)} patients, of whom"
        f" {int((study.cohort.event == 1).sum())}"
        f" had the event. {_inputs(study, package)}",
        f"{_model(study.config)} {_tuning(study.config)}",
        f"{_division(folds, balance)} Whatever is fitted, from the filling of missing values to the cut-off between risk"
        f" groups, was fitted on a fold's training and validation patients{_stopping(study.config)}."
        f" {_beside(study.config, evaluation)}",
        "Measures of ranking were computed within folds and averaged, since risks of different folds are not"
        " comparable; probabilities"
        f" were judged at {horizons}{_chosen(study.config)}. Censoring weights: {evaluation['censoring_weights']}. Intervals:"
        f" {evaluation['condition']}, with {evaluation['bootstraps']} draws.",
    ]


def answers_of(study: Study, evaluation: Mapping[str, Any], folds: Sequence[Fold], package: Package) -> dict[str, str]:
    """Answer the items of the TRIPOD+AI checklist that the software can answer.

    Parameters
    ----------
    study : Study
        With the patients that were used.
    evaluation : mapping
        As `pathoml.evaluate.evaluate` gives it.
    folds : sequence of Fold
        Who trained and who was tested.
    package : Package
        The models.

    Returns
    -------
    dict
        Key of an item to its answer.
    """
    cohort, config = study.cohort, study.config
    events, sites = int((cohort.event == 1).sum()), sorted(set(cohort.site.tolist()) - {""})
    covariates = ", ".join(covariate_name(one) for one in config.cohort.covariates) or "none"
    horizons = ", ".join(days_words(day) for day in evaluation["horizons_days"])
    return {
        "title": config.name,
        "use": "research use only; not a medical device",
        "objective": "development with internal validation",
        "source": f"table {config.cohort.table.name}" + _manifest(config),
        "follow_up": f"follow-up of up to {days_words(float(cohort.time_days.max()))}; dates of accrual: for the authors",
        "centres": f"{len(sites)} hospitals" if sites else "hospitals are not named in the table",
        "eligibility": _eligibility(study),
        "preparation": _preparation(config),
        "outcome": f"{cohort.endpoint}; judged at {horizons}",
        "predictors": f"covariates: {covariates}" + ("; slides" if config.slides is not None else ""),
        "predictor_definitions": f"covariates: {covariates}; how and when they were measured: for the authors",
        "size": f"{len(cohort)} patients, {events} events; whether that suffices: for the authors",
        "missing": "numbers filled with the training patients' median or, where configured, mean; missing words a level of their"
        " own where training patients lack them, else the most frequent word; ordered words with the median level; patients without"
        " a usable slide " + _without_slides(config),
        "division": _division(folds, {}),
        "handling": "numbers standardised, words as 0/1 columns, blocks as principal components; all fitted on"
        " training patients only",
        "model": f"{_model(config)} {_tuning(config)}",
        "heterogeneity": "measures within hospitals and for each hospital; "
        + ", ".join(SCHEMES.get(name, name).lower() for name in evaluation["schemes"]),
        "measures": "Harrell's and Uno's concordance, time-dependent AUC, Brier score, calibration in the large, slope and curve,"
        f" D-calibration, decision curves, hazard ratios; intervals {evaluation['condition']}",
        "updating": "none in this run; recalibration on other patients is kept beside the package ('pathoml validate')",
        "computation": f"package with {len(package.members)} member(s), 'pathoml predict'; the mean of standardised risks and of"
        " survival curves",
        "imbalance": "none: survival losses, no class is resampled"
        if not config.train.event_balanced
        else "event-balanced steps; levels and baseline hazards are fitted on all training patients as they are",
        "fairness": "performance by each clinical covariate in the forest plot; the rest: for the authors",
        "output": "a risk without unit, survival probabilities, and a group above or below the median risk of training patients",
        "differences": "training and test patients are of one table; see the folds",
        "code": f"pathoml {package.summary.get('pathoml_version')}, configuration {config.digest[:12]}",
        "flow": "; ".join(f"{one.dropped} {one.unit} left out: {one.reason}" for one in cohort.flow if one.dropped)
        or "nobody was left out",
        "characteristics": "number of patients, events and hospitals in the report; a table of characteristics: for the authors",
        "events": "beside every figure and for every fold",
        "specification": "package/: model.safetensors, model.json, MODEL_CARD.md",
        "performance": "in the report, numbers.csv and evaluation.json",
        "by_hospital": "forest plot, and where hospitals are left out each by itself",
        "limitations": "intervals hold for the fitted models; patients of the same hospitals unless a scheme leaves"
        " hospitals out; the"
        " rest: for the authors",
        "poor_input": "slides without tissue, resolution or readable tiles are refused with a code; words not seen in"
        " training are"
        " refused",
    }


def _manifest(config: Config) -> str:
    return "" if config.slides is None else f"; slides of {config.slides.manifest.name}"


def _inputs(study: Study, package: Package) -> str:
    covariates = [covariate_name(one) for one in study.config.cohort.covariates]
    table = f"covariates {', '.join(covariates)}" if covariates else "no covariates"
    if package.feature_spec is None:
        return f"It uses {table} of the clinical table and no slides."
    spec = package.feature_spec
    return (
        f"It uses {table} and {len(study.entries)} slides, cut into tiles of {spec.tile_px} pixels at {spec.target_mpp:g} microns"
        f" per pixel, each turned into numbers by the encoder {spec.encoder}."
    )


def _preparation(config: Config) -> str:
    if config.slides is None:
        return "table read as text and checked cell by cell"
    return (
        f"tissue found ({config.tissue.kind}); tiles flagged for {', '.join(config.quality.drop) or 'nothing'} dropped; colours:"
        f" {config.stain.kind}"
    )


def _model(config: Config) -> str:
    if config.train.max_epochs == 0:
        return f"The model is a ridge Cox regression{_ridge(config)}."
    fusion = config.model.fusion.kind
    joined_by = fusion if fusion == "co_attention" else config.model.aggregator.kind
    join = f"tiles are joined by {joined_by}" if config.slides is not None else "covariates enter linearly"
    if fusion != "late":
        join += f", parts by {fusion.replace('_', ' ')}"
    members = f", {config.train.members} models of different seeds averaged" if config.train.members > 1 else ""
    return f"In the model {join}; it is trained with the loss {config.train.loss.kind}{members}."


def _ridge(config: Config) -> str:
    ridge = config.train.block_ridge
    if ridge is None:
        return ""
    return " whose penalty of blocks " + (
        "was chosen by cross-validated partial likelihood on inner folds of the fold's own patients"
        if ridge.kind == "inner_folds"
        else f"is {ridge.penalty:g}"
    )


def _tuning(config: Config) -> str:
    if config.tune is None:
        return "No settings were tuned."
    names = ", ".join(config.tune.space)
    return f"Tuned inside each fold's training patients, in {config.tune.trials} trials: {names}."


def _division(folds: Sequence[Fold], balance: Mapping[str, Any]) -> str:
    parts = []
    for scheme in dict.fromkeys(fold.scheme for fold in folds):
        own = [fold for fold in folds if fold.scheme == scheme]
        repeats = len({fold.repeat for fold in own})
        often = f", {repeats} repetitions" if repeats > 1 else ""
        parts.append(
            f"{SCHEMES.get(scheme, scheme).lower()} ({len(own)} folds{often}{_evenness(balance.get(scheme, []))})"
        )
    return f"Patients, never slides, were divided: {'; '.join(parts)}."


def _evenness(balances: Sequence[Mapping[str, Any]]) -> str:
    """Say how far from equal shares of events whole hospitals could be dealt, and what is proved."""
    if not balances:
        return ""
    worst = max(balances, key=lambda one: one["events_off"])
    return (
        f"; a fold's share of all events is at most {100 * worst['events_off']:.1f} percentage points from an equal one, and is"
        f" proved not to fall below {100 * worst['events_bound']:.1f}"
    )


def _stopping(config: Config) -> str:
    return "" if config.train.max_epochs == 0 else "; validation patients decide when training stops"


def _beside(config: Config, evaluation: Mapping[str, Any]) -> str:
    models = list(next(iter(evaluation["schemes"].values()))["metrics"])[1:]
    names = ", ".join(model_words(one) for one in models)
    if not models:
        return "The data allow no other model beside it."
    chosen = f"; their penalties were chosen in {config.baselines.inner_folds} inner folds of these patients"
    return f"Beside the model stand, on the same folds: {names}{chosen if len(models) > 2 else ''}."


def _chosen(config: Config) -> str:
    return (
        ""
        if config.evaluate.horizons_days
        else " (quartiles of the event times of all patients; name others beforehand)"
    )


def _eligibility(study: Study) -> str:
    rules = [one.reason or f"{one.kind} by {one.column}" for one in study.config.cohort.eligibility]
    said = f"rules of the configuration: {'; '.join(rules)}" if rules else "every patient of the table"
    return f"{said}; {len(study.cohort)} patients could be used; criteria before the table: for the authors"


def _without_slides(config: Config) -> str:
    if config.slides is None or config.slides.required:
        return "left out and counted"
    return "enter with their covariates"
