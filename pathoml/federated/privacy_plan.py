"""From the epsilon that a plan allows to the noise that a site adds; torch-free."""

from collections.abc import Sequence

from pathoml.federated.accountant import Release, joint_noise, noise_for
from pathoml.federated.privacy_settings import PatientPrivacySettings, steps_per_pass


def delta_of(settings: PatientPrivacySettings, patients: int) -> float:
    """Return the chance with which epsilon may fail.

    Parameters
    ----------
    settings : PatientPrivacySettings
        Of the plan.
    patients : int
        Of the site.

    Returns
    -------
    float
        As the plan says, or 1 / (10 x patients).
    """
    return settings.delta if settings.delta is not None else 1 / (10 * patients)


def planned_releases(
    settings: PatientPrivacySettings, passes: int, metric_sums: int, noise_multiplier: float
) -> Sequence[Release]:  # fmt: skip
    """Return everything that a site is going to let out with noise.

    Parameters
    ----------
    settings : PatientPrivacySettings
        Of the plan.
    passes : int
        Passes over the patients: rounds times local epochs.
    metric_sums : int
        Other sums over patients that leave in all; 0 if the plan lets none out.
    noise_multiplier : float
        Of the gradients.

    Returns
    -------
    sequence of Release
        Gradients and their losses, and the other sums.
    """
    noise = joint_noise(noise_multiplier, settings.loss_noise * noise_multiplier)
    releases = [Release(settings.sample_rate, noise, passes * steps_per_pass(settings.sample_rate))]
    if settings.metric_noise is not None and metric_sums:
        releases.append(Release(1.0, settings.metric_noise, metric_sums))
    return releases


def noise_of_plan(settings: PatientPrivacySettings, patients: int, passes: int, metric_sums: int) -> float:
    """Return the noise with which a site reaches the end of a plan within its epsilon.

    Parameters
    ----------
    settings : PatientPrivacySettings
        Of the plan.
    patients : int
        Of the site.
    passes : int
        Passes over the patients: rounds times local epochs.
    metric_sums : int
        Other sums over patients that leave in all.

    Returns
    -------
    float
        Noise multiplier of the gradients.

    Raises
    ------
    FederationError
        If no noise is enough.
    """
    return noise_for(
        settings.epsilon, delta_of(settings, patients),
        lambda noise: planned_releases(settings, passes, metric_sums, noise),
    )  # fmt: skip
