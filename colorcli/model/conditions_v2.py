"""From pictures and settings to all that the SD2.1 network reads; the counterpart of `conditions` for that model.

Without projection and vector condition, but with what the side encoders read of the key, and with edits by text.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from colorcli.model.attention import NO_SIDES, Adapter, Region, RegionAdapter, SideFeatures
from colorcli.model.conditions import (
    Conditions,
    ConditionSettings,
    KeyPictures,
    KeyTokens,
    blank_maps,
    bleach,
    copied_latents,
)
from colorcli.model.preprocess import scale, stretch
from colorcli.model.scalars import size_vector
from colorcli.model.side_encoders import BackgroundEncoder, StyleEncoder
from colorcli.model.text_manipulation import TextEdit, edit_tokens

SD21_LATENT_SCALE = 0.18215


@dataclass(frozen=True)
class SideEncoders:
    """What turns pictures in -1..1 into tokens, latents, maps and side features."""

    clip: Callable[[Tensor], Tensor]       # picture of any size (1, 3, H, W) -> (1, 1 + M, C), class token first
    latents: Callable[[Tensor], Tensor]    # picture of canvas size (B, 3, H, W) -> (B, 4, H/8, W/8), not scaled
    sketch: Callable[[Tensor], Sequence[Tensor]]
    background: BackgroundEncoder
    style: StyleEncoder
    adapters: Sequence[Adapter | RegionAdapter | None] = ()   # of every transformer block of the denoising network
    latent_scale: float = SD21_LATENT_SCALE
    context_shape: tuple[int, int] = (256, 1024)    # tokens of a picture and their width
    ways: Hashable = ()   # what `latents` and `sketch` go by beside the picture; what they gave is kept by it

    def read_key(self, key: KeyPictures, settings: ConditionSettings) -> KeyTokens:
        """Read a key once for all frames; see `read_key`."""
        assert isinstance(settings, SideSettings)
        return read_key(self, key, settings)

    def frame_conditions(
        self, key: KeyTokens, sketch: Tensor, sketch_mask: Tensor | None, settings: ConditionSettings
    ) -> Conditions:
        """Put together what the network reads for some frames; see `frame_conditions`.

        What the side encoders read of the key is kept in it for frames of the same canvas size and settings.
        """
        assert isinstance(key, SideKey) and isinstance(settings, SideSettings)
        size = (sketch.shape[2], sketch.shape[3])
        # One alone is kept: a large canvas makes 50 MB of them.
        wanted = self.sides_by(settings, size)
        sides = key.kept.once("side features", wanted, lambda: side_features(self, key, settings, size), most=1)
        return frame_conditions(self, key, sketch, sketch_mask, settings, sides)

    def sides_by(self, settings: "SideSettings", size: tuple[int, int]) -> Hashable:
        """Give all that the side features of a key depend on, for a canvas of (height, width)."""
        return self.ways, size, settings.split, settings.style, settings.hints, settings.merge, settings.latent_copy


@dataclass(frozen=True)
class SideSettings(ConditionSettings):
    """How strongly each picture speaks, and where. `split` is the background's part: its tokens, hints and adapters."""

    sketch_levels: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    style: bool = False               # the decoder is modulated by the key as a whole
    foreground_alone: bool = False    # without `split`: the reference on both sides of the mask, each at its strength
    hints: float = 1.0                # multiplies the background's hints
    edits: tuple[TextEdit, ...] = ()  # what is changed in the reference by words, one after the other


@dataclass(frozen=True)
class SideKey(KeyTokens):
    """What CLIP has read of a key, and the pictures that the side encoders read at the canvas's size."""

    reference_picture: Tensor | None = None   # (1, 3, h, w)
    own_picture: Tensor | None = None         # (1, 3, h, w), the user's picture of the background
    own_tokens: Tensor | None = None          # (1, N, D), read from it


def read_key(encoders: SideEncoders, key: KeyPictures, settings: SideSettings) -> SideKey:
    """Read the key; the background only if it is going to be seen."""
    if key.reference is None:
        tokens = torch.zeros(1, *encoders.context_shape, device=encoders.background.device)
    else:
        tokens = local_tokens(edit_tokens(encoders.clip(key.reference), settings.edits))
    own = None
    if key.background is not None and (settings.split or settings.style):
        own = local_tokens(encoders.clip(key.background))
    found = SideKey(tokens, None, None, None, key.reference, key.background, own)
    if not settings.split:
        return replace(found, background=tokens) if settings.foreground_alone else found
    if key.background is not None:
        return replace(found, background=own, picture=key.background, mask=key.background_mask)
    assert key.reference is not None and key.reference_mask is not None, "no background and nothing to bleach"
    bleached = bleach(key.reference, key.reference_mask, settings.reference_threshold)
    return replace(
        found, background=local_tokens(encoders.clip(bleached)), picture=bleached, mask=key.reference_mask
    )


def side_features(encoders: SideEncoders, key: SideKey, settings: SideSettings, size: tuple[int, int]) -> SideFeatures:
    """Let the side encoders read the key for a canvas of (height, width): once for all frames of one canvas size."""
    styles: list[Tensor] = []
    if settings.style:
        assert key.reference_picture is not None, "the style is that of a reference"
        styles = encoders.style(*_seen(encoders, key.reference_picture, size), key.reference)
        if key.own_picture is not None:
            assert key.own_tokens is not None
            behind = encoders.style(*_seen(encoders, key.own_picture, size), key.own_tokens)
            styles = [(1 - settings.merge) * x + settings.merge * y for x, y in zip(styles, behind, strict=True)]
    hints: list[Tensor] = []
    if settings.split and not settings.latent_copy:
        assert key.picture is not None
        # The published networks were trained so: beside a style, the background is read in the light of the reference.
        tokens = key.reference if key.own_tokens is None or settings.style else key.own_tokens
        hints = [settings.hints * x for x in encoders.background(*_seen(encoders, key.picture, size), tokens)]
    return SideFeatures(hints, styles) if hints or styles else NO_SIDES


def frame_conditions(
    encoders: SideEncoders,
    key: SideKey,
    sketch: Tensor,
    sketch_mask: Tensor | None,
    settings: SideSettings,
    sides: SideFeatures | None = None,
) -> Conditions:
    """Put together what the network reads for some frames.

    sketch: (B, 3, H, W), paper -1 and line +1. sketch_mask: (B, 1, H, W), 0..1; needed for a split. sides: what
    `side_features` gave for this canvas size; None: they are read now.
    """
    height, width = sketch.shape[2:]
    maps = _scaled(encoders.sketch(sketch), settings.sketch_levels)
    blank = _scaled(blank_maps(encoders, key, sketch), settings.sketch_levels) if settings.blank else ()
    found = Conditions(
        key.context, maps, blank, None, strengths=settings.strengths,
        sides=side_features(encoders, key, settings, (height, width)) if sides is None else sides,
    )
    if key.background is None:
        return found
    assert sketch_mask is not None, "a split needs the frame's mask"
    found = replace(found, region=Region(
        scale(sketch_mask, 1 / 8), settings.sketch_threshold, settings.merge, settings.foreground, settings.background,
    ))
    if not settings.split:
        return found
    if settings.latent_copy:
        assert key.picture is not None
        found = replace(found, background_latents=copied_latents(encoders, key, key.picture, (height, width)))
    return replace(found, adapters=encoders.adapters)


def local_tokens(tokens: Tensor) -> Tensor:
    """Give CLIP's tokens (B, 1 + N, D) of the picture's places, without that of the whole: (B, N, D)."""
    return tokens[:, 1:]


def _seen(encoders: SideEncoders, picture: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Give the latents (1, 4, h, w) of a picture stretched to the canvas, and the vector that tells its own size."""
    latents = encoders.latent_scale * encoders.latents(stretch(picture, size))
    return latents, size_vector((picture.shape[2], picture.shape[3]), size).to(latents)


def _scaled(maps: Sequence[Tensor], levels: Sequence[float]) -> tuple[Tensor, ...]:
    return tuple(level * x for level, x in zip(levels, maps, strict=True))
