"""One frame made ready for the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, over_paper
from colorcli.prepare.canvas import (
    Canvas,
    autofit_size,
    bounds,
    fit_canvas,
    letterboxed,
    published_ink,
    to_canvas,
    with_margin,
)
from colorcli.prepare.lineart import LineArt, read_lines
from colorcli.prepare.masks import character_mask, snap_to_lines
from colorcli.prepare.networks import Networks, asked_of
from colorcli.prepare.regions import SPECK_PX, Regions, closed_regions
from colorcli.presets import Preset
from colorcli.variants import Variant

Float = NDArray[np.float32]


@dataclass(frozen=True)
class PreparedFrame:
    """A frame at its own size and on the model's canvas."""

    picture: Picture
    lines: LineArt
    mask: Float          # (H, W) 1 = character
    canvas: Canvas
    ink_canvas: Float    # (h, w) 0 paper .. 1 line
    mask_canvas: Float   # (h, w)
    gap_px: float = 0.0  # gaps in lines up to this wide part two regions, in pixels of a frame of 1280

    @cached_property
    def regions(self) -> Regions:
        """The regions of the character at the size of the drawing; found when first asked for."""
        return self.regions_in(self.mask)

    def regions_in(self, mask: Float) -> Regions:
        """Find the regions inside another mask, (H, W)."""
        scale = max(1.0, max(self.picture.size) / 1280)
        return closed_regions(self.lines.ink, mask, SPECK_PX * scale, self.gap_px * scale)


def prepare_frame(
    picture: Picture,
    preset: Preset,
    variant: Variant,
    given_masks: Sequence[Float] = (),
    networks: Networks | None = None,
) -> PreparedFrame:
    """Clean the lines of a frame, find its character and lay both onto the canvas.

    given_masks: (H, W) masks from files, source size, one for each character. networks: those that the preset names
    files for. Nothing but this frame is looked at. Raises PresetError if the preset names networks and none are given.
    """
    lines = read_lines(picture, preset.lines, networks)
    mask = character_mask(
        picture,
        lines,
        preset.masks,
        given_masks,
        colored=preset.lines.mode == "extract",
        network=None if preset.masks.network is None else lambda: _found_mask(lines, preset, networks),
    )
    canvas = drawing_canvas(mask, lines.ink, preset, variant)
    if preset.compat == "published" and preset.lines.mode == "clean":
        drawing = over_paper(picture)
        ink_canvas = published_ink(1 - drawing if preset.lines.polarity == "light-on-dark" else drawing, canvas)
    else:
        ink_canvas = to_canvas(lines.ink, canvas, 0)
    return PreparedFrame(
        picture=picture,
        lines=lines,
        mask=mask,
        canvas=canvas,
        ink_canvas=ink_canvas,
        mask_canvas=to_canvas(mask, canvas, 0),
        gap_px=preset.lines.gap_px,
    )


def _found_mask(lines: LineArt, preset: Preset, networks: Networks | None) -> Float:
    """The character as a network finds it in line art, (H, W)."""
    mask = asked_of(networks, "masks.network").frame_mask(1 - lines.ink)
    return mask if preset.compat == "published" else snap_to_lines(mask, lines.ink)


def drawing_canvas(mask: Float, ink: Float, preset: Preset, variant: Variant) -> Canvas:
    """Choose the canvas: around the character, or around all ink if there is none; a blank frame is used whole."""
    settings, source = preset.canvas, (mask.shape[1], mask.shape[0])
    limits = {"multiple_of": variant.multiple_of, "min_side": variant.min_side, "max_side": variant.max_side}
    area, size, crop = settings.area or variant.canvas_area, settings.size, None
    if settings.crop == "drawing":
        box = bounds(mask > 0.5) or bounds(ink > 0.2)
        crop = with_margin(box, settings.margin) if box else None
    if preset.compat == "published":
        return letterboxed(source, size or autofit_size(crop[2:] if crop else source, area=area, **limits), crop)
    return fit_canvas(source, area=area, crop=crop, size=size, **limits)
