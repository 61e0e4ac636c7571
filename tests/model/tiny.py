"""Networks small enough for a test, with random weights that leave nothing at zero."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from colorcli.model.reference_net import ReferenceNet
from colorcli.model.unet import ColorUNet, build_unet

WIDTHS = (32, 32, 64)
DEPTHS = (0, 1, 2)
CONTEXT_DIM = 24


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every weight with small random numbers."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        spread = 0.3 / max(1, weight[0].numel()) ** 0.5 if weight.dim() > 1 else 0.3
        weight.data = torch.randn(weight.shape, generator=generator) * spread + (weight.dim() == 1)
    return module.eval().requires_grad_(False)


def unet() -> ColorUNet:
    net = build_unet(block_out_channels=WIDTHS, depths=DEPTHS, head_dim=16, context_dim=CONTEXT_DIM, y_dim=512)
    randomised(net)
    return net


def reference_net() -> ReferenceNet:
    net = ReferenceNet(block_out_channels=WIDTHS, depths=DEPTHS, head_dim=16)
    randomised(net)
    return net


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call(net: ColorUNet, context: object, plan: object, rows: int = 2, size: Sequence[int] = (8, 12)) -> Tensor:
    """Run the network on fixed latents."""
    return net(normal(rows, 4, *size), 321.5, normal(rows, 512, seed=1), context, (), plan)
