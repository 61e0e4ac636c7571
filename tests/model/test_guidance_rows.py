"""The rows of guidance share what they have in common: the work is counted, the result is that of whole rows."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from benchmarks.network import flops_of
from colorcli.model.attention import (
    AttentionPlan,
    Injection,
    KeyValues,
    Region,
    attend,
    region_at,
    runs_of,
    self_attention,
    take,
)
from colorcli.model.conditions import Conditions, branch_rows
from colorcli.model.unet import places, project_context, transformer_blocks
from colorcli.sampling import Guidance, guided
from tests.model.tiny import CONTEXT_DIM, DEPTHS, WIDTHS, normal, reference_net, unet

SIZE, TOKENS, EMB, Y = (8, 12), 6, 4 * WIDTHS[0], 512
CONTEXT = normal(1, TOKENS, CONTEXT_DIM, seed=2)


def minding() -> object:
    """Make a network in which the context matters: with small weights every row would be the same anyway."""
    net = unet()
    for block in transformer_blocks(net):
        block.attn2.to_v.weight.data *= 20
        block.attn2.to_out[0].weight.data *= 10
    return net


@pytest.fixture(scope="module")
def net():
    return minding()


def maps(rows: int, seed: int) -> tuple[Tensor, ...]:
    sides = ((WIDTHS[0], 1), (WIDTHS[0], 2), (WIDTHS[1], 4), (WIDTHS[2], 4))
    return tuple(normal(rows, c, SIZE[0] // s, SIZE[1] // s, seed=seed + i) for i, (c, s) in enumerate(sides))


def conditions(frames: int, **more: object) -> Conditions:
    return Conditions(CONTEXT, maps(frames, 20), maps(1, 30), normal(1, Y, seed=1), **more)


def whole_rows(net, given: Conditions, branches, x: Tensor, plan: AttentionPlan | None = None) -> Tensor:
    """Every row by itself: its own maps, and a context that is really all zeros where the reference is not seen."""
    rows = branch_rows(given, branches, len(x))
    plain = plan or AttentionPlan(rows.plan.region, given.strengths, adapters=given.adapters)
    context = torch.cat([CONTEXT.expand(len(x), -1, -1) * (branch != "uncond_reference") for branch in branches])
    return net(x.repeat(len(branches), 1, 1, 1), 300.0, rows.y, context, rows.sketch_maps, plain)


# --- the work, by formula: a multiplication and an addition are two


def conv(pixels: int, before: int, after: int, side: int = 3) -> int:
    return 2 * pixels * before * after * side**2


def residual(pixels: int, before: int, after: int) -> int:
    shortcut = conv(pixels, before, after, 1) if before != after else 0
    return conv(pixels, before, after) + conv(pixels, after, after) + shortcut + 2 * EMB * after


def self_attention_work(pixels: int, c: int) -> int:
    return 4 * 2 * pixels * c * c + 4 * pixels * pixels * c


def cross_attention_work(pixels: int, c: int) -> int:
    """Queries, reading and output; without the keys and values."""
    return 2 * 2 * pixels * c * c + 4 * pixels * TOKENS * c


def key_value_work(c: int) -> int:
    return 2 * 2 * TOKENS * CONTEXT_DIM * c


def transformer(pixels: int, c: int, depth: int) -> int:
    gated = 2 * pixels * c * 8 * c + 2 * pixels * 4 * c * c
    inner = self_attention_work(pixels, c) + cross_attention_work(pixels, c) + key_value_work(c) + gated
    return 2 * 2 * pixels * c * c + depth * inner if depth else 0


def row_work() -> int:
    """Give what one whole row costs."""
    area = [SIZE[0] * SIZE[1] // 4**level for level in range(len(WIDTHS))]
    last = len(WIDTHS) - 1
    found = 2 * (WIDTHS[0] * EMB + EMB * EMB) + 2 * (Y * EMB + EMB * EMB)      # the time, and the vector condition
    found += conv(area[0], 4, WIDTHS[0]) + conv(area[0], WIDTHS[0], 4)
    skips = [WIDTHS[0]]
    x = WIDTHS[0]
    for level, (c, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        for _ in range(2):
            found += residual(area[level], x, c) + transformer(area[level], c, depth)
            x = c
            skips.append(c)
        if level < last:
            found += conv(area[level + 1], c, c)
            skips.append(c)
    found += 2 * residual(area[last], x, x) + transformer(area[last], x, max(1, DEPTHS[last]))
    for level in reversed(range(len(WIDTHS))):
        c = WIDTHS[level]
        for _ in range(3):
            found += residual(area[level], x + skips.pop(), c) + transformer(area[level], c, DEPTHS[level])
            x = c
        if level:
            found += conv(area[level - 1], c, c)
    return found


def prefix_work() -> int:
    """Give what one row costs before the first cross-attention."""
    first = next(level for level, depth in enumerate(DEPTHS) if depth)
    found, x = conv(math.prod(SIZE), 4, WIDTHS[0]), WIDTHS[0]
    for level in range(first):
        pixels, c = math.prod(SIZE) // 4**level, WIDTHS[level]
        found += residual(pixels, x, c) + residual(pixels, c, c) + conv(pixels // 4, c, c)
        x = c
    pixels, c = math.prod(SIZE) // 4**first, WIDTHS[first]
    return found + residual(pixels, x, c) + 2 * pixels * c * c + self_attention_work(pixels, c)


def test_a_guided_pair_costs_less_by_the_prefix_the_keys_and_the_attention_to_nothing(net):
    given, x, pair = conditions(1), normal(1, 4, *SIZE), ("cond", "uncond_reference")
    cached = replace(given, context=project_context(net, CONTEXT))
    naive = flops_of(lambda: whole_rows(net, given, pair, x))
    ours = flops_of(lambda: guided(net, cached, Guidance(3.0))(x, 300.0))
    blocks = [(math.prod(SIZE) // place.stride**2, place.width) for place in places(net)]
    # The vector condition is the same for all rows, and goes through its layers once in both.
    assert naive == 2 * row_work() - 2 * (Y * EMB + EMB * EMB)
    saved = prefix_work() + sum(2 * key_value_work(c) + cross_attention_work(n, c) for n, c in blocks)
    assert naive - ours == saved


# --- the result is that of whole rows


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("sketch", [1.0, 2.0], ids=["pair", "with-sketch-guidance"])
@pytest.mark.parametrize("split", [False, True], ids=["one-context", "split"])
def test_rows_that_share_equal_rows_by_themselves(net, frames, sketch, split):
    mask = (normal(frames, 1, *SIZE, seed=9) > 0).float()
    given = conditions(frames, region=Region(mask, 0.5, foreground=0.9) if split else None, strengths=1.2)
    x, guidance = normal(frames, 4, *SIZE), Guidance(3.0, sketch)
    rows = branch_rows(given, guidance.branches, frames)
    assert rows.plan.alike is not None
    shared = net(x.repeat(len(guidance.branches), 1, 1, 1), 300.0, rows.y, rows.context, rows.sketch_maps, rows.plan)
    torch.testing.assert_close(shared, whole_rows(net, given, guidance.branches, x), atol=2e-5, rtol=1e-4)
    first, *others = shared.chunk(len(guidance.branches))
    assert all(float((first - other).abs().max()) > 1e-2 for other in others), "the branches agree: nothing was tested"


def test_only_sketch_guidance_leaves_nothing_to_share():
    assert branch_rows(conditions(2), ("cond", "uncond_sketch"), 2).plan.alike is None
    assert branch_rows(conditions(2), ("cond", "uncond_reference", "uncond_sketch"), 2).plan.alike == [0, 1, 0, 1, 4, 5]


def test_reference_only_attention_is_fed_every_row(net):
    """What the key's own rows read in the first block is wanted of each of them, so they are not computed as one."""
    given, x = conditions(1), normal(1, 4, *SIZE)
    rows = branch_rows(given, ("cond", "uncond_reference"), 1)
    counted: list[int] = []
    for alike in (rows.plan.alike, None):
        net(x.repeat(2, 1, 1, 1), 300.0, rows.y, rows.context, rows.sketch_maps, replace(rows.plan, alike=alike),
            lambda name, seen: counted.append(len(seen)) if name == "norm1.0" else None)
    assert counted == [1, 2]
    assert Injection([]).own_rows == ()


def test_a_layer_with_biases_reads_them_of_an_all_zero_context_and_takes_no_short_cut():
    net = minding()
    for i, block in enumerate(transformer_blocks(net)):
        for name in ("to_k", "to_v"):
            plain = getattr(block.attn2, name)
            biased = nn.Linear(plain.in_features, plain.out_features)
            biased.weight, biased.bias.data = plain.weight, normal(plain.out_features, seed=i)
            setattr(block.attn2, name, biased.requires_grad_(False))
    given, x, pair = conditions(2), normal(2, 4, *SIZE), ("cond", "uncond_reference")
    expected = whole_rows(net, given, pair, x)
    for context in (CONTEXT, project_context(net, CONTEXT)):
        rows = branch_rows(replace(given, context=context), pair, 2)
        found = net(x.repeat(2, 1, 1, 1), 300.0, rows.y, rows.context, rows.sketch_maps, rows.plan)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    blind = minding()
    rows = branch_rows(given, pair, 2)
    without = blind(x.repeat(2, 1, 1, 1), 300.0, rows.y, rows.context, rows.sketch_maps, rows.plan)
    assert not torch.allclose(without[2:], expected[2:], atol=1e-2), "the biases make no difference"


# --- masks that differ from row to row


def test_rows_with_masks_of_their_own_read_what_a_bias_of_minus_infinity_would_leave_them():
    height, width, rows = 12, 16, 4
    layer = transformer_blocks(unet())[0].attn1
    x, bank = normal(rows, height * width, 32, seed=1), normal(2, height * width, 32, seed=2)
    masks = torch.cat([(normal(2, 1, height, width, seed=3) > 0).float()] * 2)   # two frames in two branches
    region = region_at(Region(masks), height, width)
    assert [group.rows for group in region.bank.groups] == [[0, 2], [1, 3]]
    found = self_attention(layer, x, AttentionPlan(Region(masks)), bank, None, region)

    heads = [layer.to_q(x), *(torch.cat([f(x), f(bank).repeat(2, 1, 1)], dim=1) for f in (layer.to_k, layer.to_v))]
    q, k, v = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in heads)
    inside = masks.flatten(1).bool()[:, None, :, None]
    allowed = torch.cat([inside.expand(-1, -1, -1, height * width), ~inside.expand(-1, -1, -1, height * width)], dim=-1)
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -math.inf)
    expected = layer.to_out[0]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_reading_by_a_mask_costs_no_more_with_masks_that_differ(net):
    """Each query reads one of the two sets, whichever row it is in."""
    size, layer = (12, 16), transformer_blocks(net)[0].attn1
    x, bank = normal(2, 192, 32), normal(1, 192, 32, seed=1)
    half = torch.zeros(1, 1, *size)
    half[..., :8] = 1
    work = []
    for masks in (half, torch.cat([half, 1 - half])):
        region = region_at(Region(masks), *size)
        work.append(flops_of(lambda: self_attention(layer, x, AttentionPlan(Region(masks)), bank, None, region)))  # noqa: B023
    assert work[0] == work[1]


def test_a_bank_for_each_frame_is_projected_for_the_frames_not_for_the_branches(net):
    bank = [b.repeat(2, 1, 1) for b in reference_net()(normal(1, 6, *SIZE), normal(1, 1024))]
    given = replace(conditions(2, region=Region((normal(2, 1, *SIZE, seed=9) > 0).float())), bank=bank)
    rows = branch_rows(given, ("cond", "uncond_reference"), 2)
    assert all(len(tokens) == 2 for tokens in rows.plan.bank)
    x = normal(2, 4, *SIZE)
    found = net(x.repeat(2, 1, 1, 1), 300.0, rows.y, rows.context, rows.sketch_maps, rows.plan)
    repeated = replace(rows.plan, bank=[b.repeat(2, 1, 1) for b in bank], alike=None, seeing_rows=None)
    torch.testing.assert_close(
        found, whole_rows(net, given, ("cond", "uncond_reference"), x, repeated), atol=2e-5, rtol=1e-4
    )


def test_branches_read_the_keys_of_their_frame():
    q, kv = normal(6, 5, 16), KeyValues(normal(3, 7, 16, seed=1), normal(3, 7, 16, seed=2))
    each = [attend(q[i : i + 1], KeyValues(*(t[i % 3 : i % 3 + 1] for t in (kv.keys, kv.values))), 2) for i in range(6)]
    torch.testing.assert_close(attend(q, kv, 2), torch.cat(each))


def test_rows_are_taken_as_an_index_takes_them():
    x = normal(5, 2)
    for rows in ([0, 1, 2], [3], [], [4, 0, 1, 1, 2], [0, 2, 4]):
        assert torch.equal(take(x, rows), x[rows])
    assert take(x, [1, 2, 3]).data_ptr() == x[1:].data_ptr(), "consecutive rows were copied"
    assert all(end > start for start, end in runs_of([4, 0, 1, 1])) and not list(pairwise(runs_of([2, 3])))
