"""The color match: every part of the frame gets the color that the same part has in the key.

It is where mini starts from instead of pure noise. The parts are read by the heads that trained the encoders, so frame
and key are compared by what is drawn, and by where it is in the figure; a closed region gets one color.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colorcli.prepare.canvas import Canvas, to_canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.palette import Palette
from colorcli.prepare.regions import closed_regions, nearest_labelled

Floats = NDArray[np.float32]

CELL = 8  # pixels of a cell of the sketch encoder's finest map
POSITION_SIGMA = 0.12  # how far a part may wander inside the figure, as a fraction of the figure's height
PART_SHARPNESS = 3.0  # exponent of the agreement between two part readings
INK_BOUND = 0.25  # ink above this bounds a region


@dataclass(frozen=True)
class PartMap:
    """What is drawn where on a canvas."""

    parts: Tensor  # (P, rows, columns) probabilities of the parts in each cell
    places: Tensor  # (2, rows, columns) x and y in the figure, 0..1 of its height, from its top middle
    inside: Tensor  # (rows, columns) share of the character, 0..1


@dataclass(frozen=True)
class KeyMap:
    """The key's parts and which palette colors they have."""

    map: PartMap
    colors: Tensor  # (rows, columns, K) share of each palette color in each cell
    palette: Tensor  # (K, 3) 0..1


def part_map(probabilities: Tensor, mask: Floats) -> PartMap:
    """Give the part map of a canvas; probabilities (P, rows, columns), mask (h, w) 0..1 on the canvas."""
    rows, columns = probabilities.shape[1:]
    inside = torch.from_numpy(np.asarray(cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA)))
    filled = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    top, bottom = (filled[0][0], filled[0][-1] + 1) if len(filled[0]) else (0, mask.shape[0])
    left, right = (filled[1][0], filled[1][-1] + 1) if len(filled[1]) else (0, mask.shape[1])
    y = ((torch.arange(rows) + 0.5) * CELL - top) / (bottom - top)
    x = ((torch.arange(columns) + 0.5) * CELL - (left + right) / 2) / (bottom - top)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    return PartMap(probabilities, places.float(), inside)


def key_map(parts: PartMap, palette: Palette) -> KeyMap:
    """Count the palette colors in every cell of the key; the palette's index has the canvas' size."""
    rows, columns = parts.parts.shape[1:]
    index = torch.from_numpy(palette.index.astype(np.int64))
    one_hot = F.one_hot(index + 1, len(palette.colors) + 1)[..., 1:].float()  # (h, w, K)
    shares = F.adaptive_avg_pool2d(one_hot.permute(2, 0, 1), (rows, columns)).permute(1, 2, 0)
    return KeyMap(parts, shares, torch.from_numpy(palette.colors))


def match_cells(
    frame: PartMap, key: KeyMap, *, sigma: float = POSITION_SIGMA, sharpness: float = PART_SHARPNESS
) -> Tensor:
    """Give the likelihood of each palette color in each cell of the frame, (rows, columns, K).

    A key cell speaks to a frame cell by the agreement of their part readings, sum_p f_p k_p to the power `sharpness`,
    times a Gaussian of their distance in the figure; it speaks for the colors that it holds.
    """
    f, k = frame.parts.flatten(1), key.map.parts.flatten(1)  # (P, N), (P, M)
    f, k = F.normalize(f, dim=0), F.normalize(k, dim=0)
    agreement = (f.mT @ k).clamp_min(1e-4) ** sharpness  # (N, M)
    distance = torch.cdist(frame.places.flatten(1).mT, key.map.places.flatten(1).mT)
    weight = agreement * (torch.exp(-0.5 * (distance / sigma) ** 2) + 0.02)
    votes = weight @ key.colors.flatten(0, 1)  # (N, K)
    votes = votes / votes.sum(1, keepdim=True).clamp_min(1e-8)
    return votes.view(*frame.parts.shape[1:], -1)


def paint_match(votes: Tensor, palette: Tensor, frame: PreparedFrame) -> Floats:
    """Paint the frame's canvas, (h, w, 3) in 0..1: each closed region has the color most voted for in it.

    votes: (rows, columns, K) of the canvas' cells. palette: (K, 3). The regions are found at the size of the drawing,
    where thin lines still close; color runs on under the lines; outside the character is white.
    """
    regions = closed_regions(frame.lines.ink, frame.mask)
    if not regions.count:
        return np.ones((*frame.ink_canvas.shape, 3), np.float32)
    places = np.flatnonzero(regions.labels)
    cells = cells_of(places, frame.canvas, votes.shape[1])
    numbers = regions.labels.reshape(-1)[places].astype(np.int64) - 1
    count = regions.count * votes.shape[0] * votes.shape[1]
    pixels = np.bincount(numbers * (votes.shape[0] * votes.shape[1]) + cells, minlength=count)
    shares = torch.from_numpy(pixels.reshape(regions.count, -1).astype(np.float32))  # (regions, cells)
    totals = shares @ votes.flatten(0, 1)  # (regions, K)
    chosen = palette[totals.argmax(1)].numpy()
    painted = chosen[regions.labels.reshape(-1)[nearest_labelled(regions.labels)] - 1]  # (H, W, 3)
    painted = np.where((frame.mask > 0.5)[..., None], painted, np.float32(1))
    return to_canvas(painted.astype(np.float32), frame.canvas, 1.0)


def cells_of(places: NDArray[np.int64], canvas: Canvas, columns: int) -> NDArray[np.int64]:
    """Give the number of the canvas cell under each flat position of the drawing; cells are counted by rows."""
    y, x = np.divmod(places, canvas.source[0])
    (left, top, width, height), (to_left, to_top, to_width, to_height) = canvas.crop, canvas.window
    column = ((x + 0.5 - left) * to_width / width + to_left) / CELL
    row = ((y + 0.5 - top) * to_height / height + to_top) / CELL
    rows = canvas.size[1] // CELL
    return np.clip(row, 0, rows - 1).astype(np.int64) * columns + np.clip(column, 0, columns - 1).astype(np.int64)
