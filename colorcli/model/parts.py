"""Heads that read the part of the body, and its color, from features: for training and for the color match."""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class TokenPartHead(ModelMixin, ConfigMixin):
    """Reads parts and colors of the `split` x `split` cells that each tagger token covers, and tags from all tokens."""

    @register_to_config
    def __init__(self, width: int, parts: int, tags: int, split: int = 2) -> None:
        super().__init__()
        self.part = nn.Linear(width, parts * split * split)
        self.color = nn.Linear(width, 3 * split * split)
        self.tag = nn.Linear(width, tags)

    def _cells(self, tokens: Tensor, layer: nn.Linear) -> Tensor:
        side = round(tokens.shape[1] ** 0.5)
        assert side * side == tokens.shape[1], tokens.shape
        grid = layer(tokens).mT.unflatten(2, (side, side))  # (B, C*split*split, side, side)
        return F.pixel_shuffle(grid, self.config["split"])  # (B, C, side*split, side*split)

    def part_logits(self, tokens: Tensor) -> Tensor:
        """Give part logits (B, parts, rows, columns) of tokens (B, side*side, width)."""
        return self._cells(tokens, self.part)

    def colors(self, tokens: Tensor) -> Tensor:
        """Give mean colors (B, 3, rows, columns), about -1..1, of tokens (B, side*side, width)."""
        return self._cells(tokens, self.color)

    def tag_logits(self, tokens: Tensor) -> Tensor:
        """Give tag logits (B, tags) of tokens (B, side*side, width)."""
        return torch.as_tensor(self.tag(tokens.mean(1)))


class FeaturePartHead(ModelMixin, ConfigMixin):
    """Reads parts from the last features of the denoising network, which sees more than the sketch maps do."""

    @register_to_config
    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width)
        self.part = nn.Conv2d(width, parts, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Give part logits (B, parts, h, w) of features (B, width, h, w)."""
        return torch.as_tensor(self.part(F.silu(self.norm(features))))


class MapPartHead(ModelMixin, ConfigMixin):
    """Reads parts from the four sketch maps, one 1x1 convolution for each map."""

    @register_to_config
    def __init__(self, widths: tuple[int, ...], parts: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(width, parts, 1) for width in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Give part logits (B, parts, h, w) for every map (B, width, h, w), finest first."""
        return [level(features) for level, features in zip(self.levels, maps, strict=True)]
