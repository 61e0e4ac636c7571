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


def standard_line_art(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the published high-pass line art: (H, W) 8-bit, lines high, a typical line at 127.

    picture: (H, W, 3). What is darker than its blurred surroundings in every channel, scaled by the median of the
    clear values.
    """
    values = picture.astype(np.float32)
    blurred = cv2.GaussianBlur(values, (0, 0), 6.0)
    darker = np.clip((blurred - values).min(axis=2), 0, 255)
    clear = darker[darker > 8]
    typical = max(16.0, float(np.median(clear))) if clear.size else 16.0
    return np.clip(darker / typical * 127, 0, 255).astype(np.uint8)
