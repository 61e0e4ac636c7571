"""How noisy each time is, and how the steps of a run are spread over the noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch import Tensor

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
# abar of the last step under zero terminal SNR is 0, where sigma would be infinite.
SMALLEST_ALPHA = 2.0**-24


@dataclass(frozen=True)
class NoiseLevels:
    """How noisy each training step is."""

    alphas_cumprod: Tensor  # share of the signal's variance left, (steps,) float64, falling

    @property
    def sigmas(self) -> Tensor:
        """Standard deviation of the noise relative to the signal at each step, (steps,) float32, rising."""
        # float32 from here on, as the published models were run: they feel a thousandth of a time step.
        alphas = self.alphas_cumprod.float().clamp(min=SMALLEST_ALPHA)
        return ((1 - alphas) / alphas).sqrt()

    def time_of(self, sigma: Tensor | float) -> Tensor:
        """Give the time of a noise level, fractional, 0 to steps - 1: linear in log sigma between the steps."""
        known = self.sigmas.log()
        wanted = torch.as_tensor(sigma, dtype=torch.float32).log()
        high = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
        low = high - 1
        share = ((known[low] - wanted) / (known[low] - known[high])).clamp(0, 1)
        return (1 - share) * low + share * high

    def sigma_at(self, time: Tensor | float) -> Tensor:
        """Give the noise level at a time, the inverse of `time_of`."""
        known = self.sigmas.log()
        wanted = torch.as_tensor(time, dtype=torch.float32).clamp(0, len(known) - 1)
        low = wanted.floor().long().clamp(max=len(known) - 2)
        share = wanted - low
        return ((1 - share) * known[low] + share * known[low + 1]).exp()


def scaled_linear(
    beta_start: float = BETA_START,
    beta_end: float = BETA_END,
    steps: int = TRAINING_STEPS,
    *,
    zero_terminal_snr: bool = False,
) -> NoiseLevels:
    """Make the noise levels whose betas are the squares of an even ramp.

    zero_terminal_snr: the last step is pure noise (Lin et al. 2024, arXiv:2305.08891, algorithm 1).
    """
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
    if zero_terminal_snr:
        betas = rescale_zero_terminal_snr(betas)
    return NoiseLevels((1 - betas).cumprod(0))


def levels_of(schedule: Mapping[str, Any]) -> NoiseLevels:
    """Give the noise levels that a diffusers scheduler's config describes."""
    assert schedule.get("beta_schedule", "scaled_linear") == "scaled_linear", schedule["beta_schedule"]
    return scaled_linear(
        schedule.get("beta_start", BETA_START),
        schedule.get("beta_end", BETA_END),
        schedule.get("num_train_timesteps", TRAINING_STEPS),
        zero_terminal_snr=bool(schedule.get("rescale_betas_zero_snr", False)),
    )


# Steps: each gives n noise levels from `high` down to `low`, without the final 0.


def _karras(levels: NoiseLevels, n: int, rho: float = 7.0) -> Tensor:
    # Karras et al. 2022 (arXiv:2206.00364), equation 5.
    ramp = torch.linspace(0, 1, n, dtype=torch.float32)
    high, low = levels.sigmas[-1] ** (1 / rho), levels.sigmas[0] ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def _exponential(levels: NoiseLevels, n: int) -> Tensor:
    return torch.linspace(float(levels.sigmas[-1].log()), float(levels.sigmas[0].log()), n, dtype=torch.float32).exp()


def _polyexponential(levels: NoiseLevels, n: int, rho: float = 1.0) -> Tensor:
    ramp = torch.linspace(1, 0, n, dtype=torch.float32) ** rho
    high, low = levels.sigmas[-1].log(), levels.sigmas[0].log()
    return (ramp * (high - low) + low).exp()


def _uniform(levels: NoiseLevels, n: int) -> Tensor:
    return levels.sigma_at(torch.linspace(len(levels.alphas_cumprod) - 1, 0, n, dtype=torch.float32))


def _sgm_uniform(levels: NoiseLevels, n: int) -> Tensor:
    return levels.sigma_at(torch.linspace(len(levels.alphas_cumprod) - 1, 0, n + 1, dtype=torch.float32)[:-1])


STEPS: dict[str, Callable[[NoiseLevels, int], Tensor]] = {
    "karras": _karras,
    "exponential": _exponential,
    "polyexponential": _polyexponential,
    "uniform": _uniform,
    "sgm-uniform": _sgm_uniform,
}
