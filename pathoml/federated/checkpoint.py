"""Where a federation stands, kept by the coordinator after every round: killed at any moment, it loses one round at most."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as save_arrays

from pathoml.errors import FederationError
from pathoml.federated.aggregation import ServerState
from pathoml.federated.network import named
from pathoml.federated.plan import Plan
from pathoml.federated.setup import Setup, setup_from_arrays
from pathoml.files import write_bytes
from pathoml.units import AnyArray


@dataclass
class Progress:
    """Where a training by rounds stands; written after every round.

    Parameters
    ----------
    model : dict of str to ndarray
        The next that is sent; empty while the first is still sought.
    server : ServerState
        What the coordinator's step remembers.
    best : dict of str to ndarray
        That of the lowest validation loss so far; empty if the plan keeps the last.
    best_loss : float
        Its loss.
    history : list of dict
        One row a round.
    judges : list of str
        Sites whose validation loss the first judged round had; others' losses are not compared with it.
    weights : dict of str to float
        Of every site that has trained so far.
    """

    model: dict[str, AnyArray]
    server: ServerState = field(default_factory=ServerState)
    best: dict[str, AnyArray] = field(default_factory=dict)
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    judges: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)


def write_checkpoint(path: Path, plan: Plan, setup: Setup, progress: Progress) -> None:
    """Write where a training stands, whole or not at all.

    Parameters
    ----------
    path : Path
        The file (safetensors).
    plan : Plan
        Whose training it is.
    setup : Setup
        What the network shares.
    progress : Progress
        After a round.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    arrays = {f"setup.{name}": one for name, one in setup.to_arrays(plan).items()} | named(progress.model)
    server = progress.server
    parts = (("first", server.first), ("second", server.second), ("control", server.control), ("best", progress.best))
    for prefix, held in parts:
        arrays |= {f"{prefix}.{name}": one for name, one in held.items()}
    best_loss = progress.best_loss if np.isfinite(progress.best_loss) else None
    said = {
        "plan": plan.digest, "history": progress.history, "best_loss": best_loss, "judges": progress.judges,
        "weights": progress.weights,
    }  # fmt: skip
    kept = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
    write_bytes(path, save_arrays(kept, {"federation": json.dumps(said)}))


def read_checkpoint(path: Path, plan: Plan) -> tuple[Setup | None, Progress | None]:
    """Read where a training stands.

    Parameters
    ----------
    path : Path
        As `write_checkpoint` wrote it.
    plan : Plan
        Whose training it has to be.

    Returns
    -------
    tuple of Setup and Progress, or of None
        None if there is no such file yet, or no model in it.

    Raises
    ------
    FederationError
        If it is of another plan.
    """
    if not path.is_file():
        return None, None
    with safe_open(path, framework="np") as file:
        said = json.loads((file.metadata() or {}).get("federation", "{}"))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    if "weights" not in said and any(name.startswith("control.") for name in arrays):
        raise FederationError(
            f"{path.parent}: holds a training by SCAFFOLD of an earlier pathoml, which counted sites alike whatever method.weight "
            "says; remove the folder and start it anew"
        )
    if said.get("plan") != plan.digest:
        raise FederationError(f"{path.parent}: holds the training of another plan; choose another folder")
    setup = setup_from_arrays(plan, arrays_below(arrays, "setup."))
    server = ServerState(
        arrays_below(arrays, "first."), arrays_below(arrays, "second."), arrays_below(arrays, "control.")
    )
    best_loss = float("inf") if said["best_loss"] is None else float(said["best_loss"])
    best, model = arrays_below(arrays, "best."), arrays_below(arrays, "model.")
    if not model:
        return setup, None
    return setup, Progress(model, server, best, best_loss, said["history"], said["judges"], said.get("weights", {}))


def arrays_below(arrays: Mapping[str, AnyArray], prefix: str) -> dict[str, AnyArray]:
    """Return the arrays of a prefix, without it.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of several prefixes.
    prefix : str
        With its dot.

    Returns
    -------
    dict of str to ndarray
        Those of that prefix.
    """
    return {name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)}
