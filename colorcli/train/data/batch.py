"""What a stage sees of pictures: the tensors of one step, and how they get to a device."""

from dataclasses import dataclass, fields, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from colorcli.train.turn import Turn

Losses = dict[str, Tensor]  # "loss" is what is minimized, the others are told


class Batch(Protocol):
    """The tensors of one step of training."""

    def to(self, device: torch.device | str) -> Self:
        """Give the same on a device."""
        ...


class TensorBatch:
    """What every frozen dataclass of tensors has in common."""

    def to(self, device: torch.device | str) -> Self:
        """Give the same on a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        moved = {name: value.to(device) for name, value in tensors.items() if isinstance(value, Tensor)}
        return replace(self, **moved)  # type: ignore[type-var]


class PictureSource(Protocol):
    """What batches of pictures come from."""

    def batch(self, turn: Turn, size: int) -> "PictureBatch":
        """Give the `size` pictures of a turn."""
        ...


@dataclass(frozen=True)
class PictureBatch(TensorBatch):
    """Pictures with their line art, their reference and where the character is in both; all of one canvas.

    In the published training the reference is the picture itself, not cropped, squashed to a square.
    """

    image: Tensor           # (B, 3, H, W) the picture to be painted, -1..1
    sketch: Tensor          # (B, 3, H, W) its line art in model polarity: paper exactly -1, lines near +1
    reference: Tensor       # (B, 3, S, S) -1..1
    sketch_mask: Tensor     # (B, 1, H, W) the character in the picture, 0..1, soft
    reference_mask: Tensor  # (B, 1, S, S) the character in the reference, 0..1, already widened or erased at random
    size: Tensor            # (B, 3) height and width of the original in pixels, and the short side it was brought to
    crop: Tensor            # (B, 4) top, left, height and width of the canvas as fractions of the resized original
    score: Tensor           # (B,) aesthetic score, about 5..8
    names: tuple[str, ...] = ()   # of the pictures, to tell of one that makes a loss no number
