"""The key made ready for the model: its colors, its character, its lines, its bleached background."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, over_paper
from colorcli.prepare.background import Background, bleach, read_background
from colorcli.prepare.canvas import Canvas, to_canvas
from colorcli.prepare.frame import drawing_canvas
from colorcli.prepare.lineart import lines_of_color
from colorcli.prepare.masks import MARGIN, character_mask, dilate, snap_to_lines
from colorcli.prepare.networks import Networks, asked_of
from colorcli.prepare.palette import Palette, find_palette, shadows_of
from colorcli.prepare.palette_file import Swatches
from colorcli.presets import Preset
from colorcli.variants import Variant

Float = NDArray[np.float32]


@dataclass(frozen=True)
class PreparedKey:
    """A key at its own size and on the model's canvas."""

    picture: Picture
    mask: Float             # (H, W) 1 = character
    canvas: Canvas
    color_canvas: Float     # (h, w, 3) 0..1, over white
    mask_canvas: Float      # (h, w)
    ink: Float              # (H, W) the key's outlines as a frame of the same character would show them
    ink_canvas: Float       # (h, w)
    bleached_canvas: Float  # (h, w, 3) the key with its character taken out
    grown: Float | None = None            # (H, W) the mask with a margin, if a network found it; see `bleach_mask`
    background: Background | None = None  # the picture that takes the place of the bleached key, if there is one
    each: tuple["PreparedKey", ...] = ()  # of several keys on one sheet each by itself, for runs that match regions
    swatches: Swatches | None = None      # of the production's palette, if there is one

    @property
    def bleach_mask(self) -> Float:
        """The mask by which the model takes the character out, (H, W): with a margin where a network has found it."""
        return self.mask if self.grown is None else self.grown

    @property
    def bleach_mask_canvas(self) -> Float:
        """The same on the canvas, (h, w)."""
        return self.mask_canvas if self.grown is None else to_canvas(self.grown, self.canvas, 0)

    @cached_property
    def palette(self) -> Palette:
        """The flat colors of the key's character at its own size; found when first asked for, once for a shot."""
        return find_palette(over_paper(self.picture), self.ink, self.mask)

    @cached_property
    def shadows(self) -> NDArray[np.int32]:
        """For each color of the palette the one that it is the shadow of, or itself."""
        return shadows_of(self.palette)


def prepare_key(
    picture: Picture,
    preset: Preset,
    variant: Variant,
    given_masks: Sequence[Float] = (),
    networks: Networks | None = None,
    background: Picture | None = None,
    background_masks: Sequence[Float] = (),
    swatches: Swatches | None = None,
    each: Sequence[Picture] = (),
) -> PreparedKey:
    """Find the key's character and outlines, and lay all on the canvas.

    given_masks: (H, W) masks from files, source size, one for each character. networks: those that the preset names
    files for. background: a picture of its own for what lies outside the character, background_masks: (H, W) masks of
    a character in it. swatches: those of the production. each: the several keys of which `picture` is the
    sheet, if it is one. Raises PresetError if the preset names networks and none are given.
    """
    alone: tuple[PreparedKey, ...] = ()
    if preset.sampling.start == "match":
        alone = tuple(
            prepare_key(one, preset, variant, (), networks, background, background_masks) for one in each
        )
    picture, given_masks = _padded(picture, given_masks, preset.reference.padding)
    color = over_paper(picture)
    lines = lines_of_color(picture, preset.lines, networks)
    asks = preset.masks.source == "network" and preset.masks.key_network is not None and not given_masks
    published = preset.compat == "published"

    def found_mask() -> Float:
        found = asked_of(networks, "masks.key_network").key_mask(color)
        return found if published else snap_to_lines(found, lines.ink)

    mask = character_mask(
        picture,
        lines,
        preset.masks,
        given_masks,
        colored=True,
        network=found_mask if asks else None,
    )
    canvas = drawing_canvas(mask, lines.ink, preset, variant)
    color_canvas, mask_canvas = to_canvas(color, canvas, 1), to_canvas(mask, canvas, 0)
    behind: Background | None = None
    if background is not None:
        if preset.compat == "published":
            background, background_masks = _padded(background, background_masks, preset.reference.padding)
        behind = read_background(background, preset, background_masks, networks, key_mask=mask)
    grown = dilate(mask, MARGIN) if asks and not published else None
    return PreparedKey(
        picture=picture,
        mask=mask,
        canvas=canvas,
        color_canvas=color_canvas,
        mask_canvas=mask_canvas,
        ink=lines.ink,
        ink_canvas=to_canvas(lines.ink, canvas, 0),
        bleached_canvas=bleach(
            color_canvas,
            mask_canvas if grown is None else to_canvas(grown, canvas, 0),
            preset.reference.mask_threshold,
        ),
        grown=grown,
        background=behind,
        each=alone,
        swatches=swatches,
    )


def _padded(picture: Picture, masks: Sequence[Float], factor: float) -> tuple[Picture, Sequence[Float]]:
    """Widen the picture to `factor` times its width with white (or nothing, if it has alpha) left and right."""
    extra = int(picture.size[0] * factor) - picture.size[0]
    if extra <= 0:
        return picture, masks
    sides = (0, 0), (extra // 2, extra - extra // 2)
    color = np.pad(picture.color, (*sides, (0, 0)), constant_values=1)
    alpha = None if picture.alpha is None else np.pad(picture.alpha, sides)
    return replace(picture, color=color, alpha=alpha), [np.pad(mask, sides) for mask in masks]
