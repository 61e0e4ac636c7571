"""The side encoders of the SD2.1 model, and the denoising network that takes their features.

Both are the encoder half of a denoising network that reads a clean picture. The background encoder gives tokens that
the skip connections read where the character is not; the style encoder gives modulations of the decoder's outputs.
"""

from collections.abc import Sequence

from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from colorcli.model.attention import Source, attend, finish, project
from colorcli.model.unet import ColorUNet, encoder_features, unet_config

WARP_HEAD_DIM = 64
SIDE_Y_DIM = 512


def skip_widths(block_out_channels: Sequence[int], layers_per_block: int = 2) -> list[int]:
    """Give the channels of every block of an encoder, finest first; each is a skip connection."""
    widths = [block_out_channels[0]]
    for level, width in enumerate(block_out_channels):
        is_last = level == len(block_out_channels) - 1
        widths += [width] * (layers_per_block + (not is_last))
    return widths


def output_widths(block_out_channels: Sequence[int], layers_per_block: int = 2) -> list[int]:
    """Give the channels of every residual block of a decoder, coarsest first."""
    return [width for width in reversed(block_out_channels) for _ in range(layers_per_block + 1)]


class SideEncoder(UNet2DConditionModel, ModelMixin):
    """The encoder half of a denoising network, with a head behind every block; see its two kinds.

    Its sizes are those of the network that reads it (see `unet_config`), with a vector condition of its own.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        depths: Sequence[int] = (1, 1, 1, 0),
        head_dim: int = 64,
        context_dim: int = 1024,
        y_dim: int = SIDE_Y_DIM,
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__(**unet_config(
            block_out_channels=block_out_channels, depths=depths, head_dim=head_dim, context_dim=context_dim,
            y_dim=y_dim, layers_per_block=layers_per_block, norm_num_groups=norm_num_groups, linear=False,
        ))
        self.mid_block = None
        self.up_blocks = nn.ModuleList()
        del self.conv_norm_out, self.conv_act, self.conv_out
        self.heads = self._heads(block_out_channels, layers_per_block)

    def _heads(self, block_out_channels: Sequence[int], layers_per_block: int) -> nn.ModuleList:
        raise NotImplementedError


class BackgroundEncoder(SideEncoder):
    """Reads the background: tokens of every level."""

    def _heads(self, block_out_channels: Sequence[int], layers_per_block: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Conv2d(width, width, 1) for width in skip_widths(block_out_channels, layers_per_block))

    def forward(self, latents: Tensor, y: Tensor, context: Tensor) -> list[Tensor]:
        """Give the hints, coarsest first: (B, h * w, C) each, of the size of the decoder's skip connections in order.

        latents: (B, 4, h, w) of the background stretched to the canvas, scaled. y: (B or 1, y_dim) as `size_vector`
        makes it. context: (B or 1, M, context_dim).
        """
        features = encoder_features(self, latents, 0.0, y, context)
        return [head(x).flatten(2).mT for head, x in zip(self.heads, features, strict=True)][::-1]


class StyleEncoder(SideEncoder):
    """Reads the colors and the light of a picture as a whole: one vector for every block of the decoder."""

    def _heads(self, block_out_channels: Sequence[int], layers_per_block: int) -> nn.ModuleList:
        read = skip_widths(block_out_channels, layers_per_block)
        modulated = reversed(output_widths(block_out_channels, layers_per_block))
        return nn.ModuleList(nn.Linear(before, 2 * after) for before, after in zip(read, modulated, strict=True))

    def forward(self, latents: Tensor, y: Tensor, context: Tensor) -> list[Tensor]:
        """Give the styles, coarsest first: (B, 2 * C) each, C that of the decoder's outputs in order.

        The arguments are those of `BackgroundEncoder`.
        """
        features = encoder_features(self, latents, 0.0, y, context)
        return [head(x.mean((2, 3))) for head, x in zip(self.heads, features, strict=True)][::-1]


class WarpModule(nn.Module):
    """Brings tokens of the background to where the frame needs them."""

    def __init__(self, width: int, head_dim: int = WARP_HEAD_DIM) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(query_dim=width, heads=max(1, width // head_dim), dim_head=min(width, head_dim))
        self.norm2 = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, hint: Source, backend: str = "sdpa") -> Tensor:
        """Let tokens of a skip connection (B, N, C) read a hint (B or 1, M, C); each token reads by itself."""
        hint = hint.to(tokens.dtype) if isinstance(hint, Tensor) else hint
        read = attend(self.attn.to_q(self.norm1(tokens)), project(self.attn, hint), self.attn.heads, backend)
        tokens = tokens + finish(self.attn, read)
        return tokens + self.ff(self.norm2(tokens))


class StyleModule(nn.Module):
    """Scales and shifts the channels of a decoder block's output."""

    def __init__(self, width: int, time_dim: int) -> None:
        super().__init__()
        self.from_time = nn.Linear(time_dim, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.out = nn.Linear(2 * width, 2 * width)

    def forward(self, x: Tensor, style: Tensor, emb: Tensor) -> Tensor:
        """Modulate x (B, C, h, w) by a style (B or 1, 2 * C) and the embedded time (B, time_dim)."""
        modulation = self.norm(style.to(emb.dtype) + self.from_time(emb))  # (B, 2 * C)
        scale, shift = self.out(modulation).chunk(2, dim=1)  # (B, C) each
        return x * (1 + scale[..., None, None]) + shift[..., None, None]


class SideUNet(ColorUNet):
    """The denoising network of the SD2.1 model: with what reads side features in its decoder.

    The defaults are the published network. Without side features it is the plain network.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        depths: Sequence[int] = (1, 1, 1, 0),
        head_dim: int = 64,
        context_dim: int = 1024,
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__(**unet_config(
            in_channels=in_channels, out_channels=out_channels, block_out_channels=block_out_channels, depths=depths,
            head_dim=head_dim, context_dim=context_dim, y_dim=None, layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups, linear=False,
        ))
        skips = reversed(skip_widths(block_out_channels, layers_per_block))
        self.warp_modules = nn.ModuleList(WarpModule(width) for width in skips)
        time_dim = self.time_embedding.linear_2.out_features
        outputs = output_widths(block_out_channels, layers_per_block)
        self.style_modules = nn.ModuleList(StyleModule(width, time_dim) for width in outputs)


def project_hints(unet: SideUNet, hints: Sequence[Tensor]) -> list[Source]:
    """Project the background's hints once for the decoder; they stay the same over steps and frames."""
    return [project(warp.attn, hint) for warp, hint in zip(unet.warp_modules, hints, strict=True)]
