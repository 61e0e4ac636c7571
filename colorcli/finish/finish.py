"""The last step of a frame: the model's small layer of color becomes the picture that is delivered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorcli.finish.lines import LineLayer, lift_lines
from colorcli.finish.regions import (
    closed_regions,
    nearest_region,
    region_colors,
    shade_regions,
    snap_to_palette,
    split_by_color,
)
from colorcli.prepare.canvas import Canvas, from_canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.lineart import alpha_is_lines
from colorcli.prepare.palette import find_palette
from colorcli.presets import FinishSettings, Preset

Float = NDArray[np.float32]

BLEED = 1.0  # how far the model's colors run over a line, in pixels of its canvas


@dataclass(frozen=True)
class Drawing:
    """A frame as its lines see it: what was drawn, on which paper, and how much of each pixel is there at all."""

    lines: LineLayer
    presence: Float | None  # (H, W) alpha of the whole cel; None: all of it, or only the lines have one


def finish_frame(layer: Float, frame: PreparedFrame, key: PreparedKey, preset: Preset) -> tuple[Float, Float | None]:
    """Finish one frame: color (H, W, 3) straight in 0..1 and alpha (H, W) or None, at the size of the frame.

    layer: (h, w, 3) the model's colors at canvas size, 0..1. Colors stay inside the lines, the frame's own lines are
    laid over them, and outside the character lies what the preset's background rule says.
    """
    drawing = _read_drawing(frame)
    mask = frame.mask
    if drawing.presence is not None:
        # The color of a straight pixel does not know how much of the pixel is there.
        mask = np.divide(mask, drawing.presence, out=np.zeros_like(mask), where=drawing.presence > 0)
        mask = np.minimum(mask, np.float32(1))
    filled = fill_character(layer, frame, key, preset.finish)
    cut_out = preset.background.rule == "transparent" or preset.output.alpha == "mask"
    lines = drawing.lines if preset.finish.lines == "original" else None
    if preset.background.rule == "model":
        behind = from_canvas(layer, frame.canvas, 1)
    else:
        behind = np.broadcast_to(background_color(key, preset), filled.shape)

    color = behind + (filled - behind) * mask[..., None] if not cut_out else filled * mask[..., None]
    cover = mask if cut_out else np.ones_like(mask)
    if lines is not None:
        left = 1 - lines.cover
        color = color * left[..., None] + lines.ink_color
        cover = lines.cover + cover * left
    if cut_out:
        color = np.divide(color, cover[..., None], out=np.ones_like(color), where=cover[..., None] > 0)
    return _with_alpha(np.clip(color, 0, 1), cover if cut_out else None, frame, drawing, preset)


def fill_character(layer: Float, frame: PreparedFrame, key: PreparedKey, settings: FinishSettings) -> Float:
    """Give the color under the lines, (H, W, 3), by the preset's `fill`; it runs on past the character's edge."""
    full = from_canvas(layer, frame.canvas, 1)
    regions = closed_regions(frame.lines.ink, frame.mask)
    if not regions.count:
        return full
    blur_px = BLEED * canvas_pixel(frame.canvas)
    if settings.fill == "flat":
        regions = split_by_color(full, regions, blur_px)
    colors = region_colors(full, regions, blur_px)
    if settings.fill == "soft":
        return shade_regions(full, regions, blur_px, colors)
    if settings.palette == "key":
        palette = find_palette(key.color_canvas, key.ink_canvas, key.mask_canvas)
        colors[1:] = snap_to_palette(colors[1:], palette.colors, settings.palette_reach)
    return colors[nearest_region(regions)]


def canvas_pixel(canvas: Canvas) -> float:
    """Give the width of one pixel of the canvas, in pixels of the frame."""
    return canvas.crop[2] / canvas.window[2]


def background_color(key: PreparedKey, preset: Preset) -> Float:
    """Give the flat color behind the character, (3,): white, or the key's own for the rule "keep"."""
    white = np.ones(3, np.float32)
    if preset.background.rule != "keep":
        return white
    outside = key.color_canvas[(key.mask_canvas < 0.05) & (key.ink_canvas < 0.05)]
    return np.median(outside, axis=0).astype(np.float32) if len(outside) else white


def _read_drawing(frame: PreparedFrame) -> Drawing:
    """Take the lines off the paper, whether they are drawn on paper, on an opaque cel, or lie alone in the alpha."""
    picture, ink = frame.picture, frame.lines.ink
    white = np.ones(3, np.float32)
    if picture.alpha is None:
        return Drawing(lift_lines(picture.color, ink, _paper_color(picture.color, ink)), None)
    if alpha_is_lines(picture.alpha):
        # Nothing to take apart: the file says how much of each pixel is line.
        return Drawing(LineLayer(picture.alpha, picture.color * picture.alpha[..., None]), None)
    ink = np.divide(ink, picture.alpha, out=np.zeros_like(ink), where=picture.alpha > 0)
    return Drawing(lift_lines(picture.color, np.minimum(ink, np.float32(1)), white), picture.alpha)


def _paper_color(color: Float, ink: Float) -> Float:
    """Measure the color of the paper, (3,), on every fourth pixel without ink; white if there is none."""
    bare = color[::4, ::4][ink[::4, ::4] == 0]
    return np.median(bare, axis=0).astype(np.float32) if len(bare) else np.ones(3, np.float32)


def _with_alpha(
    color: Float, cover: Float | None, frame: PreparedFrame, drawing: Drawing, preset: Preset
) -> tuple[Float, Float | None]:
    """Settle the alpha by the preset's rule; a picture that loses its alpha is laid over white paper."""
    own = frame.picture.alpha
    alpha: Float | None = drawing.presence
    if own is not None and drawing.presence is None:
        alpha = own + (1 - own) * frame.mask  # the lines had it alone, now there is color between them
    if cover is not None:
        alpha = cover if drawing.presence is None else drawing.presence * cover
    if preset.output.alpha == "none" and alpha is not None:
        return (color - 1) * alpha[..., None] + 1, None
    return color, alpha
