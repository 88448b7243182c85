"""The random numbers that a model draws: dropout, dealt tiles, noise; on the CPU, and on the device that it runs on."""

from typing import NamedTuple

import torch
from torch import Tensor


class RandomState(NamedTuple):
    """Where generators stand.

    Parameters
    ----------
    cpu : Tensor of uint8
        That of the CPU, from which some heads draw whatever their device.
    gpu : Tensor of uint8, or None
        That of the GPU, where the model is on one.
    """

    cpu: Tensor
    gpu: Tensor | None


def random_state(device: torch.device) -> RandomState:
    """Return where the random numbers of a model on a device stand.

    Parameters
    ----------
    device : torch.device
        CPU or GPU.

    Returns
    -------
    RandomState
        For `set_random_state`.
    """
    return RandomState(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)


def seed_gpu(device: torch.device) -> None:
    """Let what a GPU draws from here on follow from where the CPU's generator stands; on the CPU nothing is done.

    Parameters
    ----------
    device : torch.device
        Of the model.
    """
    if device.type == "cuda":
        seed = int(torch.randint(2**62, ()))
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def set_random_state(device: torch.device, state: RandomState) -> None:
    """Bring random numbers back to where they were.

    Parameters
    ----------
    device : torch.device
        CPU or GPU.
    state : RandomState
        From `random_state` for the same device.
    """
    torch.set_rng_state(state.cpu)
    if state.gpu is not None:
        torch.cuda.set_rng_state(state.gpu, device)


class RandomStates:
    """Where generators stood at several moments, in memory that is taken once.

    Parameters
    ----------
    count : int
        Moments.
    device : torch.device
        CPU or GPU.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._device = device
        now = random_state(device)
        self._cpu = now.cpu.new_empty(count, len(now.cpu))
        self._gpu = None if now.gpu is None else now.gpu.new_empty(count, len(now.gpu))

    def note(self, moment: int) -> None:
        """Take down where they stand.

        Parameters
        ----------
        moment : int
            Below ``count``.
        """
        now = random_state(self._device)
        self._cpu[moment] = now.cpu
        if self._gpu is not None and now.gpu is not None:
            self._gpu[moment] = now.gpu

    def restore(self, moment: int) -> None:
        """Bring them back to where they stood.

        Parameters
        ----------
        moment : int
            That was noted.
        """
        # Copies, since torch takes a generator's state from the beginning of the memory that a row lies in.
        gpu = None if self._gpu is None else self._gpu[moment].clone()
        set_random_state(self._device, RandomState(self._cpu[moment].clone(), gpu))
