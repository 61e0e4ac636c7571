"""The frame's own lines, laid over the color as they were drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

FULL_FROM = 0.9         # a pixel with this share of its stroke's ink is covered whole, and stays as it was drawn
TYPICAL_INK = 95        # percentile of the ink of a drawing's line pixels that is a whole stroke of it
FAINT_STROKE = 0.5      # a gray stroke with less of that ink is the thin trace of a darker one, not a gray line
COLORED_FROM = 0.15     # spread of R, G and B over which a stroke has a color of its own, so is no thin black one
STROKE_REACH_PX = 7     # how far along a stroke its fullest ink is looked for, in a frame whose longer side is 1280


@dataclass(frozen=True)
class LineLayer:
    """Lines taken off their paper: `out = (1 - cover) * color + ink_color`, at the few pixels that have any."""

    where: NDArray[np.int64]  # (N,) flat positions of the pixels with ink, in reading order
    cover: Float              # (N,) how much of the pixel is line, above 0, up to 1
    ink_color: Float          # (N, 3) the line's share of the pixel: its color times its cover

    def without(self, unseen: NDArray[np.bool_]) -> "LineLayer":
        """Leave out the lines at some pixels, (H, W)."""
        kept = ~unseen.reshape(-1)[self.where]
        return LineLayer(self.where[kept], self.cover[kept], self.ink_color[kept])


NO_LINES = LineLayer(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 3), np.float32))


def lift_lines(drawn: Float, ink: Float, paper: Float, reach_px: int) -> LineLayer:
    """Take the lines off the paper they are drawn on.

    drawn: (H, W, 3) the frame as drawn, 0..1. ink: (H, W), 0 paper .. 1 line. paper: (3,) its color. reach_px: how far
    along a stroke its fullest ink is looked for.
    A pixel of a drawing is `(1 - cover) * paper + cover * line`. The cover is the pixel's ink over the most ink of its
    stroke nearby: so a gray or colored stroke is a whole line and stays as it was drawn, and the soft edge of a black
    one is half a line over the color, with no rim of paper.
    """
    where = np.flatnonzero(ink)
    if not len(where):
        return NO_LINES
    amount = ink.reshape(-1)[where]
    color = drawn.reshape(-1, 3)[where]
    # In 8 bits, where the search for the largest neighbor is several times as fast.
    levels = cv2.convertScaleAbs(ink, alpha=255.0)
    fullest = cv2.dilate(levels, np.ones((2 * reach_px + 1,) * 2, np.uint8)).reshape(-1)[where].astype(np.float32) / 255
    whole = _whole_stroke(fullest, float(np.percentile(amount, TYPICAL_INK)))
    has_color = color.max(axis=1) - color.min(axis=1) > COLORED_FROM + np.ptp(paper)
    whole = np.where(has_color, fullest, whole)
    cover = np.minimum(amount / np.maximum(FULL_FROM * whole, np.float32(1e-3)), np.float32(1))
    ink_color = np.maximum(color - (1 - cover)[:, None] * paper, np.float32(0))
    return LineLayer(where, cover, ink_color)


def lines_of_alpha(drawn: Float, alpha: Float) -> LineLayer:
    """Take lines that lie alone in the alpha: the file says itself how much of each pixel is line.

    drawn: (H, W, 3) straight color. alpha: (H, W).
    """
    where = np.flatnonzero(alpha)
    cover = alpha.reshape(-1)[where]
    return LineLayer(where, cover, drawn.reshape(-1, 3)[where] * cover[:, None])


def _whole_stroke(fullest: Float, typical: float) -> Float:
    """Give the ink of a stroke that covers its pixel whole, from the fullest ink nearby.

    It is that ink itself for any stroke with at least half of the drawing's usual ink. Fainter ones are traces of the
    usual stroke, thinner than a pixel: laid over a dark color as gray lines they would glow.
    """
    faint = np.clip(2 - fullest / np.float32(FAINT_STROKE * typical), 0, 1)
    return fullest + faint * (max(typical, 0.05) - fullest).clip(0)
