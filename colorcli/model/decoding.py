"""Decoding latents in bf16 where that paints the same picture, which is looked at, and in float32 where it does not.

The published autoencoder overflows in fp16. bf16 has the range of float32 but 8 bits for a number, so that a smooth
shade may come out in bands: whether it does depends on the weights and on what is painted.
"""

import logging
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# Levels of 8 bits that 99 of 100 numbers are nearer than: as in a picture with 50 dB of noise, a color difference of 1.
MOST_LEVELS = 2.0
LEVELS = 127.5      # of 8 bits in one unit of -1..1

Decode = Callable[[Tensor], Tensor]


class CheckedDecoding:
    """Runs a decoder in bf16 until a picture shows that it must not.

    fast: False: float32 throughout. Every picture is looked through for numbers that are none, and the first of a shot
    is decoded both ways: if 1 % of its numbers are `most_levels` apart or more, bf16 is given up, with a warning.
    """

    def __init__(self, fast: bool = False, most_levels: float = MOST_LEVELS) -> None:
        self.fast = fast
        self.most_levels = most_levels
        self.refused: str | None = None   # why bf16 was given up
        self._shot: weakref.ref[object] | None = None

    def __call__(self, decode: Decode, latents: Tensor, shot: object) -> Tensor:
        """Decode latents (B, C, h, w): (B, 3, H, W) float32. shot: one object for all frames of a shot."""
        if not self.fast:
            return decode(latents).float()
        with torch.autocast(latents.device.type, torch.bfloat16):
            found = decode(latents).float()
        first = self._shot is None or self._shot() is not shot
        if found.isfinite().all() and not first:
            return found
        exact = decode(latents).float()
        why = None
        if not found.isfinite().all() and exact.isfinite().all():
            why = "the decoder runs over in bf16"
        elif first and (apart := levels_apart(found, exact)) > self.most_levels:
            why = f"the decoder in bf16 is off by {apart:.1f} of 255 levels"
        if why is not None:
            self.fast, self.refused = False, why
            log.warning("%s: pictures are decoded in float32", why)
            return exact
        self._shot = weakref.ref(shot)
        return found

    def describe(self) -> str:
        """Tell for the manifest in what pictures are decoded."""
        return "bf16" if self.fast else "fp32" if self.refused is None else f"fp32: {self.refused}"


def levels_apart(one: Tensor, other: Tensor) -> float:
    """Give the difference, in levels of 8 bits, that 99 % of the numbers of two pictures -1..1 are below."""
    gap = (one.clamp(-1, 1) - other.clamp(-1, 1)).abs().flatten()
    kept = max(1, int(0.99 * gap.numel()))
    return float(gap.kthvalue(kept).values) * LEVELS
