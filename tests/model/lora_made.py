"""LoRA files made for tests, in the names of either kind of trainer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Floats = NDArray[np.float32]

# A layer of mini's denoising network, with its channels: from 192 to 96.
VALUES = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
QUERIES = "up_blocks.0.attentions.2.transformer_blocks.1.attn2.to_q"


def halves(into: int, out: int, rank: int = 2, seed: int = 0, size: float = 0.1) -> tuple[Floats, Floats]:
    """The lower (rank, into) and the upper half (out, rank)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, size, (rank, into)).astype(np.float32), rng.normal(0, size, (out, rank)).astype(np.float32))


def peft_names(layers: Mapping[str, Sequence[Floats]], network: str = "unet") -> dict[str, Floats]:
    """The halves of layers as diffusers and peft name them."""
    return {
        f"{network}.{name}.lora_{end}.weight": half
        for name, two in layers.items() for end, half in zip("AB", two, strict=True)
    }


def kohya_names(layers: Mapping[str, Sequence[Floats]], alpha: float | None = None) -> dict[str, Floats]:
    """The same as kohya's scripts name them."""
    named = {}
    for name, (down, up) in layers.items():
        start = f"lora_unet_{name.replace('.', '_')}"
        named |= {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up}
        if alpha is not None:
            named[f"{start}.alpha"] = np.array(alpha, np.float32)
    return named


def lora_file(path: Path, tensors: Mapping[str, Floats] | None = None, **metadata: str) -> Path:
    """Write a file; without tensors a change of one layer of mini. metadata: `base="mini"` for `colorcli.base`."""
    found = tensors if tensors is not None else peft_names({VALUES: halves(192, 96)})
    save_file(dict(found), path, {f"colorcli.{name}": value for name, value in metadata.items()} or None)
    return path
