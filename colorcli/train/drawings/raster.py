"""From drawn shapes to pictures: fills, ink, part map; all anti-aliased by drawing at twice the size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings.curves import Points

RGB = tuple[int, int, int]
SCALE = 2  # the picture is drawn this much larger, then area-averaged
_SHIFT = 4  # fractional bits of a coordinate given to OpenCV


@dataclass(frozen=True)
class Pen:
    """How a character is inked."""

    width: float = 1.6  # of an outline, px at 512 px picture height
    color: RGB = (20, 20, 24)
    detail: float = 0.7  # width of inner lines, as a share
    taper: float = 0.0  # 0: even lines; 1: lines thin out to nothing at their ends
    gaps: float = 0.0  # chance that a stroke is interrupted
    missing: float = 0.0  # chance that an outline between two parts is left out
    uneven: float = 0.0  # how much the width changes from stroke to stroke, as a share
    strength: float = 1.0  # how dark the line art is, 0..1


@dataclass(frozen=True)
class Shape:
    """One filled outline with the lines on it, in figure units (y up)."""

    part: int
    color: RGB
    fills: tuple[Points, ...]  # closed outlines; their union is filled
    strokes: tuple[Points, ...] = ()  # open polylines drawn around it
    details: tuple[Points, ...] = ()  # open polylines, seen only inside it
    shadows: tuple[Points, ...] = ()  # closed outlines, shaded where they lie inside it
    group: str = ""  # shapes of one group are one region
    weight: float = 1.0  # of its lines, as a share of the pen's width
    ink: float = 1.0  # how strongly its lines show in the line art, 0..1
    line_color: RGB | None = None  # instead of the pen's
    shaded: bool = True  # takes part in the two-tone shading
    solid: bool = False  # filled with ink in the line art too, as pupils are


@dataclass(frozen=True)
class Shading:
    """A second tone away from the light."""

    offset: tuple[float, float]  # figure units; the light comes from there
    multiply: tuple[float, float, float]  # color of the shadow tone, 0..1


@dataclass
class Layers:
    """What has been drawn so far, at SCALE times the picture's size."""

    ids: NDArray[np.uint16]  # (H, W) index of the uppermost shape, 0 = paper
    ink: NDArray[np.uint8]  # (H, W) 255 = full line
    shade: NDArray[np.uint8]  # (H, W) 255 = shadow tone
    colors: list[RGB] = field(default_factory=lambda: [(255, 255, 255)])
    parts: list[int] = field(default_factory=lambda: [0])
    groups: list[str] = field(default_factory=lambda: [""])
    strength: list[float] = field(default_factory=lambda: [1.0])
    line_colors: list[RGB] = field(default_factory=lambda: [(0, 0, 0)])
    solid: list[bool] = field(default_factory=lambda: [False])


def new_layers(width: int, height: int) -> Layers:
    """Empty layers for a picture of this size."""
    size = (height * SCALE, width * SCALE)
    return Layers(np.zeros(size, np.uint16), np.zeros(size, np.uint8), np.zeros(size, np.uint8))


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _stroke(ink: NDArray[np.uint8], points: NDArray[np.int32], width: float, taper: float) -> None:
    """Draw a polyline; a tapered one in short pieces of growing and shrinking width."""
    if taper <= 0 or len(points) < 6:
        cv2.polylines(ink, [points], False, 255, max(1, round(width)), cv2.LINE_AA, _SHIFT)
        return
    pieces = 6
    cuts = np.linspace(0, len(points) - 1, pieces + 1).astype(int)
    for k in range(pieces):
        middle = (k + 0.5) / pieces
        share = 1 - taper * (2 * abs(middle - 0.5)) ** 2
        piece = points[cuts[k] : cuts[k + 1] + 1]
        cv2.polylines(ink, [piece], False, 255, max(1, round(width * share)), cv2.LINE_AA, _SHIFT)


def draw_shapes(
    layers: Layers,
    shapes: Sequence[Shape],
    to_picture: tuple[float, float, float],
    pen: Pen,
    shading: Shading | None,
    rng: np.random.Generator,
) -> None:
    """Draw shapes over what is there, first one lowest.

    to_picture: scale and offset (s, x, y): a figure point (u, v) lies at (x + s*u, y - s*v), px of the picture.
    """
    height, width = layers.ids.shape
    s, ox, oy = (SCALE * k for k in to_picture)
    line = pen.width * SCALE * (height / SCALE) / 512
    for shape in shapes:
        fills = [np.stack([ox + s * f[:, 0], oy - s * f[:, 1]], 1) for f in shape.fills if len(f) > 2]
        if not fills:
            continue
        everything = np.concatenate(fills)
        low, high = everything.min(0), everything.max(0)
        pad = line + 3
        if high[0] < -pad or high[1] < -pad or low[0] > width + pad or low[1] > height + pad:
            continue
        index = len(layers.colors)
        layers.colors.append(shape.color)
        layers.parts.append(shape.part)
        layers.groups.append(shape.group)
        layers.strength.append(shape.ink * pen.strength)
        layers.solid.append(shape.solid)
        layers.line_colors.append(shape.line_color or pen.color)
        fixed = [_fixed(f) for f in fills]
        for outline in fixed:
            cv2.fillPoly(layers.ids, [outline], index, cv2.LINE_8, _SHIFT)
            cv2.fillPoly(layers.ink, [outline], 0, cv2.LINE_8, _SHIFT)
            if shading is not None:
                cv2.fillPoly(layers.shade, [outline], 0, cv2.LINE_8, _SHIFT)

        x0, y0 = np.maximum(np.floor(low).astype(int) - 2, 0)
        x1, y1 = np.minimum(np.ceil(high).astype(int) + 3, (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        box = (slice(int(y0), int(y1)), slice(int(x0), int(x1)))
        corner = np.array([x0, y0], float)
        own = None
        if shading is not None and shape.shaded:
            own = layers.ids[box] == index
            dx, dy = round(shading.offset[0] * s), round(-shading.offset[1] * s)
            h, w = own.shape
            if abs(dx) < w and abs(dy) < h:
                lit = np.zeros_like(own)
                lit[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)] = own[
                    max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)
                ]
                layers.shade[box][own & ~lit] = 255
            for shadow in shape.shadows:
                tone = np.zeros(own.shape, np.uint8)
                at = np.stack([ox + s * shadow[:, 0], oy - s * shadow[:, 1]], 1) - corner
                cv2.fillPoly(tone, [_fixed(at)], 255, cv2.LINE_8, _SHIFT)
                layers.shade[box][own & (tone > 0)] = 255
        if shape.details:
            own = layers.ids[box] == index if own is None else own
            marks = np.zeros(own.shape, np.uint8)
            for detail in shape.details:
                at = np.stack([ox + s * detail[:, 0], oy - s * detail[:, 1]], 1) - corner
                _stroke(marks, _fixed(at), line * pen.detail * shape.weight, pen.taper)
            target = layers.ink[box]
            np.maximum(target, np.where(own, marks, 0).astype(np.uint8), out=target)
        if shape.weight <= 0:
            continue
        for stroke in shape.strokes:
            if pen.missing and len(shape.strokes) > 1 and rng.random() < pen.missing:
                continue
            at = _fixed(np.stack([ox + s * stroke[:, 0], oy - s * stroke[:, 1]], 1))
            wide = line * shape.weight * (1 + pen.uneven * rng.uniform(-1, 1))
            # The shape owns the whole width of its line, so that colors meet under it and never beside it.
            cv2.polylines(layers.ids, [at], False, index, max(1, round(wide)) + 1, cv2.LINE_8, _SHIFT)
            pieces = [at]
            if pen.gaps and len(at) > 10 and rng.random() < pen.gaps:
                cut = int(rng.integers(2, len(at) - 3))
                pieces = [at[:cut], at[cut + int(rng.integers(1, 3)) :]]
            for piece in pieces:
                if len(piece) > 1:
                    _stroke(layers.ink, piece, wide, pen.taper)


@dataclass(frozen=True)
class Pictures:
    """The finished pictures of one drawing, all at its size."""

    color: NDArray[np.uint8]  # (H, W, 3)
    flat: NDArray[np.uint8]  # (H, W, 3) without lines
    line: NDArray[np.uint8]  # (H, W) 255 = paper
    parts: NDArray[np.uint8]  # (H, W)
    regions: NDArray[np.int32]  # (H, W) 0 = background


def develop(
    layers: Layers, paper: NDArray[np.uint8] | None, paper_ink: NDArray[np.uint8] | None, shading: Shading | None
) -> Pictures:
    """Turn layers into pictures.

    paper: (h, w, 3) color behind the character at SCALE, None = white; paper_ink: (h, w) its lines, None = none.
    """
    ids = layers.ids
    size = (ids.shape[1] // SCALE, ids.shape[0] // SCALE)
    palette = np.full((len(layers.colors), 4), 255, np.uint8)  # four bytes: one color is one word, looked up at once
    palette[:, :3] = layers.colors
    index = ids
    if shading is not None:
        dark = np.round(palette * np.array([*shading.multiply, 1.0])).astype(np.uint8)
        index = ids + (layers.shade & 1).astype(np.uint16) * np.uint16(len(palette))
        palette = np.concatenate([palette, dark])
    flat = palette.view(np.uint32)[:, 0].take(index, mode="clip").view(np.uint8).reshape(*ids.shape, 4)
    ink = layers.ink
    if paper is not None:
        outside = (ids == 0).view(np.uint8)
        cv2.copyTo(cv2.cvtColor(paper, cv2.COLOR_RGB2RGBA), outside, flat)
        if paper_ink is not None:
            ink = cv2.max(ink, cv2.copyTo(paper_ink, outside))
    flat_small = cv2.resize(flat, size, interpolation=cv2.INTER_AREA)[..., :3]
    cover = cv2.resize(ink, size, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    small_ids = ids[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
    inks = np.array(layers.line_colors, np.float32)
    color = flat_small + (inks[small_ids] - flat_small) * cover

    strength = np.round(255 * np.array(layers.strength)).astype(np.uint8)
    line_cover = cover[..., 0]
    if (strength < 255).any():
        weak = cv2.multiply(ink, strength.take(ids, mode="clip"), scale=1 / 255)
        line_cover = cv2.resize(weak, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    if any(layers.solid):
        filled = (np.array(layers.solid) * np.array(strength)).astype(np.uint8)
        spots = cv2.resize(filled.take(ids, mode="clip"), size, interpolation=cv2.INTER_AREA)
        line_cover = np.maximum(line_cover, spots.astype(np.float32) / 255)
    names: dict[str, int] = {"": 0}
    groups = [0] + [names.setdefault(g or f"#{k}", len(names)) for k, g in enumerate(layers.groups[1:])]
    return Pictures(
        np.round(color).astype(np.uint8),
        np.ascontiguousarray(flat_small),
        np.round(255 * (1 - line_cover)).astype(np.uint8),
        np.array(layers.parts, np.uint8)[small_ids],
        np.array(groups, np.int32)[small_ids],
    )
