"""Line art: whatever was drawn or scanned becomes ink on paper, one number a pixel."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, over_paper
from colorcli.presets import LineSettings

Float = NDArray[np.float32]


@dataclass(frozen=True)
class LineArt:
    """A drawing as the model wants it."""

    ink: Float  # (H, W) at source size, 0 paper .. 1 full black line


def read_lines(picture: Picture, settings: LineSettings) -> LineArt:
    """Find the lines of a picture."""
    ink = 1 - cv2.cvtColor(over_paper(picture), cv2.COLOR_RGB2GRAY)
    return LineArt(ink)


def lines_of_color(picture: Picture, settings: LineSettings) -> LineArt:
    """Find the outlines of a colored drawing, as a frame of the same character would show them."""
    return read_lines(picture, settings)
