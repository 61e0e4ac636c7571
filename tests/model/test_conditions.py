"""Conditions put together from pictures: what each branch sees, and that frames do not disturb each other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from colorcli.model.conditions import (
    ConditionSettings,
    Encoders,
    KeyPictures,
    bleach,
    branch_rows,
    frame_conditions,
    read_key,
)
from colorcli.model.preprocess import crop_to_aspect
from colorcli.model.reference import ClusterProjection
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import project_context
from colorcli.sampling import Guidance, ReferenceOnly, guided, scaled_linear
from tests.model.tiny import CONTEXT_DIM, WIDTHS, normal, randomised, reference_net, unet

KEY = KeyPictures(normal(1, 3, 40, 56), (normal(1, 1, 40, 56, seed=1) > 0).float())
SKETCH, MASK = normal(2, 3, 64, 96, seed=2), (normal(2, 1, 64, 96, seed=3) > 0).float()
SPLIT = ConditionSettings(split=True, merge=0.2)
GUIDANCE = Guidance(4.0, 1.5)


def cells(channels: int, extra: int) -> object:
    """Make a stand-in for a large encoder: the picture's mean colors on a grid, widened to some channels."""
    def encode(picture: Tensor) -> Tensor:
        grid = torch.nn.functional.adaptive_avg_pool2d(picture, 3).flatten(2).mT  # (B, 9, 3)
        tokens = torch.cat([grid.mean(1, keepdim=True), grid], dim=1)[:, 1 - extra:]
        return (tokens @ normal(3, channels, seed=channels)).tanh()
    return encode


def latents(picture: Tensor) -> Tensor:
    small = torch.nn.functional.avg_pool2d(picture, 8)
    return torch.cat([small, small[:, :1]], dim=1)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    projection = ClusterProjection(input_dim=32, tagger_dim=16, output_dim=CONTEXT_DIM, head_dim=16, token_length=9)
    sketch = SketchEncoder(block_out_channels=WIDTHS, head_dim=16)
    randomised(projection), randomised(sketch)
    return Encoders(cells(32, 1), cells(16, 0), latents, projection, sketch)


@pytest.fixture(scope="module")
def net():
    return unet()


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "with-reference-net"])
def test_two_frames_at_once_are_predicted_as_each_alone(encoders, net, adapter):
    used = replace(encoders, reference_net=reference_net()) if adapter else encoders
    key = read_key(used, KEY, SPLIT)
    x = normal(2, 4, 8, 12, seed=4)
    both = guided(net, frame_conditions(used, key, SKETCH, MASK, SPLIT), GUIDANCE)(x, 400.0)
    for i in range(2):
        one = slice(i, i + 1)
        alone = guided(net, frame_conditions(used, key, SKETCH[one], MASK[one], SPLIT), GUIDANCE)(x[one], 400.0)
        torch.testing.assert_close(both[one], alone, atol=1e-4, rtol=1e-4)


def test_keys_and_values_of_the_context_can_stand_for_it(encoders, net):
    conditions = frame_conditions(encoders, read_key(encoders, KEY, SPLIT), SKETCH, MASK, SPLIT)
    assert isinstance(conditions.context, Tensor)
    cached = replace(conditions, context=project_context(net, conditions.context))
    x = normal(2, 4, 8, 12)
    torch.testing.assert_close(guided(net, cached, GUIDANCE)(x, 9.0), guided(net, conditions, GUIDANCE)(x, 9.0))


def test_outside_the_window_the_key_makes_no_difference(encoders, net):
    settings = ConditionSettings()
    other = KeyPictures(normal(1, 3, 30, 30, seed=9))
    early = Guidance(4.0, window=(0.5, 1.0))
    x = normal(2, 4, 8, 12)
    first, second = (
        guided(net, frame_conditions(encoders, read_key(encoders, key, settings), SKETCH, None, settings), early)
        for key in (KEY, other)
    )
    assert torch.equal(first(x, 900.0), second(x, 900.0))
    assert not torch.allclose(first(x, 100.0), second(x, 100.0))


def test_only_the_branch_without_reference_is_blind(encoders):
    conditions = frame_conditions(encoders, read_key(encoders, KEY, SPLIT), SKETCH, MASK, SPLIT)
    rows = branch_rows(conditions, GUIDANCE.branches, 2)
    assert rows.plan.seeing_rows == [0, 1, 4, 5]
    assert torch.equal(rows.sketch_maps[0][:2], rows.sketch_maps[0][2:4])
    assert torch.equal(rows.sketch_maps[0][4], rows.sketch_maps[0][5])
    assert branch_rows(conditions, ("cond",), 2).plan.seeing_rows is None


def test_without_a_key_the_context_is_zero_and_as_long_as_with_one(encoders):
    settings = ConditionSettings()
    blank, read = (read_key(encoders, key, settings).context for key in (KeyPictures(), KEY))
    assert blank.shape == read.shape
    assert not blank.any()


def test_a_background_of_its_own_is_seen_instead_of_the_bleached_key(encoders):
    background = normal(1, 3, 20, 60, seed=7)
    own = read_key(encoders, replace(KEY, background=background), SPLIT)
    bleached = read_key(encoders, KEY, SPLIT)
    assert own.picture is background
    assert KEY.reference is not None and KEY.reference_mask is not None and bleached.picture is not None
    inside = KEY.reference_mask.bool().expand(-1, 3, -1, -1)
    assert bool((bleached.picture[inside] == 1).all())
    assert torch.equal(bleached.picture[~inside], KEY.reference[~inside])
    assert not torch.allclose(own.context, bleached.context)


def test_bleaching_spares_what_is_below_the_threshold():
    mask = torch.tensor([0.2, 0.5, 0.8]).view(1, 1, 1, 3)
    assert bleach(torch.zeros(1, 3, 1, 3), mask, 0.5)[0, 0, 0].tolist() == [0, 1, 1]


def test_latent_copy_takes_the_left_of_a_wide_background():
    ramp = torch.linspace(0, 1, 100).expand(1, 3, 40, 100)
    assert float(crop_to_aspect(ramp, (40, 40)).max()) < 0.42


def test_reference_only_attention_begins_when_it_is_told_to(encoders, net):
    settings = ConditionSettings()
    conditions = frame_conditions(encoders, read_key(encoders, KEY, settings), SKETCH, None, settings)
    x, levels = normal(2, 4, 8, 12), scaled_linear()
    maps = [0 * level[:1] for level in conditions.sketch_maps]
    late = ReferenceOnly(normal(1, 4, 8, 12, seed=5), normal(1, 4, 8, 12, seed=6), maps, start=0.5)
    plain, injected = (guided(net, conditions, GUIDANCE, levels, only) for only in (None, late))
    assert torch.equal(injected(x, 800.0), plain(x, 800.0))
    assert not torch.allclose(injected(x, 100.0), plain(x, 100.0))
