"""The SD2.1 model with every part at a width that a test can run, filled with random numbers."""

import string
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start, places
from colorcli.pipeline import ColorizePipeline
from colorcli.sampling import PUBLISHED_SCHEDULE

SIZES: dict[str, Any] = {
    "block_out_channels": (32, 32, 64, 64), "depths": (1, 1, 1, 0), "head_dim": 16, "context_dim": 24,
}


def tokenizer() -> CLIPTokenizer:
    """Build a vocabulary of letters, inside a word and at its end."""
    pieces = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase]
    words = [*pieces, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])


def text_encoder() -> CLIPTextModelWithProjection:
    """Build the text tower that goes with the vocabulary and with the tiny picture tower."""
    words = tokenizer()
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, projection_dim=SIZES["context_dim"],
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
    ))


def components(seed: int = 0) -> dict[str, Any]:
    """Build the parts of a tiny v2, without what reads words."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, projection_dim=SIZES["context_dim"], num_hidden_layers=2,
        num_attention_heads=2, image_size=56, patch_size=14,
    )
    unet = SideUNet(**SIZES)
    widths = [place.width for place in places(unet) if place.part == "decoder"]
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.18215,
        ),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "sketch_encoder": PyramidSketchEncoder(
            block_out_channels=SIZES["block_out_channels"], stem_channels=(8, 8, 16, 32), stem_strides=(2, 1, 2, 2)
        ),
        "unet": unet,
        "scheduler": DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False),
        "background_encoder": BackgroundEncoder(**SIZES),
        "style_encoder": StyleEncoder(**SIZES),
        "adapter": RegionAdapters(widths, decoder_start(unet), SIZES["context_dim"]),
    }
    for change in parts["adapter"].parameters():
        nn.init.normal_(change, std=0.2)  # the upper halves of a new one are zero
    for module in parts.values():
        if isinstance(module, nn.Module):
            module.eval().requires_grad_(False)
    return parts


def pipeline(seed: int = 0, *, words: bool = False) -> ColorizePipeline:
    """Build a tiny v2; words: with the text tower and its vocabulary."""
    parts = components(seed)
    if words:
        parts |= {"text_encoder": text_encoder().eval().requires_grad_(False), "tokenizer": tokenizer()}
    return ColorizePipeline(**parts)
