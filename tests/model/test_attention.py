"""Split attention, banks and strengths, each checked against the same question asked another way."""

from dataclasses import replace

import pytest
import torch

from colorcli.model.attention import Adapter, AttentionPlan, Injection, KeyValues, LowRank, Region, best_backend
from colorcli.model.unet import (
    PLAIN,
    group_strengths,
    places,
    project_bank,
    project_context,
    self_attention_inputs,
    transformer_blocks,
)
from tests.model.merging import merged_weights
from tests.model.tiny import CONTEXT_DIM, call, normal, reference_net, unet

FRONT, BACK = normal(2, 6, CONTEXT_DIM, seed=2), normal(2, 6, CONTEXT_DIM, seed=3)
BOTH = torch.cat([FRONT, BACK], dim=1)
MASK = torch.nn.functional.interpolate(normal(1, 1, 2, 3, seed=4).sigmoid(), (8, 12), mode="nearest")


@pytest.fixture(scope="module")
def net():
    return unet()


def test_a_full_mask_sees_only_the_reference_and_an_empty_one_only_the_background(net):
    full = AttentionPlan(Region(torch.ones(1, 1, 8, 12)))
    empty = AttentionPlan(Region(torch.zeros(1, 1, 8, 12)))
    torch.testing.assert_close(call(net, BOTH, full), call(net, FRONT, PLAIN))
    torch.testing.assert_close(call(net, BOTH, empty), call(net, BACK, PLAIN))


@pytest.mark.parametrize("rule", ["hard", "soft"])
@pytest.mark.parametrize("merge", [0.0, 0.3])
def test_one_mask_for_all_rows_equals_the_same_mask_in_every_row(net, rule, merge):
    region = Region(MASK, 0.5, merge, 0.8, 1.2, rule)
    bank = [normal(1, *b.shape[1:], seed=5) for b in reference_net()(normal(1, 6, 8, 12), normal(1, 1024))]
    shared = AttentionPlan(region, bank=bank)
    each = AttentionPlan(replace(region, mask=MASK.repeat(2, 1, 1, 1)), bank=bank)
    torch.testing.assert_close(call(net, BOTH, shared), call(net, BOTH, each))


def test_both_strengths_count_at_merge_zero_unless_the_published_quirk_is_asked_for(net):
    region = Region(MASK, 0.5, foreground=0.3, background=1.7)
    plain = call(net, BOTH, AttentionPlan(Region(MASK, 0.5)))
    quirk = call(net, BOTH, AttentionPlan(replace(region, compat=True)))
    torch.testing.assert_close(quirk, plain)
    # A merge too small to matter goes through the other rule, which has always scaled both sides.
    meant = call(net, BOTH, AttentionPlan(replace(region, merge=1e-9)))
    torch.testing.assert_close(call(net, BOTH, AttentionPlan(region)), meant)
    assert not torch.allclose(meant, plain)


def test_rows_that_do_not_see_equal_rows_with_an_all_zero_context(net):
    for region in (None, Region(MASK, 0.5), Region(MASK.repeat(2, 1, 1, 1), rule="soft", merge=0.2)):
        zero_second = BOTH * torch.tensor([1.0, 0.0])[:, None, None]
        expected = call(net, zero_second, AttentionPlan(region))
        torch.testing.assert_close(call(net, BOTH, AttentionPlan(region, seeing_rows=(0,))), expected)
        nothing = call(net, BOTH, AttentionPlan(region, seeing_rows=()))
        torch.testing.assert_close(nothing, call(net, 0 * BOTH, AttentionPlan(region)))


def test_keys_and_values_projected_once_give_the_same_picture(net):
    bank = reference_net()(normal(1, 6, 8, 12), normal(1, 1024))
    region = Region(MASK, 0.5)
    each_time = call(net, FRONT[:1], AttentionPlan(region, bank=bank))
    once = call(net, project_context(net, FRONT[:1]), AttentionPlan(region, bank=project_bank(net, bank)))
    assert torch.equal(once, each_time)


def test_a_bank_equal_to_the_own_tokens_changes_nothing(net):
    """Reading one's own tokens a second time leaves every softmax average where it was, with a mask and without."""
    rows = (normal(2, 4, 8, 12), 321.5, normal(2, 512, seed=1), FRONT)
    own: list[torch.Tensor] = []
    plain = call(net, FRONT, PLAIN)
    start = sum(place.part != "decoder" for place in places(net))
    own = self_attention_inputs(net, *rows)[start:]
    for region in (None, Region(torch.ones(1, 1, 8, 12))):
        context = FRONT if region is None else torch.cat([FRONT, BACK], dim=1)
        torch.testing.assert_close(call(net, context, AttentionPlan(region, bank=own)), plain)


def test_without_mask_inside_everything_reads_only_the_bank(net):
    bank = reference_net()(normal(1, 6, 8, 12), normal(1, 1024))
    empty = Region(torch.zeros(1, 1, 8, 12))
    ours = call(net, BOTH, AttentionPlan(empty, bank=bank))
    bias_free = [KeyValues(block.attn1.to_k(b), block.attn1.to_v(b)) for block, b in _readers(net, bank)]
    torch.testing.assert_close(ours, call(net, BOTH, AttentionPlan(empty, bank=bias_free)))
    assert not torch.allclose(ours, call(net, BOTH, AttentionPlan(empty)))


def _readers(net, bank):
    return zip(transformer_blocks(net)[-len(bank):], bank, strict=True)


def test_fidelity_one_keeps_the_named_rows_as_they_are_alone(net):
    stored = [normal(1, *x.shape[1:], seed=6) for x in self_attention_inputs(
        net, normal(2, 4, 8, 12), 100.0, normal(2, 512), FRONT)]
    plain = call(net, FRONT, PLAIN)
    mixed = call(net, FRONT, AttentionPlan(injection=Injection(stored, 1.0, (1,))))
    torch.testing.assert_close(mixed[1], plain[1])
    assert not torch.allclose(mixed[0], plain[0])


def test_an_adapter_beside_the_weights_equals_one_merged_into_them(net):
    changes = [
        Adapter(*(
            LowRank(normal(2, layer.in_features, seed=i), 0.1 * normal(layer.out_features, 2, seed=i + 1), 0.5)
            for layer in (block.attn2.to_q, block.attn2.to_k, block.attn2.to_v)
        ))
        for i, block in enumerate(transformer_blocks(net))
    ]
    beside = call(net, FRONT, AttentionPlan(adapters=changes))
    arguments = (normal(2, 4, 8, 12), 321.5, normal(2, 512, seed=1), FRONT)
    merged = torch.func.functional_call(net, merged_weights(net, changes), arguments)
    torch.testing.assert_close(merged, beside, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(call(net, FRONT, PLAIN), net(*arguments))
    cached = call(net, project_context(net, FRONT, changes), AttentionPlan(adapters=changes))
    torch.testing.assert_close(cached, beside)


def test_strength_zero_everywhere_is_the_network_that_sees_nothing(net):
    blind = call(net, FRONT, AttentionPlan(seeing_rows=()))
    torch.testing.assert_close(call(net, FRONT, AttentionPlan(strengths=0.0)), blind)
    torch.testing.assert_close(call(net, FRONT, AttentionPlan(strengths=group_strengths(net, 0.0, low=0.5))), blind)


def test_group_strengths_multiply_only_their_own_blocks(net):
    found = group_strengths(net, 0.5, encoder=0.5)
    assert found == [0.25 if place.part == "encoder" else 0.5 for place in places(net)]


def test_a_bank_and_reference_only_attention_exclude_each_other():
    with pytest.raises(AssertionError, match="cannot be read at once"):
        AttentionPlan(bank=[torch.zeros(1, 1, 1)], injection=Injection([]))


def test_without_cuda_attention_is_torchs_own():
    assert best_backend("cpu") == "sdpa"
