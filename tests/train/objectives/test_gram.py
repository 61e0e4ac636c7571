import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from colorcli.errors import PresetError
from colorcli.model.unet import build_unet
from colorcli.train.objectives.gram import gram_blocks, gram_loss, gram_matrices, token_grid, token_mask, weight_at
from colorcli.train.sections import GramSection


def features(rows: int = 2, tokens: int = 6, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, tokens, width, generator=torch.Generator().manual_seed(seed))


def test_a_rotation_of_all_tokens_keeps_every_relation():
    tokens = features()
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1))).Q
    assert gram_loss([tokens], [tokens @ rotation], GramSection()) < 1e-10
    assert gram_loss([tokens], [3 * tokens], GramSection()) < 1e-10
    assert gram_loss([tokens], [features(seed=2)], GramSection()) > 0.01


def test_cosine_takes_the_mean_and_the_paper_the_sum_of_products():
    first, second = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[1.0, 0.0], [2.0, 0.0]]])
    # Cosines: (1 0; 0 1) and (1 1; 1 1). Products: (1 0; 0 4) and (1 2; 2 4).
    assert gram_loss([first], [second], GramSection()).item() == pytest.approx(2 / 4)
    assert gram_loss([first], [second], GramSection(form="product")).item() == pytest.approx(8 / 4)
    assert gram_loss([first], [second], GramSection(form="paper")).item() == pytest.approx(8)
    # The paper's sum is that of one picture: more pictures of the same kind change nothing.
    twice = [x.expand(2, -1, -1) for x in (first, second)]
    assert gram_loss(twice[:1], twice[1:], GramSection(form="paper")).item() == pytest.approx(8)


def test_the_anchor_gets_no_gradient_and_layers_add_up():
    first, second = features(seed=3).requires_grad_(), features(seed=4).requires_grad_()
    loss = gram_loss([first, first], [second, second], GramSection())
    loss.backward()
    assert first.grad is None and second.grad is not None and second.grad.abs().max() > 0
    assert loss.item() == pytest.approx(2 * gram_loss([first], [second], GramSection()).item())


@pytest.mark.parametrize("variant", ["mse", "kl", "ranking", "binary"])
def test_half_precision_features_give_the_loss_of_whole_ones(variant):
    first, second = features(tokens=24), features(tokens=24, seed=5)
    section = GramSection(variant=variant)
    with torch.autocast("cpu", torch.bfloat16):
        loss = gram_loss([first], [second], section)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, gram_loss([first], [second], section))


def unit(angles: list[float]) -> Tensor:
    return torch.tensor([[[math.cos(a), math.sin(a)] for a in angles]])


def test_the_binary_loss_counts_relations_that_differ():
    # Two pairs of like tokens, which then change partners: of 16 relations 4 are gone and 4 are new.
    right = math.pi / 2
    pairs, others = unit([0, 0, right, right]), unit([0, right, 0, right])
    section = GramSection(variant="binary", spread=0.5)
    assert gram_loss([pairs], [pairs], section) == 0
    assert gram_loss([pairs], [others], section).item() == pytest.approx(100 * 8 / 16)


def test_the_binary_gradient_is_that_of_a_sigmoid_at_the_row_threshold():
    right = math.pi / 2
    pairs, second = unit([0, 0, right, right]), features(1, 4, 2, seed=6)
    section = GramSection(variant="binary", spread=0.5)
    target = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1)[None]   # the pairs' relations

    learned = second.clone().requires_grad_()
    gram_loss([pairs], [learned], section).backward()

    found = gram_matrices(second)
    thresholds = found.mean(2, keepdim=True) + 0.5 * found.std(2, keepdim=True)
    slope = ((found - thresholds).sigmoid() - target) / 16   # of the cross-entropy, for each cosine
    x = second.clone().requires_grad_()
    (gram_matrices(x) * slope).sum().backward()
    assert learned.grad is not None and x.grad is not None and x.grad.abs().max() > 1e-3
    assert torch.allclose(learned.grad, x.grad, atol=1e-7)


def test_a_row_mask_leaves_only_the_rows_of_the_character():
    right = math.pi / 2
    pairs, others = unit([0, 0, right, right]), unit([0, right, 0, right])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])   # the first of four tokens
    section = GramSection(variant="binary", spread=0.5, mask_weighting=True)
    assert gram_loss([pairs], [others], section, mask).item() == pytest.approx(100 * 2 / 4)
    assert gram_loss([pairs], [others], section, torch.zeros(1, 1, 2, 2)) == 0


def test_mask_weighting_keeps_pairs_inside_but_divides_by_all():
    first, second = features(1, 4, 3), features(1, 4, 3, seed=7)
    mask = torch.tensor([[[[1.0, 0.06], [0.05, 0.0]]]])   # 0.05 is not above the threshold
    apart = (gram_matrices(second) - gram_matrices(first)).square()[0, :2, :2].sum() / 16
    assert torch.allclose(gram_loss([first], [second], GramSection(mask_weighting=True), mask), apart)


def test_ranking_has_nothing_to_say_where_relations_stand_above_the_others_by_the_margin():
    tokens = unit([0.0, 0.1, 1.5, 1.6, 3.0, 3.1])
    assert gram_loss([tokens], [tokens], GramSection(variant="ranking", spread=0.5)) == 0
    swapped = unit([0.0, 3.0, 1.5, 0.1, 3.1, 1.6])
    assert gram_loss([tokens], [swapped], GramSection(variant="ranking", spread=0.5)) > 0.1
    alike = torch.ones(1, 4, 3)   # rows without any relation
    assert gram_loss([alike], [tokens[:, :4, :1].expand(1, 4, 3)], GramSection(variant="ranking")).isfinite()


def test_the_weight_begins_at_the_start_and_may_rise():
    step = GramSection(weight=2.0, start=1 / 3)
    assert [weight_at(step, p) for p in (0, 0.33, 1 / 3, 1)] == [0, 0, 2, 2]
    ramp = GramSection(weight=1.0, start=0.2, ramp=0.4)
    assert [weight_at(ramp, p) for p in (0.1, 0.2, 0.4, 0.6, 0.9)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert weight_at(GramSection(), 0.5) == 0


def test_a_mask_lies_on_the_tokens_of_its_own_aspect():
    assert token_grid(24, 32 / 48) == (4, 6)
    assert token_grid(24, 48 / 32) == (6, 4)
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :16, :8] = 1
    assert token_mask(mask, 24, 0.05).view(4, 6).tolist() == [[1] + 5 * [0], [1] + 5 * [0], 6 * [0], 6 * [0]]


@pytest.fixture(scope="module")
def full_depth():
    return build_unet(block_out_channels=(8, 16, 16), depths=(0, 2, 10), head_dim=8, context_dim=4, norm_num_groups=4)


def test_the_released_blocks_are_the_ones_before_the_last_of_the_deepest_stacks(full_depth):
    # 1-4 and 65-70 are at half the resolution, 5-24, 25-34 and 35-64 at a quarter.
    assert gram_blocks(full_depth, GramSection()) == ("block.22", "block.62")
    assert gram_blocks(full_depth, GramSection(blocks=(24, 64), feature="self")) == ("self.23", "self.63")
    with pytest.raises(PresetError, match="1 to 70"):
        gram_blocks(full_depth, GramSection(blocks=(71,)))


def test_other_networks_compare_the_last_block_of_their_deepest_stacks():
    shallow = build_unet(block_out_channels=(8, 16, 16), depths=(0, 1, 2), head_dim=8, context_dim=4, norm_num_groups=4)
    # 1-2 and 15-17 at half, 3-6, 7-8 and 9-14 at a quarter.
    assert gram_blocks(shallow, GramSection()) == ("block.5", "block.13")


@pytest.mark.parametrize("options", [
    {"mask_weighting": True, "variant": "kl"}, {"form": "paper", "variant": "ranking"}, {"blocks": [0]},
])
def test_options_that_do_not_go_together_are_refused(options):
    with pytest.raises(ValidationError):
        GramSection(**options)
