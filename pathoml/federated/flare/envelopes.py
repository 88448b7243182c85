"""Bytes in and out of FLARE's Shareable: one key, one value of bytes, and nothing else is read."""

from typing import Any

_CONTENT = "content"


def enclose(content: bytes) -> Any:
    """Put a message into what FLARE carries.

    Parameters
    ----------
    content : bytes
        A message of `pathoml.federated.messages`.

    Returns
    -------
    Shareable
        FLARE spells it with FOBS, which knows bytes; nothing is pickled.
    """
    from nvflare.apis.shareable import Shareable

    return Shareable({_CONTENT: content})


def content_of(shareable: Any) -> bytes | None:
    """Take a message out of what FLARE carried.

    Parameters
    ----------
    shareable : Shareable or None
        As it came.

    Returns
    -------
    bytes or None
        None if there is no message in it: the other side failed, and FLARE says so with a code.
    """
    from nvflare.apis.fl_constant import ReturnCode

    if shareable is None or shareable.get_return_code(ReturnCode.OK) != ReturnCode.OK:
        return None
    content = shareable.get(_CONTENT)
    return bytes(content) if isinstance(content, (bytes, bytearray)) else None
