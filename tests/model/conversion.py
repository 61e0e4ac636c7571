"""A published file taken apart, each part as the state of our module: what an import is held against.

It goes the other way round than `colorcli.model.architecture`, from their names to ours, by diffusers' own converters
wherever there is one.

    parts = split_published(load_file(path))
    unet.load_state_dict(unet_state(parts.unet, unet.config))
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from colorcli.model.attention import Adapter, LowRank
from colorcli.model.lora import BackgroundAdapter

UNET = "model.diffusion_model."
SKETCH_ENCODER = "control_encoder."
PROJECTION = "proj."
REFERENCE_NET = "bg_encoder."
VAE = "first_stage_model."
# Pretrained towers that come from elsewhere, moving averages, and schedule tables that are computed.
LEFT_OUT = (
    "cond_stage_model.", "img_embedder.", "model_ema.", "scalar_embedder.", "txt_embedder.", "betas", "alphas_cumprod",
    "sqrt_", "log_one_minus_", "posterior_", UNET + "conv_fg.",
)

State = dict[str, Tensor]

_BLOCKS = {"input_blocks": 0, "middle_block": 1, "output_blocks": 2}
_ADAPTER = re.compile(r"^(?P<block>.+)\.attn2\.to_(?P<layer>[qkv])\.lora_(?P<half>down|up)_(?P<label>\w+)\.weight$")
_TAGGER_BUFFERS = ("relative_position_index", "relative_coords_table", "k_bias", "attn_mask")

_SKETCH_NAMES = (
    (r"^model\.", "stem."),
    (r"^downsample_layers\.(\d+)\.1\.", r"stages.\1."),
    (r"^proj_ins\.", "token_in."),
    (r"^proj_outs\.", "token_out."),
    (r"^attn_layer\.to_out\.0\.", "attention.to_out."),
    (r"^attn_layer\.", "attention."),
)
_PROJECTION_NAMES = ((r"^attn\.to_out\.0\.", "attn.to_out."),)
_TAGGER_NAMES = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^norm\.", "layernorm."),
    (r"^layers\.", "encoder.layers."),
    (r"\.attn\.cpb_mlp\.", ".attention.self.continuous_position_bias_mlp."),
    (r"\.attn\.(logit_scale|query|key|value)", r".attention.self.\1"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


@dataclass(frozen=True)
class Published:
    """The parts of a published file, each by its published names without the prefix; empty where the file has none."""

    unet: State
    adapters: State         # low-rank changes inside the denoising network, for `read_adapters`
    sketch_encoder: State
    projection: State
    vae: State
    reference_net: State


def split_published(state: Mapping[str, Tensor]) -> Published:
    """Take a published XL file apart; every name has to belong to a part that is known."""
    prefixes = {
        "unet": UNET,
        "sketch_encoder": SKETCH_ENCODER,
        "projection": PROJECTION,
        "vae": VAE,
        "reference_net": REFERENCE_NET,
    }
    parts = parts_of(state, prefixes, LEFT_OUT)
    assert parts["unet"] and parts["sketch_encoder"] and parts["projection"]
    return Published(**parts)


def parts_of(state: Mapping[str, Tensor], prefixes: Mapping[str, str], left_out: tuple[str, ...]) -> dict[str, State]:
    """Divide a file by the prefixes of its names, which go; "adapters" are the low-rank changes of any part."""
    found: dict[str, State] = {part: {} for part in (*prefixes, "adapters")}
    for name, value in state.items():
        if name.startswith(left_out):
            continue
        part = next((part for part, prefix in prefixes.items() if name.startswith(prefix)), None)
        assert part is not None, f"no such model has {name}"
        target = "adapters" if ".lora_" in name else part
        found[target][name.removeprefix(prefixes[part])] = value
    return found


def vae_state(published: Mapping[str, Tensor], config: Any) -> State:
    """Convert the autoencoder (names without `first_stage_model.`) for diffusers' `AutoencoderKL`."""
    return convert_ldm_vae_checkpoint({VAE + name: value for name, value in published.items()}, dict(config))


def unet_state(published: Mapping[str, Tensor], config: Any) -> State:
    """Convert the denoising network (names without `model.diffusion_model.`, no adapters) for diffusers."""
    return convert_ldm_unet_checkpoint({UNET + name: value for name, value in published.items()}, dict(config))


def reference_net_state(published: Mapping[str, Tensor], config: Any) -> State:
    """Convert the ReferenceNet (names without `bg_encoder.`) for `ReferenceNet`.

    The published file goes one residual block and one up-sampling further than any reader; those are left out.
    """
    # The converter insists on the layers behind the decoder, which this network has not.
    head = {name: torch.empty(0) for name in ("out.0.weight", "out.0.bias", "out.2.weight", "out.2.bias")}
    state = unet_state({**published, **head}, config)
    readers = sum(1 for depth in config["depths"] if depth)
    unused = (f"up_blocks.{readers}.", f"up_blocks.{readers - 1}.upsamplers.", "conv_norm_out.", "conv_out.")
    return {name: value for name, value in state.items() if not name.startswith(unused)}


def sketch_encoder_state(published: Mapping[str, Tensor]) -> State:
    """Convert the sketch encoder (names without `control_encoder.`)."""
    return _renamed(published, _SKETCH_NAMES)


def projection_state(published: Mapping[str, Tensor]) -> State:
    """Convert the token projection (names without `proj.`)."""
    return _renamed(published, _PROJECTION_NAMES)


def tagger_state(timm: Mapping[str, Tensor]) -> State:
    """Convert timm's SwinV2 backbone for `TaggerTower`; the classifier head is left out."""
    state: State = {}
    for name, value in timm.items():
        if name.startswith("head.") or name.endswith(_TAGGER_BUFFERS):
            continue
        if name.endswith(".attn.qkv.weight"):
            base = name.removesuffix("qkv.weight")
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"{base}{part}.weight"] = piece
        elif name.endswith((".attn.q_bias", ".attn.v_bias")):
            state[name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")] = value
        elif match := re.match(r"layers\.(\d+)\.downsample\.(.*)", name):
            # timm counts the merging of patches to the stage behind it, transformers to the one before.
            state[f"layers.{int(match[1]) - 1}.downsample.{match[2]}"] = value
        else:
            state[name] = value
    return {"backbone." + name: value for name, value in _renamed(state, _TAGGER_NAMES).items()}


def read_adapters(published: Mapping[str, Tensor], label: str = "background") -> list[Adapter]:
    """Collect the adapter `label` out of a denoising network's published state, one entry for each transformer block.

    published: names without `model.diffusion_model.`. Empty if there is no such adapter.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in published.items():
        match = _ADAPTER.match(name)
        if match and match["label"] == label:
            found.setdefault(match["block"], {})[match["layer"] + match["half"]] = value
    return [
        Adapter(*(LowRank(halves[layer + "down"], halves[layer + "up"]) for layer in "qkv"))
        for _, halves in sorted(found.items(), key=lambda item: _order(item[0]))
    ]


def _order(block: str) -> tuple[int, ...]:
    """Order block names as the blocks run: encoder, middle, decoder, each by its numbers."""
    return (_BLOCKS[block.split(".")[0]], *(int(number) for number in re.findall(r"\d+", block)))


def background_adapter(published: Mapping[str, Tensor], label: str = "background") -> BackgroundAdapter:
    """Take the adapter `label` out of a denoising network's published state; see `read_adapters`."""
    found = read_adapters(published, label)
    assert found, f"the state holds no adapter {label}"
    with torch.device("meta"):
        adapter = BackgroundAdapter(
            widths=[change.q.up.shape[0] for change in found], context_dim=found[0].k.down.shape[1],
            rank=found[0].q.down.shape[0],
        )
    state = {
        f"blocks.{i}.{layer}.{half}": getattr(getattr(change, layer), half)
        for i, change in enumerate(found) for layer in "qkv" for half in ("down", "up")
    }
    adapter.load_state_dict(state, assign=True)
    return adapter


def _renamed(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> State:
    renamed: State = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
