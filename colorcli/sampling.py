"""From noise to a picture: noise levels, steps, samplers by name, and guidance.

Two kinds of samplers, as in the published systems. Those that step through noise levels sigma (`SIGMA_SAMPLERS`)
work on latents x = x0 + sigma * noise; diffusers' schedulers (`SCHEDULERS`) step through whole times. A `Predictor`
takes latents of unit variance and a time, and gives what the network gives.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from torch import Tensor

from colorcli.model.attention import Injection
from colorcli.model.conditions import Conditions, Rows, branch_rows
from colorcli.model.unet import self_attention_inputs

Predictor = Callable[[Tensor, float], Tensor]     # latents of unit variance, time -> the network's prediction
Denoiser = Callable[[Tensor, float], Tensor]      # latents with noise of a sigma, that sigma -> clean latents
NoiseSource = Callable[[float, float], Tensor]    # sigma, next sigma -> noise of unit variance for that stretch
Prediction = Literal["v", "eps"]

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
# abar of the last step under zero terminal SNR is 0, where sigma would be infinite.
SMALLEST_ALPHA = 2.0**-24


@dataclass(frozen=True)
class NoiseLevels:
    """How noisy each training step is."""

    alphas_cumprod: Tensor   # share of the signal's variance left, (steps,) float64, falling

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


def step_sigmas(sampler: str, steps: str, count: int, levels: NoiseLevels) -> Tensor:
    """Give the noise levels of `count` steps, (count + 1,) float32 from the highest down to 0.

    sampler: a name of `SIGMA_SAMPLERS`. steps: a name of `STEPS`, or "automatic" for what suits the sampler.
    """
    rule = SIGMA_SAMPLERS[sampler]
    spread = STEPS[rule.automatic if steps == "automatic" else steps]
    if rule.skips_lowest:
        return torch.cat([spread(levels, count + 1)[:-1], torch.zeros(1, dtype=torch.float32)]).float()
    return torch.cat([spread(levels, count), torch.zeros(1, dtype=torch.float32)]).float()


# Samplers over noise levels. h and lambda are those of Lu et al. 2022 (DPM-Solver++, arXiv:2211.01095):
# lambda = -ln sigma, h its growth over a step.

def _slope(x: Tensor, clean: Tensor, sigma: float) -> Tensor:
    """Give dx / dsigma of the noise-removing ODE."""
    return (x - clean) / sigma


def _ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Split a step into a noise level to step down to and the noise to add there, so that sigma_next is reached."""
    up = min(sigma_next, (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - up**2) ** 0.5, up


def _growth(sigma: float, sigma_next: float) -> float:
    return math.log(sigma / sigma_next)


def euler(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """Karras et al. 2022, algorithm 1, without the second-order correction."""
    for sigma, sigma_next in pairwise(sigmas):
        x = x + _slope(x, denoise(x, sigma), sigma) * (sigma_next - sigma)
    return x


def euler_ancestral(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """Euler steps a little too far down, each followed by fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = _ancestral(sigma, sigma_next)
        x = x + _slope(x, denoise(x, sigma), sigma) * (down - sigma)
        if up > 0:
            x = x + noise(sigma, sigma_next) * up
    return x


def heun(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """Karras et al. 2022, algorithm 1: the slope is the mean of those at both ends; two evaluations a step."""
    for sigma, sigma_next in pairwise(sigmas):
        slope = _slope(x, denoise(x, sigma), sigma)
        if sigma_next > 0:
            guess = x + slope * (sigma_next - sigma)
            slope = (slope + _slope(guess, denoise(guess, sigma_next), sigma_next)) / 2
        x = x + slope * (sigma_next - sigma)
    return x


def dpm2(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """Midpoint steps: the slope is taken at the geometric mean of both noise levels; two evaluations a step."""
    for sigma, sigma_next in pairwise(sigmas):
        x = _midpoint_step(denoise, x, sigma, sigma_next)
    return x


def dpm2_ancestral(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """Midpoint steps a little too far down, each followed by fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = _ancestral(sigma, sigma_next)
        x = _midpoint_step(denoise, x, sigma, down)
        if up > 0:
            x = x + noise(sigma, sigma_next) * up
    return x


def _midpoint_step(denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    slope = _slope(x, denoise(x, sigma), sigma)
    if sigma_next > 0:
        middle = (sigma * sigma_next) ** 0.5
        guess = x + slope * (middle - sigma)
        slope = _slope(guess, denoise(guess, middle), middle)
    return x + slope * (sigma_next - sigma)


def lms(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, order: int = 4) -> Tensor:
    """Linear multistep (Adams-Bashforth) over the last slopes, up to `order` of them."""
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        slopes = [_slope(x, denoise(x, sigma), sigma), *slopes[: order - 1]]
        nodes = [sigmas[i - k] for k in range(len(slopes))]
        for k, slope in enumerate(slopes):
            x = x + slope_weight(nodes, k, sigma, sigma_next) * slope
    return x


def slope_weight(nodes: Sequence[float], k: int, start: float, end: float) -> float:
    """Integrate from start to end the polynomial that is 1 at node k and 0 at all other nodes."""
    others = [node for j, node in enumerate(nodes) if j != k]
    basis = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
    whole = basis.integ()
    return float((whole(end) - whole(start)) / basis(nodes[k]))


class LinearMultistepScheduler(LMSDiscreteScheduler):
    """diffusers' linear multistep scheduler with its integrals in closed form, so that it needs no SciPy."""

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """Give the weight of the slope `current_order` steps back in step t."""
        sigmas = [float(sigma) for sigma in self.sigmas]
        return slope_weight([sigmas[t - k] for k in range(order)], current_order, sigmas[t], sigmas[t + 1])


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
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
        x = (sigma_next / sigma) * x - math.expm1(-h) * mixed
        last = clean, h
    return x


def dpmpp_2s_ancestral(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """DPM-Solver++ of second order within a step, a little too far down, each step followed by fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = _ancestral(sigma, sigma_next)
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
    return x


def dpmpp_sde(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """DPM-Solver++ for the SDE, second order within a step; two evaluations a step.

    The noise of the half step and that of the whole step belong to one path: the source has to know both stretches.
    """
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma)
        if sigma_next == 0:
            return clean
        middle = (sigma * sigma_next) ** 0.5
        down, up = _ancestral(sigma, middle)
        guess = (down / sigma) * x - math.expm1(-_growth(sigma, down)) * clean + noise(sigma, middle) * up
        clean = denoise(guess, middle)
        down, up = _ancestral(sigma, sigma_next)
        x = (down / sigma) * x - math.expm1(-_growth(sigma, down)) * clean + noise(sigma, sigma_next) * up
    return x


def dpmpp_2m_sde(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """DPM-Solver++ of second order over two steps, for the SDE; midpoint form."""
    return _dpmpp_2m_sde(denoise, x, sigmas, noise, lambda h: -math.expm1(-h) / 2)


def dpmpp_2m_sde_heun(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
    """DPM-Solver++ of second order over two steps, for the SDE; Heun form."""
    return _dpmpp_2m_sde(denoise, x, sigmas, noise, lambda h: math.expm1(-h) / h + 1)


def _dpmpp_2m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, second: Callable[[float], float]
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
        last = clean, h
    return x


def dpmpp_3m_sde(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Tensor:
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
            (clean1, h1), = past
            x = x + phi2 * (clean - clean1) * (h / h1)
        elif len(past) == 2:
            (clean1, h1), (clean2, h2) = past
            r0, r1 = h1 / h, h2 / h
            near, far = (clean - clean1) / r0, (clean1 - clean2) / r1
            first = near + (near - far) * r0 / (r0 + r1)
            x = x + phi2 * first - phi3 * (near - far) / (r0 + r1)
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * h)))
        past = [(clean, h), *past[:1]]
    return x


@dataclass(frozen=True)
class SigmaSampler:
    """A sampler over noise levels, and the steps that suit it."""

    run: Callable[[Denoiser, Tensor, Sequence[float], NoiseSource], Tensor]
    automatic: str               # a name of STEPS
    skips_lowest: bool = False   # one more noise level is spread out, and the lowest before 0 left out


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

# diffusers' schedulers, each with what it is made with beside the noise levels.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "diffusers-dpm": (DPMSolverMultistepScheduler, {}),
    "diffusers-dpm-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "diffusers-euler": (EulerDiscreteScheduler, {}),
    "diffusers-pndm": (PNDMScheduler, {}),
    "diffusers-lms": (LinearMultistepScheduler, {}),
}

# The names of the published interface.
PUBLISHED_SAMPLERS = {
    "DPM++ 2M": "dpm++2m",
    "DPM++ SDE": "dpm++sde",
    "DPM++ 2M SDE": "dpm++2m-sde",
    "DPM++ 2M SDE Heun": "dpm++2m-sde-heun",
    "DPM++ 2S a": "dpm++2s-a",
    "DPM++ 3M SDE": "dpm++3m-sde",
    "Euler a": "euler-a",
    "Euler": "euler",
    "LMS": "lms",
    "Heun": "heun",
    "DPM2": "dpm2",
    "DPM2 a": "dpm2-a",
    "diffuser_ddim": "ddim",
    "diffuser_dpm": "diffusers-dpm",
    "diffuser_dpm_sde": "diffusers-dpm-sde",
    "diffuser_pndm": "diffusers-pndm",
    "diffuser_lms": "diffusers-lms",
}
PUBLISHED_STEPS = {
    "Automatic": "automatic",
    "Uniform": "uniform",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential",
    "SGM Uniform": "sgm-uniform",
}

# What a published model's schedulers are made with.
PUBLISHED_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": TRAINING_STEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "v_prediction",
}


def make_scheduler(name: str, config: Mapping[str, Any] = PUBLISHED_SCHEDULE, *, steps: str = "automatic") -> Any:
    """Make a diffusers scheduler with the noise levels of `config`, which may be that of another scheduler.

    name: one of `SCHEDULERS`. steps: "karras" where the scheduler knows it; other choices change nothing.
    """
    kind, own = SCHEDULERS[name]
    karras = {"use_karras_sigmas": True} if steps == "karras" and name not in ("ddim", "diffusers-pndm") else {}
    return kind.from_config({**config, **own, **karras})


# Guidance.

@dataclass(frozen=True)
class Guidance:
    """How far the prediction is pushed towards the reference and the drawing, and when the reference is seen.

    window, off_window: progress 0..1 of the run; the reference is seen inside the first and not inside the second.
    """

    reference: float = 1.0    # 1 or less is off
    sketch: float = 1.0       # 1 or less is off
    window: tuple[float, float] = (0.0, 1.0)
    off_window: tuple[float, float] = (-0.05, -0.05)

    @property
    def branches(self) -> tuple[str, ...]:
        """Name the rows that one network call needs, in their order."""
        switched = (("uncond_reference", self.reference > 1), ("uncond_sketch", self.sketch > 1))
        return ("cond", *(name for name, on in switched if on))

    def sees_reference(self, time: float, training_steps: int = TRAINING_STEPS) -> bool:
        """Tell whether the reference is seen at a time, which runs from training_steps - 1 down to 0."""
        progress = 1 - time / (training_steps - 1)
        inside = self.window[0] <= progress <= self.window[1]
        return inside and not self.off_window[0] <= progress <= self.off_window[1]


def combine(rows: Tensor, guidance: Guidance) -> Tensor:
    """Make one prediction (B, ...) of the rows of all branches (B * branches, ...), in the order of `branches`."""
    cond, *others = rows.chunk(len(guidance.branches))
    if not others:
        return cond
    scales = [scale for scale in (guidance.reference, guidance.sketch) if scale > 1]
    pushed = [uncond + scale * (cond - uncond) for uncond, scale in zip(others, scales, strict=True)]
    return torch.stack(pushed).mean(0)


@dataclass(frozen=True)
class ReferenceOnly:
    """Reference-only attention: at each call the network first sees the noised key, and then reads what it saw there.

    It does without the ReferenceNet's bank, and doubles the time.
    """

    latents: Tensor                # (1, C, h, w), the key stretched to the canvas
    noise: Tensor                  # (1, C, h, w) of unit variance, the same for all rows and calls
    sketch_maps: Sequence[Tensor]  # of the negated key, scaled; finest first
    fidelity: float = 0.5          # 0..1, see `Injection`
    start: float = 0.0             # progress from which it is active, 0..1


def predict_branches(
    unet: Any, conditions: Conditions, x: Tensor, time: float, branches: Sequence[str], *, sees_reference: bool = True
) -> Tensor:
    """Call the network once for latents x (B, C, h, w) in some branches: (B * branches, C, h, w)."""
    rows = branch_rows(conditions, branches, len(x), sees_reference=sees_reference)
    return unet(x.repeat(len(branches), 1, 1, 1), time, rows.y, rows.context, rows.sketch_maps, rows.plan)


def guided(
    unet: Any,
    conditions: Conditions,
    guidance: Guidance,
    levels: NoiseLevels | None = None,
    reference_only: ReferenceOnly | None = None,
) -> Predictor:
    """Make the guided prediction of the frames of `conditions`; `levels` are needed for reference-only attention."""
    branches = guidance.branches

    def predict(x: Tensor, time: float) -> Tensor:
        seen = guidance.sees_reference(time)
        rows = branch_rows(conditions, branches, len(x), sees_reference=seen)
        plan = rows.plan
        if reference_only is not None and 1 - time / (TRAINING_STEPS - 1) >= reference_only.start:
            assert levels is not None
            own = range(len(x), 2 * len(x)) if "uncond_reference" in branches else ()
            stored = _seen_of_key(unet, rows, len(branches) * len(x), time, levels, reference_only)
            plan = replace(plan, bank=(), injection=Injection(stored, reference_only.fidelity, own))
        out = unet(x.repeat(len(branches), 1, 1, 1), time, rows.y, rows.context, rows.sketch_maps, plan)
        return combine(out, guidance)

    return predict


def _seen_of_key(
    unet: Any, rows: Rows, count: int, time: float, levels: NoiseLevels, reference_only: ReferenceOnly
) -> list[Tensor]:
    signal = float(levels.alphas_cumprod[round(time)])
    noised = signal**0.5 * reference_only.latents + (1 - signal) ** 0.5 * reference_only.noise
    maps = [x.expand(count, -1, -1, -1) for x in reference_only.sketch_maps]
    plan = replace(rows.plan, bank=())
    return self_attention_inputs(unet, noised.expand(count, -1, -1, -1), time, rows.y, rows.context, maps, plan)


# Runs.

def frame_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw the starting noise of some frames, (len(seeds), *shape) float32 on the CPU.

    Every frame has a generator of its own, on the CPU: one seed has to give one and the same frame on every machine of
    the farm and in every batch.
    """
    return torch.stack([torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds])


def path_noise(seeds: Sequence[int], like: Tensor) -> NoiseSource:
    """Make the noise that stochastic samplers add, one Brownian path for each frame of latents `like` (B, C, h, w).

    A stretch that begins where another began, and goes further, continues it, as both belong to one path.
    """
    # Not the seeds of the starting noise: the same numbers twice would leave a ghost of it.
    generators = [torch.Generator("cpu").manual_seed(seed ^ 0x5EED) for seed in seeds]
    drawn: dict[float, dict[float, Tensor]] = {}

    def increment(variance: float) -> Tensor:
        fresh = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
        return torch.stack(fresh).to(like) * variance**0.5

    def source(sigma: float, sigma_next: float) -> Tensor:
        known = drawn.get(sigma, {})
        reached = min((end for end in known if end >= sigma_next), default=sigma)
        so_far = known.get(reached, torch.zeros_like(like))
        walked = so_far + increment(reached - sigma_next) if reached > sigma_next else so_far
        drawn.clear()  # only stretches with one beginning can overlap
        drawn[sigma] = {**known, sigma_next: walked}
        return walked / (sigma - sigma_next) ** 0.5

    return source


def denoiser(predict: Predictor, levels: NoiseLevels, prediction: Prediction = "v") -> Denoiser:
    """Wrap a predictor for the samplers over noise levels; the time given to it is fractional."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        size = (sigma**2 + 1) ** 0.5
        out = predict(x / size, float(levels.time_of(sigma)))
        if prediction == "eps":
            return x - sigma * out
        return x / size**2 - out * (sigma / size)

    return denoise


@dataclass(frozen=True)
class Blend:
    """A background that is laid in after every step but the last (latent copy).

    inside: (1 or B, 1, h, w) bool, where the frame stays its own. latents: (1 or B, C, h, w), clean.
    """

    inside: Tensor
    latents: Tensor

    def lay_in(self, x: Tensor, noised: Tensor) -> Tensor:
        """Give x with the background, noised as much as x, outside."""
        return torch.where(self.inside, x, noised.to(x.dtype))


def sample_sigmas(
    denoise: Denoiser, noise: Tensor, sampler: str, sigmas: Tensor, source: NoiseSource, start: Tensor | None = None
) -> Tensor:
    """Run a sampler over noise levels from `noise` (B, C, h, w) of unit variance to clean latents.

    start: clean latents to begin from; the noise of the first level is added to them.
    """
    levels = [float(sigma) for sigma in sigmas]
    x = noise * levels[0] if start is None else start + noise * levels[0]
    return SIGMA_SAMPLERS[sampler].run(denoise, x, levels, source)


def sample_scheduler(
    predict: Predictor,
    noise: Tensor,
    scheduler: Any,
    count: int,
    *,
    start: Tensor | None = None,
    level: float = 1.0,
    blend: Blend | None = None,
    generator: list[torch.Generator] | None = None,
) -> Tensor:
    """Run a diffusers scheduler from `noise` (B, C, h, w) of unit variance to clean latents.

    start: clean latents to begin from, with the noise of the first time that is run added.
    level: how much of the schedule is run, above 0 to 1; below 1 a start is needed. `count` steps are run in any case.
    """
    assert level >= 1 or start is not None, "a run that skips its beginning has to begin from something"
    skipped = skipped_steps(count, level)
    scheduler.set_timesteps(count + skipped, device=noise.device)
    times = scheduler.timesteps[skipped:]
    x = noise * scheduler.init_noise_sigma if start is None else scheduler.add_noise(start, noise, times[:1])
    if skipped and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    extra = {"generator": generator} if generator is not None and not isinstance(scheduler, PNDMScheduler) else {}
    for i, time in enumerate(times):
        out = predict(scheduler.scale_model_input(x, time), float(time))
        x = scheduler.step(out, time, x, **extra).prev_sample
        if blend is not None and i + 1 < len(times):
            background = blend.latents.expand_as(noise)
            x = blend.lay_in(x, scheduler.add_noise(background, noise, times[i + 1].expand(len(noise))))
    return x


def skipped_steps(count: int, level: float) -> int:
    """Tell how many steps stand before the `count` that are run, if those are `level` of the schedule."""
    assert 0 < level <= 1, level
    return math.ceil(round(count / level, 6)) - count


def sample(
    predict: Predictor,
    noise: Tensor,
    *,
    sampler: str,
    count: int,
    schedule: Mapping[str, Any] = PUBLISHED_SCHEDULE,
    steps: str = "automatic",
    seeds: Sequence[int] = (),
    start: Tensor | None = None,
    level: float = 1.0,
    blend: Blend | None = None,
) -> Tensor:
    """Draw pictures out of noise: clean latents (B, C, h, w).

    predict: gives the guided prediction. noise: (B, C, h, w) of unit variance, on the device of the network.
    sampler: a name of `SIGMA_SAMPLERS` or `SCHEDULERS`. count: steps that are run.
    schedule: a diffusers scheduler's config: the noise levels, and whether the network predicts v or the noise.
    seeds: one for each frame, for samplers that add noise on the way.
    start, level: see `sample_scheduler`. blend: only the diffusers schedulers do it.
    """
    if sampler in SCHEDULERS:
        scheduler = make_scheduler(sampler, schedule, steps=steps)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds] or None
        stochastic = sampler == "diffusers-dpm-sde"
        return sample_scheduler(
            predict, noise, scheduler, count, start=start, level=level, blend=blend,
            generator=generators if stochastic else None,
        )
    assert blend is None, f"{sampler} cannot lay in a background on the way"
    levels = levels_of(schedule)
    skipped = skipped_steps(count, level)
    sigmas = step_sigmas(sampler, steps, count + skipped, levels)[skipped:]
    prediction: Prediction = "eps" if schedule.get("prediction_type") == "epsilon" else "v"
    source = path_noise(seeds, noise)
    return sample_sigmas(denoiser(predict, levels, prediction), noise, sampler, sigmas, source, start)


def levels_of(schedule: Mapping[str, Any]) -> NoiseLevels:
    """Give the noise levels that a diffusers scheduler's config describes."""
    assert schedule.get("beta_schedule", "scaled_linear") == "scaled_linear", schedule["beta_schedule"]
    return scaled_linear(
        schedule.get("beta_start", BETA_START),
        schedule.get("beta_end", BETA_END),
        schedule.get("num_train_timesteps", TRAINING_STEPS),
        zero_terminal_snr=bool(schedule.get("rescale_betas_zero_snr", False)),
    )
