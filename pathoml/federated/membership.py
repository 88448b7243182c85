"""How well an attacker tells patients a model was trained on from others: rates, exact intervals, and what they leave open."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, mannwhitneyu, norm

from pathoml.errors import FederationError
from pathoml.units import AnyArray, FloatArray, IntArray

FALSE_POSITIVE_RATES = (0.01, 0.05)
LEVEL = 0.95
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Share:
    """A count out of a number of patients, with the exact interval of the rate behind it.

    Parameters
    ----------
    count : int
        How many.
    of : int
        Out of how many.
    low, high : float
        Clopper-Pearson interval.
    """

    count: int
    of: int
    low: float
    high: float


@dataclass(frozen=True)
class RateAt:
    """What an attack finds if it may accuse a share of the others wrongly.

    Parameters
    ----------
    allowed : float
        That share.
    false_positives : Share
        Patients not trained on that it takes for trained on, at the threshold that keeps to the share.
    true_positives : Share
        Patients trained on that it finds at the same threshold.
    not_ruled_out : float
        Share of members that it may find at a true false-positive rate of ``allowed``, as `most_found` gives it.
    """

    allowed: float
    false_positives: Share
    true_positives: Share
    not_ruled_out: float

    @property
    def leaks(self) -> bool:
        """Whether more are found than chance explains: the two intervals do not meet."""
        return self.true_positives.low > self.false_positives.high


@dataclass(frozen=True)
class Attack:
    """What one attack achieved.

    Parameters
    ----------
    name : str
        Which.
    auc : float
        Chance that a patient trained on scores higher than one not trained on; 0.5 is guessing.
    auc_low, auc_high : float
        Interval of it (DeLong).
    p_value : float
        Chance of an AUC so high if the model told nothing (Mann-Whitney, one-sided).
    rates : tuple of RateAt
        At each allowed rate of false positives.
    """

    name: str
    auc: float
    auc_low: float
    auc_high: float
    p_value: float
    rates: tuple[RateAt, ...]


@dataclass(frozen=True)
class MembershipReport:
    """What a site learns about its own patients' exposure; it stays at the site.

    Parameters
    ----------
    attacks : tuple of Attack
        Each on the same patients.
    members, others : int
        Patients the model was trained on, and not.
    """

    attacks: tuple[Attack, ...]
    members: int
    others: int

    @property
    def leaks(self) -> bool:
        """Whether an attack did better than chance: by its AUC (corrected for the number of attacks) or at low false positives."""
        least = (1 - LEVEL) / len(self.attacks)
        return any(one.p_value < least or any(rate.leaks for rate in one.rates) for one in self.attacks)

    def sentences(self) -> list[str]:
        """Say it in words.

        Returns
        -------
        list of str
            The finding, each attack's figures, and what they do not rule out.
        """
        found = "The model tells who was in its training" if self.leaks else "No attack told members from others"
        lines = [f"{found} ({self.members} patients trained on, {self.others} not)."]
        for attack in self.attacks:
            lines.append(
                f"{attack.name}: AUC {attack.auc:.3f} ({attack.auc_low:.3f} to {attack.auc_high:.3f}), p = {attack.p_value:.2g}."
            )
            lines += [_rate_sentence(rate) for rate in attack.rates]
        return [*lines, *self._left_open()]

    def _left_open(self) -> list[str]:
        """Say what so few patients cannot rule out."""
        lines = []
        for number, allowed in enumerate(FALSE_POSITIVE_RATES):
            worst = max((one.rates[number] for one in self.attacks), key=lambda rate: rate.not_ruled_out)
            if self.others * allowed < 1:
                lines.append(
                    f"A false-positive rate of {allowed:.0%} cannot be measured on {self.others} patients not trained on "
                    f"({math.ceil(1 / allowed)} are needed for one to count); the figures are at none of them, behind which "
                    f"a rate of up to {worst.false_positives.high:.1%} may stand."
                )
            lines.append(
                f"Not ruled out: that these attacks find up to {worst.not_ruled_out:.1%} of members at "
                f"{allowed:.0%} false positives."
            )
        lines.append(
            "Nor are stronger attacks, by someone with more computing, more similar patients or the models of single "
            "rounds: finding nothing is no proof that there is nothing to be found."
        )
        return lines


@dataclass(frozen=True)
class ReferenceModels:
    """Models trained on known halves of the same patients.

    Parameters
    ----------
    statistic : ndarray, shape (models, patients)
        How well each model fits each patient; higher is better.
    was_in : ndarray of bool, shape (models, patients)
        Whether the patient was in its training.
    """

    statistic: FloatArray
    was_in: AnyArray


def membership_report(
    statistic: FloatArray, is_member: AnyArray, references: ReferenceModels | None = None
) -> MembershipReport:
    """Attack a model with what it says of each patient.

    Parameters
    ----------
    statistic : ndarray, shape (patients,)
        How well the model fits each patient, for example minus its loss; higher is better.
    is_member : ndarray of bool, shape (patients,)
        Whether it was trained on.
    references : ReferenceModels, optional
        For the likelihood-ratio attack, which is stronger and needs models to compare with.

    Returns
    -------
    MembershipReport
        Of the loss-threshold attack, and of the likelihood-ratio attack where there are references.

    Raises
    ------
    FederationError
        If there are no members, no others, or a number is not finite.

    References
    ----------
    Yeom S et al. Privacy risk in machine learning: analyzing the connection to overfitting. CSF 2018 (loss threshold). Carlini N
    et al. Membership inference attacks from first principles. IEEE S&P 2022 (likelihood ratio, rates at few false positives).
    """
    member = np.asarray(is_member, dtype=bool)
    if member.all() or not member.any():
        raise FederationError(
            f"membership report: {int(member.sum())} of {len(member)} patients were trained on; it needs some who were and "
            "some who were not (keep a part of the patients out of training)"
        )
    scores = {"Loss threshold": np.asarray(statistic, dtype=np.float64)}
    if references is not None:
        scores[f"Likelihood ratio ({len(references.statistic)} reference models)"] = likelihood_ratio(
            scores["Loss threshold"], references
        )
    for name, score in scores.items():
        if not np.isfinite(score).all():
            raise FederationError(f"membership report: {name.lower()}: not a finite number for every patient")
    attacks = tuple(attack(name, score[member], score[~member]) for name, score in scores.items())
    return MembershipReport(attacks, int(member.sum()), int((~member).sum()))


def likelihood_ratio(statistic: FloatArray, references: ReferenceModels) -> FloatArray:
    """Score each patient by how much more likely its statistic is from a model trained on it than from one that was not.

    Parameters
    ----------
    statistic : ndarray, shape (patients,)
        Of the model under attack.
    references : ReferenceModels
        Models with and without each patient.

    Returns
    -------
    ndarray of float64, shape (patients,)
        Log ratio of two normal densities; their means are each patient's own, their widths common to all, which is steadier with
        few models.

    Raises
    ------
    FederationError
        If a patient is in all of the models or in none.
    """
    inside = np.asarray(references.was_in, dtype=bool)
    if inside.all(axis=0).any() or not inside.any(axis=0).all():
        raise FederationError("membership report: every patient has to be in some reference models and not in others")
    densities = []
    for chosen in (inside, ~inside):
        values = np.where(chosen, references.statistic, np.nan)
        mean = np.nanmean(values, axis=0)
        spread = max(float(np.sqrt(np.nanmean((values - mean) ** 2))), _LEAST_SPREAD)
        densities.append(norm.logpdf(statistic, mean, spread))
    ratio: FloatArray = densities[0] - densities[1]
    return ratio


def train_references(
    fit: Callable[[IntArray, int], FloatArray], patients: int, models: int, seed: int
) -> ReferenceModels:  # fmt: skip
    """Train models on random halves of the patients, each patient in exactly half of them.

    Parameters
    ----------
    fit : callable
        Rows of the patients to train on, and a seed -> statistic of all patients.
    patients : int
        How many.
    models : int
        An even number; 16 give a first impression, 64 are better.
    seed : int
        Of the halves; models get those that follow.

    Returns
    -------
    ReferenceModels
        For `membership_report`.
    """
    rng = np.random.default_rng(seed)
    was_in = np.zeros((models, patients), dtype=bool)
    for number in range(0, models, 2):
        half = rng.permutation(patients)[: patients // 2]
        was_in[number, half] = True
        was_in[number + 1] = ~was_in[number]
    statistic = np.stack([fit(np.flatnonzero(rows), seed + 1 + number) for number, rows in enumerate(was_in)])
    return ReferenceModels(statistic, was_in)


def attack(name: str, members: FloatArray, others: FloatArray) -> Attack:
    """Judge scores by what is known.

    Parameters
    ----------
    name : str
        Which attack.
    members : ndarray, shape (members,)
        Scores of patients trained on; higher means that the attack takes them for such.
    others : ndarray, shape (others,)
        Of patients not trained on.

    Returns
    -------
    Attack
        AUC and rates with intervals.
    """
    auc, error = _auc(members, others)
    width = norm.ppf(0.5 + LEVEL / 2) * error
    p_value = float(mannwhitneyu(members, others, alternative="greater").pvalue)
    rates = tuple(rate_at(members, others, allowed) for allowed in FALSE_POSITIVE_RATES)
    return Attack(name, auc, max(auc - width, 0.0), min(auc + width, 1.0), p_value, rates)


def rate_at(members: FloatArray, others: FloatArray, allowed: float) -> RateAt:
    """Put the threshold so that no more than a share of the others lies above it, and count who does.

    Parameters
    ----------
    members : ndarray, shape (members,)
        Scores of patients trained on.
    others : ndarray, shape (others,)
        Of patients not trained on.
    allowed : float
        The share.

    Returns
    -------
    RateAt
        Patients whose score equals the threshold are not accused.
    """
    above = int(allowed * len(others) + 1e-9)
    threshold = np.sort(others)[::-1][above]
    wrong, right = int((others > threshold).sum()), int((members > threshold).sum())
    found = most_found(members, others, allowed)
    return RateAt(allowed, exact_share(wrong, len(others)), exact_share(right, len(members)), found)


def most_found(members: FloatArray, others: FloatArray, allowed: float) -> float:
    """Return the share of members that an attack finds at most, were its threshold the one of exactly the allowed false positives.

    That threshold is not known, only where the others happen to lie. So the count is at one that is surely no higher: the k-th
    score of the others is exceeded by a Beta(k, others - k + 1) share of all that there could be, and k is the least for which
    that share is the allowed one or more. The chances of erring, there and in the count, are half of what is left each.

    Parameters
    ----------
    members : ndarray, shape (members,)
        Scores of patients trained on.
    others : ndarray, shape (others,)
        Of patients not trained on.
    allowed : float
        True false-positive rate.

    Returns
    -------
    float
        Exceeded by the true share with a chance of 2.5 % at most; 1 where the others are too few to say.

    References
    ----------
    David HA, Nagaraja HN. Order statistics. 3rd ed, Wiley 2003, section 7.1 (distribution-free bounds of quantiles).
    """
    error = (1 - LEVEL) / 4
    places = np.arange(1, len(others) + 1)
    sure = np.flatnonzero(beta.cdf(allowed, places, len(others) - places + 1) <= error)
    if len(sure) == 0:
        return 1.0
    threshold = np.sort(others)[::-1][sure[0]]
    return exact_share(int((members >= threshold).sum()), len(members), 1 - 2 * error).high


def exact_share(count: int, of: int, level: float = LEVEL) -> Share:
    """Return a share with its exact interval.

    Parameters
    ----------
    count : int
        How many.
    of : int
        Out of how many.
    level : float, optional
        Chance that the interval holds the true rate, at least.

    Returns
    -------
    Share
        With low and high.

    References
    ----------
    Clopper CJ, Pearson ES. The use of confidence or fiducial limits illustrated in the case of the binomial. Biometrika 26
    (1934) 404-413.
    """
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, of - count)) if count < of else 1.0
    return Share(count, of, low, high)


def guaranteed_rate(false_positive_rate: float, epsilon: float, delta: float) -> float:
    """Return what differential privacy promises: no attack whatever finds a larger share of members.

    Parameters
    ----------
    false_positive_rate : float
        Share of others whom the attack accuses.
    epsilon, delta : float
        What was spent.

    Returns
    -------
    float
        Bound of the true-positive rate; 1 promises nothing.

    References
    ----------
    Kairouz P, Oh S, Viswanath P. The composition theorem for differential privacy. ICML 2015, theorem 2.1.
    """
    if epsilon > 700:  # beyond what exp can hold, and far beyond what promises anything
        return 1.0
    least_missed = math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return min(1.0, math.exp(epsilon) * false_positive_rate + delta, 1 - max(least_missed, 0.0))


def _auc(members: FloatArray, others: FloatArray) -> tuple[float, float]:
    """Return the area under the curve and its standard error (DeLong 1988), half a patient of the smaller group at least."""
    wins = (members[:, None] > others[None, :]) + 0.5 * (members[:, None] == others[None, :])
    by_member, by_other = wins.mean(axis=1), wins.mean(axis=0)
    variance = by_member.var(ddof=1) / len(members) if len(members) > 1 else 0.25
    variance += by_other.var(ddof=1) / len(others) if len(others) > 1 else 0.25
    # Scores that separate perfectly have no variance, but few patients still prove little.
    return float(wins.mean()), max(math.sqrt(variance), 0.5 / min(len(members), len(others)))


def _rate_sentence(rate: RateAt) -> str:
    found, wrong = rate.true_positives, rate.false_positives
    return (
        f"  At {rate.allowed:.0%} false positives ({wrong.count} of {wrong.of}, true rate up to {wrong.high:.1%}) it finds "
        f"{found.count} of {found.of} members: {found.count / found.of:.1%} ({found.low:.1%} to {found.high:.1%})."
    )


def most_exposed(statistic: FloatArray, is_member: AnyArray, names: Sequence[str], count: int = 10) -> list[str]:
    """Name the patients trained on whom an attacker would find first; for the site's eyes only.

    Parameters
    ----------
    statistic : ndarray, shape (patients,)
        Score of an attack.
    is_member : ndarray of bool, shape (patients,)
        Whether each was trained on.
    names : sequence of str
        Who they are.
    count : int, optional
        How many to name.

    Returns
    -------
    list of str
        Most exposed first.
    """
    order = np.argsort(-np.where(is_member, statistic, -np.inf), kind="stable")
    return [names[row] for row in order[: min(count, int(np.sum(is_member)))]]
