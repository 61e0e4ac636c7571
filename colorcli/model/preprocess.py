"""Pictures as the networks want them: sizes, value ranges and order of channels. Tensors are (B, C, H, W) in -1..1."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colorcli.prepare.background import aspect_crop_fractions
from colorcli.prepare.canvas import Box

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


# --- inside the conditions ---------------------------------------------------------------------------------------


def clip_pixels(image: Tensor, size: int = 224) -> Tensor:
    """Squash pictures (B, 3, H, W) to CLIP's square, its mean and deviation taken out: (B, 3, size, size)."""
    unit = (_encoder_square(image, size) + 1) / 2
    mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (unit - mean) / std


def tagger_pixels(image: Tensor, size: int = 448) -> Tensor:
    """Squash pictures (B, 3, H, W) to the tagger's square, as BGR in about -1..1: (B, 3, size, size)."""
    return _encoder_square(image, size).flip(1)


def stretch(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to (height, width) bicubically; aspect ignored, no antialiasing, values may overshoot."""
    return F.interpolate(image, size, mode="bicubic", align_corners=False)


def scale(image: Tensor, factor: float) -> Tensor:
    """Resize by a factor bicubically, sizes rounded down; no antialiasing, values may overshoot."""
    return F.interpolate(image, scale_factor=factor, mode="bicubic", align_corners=False)


def scale_nearest(image: Tensor, factor: float) -> Tensor:
    """Resize by a factor, each pixel taken from floor(i / factor)."""
    return F.interpolate(image, scale_factor=factor, mode="nearest")


def crop_to_aspect(background: Tensor, size: tuple[int, int]) -> Tensor:
    """Take the top left part of a background that has the aspect of `size` = (height, width), resized to it."""
    rows, columns = background.shape[-2:]
    down, across = aspect_crop_fractions(size, (rows, columns))
    part = background[..., : int(down * rows), : int(across * columns)]
    return F.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)


def latent_mask(mask: Tensor) -> Tensor:
    """Take every eighth pixel of a canvas mask (B, 1, H, W): (B, 1, H/8, W/8)."""
    return scale_nearest(mask, 1 / 8)


def _encoder_square(image: Tensor, size: int) -> Tensor:
    """Squash to a square; aligned corners together with anti-aliasing are what the projection was trained with."""
    return F.interpolate(image, (size, size), mode="bicubic", antialias=True, align_corners=True)


# --- from pictures in 0..1 --------------------------------------------------------------------------------------


def picture_tensor(color: NDArray[np.float32]) -> Tensor:
    """Turn (h, w, 3) in 0..1 into (1, 3, h, w) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(color)).permute(2, 0, 1)[None] * 2 - 1


def mask_tensor(mask: NDArray[np.float32]) -> Tensor:
    """Turn (h, w) into (1, 1, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def sketch_tensor(ink: NDArray[np.float32]) -> Tensor:
    """Turn ink (h, w), 1 on lines, into the model's sketch (1, 3, h, w): paper -1, line +1."""
    return (torch.from_numpy(np.ascontiguousarray(ink)) * 2 - 1).expand(1, 3, -1, -1)


# --- 8-bit pictures, as the published systems load them ----------------------------------------------------------


def letterbox_box(source: tuple[int, int], size: tuple[int, int]) -> Box:
    """Give where a picture of `source` = (height, width) lies, centered, on a canvas of `size` = (height, width)."""
    ratio = min(size[0] / source[0], size[1] / source[1])
    height, width = int(source[0] * ratio), int(source[1] * ratio)
    return (size[1] - width) // 2, (size[0] - height) // 2, width, height


def long_edge(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a picture (H, W, 3) so that its longer side is `size`."""
    _, _, width, height = letterbox_box(picture.shape[:2], (size, size))
    return resize_8bit(picture, (height, width))


def white_square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a picture (H, W, 3) so that its longer side is `size`, centered on a white square."""
    left, top, width, height = letterbox_box(picture.shape[:2], (size, size))
    result = np.full((size, size, 3), 255, np.uint8)
    result[top : top + height, left : left + width] = resize_8bit(picture, (height, width))
    return result


def resize_8bit(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize 8-bit pixels (H, W, 3) to (height, width), bicubic with antialiasing, rounded as Pillow does."""
    from PIL import Image

    image: Image.Image = Image.fromarray(picture)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def normalize(picture: NDArray[np.uint8]) -> Tensor:
    """8-bit (H, W, C) to (C, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 127.5 - 1


def to_8bit(image: Tensor) -> NDArray[np.uint8]:
    """(B, C, H, W) in -1..1 to 8-bit (B, H, W, C); fractions are cut off, as published."""
    return ((image.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).to(torch.uint8).numpy()
