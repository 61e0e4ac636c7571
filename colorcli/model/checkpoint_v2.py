"""Published names of the SD2.1 model and ours: takes a published file apart, each part for one of our modules."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.errors import WeightsError
from colorcli.model.checkpoint import SKETCH_ENCODER, UNET, VAE, State, unet_state
from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start

BACKGROUND_ENCODER = "bg_encoder."
STYLE_ENCODER = "style_encoder."
VISION_TOWER = "cond_stage_model.visual.model."
TEXT_TOWER = "cond_stage_model.transformer.model."
DAMAGED = "copy or download the file again"
# Channels of an attention head of CLIP ViT-H-14's towers, which their tensors do not tell.
VISION_HEAD_DIM, TEXT_HEAD_DIM = 80, 64
# Moving averages, and schedule tables that are computed.
LEFT_OUT = (
    "model_ema.", "scalar_embedder.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_",
    TEXT_TOWER + "attn_mask",
)

_SIDE_MODULES = ("warp_modules.", "style_modules.")
STYLE_MODULE_LAYERS = {"0": "norm", "1": "from_time", "2": "out"}
_SKETCH_NAMES = (
    (r"^model\.", "stem."),
    (r"^zero_layer\.0\.", "to_maps.0."),
    (r"^output_blocks\.(\d+)\.", r"stages.\1."),
    # The first map comes from the stem, so those of the stages are counted from 1.
    (r"^zero_blocks\.(\d+)\.0\.", lambda found: f"to_maps.{int(found[1]) + 1}."),
)
_TOWER_NAMES = (
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^conv1\.", "embeddings.patch_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^ln_pre\.", "pre_layrnorm."),
    (r"^ln_post\.", "post_layernorm."),
    (r"^ln_final\.", "final_layer_norm."),
)


@dataclass(frozen=True)
class PublishedV2:
    """The parts of a published file, each by its published names without the prefix; empty where the file has none."""

    unet: State                 # with its warp and style modules
    adapters: State             # low-rank changes inside the denoising network, for `read_region_adapters`
    sketch_encoder: State
    background_encoder: State
    style_encoder: State
    vae: State
    vision_tower: State
    text_tower: State


def split_published_v2(state: Mapping[str, Tensor]) -> PublishedV2:
    """Take a published SD2.1 file apart.

    Raises WeightsError if it has a name that no part knows, or lacks a part that every v2 model has.
    """
    prefixes = {
        "unet": UNET,
        "sketch_encoder": SKETCH_ENCODER,
        "background_encoder": BACKGROUND_ENCODER,
        "style_encoder": STYLE_ENCODER,
        "vae": VAE,
        "vision_tower": VISION_TOWER,
        "text_tower": TEXT_TOWER,
    }
    found: dict[str, State] = {part: {} for part in (*prefixes, "adapters")}
    for name, value in state.items():
        if name.startswith(LEFT_OUT):
            continue
        part = next((part for part, prefix in prefixes.items() if name.startswith(prefix)), None)
        if part is None:
            raise WeightsError(f"the weights have {name}, which no v2 model has", hint="import them as what they are")
        target = "adapters" if ".lora_" in name else part
        found[target][name.removeprefix(prefixes[part])] = value
    for part in ("unet", "sketch_encoder", "background_encoder", "style_encoder"):
        if not found[part]:
            message = f"the weights have no {prefixes[part]}*"
            raise WeightsError(message, hint="take a file of the SD2.1 family whose name begins with v2-")
    for part in _SIDE_MODULES:
        if not any(name.startswith(part) for name in found["unet"]):
            message = f"the weights have no {UNET}{part}*"
            raise WeightsError(message, hint="take a file of the SD2.1 family whose name begins with v2-")
    return PublishedV2(**found)


def network_sizes(published: Mapping[str, Tensor], head_dim: int = 64) -> dict[str, Any]:
    """Read the sizes of a denoising network or a side encoder off its tensors, by the names that their classes have.

    published: names without their prefix. head_dim: channels of an attention head, which the tensors do not tell.
    """
    halvings = sorted(int(name.split(".")[1]) for name in published if name.endswith(".0.op.weight"))
    layers = halvings[0] - 1
    firsts = [1, *(number + 1 for number in halvings)]  # the first residual block of each level
    (context_dim,) = {x.shape[1] for name, x in published.items() if name.endswith(".attn2.to_k.weight")}
    return {
        "block_out_channels": tuple(published[f"input_blocks.{n}.0.out_layers.3.weight"].shape[0] for n in firsts),
        "depths": tuple(_transformers(published, f"input_blocks.{n}.1.") for n in firsts),
        "head_dim": head_dim,
        "context_dim": context_dim,
        "layers_per_block": layers,
    }


def _transformers(published: Mapping[str, Tensor], prefix: str) -> int:
    ending = ".norm1.weight"
    return sum(name.startswith(prefix) and name.endswith(ending) for name in published)


def modules_of(parts: PublishedV2, head_dim: int = 64) -> dict[str, nn.Module]:
    """Make the networks of a published file from its tensors, which they keep: nothing is copied or rounded.

    Gives them by the names of a pipeline's components. A tower that the file does not have is left out, and so is the
    autoencoder, whose state `checkpoint.vae_state` gives.
    Raises WeightsError if a part has a tensor missing, one too many, or one of another shape than the others ask for.
    """
    try:
        found = _networks(parts, head_dim)
    except (KeyError, IndexError, ValueError) as lost:
        raise WeightsError(f"the weights lack a tensor that a v2 model has: {lost}", hint=DAMAGED) from None
    for name, (module, state) in found.items():
        fill(name, module, state)
    modules = {name: module for name, (module, _) in found.items()}
    if parts.adapters:
        modules["adapter"] = RegionAdapters.from_published(parts.adapters, decoder_start(modules["unet"]))
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def _networks(parts: PublishedV2, head_dim: int) -> dict[str, tuple[nn.Module, State]]:
    """Give every network without its weights, and its weights by its own names."""
    sizes = network_sizes(parts.unet, head_dim)
    towers: dict[str, tuple[nn.Module, State]] = {}
    with torch.device("meta"):
        unet = SideUNet(**sizes)
        sketch_encoder = PyramidSketchEncoder(block_out_channels=sizes["block_out_channels"])
        background = BackgroundEncoder(**_side_sizes(parts.background_encoder, head_dim))
        style = StyleEncoder(**_side_sizes(parts.style_encoder, head_dim))
        if parts.vision_tower:
            vision = CLIPVisionModelWithProjection(vision_tower_config(parts.vision_tower))
            towers["image_encoder"] = vision, vision_tower_state(parts.vision_tower)
        if parts.text_tower:
            text = CLIPTextModelWithProjection(text_tower_config(parts.text_tower))
            towers["text_encoder"] = text, text_tower_state(parts.text_tower)
    return {
        "unet": (unet, side_unet_state(parts.unet, unet.config)),
        "sketch_encoder": (sketch_encoder, pyramid_sketch_encoder_state(parts.sketch_encoder)),
        "background_encoder": (background, side_encoder_state(parts.background_encoder, background.config)),
        "style_encoder": (style, side_encoder_state(parts.style_encoder, style.config)),
        **towers,
    }


def _side_sizes(published: Mapping[str, Tensor], head_dim: int) -> dict[str, Any]:
    return network_sizes(published, head_dim) | {"y_dim": published["label_emb.0.0.weight"].shape[1]}


def fill(name: str, module: nn.Module, state: State) -> None:
    """Give a network that lies nowhere its weights."""
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    for key in sorted(own.keys() | given.keys()):
        if own.get(key) != given.get(key):
            expected, shape = own.get(key, "not in the network"), given.get(key, "missing")
            message = f"the {name} of the weights does not fit: {key} is {shape}, not {expected}"
            raise WeightsError(message, hint=DAMAGED)
    module.load_state_dict(state, assign=True)
    for parent in module.modules():
        counted = getattr(parent, "position_ids", None)
        if isinstance(counted, Tensor):  # 0, 1, 2, ..., which no file holds
            parent.register_buffer("position_ids", torch.arange(counted.shape[-1])[None], persistent=False)


def side_unet_state(published: Mapping[str, Tensor], config: Any) -> State:
    """Convert the denoising network (names without `model.diffusion_model.`, no adapters) for `SideUNet`."""
    plain = {name: value for name, value in published.items() if not name.startswith(_SIDE_MODULES)}
    state = unet_state(plain, config)
    for name, value in published.items():
        if name.startswith("warp_modules."):
            state[name] = value
        elif name.startswith("style_modules."):
            module, number, layer, kind = name.split(".")
            state[f"{module}.{number}.{STYLE_MODULE_LAYERS[layer]}.{kind}"] = value
    return state


def side_encoder_state(published: Mapping[str, Tensor], config: Any) -> State:
    """Convert a side encoder (names without `bg_encoder.` or `style_encoder.`)."""
    heads = {name: value for name, value in published.items() if name.startswith("zero_layers.")}
    state = unet_state({name: value for name, value in published.items() if name not in heads}, config)
    return state | {name.replace("zero_layers.", "heads."): value for name, value in heads.items()}


def pyramid_sketch_encoder_state(published: Mapping[str, Tensor]) -> State:
    """Convert the sketch encoder (names without `control_encoder.`) for `PyramidSketchEncoder`."""
    return {_renamed(name, _SKETCH_NAMES): value for name, value in published.items()}


def vision_tower_config(published: Mapping[str, Tensor]) -> CLIPVisionConfig:
    """Read the sizes of CLIP's picture tower off its tensors."""
    width, _, patch, _ = published["conv1.weight"].shape
    places = published["positional_embedding"].shape[0] - 1  # without the class token
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=published["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        projection_dim=published["proj"].shape[1],
        num_hidden_layers=_layers(published),
        num_attention_heads=width // VISION_HEAD_DIM,
        image_size=patch * math.isqrt(places),
        patch_size=patch,
        hidden_act="gelu",
    )


def text_tower_config(published: Mapping[str, Tensor]) -> CLIPTextConfig:
    """Read the sizes of CLIP's text tower off its tensors."""
    length, width = published["positional_embedding"].shape
    words = published["token_embedding.weight"].shape[0]
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=published["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        projection_dim=published["text_projection"].shape[1],
        num_hidden_layers=_layers(published),
        num_attention_heads=width // TEXT_HEAD_DIM,
        max_position_embeddings=length,
        hidden_act="gelu",
        # The last two words of CLIP's vocabulary.
        bos_token_id=words - 2,
        eos_token_id=words - 1,
    )


def _layers(published: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[2] for name in published if name.startswith("transformer.resblocks.")})


def vision_tower_state(published: Mapping[str, Tensor]) -> State:
    """Convert CLIP's picture tower (names without their prefix) for transformers' `CLIPVisionModelWithProjection`."""
    layers = {name: value for name, value in published.items() if name != "proj"}
    return _tower_state(layers, "vision_model.") | {"visual_projection.weight": published["proj"].mT}


def text_tower_state(published: Mapping[str, Tensor]) -> State:
    """Convert CLIP's text tower (names without their prefix) for transformers' `CLIPTextModelWithProjection`."""
    layers = {name: value for name, value in published.items() if name not in ("text_projection", "logit_scale")}
    return _tower_state(layers, "text_model.") | {"text_projection.weight": published["text_projection"].mT}


def _tower_state(published: Mapping[str, Tensor], prefix: str) -> State:
    state = {}
    for name, value in published.items():
        ours = prefix + _renamed(name, _TOWER_NAMES)
        stem, joined, kind = ours.partition(".attn.in_proj_")
        if joined:
            for layer, part in zip("qkv", value.chunk(3), strict=True):
                state[f"{stem}.self_attn.{layer}_proj.{kind}"] = part
        else:
            state[ours] = value
    return state


def _renamed(name: str, rules: Sequence[tuple[str, Any]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
