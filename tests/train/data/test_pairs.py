from pathlib import Path

import numpy as np
import pytest
import torch

from colorcli.model.matcher import RegionMatcher, color_scores
from colorcli.train.data.batches import pair_batch
from colorcli.train.data.pairs import PairSet, RegionPair, read_shard
from colorcli.train.drawings import VALIDATION_FAMILIES

MINI = Path(__file__).parents[3] / "colorcli" / "weights" / "mini"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[RegionPair]:
    path = tmp_path_factory.mktemp("pairs") / "two.safetensors"
    read_shard(path, MINI, range(500_000, 500_002), frames=2, validation=False)
    return PairSet([path]).pairs


def test_a_pair_knows_the_right_color_of_most_regions(pairs):
    assert 2 <= len(pairs) <= 4
    for pair in pairs:
        shown = pair.right[pair.pixels >= 40].any(1).float().mean()
        assert shown > 0.5  # the rest is on the other side of the character
        assert pair.color_of.max() < len(pair.palette)


def test_the_rule_is_right_more_often_than_the_most_frequent_color(pairs):
    rule = torch.cat([pair.right.gather(1, pair.rule.argmax(1, keepdim=True))[:, 0] for pair in pairs])
    first = torch.cat([pair.right[:, 0] for pair in pairs])  # the palette begins with the most frequent color
    assert rule.float().mean() > first.float().mean()


def test_what_fills_up_a_batch_changes_nothing(pairs):
    torch.manual_seed(0)
    matcher = RegionMatcher(33, 64).eval()
    with torch.no_grad():
        together = matcher(*pair_batch(pairs, None))
        for row, pair in enumerate(pairs):
            alone = matcher(*pair_batch([pair], None))[0]
            assert torch.allclose(together[row, : len(pair.frame), : len(pair.key)], alone, atol=1e-4)


def test_shaken_pairs_stay_the_same_pairs(pairs):
    frame, key, colors, frame_there, key_there, frame_views, key_views = pair_batch(pairs, np.random.default_rng(1))
    plain = pair_batch(pairs, None)
    assert torch.equal(frame_there, plain[3]) and torch.equal(key_there, plain[4])
    assert (frame - plain[0]).abs().median() < 0.2 and (key - plain[1]).abs().median() < 0.2
    assert colors.abs().max() <= 1
    assert len(frame_views) == frame_there.sum() and len(key_views) == key_there.sum()
    assert frame_views.min() >= 0 and frame_views.max() <= 1


def test_a_color_of_two_regions_has_both_their_shares():
    logits = torch.tensor([[0.0, 0.0, 0.0, float(np.log(3))]])
    scores = color_scores(logits, torch.tensor([0, 0, 1, 2]), torch.zeros(1, 3), 1.0)
    assert torch.allclose(scores.exp(), torch.tensor([[2 / 6, 1 / 6, 3 / 6]]))


def test_validation_reads_families_that_are_never_trained_on():
    from colorcli.train.drawings import FAMILIES

    assert not set(VALIDATION_FAMILIES) & set(FAMILIES)
