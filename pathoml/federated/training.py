"""A site's part in a network trained by rounds: the same local update as everywhere, and what holds sites together."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pathoml.errors import FederationError
from pathoml.federated.method_settings import FedProxSettings, RoundsSettings, ScaffoldSettings
from pathoml.federated.plan import Plan
from pathoml.federated.private_update import PrivateTraining, private_update
from pathoml.federated.setup import Setup, arrays_of, build_model, load_arrays_into
from pathoml.files import make_folder, write_bytes
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.prognosis import PrognosisModel
from pathoml.train import Correction, local_update
from pathoml.train_settings import TrainSettings
from pathoml.train_state import TrainState, start_state, take_tensors, tensors_of
from pathoml.units import AnyArray

_KEPT_ROUNDS = 3
Arrays = Mapping[str, AnyArray]


def settings_of(plan: Plan) -> TrainSettings:
    """Return the training settings that a plan's rounds amount to.

    Parameters
    ----------
    plan : Plan
        Of the kind ``rounds``.

    Returns
    -------
    TrainSettings
        Its schedule ends with the last round.
    """
    method = rounds_of(plan)
    return plan.train.model_copy(update={"max_epochs": method.rounds * method.local_epochs})


def rounds_of(plan: Plan) -> RoundsSettings:
    """Return how a plan's rounds are taken.

    Parameters
    ----------
    plan : Plan
        Of the kind ``rounds``.

    Returns
    -------
    RoundsSettings
        Of its method.

    Raises
    ------
    FederationError
        If it is of another kind.
    """
    if not isinstance(plan.method, RoundsSettings):
        raise FederationError(f"plan {plan.name} takes no rounds")
    return plan.method


class SiteTraining:
    """The training of one site, round by round; its optimiser's moments and random state never leave it.

    Parameters
    ----------
    plan : Plan
        Of the kind ``rounds``.
    setup : Setup
        What the network shares.
    folder : Path or None
        Where the state after each of the last rounds is kept, so that a round can be taken again; None keeps it in memory.
    device : str
        ``cpu`` or ``cuda``.
    privacy : PrivateTraining, optional
        For a plan with privacy of patients.
    """

    def __init__(
        self, plan: Plan, setup: Setup, folder: Path | None, device: str, privacy: PrivateTraining | None = None
    ) -> None:  # fmt: skip
        self._plan, self._folder, self._device, self._privacy = plan, folder, device, privacy
        self._settings, self._method = settings_of(plan), rounds_of(plan)
        self._objective = setup.objective(plan)
        self._state = start_state(build_model(plan, setup).to(device), self._settings)
        self._control: dict[str, Tensor] = {}
        self._fresh = self._snapshot()
        self._after: dict[int, dict[str, Tensor]] = {}

    @property
    def model(self) -> PrognosisModel:
        """As the last round left it here."""
        return self._state.model

    def take_round(
        self, number: int, sent: Arrays, control: Arrays, patients: TrainingPatients
    ) -> tuple[dict[str, AnyArray], dict[str, AnyArray], float]:
        """Train the shared model on the site's patients.

        Parameters
        ----------
        number : int
            The round; taken again after a crash of the coordinator, it gives the same.
        sent : mapping of str to ndarray
            The shared model.
        control : mapping of str to ndarray
            SCAFFOLD's shared control variate; empty for others.
        patients : TrainingPatients
            Of the site.

        Returns
        -------
        tuple of dict, dict and float
            The model afterwards, the change of the site's own control variate (empty but for SCAFFOLD), and the mean loss.
        """
        self._go_back_to(number)
        load_arrays_into(self._state.model, sent)
        self._state.epoch = number * self._method.local_epochs
        drift = _Drift(self._state, self._method, control, self._control)
        losses = [self._take_pass(patients, drift.correct) for _ in range(self._method.local_epochs)]
        change = drift.change(self._control)
        self._control = {name: self._own(name, value) + value for name, value in change.items()}
        self._keep(number)
        return (
            arrays_of(self._state.model),
            {name: value.cpu().numpy() for name, value in change.items()},
            float(np.mean(losses)),
        )

    def _take_pass(self, patients: TrainingPatients, correct: Correction) -> float:
        state, objective, settings = self._state, self._objective, self._settings
        if self._privacy is None:
            return local_update(state, patients, objective, settings, correct=correct)
        return private_update(state, patients, objective, settings, self._privacy, correct=correct)

    def _own(self, name: str, like: Tensor) -> Tensor:
        return self._control.get(name, torch.zeros_like(like))

    def _snapshot(self) -> dict[str, Tensor]:
        held = tensors_of(self._state) | {f"control.{name}": value for name, value in self._control.items()}
        return {name: value.detach().cpu().clone().contiguous() for name, value in held.items()}

    def _keep(self, number: int) -> None:
        if self._folder is None:
            self._after[number] = self._snapshot()
            self._after.pop(number - _KEPT_ROUNDS, None)
            return
        make_folder(self._folder)
        write_bytes(_state_file(self._folder, number), save(self._snapshot()))
        _state_file(self._folder, number - _KEPT_ROUNDS).unlink(missing_ok=True)

    def _go_back_to(self, number: int) -> None:
        """Bring the optimiser to where it was before a round: after the latest earlier one that this site took."""
        found = self._fresh
        if self._folder is None:
            earlier = [one for one in self._after if one < number]
            found = self._after[max(earlier)] if earlier else found
        else:
            for path in sorted(self._folder.glob("round-*.safetensors"), reverse=True):
                if int(path.stem.removeprefix("round-")) < number:
                    try:
                        found = load_file(path)
                    except (SafetensorError, OSError) as error:
                        raise FederationError(f"{path}: cannot be read ({error})") from error
                    break
        self._control = {
            name.removeprefix("control."): value.to(self._device)
            for name, value in found.items()
            if name.startswith("control.")
        }
        state = {name: value.clone() for name, value in found.items() if not name.startswith("control.")}
        if not any(name.startswith("optimizer.") for name in state):
            self._state.optimizer.state.clear()
        take_tensors(self._state, state, 0)


class _Drift:
    """What is added to a site's gradients, so that it does not run away from the others.

    References
    ----------
    Li T et al. Federated optimization in heterogeneous networks. MLSys 2020, equation 2. Karimireddy SP et al. SCAFFOLD.
    ICML 2020, algorithm 1, option II.
    """

    def __init__(
        self, state: TrainState, method: RoundsSettings, shared: Arrays, own: Mapping[str, Tensor]
    ) -> None:  # fmt: skip
        self._state, self._own = state, own
        device = state.model.bias.device
        self._before = {name: one.detach().clone() for name, one in _trained(state.model).items()}
        aggregation = method.aggregation
        self._proximal = aggregation.proximal if isinstance(aggregation, FedProxSettings) else 0.0
        self._is_scaffold = isinstance(aggregation, ScaffoldSettings)
        self._shared = {name: torch.from_numpy(np.array(value)).to(device) for name, value in shared.items()}
        self._walked = 0.0

    def correct(self, model: PrognosisModel) -> None:
        """Change a step's gradients."""
        self._walked += float(self._state.optimizer.param_groups[0]["lr"])
        for name, one in _trained(model).items():
            if one.grad is None:
                continue
            if self._proximal:
                one.grad += self._proximal * (one.detach() - self._before[name])
            if self._is_scaffold and name in self._shared:
                one.grad += (self._shared[name] - self._own.get(name, 0.0)).to(one.dtype)

    def change(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return by how much the site's control variate changes: what it walked, seen as a gradient, minus the shared one."""
        if not self._is_scaffold:
            return {}
        changes = {}
        for name, one in _trained(self._state.model).items():
            mean_gradient = (self._before[name] - one.detach()).double() / self._walked
            changes[name] = mean_gradient - self._shared.get(name, torch.zeros_like(mean_gradient))
        return changes


def _trained(model: PrognosisModel) -> dict[str, Tensor]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def _state_file(folder: Path, number: int) -> Path:
    return folder / f"round-{number:06d}.safetensors"
