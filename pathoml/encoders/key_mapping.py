"""Published state dicts -> the names of pathoml's networks, for files whose tensors are named otherwise."""

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pathoml.encoders.registry import EncoderRecord

State = dict[str, Tensor]

_DINO_OFFSET = 0.1  # what DINO adds to the number of patches before it resamples, which moves every position a little


def map_keys(record: EncoderRecord, state: State) -> State:
    """Rename a published state dict's tensors as `build_architecture` names them; what images do not need is left out.

    Parameters
    ----------
    record : EncoderRecord
        Says whose names the file has.
    state : dict of str to Tensor
        As published.

    Returns
    -------
    dict of str to Tensor
        Tensors without a place in the network keep their name, for `check_fit` to refuse.
    """
    mapped = _LAYOUTS[record.key_layout](state, record.input_px)
    if record.pooling == "cls+mean" or record.key_layout == "resnet":
        return {f"network.{key}": value for key, value in mapped.items()}
    return mapped


def _as_they_are(state: State, input_px: int) -> State:
    return dict(state)


_HF_NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
)
"""Names of the library transformers (its ViT and DINOv2) -> timm's, in this order."""


def _renamed(state: State, names: tuple[tuple[str, str], ...]) -> State:
    renamed: State = {}
    for key, value in state.items():
        new = key
        for pattern, replacement in names:
            new = re.sub(pattern, replacement, new)
        renamed[new] = value
    return renamed


def _without(state: State, *starts: str) -> State:
    return {key: value for key, value in state.items() if not key.startswith(starts)}


def _from_hf_vit(state: State, input_px: int) -> State:
    named = _renamed(_without(state, "pooler."), _HF_NAMES)
    return _joined(named, ("query", "key", "value"), "qkv")


def _from_hf_dinov2(state: State, input_px: int) -> State:
    named = _renamed(_without(state, "embeddings.mask_token"), _HF_NAMES)
    joined = _joined(named, ("query", "key", "value"), "qkv")
    return _with_positions_of(joined, input_px, antialias=False)


def _from_dinov2(state: State, input_px: int) -> State:
    """Map the names of the DINOv2 repository, where blocks may come in chunks and a teacher brings its heads along."""
    bare = {key.removeprefix("backbone."): value for key, value in state.items()}
    names = (
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
        (r"^register_tokens$", "reg_token"),
        (r"\.mlp\.w12\.", ".mlp.fc1."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
    )
    named = _renamed(_without(bare, "mask_token", "dino_head.", "ibot_head."), names)
    return _with_positions_of(named, input_px, antialias=True)


def _joined(state: State, parts: tuple[str, str, str], whole: str) -> State:
    """Join query, key and value of each attention into timm's one matrix."""
    joined = {key: value for key, value in state.items() if key.split(".")[-2:][0] not in parts}
    for key, query in state.items():
        start, found, end = key.rpartition(f".{parts[0]}.")
        if found:
            joined[f"{start}.{whole}.{end}"] = torch.cat(
                [query, *(state[f"{start}.{part}.{end}"] for part in parts[1:])]
            )
    return joined


def _with_positions_of(state: State, input_px: int, *, antialias: bool) -> State:
    """Resample the positions to the input's grid as DINOv2 does when it runs, and add the first one to the class token.

    timm's transformers with registers keep positions of patches only.
    """
    positions, patch = state["pos_embed"], state["patch_embed.proj.weight"].shape[-1]
    patches = resampled(positions[:, 1:], input_px // patch, antialias=antialias)
    if "reg_token" in state:
        return state | {"cls_token": state["cls_token"] + positions[:, :1], "pos_embed": patches}
    return state | {"pos_embed": torch.cat([positions[:, :1], patches], dim=1)}


def resampled(positions: Tensor, side: int, *, antialias: bool = False, offset: float = 0.0) -> Tensor:
    """Bring a square grid of positions to another size, by bicubic interpolation.

    Parameters
    ----------
    positions : Tensor, shape (1, n * n, width)
        Row by row.
    side : int
        Rows and columns wanted.
    antialias : bool, optional
        As the library that the weights are from has it.
    offset : float, optional
        Added to the side for the scale, as DINO does.

    Returns
    -------
    Tensor, shape (1, side * side, width)
        The same tensor where nothing changes.
    """
    before = math.isqrt(positions.shape[1])
    if before == side:
        return positions
    grid = positions.float().reshape(1, before, before, -1).permute(0, 3, 1, 2)
    if offset:
        scale = (side + offset) / before
        grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=antialias)
    else:
        grid = functional.interpolate(grid, size=(side, side), mode="bicubic", antialias=antialias)
    return grid.permute(0, 2, 3, 1).reshape(1, side * side, -1).to(positions.dtype)


def _from_conch(state: State, input_px: int) -> State:
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    return _without(visual, "proj_contrast", "attn_pool_caption.", "ln_caption.")


def _from_conch_v15(state: State, input_px: int) -> State:
    positions, patch = state["trunk.pos_embed"], state["trunk.patch_embed.proj.weight"].shape[-1]
    patches = resampled(positions[:, 1:], input_px // patch, offset=_DINO_OFFSET)
    return state | {"trunk.pos_embed": torch.cat([positions[:, :1], patches], dim=1)}


def _from_keep(state: State, input_px: int) -> State:
    return _without(state, "text.", "logit_scale")


def _from_swin(state: State, input_px: int) -> State:
    """Map the names of timm 0.5, where a stage ends with its downsampling instead of starting with it."""
    kept = {
        key: value
        for key, value in _without(state, "head.").items()
        if not key.endswith(("position_index", "attn_mask"))
    }
    return {re.sub(r"^layers\.(\d+)\.downsample", _next_stage, key): value for key, value in kept.items()}


def _next_stage(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


def _from_resnet(state: State, input_px: int) -> State:
    return _without(state, "layer4.", "fc.")


_BEIT3_NAMES = (
    (r"^beit3\.vision_embed\.proj\.", "patch_embed.proj."),
    (r"^beit3\.vision_embed\.cls_token$", "cls_token"),
    (r"^beit3\.encoder\.layer_norm\.A\.", "norm."),
    (r"^beit3\.encoder\.layers\.", "blocks."),
    (r"\.self_attn_layer_norm\.A\.", ".norm1."),
    (r"\.final_layer_norm\.A\.", ".norm2."),
    (r"\.self_attn\.inner_attn_ln\.A\.", ".attn.norm."),
    (r"\.self_attn\.out_proj\.A\.", ".attn.proj."),
    (r"\.self_attn\.([qkv]_proj)\.A\.", r".attn.\1."),
    (r"\.ffn\.A\.ffn_layernorm\.", ".mlp.norm."),
    (r"\.ffn\.A\.", ".mlp."),
)
"""Names of torchscale's BEiT-3, of whose two ways (A for images, B for words) images take A -> timm's."""


def _from_beit3(state: State, input_px: int) -> State:
    images = {key: value for key, value in state.items() if ".B." not in key}
    images = _without(
        images, "beit3.text_embed.", "beit3.vision_embed.mask_token", "vision_head.", "language_head.", "logit_scale"
    )
    positions = images.pop("beit3.encoder.embed_positions.A.weight")
    joined = _joined(_renamed(images, _BEIT3_NAMES), ("q_proj", "k_proj", "v_proj"), "qkv")
    return joined | {"pos_embed": positions[2:].unsqueeze(0)}  # the first two are Fairseq's and never used


_LAYOUTS: dict[str, Callable[[State, int], State]] = {
    "timm": _as_they_are,
    "hf_vit": _from_hf_vit,
    "hf_dinov2": _from_hf_dinov2,
    "dinov2": _from_dinov2,
    "conch": _from_conch,
    "conch_v15": _from_conch_v15,
    "keep": _from_keep,
    "swin": _from_swin,
    "resnet": _from_resnet,
    "beit3": _from_beit3,
}
