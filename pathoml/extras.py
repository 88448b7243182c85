"""Parts of pathoml that need more packages, and how to install them."""


def install_words(extra: str) -> str:
    """Say how to install what a part needs, with the versions that pathoml was tested with.

    Parameters
    ----------
    extra : str
        Name of the part in pyproject.toml.

    Returns
    -------
    str
        For the end of a message.
    """
    return f"install it in the folder of pathoml's README: pip install -c constraints.txt '.[{extra}]'"
