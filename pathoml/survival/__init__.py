"""Survival statistics on plain arrays: estimators and metrics with bootstrap. No torch.

Baselines are imported from `pathoml.survival.baselines`, since scikit-survival takes a second to load.
"""

from pathoml.survival.brier import brier_at_metric, brier_metric, scaled_brier_metric
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
    concordance,
    harrell_metric,
    ipcw_metric,
)

__all__ = [
    "Metric",
    "StepFunction",
    "auc_metric",
    "breslow_hazard",
    "brier_at_metric",
    "brier_metric",
    "censoring_survival",
    "concordance",
    "cox_survival",
    "discrete_risk",
    "discrete_survival",
    "event_bins",
    "harrell_metric",
    "ipcw_metric",
    "kaplan_meier",
    "log_rank",
    "scaled_brier_metric",
]
