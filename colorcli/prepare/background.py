"""Background bleaching: the character is taken out of the key, so that the background alone can speak."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def bleach(reference: Float, mask: Float, threshold: float, white: float = 1.0) -> Float:
    """Keep the key where its mask is below `threshold`, white elsewhere. reference: (H, W, 3). mask: (H, W)."""
    return np.where(mask[:, :, None] < threshold, reference, np.float32(white))


@dataclass(frozen=True)
class Bleached:
    """A training batch with its backgrounds bleached; pictures (B, 3, H, W) in -1..1."""

    image: Float
    sketch: Float
    background_reference: Float


def bleach_batch(
    image: Float,
    sketch: Float,
    reference: Float,
    *,
    sketch_mask: Float,
    reference_mask: Float,
    sketch_threshold: Float,
    reference_threshold: Float,
    white: NDArray[np.bool_],
    level: Float,
) -> Bleached:
    """Bleach the backgrounds of a training batch (arXiv:2504.06895).

    image, sketch, reference: (B, 3, H, W) in -1..1, sketch with lines high. Masks: (B, 1, H, W); thresholds: (B,).
    white: (B,) samples whose background becomes plain paper; level: (B, 1, 1, 1) in 0..1, how white between 0.95 and 1.
    """
    cut = (-1, 1, 1, 1)
    inside = sketch_mask > sketch_threshold.reshape(cut)
    outside_reference = reference_mask <= reference_threshold.reshape(cut)
    plain = white.reshape(cut)
    paper = (0.95 + 0.05 * level).astype(np.float32)
    return Bleached(
        image=np.where(inside | ~plain, image, np.float32(1)),
        sketch=np.where(inside, sketch, np.float32(-1)),
        background_reference=np.where(plain, paper, np.where(outside_reference, reference, np.float32(1))),
    )


def aspect_crop_fractions(canvas: tuple[int, int], background: tuple[int, int]) -> tuple[float, float]:
    """Give the fractions (of height, of width) of a background that have the canvas's aspect; both sizes (H, W)."""
    height, width = canvas
    rows, columns = background
    if width / height > columns / rows:
        return (height / width) * (columns / rows), 1.0
    return 1.0, (width / height) * (rows / columns)
