"""Random numbers of the losses: drawn on the CPU, so that one seed gives one run on every machine."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw standard normal numbers, and bring them to a device."""
    return torch.randn(tuple(shape), generator=generator).to(device)


def chance(probability: float | Tensor, rows: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw for each of some rows whether something of a probability, one or (rows,), happens: (rows,) bool."""
    return torch.rand(rows, generator=generator).to(device) < probability


def offset_noise(latents: Tensor, generator: torch.Generator, deviation: float) -> Tensor:
    """Draw noise for latents (B, C, h, w): one number each, and one more of `deviation` for a channel of a sample."""
    noise = normal(latents.shape, generator, latents.device)
    return noise + deviation * normal((*latents.shape[:2], 1, 1), generator, latents.device)
