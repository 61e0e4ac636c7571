"""What is whitened in a batch of pictures, so that backgrounds and characters are learned apart.

Pictures are (B, 3, H, W) in -1..1, line art in model polarity; masks (B, 1, H, W) in 0..1; thresholds (B,).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WHITE, BLANK = 1.0, -1.0     # of a picture, of line art
LEAST_WHITE = 0.95           # the darkest paper that a whitened background becomes
HOLE_OFFSET = 4              # places in the batch between a sample and the stranger whose shape is cut out of it
MERGE_OFFSET = 2             # ... and the stranger whose mask is added to its own


@dataclass(frozen=True)
class Thresholds:
    """Above which value a mask is the character, drawn for each sample."""

    sketch: Tensor      # (B,)
    reference: Tensor   # (B,)

    @staticmethod
    def of(draws: Tensor, lowest: float, highest: float) -> "Thresholds":
        """Bring draws (2 * B,) in 0..1 to lowest..highest; the first half is for the masks of sketches."""
        sketch, reference = (lowest + (highest - lowest) * draws).chunk(2)
        return Thresholds(sketch, reference)


@dataclass(frozen=True)
class Bleached:
    """A batch whose backgrounds are bleached."""

    image: Tensor                  # (B, 3, H, W)
    sketch: Tensor                 # (B, 3, H, W)
    background_reference: Tensor   # (B, 3, S, S) what is behind the character, itself cut out


def bleach(
    image: Tensor,
    sketch: Tensor,
    reference: Tensor,
    *,
    sketch_mask: Tensor,
    reference_mask: Tensor,
    thresholds: Thresholds,
    white: Tensor,
    level: Tensor,
) -> Bleached:
    """Take the lines of every background away; make some samples' backgrounds plain paper (arXiv:2504.06895).

    white: (B,) bool, those samples. level: (B, 1, 1, 1) in 0..1, how white between 0.95 and 1 their reference is.
    """
    inside = sketch_mask > column(thresholds.sketch)
    plain = column(white)
    paper = LEAST_WHITE + (1 - LEAST_WHITE) * level
    return Bleached(
        image=torch.where(inside | ~plain, image, WHITE),
        sketch=torch.where(inside, sketch, BLANK),
        background_reference=torch.where(plain, paper, without_character(reference, reference_mask, thresholds)),
    )


def without_character(reference: Tensor, mask: Tensor, thresholds: Thresholds) -> Tensor:
    """Paint the character of references (B, 3, S, S) white."""
    return torch.where(mask <= column(thresholds.reference), reference, WHITE)


def with_holes(reference: Tensor, mask: Tensor, thresholds: Thresholds, chosen: Tensor) -> Tensor:
    """Cut the shape of another sample's character out of the chosen references, (B,) bool: they become white there.

    What is missing has to come from the line art. A batch of 4 or a divisor of it cuts out the own character.
    """
    stranger = mask.roll(HOLE_OFFSET, 0)
    return torch.where(column(chosen) & (stranger >= column(thresholds.reference)), WHITE, reference)


def merged_masks(mask: Tensor) -> Tensor:
    """Add another sample's character to the mask of each: (B, 1, S, S), at most 1."""
    return (mask + mask.roll(MERGE_OFFSET, 0)).clamp_max(1)


def column(values: Tensor) -> Tensor:
    """Lay values (B,) out beside pictures: (B, 1, 1, 1)."""
    return values[:, None, None, None]
