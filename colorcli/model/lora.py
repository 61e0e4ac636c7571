"""The background adapter: low-rank changes of every cross-attention of the denoising network.

Kept beside the network and handed to each call (`AttentionPlan.adapters`), so that a call without it is the plain
network again.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from colorcli.model.attention import Adapter, LowRank, RegionAdapter


class BackgroundAdapter(ModelMixin, ConfigMixin):
    """Keeps the low-rank changes of all cross-attentions as a component of a pipeline.

    widths: channels of every transformer block of the denoising network, in its order. context_dim: width of a context
    token. rank: width of the bottleneck. It has no call of its own; `adapters` gives what attention takes. A new one
    changes nothing, as its upper halves are zero.
    """

    @register_to_config
    def __init__(self, widths: Sequence[int] = (), context_dim: int = 2048, rank: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _AdapterBlock(
                q=_LowRankLayer(width, width, rank),
                k=_LowRankLayer(context_dim, width, rank),
                v=_LowRankLayer(context_dim, width, rank),
            )
            for width in widths
        )

    def adapters(self, scale: float = 1.0) -> list[Adapter]:
        """Give the changes of every transformer block in order, at a strength (1 is as published)."""
        return [block.adapter(scale) for block in self.blocks if isinstance(block, _AdapterBlock)]


class _AdapterBlock(nn.Module):
    """The changes of one cross-attention."""

    def __init__(self, q: "_LowRankLayer", k: "_LowRankLayer", v: "_LowRankLayer") -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def adapter(self, scale: float) -> Adapter:
        return Adapter(self.q.change(scale), self.k.change(scale), self.v.change(scale))


class RegionAdapters(ModelMixin, ConfigMixin):
    """Keeps the low-rank changes of the decoder's cross-attentions, for the character and for what is behind it.

    widths: channels of the decoder's transformer blocks, in order. first: number of the first of them among all blocks
    of the network. context_dim and rank are as for `BackgroundAdapter`, and as there it has no call of its own.
    """

    @register_to_config
    def __init__(self, widths: Sequence[int] = (), first: int = 0, context_dim: int = 1024, rank: int = 4) -> None:
        super().__init__()
        self.foreground = BackgroundAdapter(widths, context_dim, rank)
        self.background = BackgroundAdapter(widths, context_dim, rank)

    def adapters(self, foreground: float = 1.0, background: float = 1.0) -> list[RegionAdapter | None]:
        """Give the changes of every transformer block of the network in order, at strengths (1 is as published)."""
        pairs = zip(self.foreground.adapters(foreground), self.background.adapters(background), strict=True)
        return [None] * self.config["first"] + [RegionAdapter(*pair) for pair in pairs]


class _LowRankLayer(nn.Module):
    """Both halves of the change of one linear layer."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs) / rank)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def change(self, scale: float) -> LowRank:
        return LowRank(self.down, self.up, scale)
