"""Predictions -> how good they are, with intervals, beside every other model."""

from pathoml.evaluate.background import Background
from pathoml.evaluate.estimates import Estimate
from pathoml.evaluate.judging import EVALUATION_FORMAT, EVALUATION_VERSION, evaluate, fold_mean_concordance
from pathoml.evaluate_settings import EvaluateSettings

__all__ = [
    "EVALUATION_FORMAT",
    "EVALUATION_VERSION",
    "Background",
    "Estimate",
    "EvaluateSettings",
    "evaluate",
    "fold_mean_concordance",
]
