"""From a plan to kits: an authority of the network's own, and a certificate for every participant."""

import ipaddress
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.flare.kits import PLAN_FILE, PROJECT, Kit, Role, require_flare, write_kit
from pathoml.federated.flare.policies import OBSERVER_ROLE, OPERATOR_ROLE, write_policies
from pathoml.files import make_folder

if TYPE_CHECKING:
    from pathoml.federated.plan import Plan

OPERATOR, OBSERVER = "operator@network.invalid", "observer@network.invalid"
_AUTHORITY_DAYS = 3650
_SERVER = "server"
_SCRIPTS = ("*.sh", "*.ipynb", "readme.txt")


def provision(plan_path: Path, output: Path, authority: Path | None = None) -> list[Kit]:
    """Make a kit for the coordinator, for the operator, for an observer, and for every site of a plan.

    Parameters
    ----------
    plan_path : Path
        The plan; its copy goes into every kit.
    output : Path
        A new folder: `coordinator`, `operator`, `observer`, `sites/NAME`, and `authority`, which holds the key that certificates
        are signed with and never leaves whoever provisions.
    authority : Path, optional
        Folder `authority` of an earlier provisioning, so that kits handed out before stay valid.

    Returns
    -------
    list of Kit
        All of them.

    Raises
    ------
    ConfigError
        If the plan or a folder is not fit for it.
    """
    from pathoml.federated.plan import read_plan

    require_flare()
    plan = read_plan(plan_path)
    _check(plan, output)
    keys = output / "authority"
    _make_folders(keys, authority)
    made = _build(plan, keys)
    kits = [
        Kit(output / "coordinator", Role.COORDINATOR, plan.network.host, "coordinator", plan.digest),
        Kit(output / "operator", Role.OPERATOR, OPERATOR, "coordinator", plan.digest),
        Kit(output / "observer", Role.OBSERVER, OBSERVER, "coordinator", plan.digest),
        *(Kit(output / "sites" / site, Role.SITE, site, _organisation(site), plan.digest) for site in plan.sites),
    ]
    for kit in kits:
        make_folder(kit.folder.parent)
        shutil.move(made / kit.name, kit.folder)
        _finish(kit, plan_path)
    shutil.rmtree(made)
    return kits


def _organisation(site: str) -> str:
    """Return a site's name as FLARE allows an organisation's: without hyphens."""
    return site.replace("-", "_")


def _check(plan: "Plan", output: Path) -> None:
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output}: not empty; kits are made in a new folder (--authority keeps the old keys)")
    host = plan.network.host
    if any(site.lower() == _SERVER for site in plan.sites):
        raise ConfigError(f"plan: a site cannot be called {_SERVER}: FLARE calls the coordinator so")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    raise ConfigError(
        f"plan: network.host {host} is an address; certificates are made for names: give the coordinator's host name "
        "(an entry in /etc/hosts of each site is enough)"
    )


def _make_folders(keys: Path, authority: Path | None) -> None:
    state = keys / PROJECT / "state"
    make_folder(state)
    keys.chmod(0o700)
    if authority is None:
        return
    earlier = authority / PROJECT / "state" / "cert.json"
    if not earlier.is_file():
        raise ConfigError(f"{authority}: no authority of an earlier provisioning (no {earlier.relative_to(authority)})")
    shutil.copyfile(earlier, state / earlier.name)


def _build(plan: "Plan", keys: Path) -> Path:
    """Let FLARE make certificates and start-up files; return the folder with one folder a participant."""
    from nvflare.lighter.constants import CtxKey
    from nvflare.lighter.impl.cert import CertBuilder
    from nvflare.lighter.impl.signature import SignatureBuilder
    from nvflare.lighter.impl.static_file import StaticFileBuilder
    from nvflare.lighter.impl.workspace import WorkspaceBuilder
    from nvflare.lighter.provision import prepare_project
    from nvflare.lighter.provisioner import Provisioner

    participants = [
        {"name": plan.network.host, "type": "server", "org": "coordinator", "fed_learn_port": plan.network.port},
        {"name": OPERATOR, "type": "admin", "org": "coordinator", "role": OPERATOR_ROLE},
        {"name": OBSERVER, "type": "admin", "org": "coordinator", "role": OBSERVER_ROLE},
        *(
            {"name": site, "type": "client", "org": _organisation(site), "allow_log_streaming": False}
            for site in plan.sites
        ),
    ]
    builders = [
        WorkspaceBuilder(["master_template.yml"]), StaticFileBuilder(config_folder="config", scheme="grpc"),
        CertBuilder(root_valid_days=_AUTHORITY_DAYS), SignatureBuilder(),
    ]  # fmt: skip
    said: list[str] = []
    try:
        project = prepare_project({"api_version": 3, "name": PROJECT, "participants": participants})
        context = Provisioner(str(keys), builders).provision(project, logger=_Notes(said))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"plan: no kits can be made of it: {error}") from error
    if context.get(CtxKey.BUILD_ERROR):
        raise FederationError(f"kits could not be made: {'; '.join(said) or 'see the lines above'}")
    return Path(context[CtxKey.CURRENT_PROD_DIR])


def _finish(kit: Kit, plan_path: Path) -> None:
    """Leave in a kit what pathoml starts it with, and who may do what there."""
    for pattern in _SCRIPTS:  # FLARE's own scripts know nothing of the policies, and restart what is killed
        for script in kit.folder.rglob(pattern):
            script.unlink()
    shutil.copyfile(plan_path, kit.folder / PLAN_FILE)
    write_kit(kit)
    if kit.runs:
        write_policies(kit)
    for key in kit.folder.rglob("*.key"):
        key.chmod(0o600)


class _Notes:
    """What FLARE's provisioning says, kept: it is worth showing only if something went wrong."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def debug(self, text: str) -> None:
        """Drop."""

    info = debug

    def warning(self, text: str) -> None:
        """Keep."""
        self._said.append(text)

    error = warning
