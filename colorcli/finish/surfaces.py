"""The color of the surface that each pixel of a finished frame is of: what is painted in two tones has its lit one."""

import numpy as np
from numpy.typing import NDArray

from colorcli.finish.finish import Fill, FrameParts, regions_of
from colorcli.finish.regions import soften_borders
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.palette import is_shadow
from colorcli.prepare.regions import Labels, nearest_labelled
from colorcli.presets import Preset

Float = NDArray[np.float32]


def flat_colors(color: Float, parts: FrameParts, frame: PreparedFrame, preset: Preset) -> Float:
    """Give the lightest color of the surface that each pixel is of, (h, w, 3), in the box of the frame.

    color: (h, w, 3) what lies under the lines.
    No channel of the result is below that of `color`, so that shade only darkens. A closed region is a surface; what is
    painted in a color that is a shadow in the key has the lit color, and a region of several flat colors the lightest,
    unless they are too unlike to be tones of one.
    """
    fill = parts.fill
    if fill.colors is None or fill.labels is None:
        labels = fill.labels if fill.labels is not None else _nearest_regions(parts, frame, preset)
        return np.take(_lightest(color, labels), labels, axis=0)
    flat = np.take(_surfaces(fill, fill.colors, fill.labels), fill.labels, axis=0)
    return flat if fill.whole is None else soften_borders(flat, fill.labels, fill.whole)


def _nearest_regions(parts: FrameParts, frame: PreparedFrame, preset: Preset) -> Labels:
    """The closed region that each pixel is nearest to, (h, w), from 1."""
    if not parts.character.size:
        return np.zeros(parts.character.shape, np.int32)
    regions = regions_of(frame, preset, *parts.place)
    if not regions.count:
        return np.ones(parts.character.shape, np.int32)
    return regions.labels.reshape(-1)[nearest_labelled(regions.labels)]


def _lightest(color: Float, labels: Labels) -> Float:
    """Measure the largest value of each channel among the pixels with each label, (largest label + 1, 3)."""
    if not labels.size:
        return np.ones((1, 3), np.float32)
    order = np.argsort(labels, axis=None, kind="stable")
    present, first = np.unique(labels.reshape(-1)[order], return_index=True)
    result = np.ones((int(present[-1]) + 1, 3), np.float32)
    result[present] = np.maximum.reduceat(color.reshape(-1, 3)[order], first)
    return result


def _surfaces(fill: Fill, colors: Float, labels: Labels) -> Float:
    """Give for each piece (count + 1, 3) the color of its surface: its own, or the one that it is the shadow of.

    That is what the key says; and of the pieces of one closed region, the lighter one.
    """
    result = colors.copy() if fill.lit is None else fill.lit.copy()
    if fill.whole is None:
        return result
    region = np.zeros(len(colors), np.int64)
    inside = fill.whole > 0
    region[labels[inside]] = fill.whole[inside]
    numbers, counts = np.unique(region[1:], return_counts=True)
    for number in numbers[(counts > 1) & (numbers > 0)]:
        pieces = np.flatnonzero(region == number)
        lit: list[Float] = []
        for piece in pieces[np.argsort(-result[pieces].sum(axis=1), kind="stable")]:
            light = next((one for one in lit if is_shadow(result[piece], one)), None)
            if light is None:
                lit.append(result[piece])
            else:
                result[piece] = light
    return result
