"""What the parts of a published XL file are: their sizes read from the shapes of the tensors, and whose name is whose.

Depths, counts of heads and strides are those of the published family; every width comes from the file, so a narrow
model of the same family is read by the same rules. `origin` functions tell, for each tensor of our module, which
tensor of the file it is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.lora import BackgroundAdapter
from colorcli.model.reference import ClusterProjection, TaggerTower
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import build_unet, places

Shapes = Mapping[str, Sequence[int]]
DEPTHS = (0, 2, 10)            # transformer blocks behind each residual block of a level
LATENT_SCALE = 0.13025
VAE_LEVELS = 4
CLIP_LAYERS, CLIP_HEAD, CLIP_IMAGE, CLIP_PATCH = 48, 104, 224, 14     # ViT-bigG/14; 104 channels a head
TAGGER_DEPTHS, TAGGER_IMAGE, TAGGER_WINDOW = (2, 2, 18, 2), 448, 14   # WD v1.4 SwinV2


@dataclass(frozen=True)
class Origin:
    """Where one of our tensors is in the file."""

    name: str                                 # published, without the prefix of the part
    piece: tuple[int, int] | None = None      # (i, n): the i-th of n equal slices of its first axis
    transposed: bool = False                  # matrices that the file keeps the other way round


OriginOf = Callable[[str], Origin]


# --- the networks, empty ------------------------------------------------------------------------------------------


def unet_from(shapes: Shapes) -> nn.Module:
    """Make the denoising network of the sizes in a file, without memory for its weights."""
    with init_empty_weights(include_buffers=False):
        return build_unet(depths=DEPTHS, **_unet_sizes(shapes), context_dim=_side(
            shapes, "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", 1, 2048))


def reference_net_from(shapes: Shapes) -> nn.Module:
    """Make the ReferenceNet."""
    with init_empty_weights(include_buffers=False):
        return ReferenceNet(depths=DEPTHS, in_channels=_side(shapes, "input_blocks.0.0.weight", 1, 6),
                            **_unet_sizes(shapes, y_dim=1024))


def adapter_from(unet: Any) -> nn.Module:
    """Make the adapter that goes with a denoising network, of the published rank."""
    with init_empty_weights(include_buffers=False):
        widths = [place.width for place in places(unet)]
        return BackgroundAdapter(widths=widths, context_dim=unet.config["cross_attention_dim"], rank=4)


def sketch_encoder_from(shapes: Shapes) -> nn.Module:
    """Make the sketch encoder."""
    published = (16, 16, 32, 32, 96, 96, 256)
    stem = [_side(shapes, f"model.{2 * i}.weight", 0, width) for i, width in enumerate(published)]
    names = ("model.14.weight", "downsample_layers.1.1.weight", "downsample_layers.2.1.weight")
    widths = [_side(shapes, name, 0, width) for name, width in zip(names, (320, 640, 1280), strict=True)]
    with init_empty_weights(include_buffers=False):
        return SketchEncoder(block_out_channels=widths, stem_channels=stem)


def projection_from(shapes: Shapes) -> nn.Module:
    """Make the token projection."""
    width, output = _side(shapes, "norm.weight", 0, 1280), _side(shapes, "proj.0.weight", 0, 2048)
    both = _side(shapes, "proj.0.weight", 1, 2304)
    with init_empty_weights(include_buffers=False):
        return ClusterProjection(input_dim=width, tagger_dim=max(1, both - width), output_dim=output)


def vae_from(shapes: Shapes, scale: float = LATENT_SCALE, size: int = 1024) -> nn.Module:
    """Make the autoencoder; scale: of its latents, size: pixels of a side that it was made for."""
    published = (128, 256, 512, 512)
    widths = [_side(shapes, f"encoder.down.{i}.block.0.conv1.weight", 0, width) for i, width in enumerate(published)]
    with init_empty_weights(include_buffers=False):
        return AutoencoderKL(
            block_out_channels=tuple(widths), layers_per_block=2, latent_channels=4, sample_size=size,
            down_block_types=("DownEncoderBlock2D",) * VAE_LEVELS, up_block_types=("UpDecoderBlock2D",) * VAE_LEVELS,
            scaling_factor=scale,
        )


def image_encoder_from(shapes: Shapes) -> nn.Module:
    """Make the CLIP tower ViT-bigG/14; shapes by the names of Hugging Face."""
    width = _side(shapes, "vision_model.embeddings.class_embedding", 0, 1664)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=_side(shapes, "vision_model.encoder.layers.0.mlp.fc1.weight", 0, 8192),
        projection_dim=_side(shapes, "visual_projection.weight", 0, 1280),
        num_hidden_layers=CLIP_LAYERS, num_attention_heads=max(1, width // CLIP_HEAD),
        image_size=CLIP_IMAGE, patch_size=CLIP_PATCH, hidden_act="gelu",
        architectures=["CLIPVisionModelWithProjection"],
    )
    with init_empty_weights(include_buffers=False):
        return CLIPVisionModelWithProjection(config)


def tagger_from(shapes: Shapes) -> nn.Module:
    """Make the tagger; shapes by the names of timm."""
    heads = [_side(shapes, f"layers.{i}.blocks.0.attn.logit_scale", 0, 4 * 2**i) for i in range(len(TAGGER_DEPTHS))]
    width = _side(shapes, "patch_embed.norm.weight", 0, 128)
    hidden = _side(shapes, "layers.0.blocks.0.mlp.fc1.weight", 0, 4 * width)
    with init_empty_weights(include_buffers=False):
        return TaggerTower(
            image_size=TAGGER_IMAGE, embed_dim=width, depths=TAGGER_DEPTHS, num_heads=heads,
            window_size=TAGGER_WINDOW, mlp_ratio=hidden / width,
        )


def _unet_sizes(shapes: Shapes, y_dim: int = 512) -> dict[str, Any]:
    names = ("input_blocks.0.0.weight", "input_blocks.4.0.out_layers.3.weight", "input_blocks.7.0.out_layers.3.weight")
    widths = [_side(shapes, name, 0, width) for name, width in zip(names, (320, 640, 1280), strict=True)]
    return {"block_out_channels": widths, "y_dim": _side(shapes, "label_emb.0.0.weight", 1, y_dim)}


def _side(shapes: Shapes, name: str, axis: int, published: int) -> int:
    """Give one side of a tensor; of one that is missing or has no such side the published one, to complain of later."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) and shape[axis] > 0 else published


# --- whose name is whose ------------------------------------------------------------------------------------------

Rules = Sequence[tuple[str, str]]

_RESIDUAL: Rules = (
    (r"\.norm1\.", ".in_layers.0."), (r"\.conv1\.", ".in_layers.2."), (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."), (r"\.conv2\.", ".out_layers.3."), (r"\.conv_shortcut\.", ".skip_connection."),
)
_UNET: Rules = (
    (r"^conv_in\.", "input_blocks.0.0."), (r"^conv_norm_out\.", "out.0."), (r"^conv_out\.", "out.2."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."), (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^class_embedding\.linear_1\.", "label_emb.0.0."), (r"^class_embedding\.linear_2\.", "label_emb.0.2."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
)
_SKETCH: Rules = (
    (r"^stem\.", "model."), (r"^stages\.(\d+)\.", r"downsample_layers.\1.1."), (r"^token_in\.", "proj_ins."),
    (r"^token_out\.", "proj_outs."), (r"^attention\.to_out\.", "attn_layer.to_out.0."),
    (r"^attention\.", "attn_layer."),
)
_VAE: Rules = (
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    *((rf"\.up_blocks\.{i}\.resnets\.", f".up.{VAE_LEVELS - 1 - i}.block.") for i in range(VAE_LEVELS)),
    *((rf"\.up_blocks\.{i}\.upsamplers\.0\.", f".up.{VAE_LEVELS - 1 - i}.upsample.") for i in range(VAE_LEVELS)),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."), (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."), (r"attn_1\.group_norm\.", "attn_1.norm."),
    (r"attn_1\.to_([qkv])\.", r"attn_1.\1."), (r"attn_1\.to_out\.0\.", "attn_1.proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."), (r"\.conv_norm_out\.", ".norm_out."),
)
_TAGGER: Rules = (
    (r"^backbone\.", ""), (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."), (r"^layernorm\.", "norm."), (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."), (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."), (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."), (r"\.layernorm_before\.", ".norm1."), (r"\.layernorm_after\.", ".norm2."),
)
_OPEN_CLIP: Rules = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."), (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."), (r"\.mlp\.fc1\.", ".mlp.c_fc."), (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def unet_origin(name: str) -> Origin:
    """Name a tensor of the denoising network or the ReferenceNet as the files do (LDM)."""
    per = 3  # two residual blocks and what changes the size
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name):
        half, level, kind, i, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            return Origin(f"input_blocks.{per * (level + 1)}.0.op.{rest.removeprefix('conv.')}")
        if kind == "upsamplers":
            return Origin(f"output_blocks.{per * level + per - 1}.2.{rest}")
        block = f"input_blocks.{1 + per * level + i}" if half == "down" else f"output_blocks.{per * level + i}"
        if kind == "attentions":
            return Origin(f"{block}.1.{rest}")
        return Origin(_renamed(f"{block}.0.{rest}", _RESIDUAL))
    if match := re.match(r"mid_block\.resnets\.(\d)\.(.*)", name):
        return Origin(_renamed(f"middle_block.{2 * int(match[1])}.{match[2]}", _RESIDUAL))
    return Origin(_renamed(name, _UNET))


def adapter_origin(unet: Any) -> OriginOf:
    """Name the tensors of the adapter as the files do: each beside the layer of the network that it changes."""
    attentions = [name for name, _ in unet.named_modules() if name.endswith(".attn2")]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    attentions.sort(key=lambda name: (order[name.split(".")[0]], [int(n) for n in re.findall(r"\.(\d+)", name)]))

    def origin(name: str) -> Origin:
        _, block, layer, half = name.split(".")
        return Origin(unet_origin(f"{attentions[int(block)]}.to_{layer}.lora_{half}_background.weight").name)

    return origin


def sketch_encoder_origin(name: str) -> Origin:
    """Name a tensor of the sketch encoder as the files do."""
    return Origin(_renamed(name, _SKETCH))


def projection_origin(name: str) -> Origin:
    """Name a tensor of the token projection as the files do."""
    return Origin(name.replace("attn.to_out.", "attn.to_out.0."))


def vae_origin(name: str) -> Origin:
    """Name a tensor of the autoencoder as the files do (LDM); its attention is kept there as 1x1 convolutions."""
    return Origin(_renamed("." + name, _VAE).removeprefix("."))


def tagger_origin(name: str) -> Origin:
    """Name a tensor of the tagger as timm does, where the three projections of an attention are one tensor."""
    name = _renamed(name, _TAGGER)
    if match := re.match(r"(.*\.attn\.)(query|key|value)\.weight$", name):
        return Origin(match[1] + "qkv.weight", piece=(("query", "key", "value").index(match[2]), 3))
    if match := re.match(r"(.*\.attn\.)(query|value)\.bias$", name):
        return Origin(f"{match[1]}{match[2][0]}_bias")
    if match := re.match(r"layers\.(\d+)\.downsample\.(.*)", name):
        # timm counts the merging of patches to the stage behind it, transformers to the one before.
        return Origin(f"layers.{int(match[1]) + 1}.downsample.{match[2]}")
    return Origin(name)


def open_clip_origin(name: str) -> Origin:
    """Name a tensor of the CLIP tower as open_clip does."""
    if name == "visual_projection.weight":
        return Origin("visual.proj", transposed=True)
    name = _renamed(name, _OPEN_CLIP)
    if match := re.match(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)$", name):
        return Origin(f"{match[1]}.attn.in_proj_{match[3]}", piece=("qkv".index(match[2]), 3))
    return Origin(name)


def same_name(name: str) -> Origin:
    """The file uses our name."""
    return Origin(name)


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
