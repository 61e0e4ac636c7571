"""How right and how steady the colors of a shot are: region accuracy, its two baselines, flicker."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import Picture, over_paper

Float = NDArray[np.float32]

MIN_REGION_PX = 40  # a smaller region is no part of a drawing that anyone would miss
PAPER_ABOVE = 0.6   # mean of R, G and B over which a pixel of the drawing is paper
INSIDE_ABOVE = 0.5  # alpha over which a pixel belongs to the character
RIGHT_BELOW = 8.0   # CIEDE2000 under which two flat colors count as the same
INK_BELOW = 0.18    # a pixel of a key whose every channel reaches this is paint for sure, not line
ENOUGH_PX = 10      # fewer pixels of paint than this say nothing about a color


@dataclass(frozen=True)
class TrueRegions:
    """The regions of one drawing with the colors they should have."""

    pixels: tuple[NDArray[np.int64], ...]  # flat positions of each region's pixels
    colors: Float                          # (N, 3) median of the true color in each


@dataclass(frozen=True)
class Score:
    """How many regions were right, pooled over any number of frames."""

    right: int
    regions: int
    right_px: int   # the same, each region counted by its area
    regions_px: int

    @property
    def accuracy(self) -> float:
        """Share of the regions that are right, 0..1; 0 if there are none."""
        return self.right / self.regions if self.regions else 0.0

    @property
    def area_accuracy(self) -> float:
        """Share of their area that is in right regions, 0..1; 0 if there are none."""
        return self.right_px / self.regions_px if self.regions_px else 0.0


def pooled(scores: Sequence[Score]) -> Score:
    """Add the scores of several frames: every region counts once, whichever frame it is in."""
    return Score(
        sum(score.right for score in scores),
        sum(score.regions for score in scores),
        sum(score.right_px for score in scores),
        sum(score.regions_px for score in scores),
    )


def true_regions(line: Picture, truth: Picture) -> TrueRegions:
    """Find the regions of a drawing and their true colors.

    line: the drawing; truth: the same frame as it should be colored. A region is a 4-connected piece of paper (mean of
    R, G and B over 0.6) inside the character (alpha over 0.5), of at least 40 pixels.
    """
    paper = character_paper(line)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(paper.astype(np.uint8), connectivity=4)
    flat = labels.reshape(-1)
    inside = np.flatnonzero(flat)
    ordered = inside[np.argsort(flat[inside], kind="stable")]
    pieces = np.split(ordered, np.cumsum(stats[1:, cv2.CC_STAT_AREA])[:-1]) if count > 1 else []
    pixels = tuple(piece for piece in pieces if len(piece) >= MIN_REGION_PX)
    return TrueRegions(pixels, _medians(over_paper(truth), pixels))


def region_score(regions: TrueRegions, color: Float) -> Score:
    """Count the regions whose median color looks like the true one, CIEDE2000 below 8. color: (H, W, 3), over white."""
    return _score(regions, _medians(color, regions.pixels))


def copied_key_score(regions: TrueRegions, key: Picture) -> Score:
    """Score the picture that is just the key: what a held pose would give. The key must have the drawing's size."""
    return region_score(regions, over_paper(key))


def painted_key_score(regions: TrueRegions, key: Picture) -> Score:
    """Score painting each region with the median of the key's paint at the same place.

    Paint is what is inside the key's character and too light to be a line; where the key has less than 10 pixels of it,
    the median of all its paint is taken.
    """
    paint = key.color.min(axis=2) > INK_BELOW
    if key.alpha is not None:
        paint &= key.alpha > INSIDE_ABOVE
    pixels = key.color.reshape(-1, 3)
    is_paint = paint.reshape(-1)
    usual = np.median(pixels[is_paint], axis=0) if is_paint.any() else np.ones(3, np.float32)
    colors = np.tile(np.asarray(usual, np.float32), (len(regions.pixels), 1))
    for number, place in enumerate(regions.pixels):
        there = place[is_paint[place]]
        if len(there) >= ENOUGH_PX:
            colors[number] = np.median(pixels[there], axis=0)
    return _score(regions, colors)


def flicker(
    before: Float,
    after: Float,
    paper_before: NDArray[np.bool_],
    paper_after: NDArray[np.bool_],
    true_before: Float | None = None,
    true_after: Float | None = None,
) -> float:
    """Measure how much the color jumps from one frame to the next where nothing was drawn anew: CIEDE2000, >= 0.

    before, after: (H, W, 3) two neighboring frames. paper_before, paper_after: (H, W) paper of the character in each;
    only where both are paper is color compared. With the true colors of both frames, places that change there are left
    out. The result is the mean over those places of every second row and column; 0 if there are none.
    """
    still = _still(paper_before, paper_after, true_before, true_after)
    if not still.any():
        return 0.0
    one, two = before[::2, ::2][still], after[::2, ::2][still]
    changed = np.abs(one - two).max(axis=1) >= 0.5 / 255
    # Most of a held color does not change at all; only the rest needs the formula.
    return float(ciede2000(lab_of(one[changed]), lab_of(two[changed])).sum() / len(one))


def level_change(
    before: Float,
    after: Float,
    paper_before: NDArray[np.bool_],
    paper_after: NDArray[np.bool_],
    true_before: Float | None = None,
    true_after: Float | None = None,
) -> float:
    """Measure the same in 8-bit levels: the mean absolute change of a channel, 0..255, at the places of `flicker`."""
    still = _still(paper_before, paper_after, true_before, true_after)
    if not still.any():
        return 0.0
    return float(np.abs(before[::2, ::2][still] - after[::2, ::2][still]).mean()) * 255


def _still(
    paper_before: NDArray[np.bool_],
    paper_after: NDArray[np.bool_],
    true_before: Float | None,
    true_after: Float | None,
) -> NDArray[np.bool_]:
    """Mark where nothing was drawn anew, of every second row and column."""
    still = (paper_before & paper_after)[::2, ::2]
    if true_before is not None and true_after is not None:
        still = still & (np.abs(true_before[::2, ::2] - true_after[::2, ::2]).max(axis=2) < 2 / 255)
    return still


def character_paper(line: Picture) -> NDArray[np.bool_]:
    """Mark the paper inside the character, (H, W), as `true_regions` counts it."""
    paper = over_paper(line).mean(axis=2) > PAPER_ABOVE
    return paper if line.alpha is None else paper & (line.alpha > INSIDE_ABOVE)


def _medians(color: Float, places: Sequence[NDArray[np.int64]]) -> Float:
    pixels = color.reshape(-1, 3)
    return np.array([np.median(pixels[place], axis=0) for place in places], np.float32).reshape(-1, 3)


def _score(regions: TrueRegions, colors: Float) -> Score:
    right = ciede2000(lab_of(colors), lab_of(regions.colors)) < RIGHT_BELOW
    areas = np.array([len(place) for place in regions.pixels], np.int64)
    return Score(int(right.sum()), len(areas), int(areas[right].sum()), int(areas.sum()))
