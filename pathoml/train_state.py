"""The state of a training, and the file from which a killed one goes on, bit for bit on one CPU."""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pathoml.errors import PathomlError
from pathoml.files import write_bytes
from pathoml.mil.prognosis import PrognosisModel
from pathoml.train_settings import TrainSettings

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Everything that the next epoch depends on.

    Parameters
    ----------
    model : PrognosisModel
        Its weights.
    optimizer : torch.optim.Optimizer
        With its moments.
    dealer : torch.Generator
        Decides who comes when.
    random : Tensor of uint8
        State of torch's own generator, from which dropout draws; on a GPU, what it draws in an epoch follows from it.
    epoch : int
        Epochs done.
    """

    model: PrognosisModel
    optimizer: torch.optim.Optimizer
    dealer: torch.Generator
    random: Tensor
    epoch: int = 0


def start_state(model: PrognosisModel, settings: TrainSettings) -> TrainState:
    """Begin to train a model.

    Parameters
    ----------
    model : PrognosisModel
        On its device.
    settings : TrainSettings
        Step size, weight decay, seed.

    Returns
    -------
    TrainState
        Before the first epoch; dropout goes on where torch's generator stands.
    """
    kinds: dict[str, type[torch.optim.AdamW] | type[torch.optim.SGD]] = {
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
    }
    optimizer = kinds[settings.optimizer](
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    return TrainState(model, optimizer, torch.Generator().manual_seed(settings.seed), torch.get_rng_state())


@dataclass
class TrainProgress:
    """What training has seen so far.

    Parameters
    ----------
    history : list of dict
        One row an epoch.
    best : float
        The validation patients' lowest loss, or minus their highest concordance.
    best_epoch : int
        When.
    best_state : dict of str to Tensor
        The model's weights then.
    """

    history: list[dict[str, float]]
    best: float
    best_epoch: int
    best_state: dict[str, Tensor]


@dataclass
class ResumeFile:
    """Where a training's state is kept until it is done.

    Parameters
    ----------
    path : Path
        The file (safetensors).
    digest : str
        Of data and settings; a file of others is not taken.
    every_s : float
        Seconds between two records.
    """

    path: Path
    digest: str
    every_s: float
    _written: float = field(default_factory=time.monotonic, init=False)

    def write_in_time(self, state: TrainState, progress: TrainProgress) -> None:
        """Write the state if the last record is old enough.

        Parameters
        ----------
        state : TrainState
            After an epoch.
        progress : TrainProgress
            What was seen.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if time.monotonic() - self._written >= self.every_s:
            self.write(state, progress)
            self._written = time.monotonic()

    def write(self, state: TrainState, progress: TrainProgress) -> None:
        """Write the state, whole or not at all.

        Parameters
        ----------
        state : TrainState
            After an epoch.
        progress : TrainProgress
            What was seen.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        tensors = tensors_of(state) | {f"best.{name}": value for name, value in progress.best_state.items()}
        said = {
            "digest": self.digest, "epoch": state.epoch, "history": progress.history, "best": progress.best,
            "best_epoch": progress.best_epoch,
        }  # fmt: skip
        kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        write_bytes(self.path, save(kept, {"training": json.dumps(said)}))

    def read(self, state: TrainState) -> TrainProgress | None:
        """Bring a state to where a killed training was.

        Parameters
        ----------
        state : TrainState
            Fresh; changed in place.

        Returns
        -------
        TrainProgress or None
            None, and nothing is changed, if there is no record of this very training.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                said: dict[str, Any] = json.loads((file.metadata() or {}).get("training", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        except (SafetensorError, OSError, ValueError, PathomlError) as error:
            logger.warning("%s cannot be read (%s); training begins anew", self.path.name, error)
            return None
        if said.get("digest") != self.digest:
            return None
        logger.info("going on after epoch %d", said["epoch"])
        take_tensors(state, tensors, int(said["epoch"]))
        return TrainProgress(said["history"], float(said["best"]), int(said["best_epoch"]), _below(tensors, "best."))


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    """Return a state's tensors by name: weights, the optimiser's moments, and the two generators.

    Parameters
    ----------
    state : TrainState
        After an epoch.

    Returns
    -------
    dict of str to Tensor
        For `take_tensors`; the number of the epoch is not among them.
    """
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{number}.{name}": torch.as_tensor(value)
            for name, value in moments.items()
            if value is not None  # SGD keeps a place for a momentum that it was not asked for
        }
    return tensors | {"dealer": state.dealer.get_state(), "random": state.random}


def take_tensors(state: TrainState, tensors: dict[str, Tensor], epoch: int) -> None:
    """Bring a state to where `tensors_of` was taken.

    Parameters
    ----------
    state : TrainState
        Changed in place.
    tensors : dict of str to Tensor
        As `tensors_of` gave them.
    epoch : int
        Epochs that were done.
    """
    state.model.load_state_dict(_below(tensors, "model."))
    optimizer = state.optimizer.state_dict()
    optimizer["state"] = _moments(_below(tensors, "optimizer."))
    state.optimizer.load_state_dict(optimizer)
    state.dealer.set_state(tensors["dealer"])
    state.random, state.epoch = tensors["random"], epoch


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _moments(flat: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, _, name = key.partition(".")
        moments.setdefault(int(number), {})[name] = value
    return moments
