"""From drawn shapes to pictures: fills, ink, part map; all anti-aliased by drawing at twice the size."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings.curves import Points
from colorcli.train.drawings.parts import PARTS

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
    pale: float = 0.0  # chance that a stroke is drawn faintly
    double: float = 0.0  # chance that a stroke is drawn twice, the second time a little beside
    contour: float = 0.0  # how much heavier the outer contour is, in line widths
    hard: bool = False  # every pixel is either a line or not, as in scanned and traced drawings
    hidden: bool = False  # the finished picture has no lines, only the line art has
    shadow_edge: float = 0.0  # how strongly the edges of shadows show in the line art, 0..1


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
    dark: bool = False  # lies in the shadow as a whole


@dataclass(frozen=True)
class Shading:
    """A second tone away from the light, and maybe a third one in it."""

    offset: tuple[float, float]  # figure units; the shadow lies on this side of each shape
    multiply: tuple[float, float, float]  # color of the shadow tone, 0..1
    rim: float = 1.0  # share of shapes shaded along their edge
    panel: float = 0.0  # share of shapes with one side in the shadow, as far as a drawn border
    wedges: float = 0.0  # pointed folds of shadow to be expected in a shape
    far: bool = False  # limbs behind the body lie in the shadow
    spread: float = 0.0  # how much the shadow tone differs from part to part
    shine: float = 0.0  # how light the light on hair is, 0 none .. 1 white
    seed: int = 0  # chance of the shapes of shadows


SHADOW, SHINE = 1, 2  # tones of Layers.shade


@dataclass
class Layers:
    """What has been drawn so far, at SCALE times the picture's size."""

    ids: NDArray[np.uint16]  # (H, W) index of the uppermost shape, 0 = paper
    ink: NDArray[np.uint8]  # (H, W) 255 = full line
    shade: NDArray[np.uint8]  # (H, W) 0 = full light, else SHADOW or SHINE
    colors: list[RGB] = field(default_factory=lambda: [(255, 255, 255)])
    parts: list[int] = field(default_factory=lambda: [0])
    groups: list[str] = field(default_factory=lambda: [""])
    strength: list[float] = field(default_factory=lambda: [1.0])
    line_colors: list[RGB] = field(default_factory=lambda: [(0, 0, 0)])
    solid: list[bool] = field(default_factory=lambda: [False])
    reach: list[int] = field(default_factory=list)  # left, top, right, bottom of all that is drawn; empty = nothing


def new_layers(width: int, height: int) -> Layers:
    """Empty layers for a picture of this size."""
    size = (height * SCALE, width * SCALE)
    return Layers(np.zeros(size, np.uint16), np.zeros(size, np.uint8), np.zeros(size, np.uint8))


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _stroke(ink: NDArray[np.uint8], points: NDArray[np.int32], width: float, taper: float, value: int = 255) -> None:
    """Draw a polyline; a tapered one in short pieces of growing and shrinking width."""
    if taper <= 0 or len(points) < 6:
        cv2.polylines(ink, [points], False, value, max(1, round(width)), cv2.LINE_AA, _SHIFT)
        return
    pieces = 6
    cuts = np.linspace(0, len(points) - 1, pieces + 1).astype(int)
    for k in range(pieces):
        middle = (k + 0.5) / pieces
        share = 1 - taper * (2 * abs(middle - 0.5)) ** 2
        piece = points[cuts[k] : cuts[k + 1] + 1]
        cv2.polylines(ink, [piece], False, value, max(1, round(width * share)), cv2.LINE_AA, _SHIFT)


def _toothed(start: Points, end: Points, teeth: int, deep: float, rng: np.random.Generator) -> Points:
    """A border of shadow from start to end, with some teeth up to `deep` beside it."""
    t = np.linspace(0, 1, 2 * teeth + 3)
    side = np.array([-(end - start)[1], (end - start)[0]]) / max(float(np.hypot(*(end - start))), 1e-6)
    out = np.zeros(len(t))
    out[1:-1] = rng.uniform(-1, 1, len(t) - 2) * deep
    return start + (end - start) * t[:, None] + side * out[:, None]


def _shade(
    shade: NDArray[np.uint8],
    own: NDArray[np.bool_],
    shape: Shape,
    outlines: list[Points],
    shadows: list[Points],
    shading: Shading,
    scale: float,
) -> None:
    """Put a shape's shadows into its box of the shade layer; all points are px of the box."""
    h, w = own.shape
    if shape.dark:
        shade[own] = SHADOW
        return
    # The chance of a shape is its own, so its shadow looks alike in all frames of a shot.
    rng = np.random.default_rng((shading.seed, zlib.crc32(shape.group.encode()), shape.part))
    lots = rng.random(4)
    dark: list[Points] = list(shadows)
    if lots[0] < shading.rim:
        dx, dy = round(shading.offset[0] * scale), round(-shading.offset[1] * scale)
        if abs(dx) < w and abs(dy) < h:
            lit = np.zeros_like(own)
            lit[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)] = own[
                max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)
            ]
            shade[own & ~lit] = SHADOW
    if min(h, w) > 12:
        size = np.array([w, h], float)
        if lots[1] < shading.panel:
            way = np.array([shading.offset[0], -shading.offset[1]])
            way = way / max(float(np.hypot(*way)), 1e-9)
            way = way + rng.normal(0, 0.25, 2)
            across = np.array([-way[1], way[0]])
            middle = size / 2 + way * rng.uniform(-0.15, 0.4) * abs(float(size @ np.abs(way)))
            far = 2 * float(size.sum())
            deep = 0.12 * min(h, w) * rng.random() ** 2
            edge = _toothed(middle - across * size.sum() / 2, middle + across * size.sum() / 2, 6, deep, rng)
            dark.append(np.concatenate([edge, edge[::-1][[0, -1]] + way * far]))
        outline = max(outlines, key=len)
        for _ in range(int(rng.poisson(shading.wedges))):
            k = int(rng.integers(len(outline)))
            wide = int(rng.integers(1, max(2, len(outline) // 8)))
            a, b = outline[k], outline[(k + wide) % len(outline)]
            if np.hypot(*(b - a)) > 0.7 * max(h, w):
                continue
            tip = (a + b) / 2 + (size / 2 - (a + b) / 2) * rng.uniform(0.3, 0.9) + rng.normal(0, 0.06, 2) * size
            teeth = int(rng.integers(0, 3))
            deep = 0.1 * min(h, w)
            sides = [_toothed(a, tip, teeth, deep, rng), _toothed(tip, b, teeth, deep, rng)]
            dark.append(np.concatenate(sides))
    if dark:
        tone = np.zeros(own.shape, np.uint8)
        for shadow in dark:
            cv2.fillPoly(tone, [_fixed(shadow)], 255, cv2.LINE_8, _SHIFT)
        shade[own & (tone > 0)] = SHADOW
    if shading.shine and PARTS[shape.part] in ("hair", "shoe", "armor") and min(h, w) > 16:
        level, thick = rng.uniform(0.15, 0.4) * h, rng.uniform(0.04, 0.12) * h
        x = np.linspace(rng.uniform(0, 0.3), rng.uniform(0.6, 1), 9) * w
        bow = rng.uniform(0.0, 0.5) * h * ((x - w / 2) / w) ** 2
        up = level + bow + rng.uniform(0, thick, 9) * (np.arange(9) % 2)
        low = level + bow + thick + rng.uniform(0, thick, 9) * (np.arange(9) % 2)
        tone = np.zeros(own.shape, np.uint8)
        cv2.fillPoly(tone, [_fixed(np.stack([np.append(x, x[::-1]), np.append(up, low[::-1])], 1))], 255, 8, _SHIFT)
        shade[own & (tone > 0) & (shade != SHADOW)] = SHINE


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
        layers.reach = (
            [min(layers.reach[0], int(x0)), min(layers.reach[1], int(y0)),
             max(layers.reach[2], int(x1)), max(layers.reach[3], int(y1))]
            if layers.reach else [int(x0), int(y0), int(x1), int(y1)]
        )  # fmt: skip
        own = None
        if shading is not None and shape.shaded:
            own = layers.ids[box] == index
            shadows = [np.stack([ox + s * p[:, 0], oy - s * p[:, 1]], 1) - corner for p in shape.shadows]
            _shade(layers.shade[box], own, shape, [f - corner for f in fills], shadows, shading, s)
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
                wide_gap = len(at) > 24 and rng.random() < 0.12
                pieces = [at[:cut], at[cut + int(rng.integers(3, 8) if wide_gap else rng.integers(1, 3)) :]]
            value = later = 255 if not pen.pale or rng.random() >= pen.pale else int(rng.integers(50, 170))
            if pen.pale and len(pieces) == 1 and len(at) > 16 and rng.random() < 0.25:
                # A long line may go on faintly, as at the back of a head or where a sleeve goes over into a shoulder.
                cut = int(rng.integers(4, len(at) - 4))
                pieces, later = [at[: cut + 1], at[cut:]], int(rng.integers(40, 170))
            for k, piece in enumerate(pieces):
                if len(piece) > 1:
                    shown = later if k else value
                    _stroke(layers.ink, piece, wide, pen.taper, shown)
                    if pen.double and rng.random() < pen.double:
                        beside = rng.normal(0, wide * 0.7, 2) * (1 << _SHIFT)
                        drift = np.linspace(-1, 1, len(piece))[:, None] * rng.normal(0, wide * 0.7, 2) * (1 << _SHIFT)
                        _stroke(layers.ink, np.round(piece + beside + drift).astype(np.int32), wide, pen.taper, shown)
    if pen.contour and layers.reach:
        thick = max(1, round(line * pen.contour))
        x0, y0, x1, y1 = layers.reach
        within = layers.ids[y0:y1, x0:x1]
        inside = cv2.copyMakeBorder((within > 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        core = cv2.erode(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1,) * 2))[1:-1, 1:-1]
        layers.ink[y0:y1, x0:x1][(within > 0) & (core == 0)] = 255


@dataclass(frozen=True)
class Pictures:
    """The finished pictures of one drawing, all at its size."""

    color: NDArray[np.uint8]  # (H, W, 3)
    flat: NDArray[np.uint8]  # (H, W, 3) without lines
    line: NDArray[np.uint8]  # (H, W) 255 = paper
    parts: NDArray[np.uint8]  # (H, W)
    regions: NDArray[np.int32]  # (H, W) 0 = background


def develop(
    layers: Layers,
    paper: NDArray[np.uint8] | None,
    paper_ink: NDArray[np.uint8] | None,
    shading: Shading | None,
    pen: Pen,
) -> Pictures:
    """Turn layers into pictures.

    paper: (h, w, 3) color behind the character at SCALE, None = white; paper_ink: (h, w) its lines, None = none.
    """
    height, width = (side // SCALE for side in layers.ids.shape)
    reach = layers.reach or [0, 0, SCALE, SCALE]
    if paper is not None:
        reach = [0, 0, width * SCALE, height * SCALE]
    # Blank paper around the figure needs no work: only what lies within its reach, and the lines around, is averaged.
    pad = 8 * SCALE
    x0, y0 = (max(0, k - pad) // SCALE for k in reach[:2])
    x1, y1 = (min(side, (k + pad) // SCALE) for k, side in zip(reach[2:], (width, height), strict=True))
    large = (slice(y0 * SCALE, y1 * SCALE), slice(x0 * SCALE, x1 * SCALE))
    ids, ink, shade = layers.ids[large], layers.ink[large], layers.shade[large]
    size = (x1 - x0, y1 - y0)

    palette = np.full((len(layers.colors), 4), 255, np.uint8)  # four bytes: one color is one word, looked up at once
    palette[:, :3] = layers.colors
    index = ids
    if shading is not None:
        tones = np.ones((len(palette), 4))
        tones[:, :3] = shading.multiply
        if shading.spread:
            by_part = np.random.default_rng(shading.seed).normal(0, shading.spread, len(PARTS))
            tones[:, :3] = np.clip(tones[:, :3] * np.exp(by_part[layers.parts])[:, None], 0.25, 0.95)
        dark = np.round(palette * tones).astype(np.uint8)
        light = np.round(palette + (255 - palette.astype(float)) * shading.shine).astype(np.uint8)
        index = ids + shade.astype(np.uint16) * np.uint16(len(palette))
        palette = np.concatenate([palette, dark, light])
    flat = palette.view(np.uint32)[:, 0].take(index, mode="clip").view(np.uint8).reshape(*ids.shape, 4)
    if paper is not None:
        outside = (ids == 0).view(np.uint8)
        cv2.copyTo(cv2.cvtColor(paper, cv2.COLOR_RGB2RGBA), outside, flat)
        if paper_ink is not None:
            ink = cv2.max(ink, cv2.copyTo(paper_ink, outside))
    small_ids = ids[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
    cover = cv2.resize(ink, size, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    if pen.hard:
        flat_small = flat[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE, :3]
        cover = (cover > 0.3).astype(np.float32)
    else:
        flat_small = cv2.resize(flat, size, interpolation=cv2.INTER_AREA)[..., :3]
    inks = np.array(layers.line_colors, np.float32)
    color = flat_small.astype(np.float32)
    if not pen.hidden:
        color += (inks[small_ids] - color) * cover

    strength = np.round(255 * np.array(layers.strength)).astype(np.uint8)
    line_cover = cover[..., 0]
    if (strength < 255).any():
        weak = cv2.multiply(ink, strength.take(ids, mode="clip"), scale=1 / 255)
        line_cover = cv2.resize(weak, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if pen.hard:
            line_cover = np.where(line_cover > 0.2 * pen.strength, np.float32(pen.strength), np.float32(0))
    if any(layers.solid):
        filled = (np.array(layers.solid) * np.array(strength)).astype(np.uint8)
        spots = cv2.resize(filled.take(ids, mode="clip"), size, interpolation=cv2.INTER_AREA)
        line_cover = np.maximum(line_cover, spots.astype(np.float32) / 255)
    if shading is not None and pen.shadow_edge:
        border = np.zeros(ids.shape, np.uint8)
        border[1:] |= ((shade[1:] != shade[:-1]) & (ids[1:] == ids[:-1])).view(np.uint8)
        border[:, 1:] |= ((shade[:, 1:] != shade[:, :-1]) & (ids[:, 1:] == ids[:, :-1])).view(np.uint8)
        thick = cv2.dilate(border * np.uint8(255), np.ones((2, 2), np.uint8))
        edges = cv2.resize(thick, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        line_cover = np.maximum(line_cover, edges * pen.shadow_edge)
    names: dict[str, int] = {"": 0}
    groups = [0] + [names.setdefault(g or f"#{k}", len(names)) for k, g in enumerate(layers.groups[1:])]

    def whole(part: NDArray[Any], blank: int) -> NDArray[Any]:
        picture = np.full((height, width, *part.shape[2:]), blank, part.dtype)
        picture[y0:y1, x0:x1] = part
        return picture

    return Pictures(
        whole(np.round(color).astype(np.uint8), 255),
        whole(flat_small, 255),
        whole(np.round(255 * (1 - line_cover)).astype(np.uint8), 255),
        whole(np.array(layers.parts, np.uint8)[small_ids], 0),
        whole(np.array(groups, np.int32)[small_ids], 0),
    )
