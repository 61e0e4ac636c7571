"""The background adapter: low-rank changes of every cross-attention of the denoising network.

Kept beside the network and handed to each call (`AttentionPlan.adapters`), so that a call without it is the plain
network again. `merged_weights` gives the same as changed weights, always made from the pristine ones.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from diffusers import UNet2DConditionModel
from torch import Tensor

from colorcli.model.attention import Adapter, LowRank
from colorcli.model.unet import transformer_blocks

_PARTS = {"input_blocks": 0, "middle_block": 1, "output_blocks": 2}
_NAME = re.compile(r"^(?P<block>.+)\.attn2\.to_(?P<layer>[qkv])\.lora_(?P<half>down|up)_(?P<label>\w+)\.weight$")


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
