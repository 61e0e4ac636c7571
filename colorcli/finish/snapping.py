"""Which color of the key each piece of a drawing has, and where that is a guess."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.prepare.regions import Labels

Float = NDArray[np.float32]
Numbers = NDArray[np.int64]

NONE = -1          # the number of no palette color
NEIGHBORS = 0.5    # share of a piece's border by which its neighbors speak more for one color than for another


@dataclass(frozen=True)
class SnapRule:
    """How near a palette color has to be. All distances are CIEDE2000."""

    reach: float    # a color farther from all of the palette's stays as it is
    margin: float   # two palette colors whose distances differ by no more are about equally near


@dataclass(frozen=True)
class Pieces:
    """Pieces of a drawing, each of one color."""

    colors: Float       # (N, 3) as measured, sRGB-encoded, 0..1
    regions: Numbers    # (N,) number of the closed region that each is in
    areas: Numbers      # (N,) pixels
    borders: Callable[[], Numbers]   # gives (P, 3) what `borders_of` gives; asked where neighbors are to speak


@dataclass(frozen=True)
class Snapped:
    """The palette colors of pieces."""

    numbers: Numbers            # (N,) of the palette color; NONE: none is within reach
    unsure: NDArray[np.bool_]   # (N,) another surface's color is about as near, or none is within reach


def snap(pieces: Pieces, palette: Float, shadows: NDArray[np.int32], rule: SnapRule) -> Snapped:
    """Choose a palette color for each piece.

    palette: (K, 3). shadows: (K,) for each color the one that it is the shadow of, or itself: a surface is a color
    with its shadows. The nearest color is chosen where no other surface has one that is about as near. Else pieces of
    one closed region become tones of one surface if it has a tone for each of them; and of what is left, a piece has
    the surface that most of its border with sure pieces speaks for, if that is much more than for the nearest. About as
    near: within the margin, and in the middle half between the two.
    """
    count = len(pieces.colors)
    if not count or not len(palette):
        return Snapped(np.full(count, NONE, np.int64), np.ones(count, bool))
    colors = lab_of(palette)
    distance = ciede2000(lab_of(pieces.colors)[:, None], colors[None])  # (N, K)
    nearest = distance.argmin(axis=1)
    least = distance[np.arange(count), nearest]
    apart = ciede2000(colors[:, None], colors[None])  # (K, K)
    margin = np.minimum(rule.margin, apart[nearest] / 2)  # (N, K)
    near = (distance <= least[:, None] + margin) & (distance <= rule.reach)
    chosen = np.where(least <= rule.reach, nearest, NONE)
    paired = _paired(distance, near, pieces, shadows)
    chosen = np.where(paired == NONE, chosen, paired)
    other = (near & (shadows[None] != shadows[nearest][:, None])).any(axis=1)
    unsure = (other & (paired == NONE)) | (chosen == NONE)
    doubtful = np.flatnonzero(unsure & (chosen != NONE))
    if len(doubtful):
        surfaces = np.where(unsure, NONE, shadows[chosen])
        borders = pieces.borders()
        for piece in doubtful:
            start, end = np.searchsorted(borders[:, 0], (piece, piece + 1))
            speaks = surfaces[borders[start:end, 1]], borders[start:end, 2]
            chosen[piece] = _by_neighbors(distance[piece], near[piece], *speaks, shadows)
    return Snapped(chosen, unsure)


def _paired(
    distance: NDArray[np.float64], near: NDArray[np.bool_], pieces: Pieces, shadows: NDArray[np.int32]
) -> Numbers:
    """Choose tones of one surface for the pieces of a closed region, (N,); NONE: no surface has a tone for each of two.

    distance, near: (N, K) of each palette color, and whether it is as near as any. Of several surfaces the one that
    takes most pieces, then the one whose tones are nearest, by area.
    """
    chosen = np.full(len(near), NONE, np.int64)
    surfaces = [np.flatnonzero(shadows == surface) for surface in np.unique(shadows)]
    surfaces = [tones for tones in surfaces if len(tones) > 1]
    numbers, counts = np.unique(pieces.regions, return_counts=True)
    for region in numbers[counts > 1] if surfaces else ():
        left = np.flatnonzero((pieces.regions == region) & near.any(axis=1))
        while len(left) > 1:
            found = [_tones(left, tones, distance, near, pieces.areas) for tones in surfaces]
            takes, _, some, numbers_of = min(found, key=lambda one: (-one[0], one[1]))
            if takes < 2:
                break
            chosen[some] = numbers_of
            left = np.setdiff1d(left, some)
    return chosen


def _tones(
    left: Numbers, tones: Numbers, distance: NDArray[np.float64], near: NDArray[np.bool_], areas: Numbers
) -> tuple[int, float, Numbers, Numbers]:
    """Lay the tones of one surface over pieces: how many it takes, how far off it is, which they are, their tones."""
    of_surface = np.where(near[np.ix_(left, tones)], distance[np.ix_(left, tones)], np.inf)
    fits = np.isfinite(of_surface.min(axis=1))
    some, numbers = left[fits], tones[of_surface[fits].argmin(axis=1)]
    if len(np.unique(numbers)) < 2:   # two pieces of one tone are no pair, and their border would be lost
        return 0, 0.0, some, numbers
    more = distance[some, numbers] - distance[some].min(axis=1)
    return len(some), float((more * areas[some]).sum()), some, numbers


def _by_neighbors(
    distance: NDArray[np.float64],
    near: NDArray[np.bool_],
    surfaces: NDArray[np.int32],
    lengths: Numbers,
    shadows: NDArray[np.int32],
) -> int:
    """Choose a palette color for one piece.

    distance, near: (K,) of each palette color, and whether it is as near as any. surfaces: (M,) of its neighbors, NONE
    for those that are unsure themselves. lengths: (M,) of the borders with them, pixels.
    """
    candidates = np.flatnonzero(near)
    candidates = candidates[np.argsort(distance[candidates], kind="stable")]
    speaks = np.array([lengths[surfaces == shadows[number]].sum() for number in candidates])
    best = int(speaks.argmax())
    clearly = speaks[best] - speaks[0] >= NEIGHBORS * max(lengths.sum(), 1)
    return int(candidates[best if clearly else 0])


def borders_of(labels: Labels) -> Numbers:
    """Find which pieces lie side by side, (P, 3): a piece, a neighbor, and the pixels of their border; in order.

    labels: (H, W) the pieces, from 1, also under the lines; 0 outside, which nothing borders on. The numbers of the
    result are those of `Pieces`, from 0; each border is there twice, once for either side.
    """
    count = np.int64(labels.max(initial=0)) + 1
    sides = []
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        apart = (one != other) & (one > 0) & (other > 0)
        first, second = one[apart].astype(np.int64), other[apart].astype(np.int64)
        sides += [first * count + second, second * count + first]
    pairs, lengths = np.unique(np.concatenate(sides), return_counts=True)
    return np.stack([pairs // count - 1, pairs % count - 1, lengths], axis=1)
