"""The networks of registered encoders, built from the arguments that their authors document."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.layers import SwiGLUPacked, to_2tuple  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional

from pathoml.encoders.registry import EncoderRecord
from pathoml.errors import EncoderError

_GATED: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
_GATED_RATIO = 2 * 2.66667  # two halves of 8/3 of the width each
_GIANT_RATIO = 5.33334
_HIBOU_L_RATIO = 2 * 2736 / 1024  # 8/3 of the width, rounded up to a multiple of 8, twice
_SCALED: dict[str, Any] = {"init_values": 1e-5}

_TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "uni_v1": ("vit_large_patch16_224", _SCALED),
    "uni_v2": (
        "vit_giant_patch14_224",
        _SCALED | _GATED
        | {"embed_dim": 1536, "depth": 24, "num_heads": 24, "mlp_ratio": _GATED_RATIO, "reg_tokens": 8, "no_embed_class": True},
    ),
    "virchow": ("vit_huge_patch14_224", _SCALED | _GATED | {"mlp_ratio": 5.3375}),
    "virchow2": ("vit_huge_patch14_224", _SCALED | _GATED | {"mlp_ratio": 5.3375, "reg_tokens": 4}),
    "phikon": ("vit_base_patch16_224", {}),
    "phikon_v2": ("vit_large_patch16_224", _SCALED),
    "gigapath": ("vit_giant_patch14_dinov2", {"img_size": 224, "patch_size": 16, "mlp_ratio": _GIANT_RATIO}),
    "hoptimus0": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "hoptimus1": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "h0-mini": ("vit_base_patch14_reg4_dinov2", _GATED | {"img_size": 224, "mlp_ratio": _GATED_RATIO}),
    "midnight12k": ("vit_giant_patch14_dinov2", {"img_size": 224}),
    "openmidnight": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "gpfm": ("vit_large_patch14_dinov2", {"img_size": 224}),
    "hibou_b": ("vit_base_patch14_reg4_dinov2", _GATED | {"img_size": 224, "mlp_ratio": _GATED_RATIO}),
    "hibou_l": ("vit_large_patch14_reg4_dinov2", _GATED | {"img_size": 224, "mlp_ratio": _HIBOU_L_RATIO}),
    "kaiko_vits8": ("vit_small_patch8_224", {}),
    "kaiko_vits16": ("vit_small_patch16_224", {}),
    "kaiko_vitb8": ("vit_base_patch8_224", {}),
    "kaiko_vitb16": ("vit_base_patch16_224", {}),
    "kaiko_vitl14": ("vit_large_patch14_reg4_dinov2", {"dynamic_img_size": True}),  # keeps the positions of 518 px
    "lunit_vits8": ("vit_small_patch8_224", {}),
    "lunit_vits16": ("vit_small_patch16_224", {}),
    "musk": (  # BEiT-3's way of images: norms inside attention and MLP as well
        "vit_large_patch16_384",
        {"scale_attn_norm": True, "scale_mlp_norm": True, "norm_layer": nn.LayerNorm},
    ),
}  # fmt: skip


class ClassAndMeanTokens(nn.Module):
    """The class token and the mean of the patch tokens of a vision transformer, side by side; registers are left out.

    Parameters
    ----------
    network : nn.Module
        A timm vision transformer.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Parameters
        ----------
        images : Tensor, shape (batch, 3, height, width)
            Normalised.

        Returns
        -------
        Tensor, shape (batch, 2 * width)
            Features.
        """
        tokens: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        first_patch = int(self.network.num_prefix_tokens)  # type: ignore[arg-type]
        return torch.cat([tokens[:, 0], tokens[:, first_patch:].mean(dim=1)], dim=1)


class _QueryPool(nn.Module):
    """CONCH's pooling: one learned query attends to all tokens, which may be wider than it is."""

    def __init__(self, dim: int, token_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, 8, kdim=token_dim, vdim=token_dim, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(token_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        query, keys = self.ln_q(self.query).expand(len(tokens), -1, -1), self.ln_k(tokens)
        pooled: Tensor = self.attn(query, keys, keys, need_weights=False)[0]
        return pooled[:, 0]


class _PlainQueryPool(nn.Module):
    """The same of CONCH 1.5: its projections have no bias, and keys and values share one."""

    heads = 8

    def __init__(self, dim: int, token_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.ln_k, self.ln_q = nn.LayerNorm(token_dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(token_dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        keys, values = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        split = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (query, keys, values))
        pooled = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        projected: Tensor = self.to_out(pooled)
        return projected[:, 0]


class _QueryPooledTower(nn.Module):
    """A vision transformer whose tokens one query pools; the names are those of the published files."""

    def __init__(self, trunk: nn.Module, pool: nn.Module, dim: int) -> None:
        super().__init__()
        self.trunk, self.attn_pool_contrast, self.ln_contrast = trunk, pool, nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.trunk.forward_features(images)  # type: ignore[operator]
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(tokens))
        return pooled


class _HeadedTower(nn.Module):
    """KEEP: a vision transformer and two layers into the space of its words, scaled to length 1."""

    def __init__(self, visual: nn.Module, width: int, dim: int) -> None:
        super().__init__()
        self.visual = visual
        self.visual_head = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.visual_head(self.visual(images)), dim=-1)


class _ConvStem(nn.Module):
    """CTransPath's stem: two strided convolutions and a projection in place of Swin's 4 px patches."""

    def __init__(
        self, *, img_size: tuple[int, int] | int, in_chans: int, embed_dim: int, norm_layer: Any, **_: object
    ) -> None:
        super().__init__()
        height, width = to_2tuple(img_size)
        self.grid_size = (height // 4, width // 4)
        layers: list[nn.Module] = []
        first, second = embed_dim // 8, embed_dim // 4
        for before, after in ((in_chans, first), (first, second)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(second, embed_dim, 1))
        self.norm = norm_layer(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return normed


class _TruncatedResNet(nn.Module):
    """ResNet-50 without its last stage, averaged over the tile."""

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = timm.create_model("resnet50", pretrained=False, num_classes=0)
        self.network.layer4 = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(images)
        return maps.mean(dim=(2, 3))


def _build_ctranspath() -> nn.Module:
    network: nn.Module = timm.create_model(
        "swin_tiny_patch4_window7_224", pretrained=False, num_classes=0, embed_layer=_ConvStem
    )
    return network


def _build_conch_v1() -> nn.Module:
    trunk = _transformer("vit_base_patch16_224", img_size=448)
    return _QueryPooledTower(trunk, _QueryPool(512, 768), 512)


def _build_conch_v15() -> nn.Module:
    trunk = _transformer("vit_large_patch16_224", img_size=448, init_values=1.0)
    return _QueryPooledTower(trunk, _PlainQueryPool(768, 1024), 768)


def _build_keep() -> nn.Module:
    return _HeadedTower(_transformer("vit_large_patch16_224", init_values=1e-5), 1024, 768)


_OWN: dict[str, Callable[[], nn.Module]] = {
    "ctranspath": _build_ctranspath,
    "conch_v1": _build_conch_v1,
    "conch_v15": _build_conch_v15,
    "keep": _build_keep,
    "resnet50": _TruncatedResNet,
}


def build_architecture(record: EncoderRecord, device: str = "cpu") -> nn.Module:
    """Build a tile encoder's network, without its weights.

    Parameters
    ----------
    record : EncoderRecord
        Of a tile encoder.
    device : str, optional
        ``cpu``, ``cuda``, or ``meta`` for shapes without memory.

    Returns
    -------
    nn.Module
        In evaluation mode; images (batch, 3, input_px, input_px) -> features (batch, dim).

    Raises
    ------
    EncoderError
        If pathoml does not know the architecture.
    """
    if record.name not in _TIMM and record.name not in _OWN:
        used = f"it takes the features of {record.tile_encoder}" if record.tile_encoder else "it is no tile encoder"
        raise EncoderError(f"encoder {record.name}: pathoml does not build its network ({used}); choose a tile encoder")
    with torch.device(device):
        return _built(record).eval()


def build_for_weights(record: EncoderRecord) -> nn.Module:
    """Build a network that waits for its weights: without memory and random numbers of its own, where it can do without.

    Parameters
    ----------
    record : EncoderRecord
        Of a tile encoder.

    Returns
    -------
    nn.Module
        On the meta device, unless it computes tensors that no file holds.
    """
    module = build_architecture(record, "meta")
    computed = {name for name, _ in module.named_buffers()} - set(module.state_dict())
    return build_architecture(record) if computed else module


def _built(record: EncoderRecord) -> nn.Module:
    if record.name in _OWN:
        return _OWN[record.name]()
    architecture, arguments = _TIMM[record.name]
    network = _transformer(architecture, **arguments)
    return ClassAndMeanTokens(network) if record.pooling == "cls+mean" else network


def _transformer(architecture: str, **arguments: Any) -> nn.Module:
    network: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
    return network
