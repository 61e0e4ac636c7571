"""Character masks: where the character is, from alpha, from files, or from the drawing itself."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture
from colorcli.prepare.lineart import LineArt
from colorcli.presets import MaskSettings

Float = NDArray[np.float32]


def expand_grid(mask: Float, cell: tuple[int, int]) -> Float:
    """Fill every cell of a grid with the largest mask value in it; never below the mask itself.

    mask: (..., H, W). cell: rows and columns, limited to half the picture. Cells start at the top left; an incomplete
    cell at the right or bottom keeps the mask. arXiv:2504.06895, preparation of the reference mask.
    """
    rows, columns = mask.shape[-2:]
    height, width = min(cell[0], rows // 2), min(cell[1], columns // 2)
    down, across = rows // height, columns // width
    whole = mask[..., : down * height, : across * width]
    cells = whole.reshape(*mask.shape[:-2], down, height, across, width).max((-3, -1))
    result = mask.copy()
    spread = cells.repeat(height, -2).repeat(width, -1)
    result[..., : down * height, : across * width] = np.maximum(whole, spread)
    return result


def bounding_box(mask: Float) -> Float:
    """Fill the smallest box around the values above 0.5; a mask without any stays as it is. mask: (..., H, W)."""
    layers = []
    for layer in mask.reshape(-1, *mask.shape[-2:]):
        rows, columns = np.nonzero(layer > 0.5)
        if rows.size:
            box = np.zeros_like(layer)
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
            layer = box
        layers.append(layer)
    return np.stack(layers).reshape(mask.shape)


def threshold(mask: Float, level: float | Float) -> Float:
    """Give 1 where the mask is above `level`, else 0. mask: (B, ..., H, W). level: one number, or (B,)."""
    levels = np.asarray(level, np.float32)
    if levels.ndim:
        levels = levels.reshape(-1, *[1] * (mask.ndim - 1))
    return (mask > levels).astype(np.float32)


def dilate(mask: Float, size: int) -> Float:
    """Give the largest value in the `size` x `size` square around each pixel; size is odd. mask: (..., H, W)."""
    assert size % 2 == 1, size
    kernel = np.ones((size, size), np.uint8)
    layers = [cv2.dilate(layer, kernel) for layer in mask.reshape(-1, *mask.shape[-2:])]
    return np.stack(layers).reshape(mask.shape)


def merge_masks(masks: Sequence[Float], rule: str) -> Float:
    """Make one mask of several characters' masks: the largest value ("union"), or the first mask alone ("first")."""
    assert masks, "nothing to merge"
    if rule == "first":
        return masks[0]
    result: Float = np.maximum.reduce(list(masks))
    return result


def alpha_mask(picture: Picture) -> Float | None:
    """Give the alpha where it outlines a character; None where it says nothing about it."""
    alpha = picture.alpha
    if alpha is None or float((alpha > 0.5).mean()) > 0.995:
        return None
    return alpha


def mask_from_lines(ink: Float) -> Float:
    """Find the character in closed line art: what paper flowing in from the border does not reach."""
    rows, columns = ink.shape
    flooded = np.zeros((rows + 2, columns + 2), np.uint8)
    flooded[1:-1, 1:-1] = ink > 0.2
    cv2.floodFill(np.pad((ink > 0.2).astype(np.uint8), 1), flooded * 0, (0, 0), 2)
    canvas = np.pad((ink > 0.2).astype(np.uint8), 1)
    cv2.floodFill(canvas, None, (0, 0), 2)
    return (canvas[1:-1, 1:-1] != 2).astype(np.float32)


def mask_from_flat(color: Float, ink: Float) -> Float:
    """Find the character in a flat colored key: what the paper's color flowing in from the border does not reach."""
    border = np.concatenate([color[0], color[-1], color[:, 0], color[:, -1]])
    paper = np.median(border, axis=0)
    return mask_from_lines((np.abs(color - paper).max(-1) > 0.06).astype(np.float32))


def character_mask(
    picture: Picture, lines: LineArt, settings: MaskSettings, given: Sequence[Float] = (), *, colored: bool = False
) -> Float:
    """Give the mask of the character, (H, W) in 0..1, by the preset's rule.

    given: masks that came as files, source size. colored: the picture is a colored key, not line art.
    """
    from colorcli.images import over_paper

    alpha = alpha_mask(picture)
    if settings.source == "none":
        mask = np.ones(lines.ink.shape, np.float32)
    elif given and settings.source in ("auto", "files"):
        mask = merge_masks(given, settings.merge)
    elif settings.source in ("auto", "alpha") and alpha is not None:
        mask = alpha
    elif colored:
        mask = mask_from_flat(over_paper(picture), lines.ink)
    else:
        mask = mask_from_lines(lines.ink)
    return dilate(mask, 2 * settings.grow_px + 1) if settings.grow_px else mask
