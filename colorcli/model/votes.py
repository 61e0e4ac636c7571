"""Votes: what a region is colored with is decided by the same region in the drawings around, too.

On its own, a frame may take a surface's shadow for its color, and its neighbor may not: the shot flickers. Regions of
two drawings are taken for the same if they are each other's most alike: what the networks read in them, how they are
drawn, where they lie in the figure and how large they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    weight: float = 2.0           # of the vote of an equal region beside the region's own


RULE = VoteRule()


def counted(own: Match, others: Sequence[Match | None], rule: VoteRule = RULE) -> Tensor:
    """Count the votes: the share of each palette color for each region of a frame, (R, K), rows of sum 1.

    All are matched with the same key. None: a drawing without regions. What comes out depends on the drawings and
    their order only; without others it is what the frame itself holds.
    """
    shares = own.scores.softmax(1)
    for other in others:
        if other is not None:
            shares = shares + rule.weight * _same(own.regions, other.regions, rule) @ other.scores.softmax(1)
    return shares / shares.sum(1, keepdim=True)


def _same(one: RegionReadings, other: RegionReadings, rule: VoteRule) -> Tensor:
    """Tell how alike each pair of regions is that are each other's most alike, (R, S) in 0..1; 0 for all others."""
    alike = torch.exp(
        rule.features_power * (_cosine(_even(one.features), _even(other.features)) - 1)
        + rule.views_power * (_cosine(_outline(one), _outline(other)) - 1)
        - 0.5 * (torch.cdist(one.places, other.places) / rule.place_sigma) ** 2
        - 0.5 * ((one.sizes[:, None] - other.sizes[None]) / rule.size_sigma) ** 2
    )
    best = (alike == alike.amax(1, keepdim=True)) & (alike == alike.amax(0, keepdim=True))
    return torch.where(best, alike, torch.zeros_like(alike))


def _even(features: Tensor) -> Tensor:
    return F.layer_norm(features, (features.shape[1],))


def _outline(regions: RegionReadings) -> Tensor:
    flat = regions.views.float().flatten(1)
    return flat - flat.mean(1, keepdim=True)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return F.normalize(one, dim=1) @ F.normalize(other, dim=1).mT
