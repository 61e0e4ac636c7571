"""A finished frame in layers for a compositor, which laid over each other are the finished frame again.

    beauty = line over (color over paper),     color = flat * shade

Layers are laid over each other in the numbers of the file that they are written to: sRGB-encoded values in PNG, TIFF,
TGA and PSD, linear light in EXR. A soft edge that was mixed in one of the two is not the same mixture in the other, so
covers are made for one of them (`linear`), after the same drawing:

`share` is how much of a finished pixel is not line. To let that much of what lies under it through in encoded values,
a line has to let `decode_srgb(share)` of the light through. As the sRGB curve bends upward, and
`decode(a * b) >= decode(a) * decode(b)`, nothing has to be taken away from any layer: no color is below 0 or above 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.finish.finish import FrameParts, alpha_of, canvas_pixel, frame_parts, lay_together
from colorcli.finish.lines import LineLayer
from colorcli.finish.surfaces import flat_colors
from colorcli.images import decode_srgb
from colorcli.prepare.canvas import Box
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.lineart import alpha_is_lines
from colorcli.prepare.regions import PAPER_BELOW, nearest_labelled
from colorcli.presets import LayerName, Preset

Float = NDArray[np.float32]

FROM_BELOW: tuple[LayerName, ...] = ("paper", "flat", "shade", "color", "line", "matte")
LEAST = np.float32(1e-6)   # a cover or a share below this is none
STROKES_ASIDE = 2.0        # how far from a line the model paints one, in pixels of its canvas
STROKE_DARKER = 0.04       # what is darker than the sides by less is shading


@dataclass(frozen=True)
class Layer:
    """One layer, in the box of the frame where it has anything; color is not multiplied by alpha."""

    name: LayerName
    size: tuple[int, int]   # of the frame: width, height
    box: Box
    color: Float | None     # (h, w, 3) sRGB-encoded or linear; None: it is a matte, and `alpha` is all of it
    alpha: Float | None     # (h, w); None: it covers all of the box

    def whole(self) -> tuple[Float | None, Float | None]:
        """Give color (H, W, 3) and alpha (H, W) at the size of the frame; no color and no alpha outside the box.

        Shade, which is multiplied with what lies under it, is white there.
        """
        if self.box == (0, 0, *self.size):
            return self.color, self.alpha
        left, top, width, height = self.box
        place = np.s_[top : top + height, left : left + width]
        color: Float | None = None
        alpha: Float | None = None
        if self.color is not None:
            color = np.full((*self.size[::-1], 3), self.name == "shade", np.float32)
            color[place] = self.color
        if self.name != "shade":
            alpha = np.zeros(self.size[::-1], np.float32)
            alpha[place] = 1 if self.alpha is None else self.alpha
        return color, alpha


@dataclass(frozen=True)
class LayeredFrame:
    """A finished frame, and what its layers are made of."""

    color: Float          # (H, W, 3) straight, sRGB-encoded
    alpha: Float | None   # (H, W)
    parts: FrameParts
    frame: PreparedFrame
    preset: Preset
    flattened: bool       # it was laid over white in the end, for a file without alpha

    def layers(self, names: Sequence[LayerName], linear: bool) -> Iterator[Layer]:
        """Make the layers called `names`, from the bottom up, one after the other. A cut-out frame has no paper.

        linear: for a file that holds linear light.
        """
        stack = _Stack(_shares(self), decode_srgb if linear else None)
        for name in FROM_BELOW:
            if name not in names or (name == "paper" and stack.shares.cut_out):
                continue
            if name == "line" and self.parts.cel.lines is not self.parts.lines:
                yield from self._with_lines().layers(["line"], linear)
            else:
                color, alpha = stack.layer(name)
                box = (0, 0, *self.frame.canvas.source) if name == "paper" else self.parts.box
                yield Layer(name, self.frame.canvas.source, box, color, alpha)

    def _with_lines(self) -> "LayeredFrame":
        """The same with its lines laid over it."""
        parts = replace(self.parts, cel=replace(self.parts.cel, lines=self.parts.lines))
        return _laid(parts, self.frame, self.preset, self.flattened)


def layered_frame(
    layer: Float, frame: PreparedFrame, key: PreparedKey, preset: Preset, flattened: bool = False
) -> LayeredFrame:
    """Finish a frame as `finish_frame` does, and keep what its layers are made of.

    flattened: it goes into a file without alpha, laid over white.
    """
    return _laid(frame_parts(layer, frame, key, preset), frame, preset, flattened)


def _laid(parts: FrameParts, frame: PreparedFrame, preset: Preset, flattened: bool) -> LayeredFrame:
    color, alpha = lay_together(parts, frame, preset, keep=True)
    if flattened and alpha is not None:
        color, alpha = (color - 1) * alpha[..., None] + 1, None
    return LayeredFrame(color, alpha, parts, frame, preset, flattened)


@dataclass(frozen=True)
class _Shares:
    """What each pixel of a finished frame is mixed of, in its box; sRGB-encoded."""

    color: Float         # (H, W, 3) all of the finished frame
    alpha: Float | None  # (H, W)
    place: tuple[slice, slice]
    cut_out: bool        # there is no paper
    mask: Float          # (h, w)
    matte: Float         # (h, w) how much of a pixel is character or line
    under: Float         # (h, w, 3) the color
    flat: Callable[[], Float]
    paper: Float         # (h, w, 3)
    inside: Float        # (h, w) share of the color in what lies under the lines; the rest is paper
    share: Float         # (h, w) share of both in the finished pixel; the rest is line

    @property
    def below(self) -> Float:
        """What lies under the lines."""
        inside = self.inside[..., None]
        result: Float = self.under if self.cut_out else self.under * inside + (1 - inside) * self.paper
        return result


def _shares(layered: LayeredFrame) -> _Shares:
    """Take a finished frame apart again: the shares of line, color and paper in each of its pixels."""
    parts, place, all_alpha = layered.parts, layered.parts.place, layered.frame.picture.alpha
    mask, cover = parts.cel.mask, _cover(parts.cel.lines, parts.cel.mask)
    only_lines = all_alpha is not None and alpha_is_lines(all_alpha)
    own = None if all_alpha is None else all_alpha[place]
    held = np.ones_like(mask) if own is None or only_lines else own
    color, alpha = layered.color, layered.alpha
    inside, behind = (1 - cover) * mask, (1 - cover) * (1 - mask)
    paper = np.broadcast_to(parts.behind, (*mask.shape, 3))
    there = cover + inside
    made = alpha_of(there if parts.cut_out else None, own, layered.frame.mask[place], only_lines)
    if parts.cut_out:
        inside = np.divide(inside, there, out=np.zeros_like(mask), where=there > LEAST)
        behind = np.zeros_like(mask)
    if alpha is None and made is not None and (made < 1).any():   # it was laid over white in the end
        white = 1 - made
        mixed = (behind * made)[..., None] * paper + white[..., None]
        inside, behind = inside * made, behind * made + white
        paper = np.divide(mixed, behind[..., None], out=np.ones_like(mixed), where=behind[..., None] > LEAST)
    cut_out = parts.cut_out and alpha is not None
    share = inside + behind
    under = np.clip(parts.fill.color, 0, 1)
    if layered.preset.finish.fill == "model" and len(parts.cel.lines.where):
        under = _without_strokes(under, layered.frame.lines.ink[place], canvas_pixel(layered.frame.canvas))
    # Under a line that lets nothing through lies what lies beside it.
    inside = np.ones_like(mask) if cut_out else np.divide(inside, share, out=mask.copy(), where=share > LEAST)
    return _Shares(
        color=color,
        alpha=alpha,
        place=place,
        cut_out=cut_out,
        mask=mask,
        matte=held * (cover + (1 - cover) * parts.character),
        under=under,
        flat=lambda: np.clip(flat_colors(under, layered.parts, layered.frame, layered.preset), 0, 1),
        paper=paper,
        inside=inside,
        share=share,
    )


@dataclass(frozen=True)
class _Stack:
    """The layers of one frame, for a file whose numbers are `curve` of the encoded ones (None: they are)."""

    shares: _Shares
    curve: Callable[[Float], Float] | None

    def layer(self, name: LayerName) -> tuple[Float | None, Float | None]:
        """Make one layer: color and alpha in the box of the frame (`paper`: all over it)."""
        if name == "line":
            return self._line
        if name == "matte":
            return None, self.shares.matte
        if name == "paper":
            return self._paper()
        if name == "shade":
            color, flat = self._color, self._flat
            shown = (self._color_alpha > 0)[..., None] & (flat > 0)
            return np.minimum(np.divide(color, flat, out=np.ones_like(flat), where=shown), np.float32(1)), None
        return (self._color if name == "color" else self._flat), self._color_alpha

    def _numbers(self, encoded: Float) -> Float:
        return encoded if self.curve is None else self.curve(encoded)

    @cached_property
    def _line(self) -> tuple[Float, Float]:
        """Color and alpha of the lines: what the finished pixel holds beyond what shines through from below."""
        shares = self.shares
        finished, below = shares.color[shares.place], shares.below
        # Lighter than the paper it is drawn on, or over a stroke that the model painted: there is more of it than ink.
        lighter = np.divide(1 - finished, 1 - below, out=np.ones_like(below), where=below < 1)
        darker = np.divide(finished, below, out=np.ones_like(below), where=below > 0)
        most = np.minimum(lighter, darker).min(axis=2, initial=1)
        through = self._numbers(np.clip(np.minimum(shares.share, most), 0, 1))
        total = self._total
        alpha = total * (1 - through)
        alpha[alpha <= LEAST] = 0
        color = np.zeros_like(finished)
        here = alpha > 0
        left = self._numbers(finished[here]) - through[here, None] * self._numbers(below[here])
        color[here] = np.clip(left * (total[here] / alpha[here])[:, None], 0, 1)
        return color, alpha

    @cached_property
    def _total(self) -> Float:
        shares = self.shares
        return np.ones_like(shares.mask) if shares.alpha is None else shares.alpha[shares.place]

    @cached_property
    def _under_alpha(self) -> Float:
        """How much color and paper together cover, below the lines."""
        line = self._line[1]
        hidden = self.shares.mask if self.shares.cut_out else np.ones_like(line)
        return np.divide(self._total - line, 1 - line, out=hidden.copy(), where=line < 1 - LEAST)

    @cached_property
    def _through(self) -> Float:
        """How much of the paper shines through the color."""
        return self._numbers(1 - self.shares.inside)

    @cached_property
    def _color_alpha(self) -> Float:
        result: Float = self._under_alpha * (1 - self._through)
        return result

    @cached_property
    def _color(self) -> Float:
        return self._over_paper(self.shares.under)

    @cached_property
    def _flat(self) -> Float:
        return self._over_paper(self.shares.flat())

    def _over_paper(self, color: Float) -> Float:
        """Give a color (h, w, 3) in the numbers of the file, that mixes with the paper as the encoded one does."""
        shares, result = self.shares, self._numbers(color)
        mixed = (shares.inside > LEAST) & (shares.inside < 1)
        if self.curve is not None and mixed.any():
            inside, paper, through = shares.inside[mixed][:, None], shares.paper[mixed], self._through[mixed][:, None]
            both = self.curve(inside * color[mixed] + (1 - inside) * paper)
            result[mixed] = np.clip((both - through * self.curve(paper)) / (1 - through), 0, 1)
        return result

    def _paper(self) -> tuple[Float, Float | None]:
        """What lies behind, all over the frame."""
        shares = self.shares
        color = np.array(self._numbers(shares.color))
        color[shares.place] = self._numbers(shares.paper)
        if shares.alpha is None:
            return color, None
        alpha, left = shares.alpha.copy(), 1 - self._color_alpha
        shown = self._under_alpha * self._through
        # Where the color hides it, all of it may be there.
        alpha[shares.place] = np.divide(shown, left, out=np.ones_like(shown), where=left > LEAST)
        return color, alpha


def _cover(lines: LineLayer, like: Float) -> Float:
    """How much of each pixel is line, (h, w)."""
    cover = np.zeros_like(like)
    cover.reshape(-1)[lines.where] = lines.cover
    return cover


def _without_strokes(painted: Float, ink: Float, reach_px: float) -> Float:
    """Take the strokes that the model painted where lines are out of its picture (h, w, 3): the sides run on there.

    reach_px: how far a stroke may lie beside its line, in pixels.
    """
    size = 2 * max(1, round(STROKES_ASIDE * reach_px)) + 1
    clean = cv2.dilate(ink, np.ones((size, size), np.uint8)) <= PAPER_BELOW
    if not clean.any():
        return painted
    sides = painted.reshape(-1, 3)[nearest_labelled(clean.astype(np.int32))]
    stroke = (sides - painted).max(axis=2) > STROKE_DARKER
    return np.where(stroke[..., None], sides, painted)
