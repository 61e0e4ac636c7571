"""Pipelines whose weights are nothing but NaN while they are away, so that a phase that forgets a part paints NaN."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from colorcli.model.memory import PROFILES
from colorcli.model.residency import Home, Residency
from colorcli.pipeline import ColorizePipeline


def nan_while_away(pipe: ColorizePipeline) -> dict[str, torch.nn.Module]:
    """Let the parts of a pipeline come for their phases only, and give its networks by name; all are away now."""
    home = Home()

    def move(tensors: Sequence[torch.Tensor], device: torch.device | None) -> None:
        home(tensors, device)
        if device is None:
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.data = torch.full_like(tensor.data, torch.nan)

    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    pipe.profile = replace(PROFILES["8g"], budget=0)
    pipe._residency = Residency(networks, "cpu", pipe.profile, move)
    for module in networks.values():
        move(list(module.parameters()) + list(module.buffers()), None)
        assert all(tensor.isnan().all() for tensor in module.parameters())
    return networks
