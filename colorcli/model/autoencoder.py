"""The small autoencoder of mini: 8x8 mean color plus a learned residual."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class MeanColorAutoencoder(ModelMixin, ConfigMixin):
    """Turns a color layer into latents at 1/8 of its size and back.

    The first three latent channels start as the mean color of each 8x8 block, the others as zero; a convolutional
    residual, zero at the start, adds what the mean leaves out (where the edge runs inside the block). So color is right
    from the first step, and there is no normalisation layer that could take it away. Pictures are in -1..1.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 4, width: int = 32, scaling_factor: float = 1.0) -> None:
        super().__init__()
        assert latent_channels >= 3, latent_channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, 4 * width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.SiLU(),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.PixelShuffle(2),
            nn.Conv2d(width // 2, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        for layer in (self.encoder[-1], self.decoder[-2]):
            assert isinstance(layer, nn.Conv2d)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def encode(self, picture: Tensor) -> AutoencoderTinyOutput:
        """Give the latents (B, latent_channels, H/8, W/8) of a picture (B, 3, H, W) in -1..1, sides multiples of 8."""
        mean = F.avg_pool2d(picture, 8)  # (B, 3, H/8, W/8)
        blank = mean.new_zeros(mean.shape[0], self.config["latent_channels"] - 3, *mean.shape[2:])
        return AutoencoderTinyOutput(latents=torch.cat([mean, blank], dim=1) + self.encoder(picture))

    def decode(self, latents: Tensor) -> DecoderOutput:
        """Give the picture (B, 3, H, W), about -1..1 and not clamped, of latents (B, latent_channels, H/8, W/8)."""
        plain = F.interpolate(latents[:, :3], scale_factor=8, mode="bilinear", align_corners=False)
        return DecoderOutput(sample=plain + self.decoder(latents))


def latents_of(encoded: Any, generator: torch.Generator | None = None) -> Tensor:
    """Give the latents (B, C, h, w), not scaled, of what an autoencoder's `encode` gave.

    Of a distribution it is the mode, or with a `generator` a sample, as the published program takes it.
    """
    found: Tensor
    if not hasattr(encoded, "latent_dist"):
        found = encoded.latents
    elif generator is None:
        found = encoded.latent_dist.mode()
    else:
        found = encoded.latent_dist.sample(generator)
    return found
