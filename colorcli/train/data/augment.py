"""What is done at random to pictures before a network sees them: blanked margins, widened masks, other backgrounds.

Pictures are 8-bit, lines dark on white paper: polarity is turned when the batch is made.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from colorcli.prepare.masks import bounding_box, dilate, expand_grid

Bytes = NDArray[np.uint8]

FLAT_MASK = 128          # mask level below which a pixel is background for a flat background
LIGHT_GRAY = 245, 255    # levels of a flat background that is paper
PAPER_SHARE = 0.95       # of flat backgrounds that are paper
WIDER = 0.05, 0.15       # share by which a picture on a flat background is padded


@dataclass(frozen=True)
class MaskChanges:
    """How the mask of a reference is changed: one of these, tried in this order. Defaults: the published XL training.

    A model that is told exactly where the character was takes that shape for the one to be painted.
    """

    box: float = 0.0          # probability that its bounding box takes its place
    grid: float = 0.33        # probability, of what is left, that it fills whole cells of a grid
    erase: float = 0.33       # probability, of what is left, that a rectangle may be laid over it
    erase_done: float = 0.5   # probability that the rectangle is laid then
    cell: tuple[int, int] = (60, 40)             # rows and columns of a grid's cell, pixels
    erase_area: tuple[float, float] = (0.2, 0.5)   # of the rectangle, share of the picture
    erase_aspect: tuple[float, float] = (0.2, 3.0)  # of the rectangle, height over width
    dilation: int = 21        # side of the square by which it grows otherwise, odd, pixels


def change_mask(mask: Bytes, changes: MaskChanges, rng: np.random.Generator) -> Bytes:
    """Widen a reference's mask (S, S), or fill a rectangle of it, as the draws say."""
    if rng.random() < changes.box:
        return _to_bytes(bounding_box(_to_unit(mask)))
    if rng.random() < changes.grid:
        return _to_bytes(expand_grid(_to_unit(mask), changes.cell))
    if rng.random() < changes.erase:
        return _filled(mask, changes, rng) if rng.random() < changes.erase_done else mask
    return _to_bytes(dilate(_to_unit(mask), changes.dilation))


def _filled(mask: Bytes, changes: MaskChanges, rng: np.random.Generator) -> Bytes:
    """Lay a full rectangle of a random size and shape over the mask; none if ten tries do not fit."""
    rows, columns = mask.shape
    for _ in range(10):
        area = rng.uniform(*changes.erase_area) * rows * columns
        aspect = np.exp(rng.uniform(*np.log(changes.erase_aspect)))
        height, width = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if height < rows and width < columns:
            top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
            result = mask.copy()
            result[top : top + height, left : left + width] = 255
            return result
    return mask


def blank_margins(sketch: Bytes, down: int, across: int, rng: np.random.Generator) -> Bytes:
    """Make the margins of line art paper: rows, columns, both or nothing, each in a quarter of the cases.

    sketch: (H, W, 3). down, across: most rows at top and bottom, most columns left and right, pixels. The picture to be
    painted keeps its margins, so that the model learns to go on beyond what is drawn.
    """
    rows, columns = int(rng.integers(down + 1)), int(rng.integers(across + 1))
    case = int(rng.integers(4))
    result = sketch.copy()
    if case in (0, 2):
        result[:rows] = result[len(result) - rows :] = 255
    if case in (1, 2):
        result[:, :columns] = result[:, result.shape[1] - columns :] = 255
    return result


@dataclass(frozen=True)
class Layers:
    """A picture, its line art and its mask, all of one size."""

    color: Image.Image    # RGB
    sketch: Image.Image   # RGB
    mask: Image.Image     # gray


def flat_background(
    target: Layers, reference: Layers, rng: np.random.Generator
) -> tuple[Layers, Layers]:
    """Paint both backgrounds in one color, mostly paper, erase that of the sketch, and give the target more room.

    The room is above and at both sides: figures stand on the lower border. Of the reference the color alone changes.
    """
    if rng.random() < PAPER_SHARE:
        gray = int(rng.integers(LIGHT_GRAY[0], LIGHT_GRAY[1] + 1))
        paint = (gray, gray, gray)
    else:
        paint = (int(rng.integers(256)), int(rng.integers(256)), int(rng.integers(256)))
    painted = Layers(
        _with_background(target.color, target.mask, paint),
        _with_background(target.sketch, target.mask, (255, 255, 255)),
        target.mask,
    )
    width, height = target.color.size
    factor = 1 + float(rng.uniform(*WIDER))
    room = round(width * factor), round(height * factor)
    place = (room[0] - width) // 2, room[1] - height
    wider = Layers(
        _laid_into(painted.color, room, place, paint).resize((width, height), Image.Resampling.LANCZOS),
        _laid_into(painted.sketch, room, place, (255, 255, 255)).resize((width, height), Image.Resampling.LANCZOS),
        _laid_into(painted.mask, room, place, 0).resize((width, height), Image.Resampling.NEAREST),
    )
    return wider, Layers(_with_background(reference.color, reference.mask, paint), reference.sketch, reference.mask)


def _with_background(picture: Image.Image, mask: Image.Image, paint: tuple[int, ...]) -> Image.Image:
    pixels = np.array(picture)
    pixels[np.asarray(mask) < FLAT_MASK] = paint
    return Image.fromarray(pixels)


def _laid_into(
    picture: Image.Image, size: tuple[int, int], place: tuple[int, int], paint: tuple[int, ...] | int
) -> Image.Image:
    canvas = Image.new(picture.mode, size, paint)
    canvas.paste(picture, place)
    return canvas


def turned(reference: Layers, degrees: float) -> Layers:
    """Rotate a reference and its mask around the middle, on white paper."""
    return Layers(
        reference.color.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)),
        reference.sketch,
        reference.mask.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=0),
    )


def jittered(pictures: tuple[Image.Image, ...], strength: float, rng: np.random.Generator) -> tuple[Image.Image, ...]:
    """Change brightness, contrast and saturation of several pictures by the same factors, within 1 +- strength.

    The same for picture and reference: the color of one must stay the color of the other.
    """
    factors = rng.uniform(1 - strength, 1 + strength, 3)
    result = []
    for picture in pictures:
        for enhancer, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors,
                                    strict=True):
            picture = enhancer(picture).enhance(float(factor))
        result.append(picture)
    return tuple(result)


def _to_unit(mask: Bytes) -> NDArray[np.float32]:
    return mask.astype(np.float32) / np.float32(255)


def _to_bytes(mask: NDArray[np.float32]) -> Bytes:
    return np.round(mask * 255).astype(np.uint8)
