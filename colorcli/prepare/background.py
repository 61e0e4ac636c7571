"""What the background is painted after: the key with its character bleached out, or a picture of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, over_paper
from colorcli.prepare.lineart import lines_of_color
from colorcli.prepare.masks import MARGIN, character_mask, dilate, merge_masks
from colorcli.prepare.networks import Networks, asked_of
from colorcli.presets import Preset

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Background:
    """A picture of the background that the user gave, at its own size."""

    color: Float  # (H, W, 3) 0..1, over white; its character is white if the preset has it removed
    mask: Float   # (H, W) 1 = the character in this picture; with `compat: published` the key's, at the key's size


def read_background(
    picture: Picture,
    preset: Preset,
    given_masks: Sequence[Float] = (),
    networks: Networks | None = None,
    *,
    key_mask: Float,
) -> Background:
    """Find the character in a background picture, and paint it white if `background.remove_foreground` asks for it.

    given_masks: (H, W) of the background's character, from files. key_mask: (h, w) of the key; only `compat: published`
    takes it for the background's own, as the published program does (spec: inference, 4.4).
    """
    color = over_paper(picture)
    mask = _own_mask(picture, color, preset, given_masks, networks)
    if preset.background.remove_foreground:
        return Background(bleach(color, mask, preset.reference.mask_threshold), mask)
    if preset.compat == "published":
        return Background(color, key_mask)
    return Background(color, mask)


def _own_mask(
    picture: Picture, color: Float, preset: Preset, given_masks: Sequence[Float], networks: Networks | None
) -> Float:
    """The character in a background picture, (H, W)."""
    if given_masks:
        return merge_masks(given_masks, preset.masks.merge)
    if preset.masks.source == "network" and preset.masks.key_network is not None:
        mask = asked_of(networks, "masks.key_network").key_mask(color)
        return mask if preset.compat == "published" else dilate(mask, MARGIN)
    if preset.background.remove_foreground:
        # Without masks the whole frame is character, but here a character was asked for that stands before something.
        rule = "auto" if preset.masks.source == "none" else preset.masks.source
        settings = preset.masks.model_copy(update={"source": rule})
        return character_mask(picture, lines_of_color(picture, preset.lines, networks), settings, colored=True)
    # A background has no character unless somebody says so: looked for by its colors, a figure is found in every wall.
    return np.zeros(color.shape[:2], np.float32)


def bleach(reference: Float, mask: Float, threshold: float, white: float = 1.0) -> Float:
    """Keep the key where its mask is below `threshold`, white elsewhere. reference: (H, W, 3). mask: (H, W)."""
    return np.where(mask[:, :, None] < threshold, reference, np.float32(white))


def aspect_crop_fractions(canvas: tuple[int, int], background: tuple[int, int]) -> tuple[float, float]:
    """Give the fractions (of height, of width) of a background that have the canvas's aspect; both sizes (H, W)."""
    height, width = canvas
    rows, columns = background
    if width / height > columns / rows:
        return (height / width) * (columns / rows), 1.0
    return 1.0, (width / height) * (rows / columns)
