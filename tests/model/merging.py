"""Adapters merged into the weights they change: another way to what attention computes beside them."""

from collections.abc import Sequence
from dataclasses import replace

from diffusers import UNet2DConditionModel
from torch import Tensor

from colorcli.model.attention import Adapter, LowRank
from colorcli.model.unet import transformer_blocks


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
