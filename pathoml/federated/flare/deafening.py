"""What of FLARE answers at a site: no more than a run needs, whoever asks, and however they got at the server.

A site's policies refuse an operator, but FLARE asks them only where the server says that it should. So the parts that would answer
are taken out of a site's two processes before they begin. In the main one: reading files, telling of errors and of the machine,
restarting. In that of the run: telling of errors and statistics, writing the log elsewhere. In both: FLARE's agent for diagnosing
its network, which tells every peer of the process, its threads and its configuration, and stops it when asked.
"""

from typing import Any

ANSWERED_AT_A_SITE = frozenset({
    "ClientStatusProcessor", "AbortAppProcessor", "AbortTaskProcessor", "DeployProcessor", "StartJobProcessor",
    "CheckResourceProcessor", "CancelResourceProcessor", "NotifyJobStatusProcessor",
})  # fmt: skip
"""What a coordinator may ask a site's main process for: to take a job, start it, stop it, and say whether it runs."""
ANSWERED_BY_A_RUN = frozenset({"CheckStatusCommand", "AbortCommand", "AbortTaskCommand", "ByeCommand"})
"""What it may ask the process of a run for, besides the run's own task."""


def deafen() -> None:
    """Take out of FLARE's site what answers everything else; for both of its processes, before they begin."""
    from nvflare.private.fed.client import fed_client_base
    from nvflare.private.fed.client.admin_commands import AdminCommands
    from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

    _keep(ClientRequestProcessors.request_processors, ANSWERED_AT_A_SITE)
    _keep(AdminCommands.commands, ANSWERED_BY_A_RUN)
    fed_client_base.NetAgent = _without_ears(fed_client_base.NetAgent)


def _keep(answering: list[Any], names: frozenset[str]) -> None:
    answering[:] = [one for one in answering if type(one).__name__ in names]


def _without_ears(agent: type[Any]) -> type[Any]:
    """Return FLARE's agent as it is, but registered nowhere: nobody's request reaches it."""

    class DeafAgent(agent):  # type: ignore[misc]
        def __init__(self, cell: Any, *rest: Any, **named: Any) -> None:
            super().__init__(_NoCell(), *rest, **named)
            self.cell = cell

    return DeafAgent


class _NoCell:
    """What an agent registers its answers with, in place of the cell that messages come to."""

    def register_request_cb(self, **answer: Any) -> None:
        """Forget."""
