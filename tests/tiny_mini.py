"""mini with every network at a width that a test can train, untrained."""

from dataclasses import replace

import torch

from colorcli.model.build import Components, build_components
from colorcli.model.matcher import RegionMatcher
from colorcli.variants import MINI

PARTS, TAGS = 5, 3
TINY = replace(
    MINI, channels=(32, 32, 64), head_width=16, context_width=24, sketch_stem=(8, 8, 16), sketch_strides=(2, 2, 2),
    sketch_head_width=32, tagger_width=8, tagger_depths=(1, 1), tagger_heads=(1, 1), tagger_window=4,
    clip_size=64, clip_patch=4, clip_width=16, clip_layers=1, clip_heads=2, clip_projection=16,
    projection_head_width=8, autoencoder_width=4,
)


def components(seed: int = 0, *, matcher: bool = False) -> Components:
    torch.manual_seed(seed)
    made = build_components(TINY, PARTS, TAGS)
    if matcher:
        made.matcher = RegionMatcher(PARTS, TINY.channels[0], width=16, layers=1)
    return made
