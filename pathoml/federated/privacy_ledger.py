"""What a site has spent of its patients' privacy, in a file that outlives restarts and only ever grows."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pathoml.errors import FederationError, RefusalCode, RefusedError
from pathoml.federated.accountant import Release, epsilon_of
from pathoml.files import make_folder, write_json

_FORMAT, _VERSION = "pathoml-privacy-ledger", 1
_ROUNDING = 1e-9

_Key = tuple[str, str, float, float]
"""Plan, purpose, sample rate, noise multiplier."""


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Parameters
    ----------
    plan : str
        Hash of the plan.
    epsilon : float
        What the plan may spend.
    delta : float
        Chance with which epsilon may fail.
    site_epsilon : float or None
        What the site lets all plans together spend of the same patients; None for no limit of its own.
    """

    plan: str
    epsilon: float
    delta: float
    site_epsilon: float | None = None


class PrivacyLedger:
    """The site's own count of everything that was let out with noise, of all plans.

    Parameters
    ----------
    path : Path
        The file (JSON); one for the same patients, whatever the plan. Made at the first spending.
    budget : Budget
        Of the plan at work.
    known : float, optional
        Epsilon that the plan is known to have spent, from the site's audit log.

    Raises
    ------
    FederationError
        If the file is no such ledger.
    RefusedError
        If it says less than is known: it was deleted, or an older copy put back.
    """

    def __init__(self, path: Path, budget: Budget, *, known: float = 0.0) -> None:
        self._path, self._budget = path, budget
        self._seen = self._read()
        if self.plan_epsilon < known - _ROUNDING:
            raise self._shrunk()

    @property
    def plan_epsilon(self) -> float:
        """What the plan has spent."""
        return epsilon_of(_releases(self._seen, self._budget.plan), self._budget.delta)

    @property
    def site_epsilon(self) -> float:
        """What all plans together have spent, at this plan's delta."""
        return epsilon_of(_releases(self._seen, None), self._budget.delta)

    def spend(self, release: Release, purpose: str) -> None:
        """Write down what is about to be let out; it counts as spent from here on, whatever happens next.

        Parameters
        ----------
        release : Release
            What.
        purpose : str
            For whoever reads the file, such as ``training``.

        Raises
        ------
        RefusedError
            If it is more than may be spent, or the file says less than it said before; nothing is written then, and nothing may
            be let out.
        FederationError
            If the file is no such ledger.
        """
        make_folder(self._path.parent)
        with _alone(self._path):
            counts = self._read()
            self._refuse_shrunk(counts)
            key = (self._budget.plan, purpose, release.sample_rate, release.noise_multiplier)
            counts[key] = counts.get(key, 0) + release.times
            self._refuse_overspent(counts)
            write_json(self._path, _plain(counts))
            self._seen = counts

    def _refuse_shrunk(self, counts: dict[_Key, int]) -> None:
        if any(counts.get(key, 0) < times for key, times in self._seen.items()):
            raise self._shrunk()

    def _shrunk(self) -> RefusedError:
        return RefusedError(
            f"{self._path}: says less than it said before, as if it had been deleted or an older copy put back; what was spent "
            "cannot be unspent: restore the newest copy",
            RefusalCode.LIMIT_OF_SITE,
        )

    def _refuse_overspent(self, counts: dict[_Key, int]) -> None:
        budget = self._budget
        for limit, who, what in (
            (budget.epsilon, "the plan's", _releases(counts, budget.plan)),
            (budget.site_epsilon, "the site's", _releases(counts, None)),
        ):
            if limit is not None and (spent := epsilon_of(what, budget.delta)) > limit + _ROUNDING:
                raise RefusedError(
                    f"{who} privacy budget: the next step would bring epsilon to {spent:.3f} at delta {budget.delta:g}, "
                    f"and {limit:g} is allowed; the step was not taken",
                    RefusalCode.LIMIT_OF_SITE,
                )

    def _read(self) -> dict[_Key, int]:
        if not self._path.is_file():
            return {}
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            if (said["format"], said["format_version"]) != (_FORMAT, _VERSION):
                raise FederationError(f"{self._path}: not a privacy ledger of version {_VERSION}")
            counts: dict[_Key, int] = {}
            for row in said["releases"]:
                key = (str(row["plan"]), str(row["purpose"]), float(row["sample_rate"]), float(row["noise_multiplier"]))
                counts[key] = counts.get(key, 0) + int(row["times"])
        except (ValueError, KeyError, TypeError) as error:
            raise FederationError(
                f"{self._path}: cannot be read as a privacy ledger ({type(error).__name__}); what was spent is written there "
                "and nowhere else: restore it from a copy, do not delete it"
            ) from error
        return counts


def _releases(counts: dict[_Key, int], plan: str | None) -> list[Release]:
    return [Release(rate, noise, times) for (of, _, rate, noise), times in counts.items() if plan in (None, of)]


def _plain(counts: dict[_Key, int]) -> dict[str, object]:
    rows = [
        {"plan": plan, "purpose": purpose, "sample_rate": rate, "noise_multiplier": noise, "times": times}
        for (plan, purpose, rate, noise), times in counts.items()
    ]
    return {"format": _FORMAT, "format_version": _VERSION, "releases": rows}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes of the site from spending at the same time."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
        yield
