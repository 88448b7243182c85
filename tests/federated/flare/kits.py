"""Kits and a plan of a small network, for the tests that look at them."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pathoml.federated.flare.kits import Kit, Role
from pathoml.federated.plan import Plan
from tests.federated.networks import plan_of


def kit_at(folder: Path, role: Role = Role.SITE, name: str = "north") -> Kit:
    (folder / "startup").mkdir(parents=True, exist_ok=True)
    for one in ("client.crt", "client.key", "server.crt", "server.key", "rootCA.pem"):
        (folder / "startup" / one).touch()
    return Kit(folder, role, name, name, "ab" * 32)


def small_plan(**changes: Any) -> Plan:
    return plan_of(quorum=2, **changes)


def plan_file(folder: Path, **changes: Any) -> Path:
    """Write the plan of a small network."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.yaml"
    plan = plan_of(**{"quorum": 2, **changes})
    with path.open("w") as stream:
        YAML().dump(plan.model_dump(mode="json"), stream)
    return path
