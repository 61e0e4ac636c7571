"""Samplers that step through noise levels sigma, on latents x = x0 + sigma * noise.

h and lambda are those of Lu et al. 2022 (DPM-Solver++, arXiv:2211.01095): lambda = -ln sigma, h its growth over a step.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from colorcli.sampling.levels import STEPS, NoiseLevels

Denoiser = Callable[[Tensor, float], Tensor]  # latents with noise of a sigma, that sigma -> clean latents
NoiseSource = Callable[[float, float], Tensor]  # sigma, next sigma -> noise of unit variance for that stretch
Between = Callable[[Tensor, float], Tensor]  # latents after a step, their sigma -> latents for the next step


def untouched(x: Tensor, sigma: float) -> Tensor:
    """Leave the latents between two steps as they are."""
    return x


def slope_of(x: Tensor, clean: Tensor, sigma: float) -> Tensor:
    """Give dx / dsigma of the noise-removing ODE."""
    return (x - clean) / sigma


def ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Split a step into a noise level to step down to and the noise to add there, so that sigma_next is reached."""
    up = min(sigma_next, (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - up**2) ** 0.5, up


def _growth(sigma: float, sigma_next: float) -> float:
    return math.log(sigma / sigma_next)


def euler(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """Karras et al. 2022, algorithm 1, without the second-order correction."""
    for sigma, sigma_next in pairwise(sigmas):
        x = between(x + slope_of(x, denoise(x, sigma), sigma) * (sigma_next - sigma), sigma_next)
    return x


def euler_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """Euler steps a little too far down, each followed by fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral(sigma, sigma_next)
        x = x + slope_of(x, denoise(x, sigma), sigma) * (down - sigma)
        if up > 0:
            x = x + noise(sigma, sigma_next) * up
        x = between(x, sigma_next)
    return x


def heun(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """Karras et al. 2022, algorithm 1: the slope is the mean of those at both ends; two evaluations a step."""
    for sigma, sigma_next in pairwise(sigmas):
        slope = slope_of(x, denoise(x, sigma), sigma)
        if sigma_next > 0:
            guess = x + slope * (sigma_next - sigma)
            slope = (slope + slope_of(guess, denoise(guess, sigma_next), sigma_next)) / 2
        x = between(x + slope * (sigma_next - sigma), sigma_next)
    return x


def dpm2(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """Midpoint steps: the slope is taken at the geometric mean of both noise levels; two evaluations a step."""
    for sigma, sigma_next in pairwise(sigmas):
        x = between(_midpoint_step(denoise, x, sigma, sigma_next), sigma_next)
    return x


def dpm2_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """Midpoint steps a little too far down, each followed by fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral(sigma, sigma_next)
        x = _midpoint_step(denoise, x, sigma, down)
        if up > 0:
            x = x + noise(sigma, sigma_next) * up
        x = between(x, sigma_next)
    return x


def _midpoint_step(denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    slope = slope_of(x, denoise(x, sigma), sigma)
    if sigma_next > 0:
        middle = (sigma * sigma_next) ** 0.5
        guess = x + slope * (middle - sigma)
        slope = slope_of(guess, denoise(guess, middle), middle)
    return x + slope * (sigma_next - sigma)


def lms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    between: Between = untouched,
    order: int = 4,
) -> Tensor:
    """Linear multistep (Adams-Bashforth) over the last slopes, up to `order` of them."""
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        slopes = [slope_of(x, denoise(x, sigma), sigma), *slopes[: order - 1]]
        nodes = [sigmas[i - k] for k in range(len(slopes))]
        for k, slope in enumerate(slopes):
            x = x + slope_weight(nodes, k, sigma, sigma_next) * slope
        x = between(x, sigma_next)
    return x


def slope_weight(nodes: Sequence[float], k: int, start: float, end: float) -> float:
    """Integrate from start to end the polynomial that is 1 at node k and 0 at all other nodes."""
    others = [node for j, node in enumerate(nodes) if j != k]
    basis = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
    whole = basis.integ()
    return float((whole(end) - whole(start)) / basis(nodes[k]))


def dpmpp_2m(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """DPM-Solver++ of second order over two steps (arXiv:2211.01095, algorithm 2)."""
    last: tuple[Tensor, float] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma)
        if sigma_next == 0:
            return clean
        h = _growth(sigma, sigma_next)
        mixed = clean
        if last is not None:
            r = last[1] / h
            mixed = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * last[0]
        x = between((sigma_next / sigma) * x - math.expm1(-h) * mixed, sigma_next)
        last = clean, h
    return x


def dpmpp_2s_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """DPM-Solver++ of second order within a step, a little too far down, each step followed by fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral(sigma, sigma_next)
        clean = denoise(x, sigma)
        if down == 0:
            x = clean
        else:
            h = _growth(sigma, down)
            middle = sigma * math.exp(-h / 2)
            guess = (middle / sigma) * x - math.expm1(-h / 2) * clean
            x = (down / sigma) * x - math.expm1(-h) * denoise(guess, middle)
        if up > 0:
            x = x + noise(sigma, sigma_next) * up
        x = between(x, sigma_next)
    return x


def dpmpp_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """DPM-Solver++ for the SDE, second order within a step; two evaluations a step.

    The noise of the half step and that of the whole step belong to one path: the source has to know both stretches.
    """
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma)
        if sigma_next == 0:
            return clean
        middle = (sigma * sigma_next) ** 0.5
        down, up = ancestral(sigma, middle)
        guess = (down / sigma) * x - math.expm1(-_growth(sigma, down)) * clean + noise(sigma, middle) * up
        clean = denoise(guess, middle)
        down, up = ancestral(sigma, sigma_next)
        x = (down / sigma) * x - math.expm1(-_growth(sigma, down)) * clean + noise(sigma, sigma_next) * up
        x = between(x, sigma_next)
    return x


def dpmpp_2m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """DPM-Solver++ of second order over two steps, for the SDE; midpoint form."""
    return _dpmpp_2m_sde(denoise, x, sigmas, noise, between, lambda h: -math.expm1(-h) / 2)


def dpmpp_2m_sde_heun(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """DPM-Solver++ of second order over two steps, for the SDE; Heun form."""
    return _dpmpp_2m_sde(denoise, x, sigmas, noise, between, lambda h: math.expm1(-h) / h + 1)


def _dpmpp_2m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    between: Between,
    second: Callable[[float], float],
) -> Tensor:
    last: tuple[Tensor, float] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma)
        if sigma_next == 0:
            return clean
        h = _growth(sigma, sigma_next)
        x = math.exp(-2 * h) * x - math.expm1(-2 * h) * clean
        if last is not None:
            x = x + second(2 * h) * (clean - last[0]) * (h / last[1])
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * h)))
        x = between(x, sigma_next)
        last = clean, h
    return x


def dpmpp_3m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, between: Between = untouched
) -> Tensor:
    """DPM-Solver++ of third order over three steps, for the SDE."""
    past: list[tuple[Tensor, float]] = []  # clean latents and step widths, the last step first
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma)
        if sigma_next == 0:
            return clean
        h = _growth(sigma, sigma_next)
        x = math.exp(-2 * h) * x - math.expm1(-2 * h) * clean
        phi2 = math.expm1(-2 * h) / (2 * h) + 1
        phi3 = phi2 / (2 * h) - 0.5
        if len(past) == 1:
            ((clean1, h1),) = past
            x = x + phi2 * (clean - clean1) * (h / h1)
        elif len(past) == 2:
            (clean1, h1), (clean2, h2) = past
            r0, r1 = h1 / h, h2 / h
            near, far = (clean - clean1) / r0, (clean1 - clean2) / r1
            first = near + (near - far) * r0 / (r0 + r1)
            x = x + phi2 * first - phi3 * (near - far) / (r0 + r1)
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * h)))
        x = between(x, sigma_next)
        past = [(clean, h), *past[:1]]
    return x


@dataclass(frozen=True)
class SigmaSampler:
    """A sampler over noise levels, and the steps that suit it."""

    run: Callable[[Denoiser, Tensor, Sequence[float], NoiseSource, Between], Tensor]
    automatic: str  # a name of STEPS
    skips_lowest: bool = False  # one more noise level is spread out, and the lowest before 0 left out


SIGMA_SAMPLERS: dict[str, SigmaSampler] = {
    "euler": SigmaSampler(euler, "uniform"),
    "euler-a": SigmaSampler(euler_ancestral, "uniform"),
    "heun": SigmaSampler(heun, "uniform"),
    "lms": SigmaSampler(lms, "uniform"),
    "dpm2": SigmaSampler(dpm2, "karras", skips_lowest=True),
    "dpm2-a": SigmaSampler(dpm2_ancestral, "karras", skips_lowest=True),
    "dpm++2m": SigmaSampler(dpmpp_2m, "karras"),
    "dpm++2s-a": SigmaSampler(dpmpp_2s_ancestral, "karras"),
    "dpm++sde": SigmaSampler(dpmpp_sde, "karras"),
    "dpm++2m-sde": SigmaSampler(dpmpp_2m_sde, "exponential"),
    "dpm++2m-sde-heun": SigmaSampler(dpmpp_2m_sde_heun, "exponential"),
    "dpm++3m-sde": SigmaSampler(dpmpp_3m_sde, "exponential", skips_lowest=True),
}


def step_sigmas(sampler: str, steps: str, count: int, levels: NoiseLevels) -> Tensor:
    """Give the noise levels of `count` steps, (count + 1,) float32 from the highest down to 0.

    sampler: a name of `SIGMA_SAMPLERS`. steps: a name of `STEPS`, or "automatic" for what suits the sampler.
    """
    rule = SIGMA_SAMPLERS[sampler]
    spread = STEPS[rule.automatic if steps == "automatic" else steps]
    if rule.skips_lowest:
        return torch.cat([spread(levels, count + 1)[:-1], torch.zeros(1, dtype=torch.float32)]).float()
    return torch.cat([spread(levels, count), torch.zeros(1, dtype=torch.float32)]).float()
