"""Numbers as vectors: the sinusoidal embedding, and the vector condition `y` made of several of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

AESTHETIC_SCORE = 7.0  # what the published models are asked for
SCALAR_DIM = 256       # numbers for each scalar of y


def embed_scalar(scalar: Tensor, dim: int) -> Tensor:
    """Embed each number of `scalar` (any shape, may be fractional) in `dim` numbers: (..., dim) float32.

    Frequencies fall from 1 to almost 1/10000; all cosines come first, then all sines, then a zero if dim is odd.
    """
    half = dim // 2
    frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=scalar.device) / half)
    angle = scalar.float()[..., None] * frequency  # (..., half)
    embedded = torch.cat([angle.cos(), angle.sin()], dim=-1)  # (..., 2 * half)
    return torch.nn.functional.pad(embedded, (0, dim - 2 * half))


def pack_scalars(scalars: Sequence[Tensor], dim: int = SCALAR_DIM) -> Tensor:
    """Embed several scalars, (B,) each, side by side: (B, len(scalars) * dim)."""
    return torch.cat([embed_scalar(scalar, dim) for scalar in scalars], dim=-1)


def canvas_vector(
    height: Tensor, width: Tensor, score: Tensor | float = AESTHETIC_SCORE, dim: int = SCALAR_DIM
) -> Tensor:
    """Give y of the denoising network, (B, 2 * dim): mean side of the canvas in pixels, and the aesthetic score.

    height, width: (B,) pixels.
    """
    side = (height.float() * width.float()).sqrt()
    return pack_scalars([side, torch.as_tensor(score, device=side.device).float().expand_as(side)], dim)


def crop_vector(top: Tensor, left: Tensor, height: Tensor, width: Tensor, dim: int = SCALAR_DIM) -> Tensor:
    """Give y of the ReferenceNet, (B, 4 * dim): which part of the picture is seen, as fractions of it, (B,) each."""
    return pack_scalars([top, left, height, width], dim)


def size_vector(picture: tuple[int, int], canvas: tuple[int, int], dim: int = SCALAR_DIM) -> Tensor:
    """Give y of the side encoders, (1, 2 * dim): the size of a picture as multiples of the canvas's.

    picture, canvas: (height, width) in pixels. A picture with a side shorter than the canvas's counts as larger than it
    is, by the longer side of the canvas; its aspect stays.
    """
    height, width = canvas
    rows, columns = float(picture[0]), float(picture[1])
    if rows < height or columns < width:
        grown = rows + max(height, width)
        rows, columns = grown, columns / rows * grown
    return pack_scalars([torch.tensor([rows / height]), torch.tensor([columns / width])], dim)
