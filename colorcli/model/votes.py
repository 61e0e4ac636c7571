"""Votes: what a region is colored with is decided together with the same region in the drawings around.

On its own, a frame may take a surface's shadow for its color, and its neighbor may not: the shot flickers. Regions of
two drawings are linked if they are each other's most alike: what the networks read in them, how they are drawn, where
they lie in the figure and how large they are; and, whatever they are taken for, if they lie over each other for the
most part, as what is held does. What a region says goes from link to link, so that a region is followed through all
drawings that are heard, and its color is decided once for them. One that appears or vanishes has links where it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from colorcli.model.match import Match, RegionReadings


@dataclass(frozen=True)
class VoteRule:
    """How much each likeness counts. The values were chosen on generated characters of styles never trained on."""

    features_power: float = 8.0   # exponent of the likeness of the networks' features
    views_power: float = 2.0      # of the likeness of how two regions are drawn
    place_sigma: float = 0.15     # how far a region may wander in the figure, in heights of the figure
    size_sigma: float = 0.7       # standard deviation of the logarithm of the ratio of two areas
    held_above: float = 0.6       # share of both together that two regions have in common to be one that is held
    weight: float = 8.0           # of the vote of an equal region beside the region's own
    rounds: int = 10              # how many links a vote goes along


RULE = VoteRule()


@dataclass(frozen=True)
class Links:
    """Which regions of two drawings are the same."""

    one: Tensor      # (L,) numbers of regions of the one drawing, from 0
    other: Tensor    # (L,) those of the other
    weights: Tensor  # (L,) how surely they are the same, over 0


def link(one: Match, other: Match, rule: VoteRule = RULE) -> Links:
    """Find the regions of two drawings that are the same. Swapped, it gives the same links swapped."""
    weights = _mutual(_likeness(one.regions, other.regions, rule))
    if one.sampled.shape == other.sampled.shape:   # of two sizes, they do not lie over each other
        shared = _mutual(_shared(one, other))
        weights = weights + torch.where(shared >= rule.held_above, shared, torch.zeros(()))
    found = weights.nonzero()
    return Links(found[:, 0], found[:, 1], weights[found[:, 0], found[:, 1]])


def counted(
    ballots: Sequence[Match | None], own: int, links: Mapping[tuple[int, int], Links], rule: VoteRule = RULE
) -> Tensor:
    """Count the votes: the share of each palette color for each region of a frame, (R, K), rows of sum 1.

    ballots: of the drawings that are heard, in order, all matched with the same key; None: one without regions. own:
    the place of the frame among them. links: between the drawings at two places. Without links it is what the frame
    itself holds. What comes out depends on the drawings and their order only.

    Each round, a region's shares become the mean of its own first ones and of those that its links have now, each
    weighed by the area it speaks for and by the link: label propagation, Zhu and Ghahramani 2002.
    """
    first = [None if ballot is None else ballot.scores.softmax(1) for ballot in ballots]
    shares = first[own]
    assert shares is not None, "a frame without regions has nothing to decide"
    if not links:
        return shares
    starts = list(accumulate((0 if each is None else len(each) for each in first), initial=0))
    ones = torch.cat([found.one + starts[i] for (i, _), found in links.items()])
    others = torch.cat([found.other + starts[j] for (_, j), found in links.items()])
    hears, says = torch.cat([ones, others]), torch.cat([others, ones])
    now = torch.cat([each for each in first if each is not None])  # (regions of all drawings, K)
    areas = torch.cat([ballot.regions.sizes.exp() for ballot in ballots if ballot is not None])
    weights = rule.weight * torch.cat([found.weights for found in links.values()]).repeat(2) * areas[says]
    total = areas.index_add(0, hears, weights)[:, None]
    begun = areas[:, None] * now
    for _ in range(rule.rounds):
        now = begun.index_add(0, hears, weights[:, None] * now[says]) / total
    return now[starts[own] : starts[own + 1]]


def _likeness(one: RegionReadings, other: RegionReadings, rule: VoteRule) -> Tensor:
    """Tell how alike each pair of regions is, (R, S) in 0..1."""
    return torch.exp(
        rule.features_power * (_cosine(_even(one.features), _even(other.features)) - 1)
        + rule.views_power * (_cosine(_outline(one), _outline(other)) - 1)
        - 0.5 * (torch.cdist(one.places, other.places) / rule.place_sigma) ** 2
        - 0.5 * ((one.sizes[:, None] - other.sizes[None]) / rule.size_sigma) ** 2
    )


def _shared(one: Match, other: Match) -> Tensor:
    """Give the share of the area of each pair of regions together that both cover, (R, S) in 0..1."""
    rows, columns = len(one.regions.places), len(other.regions.places)
    pairs = one.sampled.long() * (columns + 1) + other.sampled.long()
    both = torch.bincount(pairs.reshape(-1), minlength=(rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    either = both.sum(1, keepdim=True) + both.sum(0, keepdim=True) - both
    return both[1:, 1:] / either[1:, 1:].clamp_min(1)


def _mutual(alike: Tensor) -> Tensor:
    """Keep of (R, S) what is the largest of its row and of its column; 0 for all others."""
    best = (alike == alike.amax(1, keepdim=True)) & (alike == alike.amax(0, keepdim=True))
    return torch.where(best, alike, torch.zeros_like(alike))


def _even(features: Tensor) -> Tensor:
    return F.layer_norm(features, (features.shape[1],))


def _outline(regions: RegionReadings) -> Tensor:
    flat = regions.views.float().flatten(1)
    return flat - flat.mean(1, keepdim=True)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return F.normalize(one, dim=1) @ F.normalize(other, dim=1).mT
