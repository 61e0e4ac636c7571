"""What a stage trains and a model has not yet: built to fit its denoising network, and begun from its weights."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from colorcli.errors import PresetError
from colorcli.model.build import Components
from colorcli.model.lora import BackgroundAdapter, RegionAdapters
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.side_encoders import BackgroundEncoder, SideEncoder, SideUNet, StyleEncoder
from colorcli.model.unet import ColorUNet, decoder_start, places, transformer_blocks

Net = TypeVar("Net", bound=nn.Module)
Encoder = TypeVar("Encoder", bound=SideEncoder)


def grow(components: Components, stage: str) -> None:
    """Add the networks of the published systems that a stage trains and the model lacks.

    Call `torch.manual_seed` before: what has no weights to begin from is drawn. Raises PresetError if the model's
    denoising network cannot take them.
    """
    for name in STAGE_PARTS.get(stage, ()):
        if getattr(components, name) is None:
            setattr(components, name, MAKERS[stage, name](components.unet).to(components.device))


def _reference_net(unet: ColorUNet) -> ReferenceNet:
    sizes = sizes_of(unet)
    del sizes["context_dim"]
    return begun_from(unet, ReferenceNet(**sizes))


def _background_adapter(unet: ColorUNet) -> BackgroundAdapter:
    return BackgroundAdapter([place.width for place in places(unet)], sizes_of(unet)["context_dim"])


def _region_adapters(unet: ColorUNet) -> RegionAdapters:
    widths = [place.width for place in places(unet) if place.part == "decoder"]
    return RegionAdapters(widths, decoder_start(unet), sizes_of(unet)["context_dim"])


def _background_encoder(unet: ColorUNet) -> BackgroundEncoder:
    return _side(unet, BackgroundEncoder(**sizes_of(unet)))


def _style_encoder(unet: ColorUNet) -> StyleEncoder:
    return _side(unet, StyleEncoder(**sizes_of(unet)))


def _side(unet: ColorUNet, encoder: Encoder) -> Encoder:
    """Begin a side encoder from the network that reads it, which it does not change at first: its heads give zero."""
    if not isinstance(unet, SideUNet):
        raise PresetError("this model's denoising network takes nothing from side encoders", hint="begin with v2")
    for parameter in encoder.heads.parameters():
        nn.init.zeros_(parameter)
    return begun_from(unet, encoder)


STAGE_PARTS: Mapping[str, tuple[str, ...]] = {
    "xl-refine": ("reference_net", "adapter"),
    "v2-background": ("background_encoder", "adapter"),
    "v2-style": ("style_encoder",),
    "switch": ("adapter",),
}
MAKERS: Mapping[tuple[str, str], Callable[[ColorUNet], nn.Module]] = {
    ("xl-refine", "reference_net"): _reference_net,
    ("xl-refine", "adapter"): _background_adapter,
    ("v2-background", "background_encoder"): _background_encoder,
    ("v2-background", "adapter"): _region_adapters,
    ("v2-style", "style_encoder"): _style_encoder,
    ("switch", "adapter"): _region_adapters,
}


def sizes_of(unet: ColorUNet) -> dict[str, Any]:
    """Read the sizes of a denoising network off its layers, as `unet_config` takes them."""
    levels: list[Any] = list(unet.down_blocks)
    attentions = [getattr(level, "attentions", None) for level in levels]
    first = transformer_blocks(unet)[0]
    return {
        "block_out_channels": tuple(level.resnets[-1].out_channels for level in levels),
        "depths": tuple(len(a[0].transformer_blocks) if a else 0 for a in attentions),
        "head_dim": first.attn1.to_q.out_features // first.attn1.heads,
        "context_dim": first.attn2.to_k.in_features,
        "layers_per_block": len(levels[0].resnets),
        "norm_num_groups": unet.conv_norm_out.num_groups,
    }


def begun_from(unet: ColorUNet, network: Net) -> Net:
    """Give a network the weights that the denoising network has under the same names, fitted to its sizes."""
    given = unet.state_dict()
    state = network.state_dict()
    network.load_state_dict({
        name: wrapped(given[name], value.shape) if name in given else value for name, value in state.items()
    })
    return network


def wrapped(weights: Tensor, shape: torch.Size) -> Tensor:
    """Fit weights to a shape that may differ in the first two axes: what is missing begins again from the first.

    Columns that come from the same one share its weight, so that equal inputs give what they gave. (Spec: training,
    1.3.)
    """
    assert weights.shape[2:] == shape[2:] and weights.dim() == len(shape), (weights.shape, shape)
    fitted = weights[torch.arange(shape[0], device=weights.device) % weights.shape[0]]
    if weights.dim() == 1:
        return fitted
    columns = torch.arange(shape[1], device="cpu") % weights.shape[1]   # counted even where weights have no memory
    shares = columns.bincount(minlength=weights.shape[1])[columns].to(weights)
    return fitted[:, columns.to(weights.device)] / shares.view(-1, *[1] * (weights.dim() - 2))
