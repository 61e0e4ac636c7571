"""The large models at full size without their weights: filled with random numbers, right where they run.

They take the time and the memory of the real ones, for neither depends on the numbers; their pictures mean nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import DDIMScheduler
from torch import nn

from colorcli.model import architecture as xl
from colorcli.model.memory import MemoryProfile, apply_precision
from colorcli.pipeline import ColorizePipeline
from colorcli.sampling import PUBLISHED_SCHEDULE

SEED = 7
Networks = Callable[[], Mapping[str, nn.Module]]


def xl_networks() -> dict[str, nn.Module]:
    """Make the networks of xl on the meta device; tables that are computed, not learned, are there."""
    with init_empty_weights(include_buffers=False):
        # No shapes are given: each part takes the published ones.
        return {
            "unet": xl.unet_from({}), "sketch_encoder": xl.sketch_encoder_from({}), "vae": xl.vae_from({}),
            "projection": xl.projection_from({}), "image_encoder": xl.image_encoder_from({}),
            "tagger": xl.tagger_from({}),
        }


def xlv2_networks() -> dict[str, nn.Module]:
    """Make the networks of xlv2 on the meta device."""
    base = xl_networks()
    with init_empty_weights(include_buffers=False):
        return base | {"reference_net": xl.reference_net_from({}), "adapter": xl.adapter_from(base["unet"])}


NETWORKS: dict[str, Networks] = {"xl": xl_networks, "xlv2": xlv2_networks}


def random_pipeline(model: str, profile: MemoryProfile, device: torch.device | str) -> ColorizePipeline:
    """Make a model of `NETWORKS` with random weights, kept as a profile says. Not yet with a backend of attention."""
    networks = NETWORKS[model]()
    kept_on = torch.device("cpu" if profile.moves else device)
    apply_precision(networks, replace(profile, storage="compute"))
    generator = torch.Generator(kept_on).manual_seed(SEED)
    for network in networks.values():
        fill(network, kept_on, generator)
    parts: dict[str, Any] = {**networks, "scheduler": DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False)}
    return ColorizePipeline(**parts).keep_within(profile, device)


def fill(network: nn.Module, device: torch.device, generator: torch.Generator) -> None:
    """Give a network on the meta device random weights, in the precision it has, that keep its maps of unit size."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            filled = torch.empty(weight.shape, dtype=weight.dtype, device=device)
            if weight.dim() > 1:
                filled.normal_(0, max(1, weight[0].numel()) ** -0.5, generator=generator)
            else:
                filled.fill_(0.0 if name == "bias" else 1.0)
            module.register_parameter(name, nn.Parameter(filled, requires_grad=False))
    network.to(device).eval()
