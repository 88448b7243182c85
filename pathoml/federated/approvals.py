"""Which plans a site has agreed to: nothing runs that somebody there did not approve by its hash."""

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pathoml.errors import ConfigError, RefusalCode, RefusedError
from pathoml.federated.plan import Plan
from pathoml.files import append_line, make_folder, write_text
from pathoml.provenance import hash_as_read_out

_FEWEST_DIGITS = 32


class Approvals:
    """A site's approved plans.

    Parameters
    ----------
    folder : Path
        Of the site's federation.
    """

    def __init__(self, folder: Path) -> None:
        self._plans = folder / "plans"
        self._record = folder / "approvals.jsonl"

    def approve(self, plan: Plan, stated: str) -> None:
        """Agree to a plan.

        Parameters
        ----------
        plan : Plan
            As read from the site's own copy.
        stated : str
            The hash that the site was told; at least 32 of its first digits, blanks between them do not count.

        Raises
        ------
        ConfigError
            If the plan's hash is another: the copy is not what was agreed on.
        """
        told = hash_as_read_out(stated)
        if not plan.digest.startswith(told):
            raise ConfigError(
                f"plan {plan.name}: its hash is not {stated}; ask the coordinator, by another way, which file was agreed on"
            )
        if len(told) < _FEWEST_DIGITS:
            raise ConfigError(
                f"plan {plan.name}: {len(told)} digits of its hash were given; give {_FEWEST_DIGITS} at least: another "
                "plan with the same first few is soon found"
            )
        make_folder(self._plans)
        write_text(self._plans / f"{plan.digest}.json", json.dumps(plan.model_dump(mode="json"), indent=1))
        said = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "plan": plan.digest, "by": getpass.getuser()}
        append_line(self._record, json.dumps(said))

    def approved(self) -> list[Plan]:
        """Return the plans that were agreed to.

        Returns
        -------
        list of Plan
            In no order.
        """
        return [self._read(path) for path in sorted(self._plans.glob("*.json"))]

    def plan(self, digest: str) -> Plan:
        """Return an approved plan.

        Parameters
        ----------
        digest : str
            Its hash, as a request states it.

        Returns
        -------
        Plan
            The site's own copy: never what the network sent.

        Raises
        ------
        RefusedError
            With code NOT_APPROVED.
        """
        path = self._plans / f"{digest}.json"
        if not digest.isalnum() or not path.is_file():
            raise RefusedError(f"plan {digest[:64]} is not approved here", RefusalCode.NOT_APPROVED)
        plan = self._read(path)
        if plan.digest != digest:
            raise RefusedError(f"{path.name} was altered after it was approved", RefusalCode.NOT_APPROVED)
        return plan

    def _read(self, path: Path) -> Plan:
        try:
            return Plan.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            message = f"{path.name} is not a plan of this version of pathoml; approve it again"
            raise RefusedError(message, RefusalCode.NOT_APPROVED) from error
