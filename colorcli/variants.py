"""The models by name, and every number of them. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

METHOD_VERSION = "4"  # part of every frame's fingerprint: raise it when the same settings give another picture


@dataclass(frozen=True)
class Variant:
    """What a model asks of its canvas, what it has, and the settings it is best at."""

    name: str
    canvas_area: int  # pixels; the frame is scaled so that its canvas has about this area
    multiple_of: int  # both canvas sides are multiples of this, in pixels
    min_side: int  # shortest canvas side in pixels
    max_side: int  # longest canvas side in pixels
    license: str  # SPDX id of the weights
    shipped: bool  # the weights are inside the package
    transformer_blocks: int  # in the denoising network
    has_match: bool = False  # networks that read parts, so that a run can start from the key's colors
    has_reference_net: bool = False  # the background plugin: ReferenceNet and low-rank adapter
    has_side_encoders: bool = False  # style encoder, background encoder, and adapters for each side of the mask
    has_text_encoder: bool = False  # a text tower that goes with the one for pictures: the key is edited by words
    key_view: Literal["canvas", "whole"] = "canvas"  # the towers see the key's canvas, or all of it at its own size
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted preset keys -> values, laid under every preset

    @property
    def has_adapter(self) -> bool:
        """Whether low-rank changes of the attention come with it, for a background of its own."""
        return self.has_reference_net or self.has_side_encoders


XL_SETTINGS: Mapping[str, Any] = {
    "canvas.crop": "frame",
    "reference.guidance": 4.0,
    "sampling.sampler": "dpm++3m-sde",
    "sampling.steps": 20,
    "sampling.start": "noise",
}

SD21_SETTINGS: Mapping[str, Any] = {**XL_SETTINGS, "sampling.sampler": "diffusers-dpm"}

VARIANTS = {
    "mini": Variant(
        "mini", canvas_area=320 * 320, multiple_of=32, min_side=128, max_side=1024, license="Apache-2.0", shipped=True,
        transformer_blocks=17, has_match=True,
    ),
    "xl": Variant(
        "xl", canvas_area=1024 * 1024, multiple_of=32, min_side=768, max_side=1536, license="CC-BY-NC-SA-4.0",
        shipped=False, transformer_blocks=70, key_view="whole", settings=XL_SETTINGS,
    ),
    "xlv2": Variant(
        "xlv2", canvas_area=1024 * 1024, multiple_of=32, min_side=768, max_side=1536, license="CC-BY-NC-SA-4.0",
        shipped=False, transformer_blocks=70, has_reference_net=True, key_view="whole", settings=XL_SETTINGS,
    ),
    "v2": Variant(
        "v2", canvas_area=768 * 768, multiple_of=64, min_side=512, max_side=1536, license="CC-BY-NC-SA-4.0",
        shipped=False, transformer_blocks=16, has_side_encoders=True, has_text_encoder=True, key_view="whole",
        settings=SD21_SETTINGS,
    ),
}


@dataclass(frozen=True)
class Architecture:
    """The widths and depths of an XL-type model."""

    channels: tuple[int, int, int]  # U-Net widths at 1/8, 1/16 and 1/32 of the canvas
    transformer_depths: tuple[int, int, int]  # transformer blocks at each of these levels, 0 for none
    head_width: int  # channels of an attention head of the U-Net
    context_width: int  # width of a reference token
    sketch_stem: tuple[int, ...]  # widths of the convolutions before the sketch encoder's first map
    sketch_strides: tuple[int, ...]  # which of them halve the picture, three do
    sketch_head_width: int  # channels of one head in the sketch encoder's attention
    tagger_size: int  # the tagger sees a square of this many pixels
    tagger_patch: int  # pixels of one patch side
    tagger_width: int  # width of the first Swin stage; it doubles with every stage
    tagger_depths: tuple[int, ...]  # transformer layers of each Swin stage
    tagger_heads: tuple[int, ...]
    tagger_window: int
    clip_size: int  # the CLIP tower sees a square of this many pixels
    clip_patch: int
    clip_width: int
    clip_layers: int
    clip_heads: int
    clip_projection: int
    projection_head_width: int  # channels of one head in the token projection's attention
    autoencoder_width: int

    @property
    def reference_tokens(self) -> int:
        """Count of tokens that a reference becomes: one for each token of the tagger's last stage."""
        side = self.tagger_size // self.tagger_patch // 2 ** (len(self.tagger_depths) - 1)
        return side * side

    @property
    def tagger_token_width(self) -> int:
        """Width of a tagger token."""
        return self.tagger_width * 2 ** (len(self.tagger_depths) - 1)


MINI = Architecture(
    channels=(64, 96, 128),
    transformer_depths=(0, 1, 2),
    head_width=32,
    context_width=192,
    sketch_stem=(16, 32, 32, 64, 96),
    sketch_strides=(2, 1, 2, 1, 2),
    sketch_head_width=64,
    tagger_size=256,
    tagger_patch=8,
    tagger_width=80,
    tagger_depths=(1, 5),
    tagger_heads=(4, 5),
    tagger_window=16,
    clip_size=256,
    clip_patch=16,
    clip_width=96,
    clip_layers=2,
    clip_heads=4,
    clip_projection=64,
    projection_head_width=32,
    autoencoder_width=32,
)
