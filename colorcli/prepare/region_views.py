"""What each region of a drawing looks like: small pictures of its outline and of what is drawn around it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.prepare.regions import Regions, pixels_of_regions

Float = NDArray[np.float32]

VIEW_SIDE = 32         # pixels of a view
VIEWS = 4              # ink and region, seen closely; ink and region, with their surroundings
INK_VIEWS = (0, 2)      # those that show ink
CLOSE_MARGIN = 1.25    # side of the close view, in longer sides of the region's box
AROUND = 0.3           # side of the view with the surroundings, in heights of the figure
SMALLEST_PX = 12       # side of a view on the drawing, at least


def region_views(regions: Regions, ink: Float, figure_height: float) -> NDArray[np.uint8]:
    """Cut the views of every region out of a drawing, (R, VIEWS, VIEW_SIDE, VIEW_SIDE), 0..255.

    ink: (H, W) in 0..1. figure_height: of the character, in pixels of the drawing.
    """
    views = np.zeros((regions.count, VIEWS, VIEW_SIDE, VIEW_SIDE), np.uint8)
    width = regions.labels.shape[1]
    ink_bytes = np.round(255 * ink).astype(np.uint8)
    for number, pixels in enumerate(pixels_of_regions(regions)):
        columns = pixels % width
        left, right = int(columns.min()), int(columns.max()) + 1
        top, bottom = int(pixels[0]) // width, int(pixels[-1]) // width + 1
        middle = (left + right) / 2, (top + bottom) / 2
        close = max(SMALLEST_PX, CLOSE_MARGIN * max(right - left, bottom - top))
        around = max(SMALLEST_PX, AROUND * figure_height)
        for first, side in ((0, close), (2, around)):
            views[number, first] = _cut(ink_bytes, middle, side)
            views[number, first + 1] = _cut(regions.labels, middle, side, number + 1)
    return views


def _cut(image: NDArray[np.integer], middle: tuple[float, float], side: float, label: int = 0) -> NDArray[np.uint8]:
    """Cut a square out around a point, nothing beyond the picture; of labels, those that are `label` as 255."""
    half, size = side / 2, round(side)
    left, top = round(middle[0] - half), round(middle[1] - half)
    height, width = image.shape
    inner = image[max(top, 0) : max(min(top + size, height), 0), max(left, 0) : max(min(left + size, width), 0)]
    square = np.zeros((size, size), np.uint8)
    shown = np.where(inner == label, np.uint8(255), np.uint8(0)) if label else inner
    square[max(-top, 0) :, max(-left, 0) :][: shown.shape[0], : shown.shape[1]] = shown
    return np.asarray(cv2.resize(square, (VIEW_SIDE, VIEW_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
