"""LoRA files put into effect: networks with changed weights, beside the ones they came from, which stay as they are."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from colorcli.model.architecture import unet_origin
from colorcli.model.attention import LowRank
from colorcli.model.lora_file import LoraFile, targets_of

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class Lora:
    """A file, and how much of its change is wanted."""

    file: LoraFile
    strength: float = 1.0


def changes_of(lora: Lora, networks: Mapping[str, nn.Module]) -> dict[str, LowRank]:
    """Read the changes of a file, for networks by their names, of NETWORKS.

    Gives "unet.<layer>.weight" -> the change, float32, its halves flattened where the layer is a convolution. The scale
    is alpha / rank (1 without an alpha), times the strength.
    Raises WeightsError if a layer is not there, or has another shape.
    """
    shapes = {
        f"{name}.{weight}": tuple(value.shape)
        for name, network in networks.items() for weight, value in network.named_parameters()
    }
    published = {name: unet_origin(name.removeprefix("unet.")).name for name in shapes if name.startswith("unet.")}
    file, found = lora.file, {}
    with safe_open(file.path, framework="pt") as opened:
        for weight, names in targets_of(file, shapes, published).items():
            down, up = (opened.get_tensor(name).float().flatten(1) for name in (names.down, names.up))
            alpha = float(opened.get_tensor(names.alpha)) if names.alpha else file.alpha or float(len(down))
            found[weight] = LowRank(down, up, lora.strength * alpha / len(down))
    return found


@torch.no_grad()
def changed_networks(networks: Mapping[str, NetworkT], loras: Sequence[Lora]) -> dict[str, NetworkT]:
    """Give copies of networks with the changes of some files added up; a network that none changes is left out.

    A copy has weights of its own where they are changed, and shares all others. The sum is made in float32: a product
    in half precision would lose small changes.
    """
    sums: dict[str, Tensor] = {}
    for lora in loras:
        for name, change in changes_of(lora, networks).items():
            sums[name] = sums.get(name, torch.zeros(())) + change.delta
    found = {}
    for name, network in networks.items():
        start = f"{name}."
        own = {weight.removeprefix(start): delta for weight, delta in sums.items() if weight.startswith(start)}
        if own:
            found[name] = _changed(network, own)
    return found


def _changed(network: NetworkT, deltas: Mapping[str, Tensor]) -> NetworkT:
    """Copy a network, sharing all weights but those in `deltas`, which are added."""
    shared = {id(value): value for value in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    for name, delta in deltas.items():
        layer, _, last = name.rpartition(".")
        weight = network.get_parameter(name)
        exact = weight.float() + delta.to(weight.device).reshape(weight.shape)
        setattr(copied.get_submodule(layer), last, nn.Parameter(exact.to(weight.dtype), requires_grad=False))
    return copied
