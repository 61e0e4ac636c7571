"""A published SD2.1 file taken apart, each part for one of our modules: see `conversion`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from colorcli.model.architecture import Shapes
from colorcli.model.architecture_v2 import network_sizes, text_tower_config, vision_tower_config
from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start
from tests.model.conversion import SKETCH_ENCODER, UNET, VAE, State, background_adapter, parts_of, unet_state

BACKGROUND_ENCODER = "bg_encoder."
STYLE_ENCODER = "style_encoder."
VISION_TOWER = "cond_stage_model.visual.model."
TEXT_TOWER = "cond_stage_model.transformer.model."
# Moving averages, and schedule tables that are computed.
LEFT_OUT = (
    "model_ema.", "scalar_embedder.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_",
    TEXT_TOWER + "attn_mask",
)

_SIDE_MODULES = ("warp_modules.", "style_modules.")
_STYLE_MODULE_LAYERS = {"0": "norm", "1": "from_time", "2": "out"}
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
    adapters: State             # low-rank changes inside the denoising network, for `region_adapters`
    sketch_encoder: State
    background_encoder: State
    style_encoder: State
    vae: State
    vision_tower: State
    text_tower: State


def split_published_v2(state: Mapping[str, Tensor]) -> PublishedV2:
    """Take a published SD2.1 file apart; every name has to belong to a part that is known."""
    prefixes = {
        "unet": UNET,
        "sketch_encoder": SKETCH_ENCODER,
        "background_encoder": BACKGROUND_ENCODER,
        "style_encoder": STYLE_ENCODER,
        "vae": VAE,
        "vision_tower": VISION_TOWER,
        "text_tower": TEXT_TOWER,
    }
    found = parts_of(state, prefixes, LEFT_OUT)
    for part in ("unet", "sketch_encoder", "background_encoder", "style_encoder"):
        assert found[part], f"the file has no {prefixes[part]}*"
    return PublishedV2(**found)


def modules_of(parts: PublishedV2, head_dim: int = 64) -> dict[str, nn.Module]:
    """Make the networks of a published file from its tensors, which they keep: nothing is copied or rounded.

    Gives them by the names of a pipeline's components. A tower that the file does not have is left out, and so is the
    autoencoder, whose state `conversion.vae_state` gives.
    """
    found = _networks(parts, head_dim)
    for module, state in found.values():
        fill(module, state)
    modules = {name: module for name, (module, _) in found.items()}
    if parts.adapters:
        modules["adapter"] = region_adapters(parts.adapters, decoder_start(modules["unet"]))
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def _networks(parts: PublishedV2, head_dim: int) -> dict[str, tuple[nn.Module, State]]:
    """Give every network without its weights, and its weights by its own names."""
    sizes = network_sizes(shapes(parts.unet), head_dim)
    towers: dict[str, tuple[nn.Module, State]] = {}
    with torch.device("meta"):
        unet = SideUNet(**sizes)
        sketch_encoder = PyramidSketchEncoder(block_out_channels=sizes["block_out_channels"])
        background = BackgroundEncoder(**_side_sizes(parts.background_encoder, head_dim))
        style = StyleEncoder(**_side_sizes(parts.style_encoder, head_dim))
        if parts.vision_tower:
            vision = CLIPVisionModelWithProjection(vision_tower_config(shapes(parts.vision_tower)))
            towers["image_encoder"] = vision, vision_tower_state(parts.vision_tower)
        if parts.text_tower:
            text = CLIPTextModelWithProjection(text_tower_config(shapes(parts.text_tower)))
            towers["text_encoder"] = text, text_tower_state(parts.text_tower)
    return {
        "unet": (unet, side_unet_state(parts.unet, unet.config)),
        "sketch_encoder": (sketch_encoder, pyramid_sketch_encoder_state(parts.sketch_encoder)),
        "background_encoder": (background, side_encoder_state(parts.background_encoder, background.config)),
        "style_encoder": (style, side_encoder_state(parts.style_encoder, style.config)),
        **towers,
    }


def _side_sizes(published: Mapping[str, Tensor], head_dim: int) -> dict[str, Any]:
    return network_sizes(shapes(published), head_dim) | {"y_dim": published["label_emb.0.0.weight"].shape[1]}


def shapes(published: Mapping[str, Tensor]) -> Shapes:
    """Give the shape of every tensor."""
    return {name: tuple(value.shape) for name, value in published.items()}


def fill(module: nn.Module, state: State) -> None:
    """Give a network that lies nowhere its weights; each of its own must be there, and no other."""
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
            state[f"{module}.{number}.{_STYLE_MODULE_LAYERS[layer]}.{kind}"] = value
    return state


def side_encoder_state(published: Mapping[str, Tensor], config: Any) -> State:
    """Convert a side encoder (names without `bg_encoder.` or `style_encoder.`)."""
    heads = {name: value for name, value in published.items() if name.startswith("zero_layers.")}
    state = unet_state({name: value for name, value in published.items() if name not in heads}, config)
    return state | {name.replace("zero_layers.", "heads."): value for name, value in heads.items()}


def pyramid_sketch_encoder_state(published: Mapping[str, Tensor]) -> State:
    """Convert the sketch encoder (names without `control_encoder.`) for `PyramidSketchEncoder`."""
    return {_renamed(name, _SKETCH_NAMES): value for name, value in published.items()}


def region_adapters(published: Mapping[str, Tensor], first: int) -> RegionAdapters:
    """Take the adapters "fg" and "bg" out of a denoising network's published state; see `read_adapters`."""
    sides = {"foreground": background_adapter(published, "fg"), "background": background_adapter(published, "bg")}
    known = sides["foreground"].config
    with torch.device("meta"):
        adapters = RegionAdapters(known["widths"], first, known["context_dim"], known["rank"])
    state = {f"{side}.{name}": x for side, adapter in sides.items() for name, x in adapter.state_dict().items()}
    adapters.load_state_dict(state, assign=True)
    return adapters


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
