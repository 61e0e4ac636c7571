"""Reference-only attention: the network reads what it saw when it was shown the noised key."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from colorcli.model.conditions import Rows
from colorcli.model.unet import self_attention_inputs
from colorcli.sampling.levels import TRAINING_STEPS, NoiseLevels


@dataclass(frozen=True)
class ReferenceOnly:
    """Reference-only attention: at each call the network first sees the noised key, and then reads what it saw there.

    It does without the ReferenceNet's bank, and doubles the time.
    """

    latents: Tensor  # (1, C, h, w), the key stretched to the canvas
    noise: Tensor  # (1, C, h, w) of unit variance, the same for all rows and calls
    sketch_maps: Sequence[Tensor]  # of the negated key, scaled; finest first
    fidelity: float = 0.5  # 0..1, see `Injection`
    start: float = 0.0  # progress from which it is active, 0..1

    def is_read(self, time: float, training_steps: int = TRAINING_STEPS) -> bool:
        """Tell whether the key is read at a time, which runs from training_steps - 1 down to 0."""
        return 1 - time / (training_steps - 1) >= self.start


def seen_of_key(
    unet: Any, rows: Rows, count: int, time: float, levels: NoiseLevels, reference_only: ReferenceOnly
) -> list[Tensor]:
    """Give what every transformer block's self-attention reads, (count, N, C) each, when the network sees the key.

    The key is as noisy as the frame is at `time`, and read with the frame's own context. count: rows of the batch.
    """
    signal = float(levels.alphas_cumprod[round(time)])
    noised = signal**0.5 * reference_only.latents + (1 - signal) ** 0.5 * reference_only.noise
    maps = [x.expand(count, -1, -1, -1) for x in reference_only.sketch_maps]
    plan = replace(rows.plan, bank=(), alike=None)   # every row's inputs are wanted
    return self_attention_inputs(unet, noised.expand(count, -1, -1, -1), time, rows.y, rows.context, maps, plan)
