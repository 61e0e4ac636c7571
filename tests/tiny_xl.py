"""xl and xlv2 with every part at a width that a test can run, filled with random numbers."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.lora import BackgroundAdapter
from colorcli.model.reference import ClusterProjection, TaggerTower
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import build_unet, places
from colorcli.pipeline import ColorizePipeline
from colorcli.sampling import PUBLISHED_SCHEDULE

WIDTHS, DEPTHS, CONTEXT = (32, 32, 64), (0, 1, 2), 48


def components(seed: int = 0, *, adapter: bool = False) -> dict[str, Any]:
    """Build the parts of a tiny xl, or of a tiny xlv2."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, projection_dim=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=56, patch_size=14,
    )
    unet = build_unet(block_out_channels=WIDTHS, depths=DEPTHS, head_dim=16, context_dim=CONTEXT)
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.13025,
        ),
        "tagger": TaggerTower(image_size=64, patch_size=4, embed_dim=16, depths=(1, 1, 1), num_heads=(1, 2, 2),
                              window_size=4),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "projection": ClusterProjection(input_dim=32, tagger_dim=64, output_dim=CONTEXT, head_dim=16, token_length=16),
        "sketch_encoder": SketchEncoder(block_out_channels=WIDTHS, head_dim=32, stem_channels=(8, 8, 16, 32),
                                        stem_strides=(2, 1, 2, 2)),
        "unet": unet,
        "scheduler": DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False),
    }
    if adapter:
        parts["reference_net"] = ReferenceNet(block_out_channels=WIDTHS, depths=DEPTHS, head_dim=16)
        parts["adapter"] = BackgroundAdapter(
            widths=[place.width for place in places(unet)], context_dim=CONTEXT, rank=4
        )
        for change in parts["adapter"].blocks.parameters():
            nn.init.normal_(change, std=0.2)  # the upper halves of a new one are zero
    for module in parts.values():
        if isinstance(module, nn.Module):
            module.eval().requires_grad_(False)
    return parts


def pipeline(seed: int = 0, *, adapter: bool = False) -> ColorizePipeline:
    return ColorizePipeline(**components(seed, adapter=adapter))
