"""Votes: the same region in other drawings has a say, a stranger has none."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from torch import Tensor

from colorcli.model.match import Match, RegionReadings
from colorcli.model.matcher import GEOMETRY
from colorcli.model.votes import RULE, VoteRule, counted, link
from colorcli.prepare.region_views import VIEWS

HAIR, COAT, SHOE = 0, 1, 2  # regions that look like nothing else
LIT, SHADOW, OTHER = 0, 1, 2  # colors of the palette


def readings(kinds: list[int], places: list[tuple[float, float]], sizes: list[float] | None = None) -> RegionReadings:
    """Regions of some kinds: each kind has features and an outline of its own."""
    count = len(kinds)
    features = torch.eye(8)[kinds] * 5 + 0.1
    views = torch.zeros(count, VIEWS, 8, 8, dtype=torch.uint8)
    for number, kind in enumerate(kinds):
        views[number, :, 2 * kind : 2 * kind + 2] = 255
    return RegionReadings(
        parts=torch.full((count, 3), 1 / 3),
        places=torch.tensor(places),
        sizes=torch.tensor(sizes or [0.0] * count),
        features=features,
        geometry=torch.zeros(count, GEOMETRY),
        cells=torch.zeros(count, 4),
        views=views,
    )


def match(kinds: list[int], shares: list[list[float]], sampled: list[list[int]] | None = None, **places) -> Match:
    where = places.pop("places", [(0.1 * kind, 0.2 * kind) for kind in kinds])
    lies = torch.tensor(sampled or [[0, 0]], dtype=torch.int32)
    return Match(readings(kinds, where, **places), torch.tensor(shares).log(), torch.zeros(len(kinds)), lies)


def votes(drawings: list[Match | None], own: int = 0, rule: VoteRule = RULE) -> Tensor:
    """Shares of one of some drawings in order, each linked with the next."""
    links = {
        (place, place + 1): link(one, other, rule)
        for place, (one, other) in enumerate(pairwise(drawings))
        if one is not None and other is not None
    }
    return counted(drawings, own, links, rule)


def winners(own: Match, others: list[Match | None]) -> list[int]:
    """The color that each region of a drawing gets, if all drawings are linked with each other."""
    drawings = [own, *others]
    links = {
        (one, other): link(drawings[one], drawings[other])
        for one, other in combinations(range(len(drawings)), 2)
        if drawings[one] is not None and drawings[other] is not None
    }
    return counted(drawings, 0, links).argmax(1).tolist()


UNSURE, SURE = [0.4, 0.5, 0.1], [0.8, 0.1, 0.1]
ONE_ROUND = VoteRule(weight=2.0, rounds=1)


def test_without_others_every_region_decides_alone():
    assert winners(match([HAIR, COAT], [UNSURE, SURE]), []) == [SHADOW, LIT]


def test_an_unsure_region_follows_the_same_region_of_the_drawings_around():
    own = match([HAIR, COAT], [UNSURE, [0.1, 0.1, 0.8]])
    assert winners(own, [match([COAT, HAIR], [[0.1, 0.1, 0.8], SURE])]) == [LIT, OTHER]


def test_a_region_that_is_nowhere_else_decides_alone():
    own = match([SHOE], [UNSURE])
    assert winners(own, [match([HAIR, COAT], [SURE, SURE])] * 3) == [SHADOW]


def test_many_that_are_half_sure_overrule_one_that_is_sure():
    own = match([COAT], [[0.0, 1.0, 0.0]])
    half = match([COAT], [[0.6, 0.4, 0.0]])
    assert winners(own, [half] * 8) == [LIT]
    assert winners(own, [half]) == [SHADOW]


def test_the_same_outline_far_away_or_much_larger_has_hardly_a_say():
    own = match([COAT], [UNSURE], places=[(0.0, 0.0)])
    near, far = (match([COAT], [SURE], places=[(x, 0.0)]) for x in (0.05, 0.9))
    large = match([COAT], [SURE], places=[(0.0, 0.0)], sizes=[4.0])
    assert [winners(own, [other]) for other in (near, far, large)] == [[LIT], [SHADOW], [SHADOW]]


def test_a_region_is_heard_by_the_one_it_is_most_alike_only():
    own = match([COAT, COAT], [UNSURE, UNSURE], places=[(0.0, 0.0), (0.1, 0.0)])
    assert winners(own, [match([COAT], [SURE], places=[(0.11, 0.0)])]) == [SHADOW, LIT]


def test_a_drawing_without_regions_has_no_say():
    own = match([HAIR], [UNSURE])
    assert winners(own, [None, None]) == [SHADOW]


def test_two_equal_regions_meet_at_the_mean_of_their_shares_weighed_by_the_link():
    one, other = match([COAT], [[0.8, 0.2, 0.0]]), match([COAT], [[0.2, 0.8, 0.0]])
    shares = votes([one, other], rule=ONE_ROUND)   # (own + 2 * other) / 3
    assert torch.allclose(shares, torch.tensor([[0.4, 0.6, 0.0]]), atol=1e-5)


def test_a_larger_region_has_more_of_a_say():
    one = match([COAT], [[0.8, 0.2, 0.0]], sizes=[-0.2])
    other = match([COAT], [[0.2, 0.8, 0.0]], sizes=[-0.1])
    weight = 2 * math.exp(-0.5 * (0.1 / RULE.size_sigma) ** 2) * math.exp(0.1)
    expected = (0.8 + weight * 0.2) / (1 + weight)
    assert votes([one, other], rule=ONE_ROUND)[0, 0].item() == pytest.approx(expected, abs=1e-5)


def test_each_drawing_is_decided_with_its_own_regions():
    drawings = [None, match([HAIR, COAT], [SURE, [0.1, 0.1, 0.8]]), match([SHOE], [UNSURE])]
    assert [votes(drawings, own).argmax(1).tolist() for own in (1, 2)] == [[LIT, OTHER], [SHADOW]]


def test_a_vote_goes_from_drawing_to_drawing():
    unsure, sure = match([COAT], [[0.45, 0.55, 0.0]]), match([COAT], [[1.0, 0.0, 0.0]])
    chain = [unsure, unsure, unsure, sure]
    assert votes(chain, rule=VoteRule(rounds=2)).argmax(1).tolist() == [SHADOW], "it has not come that far"
    assert votes(chain, rule=VoteRule(rounds=3))[0, LIT] > 0.45
    assert votes([unsure, None, unsure, sure]).argmax(1).tolist() == [SHADOW], "nothing to go along"


def test_what_is_held_in_its_place_keeps_its_color_whatever_it_is_taken_for():
    tie, neck = [[1, 1, 1, 1], [0, 0, 2, 2]], [[1, 1, 1, 0], [2, 2, 2, 2]]
    one = match([COAT, HAIR], [UNSURE, UNSURE], tie)
    other = match([SHOE, SHOE], [SURE, SURE], neck, places=[(5.0, 5.0), (9.0, 9.0)])
    found = link(one, other)
    # The first covers 3 of 4 places in both; the second 2 of 4, which is no more than half.
    assert (found.one.tolist(), found.other.tolist(), found.weights.tolist()) == ([0], [0], [0.75])
    assert winners(one, [other]) == [LIT, SHADOW]


def test_drawings_of_two_sizes_are_not_laid_over_each_other():
    one, other = match([COAT], [UNSURE], [[1, 1]]), match([SHOE], [SURE], [[1, 1], [1, 1]], places=[(5.0, 5.0)])
    assert len(link(one, other).one) == 0
    assert winners(one, [other]) == [SHADOW]


def test_links_are_the_same_from_both_sides():
    one = match([HAIR, COAT, SHOE], [UNSURE] * 3, [[1, 1, 2], [3, 3, 2]])
    other = match([SHOE, HAIR], [SURE] * 2, [[2, 2, 0], [1, 1, 0]])
    there, back = link(one, other), link(other, one)
    assert sorted(zip(there.one.tolist(), there.other.tolist(), there.weights.tolist(), strict=True)) == sorted(
        zip(back.other.tolist(), back.one.tolist(), back.weights.tolist(), strict=True)
    )
    assert len(there.one) == 2
