"""The networks of the published xl, xlv2 and v2 at their full width."""

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from colorcli.model.lora import BackgroundAdapter, RegionAdapters
from colorcli.model.reference import ClusterProjection, TaggerTower
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder, SketchEncoder
from colorcli.model.unet import build_unet
from colorcli.sampling import PUBLISHED_SCHEDULE

BLOCK_WIDTHS = [640] * 4 + [1280] * 60 + [640] * 6   # of the 70 transformer blocks, in order


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )


def image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=1664, intermediate_size=8192, projection_dim=1280, num_hidden_layers=48, num_attention_heads=16,
        image_size=224, patch_size=14, hidden_act="gelu",
    ))


BUILDERS: dict[str, Any] = {
    "unet": build_unet,
    "sketch_encoder": SketchEncoder,
    "projection": ClusterProjection,
    "tagger": TaggerTower,
    "image_encoder": image_encoder,
    "vae": vae,
    "reference_net": ReferenceNet,
    "adapter": lambda: BackgroundAdapter(BLOCK_WIDTHS),
}


def image_encoder_v2() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, projection_dim=1024, num_hidden_layers=32, num_attention_heads=16,
        image_size=224, patch_size=14, hidden_act="gelu",
    ))


def text_encoder() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, projection_dim=1024, num_hidden_layers=24,
        num_attention_heads=16, max_position_embeddings=77, hidden_act="gelu",
    ))


def adapters_v2() -> RegionAdapters:
    return RegionAdapters([1280] * 3 + [640] * 3 + [320] * 3, 7)


BUILDERS_V2: dict[str, Any] = {
    "unet": SideUNet,
    "background_encoder": BackgroundEncoder,
    "style_encoder": StyleEncoder,
    "sketch_encoder": PyramidSketchEncoder,
    "adapter": adapters_v2,
    "vae": vae,
    "image_encoder": image_encoder_v2,
    "text_encoder": text_encoder,
}


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False)


def modules(*names: str) -> dict[str, nn.Module]:
    """Build networks by their names, all of xlv2 without names, on the default device."""
    return {name: BUILDERS[name]() for name in names or BUILDERS}
