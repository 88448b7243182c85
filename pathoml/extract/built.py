"""Encoders of this process: each built once for a device, kept from slide to slide, and given up when asked to."""

import gc
from functools import lru_cache

import torch

from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import EncoderSettings
from pathoml.extract.precision import PRECISIONS
from pathoml.extract_settings import ExtractSettings


@lru_cache(maxsize=16)
def built_encoder(settings: EncoderSettings, extract: ExtractSettings, device: str) -> Encoder:
    """Build an encoder on a device, once in a process.

    Parameters
    ----------
    settings : EncoderSettings
        Which.
    extract : ExtractSettings
        Its precision, and whether it is compiled.
    device : str
        ``cpu``, or a GPU.

    Returns
    -------
    Encoder
        Ready to encode.

    Raises
    ------
    EncoderError
        If it cannot be had.
    """
    from pathoml.encoders.build import build_encoder  # timm takes two seconds, and kept bags need none

    encoder = build_encoder(settings)
    encoder.module.to(device=device, dtype=PRECISIONS[extract.precision])
    if extract.compile:
        encoder.module.compile(dynamic=False)
    return encoder


def release_encoders() -> None:
    """Give up the encoders that `built_encoder` keeps, and their memory on devices: a training wants it for itself."""
    built_encoder.cache_clear()
    gc.collect()  # modules hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
