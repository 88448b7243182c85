"""The site's end: bytes in, bytes out. It brings nothing of its own: what it may do stands at the site."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import make_reply

from pathoml.errors import PathomlError
from pathoml.federated.flare.envelopes import content_of, enclose
from pathoml.federated.flare.kits import site_yaml_of
from pathoml.processes import end_with

if TYPE_CHECKING:
    from pathoml.federated.transport import Answering

_log = logging.getLogger(__name__)


class SiteExecutor(Executor):  # type: ignore[misc] # nvflare has no types
    """What FLARE runs at a site; takes no arguments, so that a job has nothing to say to it."""

    def __init__(self) -> None:
        super().__init__()
        self._site: Answering | None = None

    def handle_event(self, event_type: str, fl_ctx: Any) -> None:
        """End with the site's own process, however that ends.

        Parameters
        ----------
        event_type : str
            FLARE's name of what happens.
        fl_ctx : FLContext
            FLARE's context.
        """
        if event_type == EventType.START_RUN:
            end_with(os.getppid())

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        """Answer one message.

        Parameters
        ----------
        task_name : str
            Always the same.
        shareable : Shareable
            The coordinator's message.
        fl_ctx : FLContext
            FLARE's context; names the kit.
        abort_signal : Signal
            Not heeded: an answer that nobody waits for is dropped by the coordinator.

        Returns
        -------
        Shareable
            The answer; or FLARE's code for a failure, without a word of what failed: that stands in the site's own log. FLARE
            does the same with what is raised here and was not meant to be.
        """
        request = content_of(shareable)
        if request is None:
            return make_reply(ReturnCode.BAD_TASK_DATA)
        try:
            return enclose(self._opened(Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT))).answer(request))
        except PathomlError as error:
            _log.error("this site cannot answer: %s", error)
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)

    def _opened(self, kit: Path) -> "Answering":
        if self._site is None:
            from pathoml.federated.site import open_site

            self._site = open_site(site_yaml_of(kit))
        return self._site
