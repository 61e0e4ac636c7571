"""How far one set of pictures is from another: FID and KID of their features, by torchmetrics."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colorcli.train.evaluation.scores.pixels import no_torchmetrics

MOST_IN_A_SUBSET = 1000   # pictures; larger sets are compared by subsets, as the paper does
SUBSETS = 100
LEAST_PICTURES = 2


@dataclass(frozen=True)
class SetDistance:
    """Two sets of pictures compared by the features of one network."""

    fid: float       # >= 0
    kid: float       # unbiased, may be a little below 0
    pictures: int    # of the smaller set


def set_distance(real: Tensor, made: Tensor) -> SetDistance | None:
    """Compare features (N, D) of true pictures with features (M, D) of made ones; None if a set has less than two.

    FID: Heusel et al. 2017 (arXiv:1706.08500), equation 6. KID: Binkowski et al. 2018 (arXiv:1801.01401), of all
    pictures at once up to 1000, else the mean over 100 subsets of 1000 drawn with a fixed seed.
    """
    count = min(len(real), len(made))
    if count < LEAST_PICTURES:
        return None
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise no_torchmetrics() from error
    size = min(count, MOST_IN_A_SUBSET)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")   # that all features are kept is what is wanted
        fid = FrechetInceptionDistance(feature=_Given(real.shape[1]))
        kid = KernelInceptionDistance(
            feature=_Given(real.shape[1]), subsets=1 if size == count else SUBSETS, subset_size=size
        )
        torch.manual_seed(0)
        for metric in (fid, kid):
            metric.update(real.double(), real=True)
            metric.update(made.double(), real=False)
        return SetDistance(float(fid.compute()), float(kid.compute()[0]), count)


class _Given(nn.Module):
    """Stands where torchmetrics asks for a network: it is given the features themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features
