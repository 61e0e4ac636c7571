"""From pictures and settings to all that the denoising network reads beside the latents, in each guidance branch."""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from colorcli.model.attention import (
    NO_SIDES,
    Adapter,
    AttentionPlan,
    KeyValues,
    Region,
    RegionAdapter,
    SideFeatures,
    Source,
)
from colorcli.model.preprocess import crop_to_aspect, latent_mask, stretch
from colorcli.model.reference import ClusterProjection
from colorcli.model.reference_net import ReferenceNet, reference_net_input
from colorcli.model.scalars import canvas_vector, crop_vector
from colorcli.model.unet import Context
from colorcli.prepare.background import aspect_crop_fractions

XL_LATENT_SCALE = 0.13025
BLANK_SKETCH = -1.0   # paper, in the polarity the networks see
WHITE = 1.0
KEPT_SIZES = 2        # canvas sizes that what was made of a key is kept for; a shot has one, seldom two

T = TypeVar("T")


class Kept:
    """What was made of a key for the canvases of a shot, so that it is made once for each of their sizes.

    It lies in the key, and goes with it. Of each kind the last few are kept, as they lie on the device.
    """

    def __init__(self) -> None:
        self._made: dict[str, dict[Hashable, Any]] = {}
        self._lock = threading.RLock()   # frames may be colored side by side; one thing may be made of another

    def once(self, kind: str, wanted: Hashable, make: Callable[[], T], most: int = KEPT_SIZES) -> T:
        """Give one of a kind, made now if it is not there; `wanted` is all that it depends on beside the key."""
        with self._lock:
            made = self._made.setdefault(kind, {})
            if wanted not in made:
                while len(made) >= most:
                    del made[next(iter(made))]   # before the new one is made: both may not have room
                made[wanted] = make()
            found: T = made[wanted]
        return found


class Encoding(Protocol):
    """What turns pictures into latents and maps, as the encoders of every model have it."""

    @property
    def latents(self) -> Callable[[Tensor], Tensor]:
        """Picture of canvas size (B, 3, H, W) -> (B, 4, H/8, W/8), not scaled."""

    @property
    def sketch(self) -> Callable[[Tensor], Sequence[Tensor]]:
        """Line art (B, 3, H, W) -> maps, finest first."""

    @property
    def latent_scale(self) -> float:
        """What latents are multiplied by for the denoising network."""

    @property
    def ways(self) -> Hashable:
        """What `latents` and `sketch` go by beside the picture."""


@dataclass(frozen=True)
class Encoders:
    """What turns pictures in -1..1 into tokens, latents and maps.

    With `reference_net` and `adapters` it is the adapter model, without them the base model.
    """

    clip: Callable[[Tensor], Tensor]       # picture of any size (1, 3, H, W) -> (1, 1 + M, C), class token first
    tagger: Callable[[Tensor], Tensor]     # picture of any size (1, 3, H, W) -> (1, N, C)
    latents: Callable[[Tensor], Tensor]    # picture of canvas size (B, 3, H, W) -> (B, 4, H/8, W/8), not scaled
    projection: ClusterProjection
    sketch: Callable[[Tensor], Sequence[Tensor]]
    reference_net: ReferenceNet | None = None
    adapters: Sequence[Adapter | RegionAdapter | None] = ()
    latent_scale: float = XL_LATENT_SCALE
    ways: Hashable = ()   # what `latents` and `sketch` go by beside the picture; what they gave is kept by it

    def read_key(self, key: "KeyPictures", settings: "ConditionSettings") -> "KeyTokens":
        """Read a key once for all frames; see `read_key`."""
        return read_key(self, key, settings)

    def frame_conditions(
        self, key: "KeyTokens", sketch: Tensor, sketch_mask: Tensor | None, settings: "ConditionSettings"
    ) -> "Conditions":
        """Put together what the network reads for some frames; see `frame_conditions`."""
        return frame_conditions(self, key, sketch, sketch_mask, settings)


@dataclass(frozen=True)
class ConditionSettings:
    """How strongly each picture speaks, and where."""

    sketch_levels: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)   # multiplies each sketch map, finest first
    split: bool = False               # inside the mask the reference is seen, outside only the background
    merge: float = 0.0                # how much of the background goes into the character, 0..1
    foreground: float = 1.0           # strength inside the mask
    background: float = 1.0           # strength outside the mask
    reference_threshold: float = 0.5  # reference mask from here on is character, and bleached
    sketch_threshold: float = 0.05    # sketch mask above this is character
    strengths: float | Sequence[float] = 1.0   # reference strength, one or one for each transformer block
    blank: bool = True                # encode an empty sheet too; only sketch guidance needs it
    latent_copy: bool = False         # the background's latents are laid in on the way, instead of being read
    compat: bool = False              # as the published program does it, see `Region`


@dataclass(frozen=True)
class KeyPictures:
    """The pictures that say what to color with, at their own sizes; -1..1, masks 0..1 with 1 = character.

    background: a picture of its own for what lies behind; without one it is the bleached reference.
    """

    reference: Tensor | None = None        # (1, 3, h, w)
    reference_mask: Tensor | None = None   # (1, 1, h, w)
    background: Tensor | None = None       # (1, 3, h, w)
    background_mask: Tensor | None = None  # (1, 1, h, w)


@dataclass(frozen=True)
class KeyTokens:
    """What the networks have read of a key: computed once, used by every frame."""

    reference: Tensor                 # (1, N, D); zeros without a reference
    background: Tensor | None         # (1, N, D)
    picture: Tensor | None            # (1, 3, h, w), what the background's tokens were read from
    mask: Tensor | None               # (1, 1, h, w), the character in that picture
    # What else was made of it for the canvases of its frames; filled in by `frame_conditions`.
    kept: Kept = field(default_factory=Kept, compare=False, repr=False, kw_only=True)

    @property
    def context(self) -> Tensor:
        """The tokens as the network takes them: the reference, then the background if there is one."""
        return self.reference if self.background is None else torch.cat([self.reference, self.background], dim=1)


@dataclass(frozen=True)
class Conditions:
    """Everything the network reads for some frames, in all branches of guidance.

    Whatever is the same for all frames may have one row.
    """

    context: Context                     # (1 or B, M, D), or its keys and values
    sketch_maps: tuple[Tensor, ...]      # finest first
    blank_maps: tuple[Tensor, ...]       # the maps of an empty sheet, for sketch guidance; may be none
    y: Tensor | None                     # (1 or B, y_dim); None for a network without a vector condition
    region: Region | None = None
    bank: Sequence[Source] = ()
    adapters: Sequence[Adapter | RegionAdapter | None] = ()
    sides: SideFeatures = NO_SIDES       # of a network with side encoders
    strengths: float | Sequence[float] = 1.0
    background_latents: Tensor | None = None   # (1 or B, 4, h, w) for latent copy
    backend: str = "sdpa"                # a name of `attention.BACKENDS`


@dataclass(frozen=True)
class Rows:
    """The arguments of one network call for some branches, branch after branch."""

    context: Context
    sketch_maps: tuple[Tensor, ...]
    y: Tensor | None
    plan: AttentionPlan


def read_key(encoders: Encoders, key: KeyPictures, settings: ConditionSettings) -> KeyTokens:
    """Read the key; the background only if it is going to be seen."""
    if key.reference is None:
        config = encoders.projection.config
        tokens = torch.zeros(1, config["token_length"], config["output_dim"], device=encoders.projection.device)
    else:
        tokens = picture_tokens(encoders, key.reference)
    if not settings.split:
        return KeyTokens(tokens, None, None, None)
    picture, mask = key.background, key.background_mask
    if picture is None:
        assert key.reference is not None and key.reference_mask is not None, "no background and nothing to bleach"
        picture, mask = bleach(key.reference, key.reference_mask, settings.reference_threshold), key.reference_mask
    return KeyTokens(tokens, picture_tokens(encoders, picture), picture, mask)


def frame_conditions(
    encoders: Encoders,
    key: KeyTokens,
    sketch: Tensor,
    sketch_mask: Tensor | None,
    settings: ConditionSettings,
    score: float | None = None,
) -> Conditions:
    """Put together what the network reads for some frames.

    sketch: (B, 3, H, W), paper -1 and line +1. sketch_mask: (B, 1, H, W), 0..1; needed for a split.
    score: aesthetic score of the vector condition; None: what the published models are asked for.
    """
    height, width = sketch.shape[2:]
    side = sketch.new_tensor([height]), sketch.new_tensor([width])
    maps = _scaled(encoders.sketch(sketch), settings.sketch_levels)
    blank = _scaled(blank_maps(encoders, key, sketch), settings.sketch_levels) if settings.blank else ()
    y = canvas_vector(*side) if score is None else canvas_vector(*side, score)
    plain = Conditions(key.reference, maps, blank, y, strengths=settings.strengths)
    if not settings.split:
        return plain
    assert sketch_mask is not None and key.picture is not None, "a split needs the frame's mask and a background"
    region = Region(
        latent_mask(sketch_mask), settings.sketch_threshold, settings.merge, settings.foreground, settings.background,
        "soft" if encoders.adapters else "hard", settings.compat,
    )
    found = replace(plain, context=key.context, region=region, adapters=encoders.adapters)
    if settings.latent_copy:
        return replace(found, background_latents=copied_latents(encoders, key, key.picture, (height, width)))
    if encoders.reference_net is None:
        return found
    return replace(found, bank=_bank(encoders, key, sketch_mask))


def branch_rows(conditions: Conditions, branches: Sequence[str], frames: int, *, sees_reference: bool = True) -> Rows:
    """Lay out the rows of one network call: all frames of the first branch, then of the next.

    branches: of "cond", "uncond_reference" (no reference) and "uncond_sketch" (an empty sheet).
    sees_reference: False where no row sees the reference (outside the guidance window).
    The rows are the same in every step: lay them out once.
    """
    def repeated(x: Tensor) -> Tensor:
        return x if x.shape[0] == 1 else x.repeat(len(branches), *[1] * (x.dim() - 1))

    context = conditions.context
    given = repeated(context) if isinstance(context, Tensor) else [
        KeyValues(repeated(kv.keys), repeated(kv.values)) for kv in context
    ]
    maps_of = {"uncond_sketch": conditions.blank_maps}
    each = [maps_of.get(branch, conditions.sketch_maps) for branch in branches]
    maps = tuple(torch.cat([x.expand(frames, -1, -1, -1) for x in level]) for level in zip(*each, strict=True))
    seeing = [
        b * frames + i for b, branch in enumerate(branches) for i in range(frames)
        if sees_reference and branch != "uncond_reference"
    ]
    # Until they read the context, branches with the same lines are the same.
    drawn = ["uncond_sketch" if branch == "uncond_sketch" else "line art" for branch in branches]
    alike = [drawn.index(lines) * frames + i for lines in drawn for i in range(frames)]
    region, y = conditions.region, None if conditions.y is None else repeated(conditions.y)
    return Rows(given, maps, y, AttentionPlan(
        region=None if region is None else replace(region, mask=repeated(region.mask)),
        strengths=conditions.strengths,
        bank=conditions.bank,
        adapters=conditions.adapters,
        sides=replace(conditions.sides, styles=[repeated(x) for x in conditions.sides.styles]),
        seeing_rows=None if len(seeing) == len(branches) * frames else seeing,
        alike=None if len(set(drawn)) == len(branches) else alike,
        layers={},
        backend=conditions.backend,
    ))


def blank_maps(encoders: Encoding, key: KeyTokens, sketch: Tensor) -> Sequence[Tensor]:
    """Give the maps of an empty sheet as large as `sketch` (B, 3, H, W): encoded once for each size."""
    return key.kept.once(
        "blank maps", (encoders.ways, sketch.shape[2:]),
        lambda: encoders.sketch(torch.full_like(sketch[:1], BLANK_SKETCH)),
    )


def copied_latents(encoders: Encoding, key: KeyTokens, picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Give a background's scaled latents (1, 4, h, w) for latent copy: encoded once for each size (height, width)."""
    return key.kept.once("copied latents", (encoders.ways, size), lambda: (
        encoders.latent_scale * encoders.latents(crop_to_aspect(picture, size))
    ))


def picture_tokens(encoders: Encoders, picture: Tensor) -> Tensor:
    """Read a picture (1, 3, H, W) as context tokens (1, N, D)."""
    return encoders.projection(encoders.clip(picture), encoders.tagger(picture))


def bleach(picture: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """Paint the character white: `picture` (B, 3, H, W) where `mask` (B, 1, H, W) is below the threshold, else 1."""
    return torch.where(mask < threshold, picture, WHITE)


def _scaled(maps: Sequence[Tensor], levels: Sequence[float]) -> tuple[Tensor, ...]:
    return tuple(scale * x for scale, x in zip(levels, maps, strict=True))


def _bank(encoders: Encoders, key: KeyTokens, sketch_mask: Tensor) -> list[Tensor]:
    assert encoders.reference_net is not None and key.picture is not None
    rows, _, height, width = sketch_mask.shape
    picture = key.picture
    latents = key.kept.once("background latents", (encoders.ways, (height, width)), lambda: (
        encoders.latent_scale * encoders.latents(stretch(picture, (height, width)))
    ))
    mask = key.mask if key.mask is not None else torch.zeros_like(sketch_mask[:1])
    ch, cw = aspect_crop_fractions((height, width), (picture.shape[2], picture.shape[3]))
    corner = latents.new_zeros(1)
    y = crop_vector(corner, corner, corner + ch, corner + cw)
    background = reference_net_input(latents.expand(rows, -1, -1, -1), sketch_mask, mask)
    return encoders.reference_net(background, y)
