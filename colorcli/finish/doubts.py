"""Doubts: how sure the color of each region of a finished frame is, and which a person should look at.

What speaks for a region's color is the share that the match, or the votes, give to it, together with the colors that
hardly anyone would tell from it and the other tones of its lit and shadow pair: another material is a mistake, another
shade of the same one hardly is. A share is too sure of itself, so it is turned into the chance that was measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.finish.finish import FrameParts
from colorcli.finish.repaint import repaint
from colorcli.model.evidence import Evidence
from colorcli.prepare.canvas import Box
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.palette import nearest_color
from colorcli.prepare.regions import Labels, pixels_of_labels
from colorcli.presets import Preset

Float = NDArray[np.float32]

ALIKE_BELOW = 8.0      # CIEDE2000 under which two flat colors count as the same
AS_NEAR = 0.5          # CIEDE2000 by which a color may be farther than the nearest one and still be meant
SMALLEST_PX = 40       # a smaller region is no part of a drawing that anyone would miss, in pixels of a frame of 1280
SAMPLES = 200          # pixels of a region that its color is read from, at most
LEAST, MOST = 0.15, 0.999   # shares beyond these say no more: what is painted without a reason is right at times


@dataclass(frozen=True)
class Calibration:
    """The logistic curve by which what speaks for a color becomes a chance.

    Fitted to drawn characters of styles never trained on; `python -m benchmarks.doubts` measures it on others.
    """

    share: float = 0.833     # of the logarithm of the share's odds
    likeness: float = 0.254  # of the likeness, a logarithm
    shift: float = 0.396


MEASURED = Calibration()


@dataclass(frozen=True)
class Doubt:
    """A region whose color may well be another one."""

    box: Box             # in the frame, in pixels
    area: int            # pixels
    color: Float         # (3,) that it has
    other: Float | None  # (3,) that it would have else; None: nothing speaks for another, or it is not known which
    sure: float | None   # chance that its material is the right one, 0..1; None: nobody has measured it


@dataclass(frozen=True)
class Doubts:
    """What a person should look at in a frame."""

    regions: tuple[Doubt, ...]   # the largest first
    share: float                 # of the area of all regions, 0..1


NO_DOUBTS = Doubts((), 0.0)


@dataclass(frozen=True)
class Judged:
    """How sure each region of a frame is, and of what."""

    areas: NDArray[np.int64]   # (R,) pixels
    boxes: tuple[Box, ...]     # R of them, in pixels
    color: Float               # (R, 3) that each has
    taken: NDArray[np.int64]   # (R,) number of the evidence's color that this is
    share: Float               # (R,) what speaks for its material, 0..1
    sure: NDArray[np.float64]  # (R,) chance that it is the right one
    other: Float               # (R, 3) the color that it would have else
    other_share: Float         # (R,) what speaks for that; 0: nothing
    smallest_px: float         # a region of less area is nothing to look at


def doubts_in(evidence: Evidence, color: Float, key: PreparedKey, preset: Preset) -> Doubts:
    """Find the regions of a finished frame whose color is less sure than the preset's `checks.unsure_below`.

    color: (H, W, 3) the frame as it was finished. key: whose colors they are.
    """
    found = judged(evidence, color, key, preset)
    if not found.areas.any():
        return NO_DOUBTS
    told = np.flatnonzero((found.sure < preset.checks.unsure_below) & (found.areas >= found.smallest_px))
    told = told[np.argsort(-found.areas[told], kind="stable")]
    return Doubts(
        tuple(
            Doubt(
                box=found.boxes[region],
                area=int(found.areas[region]),
                color=found.color[region],
                other=found.other[region] if found.other_share[region] > 0 else None,
                sure=float(found.sure[region]),
            )
            for region in told
        ),
        float(found.areas[told].sum() / found.areas.sum()),
    )


def guessed_in(parts: FrameParts, color: Float, preset: Preset) -> Doubts | None:
    """Find the pieces of a finished frame whose palette color is a guess; None: its colors are not the palette's.

    That is all that can be told of a frame which did not begin from the match: the model's color lies between those of
    two surfaces, or near none. color: (H, W, 3) the frame as it was finished.
    """
    if preset.finish.fill != "flat" or preset.finish.palette != "key":
        return None
    labels = parts.fill.labels
    if labels is None:   # the frame has no regions
        return NO_DOUBTS
    count = int(labels.max(initial=0))
    inside = np.where(parts.character > 0.5, labels, 0)
    areas = np.bincount(inside.reshape(-1), minlength=count + 1)[1:]  # (count,)
    seen, boxes = _seen(inside, color[parts.place], areas)
    left, top = parts.box[:2]
    pieces = [piece - 1 for piece in parts.fill.unsure if areas[piece - 1] >= _smallest_px(color)]
    told = sorted(pieces, key=lambda piece: (-areas[piece], piece))
    return Doubts(
        tuple(
            Doubt((boxes[piece][0] + left, boxes[piece][1] + top, *boxes[piece][2:]), int(areas[piece]), seen[piece],
                  None, None)
            for piece in told
        ),
        float(areas[told].sum() / max(areas.sum(), 1)),
    )


def judged(evidence: Evidence, color: Float, key: PreparedKey, preset: Preset) -> Judged:
    """Tell how sure every region is; the arguments are those of `doubts_in`."""
    areas = np.bincount(evidence.labels.reshape(-1), minlength=len(evidence.shares) + 1)[1:]  # (R,)
    shown = evidence.colors
    if key.swatches is not None and preset.finish.palette == "key":
        painted = repaint(key.palette.colors, key.shadows, key.swatches, preset.finish.palette_reach).colors
        shown = painted[nearest_color(shown, key.palette.colors)]
    same = same_material(evidence.colors, key)
    seen, boxes = _seen(evidence.labels, color, areas)
    taken = _taken(seen, evidence.shares, shown)
    # The median of a narrow region has something of its lines.
    is_flat = ciede2000(lab_of(seen), lab_of(shown[taken])) < ALIKE_BELOW
    share = (evidence.shares * same[taken]).sum(axis=1)
    left = np.where(same[taken], np.float32(0), evidence.shares)  # (R, K) for what would be another material
    return Judged(
        areas,
        boxes,
        np.where(is_flat[:, None], shown[taken], seen),
        taken,
        share,
        chance_of(share, evidence.likeness),
        shown[left.argmax(axis=1)],
        left.max(axis=1),
        _smallest_px(color),
    )


def chance_of(share: Float, likeness: Float, by: Calibration = MEASURED) -> NDArray[np.float64]:
    """Turn what speaks for a color, 0..1, into the chance that it is right, 0..1; likeness as in `Evidence`."""
    bounded = np.clip(np.asarray(share, np.float64), LEAST, MOST)
    odds = by.share * np.log(bounded / (1 - bounded)) + by.likeness * likeness + by.shift
    return np.asarray(1 / (1 + np.exp(-odds)))


def same_material(colors: Float, key: PreparedKey) -> NDArray[np.bool_]:
    """Tell which colors (K, 3) nobody would take for another's mistake, (K, K).

    They look alike, or are tones of one surface: the key shows the one as the shadow of the other.
    """
    seen, palette = lab_of(colors), key.palette.colors
    known = nearest_color(colors, palette)
    # Of several keys, one may have colors of which the sheet of all has too little to be in its palette.
    is_known = ciede2000(seen, lab_of(palette[known])) < ALIKE_BELOW
    lit = np.where(is_known, key.shadows[known], len(palette) + np.arange(len(colors)))
    return (ciede2000(seen[:, None], seen[None]) < ALIKE_BELOW) | (lit[:, None] == lit[None])


def _smallest_px(color: Float) -> float:
    return SMALLEST_PX * max(1.0, max(color.shape[:2]) / 1280) ** 2


def _taken(seen: Float, shares: Float, shown: Float) -> NDArray[np.int64]:
    """Give the number of the color that each region has, (R,): the nearest; of some as near, the most spoken for.

    seen: (R, 3) the regions' colors. shown: (K, 3) the colors as they are painted.
    """
    apart = ciede2000(lab_of(seen)[:, None], lab_of(shown)[None])  # (R, K)
    near = apart <= apart.min(axis=1, keepdims=True) + AS_NEAR
    return np.where(near, shares, -1.0).argmax(axis=1)


def _seen(labels: Labels, color: Float, areas: NDArray[np.int64]) -> tuple[Float, tuple[Box, ...]]:
    """Read the color of every region (R, 3), and its box; of one without a pixel white and nothing."""
    columns, pixels = labels.shape[1], color.reshape(-1, 3)
    seen = np.ones((len(areas), 3), np.float32)
    boxes: list[Box] = []
    for region, places in enumerate(pixels_of_labels(labels, areas)):
        if not len(places):
            boxes.append((0, 0, 0, 0))
            continue
        seen[region] = np.median(pixels[places[:: max(1, len(places) // SAMPLES)]], axis=0)
        x, top = places % columns, int(places[0] // columns)
        left, bottom = int(x.min()), int(places[-1] // columns)
        boxes.append((left, top, int(x.max()) - left + 1, bottom - top + 1))
    return seen, tuple(boxes)
