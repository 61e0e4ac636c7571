"""How the published programs load 8-bit pictures, held by golden numbers; what colorcli does instead is held to it."""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colorcli.model.preprocess import letterbox_box, normalize, resize_8bit
from colorcli.prepare.canvas import Box
from colorcli.prepare.lineart import standard_line_art


def letterbox_sketch(
    picture: NDArray[np.uint8], size: tuple[int, int], *, mode: str, system: str
) -> tuple[Tensor, Box]:
    """Give a sketch as the published "xl" and "v2" systems see it, and its box on the canvas.

    picture: (H, W, 3). size: (height, width). mode: "none" (light lines on dark already), "invert", or
    "invert-webui" (the standard line art). Returns (1, 3, h, w), lines high. Around the sketch is -1, but for "xl" in
    the first two modes it is white paper, before any inversion.
    """
    box = letterbox_box(picture.shape[:2], size)
    left, top, width, height = box
    if system == "xl" and mode != "invert-webui":
        paper = np.full((*size, 3), 255, np.uint8)
        paper[top : top + height, left : left + width] = resize_8bit(picture, (height, width))
        sketch = normalize(paper)[None]
        return (-sketch if mode == "invert" else sketch), box
    if mode == "invert-webui":
        lines = standard_line_art(picture)
        sketch = normalize(np.repeat(lines[:, :, None], 3, axis=2))[None]
    else:
        sketch = normalize(picture)[None]
        sketch = -sketch if mode == "invert" else sketch
    sketch = F.interpolate(sketch, (height, width), mode="bicubic", antialias=True, align_corners=False)
    right, bottom = size[1] - width - left, size[0] - height - top
    return F.pad(sketch, (left, right, top, bottom), value=-1.0), box


def white_margin(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Widen a picture (H, W, 3) to `factor` times its width with white, centered."""
    height, width = picture.shape[:2]
    result = np.full((height, int(width * factor), 3), 255, np.uint8)
    left = (result.shape[1] - width) // 2
    result[:, left : left + width] = picture
    return result
