"""The SD2.1 network beside the stock one, and what its side features and adapters change."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from colorcli.model.attention import Adapter, AttentionPlan, LowRank, Region, RegionAdapter, SideFeatures
from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import (
    BackgroundEncoder,
    SideUNet,
    StyleEncoder,
    StyleModule,
    WarpModule,
    project_hints,
)
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import PLAIN, group, project_context, published_strengths_v2
from tests.model import tiny_v2
from tests.model.tiny import CONTEXT_DIM, normal, randomised

X, CONTEXT = normal(2, 4, 8, 16), normal(1, 10, CONTEXT_DIM, seed=1)
LEFT = torch.cat([torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)], dim=3)


@pytest.fixture(scope="module")
def net() -> SideUNet:
    return tiny_v2.unet()


@pytest.fixture(scope="module")
def sides() -> SideFeatures:
    latents, y = normal(1, 4, 8, 16, seed=2), normal(1, 512, seed=3)
    context = normal(1, 5, CONTEXT_DIM, seed=4)
    hints = tiny_v2.background_encoder()(latents, y, context)
    return SideFeatures(hints, tiny_v2.style_encoder()(latents, y, context))


def call(net: SideUNet, plan: AttentionPlan = PLAIN, x: Tensor = X) -> Tensor:
    return net(x, 321.5, None, CONTEXT, (), plan)


def test_without_side_features_the_walk_equals_the_stock_network(net):
    stock = UNet2DConditionModel(
        block_out_channels=tiny_v2.WIDTHS, cross_attention_dim=CONTEXT_DIM, attention_head_dim=(2, 2, 4, 4),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    own = ("warp_modules.", "style_modules.")
    stock.load_state_dict({name: x for name, x in net.state_dict().items() if not name.startswith(own)})
    expected = stock(X, torch.tensor(321.5), CONTEXT.expand(2, -1, -1)).sample
    torch.testing.assert_close(call(net), expected)


def test_inside_the_mask_the_hints_make_no_difference(net, sides):
    everywhere = AttentionPlan(Region(torch.ones(1, 1, 8, 16)))
    hints = SideFeatures(sides.hints)
    assert torch.equal(call(net, replace(everywhere, sides=hints)), call(net, everywhere))
    half = AttentionPlan(Region(LEFT))
    assert not torch.allclose(call(net, replace(half, sides=hints)), call(net, half), atol=1e-3)


def test_hints_and_styles_both_change_the_prediction(net, sides):
    plan = AttentionPlan(Region(LEFT))
    found = [call(net, replace(plan, sides=chosen)) for chosen in (
        SideFeatures(), SideFeatures(sides.hints), SideFeatures(styles=sides.styles), sides,
    )]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_a_mask_for_all_rows_gives_what_it_gives_for_each_row(net, sides):
    plans = [AttentionPlan(Region(mask), sides=sides) for mask in (LEFT, LEFT.repeat(2, 1, 1, 1))]
    torch.testing.assert_close(call(net, plans[0]), call(net, plans[1]))


def test_hints_projected_once_can_stand_for_themselves(net, sides):
    plan = AttentionPlan(Region(LEFT), sides=sides)
    projected = SideFeatures(project_hints(net, sides.hints), sides.styles)
    torch.testing.assert_close(call(net, replace(plan, sides=projected)), call(net, plan))


def test_a_call_leaves_nothing_behind(net, sides):
    before = call(net)
    call(net, AttentionPlan(Region(LEFT), adapters=tiny_v2.region_adapters().adapters(), sides=sides))
    assert torch.equal(call(net), before)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (9, 13)])
def test_hints_have_the_size_of_the_skip_connections_that_read_them(net, height, width):
    latents = normal(1, 4, height, width)
    hints = tiny_v2.background_encoder()(latents, normal(1, 512), CONTEXT)
    plan = AttentionPlan(Region(torch.zeros(1, 1, height, width)), sides=SideFeatures(hints))
    assert call(net, plan, normal(2, 4, height, width)).shape == (2, 4, height, width)
    assert [hint.shape[1] for hint in hints[-3:]] == [height * width] * 3


def test_the_published_sizes_fit_together():
    """Of a canvas of 768 x 512, without any numbers: shapes only."""
    with torch.device("meta"):
        unet, background, style, sketch = SideUNet(), BackgroundEncoder(), StyleEncoder(), PyramidSketchEncoder()
        latents, y, tokens = torch.empty(1, 4, 64, 96), torch.empty(1, 512), torch.empty(1, 256, 1024)
        hints, styles = background(latents, y, tokens), style(latents, y, tokens)
        maps = sketch(torch.empty(2, 3, 512, 768))
        plan = AttentionPlan(Region(torch.empty(2, 1, 64, 96)), sides=SideFeatures(hints, styles))
        found = unet(torch.empty(2, 4, 64, 96), torch.tensor(1.0), None, torch.empty(2, 512, 1024), maps, plan)
    assert found.shape == (2, 4, 64, 96)
    assert [x.shape[1:] for x in maps] == [(320, 64, 96), (320, 32, 48), (640, 16, 24), (1280, 8, 12), (1280, 8, 12)]
    assert [x.shape[1] for x in styles] == [2560] * 6 + [1280] * 3 + [640] * 3
    assert [x.shape[2] for x in hints] == [1280] * 5 + [640] * 3 + [320] * 4


def test_each_token_is_warped_by_itself():
    warp = WarpModule(32)
    randomised(warp)
    tokens, hint = normal(1, 6, 32), normal(1, 9, 32, seed=1)
    torch.testing.assert_close(warp(tokens, hint)[:, 2:4], warp(tokens[:, 2:4], hint))


def test_a_style_scales_and_shifts_each_channel():
    module = StyleModule(2, 3)
    randomised(module)
    module.out.weight.data.zero_()
    module.out.bias.data = torch.tensor([1.0, -1.0, 10.0, 20.0])
    found = module(torch.ones(1, 2, 1, 1), normal(1, 4), normal(1, 3))
    assert found.flatten().tolist() == [12.0, 20.0]


def test_equal_adapters_on_both_sides_are_one_adapter(net):
    """The whole adapter of the other models, asked another way."""
    def change(inputs: int, outputs: int, seed: int) -> LowRank:
        return LowRank(0.2 * normal(2, inputs, seed=seed), normal(outputs, 2, seed=seed + 1))

    widths = [32, 32, 32, 32, 64, 64, 64, 64, 64, 64, 32, 32, 32, 32, 32, 32]
    whole = [
        Adapter(change(w, w, i), change(CONTEXT_DIM, w, i + 20), change(CONTEXT_DIM, w, i + 40))
        for i, w in enumerate(widths)
    ]
    pairs = [RegionAdapter(adapter, adapter) for adapter in whole]
    for region in (Region(LEFT), Region(LEFT, merge=0.3, foreground=1.2, background=0.7)):
        torch.testing.assert_close(
            call(net, AttentionPlan(region, adapters=pairs)), call(net, AttentionPlan(region, adapters=whole))
        )


def test_without_merging_each_token_is_read_once_and_as_with_hardly_any(net):
    """Without merging each token attends to one half only; with it both are read and one is chosen."""
    adapters = tiny_v2.region_adapters().adapters()
    once, both = (call(net, AttentionPlan(Region(LEFT, merge=merge), adapters=adapters)) for merge in (0.0, 1e-9))
    torch.testing.assert_close(once, both)


def test_groups_of_blocks_leave_none_out_and_share_none(net):
    """The deepest level has no transformers of its own, so the next is the one with the smallest maps."""
    found = [group(net, name) for name in ("low", "middle", "high")]
    assert found == [[4, 5, 7, 8, 9], [6], [0, 1, 2, 3, 10, 11, 12, 13, 14, 15]]


def test_published_strengths_of_a_later_group_overwrite_those_of_an_earlier_one(net):
    strengths = published_strengths_v2(net, {"encoder": 0.2, "middle": 0.5, "low": 0.7})
    assert strengths == [0.2, 0.2, 0.5, 0.5, 0.7, 0.7, 1, 0.7, 0.7, 0.7, 0.5, 0.5, 0.5, 1, 1, 1]


def test_side_features_of_another_precision_are_taken(sides):
    net = tiny_v2.unet()
    plan = AttentionPlan(Region(LEFT), sides=sides)
    exact = call(net, plan)
    half = net.bfloat16()(X.bfloat16(), 321.5, None, CONTEXT, (), plan).float()
    assert float((half - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_adapters_at_no_strength_change_nothing(net):
    plain, changed = AttentionPlan(Region(LEFT)), tiny_v2.region_adapters()
    expected = call(net, plain)
    torch.testing.assert_close(call(net, replace(plain, adapters=changed.adapters(0.0, 0.0))), expected)
    for one_side in (changed.adapters(1.0, 0.0), changed.adapters(0.0, 1.0)):
        assert not torch.allclose(call(net, replace(plain, adapters=one_side)), expected, atol=1e-4)


def test_context_projected_once_carries_both_adapters(net):
    adapters = tiny_v2.region_adapters().adapters()
    plan = AttentionPlan(Region(LEFT), adapters=adapters)
    cached = net(X, 321.5, None, project_context(net, CONTEXT, adapters), (), plan)
    torch.testing.assert_close(cached, call(net, plan))


@pytest.mark.parametrize("make", [
    tiny_v2.unet, tiny_v2.background_encoder, tiny_v2.style_encoder, tiny_v2.sketch_encoder, tiny_v2.region_adapters,
], ids=["unet", "background-encoder", "style-encoder", "sketch-encoder", "adapters"])
def test_a_saved_network_is_loaded_with_the_same_weights(make, tmp_path):
    made = make()
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    state = made.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())
    if isinstance(made, RegionAdapters):
        assert len(again.adapters()) == 16
