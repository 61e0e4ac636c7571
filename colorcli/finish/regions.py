"""One color, or its own shades, for each closed region of a drawing."""

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.prepare.palette import lab
from colorcli.prepare.regions import Labels, Regions, nearest_labelled, pixels_of_regions

Float = NDArray[np.float32]

MIN_SPLIT_PX = 60      # a region smaller than this is never parted by color, in pixels of the model's canvas
MOST_PIECES = 4        # colors that one region may be parted into
SMALLEST_PIECE = 0.05  # share of a region that a color needs to count
FLAT_SPREAD = 7.0      # CIE76 distance over which the pixels of one flat color are spread, half of it
CLEARLY = 0.8          # share of a region's pixels that must have one of its flat colors
SAMPLES = 1500         # pixels of a region that its color is measured on, at most


def region_colors(layer: Float, regions: Regions, blur_px: float) -> Float:
    """Measure one color for each region: (count + 1, 3); row 0 is white.

    layer: (H, W, 3) the model's colors at the size of the drawing. blur_px: how far its colors bleed over a line, in
    pixels. The median is taken where that does not reach, or, in a narrow region, along its middle.
    """
    colors = np.ones((regions.count + 1, 3), np.float32)
    pixels = layer.reshape(-1, 3)
    depth = regions.depth.reshape(-1)
    for number, inside in enumerate(pixels_of_regions(regions), start=1):
        some = inside[:: max(1, len(inside) // SAMPLES)]
        here = depth[some]
        core = some[here >= min(blur_px, 0.6 * float(here.max()))]
        colors[number] = np.median(pixels[core], axis=0)
    return colors


def split_by_color(layer: Float, regions: Regions, blur_px: float) -> Regions:
    """Part a region in which the layer clearly holds several flat colors: a shadow without a line, or an open line.

    layer, blur_px: as for `region_colors`. Only a region with room for it is parted, and only if nearly all of its
    clean pixels have one of a few colors with hardly any in between, each color in one place. A shaded or an uncertain
    region stays whole.
    """
    labels, count = regions.labels, regions.count
    columns = labels.shape[1]
    room = MIN_SPLIT_PX * max(blur_px, 1.0) ** 2
    for inside in pixels_of_regions(regions):
        if len(inside) < room:
            continue
        some = inside[:: max(1, len(inside) // SAMPLES)]
        clean = some[regions.depth.reshape(-1)[some] >= blur_px]
        if len(clean) < 100 or len(clean) < 0.3 * len(some):
            continue
        colors = _flat_colors(layer.reshape(-1, 3)[clean])
        if len(colors) < 2:
            continue
        number = labels.reshape(-1)[inside[0]]
        box = _box(inside, columns)
        piece = _pieces(layer[box], labels[box] == number, regions.depth[box] >= blur_px, colors, blur_px)
        if piece is None:
            continue
        if labels is regions.labels:
            labels = labels.copy()
        labels[box][piece > 0] = count + piece[piece > 0]
        count += int(piece.max())
    if labels is regions.labels:
        return regions
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    areas[0] = 0
    return Regions(labels, regions.depth, areas)


def _flat_colors(samples: Float) -> Float:
    """Find the flat colors that make up nearly all of the samples (N, 3), most frequent first; one if it is unclear."""
    samples_lab = lab(samples)
    left = np.ones(len(samples), bool)
    colors: list[Float] = []
    explained = 0.0
    while len(colors) < MOST_PIECES and left.sum() >= SMALLEST_PIECE * len(samples):
        bins = (samples_lab[left] // 6).astype(np.int64) @ np.array([1 << 20, 1 << 10, 1])
        _, where, counts = np.unique(bins, return_inverse=True, return_counts=True)
        start = samples_lab[left][where == counts.argmax()].mean(axis=0)
        near = np.linalg.norm(samples_lab - start, axis=1) < FLAT_SPREAD
        share = float((near & left).mean())
        if share < SMALLEST_PIECE:
            break
        center = samples_lab[near & left].mean(axis=0)
        if all(_valley(samples_lab, center, other) for other in colors):
            colors.append(center)
            explained += share
        left &= np.linalg.norm(samples_lab - start, axis=1) >= 1.4 * FLAT_SPREAD
    return np.array(colors, np.float32) if explained >= CLEARLY else np.array(colors[:1], np.float32)


def _valley(samples: Float, one: Float, other: Float) -> bool:
    """Tell whether hardly any samples lie between two colors: else they are the ends of one shading."""
    axis = other - one
    place = (samples - one) @ axis / (axis @ axis)
    middle = ((place > 1 / 3) & (place < 2 / 3)).mean()
    sides = min(((place > -1 / 3) & (place <= 1 / 3)).mean(), ((place >= 2 / 3) & (place < 4 / 3)).mean())
    return bool(middle < 0.5 * sides)


def _pieces(
    layer: Float, inside: NDArray[np.bool_], clean: NDArray[np.bool_], colors: Float, blur_px: float
) -> Labels | None:
    """Part one region by color: 0 for one color (and outside), 1.. for the others; None if they do not hold.

    layer: (h, w, 3). colors: (K, 3) in CIELAB. Where the layer is mixed with colors beyond a line, the nearest clean
    pixels decide.
    """
    distance = ((lab(layer)[..., None, :] - colors) ** 2).sum(axis=-1)  # (h, w, K)
    raw = distance.argmin(axis=-1)
    clean = clean & inside
    size = 2 * max(1, round(blur_px)) + 1
    votes = [cv2.boxFilter((clean & (raw == k)).astype(np.float32), -1, (size, size)) for k in range(len(colors))]
    wide = [cv2.boxFilter(vote, -1, (2 * size + 1, 2 * size + 1)) for vote in votes]
    piece = (np.stack(votes) + 1e-3 * np.stack(wide)).argmax(axis=0)
    agree = (piece == raw)[clean]
    if agree.mean() < 0.9:
        return None
    piece[clean] = raw[clean]  # no rounded corners
    piece[~inside] = 0
    return _without_crumbs(piece, inside, round(4 * size * size))


def _without_crumbs(piece: NDArray[np.int64], inside: NDArray[np.bool_], smallest: int) -> Labels | None:
    """Give separate bits of less than `smallest` pixels to the color around them; None if one color is left."""
    result = np.zeros(piece.shape, np.int32)
    kept = np.zeros(piece.shape, bool)
    for color in np.unique(piece[inside]):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            ((piece == color) & inside).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
        )
        large = stats[:, cv2.CC_STAT_AREA] >= smallest
        large[0] = False
        here = large[labels]
        result[here] = color
        kept |= here
    crumbs = inside & ~kept
    if crumbs.any() and kept.any():
        result[crumbs] = result.reshape(-1)[nearest_labelled(kept.astype(np.int32))[crumbs]]
    present, numbers = np.unique(result[inside], return_inverse=True)
    result[inside] = numbers
    return result if len(present) > 1 else None


def shade_regions(layer: Float, regions: Regions, blur_px: float, colors: Float) -> Float:
    """Keep the model's shades, (H, W, 3), but let none of them cross a line.

    Near a line the layer is mixed with the colors beyond it; there the shade is the mean of the region's own clean
    pixels around (normalised convolution, Knutsson and Westin 1993), and the region's color where there are none.
    """
    shaded = layer.copy()
    columns = regions.labels.shape[1]
    size = 2 * max(2, round(2.0 * blur_px)) + 1
    for number, pixels in enumerate(pixels_of_regions(regions), start=1):
        box = _box(pixels, columns)
        inside = regions.labels[box] == number
        depth = regions.depth[box]
        clean = (inside & (depth >= min(blur_px, 0.6 * float(depth[inside].max())))).astype(np.float32)
        mixed = inside & (clean == 0)
        total = cv2.boxFilter(layer[box] * clean[..., None], -1, (size, size), normalize=False)
        weight = cv2.boxFilter(clean, -1, (size, size), normalize=False)
        # The region's own color counts as one faint clean pixel: it decides only where no other is near.
        mean = (total + 0.01 * colors[number]) / (weight + 0.01)[..., None]
        shaded[box][mixed] = mean[mixed]
    return shaded


def _box(inside: NDArray[np.int64], columns: int) -> tuple[slice, slice]:
    """Give the smallest box around flat positions in reading order, as rows and columns."""
    x = inside % columns
    return slice(int(inside[0] // columns), int(inside[-1] // columns) + 1), slice(int(x.min()), int(x.max()) + 1)


def soften_borders(filled: Float, labels: Labels, whole: Labels) -> Float:
    """Smooth the steps along a border between two colors that has no line on it, one pixel wide.

    filled: (H, W, 3) flat colors. labels: (H, W) pieces, also under lines. whole: (H, W) the regions as the lines close
    them, before they were parted by color.
    """
    step = np.zeros(labels.shape, np.uint8)
    step[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    step[1:] |= labels[1:] != labels[:-1]
    step[:, :-1] |= step[:, 1:]
    step[:-1] |= step[1:]
    places = np.flatnonzero((step > 0) & (cv2.erode((whole > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0))
    result = filled.copy()
    result.reshape(-1, 3)[places] = cv2.blur(filled, (3, 3)).reshape(-1, 3)[places]
    return result
