"""Which attention backend a model runs with: the backend itself is asked, with the head widths and numbers it will get.

What a build of xformers takes depends on the card, the type of the numbers and the width of a head. A small attention
at the beginning tells, so that no frame has to fail for it.
"""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from colorcli.errors import DeviceError, MissingExtraError
from colorcli.model.attention import BACKENDS, best_backend

log = logging.getLogger(__name__)

QUERIES, TOKENS = 64, 32   # of the attention that is tried


def choose_backend(name: str, device: torch.device | str, networks: Iterable[nn.Module], numbers: torch.dtype) -> str:
    """Give the backend that `--attention` asks for; "auto": the fastest one that takes these networks.

    networks: whose heads are tried. numbers: what they compute in. Raises DeviceError, or MissingExtraError, if a
    backend was asked for that does not run here.
    """
    kind = torch.device(device).type
    chosen = best_backend(device) if name == "auto" else name
    if chosen == "sdpa":
        return chosen   # part of torch, takes everything
    if kind != "cuda":
        raise DeviceError(f"--attention {chosen} does not run on {kind}", hint="leave --attention out")
    why = refusal(chosen, device, numbers, head_widths(networks))
    if why is None:
        return chosen
    if name == "auto":
        log.warning("%s is installed, but does not run here: %s; attention runs by torch's own", chosen, why)
        return "sdpa"
    if why.startswith("No module named"):
        raise MissingExtraError(f"--attention {chosen} needs the package {chosen}, which is not installed",
                                hint=f"pip install {chosen}, or leave --attention out")
    raise DeviceError(f"--attention {chosen} does not run here: {why}", hint="leave --attention out")


def refusal(
    backend: str, device: torch.device | str, numbers: torch.dtype, widths: Iterable[int]
) -> str | None:
    """Try a backend on a device with heads of some widths: why it refuses, None if it does not."""
    for width in sorted(set(widths)):
        q = torch.ones(1, QUERIES, 2, width, dtype=numbers, device=device)
        try:
            read = BACKENDS[backend](q, q[:, :TOKENS], q[:, :TOKENS])
        except Exception as error:   # a broken build raises OSError, a refused width NotImplementedError or ValueError
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return (lines[0] if lines else type(error).__name__)[:200]
        if read.shape != q.shape or not bool(read.isclose(q, atol=1e-2).all()):
            return f"a mean of ones is not one with heads of {width}"
    return None


def head_widths(networks: Iterable[nn.Module]) -> set[int]:
    """Give the widths of the heads of all attentions in networks."""
    layers: list[Any] = [layer for network in networks for layer in network.modules()]
    return {
        layer.to_q.out_features // layer.heads
        for layer in layers if hasattr(layer, "to_q") and hasattr(layer, "heads")
    }
