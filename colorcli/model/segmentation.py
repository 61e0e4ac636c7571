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

Size = int | tuple[int, int]  # of what a network sees: the side of a square, or height and width, pixels


def sketch_mask(network: Callable[[Tensor], Tensor], sketch: Tensor, size: Size, target: tuple[int, int]) -> Tensor:
    """Find the character in a white sketch with a network that answers with its sigmoid; soft, at target (H, W).

    The picture is squashed to the network's size.
    """
    found = network(_bicubic(sketch, _rectangle(size)))
    return _bicubic(found, target).clamp(0, 1)


def letterboxed_sketch_mask(
    network: Callable[[Tensor], Tensor], sketch: Tensor, size: Size, *, dilate: bool = False, inverted: bool = True
) -> Tensor:
    """As `sketch_mask`, but with the aspect kept, the values turned to 0..1 lines high, and at the sketch's size.

    inverted: as the published program does with every picture; False: values in 0..1 as they are, around them black.
    """
    rows, columns = _rectangle(size)
    height, width = sketch.shape[-2:]
    ratio = min(rows / height, columns / width)
    inner = max(int(height * ratio), 1), max(int(width * ratio), 1)
    top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
    edges = (left, columns - inner[1] - left, top, rows - inner[0] - top)
    canvas = (F.pad(_bicubic(sketch, inner), edges, value=-1.0) + 1) / 2
    found = network(1 - canvas if inverted else canvas)
    mask = _bicubic(found[..., top : top + inner[0], left : left + inner[1]], (height, width)).clamp(0, 1)
    return _dilated(mask) if dilate else mask


def reference_mask(
    network: Callable[[Tensor], Sequence[Tensor]], reference: Tensor, size: Size, *, dilate: bool = True
) -> Tensor:
    """Find the character in a colored picture with a network whose last output is the logit map; 0 or 1."""
    mask = soft_reference_mask(lambda picture: network(picture)[-1].sigmoid(), reference, size)
    return ((_dilated(mask) if dilate else mask) > 0.5).to(torch.float32)


def soft_reference_mask(network: Callable[[Tensor], Tensor], reference: Tensor, size: Size) -> Tensor:
    """Find the character in a colored picture with a network that answers with its sigmoid; soft.

    The picture is squashed to the network's size and given the mean and deviation of ImageNet.
    """
    unit = _bilinear((reference + 1) / 2, _rectangle(size))
    mean, std = (reference.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return _bilinear(network((unit - mean) / std), reference.shape[-2:])


def _rectangle(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _bicubic(image: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(image, list(size), mode="bicubic", align_corners=False)


def _bilinear(image: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(image, list(size), mode="bilinear", antialias=True, align_corners=False)


def _dilated(mask: Tensor) -> Tensor:
    return F.max_pool2d(mask, DILATION, stride=1, padding=DILATION // 2)
