"""What a plan says about differential privacy, and which trainings it cannot be had for; torch-free."""

from collections.abc import Sequence

from pydantic import Field

from pathoml.settings import Settings
from pathoml.train_settings import CoxLossSettings, DeepHitLossSettings, TrainSettings


class PatientPrivacySettings(Settings):
    """Differential privacy of patients: each site adds noise, so that no single patient can be told from what leaves it."""

    epsilon: float = Field(gt=0, le=100, description="Most that the whole plan may spend of each site's privacy.")
    delta: float | None = Field(
        None, gt=0, lt=0.1, description="Chance with which epsilon may fail; null: 1 / (10 x patients of the site)."
    )
    clip_norm: float = Field(1.0, gt=0, description="A patient's gradient that is longer is shortened to this.")
    sample_rate: float = Field(
        0.1, gt=0, le=1, description="Chance of each patient to take part in a step; a pass has 1 / rate steps."
    )
    loss_bound: float = Field(
        5.0, gt=0, description="A patient's loss that is higher counts as this where losses leave."
    )
    loss_noise: float = Field(
        4.0, ge=1, description="Noise of the training loss over that of the gradients, in units of their bounds."
    )
    metric_noise: float | None = Field(
        None, gt=0, description="Noise of the validation patients' summed loss, in units of loss_bound; null: it stays."
    )
    spare_passes: int = Field(
        1, ge=0, description="Passes that may be lost to crashes: noise is set so that they too stay within epsilon."
    )


def steps_per_pass(sample_rate: float) -> int:
    """Return how many steps meet each patient once on average.

    Parameters
    ----------
    sample_rate : float
        Chance of a patient to take part in a step.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, round(1 / sample_rate))


def reasons_against(train: TrainSettings) -> Sequence[str]:
    """Return why patients' privacy cannot be had for a training.

    It rests on each patient having a gradient of its own, whose length is bounded, and on each being drawn by chance alone.
    Every head of `pathoml.mil` treats patients one by one; not every loss does.

    Parameters
    ----------
    train : TrainSettings
        How the model is fitted.

    Returns
    -------
    sequence of str
        Key, reason and remedy of each; empty if there is none.
    """
    reasons = []
    if isinstance(train.loss, CoxLossSettings):
        ranked = " (so does its ranking term)" if train.loss.ranking_weight else ""
        reasons.append(
            f"train.loss: cox compares each patient with all who were at risk at the same time{ranked}, so that no part of the "
            "gradient is one patient's; use kind: discrete, pmf or mtlr"
        )
    if isinstance(train.loss, DeepHitLossSettings) and train.loss.likelihood_share < 1:
        reasons.append(
            "train.loss: deephit ranks pairs of patients, so that no part of the gradient is one patient's; use kind: pmf, "
            "which is deephit without its ranking"
        )
    if train.event_balanced:
        reasons.append(
            "train.event_balanced: it draws patients by their outcome, while the count of what is spent holds for patients who "
            "are all drawn with the same chance; set it to false"
        )
    if train.batch_patients is not None:
        reasons.append(
            "train.batch_patients: the plan's privacy.sample_rate decides who takes part in a step; leave it out"
        )
    return reasons
