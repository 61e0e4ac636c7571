"""The background adapter: low-rank changes of every cross-attention of the denoising network.

Kept beside the network and handed to each call (`AttentionPlan.adapters`), so that a call without it is the plain
network again. `merged_weights` gives the same as changed weights, always made from the pristine ones.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from colorcli.model.attention import Adapter, LowRank, RegionAdapter
from colorcli.model.unet import transformer_blocks

_PARTS = {"input_blocks": 0, "middle_block": 1, "output_blocks": 2}
_NAME = re.compile(r"^(?P<block>.+)\.attn2\.to_(?P<layer>[qkv])\.lora_(?P<half>down|up)_(?P<label>\w+)\.weight$")


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

    @classmethod
    def from_published(cls, published: Mapping[str, Tensor], label: str = "background") -> "BackgroundAdapter":
        """Take the adapter `label` out of a denoising network's published state; see `read_adapters`."""
        found = read_adapters(published, label)
        assert found, f"the state holds no adapter {label}"
        with torch.device("meta"):
            adapter = cls(widths=[change.q.up.shape[0] for change in found], context_dim=found[0].k.down.shape[1],
                          rank=found[0].q.down.shape[0])
        adapter.load_state_dict(adapter_state(found), assign=True)
        return adapter

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

    @classmethod
    def from_published(cls, published: Mapping[str, Tensor], first: int) -> "RegionAdapters":
        """Take the adapters "fg" and "bg" out of a denoising network's published state; see `read_adapters`."""
        sides = {
            "foreground": BackgroundAdapter.from_published(published, "fg"),
            "background": BackgroundAdapter.from_published(published, "bg"),
        }
        known = sides["foreground"].config
        with torch.device("meta"):
            adapters = cls(known["widths"], first, known["context_dim"], known["rank"])
        state = {f"{side}.{name}": x for side, adapter in sides.items() for name, x in adapter.state_dict().items()}
        adapters.load_state_dict(state, assign=True)
        return adapters

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


def adapter_state(adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """Name the halves of adapters as `BackgroundAdapter` does."""
    return {
        f"blocks.{i}.{layer}.{half}": getattr(getattr(adapter, layer), half)
        for i, adapter in enumerate(adapters) for layer in "qkv" for half in ("down", "up")
    }


def read_adapters(published: Mapping[str, Tensor], label: str = "background", scale: float = 1.0) -> list[Adapter]:
    """Collect the adapter `label` out of a denoising network's published state, one entry for each transformer block.

    published: names without `model.diffusion_model.`. Empty if there is no such adapter.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in published.items():
        match = _NAME.match(name)
        if match and match["label"] == label:
            found.setdefault(match["block"], {})[match["layer"] + match["half"]] = value
    return [
        Adapter(*(LowRank(halves[layer + "down"], halves[layer + "up"], scale) for layer in "qkv"))
        for _, halves in sorted(found.items(), key=lambda item: _order(item[0]))
    ]


def scaled(adapters: Sequence[Adapter], scale: float) -> list[Adapter]:
    """Give the same adapters at another strength."""
    return [Adapter(*(replace(part, scale=scale) for part in (a.q, a.k, a.v))) for a in adapters]


def merged_weights(unet: UNet2DConditionModel, adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """Give the changed weights W + scale * U D by their names in the network, which is left as it is.

    Computed in float32: a half-precision product would lose the small change.
    """
    names = {id(module): name for name, module in unet.named_modules()}
    merged = {}
    for block, adapter in zip(transformer_blocks(unet), adapters, strict=True):
        for layer, change in (("to_q", adapter.q), ("to_k", adapter.k), ("to_v", adapter.v)):
            linear = getattr(block.attn2, layer)
            exact = LowRank(change.down.float(), change.up.float(), change.scale)
            merged[names[id(linear)] + ".weight"] = (linear.weight.float() + exact.delta).to(linear.weight.dtype)
    return merged


def _order(block: str) -> tuple[int, ...]:
    """Order block names as the blocks run: encoder, middle, decoder, each by its numbers."""
    return (_PARTS[block.split(".")[0]], *(int(number) for number in re.findall(r"\d+", block)))
