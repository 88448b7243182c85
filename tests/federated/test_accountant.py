"""What noise costs, held against computations of our own that share nothing with Opacus."""

import math
import sys

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from pathoml.errors import FederationError
from pathoml.federated import accountant
from pathoml.federated.accountant import Release, epsilon_of, joint_noise, noise_for
from pathoml.federated.privacy_plan import delta_of, noise_of_plan, planned_releases
from pathoml.federated.privacy_settings import PatientPrivacySettings, steps_per_pass
from pathoml.units import FloatArray

pytest.importorskip("opacus", reason="opacus is not installed: pip install 'pathoml[federated]'")

TWENTY_PASSES = 187
"""Of 150 patients, 16 a step."""


def renyi_by_integration(rate: float, noise: float, order: float) -> float:
    """Renyi divergence of the sampled Gaussian from the plain one, by the trapezoidal rule."""
    x = np.linspace(-20 * noise, order + 20 * noise, 200_001)
    log_ratio = np.logaddexp(np.log1p(-rate) if rate < 1 else -np.inf, np.log(rate) + (2 * x - 1) / (2 * noise**2))
    log_integrand = norm.logpdf(x, 0, noise) + order * log_ratio
    return float(logsumexp(log_integrand) + np.log(x[1] - x[0])) / (order - 1)


@pytest.mark.parametrize("rate", [0.02, 16 / 150, 0.5, 1.0])
@pytest.mark.parametrize("noise", [0.7, 1.05, 4.57])
def test_divergences_equal_those_by_numerical_integration(rate: float, noise: float) -> None:
    found = dict(zip(accountant._ORDERS, accountant._divergences(rate, noise), strict=True))
    for order in (1.5, 2.0, 3.3, 8.0, 20.0, 32.0):
        assert found[order] == pytest.approx(renyi_by_integration(rate, noise, order), rel=1e-5)


def loss_distribution(releases: list[Release], *, removed: bool) -> tuple[FloatArray, FloatArray]:
    """Values of the privacy loss and their probabilities, convolved over all releases."""
    step, half = 1e-3, 1 << 17
    spectrum = np.ones(half + 1, dtype=complex)
    for one in releases:
        x = np.linspace(-14 * one.noise_multiplier, 1 + 14 * one.noise_multiplier, 200_001)
        middle = (x[1:] + x[:-1]) / 2
        log_ratio = np.logaddexp(
            np.log1p(-one.sample_rate) if one.sample_rate < 1 else -np.inf,
            np.log(one.sample_rate) + (2 * middle - 1) / (2 * one.noise_multiplier**2),
        )
        plain = np.diff(norm.cdf(x, 0, one.noise_multiplier))
        sampled = (1 - one.sample_rate) * plain + one.sample_rate * np.diff(norm.cdf(x, 1, one.noise_multiplier))
        mass, loss = (sampled, log_ratio) if removed else (plain, -log_ratio)
        place = np.rint(loss / step).astype(int)
        assert abs(place).max() < half
        spectrum *= np.fft.rfft(np.bincount(place % (2 * half), weights=mass, minlength=2 * half)) ** one.times
    return np.concatenate([np.arange(half), np.arange(-half, 0)]) * step, np.fft.irfft(spectrum)


def delta_of_losses(losses: FloatArray, density: FloatArray, epsilon: float) -> float:
    above = losses > epsilon
    return float((density[above] * -np.expm1(epsilon - losses[above])).sum())


def epsilon_by_convolution(releases: list[Release], delta: float) -> float:
    both = [loss_distribution(releases, removed=one) for one in (True, False)]
    low, high = 0.0, 60.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        enough = max(delta_of_losses(*one, middle) for one in both) <= delta
        low, high = (low, middle) if enough else (middle, high)
    return high


@pytest.mark.parametrize(
    "releases",
    [
        [Release(16 / 150, 1.05, TWENTY_PASSES)],
        [Release(16 / 150, 4.57, TWENTY_PASSES)],
        [Release(0.1, 2.0, 100), Release(1.0, 20.0, 10)],
        [Release(0.5, 6.0, 40), Release(1.0, 8.0, 3), Release(0.1, 1.5, 20)],
    ],
    ids=["epsilon 8", "epsilon 1", "with metrics", "mixed"],
)
def test_epsilon_is_above_that_of_the_loss_distribution_and_not_far(releases: list[Release]) -> None:
    delta = 1 / 1500
    exact, claimed = epsilon_by_convolution(releases, delta), epsilon_of(releases, delta)
    assert exact <= claimed <= 1.2 * exact


@pytest.mark.parametrize(("noise", "times"), [(3.0, 1), (10.0, 25), (20.0, 4)])
def test_sums_of_everybody_cost_what_the_formula_of_the_gaussian_says(noise: float, times: int) -> None:
    releases, single = [Release(1.0, noise, times)], noise / times**0.5
    distribution = loss_distribution(releases, removed=True)
    for epsilon in (0.1, 0.5, 1.5):
        exact = norm.cdf(1 / (2 * single) - epsilon * single) - math.exp(epsilon) * norm.cdf(
            -1 / (2 * single) - epsilon * single
        )
        assert delta_of_losses(*distribution, epsilon) == pytest.approx(exact, rel=0.02)
        assert epsilon_of(releases, exact) >= epsilon


def of_150(noise: float) -> list[Release]:
    return [Release(16 / 150, noise, TWENTY_PASSES)]


@pytest.mark.parametrize(("epsilon", "noise"), [(8.0, 1.05), (1.0, 4.57)])
def test_noise_for_a_site_of_150_patients_is_that_of_the_table(epsilon: float, noise: float) -> None:
    found = noise_for(epsilon, 1 / 1500, of_150)
    assert found == pytest.approx(noise, rel=0.01), "the table's was sought until epsilon was within 0.01"
    assert epsilon_of(of_150(found), 1 / 1500) <= epsilon
    assert epsilon_of(of_150(found * 0.999), 1 / 1500) > epsilon


def test_more_noise_costs_less_and_more_releases_more() -> None:
    def cost(*releases: Release) -> float:
        return epsilon_of(releases, 1e-4)

    assert cost(Release(0.1, 1.0, 50)) > cost(Release(0.1, 1.1, 50)) > 0
    assert cost(Release(0.1, 1.0, 51)) > cost(Release(0.1, 1.0, 50))
    assert cost(Release(0.1, 1.0, 50), Release(1.0, 30, 1)) > cost(Release(0.1, 1.0, 50))
    assert cost(Release(0.2, 1.0, 50)) > cost(Release(0.1, 1.0, 50))
    assert cost(Release(0.1, 1.0, 20), Release(0.1, 1.0, 30)) == pytest.approx(cost(Release(0.1, 1.0, 50)))


def test_nothing_costs_nothing_and_no_noise_everything() -> None:
    assert epsilon_of([], 1e-4) == 0
    assert epsilon_of([Release(0.1, 1.0, 0)], 1e-4) == 0
    assert epsilon_of([Release(0.1, 0.0, 1)], 1e-4) == math.inf
    assert epsilon_of([Release(1.0, 0.1, 1)], 1e-4) == math.inf


@pytest.mark.parametrize("noises", [(2.0, 8.0), (1.0, 1.0, 1.0)])
def test_sums_let_out_together_hide_as_much_as_one_of_the_joint_noise(noises: tuple[float, ...]) -> None:
    together = sum(accountant._divergences(1.0, one) for one in noises)
    np.testing.assert_allclose(accountant._divergences(1.0, joint_noise(*noises)), together, rtol=1e-12)
    assert joint_noise(0.0, 4.0) == 0


def test_a_budget_that_metrics_alone_exceed_has_no_noise() -> None:
    with pytest.raises(FederationError, match=r"no noise keeps the plan within epsilon 0\.5"):
        noise_for(0.5, 1e-4, lambda noise: [Release(0.1, noise, 10), Release(1.0, 1.0, 5)])


@pytest.mark.parametrize("metric_noise", [None, 25.0])
def test_a_plan_ends_within_its_epsilon_metrics_included(metric_noise: float | None) -> None:
    settings = PatientPrivacySettings(epsilon=3.0, metric_noise=metric_noise)
    noise = noise_of_plan(settings, 150, passes=20, metric_sums=20)
    releases = planned_releases(settings, 20, 20, noise)
    assert epsilon_of(releases, delta_of(settings, 150)) == pytest.approx(3.0, abs=0.01)
    assert epsilon_of(releases, delta_of(settings, 150)) <= 3.0
    assert len(releases) == (1 if metric_noise is None else 2)
    assert releases[0].times == 200
    if metric_noise is not None:
        quiet = noise_of_plan(settings.model_copy(update={"metric_noise": None}), 150, passes=20, metric_sums=20)
        assert noise > quiet, "metrics are paid for with noise on the gradients"


@pytest.mark.parametrize(("rate", "steps"), [(1.0, 1), (0.9, 1), (0.5, 2), (0.1, 10), (16 / 150, 9)])
def test_a_pass_meets_each_patient_about_once(rate: float, steps: int) -> None:
    assert steps_per_pass(rate) == steps


def test_delta_follows_the_number_of_patients_unless_the_plan_says_it() -> None:
    assert delta_of(PatientPrivacySettings(epsilon=1), 150) == pytest.approx(1 / 1500)
    assert delta_of(PatientPrivacySettings(epsilon=1, delta=1e-5), 150) == 1e-5


def test_without_opacus_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    accountant._divergences.cache_clear()
    with pytest.raises(FederationError, match=r"pip install -c constraints\.txt '\.\[federated\]'"):
        epsilon_of([Release(0.1, 1.0, 1)], 1e-4)
