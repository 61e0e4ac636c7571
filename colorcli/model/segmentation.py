"""What surrounds a segmentation network: sizes, value ranges, dilation.

Pictures are (B, 3, H, W) in -1..1, masks (B, 1, H, W) in 0..1.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DILATION = 21  # side of the square over which a mask is grown


def sketch_mask(network: Callable[[Tensor], Tensor], sketch: Tensor, size: int, target: tuple[int, int]) -> Tensor:
    """Find the character in a white sketch with a network that answers with its sigmoid; soft, at target (H, W).

    The picture is squashed to the network's square of `size` pixels.
    """
    found = network(_bicubic(sketch, (size, size)))
    return _bicubic(found, target).clamp(0, 1)


def letterboxed_sketch_mask(
    network: Callable[[Tensor], Tensor], sketch: Tensor, size: int, *, dilate: bool = False
) -> Tensor:
    """As `sketch_mask`, but with the aspect kept, the values turned to 0..1 lines high, and at the sketch's size."""
    height, width = sketch.shape[-2:]
    ratio = size / max(height, width)
    inner = int(height * ratio), int(width * ratio)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    edges = (left, size - inner[1] - left, top, size - inner[0] - top)
    canvas = F.pad(_bicubic(sketch, inner), edges, value=-1.0)
    found = network(1 - (canvas + 1) / 2)
    mask = _bicubic(found[..., top : top + inner[0], left : left + inner[1]], (height, width)).clamp(0, 1)
    return _dilated(mask) if dilate else mask


def reference_mask(
    network: Callable[[Tensor], Sequence[Tensor]], reference: Tensor, size: int, *, dilate: bool = True
) -> Tensor:
    """Find the character in a colored picture with a network whose last output is the logit map; 0 or 1."""
    unit = _bilinear((reference + 1) / 2, (size, size))
    mean, std = (reference.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    mask = _bilinear(network((unit - mean) / std)[-1].sigmoid(), reference.shape[-2:])
    return ((_dilated(mask) if dilate else mask) > 0.5).to(torch.float32)


def _bicubic(image: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(image, list(size), mode="bicubic", align_corners=False)


def _bilinear(image: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(image, list(size), mode="bilinear", antialias=True, align_corners=False)


def _dilated(mask: Tensor) -> Tensor:
    return F.max_pool2d(mask, DILATION, stride=1, padding=DILATION // 2)
