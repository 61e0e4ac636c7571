"""The frame's own lines, laid over the color as they were drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

FULL_FROM = 0.9         # a pixel with this share of its stroke's ink is covered whole, and stays as it was drawn
FAINTEST_STROKE = 0.25  # ink of a stroke below which it is a light touch over the color, not a line of its own
STROKE_REACH = 1 / 180  # how far along a stroke its full ink is looked for, as a share of the longer side


@dataclass(frozen=True)
class LineLayer:
    """Lines taken off their paper: `out = (1 - cover) * color + ink_color`."""

    cover: Float      # (H, W) 0 no line .. 1 only line
    ink_color: Float  # (H, W, 3) the line's share of the pixel: its color times its cover


def lift_lines(drawn: Float, ink: Float, paper: Float) -> LineLayer:
    """Take the lines off the paper they are drawn on.

    drawn: (H, W, 3) the frame as drawn, 0..1. ink: (H, W), 0 paper .. 1 line. paper: (3,) its color.
    A pixel of a drawing is `(1 - cover) * paper + cover * line`. The cover is the pixel's ink over the most ink of its
    stroke nearby: so a gray or colored stroke is a whole line, and the soft edge of a black one is half a line and
    half the color below, with no rim of paper.
    """
    reach = max(2, round(STROKE_REACH * max(ink.shape)))
    # In 8 bits, where the search for the largest neighbor is several times as fast.
    levels = cv2.convertScaleAbs(ink, alpha=255.0)
    fullest = cv2.dilate(levels, np.ones((2 * reach + 1,) * 2, np.uint8))
    fullest = np.maximum(fullest, np.uint8(round(255 * FAINTEST_STROKE)))
    cover = cv2.divide(ink, fullest, scale=255.0 / FULL_FROM, dtype=cv2.CV_32F)
    cover = np.minimum(cover, np.float32(1))
    left = np.float32(1) - cover
    ink_color = np.empty_like(drawn)
    for channel in range(3):
        ink_color[..., channel] = drawn[..., channel] - left * np.float32(paper[channel])
    np.maximum(ink_color, 0, out=ink_color)
    ink_color[cover == 0] = 0  # the grain of the paper is no line
    return LineLayer(cover, ink_color)


def lay_lines(color: Float, lines: LineLayer) -> Float:
    """Lay lines over color (H, W, 3): where a line covers all, the result is the pixel that was drawn."""
    result = color * (1 - lines.cover)[..., None]
    result += lines.ink_color
    return np.minimum(result, np.float32(1), out=result)
