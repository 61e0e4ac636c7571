"""The palette of a key: its distinct flat colors, and which of them each pixel has."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BINS = 32  # steps per channel of the first, coarse count
SAME_COLOR = 5.0  # CIE76 distance below which two bins are one flat color
SMALLEST_SHARE = 4e-4  # a color on less than this share of the character is antialiasing or noise
LARGEST_PALETTE = 64
DARKEST_SHADOW = 0.3  # a shadow keeps at least this much of each channel of its color
SHADOW_TURN = 0.35  # and not so much more of one channel than of another
TOUCHING = 0.5  # share of its borders without a line that a shadow has with its color
LONG_ENOUGH = 0.7  # how long these are at least, in square roots of the shadow's area: else a bit of outline is open
LEAST_LIT = 0.1  # area that a color has, as a share of its shadow's
SAME_TONE = 0.05  # shadows that keep shares of each channel that differ by less are of one tone
SAME_SHADE = 3.0  # CIE76 distance within which a color is another one in that tone


@dataclass(frozen=True)
class Palette:
    """The flat colors of a picture, the most frequent first."""

    colors: Floats  # (K, 3) sRGB-encoded, 0..1
    shares: Floats  # (K,) share of the counted pixels, sums to about 1
    index: NDArray[np.int32]  # (H, W) number of each pixel's color; -1 on lines and outside the mask


def lab(colors: Floats) -> Floats:
    """Give CIELAB (D65) of sRGB-encoded colors (..., 3) in 0..1."""
    flat = np.ascontiguousarray(colors, np.float32).reshape(1, -1, 3)
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2Lab), np.float32).reshape(colors.shape)


def find_palette(color: Floats, ink: Floats, mask: Floats) -> Palette:
    """Find the flat colors of a picture.

    color: (H, W, 3) 0..1. ink: (H, W) 0..1, 1 on lines. mask: (H, W) 0..1, 1 on the character. Pixels beside a line or
    on the edge of a color are mixtures and are not counted. A narrow field, such as a tie, that was taken for a line is
    known by its color. An empty mask gives the one color white.
    """
    inside = (mask > 0.5) & (cv2.dilate(ink, np.ones((3, 3), np.uint8)) < 0.15)
    narrow = _narrow_fields(color, ink) & (mask > 0.5) & ~inside
    flat = (inside | narrow) & _even(color)
    if not flat.any():
        flat = inside
    if not flat.any():
        white = np.ones((1, 3), np.float32)
        return Palette(white, np.ones(1, np.float32), np.full(ink.shape, -1, np.int32))
    pixels = color[flat]
    bins = np.minimum((pixels * BINS).astype(np.int32), BINS - 1) @ np.array([BINS * BINS, BINS, 1])
    numbers, where, counts = np.unique(bins, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(where, weights=pixels[:, channel], minlength=len(numbers)) for channel in range(3)], 1)
    means = (sums / counts[:, None]).astype(np.float32)
    means_lab = lab(means)
    left = np.argsort(-counts)
    colors: list[Floats] = []
    shares: list[float] = []
    while len(left) and len(colors) < LARGEST_PALETTE:
        near = np.linalg.norm(means_lab[left] - means_lab[left[0]], axis=1) < SAME_COLOR
        group = left[near]
        share = counts[group].sum() / len(pixels)
        if share >= SMALLEST_SHARE or not colors:
            colors.append((means[group] * counts[group, None]).sum(0) / counts[group].sum())
            shares.append(share)
        left = left[~near]
    order = np.argsort(-np.array(shares))
    palette = np.array(colors, np.float32)[order]
    index = np.full(ink.shape, -1, np.int32)
    index[inside] = nearest_color(color[inside], palette)
    if narrow.any():
        numbers = nearest_color(color[narrow], palette)
        away = np.linalg.norm(lab(color[narrow]) - lab(palette)[numbers], axis=-1)
        index[narrow] = np.where(away < SAME_COLOR, numbers, -1)
    return Palette(palette, np.array(shares, np.float32)[order], index)


def nearest_color(colors: Floats, palette: Floats) -> NDArray[np.int32]:
    """Give the number of the palette color (K, 3) nearest in CIELAB to each of the colors (N, 3)."""
    distance = ((lab(colors)[:, None] - lab(palette)[None]) ** 2).sum(-1)  # (N, K)
    return distance.argmin(1).astype(np.int32)


def is_shadow(dark: Floats, light: Floats) -> bool:
    """Tell whether one color (3,) can be another in shadow: darker, but not by far, and of nearly the same hue."""
    kept = dark / np.maximum(light, np.float32(1e-6))
    darker = (dark <= light).all() and (dark < light).any()
    return bool(darker and kept.min() >= DARKEST_SHADOW and np.ptp(kept) <= SHADOW_TURN)


def shadows_of(palette: Palette) -> NDArray[np.int32]:
    """Give for each color of a palette the number of the color that it is the shadow of, or its own, (K,).

    Two tones of one surface meet without a line between them; most of a shadow's borders of that kind are with its
    color, and they are long. If two such shadows are of one tone, what is another color in that tone is its shadow,
    too, wherever it lies. A shadow's own shadow is taken for one of the lightest tone.
    """
    count, index = len(palette.colors), palette.index
    pairs = np.zeros(count * count, np.int64)
    for one, other in ((index[:, 1:], index[:, :-1]), (index[1:], index[:-1])):
        apart = (one != other) & (one >= 0) & (other >= 0)
        for first, second in ((one[apart], other[apart]), (other[apart], one[apart])):
            pairs += np.bincount(first.astype(np.int64) * count + second, minlength=count * count)
    met, areas = pairs.reshape(count, count), np.bincount(index[index >= 0], minlength=count)
    lit = np.arange(count, dtype=np.int32)
    for dark in range(count):
        least = max(1.0, TOUCHING * met[dark].sum(), LONG_ENOUGH * areas[dark] ** 0.5)
        for light in np.flatnonzero((met[dark] >= least) & (areas >= LEAST_LIT * areas[dark])):
            if is_shadow(palette.colors[dark], palette.colors[light]):
                lit[dark] = light
    lit = _in_the_same_tone(palette.colors, lit)
    for _ in range(count):   # a shadow is darker than its color, so this never goes in a circle
        lit = lit[lit]
    return lit


def _in_the_same_tone(colors: Floats, lit: NDArray[np.int32]) -> NDArray[np.int32]:
    """Find the shadows that touch no color of theirs, such as an arm behind the body: what `lit` becomes, (K,).

    colors: (K, 3). A production lays one tone over everything that lies in shadow; it is known from two shadows at
    least that keep the same share of each channel.
    """
    dark = np.flatnonzero(lit != np.arange(len(lit)))
    kept = colors[dark] / np.maximum(colors[lit[dark]], np.float32(1e-3))  # (shadows, 3)
    alike = np.abs(kept[:, None] - kept[None]).max(axis=2) < SAME_TONE
    if not len(dark) or alike.sum(axis=1).max() < 2:
        return lit
    tone = kept[alike[alike.sum(axis=1).argmax()]].mean(axis=0)
    apart = np.linalg.norm(lab(colors)[:, None] - lab(colors * tone)[None], axis=-1)  # (K, K) of dark and light
    found = lit.copy()
    for number in np.flatnonzero(lit == np.arange(len(lit))):
        for light in np.argsort(apart[number], kind="stable"):
            near = apart[number, light] < SAME_SHADE and lit[light] == light
            if near and is_shadow(colors[number], colors[light]):
                found[number] = light
                break
    return found


def _narrow_fields(color: Floats, ink: Floats) -> NDArray[np.bool_]:
    """Mark what is of one color over more than the width of a line, and not of the lines' color."""
    strokes = (ink > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(strokes, cv2.DIST_L2, 5)
    ridge = (depth > 0) & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)))
    if not ridge.any():
        return np.zeros(ink.shape, bool)
    width = round(2 * float(np.median(depth[ridge])) - 1)
    side = max(3, width + 2) | 1
    fields = cv2.dilate(_even(color, side).astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    line_color = np.median(lab(color[ridge]), axis=0)
    return fields & (np.linalg.norm(lab(color) - line_color, axis=-1) >= SAME_COLOR)


def _even(color: Floats, side: int = 3) -> NDArray[np.bool_]:
    """Mark pixels whose surroundings, a square of `side` pixels, are of one color."""
    kernel = np.ones((side, side), np.uint8)
    spread = cv2.dilate(color, kernel) - cv2.erode(color, kernel)
    return np.asarray(spread.max(-1) < 0.03)
