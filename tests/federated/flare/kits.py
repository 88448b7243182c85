"""Kits and a plan of a small network, for the tests that look at them."""

from pathlib import Path

from pathoml.federated.flare.kits import Kit, Role
from pathoml.federated.plan import Plan

PLAN = """\
sites: [north, south, west]
quorum: 2
"""


def kit_at(folder: Path, role: Role = Role.SITE, name: str = "north") -> Kit:
    folder.mkdir(parents=True, exist_ok=True)
    return Kit(folder, role, name, name, "ab" * 32)


def plan_file(folder: Path, text: str = PLAN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.yaml"
    path.write_text(text)
    return path


def small_plan() -> Plan:
    return Plan(sites=("north", "south", "west"), quorum=2)
