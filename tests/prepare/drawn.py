"""Small drawings whose every pixel is known: a figure of ellipses and boxes, as line art, painted, and as its mask."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, PixelFormat

Float = NDArray[np.float32]
SKIN, SHIRT, TROUSERS, HAIR = (0.95, 0.78, 0.66), (0.25, 0.45, 0.8), (0.35, 0.3, 0.3), (0.5, 0.3, 0.1)


@dataclass(frozen=True)
class Drawn:
    """One figure, four times."""

    ink: Float      # (H, W) 1 = line
    color: Float    # (H, W, 3) painted, lines on top, on `paper`
    mask: Float     # (H, W) 1 = figure, its outline with it


def figure(
    width: int = 640,
    height: int = 480,
    *,
    line_px: int = 3,
    paper: tuple[float, float, float] = (1, 1, 1),
    gap_px: int = 0,
) -> Drawn:
    """Draw a standing figure; with `gap_px` every outline has a gap of that width."""
    scale = height / 480
    u = lambda *p: tuple(round(v * scale) for v in p)  # noqa: E731
    middle = round(width / scale / 2)
    color = np.empty((height, width, 3), np.float32)
    color[:] = paper
    ink, mask = np.zeros((height, width), np.float32), np.zeros((height, width), np.uint8)
    shapes = [
        (np.array([u(middle - 60, 240), u(middle + 60, 240), u(middle + 70, 440), u(middle + 20, 440),
                   u(middle, 290), u(middle - 20, 440), u(middle - 70, 440)]), TROUSERS),
        (np.array([u(middle - 55, 130), u(middle + 55, 130), u(middle + 140, 210), u(middle + 120, 230),
                   u(middle + 60, 190), u(middle + 60, 250), u(middle - 60, 250), u(middle - 60, 190),
                   u(middle - 120, 230), u(middle - 140, 210)]), SHIRT),
        (cv2.ellipse2Poly(u(middle, 85), u(45, 52), 0, 0, 360, 4), SKIN),
        (cv2.ellipse2Poly(u(middle, 60), u(47, 32), 0, 180, 360, 4), HAIR),
    ]
    thick = max(1, round(line_px * scale))
    for points, fill in shapes:
        cv2.fillPoly(mask, [points], 1)
        cv2.fillPoly(color, [points], fill)
        cv2.fillPoly(ink, [points], 0)
        cv2.polylines(ink, [points], True, 1.0, thick, cv2.LINE_AA)
        cv2.polylines(color, [points], True, (0.05, 0.05, 0.05), thick, cv2.LINE_AA)
        cv2.polylines(mask, [points], True, 1, thick)
    if gap_px:
        for points, _ in shapes:
            at = (points[0] + points[1]) // 2 if len(points) < 20 else points[0]
            half = gap_px // 2
            ink[at[1] - thick - 1 : at[1] + thick + 2, at[0] - half : at[0] + half] = 0
    # Lines under a later shape are hidden in `color` by its fill, in `ink` by the fill of zero.
    return Drawn(ink, color, mask.astype(np.float32))


def picture(color: Float, alpha: Float | None = None) -> Picture:
    """Make a picture as if it had been read from an 8-bit PNG; a gray (H, W) array becomes three channels."""
    if color.ndim == 2:
        color = np.repeat(color[:, :, None], 3, axis=2)
    channels = 3 if alpha is None else 4
    return Picture(np.ascontiguousarray(color, np.float32), alpha, PixelFormat("png", "uint8"), channels)


def overlap(one: Float, other: Float) -> float:
    """Intersection over union of two masks at 0.5."""
    a, b = one > 0.5, other > 0.5
    return float((a & b).sum() / max(1, (a | b).sum()))
