"""Published names of tensors become the network's: by the lists of names documented (`keys_source`), and by computing with them."""

import math
from dataclasses import replace

import pytest
import torch
import torchvision
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from pathoml.encoders.architectures import build_architecture
from pathoml.encoders.key_mapping import map_keys, resampled
from pathoml.encoders.registry import EncoderRecord, encoder_records, find_record
from pathoml.errors import EncoderError
from pathoml.weights import check_fit

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def patches(name: str, width: int, patch: int) -> Shapes:
    return {f"{name}.weight": (width, 3, patch, patch), f"{name}.bias": (width,)}


def hf_vit(depth: int, width: int, patch: int, grid: int) -> Shapes:
    shapes: Shapes = {"embeddings.cls_token": (1, 1, width), "embeddings.position_embeddings": (1, grid**2 + 1, width)}
    shapes |= patches("embeddings.patch_embeddings.projection", width, patch)
    for index in range(depth):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.attention.{part}", width, width)
        shapes |= linear(f"{layer}.attention.output.dense", width, width)
        shapes |= linear(f"{layer}.intermediate.dense", 4 * width, width) | linear(
            f"{layer}.output.dense", width, 4 * width
        )
        shapes |= norm(f"{layer}.layernorm_before", width) | norm(f"{layer}.layernorm_after", width)
    return shapes | norm("layernorm", width) | linear("pooler.dense", width, width)


def hf_dinov2(depth: int, width: int, patch: int, grid: int, *, hidden: int = 0, registers: int = 0) -> Shapes:
    """Return names and shapes; ``hidden`` is the width between the two layers of a gated MLP, 0 for a plain one."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, width), "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, grid**2 + 1, width),
    }  # fmt: skip
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, width)
    shapes |= patches("embeddings.patch_embeddings.projection", width, patch)
    for index in range(depth):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.attention.{part}", width, width)
        shapes |= linear(f"{layer}.attention.output.dense", width, width)
        shapes |= norm(f"{layer}.norm1", width) | norm(f"{layer}.norm2", width)
        shapes |= {f"{layer}.layer_scale1.lambda1": (width,), f"{layer}.layer_scale2.lambda1": (width,)}
        if hidden:
            shapes |= linear(f"{layer}.mlp.weights_in", 2 * hidden, width) | linear(
                f"{layer}.mlp.weights_out", width, hidden
            )
        else:
            shapes |= linear(f"{layer}.mlp.fc1", 4 * width, width) | linear(f"{layer}.mlp.fc2", width, 4 * width)
    return shapes | norm("layernorm", width)


def dinov2(depth: int, width: int, grid: int, *, hidden: int = 0, registers: int = 0, chunked: str = "") -> Shapes:
    shapes: Shapes = {"cls_token": (1, 1, width), "mask_token": (1, width), "pos_embed": (1, grid**2 + 1, width)}
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    shapes |= patches("patch_embed.proj", width, 14)
    for index in range(depth):
        block = f"blocks.{chunked}{index}"
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
        if hidden:
            shapes |= linear(f"{block}.mlp.w12", 2 * hidden, width) | linear(f"{block}.mlp.w3", width, hidden)
        else:
            shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
    return shapes | norm("norm", width)


def gpfm() -> Shapes:
    teacher = {f"backbone.{key}": shape for key, shape in dinov2(24, 1024, 16, chunked="0.").items()}
    return teacher | {"dino_head.mlp.0.weight": (8, 1024), "dino_head.last_layer.weight_v": (8, 8)}


def timm_vit(depth: int, width: int, grid: int, prefix: str) -> Shapes:
    shapes: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, grid**2 + 1, width)} | patches(
        "patch_embed.proj", width, 16
    )
    for index in range(depth):
        block = f"blocks.{index}"
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
    return {f"{prefix}{key}": shape for key, shape in (shapes | norm("norm", width)).items()}


def scaled(shapes: Shapes, prefix: str, depth: int, width: int) -> Shapes:
    return shapes | {f"{prefix}blocks.{index}.ls{one}.gamma": (width,) for index in range(depth) for one in (1, 2)}


def pooler(name: str, dim: int) -> Shapes:
    """Return names and shapes of CONCH's pooler: a MultiheadAttention whose keys and values have another width."""
    shapes: Shapes = {
        f"{name}.query": (1, dim),
        f"{name}.attn.in_proj_bias": (3 * dim,),
        f"{name}.attn.q_proj_weight": (dim, dim),
    }
    shapes |= {f"{name}.attn.{part}_proj_weight": (dim, 768) for part in "kv"} | linear(
        f"{name}.attn.out_proj", dim, dim
    )
    return shapes | norm(f"{name}.ln_q", dim) | norm(f"{name}.ln_k", 768)


def conch_v1() -> Shapes:
    shapes = (
        timm_vit(12, 768, 28, "visual.trunk.")
        | pooler("visual.attn_pool_contrast", 512)
        | norm("visual.ln_contrast", 512)
    )
    shapes |= (
        pooler("visual.attn_pool_caption", 768) | norm("visual.ln_caption", 768) | {"visual.proj_contrast": (512, 512)}
    )
    return shapes | {
        "text.positional_embedding": (1, 1),
        "text_decoder.resblocks.0.ln_1.weight": (1,),
        "logit_scale": (),
    }


def conch_v15() -> Shapes:
    shapes = scaled(timm_vit(24, 1024, 14, "trunk."), "trunk.", 24, 1024) | {"attn_pool_contrast.query": (1, 768)}
    shapes |= norm("attn_pool_contrast.ln_k", 1024) | norm("attn_pool_contrast.ln_q", 768) | norm("ln_contrast", 768)
    return shapes | {
        "attn_pool_contrast.to_q.weight": (768, 768), "attn_pool_contrast.to_kv.weight": (2 * 768, 1024),
        "attn_pool_contrast.to_out.weight": (768, 768),
    }  # fmt: skip


def keep() -> Shapes:
    shapes = scaled(timm_vit(24, 1024, 14, "visual."), "visual.", 24, 1024)
    shapes |= linear("visual_head.0", 768, 1024) | linear("visual_head.2", 768, 768)
    return shapes | {"text.embeddings.word_embeddings.weight": (1, 1), "logit_scale": ()}


def beit3(depth: int, width: int, patch: int, grid: int) -> Shapes:
    shapes: Shapes = {
        "beit3.text_embed.weight": (3, width), "beit3.vision_embed.mask_token": (1, 1, width),
        "beit3.vision_embed.cls_token": (1, 1, width), "beit3.encoder.embed_positions.A.weight": (grid**2 + 3, width),
        "beit3.encoder.embed_positions.B.weight": (5, width), "logit_scale": (),
        "language_head.weight": (width, width), "vision_head.weight": (width, width),
    }  # fmt: skip
    shapes |= patches("beit3.vision_embed.proj", width, patch)
    for way in "AB":
        for index in range(depth):
            layer = f"beit3.encoder.layers.{index}"
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                shapes |= linear(f"{layer}.self_attn.{part}.{way}", width, width)
            shapes |= norm(f"{layer}.self_attn.inner_attn_ln.{way}", width)
            shapes |= norm(f"{layer}.self_attn_layer_norm.{way}", width) | norm(
                f"{layer}.final_layer_norm.{way}", width
            )
            shapes |= linear(f"{layer}.ffn.{way}.fc1", 4 * width, width) | linear(
                f"{layer}.ffn.{way}.fc2", width, 4 * width
            )
            shapes |= norm(f"{layer}.ffn.{way}.ffn_layernorm", 4 * width)
        shapes |= norm(f"beit3.encoder.layer_norm.{way}", width)
    return shapes


PUBLISHED = {
    "phikon": hf_vit(12, 768, 16, 14),
    "phikon_v2": hf_dinov2(24, 1024, 16, 14),
    "midnight12k": hf_dinov2(40, 1536, 14, 37, hidden=4096),
    "hibou_b": hf_dinov2(12, 768, 14, 16, hidden=2048, registers=4),
    "hibou_l": hf_dinov2(24, 1024, 14, 16, hidden=2736, registers=4),
    "openmidnight": dinov2(40, 1536, 16, hidden=4096, registers=4),
    "gpfm": gpfm(),
    "conch_v1": conch_v1(),
    "conch_v15": conch_v15(),
    "keep": keep(),
    "musk": beit3(24, 1024, 16, 24),
}


TILES = [record for record in encoder_records() if record.kind == "tile"]
TESTED_BELOW = {"resnet50"}
TESTED_WITH_THE_ARCHITECTURES = {"ctranspath"}


def test_only_what_has_a_documented_list_of_names_that_is_tested_is_called_verified() -> None:
    renamed = {record.name for record in TILES if record.key_layout != "timm"}
    assert renamed == set(PUBLISHED) | TESTED_BELOW | TESTED_WITH_THE_ARCHITECTURES
    for record in encoder_records():
        assert (record.verified == "architecture") == bool(record.keys_source)
        assert not record.keys_source or record.kind == "tile"


@pytest.mark.parametrize(
    "record", [record for record in TILES if record.key_layout == "timm"], ids=lambda record: record.name
)
def test_files_in_timms_own_format_fit_tensor_by_tensor(record: EncoderRecord) -> None:
    network = build_architecture(record, "meta")
    published = {key.removeprefix("network."): value for key, value in network.state_dict().items()}
    check_fit(network, map_keys(record, published), record.name)
    stranger = map_keys(record, {**published, "stranger": torch.empty(1, device="meta")})
    with pytest.raises(EncoderError, match=r"0 missing.*1 unknown \((network\.)?stranger\)"):
        check_fit(network, stranger, record.name)


def test_names_of_torchvisions_resnet_fit_less_the_stage_that_is_left_out() -> None:
    record = find_record("resnet50")
    with torch.device("meta"):
        state = torchvision.models.resnet50().state_dict()
    check_fit(build_architecture(record, "meta"), map_keys(record, state), "resnet50")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_documented_names_fit_the_network(name: str) -> None:
    record = find_record(name)
    state = {key: torch.empty(shape, device="meta") for key, shape in PUBLISHED[name].items()}
    check_fit(build_architecture(record, "meta"), map_keys(record, state), name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tensor_that_nobody_knows_is_left_for_the_check_to_refuse(name: str) -> None:
    record = find_record(name)
    state = {key: torch.empty(shape, device="meta") for key, shape in PUBLISHED[name].items()}
    state["visual.stranger" if name == "conch_v1" else "stranger"] = torch.empty(1, device="meta")
    with pytest.raises(EncoderError, match=r"0 missing.*1 unknown \((network\.)?stranger\)"):
        check_fit(build_architecture(record, "meta"), map_keys(record, state), name)


def random_state(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def apply(state: dict[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    return functional.linear(inputs, state[f"{name}.weight"], state[f"{name}.bias"])


def normed(state: dict[str, Tensor], name: str, inputs: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(inputs, inputs.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention by its formula, head by head."""
    outputs = []
    for one_query, one_key, one_value in zip(*(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True):
        scores = one_query @ one_key.transpose(-1, -2) / one_query.shape[-1] ** 0.5
        outputs.append(scores.softmax(dim=-1) @ one_value)
    return torch.cat(outputs, dim=-1)


def tokens_of(state: dict[str, Tensor], projection: str, images: Tensor, patch: int) -> Tensor:
    cut = functional.conv2d(images, state[f"{projection}.weight"], state[f"{projection}.bias"], stride=patch)
    return cut.flatten(2).transpose(1, 2)


WIDTH, HEADS, DEPTH = 16, 2, 2
IMAGES = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(5))


def loaded(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    check_fit(network, state, "tiny")
    network.load_state_dict(state)
    return network.eval()


@torch.inference_mode()
def test_dinov2_of_transformers_computes_the_same_under_timms_names() -> None:
    """With registers and a gated MLP, as Hibou: written out from the modeling file of histai/hibou-b."""
    state = random_state(hf_dinov2(DEPTH, WIDTH, 14, 2, hidden=24, registers=3))
    record = replace(find_record("hibou_b"), input_px=28)
    network = loaded(
        VisionTransformer(img_size=28, patch_size=14, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
                          reg_tokens=3, no_embed_class=True, init_values=1e-5, mlp_ratio=3, mlp_layer=SwiGLUPacked,
                          act_layer=nn.SiLU),
        map_keys(record, state),
    )  # fmt: skip
    patches_in = tokens_of(state, "embeddings.patch_embeddings.projection", IMAGES, 14)
    tokens = torch.cat([state["embeddings.cls_token"].expand(2, -1, -1), patches_in], dim=1)
    tokens = tokens + state["embeddings.position_embeddings"]
    registers = state["embeddings.register_tokens"].expand(2, -1, -1)
    tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
    for index in range(DEPTH):
        layer = f"encoder.layer.{index}"
        before = normed(state, f"{layer}.norm1", tokens, 1e-6)
        parts = (apply(state, f"{layer}.attention.attention.{part}", before) for part in ("query", "key", "value"))
        mixed = apply(state, f"{layer}.attention.output.dense", attended(*parts, heads=HEADS))
        tokens = tokens + state[f"{layer}.layer_scale1.lambda1"] * mixed
        gate, value = apply(state, f"{layer}.mlp.weights_in", normed(state, f"{layer}.norm2", tokens, 1e-6)).chunk(
            2, dim=-1
        )
        gated = apply(state, f"{layer}.mlp.weights_out", functional.silu(gate) * value)
        tokens = tokens + state[f"{layer}.layer_scale2.lambda1"] * gated
    expected = normed(state, "layernorm", tokens, 1e-6)[:, 0]
    torch.testing.assert_close(network(IMAGES), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_vit_of_transformers_computes_the_same_under_timms_names() -> None:
    state = random_state(hf_vit(DEPTH, WIDTH, 14, 2))
    network = loaded(
        VisionTransformer(img_size=28, patch_size=14, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0),
        map_keys(replace(find_record("phikon"), input_px=28), state),
    )
    patches_in = tokens_of(state, "embeddings.patch_embeddings.projection", IMAGES, 14)
    tokens = torch.cat([state["embeddings.cls_token"].expand(2, -1, -1), patches_in], dim=1)
    tokens = tokens + state["embeddings.position_embeddings"]
    for index in range(DEPTH):
        layer = f"encoder.layer.{index}"
        before = normed(state, f"{layer}.layernorm_before", tokens, 1e-6)
        parts = (apply(state, f"{layer}.attention.attention.{part}", before) for part in ("query", "key", "value"))
        tokens = tokens + apply(state, f"{layer}.attention.output.dense", attended(*parts, heads=HEADS))
        hidden = apply(state, f"{layer}.intermediate.dense", normed(state, f"{layer}.layernorm_after", tokens, 1e-6))
        tokens = tokens + apply(state, f"{layer}.output.dense", functional.gelu(hidden))
    expected = normed(state, "layernorm", tokens, 1e-6)[:, 0]
    torch.testing.assert_close(network(IMAGES), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_beit3_of_images_computes_the_same_under_timms_names() -> None:
    """Written out from torchscale's encoder: way A, positions from 2 on, norms inside attention and MLP."""
    state = random_state(beit3(DEPTH, WIDTH, 14, 2))
    network = loaded(
        VisionTransformer(img_size=28, patch_size=14, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
                          scale_attn_norm=True, scale_mlp_norm=True, norm_layer=nn.LayerNorm),
        map_keys(replace(find_record("musk"), input_px=28), state),
    )  # fmt: skip
    patches_in = tokens_of(state, "beit3.vision_embed.proj", IMAGES, 14)
    tokens = torch.cat([state["beit3.vision_embed.cls_token"].expand(2, -1, -1), patches_in], dim=1)
    tokens = tokens + functional.embedding(torch.arange(2, 7), state["beit3.encoder.embed_positions.A.weight"])
    for index in range(DEPTH):
        layer = f"beit3.encoder.layers.{index}"
        before = normed(state, f"{layer}.self_attn_layer_norm.A", tokens, 1e-5)
        parts = (apply(state, f"{layer}.self_attn.{part}_proj.A", before) for part in "qkv")
        mixed = normed(state, f"{layer}.self_attn.inner_attn_ln.A", attended(*parts, heads=HEADS), 1e-5)
        tokens = tokens + apply(state, f"{layer}.self_attn.out_proj.A", mixed)
        hidden = apply(state, f"{layer}.ffn.A.fc1", normed(state, f"{layer}.final_layer_norm.A", tokens, 1e-5))
        hidden = normed(state, f"{layer}.ffn.A.ffn_layernorm", functional.gelu(hidden), 1e-5)
        tokens = tokens + apply(state, f"{layer}.ffn.A.fc2", hidden)
    expected = normed(state, "beit3.encoder.layer_norm.A", tokens, 1e-5)[:, 0]
    torch.testing.assert_close(network(IMAGES), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["conch_v1", "conch_v15"])
def test_conchs_query_attends_by_the_formula(name: str) -> None:
    torch.manual_seed(6)
    module = build_architecture(find_record(name), "meta").attn_pool_contrast.to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.normal_(0, 0.1)
    state = module.state_dict()
    tokens = torch.randn(2, 7, 768 if name == "conch_v1" else 1024)
    query, keys = normed(state, "ln_q", state["query"], 1e-5), normed(state, "ln_k", tokens, 1e-5)
    if name == "conch_v1":
        of_query, of_key, of_value = state["attn.in_proj_bias"].chunk(3)
        parts = (
            functional.linear(query, state["attn.q_proj_weight"], of_query).expand(2, -1, -1),
            functional.linear(keys, state["attn.k_proj_weight"], of_key),
            functional.linear(keys, state["attn.v_proj_weight"], of_value),
        )
        expected = apply(state, "attn.out_proj", attended(*parts, heads=8))[:, 0]
    else:
        key, value = functional.linear(keys, state["to_kv.weight"]).chunk(2, dim=-1)
        parts = ((query @ state["to_q.weight"].T).expand(2, -1, -1), key, value)
        expected = functional.linear(attended(*parts, heads=8), state["to_out.weight"])[:, 0]
    torch.testing.assert_close(module(tokens), expected, rtol=1e-4, atol=1e-5)


def cubic_matrix(before: int, after: int, scale: float) -> Tensor:
    """Return Keys' cubic interpolation (a = -0.75, edges repeated) as a matrix; ``scale`` is the step between samples."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for row in range(after):
        centre = (row + 0.5) * scale - 0.5
        first = math.floor(centre)
        for column in range(first - 1, first + 3):
            far = abs(centre - column)
            weight = 1.25 * far**3 - 2.25 * far**2 + 1 if far <= 1 else -0.75 * (far**3 - 5 * far**2 + 8 * far - 4)
            matrix[row, min(max(column, 0), before - 1)] += weight
    return matrix


@pytest.mark.parametrize(("before", "after", "offset"), [(37, 16, 0.0), (14, 28, 0.0), (14, 28, 0.1)])
def test_positions_are_resampled_by_keys_cubic_at_the_scale_of_the_library(
    before: int, after: int, offset: float
) -> None:
    grid = torch.randn(before, before, generator=torch.Generator().manual_seed(7))
    matrix = cubic_matrix(before, after, before / (after + offset))
    found = resampled(grid.reshape(1, -1, 1), after, offset=offset).reshape(after, after)
    torch.testing.assert_close(found.double(), matrix @ grid.double() @ matrix.T, rtol=1e-4, atol=1e-4)


def test_positions_of_the_inputs_grid_stay_as_they_are() -> None:
    grid = torch.randn(1, 16, 3)
    assert resampled(grid, 4, antialias=True, offset=0.1) is grid


@torch.inference_mode()
def test_antialiasing_averages_what_plain_cubic_skips() -> None:
    stripes = (torch.arange(32) % 2).float().expand(32, 32).reshape(1, -1, 1)
    smooth, plain = (resampled(stripes, 9, antialias=one) for one in (True, False))
    assert float((smooth - 0.5).abs().max()) < 0.1
    assert float((plain - 0.5).abs().max()) > 0.3
