"""What a finished frame looks like in numbers, without the truth: its colors beside the key's, and what jumped."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import Picture, over_paper
from colorcli.prepare.lineart import by_network, lines_of_color, read_lines
from colorcli.prepare.masks import character_mask
from colorcli.prepare.palette import Palette, find_palette
from colorcli.prepare.palette_file import hex_color
from colorcli.prepare.regions import SPECK_PX, Regions, closed_regions
from colorcli.presets import LineSettings, Preset
from colorcli.review.metrics import MIN_REGION_PX, RIGHT_BELOW
from colorcli.review.pictures import shrunk

Float = NDArray[np.float32]

LONGEST_PX = 1280       # longer side at which frames are measured; the widths of lines and gaps are meant for it
RIM_PX = 2.0            # so near a line its own soft edge is measured, not the color
SAME_PLACE = 0.5        # two regions that share more than this of what both cover are one region of two frames
MOST_COLORS = 4096      # different colors in a frame; of more, such as in soft shades, those that are alike are joined
SAME_SHAPE = 0.7        # the same of two regions laid over each other: a region that has moved on
MOST_MOVED = 40         # regions of a frame that are looked for elsewhere, the largest first
FARTHEST = 1.5          # how far they are looked for, in lengths of their own longer side
JUMPS_KEPT = 4          # regions of a frame that are pointed at
FOREIGN_KEPT = 4        # colors of a frame, of those that are none of the key's, that are named


@dataclass(frozen=True)
class Look:
    """What is measured of one frame alone."""

    regions: Regions
    color: Float               # (H, W, 3) the result over white, 0..1, at the size of the regions
    medians: Float             # (count + 1, 3) median color of each region; the first row is of no region
    character_px: int          # pixels of all regions
    palette_distance: float | None   # mean CIEDE2000 of the regions' pixels to the nearest color of the key, >= 0
    palette_use: Float         # (K,) share of the regions' pixels that are nearest to each color of the key
    foreign: tuple[tuple[str, float], ...]   # colors that are none of the key's, #rrggbb, and their share of the pixels


@dataclass(frozen=True)
class Jump:
    """A region that has another color than it had in the frame before."""

    box: tuple[float, float, float, float]   # left, top, width, height as shares of the frame
    before: str                              # #rrggbb
    after: str


@dataclass(frozen=True)
class Change:
    """What changed in color from one frame to the next, in the regions that both show at the same place."""

    flicker: float           # mean change of a channel there, 8-bit levels, 0..255
    compared: float          # share of the character's pixels that could be compared, 0..1
    jumped: float            # share of the character's pixels in regions that have another color now
    jumps: tuple[Jump, ...]  # the largest of those regions


NOTHING_CHANGED = Change(0.0, 1.0, 0.0, ())


def key_palette(key: Picture, preset: Preset) -> Palette:
    """Find the flat colors of the key's character, as the coloring does."""
    lines = lines_of_color(key, _without_networks(preset.lines))
    mask = character_mask(key, lines, preset.masks, colored=True)
    return find_palette(over_paper(key), lines.ink, mask)


def look_at(
    drawing: Picture, result: Picture, preset: Preset, palette: Float | None, masks: Sequence[Float] = ()
) -> Look:
    """Measure one frame.

    drawing, result: the frame before and after, of one size. preset: by whose rules lines and character are found.
    palette: (K, 3) colors of the key, None: nothing to compare with. masks: (H, W) of the character, from files.
    """
    drawing, result = shrunk(drawing, LONGEST_PX), shrunk(result, LONGEST_PX)
    masks = [cv2.resize(mask, drawing.size, interpolation=cv2.INTER_AREA) for mask in masks]
    lines = read_lines(drawing, _without_networks(preset.lines))
    mask = character_mask(drawing, lines, preset.masks, masks, colored=preset.lines.mode == "extract")
    regions = closed_regions(lines.ink, mask, SPECK_PX, preset.lines.gap_px)
    color = over_paper(result)
    inside = regions.depth >= RIM_PX
    distance, use, foreign = _beside_palette(color[inside], palette)
    return Look(regions, color, _medians(color, regions), int(regions.areas.sum()), distance, use, foreign)


def change_between(before: Look, after: Look) -> Change:
    """Measure what changed in color between neighboring frames where their drawings show the same region.

    Two regions are the same if they share more than half of what both cover, or if one is the other that has moved on.
    Flicker is of the places that a region covers in both frames, so that a moving arm is none; jumps are of whole
    regions.
    """
    if before is after:
        return NOTHING_CHANGED
    one, two = before.regions, after.regions
    if one.labels.shape != two.labels.shape or not one.count or not two.count:
        return Change(0.0, 0.0, 0.0, ())
    there = same_regions(one, two)                       # (count of one + 1,) region of two, 0: none
    matched = there[one.labels]
    same = (matched > 0) & (matched == two.labels)
    seen = same & (one.depth >= RIM_PX) & (two.depth >= RIM_PX)
    here = after.color[seen]
    was = before.color[seen]
    there = there + moved_regions(one, two, there)
    total = max(after.character_px, 1)
    compared = min(1.0, float(two.areas[there[there > 0]].sum()) / total)
    numbers = np.flatnonzero(there)
    far = ciede2000(lab_of(before.medians[numbers]), lab_of(after.medians[there[numbers]]))
    large = np.minimum(one.areas[numbers], two.areas[there[numbers]]) >= MIN_REGION_PX
    jumped = np.flatnonzero((far >= RIGHT_BELOW) & large)
    jumped = jumped[np.argsort(-two.areas[there[numbers[jumped]]], kind="stable")]
    jumps = tuple(
        Jump(
            box=_box(two, int(there[numbers[place]])),
            before=hex_color(before.medians[numbers[place]]),
            after=hex_color(after.medians[there[numbers[place]]]),
        )
        for place in jumped[:JUMPS_KEPT]
    )
    return Change(
        flicker=float(np.abs(here - was).mean()) * 255 if len(here) else 0.0,
        compared=compared,
        jumped=float(two.areas[there[numbers[jumped]]].sum()) / total,
        jumps=jumps,
    )


def same_regions(one: Regions, two: Regions) -> NDArray[np.int32]:
    """Give each region of one drawing (count + 1,) the region of another that lies at the same place; 0: none."""
    pairs = one.labels.reshape(-1).astype(np.int64) * (two.count + 1) + two.labels.reshape(-1)
    numbers, counts = np.unique(pairs, return_counts=True)
    first, second = numbers // (two.count + 1), numbers % (two.count + 1)
    real = (first > 0) & (second > 0)
    first, second, counts = first[real], second[real], counts[real]
    shared = counts / (one.areas[first] + two.areas[second] - counts)
    result = np.zeros(one.count + 1, np.int32)
    # Above a half no other region of either drawing can share as much, so nobody is asked twice.
    kept = shared > SAME_PLACE
    result[first[kept]] = second[kept]
    return result


def moved_regions(one: Regions, two: Regions, there: NDArray[np.int32]) -> NDArray[np.int32]:
    """Find regions that have moved on, of those without a partner: (count of one + 1,) region of two, 0: none.

    there: the partners that are known. A region is another one moved if, laid over each other, they share most of what
    both cover, and neither is more like any third.
    """
    result = np.zeros(one.count + 1, np.int32)
    left = _largest(one, np.setdiff1d(np.arange(1, one.count + 1), np.flatnonzero(there)))
    right = _largest(two, np.setdiff1d(np.arange(1, two.count + 1), there))
    if not len(left) or not len(right):
        return result
    shapes = [[_cut_out(regions, number) for number in numbers] for regions, numbers in ((one, left), (two, right))]
    alike = np.array([[_likeness(a, b) for b in shapes[1]] for a in shapes[0]])
    for row, number in enumerate(left):
        column = int(alike[row].argmax())
        if alike[row, column] >= SAME_SHAPE and int(alike[:, column].argmax()) == row:
            result[number] = right[column]
    return result


def _largest(regions: Regions, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
    """The largest of some regions that are large enough to be missed."""
    numbers = numbers[regions.areas[numbers] >= MIN_REGION_PX]
    return numbers[np.argsort(-regions.areas[numbers], kind="stable")][:MOST_MOVED]


def _cut_out(regions: Regions, number: int) -> tuple[tuple[float, float], NDArray[np.bool_]]:
    """The middle of a region's box, (x, y), and the region in its box."""
    inside = regions.labels == number
    left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
    return (left + width / 2, top + height / 2), inside[top : top + height, left : left + width]


def _likeness(
    one: tuple[tuple[float, float], NDArray[np.bool_]], two: tuple[tuple[float, float], NDArray[np.bool_]]
) -> float:
    """What two regions share of what both cover, 0..1, when their boxes are laid middle on middle; 0 if far apart."""
    (x_one, y_one), a = one
    (x_two, y_two), b = two
    longer = max(*a.shape, *b.shape)
    if max(abs(x_one - x_two), abs(y_one - y_two)) > FARTHEST * longer:
        return 0.0
    if min(a.shape[0], b.shape[0]) < SAME_SHAPE * max(a.shape[0], b.shape[0]):
        return 0.0
    rows, columns = max(a.shape[0], b.shape[0]), max(a.shape[1], b.shape[1])
    both = []
    for shape in (a, b):
        laid = np.zeros((rows, columns), bool)
        top, left = (rows - shape.shape[0]) // 2, (columns - shape.shape[1]) // 2
        laid[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
        both.append(laid)
    return float((both[0] & both[1]).sum() / (both[0] | both[1]).sum())


def _beside_palette(pixels: Float, palette: Float | None) -> tuple[float | None, Float, tuple[tuple[str, float], ...]]:
    """Compare pixels (N, 3) with the key's colors: mean distance, how much is nearest to each, and what is of none."""
    if palette is None or not len(palette):
        return None, np.zeros(0, np.float32), ()
    if not len(pixels):
        return 0.0, np.zeros(len(palette), np.float32), ()
    colors, counts = _different(pixels)
    apart = ciede2000(lab_of(colors)[:, None], lab_of(palette)[None])   # (U, K)
    nearest, distance = apart.argmin(axis=1), apart.min(axis=1)
    total = counts.sum()
    use = np.bincount(nearest, weights=counts, minlength=len(palette)) / total
    strange = np.flatnonzero(distance >= RIGHT_BELOW)
    strange = strange[np.argsort(-counts[strange], kind="stable")][:FOREIGN_KEPT]
    foreign = tuple((hex_color(colors[place]), float(counts[place] / total)) for place in strange)
    return float((distance * counts).sum() / total), use.astype(np.float32), foreign


def _different(pixels: Float) -> tuple[Float, NDArray[np.int64]]:
    """List the different 8-bit colors of pixels (N, 3), (U, 3) in 0..1, and how many pixels have each."""
    levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.int64)
    for shift in range(5):
        packed = (levels >> shift) @ np.array([65536, 256, 1])
        numbers, counts = np.unique(packed, return_counts=True)
        if len(numbers) <= MOST_COLORS:
            break
    middle = (1 << shift) // 2
    channels = np.stack([numbers >> 16, (numbers >> 8) & 255, numbers & 255], axis=1)
    return (((channels << shift) + middle) / 255).astype(np.float32), counts.astype(np.int64)


def _medians(color: Float, regions: Regions) -> Float:
    """Give the median color of each region, (count + 1, 3), without its rim where it has more than that."""
    medians = np.zeros((regions.count + 1, 3), np.float32)
    flat = regions.labels.reshape(-1)
    deep = regions.depth.reshape(-1) >= RIM_PX
    has_depth = np.bincount(flat[deep], minlength=regions.count + 1) > 0
    counted = np.flatnonzero((flat > 0) & (deep | ~has_depth[flat]))
    if not len(counted):
        return medians
    order = counted[np.argsort(flat[counted], kind="stable")]
    numbers, starts = np.unique(flat[order], return_index=True)
    pixels = color.reshape(-1, 3)
    for number, part in zip(numbers, np.split(order, starts[1:]), strict=True):
        medians[number] = np.median(pixels[part], axis=0)
    return medians


def _box(regions: Regions, number: int) -> tuple[float, float, float, float]:
    """Where a region lies: left, top, width, height as shares of the frame."""
    height, width = regions.labels.shape
    left, top, across, down = cv2.boundingRect((regions.labels == number).astype(np.uint8))
    return left / width, top / height, across / width, down / height


def _without_networks(settings: LineSettings) -> LineSettings:
    """The same, with an extractor of our own in place of a network that is not here."""
    return settings.model_copy(update={"extractor": "xdog"}) if by_network(settings) else settings
