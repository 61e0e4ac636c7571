"""Sizes and names of a published SD2.1 file, against the list of its tensors and diffusers' own conversion."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from colorcli.model.architecture import Origin
from colorcli.model.architecture_v2 import (
    background_encoder_from,
    pyramid_sketch_encoder_from,
    pyramid_sketch_encoder_origin,
    region_adapters_from,
    region_adapters_origin,
    side_encoder_origin,
    side_unet_from,
    side_unet_origin,
    style_encoder_from,
    text_tower_from,
    text_tower_origin,
    vision_tower_from,
    vision_tower_origin,
)
from colorcli.model.side_encoders import SideUNet
from tests.model.conversion_v2 import (
    PublishedV2,
    pyramid_sketch_encoder_state,
    region_adapters,
    shapes,
    side_encoder_state,
    side_unet_state,
    split_published_v2,
    vision_tower_state,
)
from tests.model.test_conversion import manifest


@pytest.fixture(scope="module")
def published() -> PublishedV2:
    return split_published_v2(manifest("v2"))


def assert_pairs_up(module: nn.Module, origin: Callable[[str], Origin], part: dict[str, torch.Tensor]) -> None:
    """Each of our tensors has one of the file of its shape, and each of the file is used once."""
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: origin(name).name for name in ours}
    assert sorted(theirs.values()) == sorted(part)
    assert {name: tuple(part[theirs[name]].shape) for name in ours} == ours


def test_every_part_of_the_published_file_pairs_up(published):
    unet = side_unet_from(shapes(published.unet))
    assert_pairs_up(unet, side_unet_origin, published.unet)
    assert_pairs_up(
        background_encoder_from(shapes(published.background_encoder)), side_encoder_origin, published.background_encoder
    )
    assert_pairs_up(style_encoder_from(shapes(published.style_encoder)), side_encoder_origin, published.style_encoder)
    assert_pairs_up(
        pyramid_sketch_encoder_from(shapes(published.sketch_encoder)), pyramid_sketch_encoder_origin,
        published.sketch_encoder,
    )
    assert_pairs_up(region_adapters_from(unet), region_adapters_origin(unet), published.adapters)


def test_the_names_say_what_the_conversion_of_a_whole_part_does(published):
    """Another way to the same names: diffusers' converter, told apart by the identity of the tensors."""
    unet = side_unet_from(shapes(published.unet))
    background = background_encoder_from(shapes(published.background_encoder))
    converted: list[tuple[dict[str, Any], Callable[[str], Origin], dict[str, Any]]] = [
        (side_unet_state(published.unet, unet.config), side_unet_origin, published.unet),
        (side_encoder_state(published.background_encoder, background.config), side_encoder_origin,
         published.background_encoder),
        (pyramid_sketch_encoder_state(published.sketch_encoder), pyramid_sketch_encoder_origin,
         published.sketch_encoder),
    ]
    for state, origin, part in converted:
        assert all(value is part[origin(name).name] for name, value in state.items())


def test_the_names_of_the_adapters_say_which_side_and_layer_each_belongs_to(published):
    """The same tensors by `region_adapters`, which goes by the order of the blocks."""
    unet = side_unet_from(shapes(published.unet))
    filled = {name: torch.full(tuple(x.shape), float(i)) for i, (name, x) in enumerate(published.adapters.items())}
    made, origin = region_adapters(filled, 7), region_adapters_origin(unet)
    for name, value in made.state_dict().items():
        assert torch.equal(value, filled[origin(name).name]), name


def test_both_towers_pair_up_with_joined_projections_cut_in_three(published):
    for made, origin, part, unused in (
        (vision_tower_from, vision_tower_origin, published.vision_tower, set()),
        (text_tower_from, text_tower_origin, published.text_tower, {"logit_scale"}),
    ):
        tower = made(shapes(part))
        origins = {name: origin(name) for name in tower.state_dict()}
        assert {found.name for found in origins.values()} == set(part) - unused
        for name, value in tower.state_dict().items():
            theirs, found = tuple(part[origins[name].name].shape), origins[name]
            if found.piece is not None:
                assert found.piece[1] == 3
                theirs = (theirs[0] // 3, *theirs[1:])
            assert tuple(value.shape) == (theirs[::-1] if found.transposed else theirs), name


def test_the_pieces_of_a_joined_projection_are_those_of_the_whole_conversion():
    joined = torch.arange(6.0)
    made = vision_tower_state({
        "transformer.resblocks.0.attn.in_proj_bias": joined, "proj": torch.zeros(1, 1),
    })
    for name, value in made.items():
        found = vision_tower_origin(name)
        if found.piece is not None:
            i, count = found.piece
            assert torch.equal(joined.chunk(count)[i], value)
    assert sum(vision_tower_origin(name).piece is not None for name in made) == 3


def test_a_narrow_network_of_the_family_is_read_by_the_same_rules():
    with torch.device("meta"):
        narrow = SideUNet(block_out_channels=(32, 64, 64, 96), depths=(1, 1, 1, 0), head_dim=16, context_dim=40)
    theirs = {side_unet_origin(name).name: tuple(value.shape) for name, value in narrow.state_dict().items()}
    again = side_unet_from(theirs, head_dim=16)
    assert shapes(again.state_dict()) == shapes(narrow.state_dict())
    assert dict(again.config) == dict(narrow.config)


def test_tensors_that_do_not_tell_the_sizes_are_taken_for_the_published_network(published):
    cut = shapes(published.unet)
    del cut["input_blocks.1.0.out_layers.3.weight"]
    assert side_unet_from(cut).config["block_out_channels"] == (320, 640, 1280, 1280)
