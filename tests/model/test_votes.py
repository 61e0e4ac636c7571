"""Votes: the same region in other drawings has a say, a stranger has none."""

import torch

from colorcli.model.match import Match, RegionReadings
from colorcli.model.matcher import GEOMETRY
from colorcli.model.votes import counted
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


def match(kinds: list[int], shares: list[list[float]], **places) -> Match:
    where = places.pop("places", [(0.1 * kind, 0.2 * kind) for kind in kinds])
    return Match(readings(kinds, where, **places), torch.tensor(shares).log())


UNSURE, SURE = [0.4, 0.5, 0.1], [0.8, 0.1, 0.1]


def test_without_others_every_region_decides_alone():
    assert counted(match([HAIR, COAT], [UNSURE, SURE]), []).argmax(1).tolist() == [SHADOW, LIT]


def test_an_unsure_region_follows_the_same_region_of_the_drawings_around():
    own = match([HAIR, COAT], [UNSURE, [0.1, 0.1, 0.8]])
    around = [match([COAT, HAIR], [[0.1, 0.1, 0.8], SURE])]
    assert counted(own, around).argmax(1).tolist() == [LIT, OTHER]


def test_a_region_that_is_nowhere_else_decides_alone():
    own = match([SHOE], [UNSURE])
    around = [match([HAIR, COAT], [SURE, SURE])] * 3
    assert counted(own, around).argmax(1).tolist() == [SHADOW]


def test_many_that_are_half_sure_overrule_one_that_is_sure():
    own = match([COAT], [[0.0, 1.0, 0.0]])
    assert counted(own, [match([COAT], [[0.6, 0.4, 0.0]])] * 8).argmax(1).tolist() == [LIT]
    assert counted(own, [match([COAT], [[0.6, 0.4, 0.0]])]).argmax(1).tolist() == [SHADOW]


def test_the_same_outline_far_away_or_much_larger_has_hardly_a_say():
    own = match([COAT], [UNSURE], places=[(0.0, 0.0)])
    near, far = (match([COAT], [SURE], places=[(x, 0.0)]) for x in (0.05, 0.9))
    large = match([COAT], [SURE], places=[(0.0, 0.0)], sizes=[4.0])
    assert [counted(own, [other]).argmax(1).item() for other in (near, far, large)] == [LIT, SHADOW, SHADOW]


def test_a_region_is_heard_by_the_one_it_is_most_alike_only():
    own = match([COAT, COAT], [UNSURE, UNSURE], places=[(0.0, 0.0), (0.1, 0.0)])
    around = [match([COAT], [SURE], places=[(0.11, 0.0)])]
    assert counted(own, around).argmax(1).tolist() == [SHADOW, LIT]


def test_a_drawing_without_regions_has_no_say():
    own = match([HAIR], [UNSURE])
    assert counted(own, [None, None]).argmax(1).tolist() == [SHADOW]
