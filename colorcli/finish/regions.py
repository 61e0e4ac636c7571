"""Closed regions of paper between the lines, and one color, or its own shades, for each."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

PAPER_BELOW = 0.15     # ink above this parts two regions
SPECK_PX = 6           # smaller regions are holes between crossing strokes, in pixels at 1280; they take a neighbor's color
SAMPLES = 1500         # pixels of a region that its color is measured on, at most


@dataclass(frozen=True)
class Regions:
    """The closed regions of one drawing."""

    labels: Labels           # (H, W) 1..count inside a region, 0 on lines and outside the mask
    depth: Float             # (H, W) distance to the nearest line or border of the mask, in pixels; 0 on lines
    areas: NDArray[np.int64]  # (count + 1,) pixels of each region; areas[0] is 0

    @property
    def count(self) -> int:
        """How many regions there are."""
        return len(self.areas) - 1


def closed_regions(ink: Float, mask: Float) -> Regions:
    """Find the 4-connected pieces of paper inside the mask.

    ink, mask: (H, W) in 0..1. Specks of a few pixels between crossing strokes are no regions.
    """
    paper = ((ink < PAPER_BELOW) & (mask > 0.5)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4, ltype=cv2.CV_32S)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    areas[0] = 0
    scale = max(1.0, max(ink.shape) / 1280)
    kept = areas >= SPECK_PX * scale
    if not kept[1:].all():
        numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
        labels, areas = numbers[labels], np.concatenate([[0], areas[kept]])
        paper = (labels > 0).astype(np.uint8)
    depth = cv2.distanceTransform(paper, cv2.DIST_L2, 3)
    return Regions(labels, depth, areas)


def nearest_region(regions: Regions) -> Labels:
    """Give every pixel the number of the region nearest to it, (H, W): color goes on under the lines, with no rim.

    All 0 if there is no region.
    """
    if not regions.count:
        return regions.labels
    lines = (regions.labels == 0).astype(np.uint8)
    _, seeds = cv2.distanceTransformWithLabels(lines, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    paper = regions.labels > 0
    numbers = np.zeros(int(seeds.max()) + 1, np.int32)
    numbers[seeds[paper]] = regions.labels[paper]
    return np.asarray(numbers[seeds], np.int32)


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


def pixels_of_regions(regions: Regions) -> list[NDArray[np.int64]]:
    """List the flat pixel positions of each region, in reading order."""
    paper = np.flatnonzero(regions.labels)
    numbers = regions.labels.reshape(-1)[paper]
    # NumPy sorts 16-bit whole numbers by radix, ten times as fast.
    small = numbers.astype(np.uint16) if regions.count < 65536 else numbers
    ordered = paper[np.argsort(small, kind="stable")]
    return np.split(ordered, np.cumsum(regions.areas[1:])[:-1]) if regions.count else []


def snap_to_palette(colors: Float, palette: Float, reach: float) -> Float:
    """Replace each color (N, 3) by the palette color (K, 3) that looks nearest, if it is within `reach` (CIEDE2000)."""
    if not len(palette) or not len(colors):
        return colors
    distance = ciede2000(lab_of(colors)[:, None], lab_of(palette)[None])  # (N, K)
    nearest = distance.argmin(axis=1)
    near = distance[np.arange(len(colors)), nearest] <= reach
    return np.where(near[:, None], palette[nearest], colors).astype(np.float32)


def shade_regions(layer: Float, regions: Regions, blur_px: float, colors: Float) -> Float:
    """Keep the model's shades, (H, W, 3), but let none of them cross a line.

    Near a line the layer is mixed with the colors beyond it; there the shade is the mean of the region's own clean
    pixels around (normalised convolution, Knutsson and Westin 1993), and the region's color where there are none.
    """
    shaded = layer.copy()
    rows, columns = regions.labels.shape
    size = 2 * max(2, round(2.0 * blur_px)) + 1
    for number, (left, top, width, height) in enumerate(_boxes(regions), start=1):
        box = np.s_[top : top + height, left : left + width]
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


def _boxes(regions: Regions) -> list[tuple[int, int, int, int]]:
    """Give left, top, width and height of the smallest box around each region."""
    boxes = []
    columns = regions.labels.shape[1]
    for inside in pixels_of_regions(regions):
        x = inside % columns
        top, bottom, left, right = inside[0] // columns, inside[-1] // columns, x.min(), x.max()
        boxes.append((int(left), int(top), int(right - left + 1), int(bottom - top + 1)))
    return boxes
