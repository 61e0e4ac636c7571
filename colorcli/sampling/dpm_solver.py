"""DPM-Solver, which chooses its own steps between two noise levels (Lu et al. 2022, arXiv:2206.00927).

With latents x = x0 + sigma * noise the paper's alpha is 1, and its epsilon the slope dx / dsigma. A run ends at the
lowest noise level of the schedule, and not at 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from colorcli.sampling.sigma_samplers import Between, Denoiser, NoiseSource, ancestral, slope_of, untouched

NARROWEST = 1 / 200  # share of the way in ln sigma that a step of an adaptive run has at least


def first_order(denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float, slope: Tensor) -> Tensor:
    """Step by the slope at the beginning: DPM-Solver-1."""
    return x + slope * (sigma_next - sigma)


def second_order(
    denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float, slope: Tensor, at: float = 0.5
) -> Tensor:
    """Step by the slopes at the beginning and at the share `at` of the way in ln sigma: DPM-Solver-2 (algorithm 1)."""
    (_, middle_slope), h = _look(denoise, x, sigma, sigma_next, slope, at)
    return x + slope * (sigma_next - sigma) - sigma_next * math.expm1(h) / (2 * at) * (middle_slope - slope)


def third_order(denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float, slope: Tensor) -> Tensor:
    """Step by the slopes at the beginning, a third and two thirds of the way: DPM-Solver-3 (algorithm 2)."""
    return _second_and_third(denoise, x, sigma, sigma_next, slope)[1]


def _look(
    denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float, slope: Tensor, at: float
) -> tuple[tuple[float, Tensor], float]:
    """((sigma, slope) at the share `at` of the way, reached by a first-order step; h of the whole step)."""
    h = math.log(sigma / sigma_next)
    middle = sigma * math.exp(-at * h)
    guess = first_order(denoise, x, sigma, middle, slope)
    return (middle, slope_of(guess, denoise(guess, middle), middle)), h


def _second_and_third(
    denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the steps of DPM-Solver-2 (at a third of the way) and DPM-Solver-3, which share an evaluation."""
    near, far = 1 / 3, 2 / 3
    (_, near_slope), h = _look(denoise, x, sigma, sigma_next, slope, near)
    first = x + slope * (sigma_next - sigma)
    second = first - sigma_next * math.expm1(h) / (2 * near) * (near_slope - slope)
    middle = sigma * math.exp(-far * h)
    bend = math.expm1(far * h) / (far * h) - 1
    guess = x + slope * (middle - sigma) - middle * (far / near) * bend * (near_slope - slope)
    far_slope = slope_of(guess, denoise(guess, middle), middle)
    third = first - sigma_next / far * (math.expm1(h) / h - 1) * (far_slope - slope)
    return second, third


ORDERS = {1: first_order, 2: second_order, 3: third_order}


def fast_orders(count: int) -> list[int]:
    """Give the orders of the steps that make `count` evaluations: as many of the third as fit, and the last of less.

    Section 3.4 of the paper.
    """
    whole, rest = divmod(count, 3)
    return [3] * (whole - 1) + [2, 1] if rest == 0 else [3] * whole + [rest]


def dpm_fast(
    denoise: Denoiser,
    x: Tensor,
    high: float,
    low: float,
    count: int,
    noise: NoiseSource,
    between: Between = untouched,
    *,
    eta: float = 1.0,
) -> Tensor:
    """DPM-Solver-fast: `count` evaluations in steps of even width in ln sigma.

    eta: 1 adds noise after each step, as ancestral samplers do, as the published program ran it; 0 follows the ODE.
    """
    orders = fast_orders(count)
    levels = [high * (low / high) ** (i / len(orders)) for i in range(len(orders))] + [low]
    for (sigma, sigma_next), order in zip(pairwise(levels), orders, strict=True):
        down, up = _down_and_up(sigma, sigma_next, low, eta)
        x = ORDERS[order](denoise, x, sigma, down, slope_of(x, denoise(x, sigma), sigma))
        if up > 0:
            x = x + up * noise(sigma, sigma_next)
        x = between(x, sigma_next) if sigma_next > low else x
    return x


def dpm_adaptive(
    denoise: Denoiser,
    x: Tensor,
    high: float,
    low: float,
    count: int,
    noise: NoiseSource,
    between: Between = untouched,
    *,
    eta: float = 1.0,
    relative: float = 0.05,
    absolute: float = 0.0078,
    first_h: float = 0.05,
    accepts: float = 0.81,
) -> Tensor:
    """DPM-Solver with steps as wide as its error allows: the difference of its second and third order (appendix C).

    x: (1, C, h, w): the steps depend on the picture, so frames cannot share them. count: not looked at.
    relative, absolute: error that is allowed, as a share of the latents and at least. first_h: width of the first step
    in ln sigma. accepts: a step is kept if the next one would be at least this much of its width.
    """
    assert len(x) == 1, "frames with steps of their own are run one at a time"
    sigma, h, last, slope = high, first_h, x, None
    narrowest = NARROWEST * math.log(high / low)  # a network whose error does not fall is not followed for ever
    while True:
        sigma_next = max(low, sigma * math.exp(-h))
        down, up = _down_and_up(sigma, sigma_next, low, eta)
        slope = slope_of(x, denoise(x, sigma), sigma) if slope is None else slope
        second, third = _second_and_third(denoise, x, sigma, down, slope)
        allowed = torch.maximum(second.abs(), last.abs()).mul(relative).clamp(min=absolute)
        error = float(((second - third) / allowed).square().mean().sqrt())
        if not math.isfinite(error):
            return third
        # An integral controller, whose factor is kept within 0.2 and 2.6. With fresh noise the error falls slowlier.
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / (1.5 if eta else 3)) - 1)
        refused = factor < accepts and h > narrowest
        h = max(h * factor, narrowest)
        if refused:
            continue
        x, last, slope = third, second, None
        if up > 0:
            x = x + up * noise(sigma, sigma_next)
        if sigma_next <= low:
            return x
        x, sigma = between(x, sigma_next), sigma_next


def _down_and_up(sigma: float, sigma_next: float, low: float, eta: float) -> tuple[float, float]:
    """Give the noise level to step down to, not below `low`, and the noise to add there."""
    if eta == 0:
        return sigma_next, 0.0
    assert eta == 1, eta
    down = max(ancestral(sigma, sigma_next)[0], low)
    return down, max(sigma_next**2 - down**2, 0.0) ** 0.5


@dataclass(frozen=True)
class RangeSampler:
    """A sampler that chooses its noise levels itself, between the highest and the lowest."""

    run: Callable[[Denoiser, Tensor, float, float, int, NoiseSource, Between], Tensor]
    alone: bool = False  # its steps depend on the picture: frames are run one at a time


RANGE_SAMPLERS: dict[str, RangeSampler] = {
    "dpm-fast": RangeSampler(dpm_fast),
    "dpm-adaptive": RangeSampler(dpm_adaptive, alone=True),
}
