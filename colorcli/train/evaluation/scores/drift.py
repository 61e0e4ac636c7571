"""Whether a change of the key changes more than color: geometry drift."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colorcli.train.evaluation.scores.lines import found_lines, line_agreement

Float = NDArray[np.float32]

PER_MILLE = 1000.0   # entries of a Gram matrix are cosines, and their variances small


def gram_drift(tokens: Tensor) -> float:
    """Give the variance over pictures of their token Gram matrices, averaged over all entries, times 1000; >= 0.

    tokens: (R, N, C), the tokens of R pictures of one drawing, colored with R keys. An entry of a Gram matrix (N, N) is
    the cosine between two tokens, so what matters is which places of a picture look alike, not what they look like.
    """
    unit = F.normalize(tokens.double(), dim=-1)  # (R, N, C)
    grams = unit @ unit.mT                       # (R, N, N)
    return PER_MILLE * float(grams.var(dim=0, correction=0).mean())


def line_drift(pictures: Sequence[Float]) -> float:
    """Give 1 minus the mean F1 between the lines found in any two pictures (H, W, 3) of one drawing; 0..1."""
    lines = [found_lines(picture) for picture in pictures]
    return 1.0 - float(np.mean([line_agreement(one, two).f1 for one, two in combinations(lines, 2)]))
