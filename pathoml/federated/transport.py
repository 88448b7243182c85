"""How requests reach sites and answers come back; training knows nothing else of the network."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pathoml.federated.messages import Message, to_bytes


class Answering(Protocol):
    """A site, as a transport sees it."""

    def answer(self, request: bytes) -> bytes:
        """Do what is asked, or refuse it with a code; never raises for what the request holds.

        Parameters
        ----------
        request : bytes
            A message.

        Returns
        -------
        bytes
            The answer, as it leaves the site.
        """


class Transport(Protocol):
    """The network, as the coordinator sees it."""

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites that belong to the network, whether or not they can be reached now."""

    def exchange(self, request: Message, sites: Sequence[str], quorum: int) -> Mapping[str, bytes]:
        """Send a request and gather the answers.

        Parameters
        ----------
        request : Message
            The same for all.
        sites : sequence of str
            Who is asked.
        quorum : int
            With so many answers the rest are waited for no longer than the transport's patience.

        Returns
        -------
        mapping of str to bytes
            Answers by site; those that did not answer are absent.
        """


class InProcess:
    """All sites in this process, one after another; what they send goes through the same bytes as over a network.

    Parameters
    ----------
    members : mapping of str to Answering
        Name to site.
    """

    def __init__(self, members: Mapping[str, Answering]) -> None:
        self._members = dict(members)

    @property
    def sites(self) -> Sequence[str]:
        """Names, in the order given."""
        return tuple(self._members)

    def exchange(self, request: Message, sites: Sequence[str], quorum: int) -> Mapping[str, bytes]:
        """Ask one site after another.

        Parameters
        ----------
        request : Message
            The same for all.
        sites : sequence of str
            Who is asked.
        quorum : int
            Everybody in this process answers.

        Returns
        -------
        mapping of str to bytes
            Answers by site.
        """
        content = to_bytes(request)
        return {name: self._members[name].answer(content) for name in sites}
