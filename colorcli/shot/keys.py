"""The key of a shot: one picture, or several of one character laid side by side on a sheet; and its background."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError, KeyImageError
from colorcli.images import Picture, picture_digest, read_picture
from colorcli.prepare.palette_file import Swatches, read_swatches, swatches_of
from colorcli.shot.manifest import FileEntry, relative_posix, sha256_of
from colorcli.shot.plan import ShotPlan

Float = NDArray[np.float32]

SEVERAL_KEYS = "2"   # version of what is done with more than one key; part of the fingerprints of such shots alone


@dataclass(frozen=True)
class ShotKey:
    """What the colors are taken from."""

    picture: Picture
    masks: tuple[Float, ...]         # (H, W) in 0..1, of the character; empty: it is found
    digest: str                      # SHA-256 over all keys and masks, in order, the background and the palette
    entries: tuple[FileEntry, ...]   # for the manifest
    background: Picture | None = None           # the picture that `background.image` names
    background_masks: tuple[Float, ...] = ()    # (H, W) in 0..1, of a character in it; empty: it is found
    background_entry: FileEntry | None = None
    swatches: Swatches | None = None            # the colors that `finish.palette_file` names
    palette_entry: FileEntry | None = None
    each: tuple[Picture, ...] = ()              # the keys one by one, where `picture` is a sheet of several


def read_key(plan: ShotPlan) -> ShotKey:
    """Read the key of a shot, its background and the production's colors.

    Raises KeyImageError if a picture cannot be read, PresetError if the palette cannot.
    """
    most = plan.request.max_pixels
    try:
        pictures = [read_picture(path, most) for path in plan.keys]
        mask_pictures = [read_picture(path, most) for path in plan.key_masks]
    except FrameError as error:
        raise KeyImageError(f"the key cannot be read: {error.message}", hint=error.hint) from error
    digests = [picture_digest(picture) for picture in pictures]
    entries = tuple(
        FileEntry(path=relative_posix(path, plan.out), sha256=digest, size=picture.size)
        for path, digest, picture in zip(plan.keys, digests, pictures, strict=True)
    )
    _require_size(plan.key_masks, mask_pictures, pictures[0].size, "key")
    parts = {"keys": digests, "masks": [picture_digest(mask) for mask in mask_pictures]}
    key = ShotKey(key_sheet(pictures), tuple(read_mask(mask) for mask in mask_pictures), "", entries)
    if len(pictures) > 1:
        key = replace(key, each=tuple(pictures))
        parts["several"] = [SEVERAL_KEYS]
    if plan.palette_file is not None:
        swatches = swatches_of(read_swatches(plan.palette_file))
        parts["palette"] = [swatches.digest()]
        entry = FileEntry(path=relative_posix(plan.palette_file, plan.out), sha256=parts["palette"][0])
        key = replace(key, swatches=swatches, palette_entry=entry)
    if plan.background is None:
        return replace(key, digest=sha256_of(parts))
    try:
        background = read_picture(plan.background, most)
        background_masks = [read_picture(path, most) for path in plan.background_masks]
    except FrameError as error:
        raise KeyImageError(f"background.image cannot be read: {error.message}", hint=error.hint) from error
    _require_size(plan.background_masks, background_masks, background.size, "background")
    parts |= {
        "background": [picture_digest(background)],
        "background_masks": [picture_digest(mask) for mask in background_masks],
    }
    return replace(
        key,
        digest=sha256_of(parts),
        background=background,
        background_masks=tuple(read_mask(mask) for mask in background_masks),
        background_entry=FileEntry(
            path=relative_posix(plan.background, plan.out), sha256=parts["background"][0], size=background.size
        ),
    )


def _require_size(paths: Sequence[Path], masks: Sequence[Picture], size: tuple[int, int], what: str) -> None:
    """Raise KeyImageError if a mask is not as large as the picture that it belongs to."""
    for path, mask in zip(paths, masks, strict=True):
        if mask.size != size:
            raise KeyImageError(
                f"the mask {path} is {mask.size[0]}x{mask.size[1]}, but the {what} is {size[0]}x{size[1]}",
                hint=f"make the mask as large as the {what}, or take it out of the folder",
            )


def read_mask(picture: Picture) -> Float:
    """The mask that a picture holds, (H, W) in 0..1: its alpha if that is not all one value, else its brightness."""
    if picture.alpha is not None and float(np.ptp(picture.alpha)) > 0:
        return picture.alpha
    brightness: Float = picture.color.mean(axis=2, dtype=np.float32)
    return brightness


def key_sheet(pictures: Sequence[Picture]) -> Picture:
    """Lay keys side by side, at their own size, standing on one floor.

    The room above a smaller key takes the color of its border, so that a plain background stays plain.
    """
    if len(pictures) == 1:
        return pictures[0]
    height = max(picture.size[1] for picture in pictures)
    has_alpha = any(picture.alpha is not None for picture in pictures)
    colors: list[Float] = []
    alphas: list[Float] = []
    for picture in pictures:
        width, own_height = picture.size
        color = np.empty((height, width, 3), np.float32)
        color[:] = _border_color(picture.color)
        color[height - own_height :] = picture.color
        alpha = np.full((height, width), 1.0 if picture.alpha is None else 0.0, np.float32)
        alpha[height - own_height :] = 1.0 if picture.alpha is None else picture.alpha
        colors.append(color)
        alphas.append(alpha)
    sheet_alpha = np.concatenate(alphas, axis=1) if has_alpha else None
    return Picture(np.concatenate(colors, axis=1), sheet_alpha, pictures[0].format, 4 if has_alpha else 3)


def _border_color(color: Float) -> Float:
    """The median color of a picture's border, (3,)."""
    border = np.concatenate([color[0], color[-1], color[:, 0], color[:, -1]])
    median: Float = np.median(border, axis=0).astype(np.float32)
    return median
