"""The folder that makes a machine a participant: certificate, address of the coordinator, plan, and who may do what."""

import importlib.util
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pathoml.errors import ConfigError, FederationError
from pathoml.extras import install_words
from pathoml.files import write_json

KIT_FILE = "pathoml-kit.json"
PLAN_FILE = "plan.yaml"
FORMAT, FORMAT_VERSION = "pathoml-kit", 1
PROJECT = "pathoml"
_SITE_POINTER = Path("local", "pathoml-site.json")


class Role(StrEnum):
    """What a participant does."""

    COORDINATOR = "coordinator"
    SITE = "site"
    OPERATOR = "operator"
    OBSERVER = "observer"


@dataclass(frozen=True)
class Kit:
    """One participant's folder.

    Parameters
    ----------
    folder : Path
        Absolute.
    role : Role
        What the participant does.
    name : str
        The site's name, the coordinator's host name, or the operator's or observer's account.
    organisation : str
        Whose certificate it is.
    plan : str
        Hash of the plan that the kit was made for.
    """

    folder: Path
    role: Role
    name: str
    organisation: str
    plan: str

    @property
    def runs(self) -> bool:
        """Whether the participant is a process that goes on, rather than somebody who asks now and then."""
        return self.role in (Role.COORDINATOR, Role.SITE)

    @property
    def plan_path(self) -> Path:
        """The plan that came with the kit."""
        return self.folder / PLAN_FILE

    def output_of(self, plan_digest: str) -> Path:
        """Return where a coordinator keeps what comes out of a plan; the checkpoint of a killed run is there too.

        Parameters
        ----------
        plan_digest : str
            Hash of the plan.

        Returns
        -------
        Path
            A folder of the kit.
        """
        return self.folder / "federation" / plan_digest[:16]


def require_flare() -> None:
    """Say what to install where NVIDIA FLARE is missing.

    Raises
    ------
    ConfigError
        If it is.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise ConfigError(f"NVIDIA FLARE is not there; {install_words('federated')}")


def read_kit(folder: Path) -> Kit:
    """Read what a kit says of itself.

    Parameters
    ----------
    folder : Path
        Made by `provision`.

    Returns
    -------
    Kit
        Who the participant is.

    Raises
    ------
    ConfigError
        If the folder is no kit, or lies where NVIDIA FLARE cannot start from.
    """
    path = folder / KIT_FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: no kit of a federation ({KIT_FILE} is missing); `federate provision` makes them")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); ask the coordinator for a new kit") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("format_version") != FORMAT_VERSION:
        raise ConfigError(f"{path}: not a kit of version {FORMAT_VERSION}; ask the coordinator for a new one")
    whole = folder.absolute()
    if any(character.isspace() for character in str(whole)):
        raise ConfigError(f"{whole}: a blank in the path of a kit; move it to a folder without")
    return Kit(whole, Role(said["role"]), str(said["name"]), str(said["organisation"]), str(said["plan"]))


def write_kit(kit: Kit) -> None:
    """Write what a kit says of itself.

    Parameters
    ----------
    kit : Kit
        Its folder exists.
    """
    said = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "role": kit.role.value, "name": kit.name,
        "organisation": kit.organisation, "plan": kit.plan,
    }  # fmt: skip
    write_json(kit.folder / KIT_FILE, said)


def join(kit: Kit, site_yaml: Path) -> None:
    """Tell a site's kit which file describes the site; the file and what it names stay where they are.

    Parameters
    ----------
    kit : Kit
        Of a site.
    site_yaml : Path
        The site's private settings.

    Raises
    ------
    ConfigError
        If the kit is another participant's, or the file is missing, wrong, or another site's.
    """
    from pathoml.federated.site_settings import read_site

    if kit.role is not Role.SITE:
        raise ConfigError(f"{kit.folder}: the kit of the {kit.role}, which has no data; join with the kit of your site")
    name = read_site(site_yaml).name
    if name != kit.name:
        raise ConfigError(f"{site_yaml}: describes the site {name}, but the kit is that of {kit.name}; which is yours?")
    write_json(kit.folder / _SITE_POINTER, {"site": os.fspath(site_yaml.absolute())})


def site_yaml_of(kit_folder: Path) -> Path:
    """Return the file that describes a site.

    Parameters
    ----------
    kit_folder : Path
        Of a site.

    Returns
    -------
    Path
        As `join` was told.

    Raises
    ------
    FederationError
        If the kit has not joined, or the file is gone.
    """
    pointer = kit_folder / _SITE_POINTER
    if not pointer.is_file():
        raise FederationError(
            f"{kit_folder}: has not joined; `pathoml federate join KIT SITE.yaml` says where the site is"
        )
    path = Path(json.loads(pointer.read_text(encoding="utf-8"))["site"])
    if not path.is_file():
        raise FederationError(f"{path}: no such file; `pathoml federate join` the kit again")
    return path
