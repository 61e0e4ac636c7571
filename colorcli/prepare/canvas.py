"""The canvas: a frame is laid onto the model's size with its aspect kept, and comes back exactly."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.prepare.lineart import LUMINANCE

Float = NDArray[np.float32]
Box = tuple[int, int, int, int]  # left, top, width, height


@dataclass(frozen=True)
class Canvas:
    """Where a frame lies on the model's canvas."""

    source: tuple[int, int]   # width, height of the frame, pixels
    crop: Box                 # the part of the frame that fills the canvas; outside the frame is paper
    size: tuple[int, int]     # width, height of the canvas, pixels
    window: Box               # where the crop lies on the canvas; around it is paper


def fit_canvas(
    source: tuple[int, int],
    *,
    area: int,
    multiple_of: int,
    min_side: int,
    max_side: int,
    crop: Box | None = None,
    size: tuple[int, int] | None = None,
) -> Canvas:
    """Choose the canvas for a frame of `source` = (width, height): about `area` pixels, the aspect of the crop.

    Both sides are multiples of `multiple_of` within min_side..max_side; the crop (default: the whole frame) is scaled
    with its aspect kept and centered. size: (width, height) to take instead.
    """
    crop = crop or (0, 0, *source)
    assert min(source) > 0 and min(crop[2:]) > 0, (source, crop)
    aspect = crop[2] / crop[3]
    low, high = math.ceil(min_side / multiple_of), max_side // multiple_of
    ideal = math.sqrt(area * aspect) / multiple_of, math.sqrt(area / aspect) / multiple_of
    steps = [{min(max(n, low), high) for n in (math.floor(side), math.ceil(side))} for side in ideal]

    def waste(size: tuple[int, int]) -> float:
        scale = min(size[0] / crop[2], size[1] / crop[3])
        covered = crop[2] * crop[3] * scale**2 / (size[0] * size[1])
        return (1 - covered) + abs(math.log(size[0] * size[1] / area))

    sizes = sorted((w * multiple_of, h * multiple_of) for w in steps[0] for h in steps[1])
    size = size or min(sizes, key=waste)
    scale = min(size[0] / crop[2], size[1] / crop[3])
    inner = [min(max(round(side * scale), 1), limit) for side, limit in zip(crop[2:], size, strict=True)]
    window = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, inner[0], inner[1])
    return Canvas(source, crop, size, window)


def autofit_size(
    source: tuple[int, int], *, area: int, multiple_of: int, min_side: int, max_side: int
) -> tuple[int, int]:
    """Give the canvas (width, height) that the published program's automatic size makes of `source`.

    Each side is rounded and held within its limits for itself, so the aspect may change more than with `fit_canvas`.
    """
    aspect = source[0] / source[1]
    height = int(math.sqrt(area / aspect))
    sides = (int(height * aspect), height)
    width, height = ((side + multiple_of // 2) // multiple_of * multiple_of for side in sides)
    return min(max(width, min_side), max_side), min(max(height, min_side), max_side)


def letterboxed(source: tuple[int, int], size: tuple[int, int], crop: Box | None = None) -> Canvas:
    """Lay a crop (default: the whole frame) into the middle of a canvas (width, height) as the published program does.

    Fractions of a pixel are cut off, where `fit_canvas` rounds them.
    """
    crop = crop or (0, 0, *source)
    scale = min(size[1] / crop[3], size[0] / crop[2])
    width, height = (max(int(side * scale), 1) for side in crop[2:])
    return Canvas(source, crop, size, ((size[0] - width) // 2, (size[1] - height) // 2, width, height))


def published_ink(picture: Float, canvas: Canvas) -> Float:
    """Lay a drawing, dark on light, onto the canvas as the published program does: nothing is cleaned.

    picture: (H, W, 3), 0..1. Gives (h, w), 0 paper .. 1 line, in 256 steps; colors become their luminance.
    """
    from PIL import Image

    shades = np.rint(_cut(picture, canvas.crop, 1) @ LUMINANCE[0] * 255).astype(np.uint8)
    left, top, width, height = canvas.window
    # Pillow's bicubic filter is wider where it shrinks, which OpenCV's is not.
    resized = np.asarray(Image.fromarray(shades).resize((width, height), Image.Resampling.BICUBIC))
    paper = np.full(canvas.size[::-1], 255, np.uint8)
    paper[top : top + height, left : left + width] = resized
    return 1 - paper.astype(np.float32) / np.float32(255)


def to_canvas(image: Float, canvas: Canvas, fill: float) -> Float:
    """Lay an image of source size onto the canvas; what lies outside the frame becomes `fill`.

    image: (H, W) or (H, W, C), 0..1. Shrinks by area, enlarges bicubically, cut at 0 and 1.
    """
    assert image.shape[1::-1] == canvas.source, (image.shape, canvas)
    cut = _resized(_cut(image, canvas.crop, fill), canvas.window[2:])
    result = np.full((canvas.size[1], canvas.size[0], *image.shape[2:]), fill, np.float32)
    left, top, width, height = canvas.window
    result[top : top + height, left : left + width] = cut
    return result


def from_canvas(image: Float, canvas: Canvas, fill: float) -> Float:
    """Bring an image of canvas size back to the frame: source size again, `fill` where the canvas saw nothing.

    image: (h, w) or (h, w, C), 0..1.
    """
    assert image.shape[1::-1] == canvas.size, (image.shape, canvas)
    left, top, width, height = canvas.window
    inner = _resized(image[top : top + height, left : left + width], canvas.crop[2:])
    return _cut(inner, (-canvas.crop[0], -canvas.crop[1], *canvas.source), fill)


def bounds(mask: NDArray[np.generic]) -> Box | None:
    """Give the smallest box around what is not zero; None if all is. mask: (H, W)."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (left, top, width, height) if width and height else None


def with_margin(box: Box, margin: float) -> Box:
    """Widen a box on all sides by `margin` of its longer side; it may then reach outside the frame."""
    edge = round(margin * max(box[2:]))
    return box[0] - edge, box[1] - edge, box[2] + 2 * edge, box[3] + 2 * edge


def _cut(image: Float, box: Box, fill: float) -> Float:
    """Cut a box out of an image; what lies outside the image becomes `fill`."""
    left, top, width, height = box
    rows, columns = image.shape[:2]
    if (left, top, width, height) == (0, 0, columns, rows):
        return image
    result = np.full((height, width, *image.shape[2:]), fill, np.float32)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, columns), min(top + height, rows)
    if x1 > x0 and y1 > y0:
        result[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return result


def _resized(image: Float, size: tuple[int, int]) -> Float:
    """Resize to (width, height): by area where both sides shrink, bicubically otherwise; cut at 0 and 1."""
    if image.shape[1::-1] == size:
        return np.ascontiguousarray(image)
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    result = cv2.resize(np.ascontiguousarray(image), size, interpolation=method)
    return np.clip(result, 0, 1) if not shrinks else result
