"""Conditions of the SD2.1 model: what its side encoders are shown, and that frames do not disturb each other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from colorcli.model.conditions import KeyPictures
from colorcli.model.conditions_v2 import (
    SideEncoders,
    SideSettings,
    frame_conditions,
    local_tokens,
    read_key,
    side_features,
)
from colorcli.model.text_manipulation import TextEdit
from colorcli.sampling import Guidance, guided
from tests.model import tiny_v2
from tests.model.test_conditions import latents
from tests.model.tiny import CONTEXT_DIM, normal

KEY = KeyPictures(normal(1, 3, 40, 56), (normal(1, 1, 40, 56, seed=1) > 0).float())
BEHIND = replace(KEY, background=normal(1, 3, 30, 90, seed=5), background_mask=torch.zeros(1, 1, 30, 90))
SKETCH, MASK = normal(2, 3, 64, 128, seed=2), (normal(2, 1, 64, 128, seed=3) > 0).float()
GUIDANCE = Guidance(4.0, 1.5)
PLAIN = SideSettings()
FULL = SideSettings(split=True, style=True, merge=0.2)


def clip(picture: Tensor) -> Tensor:
    grid = torch.nn.functional.adaptive_avg_pool2d(picture, 3).flatten(2).mT  # (B, 9, 3)
    tokens = torch.cat([grid.mean(1, keepdim=True), grid], dim=1)
    return (tokens @ normal(3, CONTEXT_DIM, seed=CONTEXT_DIM)).tanh()


@pytest.fixture(scope="module")
def encoders() -> SideEncoders:
    return SideEncoders(
        clip, latents, tiny_v2.sketch_encoder(), tiny_v2.background_encoder(), tiny_v2.style_encoder(),
        tiny_v2.region_adapters().adapters(), context_shape=(9, CONTEXT_DIM),
    )


@pytest.fixture(scope="module")
def net():
    return tiny_v2.unet()


@pytest.mark.parametrize("key", [KEY, BEHIND], ids=["bleached", "own-background"])
def test_two_frames_at_once_are_predicted_as_each_alone(encoders, net, key):
    read = read_key(encoders, key, FULL)
    x = normal(2, 4, 8, 16, seed=4)
    both = guided(net, frame_conditions(encoders, read, SKETCH, MASK, FULL), GUIDANCE)(x, 400.0)
    for i in range(2):
        one = slice(i, i + 1)
        alone = guided(net, frame_conditions(encoders, read, SKETCH[one], MASK[one], FULL), GUIDANCE)(x[one], 400.0)
        torch.testing.assert_close(both[one], alone, atol=1e-4, rtol=1e-4)


def test_side_features_read_once_serve_every_frame_of_their_size(encoders, net):
    read = read_key(encoders, BEHIND, FULL)
    sides = side_features(encoders, read, FULL, (64, 128))
    x = normal(2, 4, 8, 16)
    once, each = (
        guided(net, frame_conditions(encoders, read, SKETCH, MASK, FULL, found), GUIDANCE)(x, 9.0)
        for found in (sides, None)
    )
    assert torch.equal(once, each)


def test_a_plain_run_needs_neither_mask_nor_side_encoders(encoders, net):
    without = replace(encoders, background=None, style=None, adapters=())  # type: ignore[arg-type]
    conditions = frame_conditions(without, read_key(without, KEY, PLAIN), SKETCH, None, PLAIN)
    assert guided(net, conditions, GUIDANCE)(normal(2, 4, 8, 16), 9.0).shape == (2, 4, 8, 16)


def test_the_reference_on_both_sides_at_equal_strengths_is_the_plain_model(encoders, net):
    """Without adapters and hints there is nothing left that could differ."""
    alone = replace(PLAIN, foreground_alone=True, merge=0.3)
    x = normal(2, 4, 8, 16)
    found, expected = (
        guided(net, frame_conditions(encoders, read_key(encoders, KEY, s), SKETCH, MASK, s), GUIDANCE)(x, 400.0)
        for s in (alone, PLAIN)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_background_encoder_sees_the_picture_with_its_own_tokens_but_beside_a_style_with_the_key_s(encoders):
    read = read_key(encoders, BEHIND, FULL)
    assert read.own_tokens is not None and not torch.allclose(read.own_tokens, read.reference)
    size = (64, 128)
    with_style = side_features(encoders, read, FULL, size).hints
    alone = side_features(encoders, read, replace(FULL, style=False), size).hints
    renamed = replace(read, reference=read.own_tokens)
    as_if = side_features(encoders, renamed, FULL, size).hints
    assert not torch.allclose(with_style[0], alone[0])
    torch.testing.assert_close(as_if[0], alone[0])


def test_the_style_goes_from_the_key_s_to_the_background_s_with_the_merging(encoders):
    size = (64, 128)
    key, half, behind = (
        side_features(encoders, read_key(encoders, BEHIND, s), s, size).styles[0]
        for s in (replace(FULL, merge=merge) for merge in (0.0, 0.5, 1.0))
    )
    torch.testing.assert_close(half, (key + behind) / 2)
    swapped = KeyPictures(BEHIND.background)
    settings = replace(FULL, split=False, merge=0.0)
    torch.testing.assert_close(
        behind, side_features(encoders, read_key(encoders, swapped, settings), settings, size).styles[0]
    )


def test_hints_are_multiplied(encoders):
    read = read_key(encoders, KEY, FULL)
    whole, half = (
        side_features(encoders, read, replace(FULL, hints=hints), (64, 128)).hints for hints in (1.0, 0.5)
    )
    torch.testing.assert_close(0.5 * whole[3], half[3])


def test_words_change_the_context_and_not_the_background(encoders):
    word = torch.nn.functional.normalize(normal(CONTEXT_DIM), dim=0)
    edited = replace(FULL, edits=(TextEdit(word, 3.0),))
    changed, plain = (read_key(encoders, KEY, settings) for settings in (edited, FULL))
    assert changed.background is not None and plain.background is not None
    assert torch.equal(changed.background, plain.background)
    moved = changed.reference - plain.reference
    amount = 3.0 - float(clip(KEY.reference)[0, 0] @ word)
    torch.testing.assert_close(moved, (amount * word).expand_as(moved))


def test_without_a_key_the_context_is_zero_and_as_long_as_with_one(encoders):
    blank, read = (read_key(encoders, key, PLAIN).context for key in (KeyPictures(), KEY))
    assert blank.shape == read.shape
    assert not blank.any()


def test_a_latent_s_mask_is_that_of_the_middle_of_its_cell(encoders):
    """Of a ramp that is the mean of the cell; taking every eighth pixel would give its left edge."""
    ramp = (torch.arange(128) / 128).expand(2, 1, 64, 128)
    region = frame_conditions(encoders, read_key(encoders, KEY, FULL), SKETCH, ramp, FULL).region
    assert region is not None
    torch.testing.assert_close(region.mask[0, 0, 4, 1:-1], (8 * torch.arange(1, 15) + 3.5) / 128)


def test_a_laid_in_background_is_not_read_as_hints(encoders):
    settings = replace(FULL, latent_copy=True)
    conditions = frame_conditions(encoders, read_key(encoders, BEHIND, settings), SKETCH, MASK, settings)
    assert not conditions.sides.hints
    assert conditions.sides.styles
    assert conditions.background_latents is not None and conditions.background_latents.shape == (1, 4, 8, 16)


def test_the_context_is_the_places_without_the_whole():
    tokens = clip(KEY.reference)
    assert torch.equal(local_tokens(tokens), tokens[:, 1:])
