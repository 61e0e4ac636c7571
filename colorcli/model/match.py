"""The color match: every region of the frame gets the color of the region of the key that it is most like.

It is where mini starts from instead of pure noise. Regions are alike if the same parts of the body are read in them by
the networks, if they lie at about the same place in the figure, and if they are about as large: the hand-made rule. A
trained `RegionMatcher` looks at all regions of both pictures at once, and its opinion is added to the rule's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colorcli.model.matcher import GEOMETRY, RegionMatcher, color_scores
from colorcli.prepare.canvas import Canvas, to_canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.palette import SAME_COLOR, Palette, lab
from colorcli.prepare.region_views import region_views
from colorcli.prepare.regions import Regions, nearest_labelled

Floats = NDArray[np.float32]

CELL = 8        # pixels of a cell of the part readings, on the canvas
MIRRORED = (-GEOMETRY, 4 - GEOMETRY)  # numbers of a region's token that change their sign in a mirror: middle, slant
SAMPLED_PX = 512  # pixels along the longer side of a drawing, at most, that tell where its regions lie
SPECK_PX = 8    # smaller spots of color in the key are no regions


@dataclass(frozen=True)
class MatchRule:
    """How much each likeness counts. The values were chosen on generated characters of styles never trained on."""

    part_power: float = 16.0       # exponent of the Bhattacharyya coefficient of two part readings
    place_sigma: float = 0.12      # how far a region may wander in the figure, in heights of the figure
    size_sigma: float = 1.5        # standard deviation of the logarithm of the ratio of two areas
    cell_power: float = 0.25       # how much the likeness of single cells counts beside that of whole regions
    faint: float = 1e-3            # likeness that every color has at least


RULE = MatchRule()


@dataclass(frozen=True)
class PartMap:
    """What is drawn where on a canvas."""

    parts: Tensor      # (P, rows, columns) probabilities of the parts in each cell
    features: Tensor   # (C, rows, columns) the denoising network's last features, which they were read from
    places: Tensor     # (2, rows, columns) x and y in the figure, in its heights, from its top middle


@dataclass(frozen=True)
class RegionReadings:
    """What is drawn in each region of a picture, and where."""

    parts: Tensor      # (R, P) mean probabilities
    places: Tensor     # (R, 2) middle, in heights of the figure
    sizes: Tensor      # (R,) logarithm of the area, in squared heights of the figure
    features: Tensor   # (R, C) mean features
    geometry: Tensor   # (R, GEOMETRY) middle and spread in x and y, slant, size, and how much like an ellipse it is
    cells: Tensor      # (R, rows * columns) share of the region in each cell of the canvas
    views: Tensor      # (R, VIEWS, side, side) uint8, see `region_views`


@dataclass(frozen=True)
class KeyMap:
    """The key's parts and regions, and which palette colors they have."""

    map: PartMap
    cell_colors: Tensor      # (rows, columns, K) share of each palette color in each cell
    regions: RegionReadings
    region_colors: Tensor    # (R,) number of each region's palette color
    palette: Tensor          # (K, 3) 0..1


def part_map(probabilities: Tensor, mask: Floats, features: Tensor | None = None) -> PartMap:
    """Give the part map of a canvas; probabilities (P, rows, columns), mask (h, w) 0..1 on the canvas.

    features: (C, rows, columns), needed by a matcher only.
    """
    rows, columns = probabilities.shape[1:]
    left, top, width, height = _figure(mask)
    y = ((torch.arange(rows) + 0.5) * CELL - top) / height
    x = ((torch.arange(columns) + 0.5) * CELL - (left + width / 2)) / height
    seen = probabilities[:0] if features is None else features
    return PartMap(probabilities, seen, torch.stack(torch.meshgrid(x, y, indexing="xy")).float())


def key_map(parts: PartMap, key: PreparedKey) -> KeyMap:
    """Find the regions of one color in the key, and read their parts."""
    palette = key.palette
    regions, colors = color_regions(palette)
    readings = read_regions(regions, parts, key.canvas, key.mask_canvas, key.ink)
    count, cells = len(palette.colors), parts.parts.shape[1] * parts.parts.shape[2]
    shown = np.flatnonzero(palette.index >= 0)
    numbers = cells_of(shown, key.canvas) * count + palette.index.reshape(-1)[shown]
    shares = np.bincount(numbers, minlength=cells * count).reshape(*parts.parts.shape[1:], count) / CELL**2
    cell_colors = torch.from_numpy(shares.astype(np.float32))
    return KeyMap(parts, cell_colors, readings, torch.from_numpy(colors), torch.from_numpy(palette.colors))


def join_key_maps(maps: Sequence[KeyMap]) -> KeyMap:
    """Lay the readings of several keys of one character together, as if one key showed all their regions.

    Places stay those in each key's own figure. Colors that look the same in two keys become one, the earlier key's.
    The cells of all keys come in one row, (cells, 1).
    """
    colors = torch.cat([one.palette for one in maps])  # (K of all, 3)
    seen = lab(colors.numpy())
    same = np.linalg.norm(seen[:, None] - seen[None], axis=-1) < SAME_COLOR  # (K, K)
    kept: list[int] = []
    number = np.zeros(len(colors), np.int64)  # of each color, in the joined palette
    for color in range(len(colors)):
        like = [place for place, other in enumerate(kept) if same[color, other]]
        number[color] = like[0] if like else len(kept)
        kept += [] if like else [color]
    numbers = torch.from_numpy(number).split([len(one.palette) for one in maps])
    cells = [one.cell_colors.flatten(0, 1) for one in maps]
    shares = [
        torch.zeros(len(own), len(kept)).index_add(1, where, own) for own, where in zip(cells, numbers, strict=True)
    ]
    readings = [one.regions for one in maps]
    return KeyMap(
        map=PartMap(
            parts=torch.cat([one.map.parts.flatten(1) for one in maps], dim=1)[..., None],
            features=torch.cat([one.map.features.flatten(1) for one in maps], dim=1)[..., None],
            places=torch.cat([one.map.places.flatten(1) for one in maps], dim=1)[..., None],
        ),
        cell_colors=torch.cat(shares)[:, None],
        regions=RegionReadings(
            parts=torch.cat([one.parts for one in readings]),
            places=torch.cat([one.places for one in readings]),
            sizes=torch.cat([one.sizes for one in readings]),
            features=torch.cat([one.features for one in readings]),
            geometry=torch.cat([one.geometry for one in readings]),
            cells=torch.block_diag(*(one.cells for one in readings)),
            views=torch.cat([one.views for one in readings]),
        ),
        region_colors=torch.cat([where[one.region_colors] for one, where in zip(maps, numbers, strict=True)]),
        palette=colors[kept],
    )


def color_regions(palette: Palette) -> tuple[Regions, NDArray[np.int64]]:
    """Find the connected spots of one palette color: the regions, and the number of each one's color."""
    labels = np.zeros(palette.index.shape, np.int32)
    colors: list[int] = []
    for color in range(len(palette.colors)):
        spots = (palette.index == color).astype(np.uint8)
        count, found, stats, _ = cv2.connectedComponentsWithStats(spots, connectivity=4, ltype=cv2.CV_32S)
        large = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= SPECK_PX]
        renumbered = np.zeros(count, np.int32)
        renumbered[large] = len(colors) + 1 + np.arange(len(large))
        labels += renumbered[found]
        colors += [color] * len(large)
    areas = np.bincount(labels.reshape(-1), minlength=len(colors) + 1)
    areas[0] = 0
    return Regions(labels, np.zeros((0, 0), np.float32), areas), np.array(colors, np.int64)


def read_regions(regions: Regions, parts: PartMap, canvas: Canvas, mask: Floats, ink: Floats) -> RegionReadings:
    """Take the mean of the readings and of the place over each region, and look at how it is drawn.

    mask is that of the canvas, (h, w); ink that of the drawing, (H, W).
    """
    cells = parts.parts.shape[1] * parts.parts.shape[2]
    places = np.flatnonzero(regions.labels)
    numbers = (regions.labels.reshape(-1)[places].astype(np.int64) - 1) * cells + cells_of(places, canvas)
    pixels = np.bincount(numbers, minlength=regions.count * cells).reshape(regions.count, cells)
    shares = torch.from_numpy((pixels / np.maximum(pixels.sum(1, keepdims=True), 1)).astype(np.float32))
    canvas_pixels = regions.areas[1:] * (canvas.window[2] / canvas.crop[2]) ** 2
    sizes = np.log(np.maximum(canvas_pixels, 1.0) / _figure(mask)[3] ** 2)
    return RegionReadings(
        parts=shares @ parts.parts.flatten(1).mT,
        places=shares @ parts.places.flatten(1).mT,
        sizes=torch.from_numpy(sizes.astype(np.float32)),
        features=shares @ parts.features.flatten(1).mT,
        geometry=torch.from_numpy(_geometry(regions, canvas, mask)),
        cells=shares,
        views=torch.from_numpy(region_views(regions, ink, _figure(mask)[3] * canvas.crop[2] / canvas.window[2])),
    )


def _geometry(regions: Regions, canvas: Canvas, mask: Floats) -> Floats:
    """Measure every region, (R, GEOMETRY), each number about -1..1; lengths are heights of the figure."""
    labels = regions.labels.reshape(-1)
    pixels = np.flatnonzero(labels)
    numbers = labels[pixels] - 1
    left, top, width, height = _figure(mask)
    x, y = canvas_places(pixels, canvas)
    x, y = (x - left - width / 2) / height, (y - top) / height
    counts = np.bincount(numbers, minlength=regions.count)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(numbers, weights=values, minlength=regions.count) / np.maximum(counts, 1)

    across, down = mean(x), mean(y)
    var_x, var_y, both = mean(x * x) - across**2, mean(y * y) - down**2, mean(x * y) - across * down
    wide, tall = np.sqrt(np.maximum(var_x, 1e-8)), np.sqrt(np.maximum(var_y, 1e-8))
    area = counts * (canvas.window[2] / canvas.crop[2]) ** 2 / height**2
    # An ellipse of these variances has 4 pi sqrt(det) of area.
    fill = np.minimum(area / (12 * np.sqrt(np.maximum(var_x * var_y - both**2, 1e-12))), 3)
    size = np.log(np.maximum(area, 1e-8)) / 3 + 2
    return np.stack([across, down, 4 * wide, 4 * tall, both / (wide * tall), size, fill], axis=1).astype(np.float32)


def region_tokens(regions: RegionReadings) -> Tensor:
    """Describe regions to a `RegionMatcher`: (R, P + C + GEOMETRY)."""
    return torch.cat([regions.parts.clamp_min(1e-6).sqrt(), regions.features, regions.geometry], dim=1)


@dataclass(frozen=True)
class Match:
    """How well each color of the key suits each region of a frame."""

    regions: RegionReadings
    scores: Tensor   # (R, K) logarithms, not normalised
    nearest: Tensor  # (R,) the rule's score of the color that it finds most alike
    sampled: Tensor  # (h, w) numbers of the regions, from 1, at pixels spread over the drawing; 0: none

    @property
    def chosen(self) -> Tensor:
        """Number of the palette color that suits each region best, (R,)."""
        return self.scores.argmax(1)


def can_match(frame: PreparedFrame, key: KeyMap) -> bool:
    """Whether there are regions on both sides: in the frame, and in the key."""
    return frame.regions.count > 0 and len(key.region_colors) > 0


def match_frame(
    parts: PartMap, frame: PreparedFrame, key: KeyMap, matcher: RegionMatcher | None = None, rule: MatchRule = RULE
) -> Match:
    """Compare the regions of a frame with those of the key.

    The regions are found at the size of the drawing, where thin lines still close. Frame and key must have some.
    """
    readings = read_regions(frame.regions, parts, frame.canvas, frame.mask_canvas, frame.lines.ink)
    scores = rule_scores(parts, readings, key, rule)
    step = -(-max(frame.regions.labels.shape) // SAMPLED_PX)
    own = Match(readings, scores, scores.amax(1), torch.from_numpy(frame.regions.labels[::step, ::step].copy()))
    if matcher is None:
        return own
    colors = key.palette[key.region_colors] * 2 - 1  # (S, 3)
    tokens, key_tokens = region_tokens(readings), region_tokens(key.regions)
    there = [torch.ones(1, len(each), dtype=torch.bool) for each in (tokens, key_tokens)]
    device = matcher.device
    views = (x.to(device).float() / 255 for x in (readings.views, key.regions.views))
    seen = (x[None].to(device) for x in (tokens, key_tokens, colors))
    logits = matcher(*seen, *(x.to(device) for x in there), *views)
    learned = color_scores(logits[0].float().cpu(), key.region_colors, scores, float(matcher.rule_share))
    return replace(own, scores=learned)


def rule_scores(frame: PartMap, regions: RegionReadings, key: KeyMap, rule: MatchRule = RULE) -> Tensor:
    """Give the hand-made score of each palette color for each region of the frame, (R, K), a logarithm.

    A color speaks with its most alike region of the key, and with the cells that show it: a key cell speaks to a frame
    cell by the agreement of their part readings and the nearness of their places.
    """
    alike = _likeness(regions.parts, key.regions.parts, rule) * _nearness(regions.places, key.regions.places, rule)
    ratio = regions.sizes[:, None] - key.regions.sizes[None]
    alike = alike * torch.exp(-0.5 * (ratio / rule.size_sigma) ** 2)  # (R, key regions)
    count = len(key.palette)
    best = torch.zeros(len(alike), count)
    best.scatter_reduce_(1, key.region_colors[None].expand_as(alike), alike, "amax")  # (R, K)
    # Cells without a region, and cells of the key without a color, have no voice: most of the canvas.
    colors = key.cell_colors.flatten(0, 1)  # (key cells, K)
    here, there = regions.cells.any(0), colors.any(1)
    cells = _likeness(frame.parts.flatten(1).mT[here], key.map.parts.flatten(1).mT[there], rule)
    cells = cells * _nearness(frame.places.flatten(1).mT[here], key.map.places.flatten(1).mT[there], rule)
    votes = cells @ colors[there]
    votes = regions.cells[:, here] @ (votes / votes.sum(1, keepdim=True).clamp_min(1e-8))  # (R, K)
    return (best + rule.faint).log() + rule.cell_power * (votes + rule.faint).log()


@dataclass(frozen=True)
class Painted:
    """The color match on a frame's canvas."""

    color: Floats   # (h, w, 3) in 0..1, white outside the character
    cells: Floats   # (h, w) area of the region that each pixel is in, in cells of the canvas


def paint_match(
    parts: PartMap, frame: PreparedFrame, key: KeyMap, matcher: RegionMatcher | None = None, rule: MatchRule = RULE
) -> Painted:
    """Paint the frame's canvas with the colors that suit its regions best."""
    if not can_match(frame, key):
        return unpainted(frame)
    return paint(frame, key, match_frame(parts, frame, key, matcher, rule).chosen)


def paint(frame: PreparedFrame, key: KeyMap, chosen: Tensor) -> Painted:
    """Paint the frame's canvas with a palette color for each of its regions, (R,). Color runs on under the lines."""
    regions, colors = frame.regions, key.palette[chosen].numpy()  # (R, 3)
    numbers = regions.labels.reshape(-1)[nearest_labelled(regions.labels)] - 1  # (H, W)
    inside = frame.mask > 0.5
    color = np.where(inside[..., None], colors[numbers], np.float32(1)).astype(np.float32)
    areas = regions.areas[1:] * (frame.canvas.window[2] / frame.canvas.crop[2]) ** 2 / CELL**2
    cells = np.where(inside, areas[numbers], 0).astype(np.float32)
    return Painted(to_canvas(color, frame.canvas, 1.0), to_canvas(cells, frame.canvas, 0.0))


def unpainted(frame: PreparedFrame) -> Painted:
    """Give a white canvas: there is nothing to paint, or no color to paint it with."""
    blank = np.zeros(frame.ink_canvas.shape, np.float32)
    return Painted(np.ones((*blank.shape, 3), np.float32), blank)


def cells_of(places: NDArray[np.int64], canvas: Canvas) -> NDArray[np.int64]:
    """Give the number of the canvas cell under each flat position of the picture; cells are counted by rows."""
    x, y = canvas_places(places, canvas)
    columns, rows = canvas.size[0] // CELL, canvas.size[1] // CELL
    row, column = np.clip(y / CELL, 0, rows - 1), np.clip(x / CELL, 0, columns - 1)
    return row.astype(np.int64) * columns + column.astype(np.int64)


def canvas_places(
    places: NDArray[np.int64], canvas: Canvas
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give x and y on the canvas, in its pixels, of flat positions of the picture."""
    y, x = np.divmod(places, canvas.source[0])
    (left, top, width, height), (to_left, to_top, to_width, to_height) = canvas.crop, canvas.window
    return (x + 0.5 - left) * to_width / width + to_left, (y + 0.5 - top) * to_height / height + to_top


def _likeness(one: Tensor, other: Tensor, rule: MatchRule) -> Tensor:
    """Compare part readings (N, P) and (M, P): (N, M), 1 for equal ones."""
    one, other = F.normalize(one, p=1, dim=1), F.normalize(other, p=1, dim=1)
    return (one.sqrt() @ other.sqrt().mT).clamp(1e-6, 1.0) ** rule.part_power


def _nearness(one: Tensor, other: Tensor, rule: MatchRule) -> Tensor:
    """Compare places (N, 2) and (M, 2): (N, M), 1 for the same; a part that is far off still counts a little."""
    return torch.exp(-0.5 * (torch.cdist(one, other) / rule.place_sigma) ** 2) + 0.02


def _figure(mask: Floats) -> tuple[int, int, int, int]:
    """Give the box of the figure on its canvas: left, top, width, height; all of it if there is none."""
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    if not len(rows):
        return 0, 0, mask.shape[1], mask.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
