"""How near a picture comes to its truth, pixel by pixel: PSNR and MS-SSIM, by torchmetrics."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorcli.errors import MissingExtraError

Float = NDArray[np.float32]

MOST_PSNR = 100.0      # dB, of two pictures that are the same: JSON knows no infinity
SMALLEST_SIDE = 176    # the five scales of MS-SSIM halve a picture four times, and a window is 11 pixels wide


def psnr(picture: Float, truth: Float) -> float:
    """Peak signal-to-noise ratio of two pictures (H, W, 3) in 0..1, in dB, over 8-bit values; 100 if they are one."""
    functional = torchmetrics_functional()
    value = functional.peak_signal_noise_ratio(_eight_bit(picture), _eight_bit(truth), data_range=255.0)
    return min(float(value), MOST_PSNR)


def ms_ssim(picture: Float, truth: Float) -> float | None:
    """Multi-scale structural similarity of two pictures (H, W, 3) in 0..1, -1..1; None if they are too small for it.

    Wang, Simoncelli and Bovik 2003, with the five weights given there.
    """
    if min(picture.shape[:2]) < SMALLEST_SIDE:
        return None
    functional = torchmetrics_functional()
    value = functional.multiscale_structural_similarity_index_measure(
        _eight_bit(picture), _eight_bit(truth), data_range=255.0, normalize="relu"
    )
    return float(value)


def torchmetrics_functional() -> Any:
    """The measures of pictures in torchmetrics. Raises MissingExtraError without it."""
    try:
        import torchmetrics.functional.image as functional
    except ImportError as error:
        raise no_torchmetrics() from error
    return functional


def no_torchmetrics() -> MissingExtraError:
    """What to say where torchmetrics is missing."""
    return MissingExtraError(
        "fid, psnr and ms-ssim need the package torchmetrics, which is not installed",
        hint="pip install 'colorcli[train]'",
    )


def _eight_bit(picture: Float) -> Tensor:
    """Round (H, W, 3) in 0..1 to levels: (1, 3, H, W) in 0..255, as a file would hold it."""
    # In float32 MS-SSIM is right to 0.0003; double precision would take nine times as long.
    levels = np.rint(np.clip(picture, 0, 1) * np.float32(255))
    return torch.from_numpy(levels).permute(2, 0, 1)[None].contiguous()
