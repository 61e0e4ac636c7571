"""What a network that the user brings does for a drawing, as the preparation sees it."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import PresetError

Float = NDArray[np.float32]


class Networks(Protocol):
    """The networks of a run. Each call is asked only where the preset names a file for it; any thread may call.

    Each raises FrameError if the network cannot take this picture, WeightsError if its file is no network that fits.
    """

    def frame_mask(self, line_art: Float) -> Float:
        """Find the character in line art (H, W), 0 black line .. 1 white paper; the mask (H, W) in 0..1."""

    def key_mask(self, color: Float) -> Float:
        """Find the character in a color picture (H, W, 3) in 0..1; the mask (H, W) in 0..1."""

    def lines(self, color: Float) -> Float:
        """Find the lines of a color picture (H, W, 3) in 0..1; ink (H, W), 0 paper .. 1 line."""


def asked_of(networks: Networks | None, key: str) -> Networks:
    """Give the networks that a preset's `key` asks for. Raises PresetError if there are none."""
    if networks is None:
        raise PresetError(
            f"{key} names a network, but none was opened", hint="colorcli.model.onnx_networks.open_networks(preset)"
        )
    return networks
