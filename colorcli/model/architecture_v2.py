"""What the parts of a published SD2.1 file are, as `architecture` tells it of XL files: their sizes, and whose name is
whose.

Every width comes from the file; only the channels of an attention head do not show in it.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from colorcli.model.architecture import Origin, OriginOf, Shapes, adapter_origin, open_clip_origin, unet_origin
from colorcli.model.checkpoint_v2 import (
    STYLE_MODULE_LAYERS,
    network_sizes,
    text_tower_config,
    vision_tower_config,
)
from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start, places

LATENT_SCALE = 0.18215
ADAPTER_RANK = 4
_ADAPTER_LABELS = {"foreground": "_fg.", "background": "_bg."}
_TEXT_NAMES = (
    ("embeddings.token_embedding.", "token_embedding."), ("final_layer_norm.", "ln_final."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
)
_LEVELS = ("model.14.weight", *(f"output_blocks.{i}.3.weight" for i in range(1, 4)))


def side_unet_from(shapes: Shapes, head_dim: int = 64) -> SideUNet:
    """Make the denoising network of the sizes in a file, without memory for its weights."""
    with init_empty_weights(include_buffers=False):
        return SideUNet(**_sizes(shapes, head_dim))


def background_encoder_from(shapes: Shapes, head_dim: int = 64) -> BackgroundEncoder:
    """Make the background encoder."""
    with init_empty_weights(include_buffers=False):
        return BackgroundEncoder(**_sizes(shapes, head_dim))


def style_encoder_from(shapes: Shapes, head_dim: int = 64) -> StyleEncoder:
    """Make the style encoder."""
    with init_empty_weights(include_buffers=False):
        return StyleEncoder(**_sizes(shapes, head_dim))


def pyramid_sketch_encoder_from(shapes: Shapes) -> PyramidSketchEncoder:
    """Make the sketch encoder."""
    widths = {"block_out_channels": tuple(shapes[name][0] for name in _LEVELS)} if _has(shapes, _LEVELS) else {}
    with init_empty_weights(include_buffers=False):
        return PyramidSketchEncoder(**widths)


def region_adapters_from(unet: Any) -> RegionAdapters:
    """Make the adapters that go with a denoising network, of the published rank."""
    widths = [place.width for place in places(unet) if place.part == "decoder"]
    with init_empty_weights(include_buffers=False):
        return RegionAdapters(widths, decoder_start(unet), unet.config["cross_attention_dim"], ADAPTER_RANK)


def side_unet_origin(name: str) -> Origin:
    """Name a tensor of the denoising network as the files do."""
    part, _, rest = name.partition(".")
    if part == "warp_modules":
        return Origin(name)
    if part == "style_modules":
        number, layer, kind = rest.split(".")
        numbers = {ours: theirs for theirs, ours in STYLE_MODULE_LAYERS.items()}
        return Origin(f"{part}.{number}.{numbers[layer]}.{kind}")
    # Without a transformer before it, the up-sampling of the deepest level is the second child of its block.
    return Origin(unet_origin(name).name.replace("output_blocks.2.2.", "output_blocks.2.1."))


def side_encoder_origin(name: str) -> Origin:
    """Name a tensor of the background encoder or the style encoder as the files do."""
    return Origin(name.replace("heads.", "zero_layers.", 1)) if name.startswith("heads.") else unet_origin(name)


def pyramid_sketch_encoder_origin(name: str) -> Origin:
    """Name a tensor of the sketch encoder as the files do."""
    if match := re.match(r"to_maps\.(\d+)\.(.*)", name):
        level = int(match[1])  # the first map comes from the stem
        return Origin(f"zero_blocks.{level - 1}.0.{match[2]}" if level else f"zero_layer.0.{match[2]}")
    return Origin(re.sub(r"^stages\.", "output_blocks.", re.sub(r"^stem\.", "model.", name)))


def region_adapters_origin(unet: Any) -> OriginOf:
    """Name the tensors of the adapters as the files do: each beside the layer of the network that it changes."""
    whole, first = adapter_origin(unet), decoder_start(unet)

    def origin(name: str) -> Origin:
        side, _, block, layer, half = name.split(".")
        beside = whole(f"blocks.{first + int(block)}.{layer}.{half}").name
        return Origin(beside.replace("_background.", _ADAPTER_LABELS[side]))

    return origin


def vision_tower_from(shapes: Shapes) -> CLIPVisionModelWithProjection:
    """Make CLIP's picture tower; shapes by the names of open_clip, without the prefix of the tower."""
    with init_empty_weights(include_buffers=False):
        return CLIPVisionModelWithProjection(vision_tower_config(_tensors(shapes)))


def text_tower_from(shapes: Shapes) -> CLIPTextModelWithProjection:
    """Make CLIP's text tower; shapes by the names of open_clip, without the prefix of the tower."""
    with init_empty_weights(include_buffers=False):
        return CLIPTextModelWithProjection(text_tower_config(_tensors(shapes)))


def vision_tower_origin(name: str) -> Origin:
    """Name a tensor of the picture tower as open_clip does, without the prefix of the tower."""
    found = open_clip_origin(name)
    return replace(found, name=found.name.removeprefix("visual."))


def text_tower_origin(name: str) -> Origin:
    """Name a tensor of the text tower as open_clip does, without the prefix of the tower."""
    if name == "text_projection.weight":
        return Origin("text_projection", transposed=True)
    name = name.removeprefix("text_model.")
    if name.startswith("encoder."):
        # Layers have the same names in both towers.
        return vision_tower_origin(f"vision_model.{name}")
    for ours, theirs in _TEXT_NAMES:
        name = name.replace(ours, theirs)
    return Origin(name)


def _tensors(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}


def _sizes(shapes: Shapes, head_dim: int) -> dict[str, Any]:
    """Read the sizes of a network; of one whose tensors do not tell them the published ones, to complain of later."""
    try:
        sizes = network_sizes(_tensors(shapes), head_dim)
    except (KeyError, IndexError, ValueError):
        return {"head_dim": head_dim}
    label = "label_emb.0.0.weight"
    return sizes | {"y_dim": shapes[label][1]} if label in shapes and len(shapes[label]) == 2 else sizes


def _has(shapes: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(len(shapes.get(name, ())) == 4 for name in names)
