"""A guided prediction, plain against ours, at several sizes and reference lengths: `python -m benchmarks.guidance`.

Plain is the network of diffusers on two whole rows, one with the reference and one with zeros in its place; it projects
the reference in every call. Ours has the keys and values already, computes once what both rows have in common, and does
not read zeros. The weights are random, with a cross-attention so strong that the two rows differ.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import interleaved, load, machine, note, report
from colorcli.cli.main import calm_idle_threads

SIDES = (16, 32, 64)     # of the latents
TOKENS = (196, 392)      # of a reference; with one for the background
SCALE, TIME = 3.0, 500.0


@dataclass(frozen=True)
class Network:
    """The sizes of a denoising network."""

    channels: tuple[int, int, int]
    depths: tuple[int, int, int]
    head_width: int
    context_width: int
    layers: int = 2          # residual blocks of a level of the encoder


NETWORKS = {
    "mini": Network((64, 96, 128), (0, 1, 2), 32, 192),
    "medium": Network((96, 192, 384), (0, 1, 1), 64, 512, 1),
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network", choices=NETWORKS, help="only this one")
    parser.add_argument("--side", type=int, action="append", help="only this size of latents; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    calm_idle_threads(os.environ)
    names = [options.network] if options.network else list(NETWORKS)
    report(measure(options.rounds, names, tuple(options.side or SIDES)), options.json)


def measure(rounds: int, names: list[str], sides: tuple[int, ...] = SIDES) -> dict[str, Any]:
    """Time the pairs of every network, size and reference in turns; with each, how far the results are apart."""
    import torch

    from benchmarks.network import flops_of

    before, networks = machine(), {}
    for name in names:
        net = strong_minded(NETWORKS[name])
        cases = []
        for side in sides:
            for tokens in TOKENS:
                plain, ours = pair_of(net, NETWORKS[name], side, tokens)
                with torch.inference_mode():
                    times = interleaved({"plain": plain, "ours": ours}, rounds, warm_up=2)
                    one, other = plain(), ours()
                    rows = float((plain(1.0) - one).abs().max())
                ratio = times["ratios"]["ours"]
                note(f"{name} {side}x{side}, {tokens} tokens: {ratio['median']}x ({ratio['low']} to {ratio['high']})")
                cases.append({
                    "latents": side, "tokens": tokens, "times": round(ratio["median"], 3), "ratio": ratio,
                    "cpu_times": round(times["cpu_seconds"]["plain"] / max(times["cpu_seconds"]["ours"], 1e-4), 3),
                    "seconds": times["seconds"], "load": times["load_after"],
                    "gflop": {"plain": round(flops_of(plain) / 1e9, 3), "ours": round(flops_of(ours) / 1e9, 3)},
                    "max_difference": float((one - other).abs().max()), "largest_value": float(one.abs().max()),
                    "effect_of_guidance": rows,
                })
        networks[name] = {"parameters": sum(weight.numel() for weight in net.parameters()), "cases": cases}
    return {
        "benchmark": "guidance", "machine": before, "load_after": load(), "rounds": rounds,
        "threads": torch.get_num_threads(), "networks": networks,
    }


def strong_minded(sizes: Network) -> Any:
    """Build a network of random weights whose cross-attention matters."""
    import torch

    from colorcli.model.unet import build_unet, transformer_blocks

    torch.manual_seed(0)
    net = build_unet(
        block_out_channels=sizes.channels, depths=sizes.depths, head_dim=sizes.head_width,
        context_dim=sizes.context_width, y_dim=512, layers_per_block=sizes.layers,
    ).eval().requires_grad_(False)
    for block in transformer_blocks(net):
        for layer in (block.attn2.to_q, block.attn2.to_v, block.attn2.to_out[0]):
            layer.weight.mul_(4)
    return net


def pair_of(net: Any, sizes: Network, side: int, tokens: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Make both ways to predict for latents of a size and a reference of some tokens; the first takes another scale."""
    import torch
    from diffusers import UNet2DConditionModel

    from colorcli.model.conditions import Conditions
    from colorcli.model.unet import project_context
    from colorcli.sampling import Guidance, guided

    drawn = torch.Generator().manual_seed(side + tokens)
    x, y = torch.randn(1, 4, side, side, generator=drawn), torch.randn(1, 512, generator=drawn)
    context = torch.randn(1, tokens, sizes.context_width, generator=drawn)
    both, vectors = torch.cat([context, torch.zeros_like(context)]), y.repeat(2, 1)

    def plain(scale: float = SCALE) -> Any:
        rows = UNet2DConditionModel.forward(net, x.repeat(2, 1, 1, 1), TIME, both, class_labels=vectors).sample
        cond, uncond = rows.chunk(2)
        return uncond + scale * (cond - uncond)

    with torch.inference_mode():
        conditions = Conditions(project_context(net, context), (), (), y)
    return plain, partial(guided(net, conditions, Guidance(SCALE)), x, TIME)


if __name__ == "__main__":
    main()
