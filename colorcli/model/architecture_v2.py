"""What the parts of a published SD2.1 file are, as `architecture` tells it of XL files: their sizes, and whose name is
whose.

Every width comes from the file; only the channels of an attention head do not show in it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accelerate import init_empty_weights
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.architecture import Origin, OriginOf, Shapes, adapter_origin, open_clip_origin, unet_origin
from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start, places

LATENT_SCALE = 0.18215
ADAPTER_RANK = 4
# Channels of an attention head of CLIP ViT-H-14's towers, which their tensors do not tell.
VISION_HEAD_DIM, TEXT_HEAD_DIM = 80, 64
_STYLE_MODULE_LAYERS = {"norm": "0", "from_time": "1", "out": "2"}
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
        return Origin(f"{part}.{number}.{_STYLE_MODULE_LAYERS[layer]}.{kind}")
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
        return CLIPVisionModelWithProjection(vision_tower_config(shapes))


def text_tower_from(shapes: Shapes) -> CLIPTextModelWithProjection:
    """Make CLIP's text tower; shapes by the names of open_clip, without the prefix of the tower."""
    with init_empty_weights(include_buffers=False):
        return CLIPTextModelWithProjection(text_tower_config(shapes))


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


def network_sizes(shapes: Shapes, head_dim: int = 64) -> dict[str, Any]:
    """Read the sizes of a denoising network or a side encoder off its tensors, by the names that their classes have.

    shapes: by names without the prefix of the part. head_dim: channels of an attention head, which they do not tell.
    Raises KeyError, IndexError or ValueError if a tensor that tells one is missing or has too few sides.
    """
    halvings = sorted(int(name.split(".")[1]) for name in shapes if name.endswith(".0.op.weight"))
    layers = halvings[0] - 1
    firsts = [1, *(number + 1 for number in halvings)]  # the first residual block of each level
    (context_dim,) = {shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")}
    return {
        "block_out_channels": tuple(shapes[f"input_blocks.{n}.0.out_layers.3.weight"][0] for n in firsts),
        "depths": tuple(_transformers(shapes, f"input_blocks.{n}.1.") for n in firsts),
        "head_dim": head_dim,
        "context_dim": context_dim,
        "layers_per_block": layers,
    }


def _transformers(shapes: Shapes, prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith(".norm1.weight") for name in shapes)


def vision_tower_config(shapes: Shapes) -> CLIPVisionConfig:
    """Read the sizes of CLIP's picture tower off its tensors."""
    width, _, patch, _ = shapes["conv1.weight"]
    places = shapes["positional_embedding"][0] - 1  # without the class token
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        projection_dim=shapes["proj"][1],
        num_hidden_layers=_layers(shapes),
        num_attention_heads=width // VISION_HEAD_DIM,
        image_size=patch * math.isqrt(places),
        patch_size=patch,
        hidden_act="gelu",
    )


def text_tower_config(shapes: Shapes) -> CLIPTextConfig:
    """Read the sizes of CLIP's text tower off its tensors."""
    length, width = shapes["positional_embedding"]
    words = shapes["token_embedding.weight"][0]
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        projection_dim=shapes["text_projection"][1],
        num_hidden_layers=_layers(shapes),
        num_attention_heads=width // TEXT_HEAD_DIM,
        max_position_embeddings=length,
        hidden_act="gelu",
        # The last two words of CLIP's vocabulary.
        bos_token_id=words - 2,
        eos_token_id=words - 1,
    )


def _layers(shapes: Shapes) -> int:
    return len({name.split(".")[2] for name in shapes if name.startswith("transformer.resblocks.")})


def _sizes(shapes: Shapes, head_dim: int) -> dict[str, Any]:
    """Read the sizes of a network; of one whose tensors do not tell them the published ones, to complain of later."""
    try:
        sizes = network_sizes(shapes, head_dim)
    except (KeyError, IndexError, ValueError):
        return {"head_dim": head_dim}
    label = "label_emb.0.0.weight"
    return sizes | {"y_dim": shapes[label][1]} if label in shapes and len(shapes[label]) == 2 else sizes


def _has(shapes: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(len(shapes.get(name, ())) == 4 for name in names)
