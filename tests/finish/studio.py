"""Drawings of circles and boxes whose right colors are known."""

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import FORMATS, Picture, over_paper
from colorcli.prepare.canvas import to_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset
from colorcli.variants import VARIANTS

Float = NDArray[np.float32]

RED, GREEN, BLUE, NIGHT = (0.8, 0.2, 0.2), (0.2, 0.6, 0.3), (0.25, 0.35, 0.8), (0.12, 0.1, 0.15)
COLORS = (RED, GREEN, BLUE, NIGHT)
MINI = VARIANTS["mini"]


def face(
    size: tuple[int, int] = (300, 240),
    *,
    stroke: tuple[float, float, float] = (0.0, 0.0, 0.0),
    width: float = 2.0,
    paper: float = 1.0,
    gap: bool = False,
) -> tuple[Float, Float, Float]:
    """Draw a head in four parts: the drawing, its true color (both (H, W, 3)) and its alpha (H, W).

    size: (width, height). stroke: color of the lines. width: of the lines, in pixels. gap: the line between the two
    lower parts is missing.
    """
    times = 8  # drawn larger and shrunk, so that strokes have soft edges
    columns, rows = size[0] * times, size[1] * times
    middle, radius = (columns // 2, rows // 2), int(0.42 * rows)
    parts = np.zeros((rows, columns), np.uint8)
    cv2.circle(parts, middle, radius, 1, -1)
    y, x = np.mgrid[:rows, :columns]
    parts[(parts > 0) & (x > middle[0])] += 1
    parts[(parts > 0) & (y > middle[1])] += 2
    ink = np.zeros((rows, columns), np.uint8)
    thick = max(1, round(width * times))
    cv2.circle(ink, middle, radius, 255, thick)
    cv2.line(ink, (middle[0] - radius, middle[1]), (middle[0] + radius, middle[1]), 255, thick)
    end = middle[1] if gap else middle[1] + radius
    cv2.line(ink, (middle[0], middle[1] - radius), (middle[0], end), 255, thick)
    cover = _shrunk(ink.astype(np.float32) / 255, size)[..., None]
    colors = np.array([(1.0, 1.0, 1.0), *COLORS], np.float32)
    drawn = cover * np.array(stroke, np.float32) + (1 - cover) * np.float32(paper)
    truth = cover * np.array(stroke, np.float32) + (1 - cover) * _shrunk(colors[parts], size)
    alpha = _shrunk(((parts > 0) | (ink > 0)).astype(np.float32), size)
    return drawn.astype(np.float32), truth.astype(np.float32), alpha


def flats(size: tuple[int, int] = (300, 240)) -> Float:
    """The colors alone, no lines, running on past the outline: what a model that makes no mistake would paint."""
    columns, rows = size
    y, x = np.mgrid[:rows, :columns]
    return np.array(COLORS, np.float32)[(x > columns // 2) + 2 * (y > rows // 2)]


def picture(color: Float, alpha: Float | None = None) -> Picture:
    return Picture(color, alpha, FORMATS["png8"], 3 if alpha is None else 4)


def prepared(drawing: Picture, preset: Preset) -> PreparedFrame:
    return prepare_frame(drawing, preset, MINI)


def key_of(truth: Float, alpha: Float | None, preset: Preset) -> PreparedKey:
    return prepare_key(picture(truth, alpha), preset, MINI)


def painted(frame: PreparedFrame, colors: Float) -> Float:
    """The layer that a model without mistakes gives: the true colors at the size of the canvas."""
    return to_canvas(colors, frame.canvas, 1)


def shown(color: Float, alpha: Float | None) -> Float:
    """The finished frame over white."""
    return over_paper(picture(color, alpha))


def _shrunk(image: Float, size: tuple[int, int]) -> Float:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
