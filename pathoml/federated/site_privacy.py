"""A site's side of a plan with privacy: how much noise, what was spent, and answers that were let out already."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from pathoml.errors import FederationError
from pathoml.federated.accountant import Release
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.method_settings import RoundsSettings
from pathoml.federated.plan import Plan
from pathoml.federated.privacy_ledger import Budget, PrivacyLedger
from pathoml.federated.privacy_plan import delta_of, noise_of_plan
from pathoml.federated.privacy_settings import PatientPrivacySettings
from pathoml.federated.private_noise import Draw, release_sum, system_draw
from pathoml.federated.private_update import PrivateTraining
from pathoml.files import make_folder, write_bytes
from pathoml.units import FloatArray

_KEPT_ROUNDS = 3
_DIGEST_BYTES = 64


def budget_of(plan: Plan, patients: int, site_epsilon: float | None) -> Budget:
    """Return what a plan may spend at a site.

    Parameters
    ----------
    plan : Plan
        With privacy.
    patients : int
        The site's training patients.
    site_epsilon : float or None
        What the site lets all plans together spend.

    Returns
    -------
    Budget
        For its ledger.
    """
    settings = privacy_of(plan)
    return Budget(plan.digest, settings.epsilon, delta_of(settings, patients), site_epsilon)


def privacy_of(plan: Plan) -> PatientPrivacySettings:
    """Return what a plan says of privacy.

    Parameters
    ----------
    plan : Plan
        With privacy.

    Returns
    -------
    PatientPrivacySettings
        Its section.

    Raises
    ------
    FederationError
        If it has none.
    """
    if plan.privacy is None:
        raise FederationError(f"plan {plan.name} has no privacy: section")
    return plan.privacy


class SitePrivacy:
    """Noise and count of one plan at one site.

    Parameters
    ----------
    plan : Plan
        With privacy, trained by rounds.
    patients : int
        The site's training patients.
    ledger : PrivacyLedger
        Where everything is written down before it leaves.
    folder : Path or None
        Where answers are kept; None keeps them in memory.
    draw : callable, optional
        Source of chance; anything but the default is for tests.
    """

    def __init__(
        self, plan: Plan, patients: int, ledger: PrivacyLedger, folder: Path | None, draw: Draw = system_draw
    ) -> None:  # fmt: skip
        self._settings, self._ledger, self._draw = privacy_of(plan), ledger, draw
        self._delta = delta_of(self._settings, patients)
        passes, sums = _planned(plan)
        noise = noise_of_plan(self._settings, patients, passes, sums)
        settings = self._settings
        self.training = PrivateTraining(
            settings.clip_norm, noise, settings.sample_rate, settings.loss_bound, settings.loss_noise * noise,
            partial(ledger.spend, purpose="training"), draw,
        )  # fmt: skip
        self.answers = KeptAnswers(None if folder is None else folder / "answers")

    @property
    def tells_losses(self) -> bool:
        """Whether the validation patients' loss leaves, with noise."""
        return self._settings.metric_noise is not None

    @property
    def spent(self) -> dict[str, float]:
        """Epsilon of the plan so far, the delta that goes with it, and epsilon of all plans together."""
        ledger = self._ledger
        return {"epsilon": ledger.plan_epsilon, "delta": self._delta, "epsilon_of_all_plans": ledger.site_epsilon}

    def mean_loss(self, losses: FloatArray) -> float:
        """Return the mean loss of patients as it may leave, after writing down what that costs.

        Parameters
        ----------
        losses : ndarray of float64, shape (patients,)
            One a patient.

        Returns
        -------
        float
            Of clipped losses, with noise.

        Raises
        ------
        FederationError
            If the plan lets no such number out.
        RefusedError
            If it would spend more than is allowed.
        """
        noise, bound = self._settings.metric_noise, self._settings.loss_bound
        if noise is None:
            raise FederationError("the plan has no privacy.metric_noise: this loss does not leave")
        self._ledger.spend(Release(1.0, noise, 1), purpose="validation loss")
        return release_sum(np.maximum(losses, 0.0), bound, noise, self._draw) / len(losses)


def _planned(plan: Plan) -> tuple[int, int]:
    """Return the passes and the validation losses that a plan amounts to, spare ones included."""
    method, settings = plan.method, privacy_of(plan)
    if not isinstance(method, RoundsSettings):
        raise FederationError(f"plan {plan.name} takes no rounds")
    sums = method.rounds + 1 + settings.spare_passes if settings.metric_noise is not None else 0
    return method.rounds * method.local_epochs + settings.spare_passes, sums


class KeptAnswers:
    """Answers of the last rounds: the same request gets the same noise, so that a crash of the coordinator costs no privacy.

    Parameters
    ----------
    folder : Path or None
        Where they are; None keeps them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, bytes] = {}

    def find(self, request: Message) -> Message | None:
        """Return the answer to a request that was answered before.

        Parameters
        ----------
        request : Message
            What is asked.

        Returns
        -------
        Message or None
            None if it was not, or was another in any bit.
        """
        content = self._read(_name_of(request.kind, request.round_number))
        digest = _digest(request)
        if content is None or content[:_DIGEST_BYTES] != digest:
            return None
        return from_bytes(content[_DIGEST_BYTES:])

    def keep(self, request: Message, answer: Message) -> None:
        """Remember an answer; those of earlier rounds are let go.

        Parameters
        ----------
        request : Message
            What was asked.
        answer : Message
            What is going to leave.
        """
        if request.kind not in ("train", "validate"):
            return
        name, old = (_name_of(request.kind, request.round_number - back) for back in (0, _KEPT_ROUNDS))
        content = _digest(request) + to_bytes(answer)
        if self._folder is None:
            self._held[name] = content
            self._held.pop(old, None)
            return
        make_folder(self._folder)
        write_bytes(self._folder / name, content)
        (self._folder / old).unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        if self._folder is None:
            return self._held.get(name)
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None


def _digest(request: Message) -> bytes:
    return hashlib.sha256(to_bytes(request)).hexdigest().encode()


def _name_of(kind: str, number: int) -> str:
    return f"{kind}-{number:06d}.bin"
