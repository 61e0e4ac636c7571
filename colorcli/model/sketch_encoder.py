"""The sketch encoders: line art in, one feature map for each level of the denoising network out.

A convolution pyramid; in the XL models its maps exchange tokens in one attention layer: finer maps read coarser ones,
never the other way round.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

Rope = Literal["rotate", "cosine"]


class SketchEncoder(ModelMixin, ConfigMixin):
    """Turns line art into the maps that are added inside the denoising network, finest first.

    block_out_channels: widths of the levels of the denoising network, as it names them. The maps have the widths
    (w0, w0, w1, ..., wn) at 1/8, 1/16, ... of the picture; the last two have one size.
    stem_channels: widths of the convolutions before the first map; three of them halve the picture (`stem_strides`).
    head_dim: width of an attention head, a multiple of 4 that divides the last level.
    rope: "rotate" turns queries and keys by their position. "cosine" multiplies them by the cosine only, as the
    published half-precision program did by losing the imaginary part of its tables.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        block_out_channels: Sequence[int] = (320, 640, 1280),
        head_dim: int = 128,
        stem_channels: Sequence[int] = (16, 16, 32, 32, 96, 96, 256),
        stem_strides: Sequence[int] = (1, 1, 2, 1, 2, 1, 2),
        rope: Rope = "rotate",
    ) -> None:
        super().__init__()
        assert len(stem_channels) == len(stem_strides) and math.prod(stem_strides) == 8, (stem_channels, stem_strides)
        widths = (block_out_channels[0], *block_out_channels)
        self.stem = _stem((in_channels, *stem_channels, widths[0]), (*stem_strides, 1))
        strides = [2] * (len(widths) - 2) + [1]
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1)
            for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        token_dim = widths[-1]
        self.token_in = nn.ModuleList(nn.Conv2d(width, token_dim, 1) for width in (*widths, token_dim))
        self.attention = CoarseToFineAttention(token_dim, head_dim, rope)
        self.token_out = nn.ModuleList(nn.Conv2d(token_dim, width, 1) for width in widths)

    def forward(self, sketch: Tensor, rope: Rope | None = None) -> list[Tensor]:
        """Encode line art (B, 3, H, W), paper -1 and line +1, sides multiples of 8 * 2^(levels - 1).

        rope: for this call; None: the encoder's own. Gives the maps finest first.
        """
        maps = [self.stem(sketch)]  # (B, w0, H/8, W/8)
        for stage in self.stages:
            maps.append(stage(F.silu(maps[-1])))
        *to_tokens, summary_in = self.token_in
        summary = summary_in(maps[-1].mean((2, 3), keepdim=True))  # (B, D, 1, 1): one token for the whole picture
        grids = [into(x) for into, x in zip(to_tokens, maps, strict=True)]  # (B, D, h, w) each
        mixed = self.attention(summary, grids[::-1], rope)[::-1]
        return [out(grid) for out, grid in zip(self.token_out, mixed, strict=True)]


class PyramidSketchEncoder(ModelMixin, ConfigMixin):
    """Turns line art into the maps by convolutions alone, finest first.

    block_out_channels, stem_channels: as for `SketchEncoder`; here too the maps have the widths (w0, w0, w1, ..., wn)
    at 1/8, 1/16, ... of the picture, and the last two have one size.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        stem_channels: Sequence[int] = (16, 16, 32, 32, 96, 96, 256),
        stem_strides: Sequence[int] = (1, 1, 2, 1, 2, 1, 2),
    ) -> None:
        super().__init__()
        assert len(stem_channels) == len(stem_strides) and math.prod(stem_strides) == 8, (stem_channels, stem_strides)
        widths = (block_out_channels[0], *block_out_channels)
        self.stem = _stem((in_channels, *stem_channels, widths[0]), (*stem_strides, 1))
        strides = [2] * (len(widths) - 2) + [1]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(),
                nn.Conv2d(before, after, 3, stride=stride, padding=1),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, padding=1),
            )
            for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.to_maps = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)

    def forward(self, sketch: Tensor) -> list[Tensor]:
        """Encode line art (B, 3, H, W), paper -1 and line +1, sides multiples of 8 * 2^(levels - 1).

        Gives the maps finest first.
        """
        levels = [self.stem(sketch)]  # (B, w0, H/8, W/8)
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return [to_map(x) for to_map, x in zip(self.to_maps, levels, strict=True)]


def _stem(widths: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """Make the convolutions before the first map, one for each stride, with an activation between any two."""
    layers: list[nn.Module] = []
    for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class CoarseToFineAttention(nn.Module):
    """One attention layer with residual over the tokens of several maps: a map sees itself and all coarser ones."""

    def __init__(self, width: int, head_dim: int, rope: Rope) -> None:
        super().__init__()
        assert width % head_dim == 0 and head_dim % 4 == 0, (width, head_dim)
        self.heads = width // head_dim
        self.rope = rope
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.q_norm = nn.RMSNorm(width, eps=1e-6)
        self.k_norm = nn.RMSNorm(width, eps=1e-6)
        self.to_out = nn.Linear(width, width)

    def forward(self, summary: Tensor, grids: Sequence[Tensor], rope: Rope | None = None) -> list[Tensor]:
        """Mix the tokens of maps `grids` (B, D, h, w), coarsest first; `summary` (B, D, 1, 1) goes with the first."""
        tokens = torch.cat([grid.flatten(2) for grid in (summary, *grids)], dim=2).mT  # (B, N, D)
        cos, sin = self._tables(grids, rope or self.rope)  # (N, head_dim / 2)
        q = rotate(self._split(self.q_norm(self.to_q(tokens))), cos, sin)  # (B, heads, N, head_dim)
        k = rotate(self._split(self.k_norm(self.to_k(tokens))), cos, sin)
        v = self._split(self.to_v(tokens))
        sizes = [grid.shape[2] * grid.shape[3] for grid in grids]
        sizes[0] += 1  # the summary token belongs to the coarsest map
        read, start = [], 0
        for size in sizes:
            end = start + size
            # Nothing finer is among the sliced keys, so no mask is needed.
            read.append(F.scaled_dot_product_attention(q[:, :, start:end], k[:, :, :end], v[:, :, :end]))
            start = end
        mixed = tokens + self.to_out(torch.cat(read, dim=2).transpose(1, 2).flatten(2))  # (B, N, D)
        sizes[0] -= 1
        pieces = mixed[:, 1:].mT.split(sizes, dim=2)
        return [piece.unflatten(2, grid.shape[2:]) for piece, grid in zip(pieces, grids, strict=True)]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _tables(self, grids: Sequence[Tensor], rope: Rope) -> tuple[Tensor, Tensor]:
        head_dim = self.to_q.out_features // self.heads
        still = torch.zeros(1, head_dim // 2, device=grids[0].device)  # the summary token has no place
        angle = torch.cat([still, *(grid_angles(g.shape[2], g.shape[3], head_dim, g.device) for g in grids)])
        if rope == "cosine":
            return angle.cos().half().float(), torch.zeros_like(angle)
        return angle.cos(), angle.sin()


def grid_angles(height: int, width: int, head_dim: int, device: torch.device) -> Tensor:
    """Give the rotary angle of every token and channel pair of a map, (height * width, head_dim / 2).

    The first half of the pairs turns by the row, the second by the column, at 10000^(-4k / head_dim) a cell.
    """
    frequency = 10000.0 ** (-4 * torch.arange(head_dim // 4, dtype=torch.float32, device=device) / head_dim)
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * frequency  # (h, head_dim / 4)
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * frequency  # (w, head_dim / 4)
    by_row = rows[:, None].expand(height, width, -1)
    by_column = columns[None].expand(height, width, -1)
    return torch.cat([by_row, by_column], dim=-1).flatten(0, 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the adjacent channel pairs of x (..., N, head_dim) by angles of the given cos and sin (N, head_dim / 2)."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (..., N, head_dim / 2)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
