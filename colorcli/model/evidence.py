"""What speaks for the color of each region of a frame, as an engine tells it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evidence:
    """The colors that each region of a frame may have."""

    labels: NDArray[np.int32]      # (H, W) numbers of the regions, from 1, at the size of the drawing; 0 on lines
    shares: NDArray[np.float32]    # (R, K) how much speaks for each color; rows of sum 1, or of 0: nothing for any
    likeness: NDArray[np.float32]  # (R,) how alike it is to anything that the key shows, a logarithm; equal: about 0
    colors: NDArray[np.float32]    # (K, 3) the key's colors, sRGB-encoded, 0..1
