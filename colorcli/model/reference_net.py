"""The ReferenceNet: reads the background once, and gives the bank that the denoising decoder reads."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from colorcli.model.memory import EXACT_LAYERS
from colorcli.model.preprocess import latent_mask, stretch
from colorcli.model.unet import decoder_banks, transformer_blocks, unet_config

IN_CHANNELS = 6  # latents of the background, the sketch's mask, the reference's mask


class ReferenceNet(UNet2DConditionModel, ModelMixin):
    """The denoising network without cross-attention, cut off behind the last block that a reader is paired with.

    Its sizes are those of the network that reads it (see `unet_config`), with a vector condition of its own.
    """

    _keep_in_fp32_modules: ClassVar = list(EXACT_LAYERS)   # diffusers reads it when weights are loaded in 16 bit

    @register_to_config
    def __init__(
        self,
        in_channels: int = IN_CHANNELS,
        block_out_channels: Sequence[int] = (320, 640, 1280),
        depths: Sequence[int] = (0, 2, 10),
        head_dim: int = 64,
        y_dim: int = 1024,
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__(**unet_config(
            in_channels=in_channels, block_out_channels=block_out_channels, depths=depths, head_dim=head_dim,
            context_dim=1, y_dim=y_dim, layers_per_block=layers_per_block, norm_num_groups=norm_num_groups,
        ))
        for block in transformer_blocks(self):
            # The config knows no transformer without cross-attention; a width of 1 above keeps what is dropped small.
            block.attn2 = block.norm2 = None
        readers = sum(1 for depth in depths if depth)
        decoder: Any = self.up_blocks
        del decoder[readers:]
        decoder[-1].upsamplers = None
        del self.conv_norm_out, self.conv_act, self.conv_out

    def forward(self, background: Tensor, y: Tensor) -> list[Tensor]:
        """Give the bank: the self-attention input of every transformer block of the decoder, (B, N, C) each, in order.

        background: (B, 6, h, w) as `reference_net_input` makes it. y: (B, y_dim) as `crop_vector` makes it.
        """
        return decoder_banks(self, background, 0.0, y)


def reference_net_input(latents: Tensor, sketch_mask: Tensor, reference_mask: Tensor) -> Tensor:
    """Put the background's latents (B, 4, h, w) and both masks (B or 1, 1, H, W), 0..1, together: (B, 6, h, w).

    The masks are stretched to the canvas, 8 times the latents, whatever their aspect, and every eighth pixel is taken.
    """
    rows, _, height, width = latents.shape
    masks = [latent_mask(stretch(mask, (8 * height, 8 * width))) for mask in (sketch_mask, reference_mask)]
    return torch.cat([latents, *(mask.expand(rows, -1, -1, -1).to(latents) for mask in masks)], dim=1)
