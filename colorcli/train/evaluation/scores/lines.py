"""Whether a colored picture keeps the lines it was given: they are found in it again, and compared."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import FORMATS, Picture
from colorcli.prepare.lineart import lines_of_color
from colorcli.presets import LineSettings

Float = NDArray[np.float32]

DRAWN_ABOVE = 0.3   # ink above which a pixel belongs to a line
REACH_PX = 2.0      # how far a line may lie off, in pixels of the canvas


@dataclass(frozen=True)
class LineAgreement:
    """Lines found against lines given."""

    precision: float   # share of the lines found that were given, 0..1
    recall: float      # share of the lines given that were found, 0..1

    @property
    def f1(self) -> float:
        """The harmonic mean of both, 0..1."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def line_agreement(given: Float, found: Float, reach_px: float = REACH_PX) -> LineAgreement:
    """Compare ink (H, W) that was given with ink that was found, both 0 paper .. 1 line.

    A line counts as met if one of the other picture lies within `reach_px`. Two pictures without lines agree.
    """
    assert given.shape == found.shape, (given.shape, found.shape)
    one, two = given > DRAWN_ABOVE, found > DRAWN_ABOVE
    if not one.any() and not two.any():
        return LineAgreement(1.0, 1.0)
    return LineAgreement(precision=_met(two, one, reach_px), recall=_met(one, two, reach_px))


def found_lines(picture: Float) -> Float:
    """Find the lines of a colored picture (H, W, 3) in 0..1, as those of a key are found: ink (H, W)."""
    colored = Picture(np.ascontiguousarray(np.clip(picture, 0, 1), np.float32), None, FORMATS["png8"], 3)
    return lines_of_color(colored, LineSettings()).ink


def _met(lines: NDArray[np.bool_], others: NDArray[np.bool_], reach_px: float) -> float:
    """Share of the pixels of `lines` that have one of `others` within reach; 0 if either has none."""
    if not lines.any() or not others.any():
        return 0.0
    apart = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((apart[lines] <= reach_px).mean())
