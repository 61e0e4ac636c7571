"""Colored separation lines: drawn to part light from shadow, and not to be seen in the result."""

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.prepare.regions import nearest_labelled

Float = NDArray[np.float32]

CLEAR_INK = 0.3    # a pixel with this share of the fullest ink near it is the stroke itself, not its soft edge
COLORED = 0.45     # saturation from which a stroke is a colored pencil's; black, gray and brown ink stay below
REACH_PX = 3       # how far the soft edge of a stroke reaches from it


def separation_lines(drawn: Float, ink: Float, paper: Float) -> NDArray[np.bool_]:
    """Mark the pixels of strokes that are drawn in a clear color, (H, W): red, blue, green; not black, gray or brown.

    drawn: (H, W, 3) the frame as drawn, over its paper, 0..1. ink: (H, W), 0 paper .. 1 line. paper: (3,) its color.
    Where a colored stroke crosses a black one the pixel is black. Saturation is that of the stroke's own color: what
    is taken from white, most over least, as paint mixed into the paper leaves it.
    """
    marks = np.zeros(ink.shape, np.int32)
    fullest = cv2.dilate(ink, np.ones((2 * REACH_PX + 1,) * 2, np.uint8))
    clear = (ink > 0.06) & (ink >= CLEAR_INK * fullest)
    places = np.flatnonzero(clear)
    if not len(places):
        return np.zeros(ink.shape, bool)
    taken = np.maximum(paper - drawn.reshape(-1, 3)[places], 0)
    most, least = taken.max(axis=1), taken.min(axis=1)
    colored = (most - least) > COLORED * np.maximum(most, np.float32(0.05))
    marks.reshape(-1)[places] = np.where(colored, 2, 1)
    if not colored.any():
        return np.zeros(ink.shape, bool)
    soft = np.flatnonzero((ink > 0) & (marks == 0))
    marks.reshape(-1)[soft] = marks.reshape(-1)[nearest_labelled(marks).reshape(-1)[soft]]
    return np.asarray(marks == 2)
