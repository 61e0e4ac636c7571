"""The last step of a frame: the model's small layer of color becomes the picture that is delivered."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from colorcli.finish.lines import NO_LINES, STROKE_REACH_PX, LineLayer, lift_lines, lines_of_alpha
from colorcli.finish.regions import region_colors, shade_regions, soften_borders, split_by_color
from colorcli.finish.repaint import repaint
from colorcli.finish.separation import separation_lines
from colorcli.finish.snapping import NONE, Pieces, SnapRule, borders_of, snap
from colorcli.images import over_paper
from colorcli.prepare.canvas import Box, Canvas, bounds, from_canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.lineart import LineArt, alpha_is_lines
from colorcli.prepare.regions import PAPER_BELOW, Labels, Regions, nearest_labelled
from colorcli.presets import FinishSettings, Preset

Float = NDArray[np.float32]

BLEED = 1.0  # how far the model's colors run over a line, in pixels of its canvas
ROUNDED = np.float32(1e-5)  # by how much a channel is lighter at most that is as light but for the sRGB curve and back


@dataclass(frozen=True)
class Cel:
    """A frame taken apart."""

    lines: LineLayer  # off their paper
    mask: Float       # (H, W) character; of a pixel that is half there, the share of that half


@dataclass(frozen=True)
class Fill:
    """The color under the lines, and what it is made of; it runs on past the character's edge."""

    color: Float                  # (H, W, 3)
    labels: Labels | None = None  # (H, W) pieces of one color or shade, from 1, under lines as well; None: not parted
    colors: Float | None = None   # (count + 1, 3) the color of each piece; None: each pixel has its own
    whole: Labels | None = None   # (H, W) closed regions, 0 on lines; where pieces meet in one, `color` is softened;
                                  # None: it is not
    lit: Float | None = None      # (count + 1, 3) the color that each of `colors` is a shadow of in the key, or itself;
                                  # no channel of it is darker
    unsure: tuple[int, ...] = ()  # pieces whose color is a guess: another surface's is about as near, or none is near


@dataclass(frozen=True)
class FrameParts:
    """What a frame is laid together from: all of it that is not empty, sRGB-encoded and straight."""

    box: Box           # where it lies in the frame; of no size for an empty frame
    fill: Fill
    cel: Cel           # what is laid: without lines if none are wanted, and everywhere if the model painted everywhere
    lines: LineLayer   # as drawn, laid or not
    character: Float   # (h, w) mask of the character
    behind: Float      # (3,) color
    cut_out: bool      # nothing is behind

    @property
    def place(self) -> tuple[slice, slice]:
        """The box as rows and columns."""
        left, top, width, height = self.box
        return slice(top, top + height), slice(left, left + width)


def finish_frame(layer: Float, frame: PreparedFrame, key: PreparedKey, preset: Preset) -> tuple[Float, Float | None]:
    """Finish one frame: color (H, W, 3) straight in 0..1 and alpha (H, W) or None, at the size of the frame.

    layer: (h, w, 3) the model's colors at canvas size, 0..1. Colors stay inside the lines, the frame's own lines are
    laid over them, and outside the character lies what the preset's background rule says.
    """
    return lay_together(frame_parts(layer, frame, key, preset), frame, preset)


def frame_parts(layer: Float, frame: PreparedFrame, key: PreparedKey, preset: Preset) -> FrameParts:
    """Make what a frame is laid together from; the arguments are those of `finish_frame`."""
    width, height = frame.canvas.source
    cut_out = preset.background.rule == "transparent" or preset.output.alpha == "mask"
    box = (0, 0, width, height) if preset.background.rule == "model" else _used_box(frame)
    behind = background_color(key, preset)
    if box is None:
        nothing = np.zeros((0, 0), np.float32)
        cel = Cel(NO_LINES, nothing)
        return FrameParts((0, 0, 0, 0), Fill(np.zeros((0, 0, 3), np.float32)), cel, NO_LINES, nothing, behind, cut_out)
    rows, columns = slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2])
    part = _cut(frame, box)
    paper = _paper_color(frame)
    # Told of the whole frame: in the box of a small drawing its lines would be wide ones.
    only_lines = frame.picture.alpha is not None and alpha_is_lines(frame.picture.alpha)
    cel = _take_apart(part, only_lines, paper, max(width, height) / 1280)
    unseen = None
    if preset.finish.separation_lines == "remove":
        unseen = separation_lines(over_paper(part.picture), part.lines.ink, paper)
        cel = replace(cel, lines=cel.lines.without(unseen))
    drawn = cel
    if preset.finish.lines == "none":
        cel = replace(cel, lines=NO_LINES)
    if preset.background.rule == "model" and not cut_out:
        cel = replace(cel, mask=np.ones_like(cel.mask))  # the model painted everywhere
    if preset.finish.fill == "model":
        fill = Fill(from_canvas(layer, part.canvas, 1))
    else:
        fill = fill_character(layer, part, key, preset, regions_of(frame, preset, rows, columns), unseen)
    return FrameParts(box, fill, cel, drawn.lines, drawn.mask, behind, cut_out)


def lay_together(
    parts: FrameParts, frame: PreparedFrame, preset: Preset, *, keep: bool = False
) -> tuple[Float, Float | None]:
    """Lay a frame's parts together: color (H, W, 3) and alpha (H, W) or None, as `finish_frame` gives them.

    keep: the parts are needed afterwards; else their color is written over.
    """
    width, height = frame.canvas.source
    color = np.empty((height, width, 3), np.float32)
    color[:] = parts.behind
    cover = np.zeros((height, width), np.float32)  # of color and lines, over what is behind
    if parts.cel.mask.size:
        filled = parts.fill.color.copy() if keep else parts.fill.color
        color[parts.place], cover[parts.place] = _lay(parts.cel, filled, None if parts.cut_out else parts.behind)
    return _settle_alpha(color, cover if parts.cut_out else None, frame, preset)


def fill_character(
    layer: Float,
    frame: PreparedFrame,
    key: PreparedKey,
    preset: Preset,
    regions: Regions,
    unseen: NDArray[np.bool_] | None = None,
) -> Fill:
    """Give the color under the lines, flat or soft in each region.

    regions: those of the drawing, at its size. unseen: (H, W) lines that part regions and are not laid over them.
    """
    settings = preset.finish
    full = from_canvas(layer, frame.canvas, 1)
    if not regions.count:
        return Fill(full)
    blur_px = BLEED * canvas_pixel(frame.canvas)
    if settings.fill == "soft":
        colors = region_colors(full, regions, blur_px)
        shaded = shade_regions(full, regions, blur_px, colors)
        nearest = nearest_labelled(regions.labels)
        return Fill(shaded.reshape(-1, 3)[nearest], regions.labels.reshape(-1)[nearest])
    whole, regions = regions, split_by_color(full, regions, blur_px)
    colors = region_colors(full, regions, blur_px)
    labels = regions.labels.reshape(-1)[nearest_labelled(regions.labels)]
    closed_in = _regions_of_pieces(regions, whole)
    lit: Float | None = None
    unsure: tuple[int, ...] = ()
    if settings.palette == "key":
        # Past the character's edge the pieces run on, but nobody sees their borders there.
        seen = np.where((frame.mask > 0) | (regions.labels > 0), labels, 0)
        pieces = Pieces(colors[1:], closed_in, regions.areas[1:], partial(borders_of, seen))
        colors, lit, unsure = _in_palette(colors, pieces, key, settings)
    filled = np.take(colors, labels, axis=0)
    if frame.gap_px == 0 and regions is whole and unseen is None:
        return Fill(filled, labels, colors, None, lit, unsure)
    # A line that is not laid is filled from its sides, and each side goes on being the region that it is.
    closed = whole.labels if unseen is None else np.where(unseen, closed_in[labels - 1], whole.labels)
    return Fill(soften_borders(filled, labels, closed), labels, colors, closed, lit, unsure)


def _in_palette(
    measured: Float, pieces: Pieces, key: PreparedKey, settings: FinishSettings
) -> tuple[Float, Float, tuple[int, ...]]:
    """Give pieces colors of the key's palette or the production's: `Fill`'s colors, lit and unsure.

    measured: (count + 1, 3).
    """
    palette, shadows, reach = key.palette.colors, key.shadows, settings.palette_reach
    snapped = snap(pieces, palette, shadows, SnapRule(reach, settings.palette_margin))
    painted = repaint(palette, shadows, key.swatches, reach).colors
    # By the file's own word a shadow may be lighter than its color somewhere; then it is a surface of its own.
    darker = (painted <= painted[shadows] + ROUNDED).all(axis=1, keepdims=True)
    surfaces = np.where(darker, np.maximum(painted, painted[shadows]), painted)
    colors = measured.copy()
    near = np.flatnonzero(snapped.numbers != NONE)
    colors[near + 1] = painted[snapped.numbers[near]]
    lit = colors.copy()
    lit[near + 1] = surfaces[snapped.numbers[near]]
    return colors, lit, tuple(int(piece) + 1 for piece in np.flatnonzero(snapped.unsure))


def _regions_of_pieces(pieces: Regions, whole: Regions) -> NDArray[np.int64]:
    """Give the closed region that each piece is in, (count,)."""
    found = np.arange(pieces.count + 1)
    if pieces is not whole:
        inside = pieces.labels > whole.count   # the other pieces have kept the numbers of their regions
        found[pieces.labels[inside]] = whole.labels[inside]
    return found[1:]


def regions_of(frame: PreparedFrame, preset: Preset, rows: slice, columns: slice) -> Regions:
    """Give the regions that are filled, of a part of the frame that holds them all."""
    everywhere = preset.background.rule == "model"
    regions = frame.regions_in(np.ones_like(frame.mask)) if everywhere else frame.regions
    return Regions(
        np.ascontiguousarray(regions.labels[rows, columns]),
        np.ascontiguousarray(regions.depth[rows, columns]),
        regions.areas,
    )


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


def _lay(cel: Cel, color: Float, behind: Float | None) -> tuple[Float, Float]:
    """Lay the lines over the color and both over what is behind: color (H, W, 3) and how much of each pixel it covers.

    color: (H, W, 3), also beyond the character's edge; it is written over. behind: (3,) color, or None for a cut-out,
    whose color stays straight.
    """
    cover = cel.mask.copy()
    pixels, covers = color.reshape(-1, 3), cover.reshape(-1)
    if behind is not None:
        outside = np.flatnonzero(covers < 1)
        pixels[outside] = behind + (pixels[outside] - behind) * covers[outside, None]
    lines = cel.lines
    if len(lines.where):
        there = covers[lines.where]
        left = 1 - lines.cover if behind is not None else (1 - lines.cover) * there
        laid = pixels[lines.where] * left[:, None] + lines.ink_color
        if behind is None:
            laid /= (lines.cover + left)[:, None]
        pixels[lines.where] = np.minimum(laid, np.float32(1))
        covers[lines.where] = lines.cover + (1 - lines.cover) * there
    return color, cover


def _take_apart(frame: PreparedFrame, only_lines: bool, paper: Float, scale: float) -> Cel:
    """Take the lines off the paper, whether they are drawn on paper, on an opaque cel, or lie alone in the alpha."""
    picture, ink, mask = frame.picture, frame.lines.ink, frame.mask
    reach = max(2, round(STROKE_REACH_PX * scale))
    if picture.alpha is None:
        return Cel(lift_lines(picture.color, ink, paper, reach), _without_outer_edges(mask, ink))
    if only_lines:
        return Cel(lines_of_alpha(picture.color, picture.alpha), _without_outer_edges(mask, ink))
    # Straight color does not know how much of the pixel is there, ink and mask do.
    share = 1 / np.maximum(picture.alpha, np.float32(1 / 255))
    ink, mask = np.minimum(ink * share, np.float32(1)), np.minimum(mask * share, np.float32(1))
    return Cel(lift_lines(picture.color, ink, paper, reach), mask)


def _without_outer_edges(mask: Float, ink: Float) -> Float:
    """Take the outer edge of the outline out of the mask, (H, W): what shows through it is not the character.

    Half way from the paper outside to the paper inside the outline is its middle, where nothing shows through.
    """
    sides = np.where(mask > 0.5, np.int32(1), np.int32(2))
    sides[ink > PAPER_BELOW] = 0
    if not (sides == 2).any() or not (sides == 1).any():
        return mask
    lines = np.flatnonzero(sides == 0)
    nearest = sides.reshape(-1)[nearest_labelled(sides).reshape(-1)[lines]]
    result = mask.copy()
    result.reshape(-1)[lines[nearest == 2]] = 0
    return result


def _paper_color(frame: PreparedFrame) -> Float:
    """Measure the color of the paper, (3,), on every fourth pixel without ink; white under a cel."""
    white = np.ones(3, np.float32)
    if frame.picture.alpha is not None:
        return white
    bare = frame.picture.color[::4, ::4][frame.lines.ink[::4, ::4] == 0]
    return np.median(bare, axis=0).astype(np.float32) if len(bare) else white


def _used_box(frame: PreparedFrame) -> Box | None:
    """Give the smallest box around character and lines, with a little around; None for an empty frame."""
    # Not by OpenCV, to which a frame of one pixel is a number.
    used = (frame.mask > 0) | (frame.lines.ink > 0)
    if frame.picture.alpha is not None:
        used |= frame.picture.alpha > 0
    box = bounds(used)
    if box is None:
        return None
    # One pixel of paper around it, so that the outline has an outside here as well.
    left, top = max(box[0] - 1, 0), max(box[1] - 1, 0)
    right, bottom = min(box[0] + box[2] + 1, used.shape[1]), min(box[1] + box[3] + 1, used.shape[0])
    return left, top, right - left, bottom - top


def _cut(frame: PreparedFrame, box: Box) -> PreparedFrame:
    """Cut a box out of a frame; its canvas stays where it lies."""
    left, top, width, height = box
    part = np.s_[top : top + height, left : left + width]
    picture, canvas = frame.picture, frame.canvas
    crop = (canvas.crop[0] - left, canvas.crop[1] - top, canvas.crop[2], canvas.crop[3])
    return replace(
        frame,
        picture=replace(
            picture, color=picture.color[part], alpha=None if picture.alpha is None else picture.alpha[part]
        ),
        lines=LineArt(np.ascontiguousarray(frame.lines.ink[part])),
        mask=np.ascontiguousarray(frame.mask[part]),
        canvas=replace(canvas, source=(width, height), crop=crop),
    )


def _settle_alpha(
    color: Float, cover: Float | None, frame: PreparedFrame, preset: Preset
) -> tuple[Float, Float | None]:
    """Settle the alpha by the preset's rule; a picture that loses its alpha is laid over white paper."""
    own = frame.picture.alpha
    alpha = alpha_of(cover, own, frame.mask, own is not None and alpha_is_lines(own))
    if preset.output.alpha == "none" and alpha is not None:
        return (color - 1) * alpha[..., None] + 1, None
    return color, alpha


def alpha_of(cover: Float | None, own: Float | None, mask: Float, only_lines: bool) -> Float | None:
    """Give the alpha of a finished frame, (H, W), None: it has none.

    cover: of color and lines in a cut-out frame, else None. own: the drawing's alpha, which holds nothing but its lines
    (`only_lines`) or says where the drawing is. mask: (H, W) character.
    """
    if own is not None and only_lines:
        return own + (1 - own) * mask if cover is None else cover  # there is color between the lines now
    if cover is not None:
        return cover if own is None else own * cover
    return own
