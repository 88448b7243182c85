"""Survival statistics on plain arrays: estimators, metrics with bootstrap, baselines. No torch."""

from pathoml.survival.baselines import CoxModel, fit_cox
from pathoml.survival.curves import (
    StepFunction,
    breslow_hazard,
    censoring_survival,
    cox_survival,
    kaplan_meier,
    log_rank,
)
from pathoml.survival.discrete import discrete_risk, discrete_survival, event_bins
from pathoml.survival.metrics import (
    Metric,
    auc_metric,
    brier_metric,
    harrell_metric,
    ipcw_metric,
)

__all__ = [
    "CoxModel",
    "Metric",
    "StepFunction",
    "auc_metric",
    "breslow_hazard",
    "brier_metric",
    "censoring_survival",
    "cox_survival",
    "discrete_risk",
    "discrete_survival",
    "event_bins",
    "fit_cox",
    "harrell_metric",
    "ipcw_metric",
    "kaplan_meier",
    "log_rank",
]
