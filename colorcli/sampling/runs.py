"""Whole runs: from noise to clean latents."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import PNDMScheduler
from torch import Tensor

from colorcli.sampling.dpm_solver import RANGE_SAMPLERS
from colorcli.sampling.guidance import Predictor
from colorcli.sampling.levels import NoiseLevels, levels_of
from colorcli.sampling.schedulers import PUBLISHED_SCHEDULE, SCHEDULERS, make_scheduler
from colorcli.sampling.sigma_samplers import SIGMA_SAMPLERS, Between, Denoiser, NoiseSource, step_sigmas, untouched

Prediction = Literal["v", "eps"]


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

    def after_step(self, noise: Tensor) -> Between:
        """Make what a sampler over noise levels does after its steps; `noise` is what the run began from."""

        def lay_in(x: Tensor, sigma: float) -> Tensor:
            return self.lay_in(x, self.latents + sigma * noise) if sigma > 0 else x

        return lay_in


def sample_sigmas(
    denoise: Denoiser,
    noise: Tensor,
    sampler: str,
    sigmas: Tensor,
    source: NoiseSource,
    start: Tensor | None = None,
    blend: Blend | None = None,
) -> Tensor:
    """Run a sampler over noise levels from `noise` (B, C, h, w) of unit variance to clean latents.

    start: clean latents to begin from; the noise of the first level is added to them.
    """
    levels = [float(sigma) for sigma in sigmas]
    x = noise * levels[0] if start is None else start + noise * levels[0]
    between = untouched if blend is None else blend.after_step(noise)
    return SIGMA_SAMPLERS[sampler].run(denoise, x, levels, source, between)


def sample_range(
    denoise: Denoiser,
    noise: Tensor,
    sampler: str,
    span: tuple[float, float],
    count: int,
    source: NoiseSource,
    start: Tensor | None = None,
    blend: Blend | None = None,
) -> Tensor:
    """Run a sampler that chooses its steps itself, from the first noise level of `span` down to the second.

    start, blend: see `sample_sigmas`.
    """
    high, low = span
    x = noise * high if start is None else start + noise * high
    between = untouched if blend is None else blend.after_step(noise)
    return RANGE_SAMPLERS[sampler].run(denoise, x, high, low, count, source, between)


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
    assert start is None or not isinstance(scheduler, PNDMScheduler), "its first steps are of another kind"
    skipped = skipped_steps(count, level)
    scheduler.set_timesteps(count + skipped, device=noise.device)
    times = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        # Without it a scheduler looks its place up by the time, and many steps close together may have one time.
        scheduler.set_begin_index(skipped)
    x = noise * scheduler.init_noise_sigma if start is None else scheduler.add_noise(start, noise, times[:1])
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
    sampler: a name of `SIGMA_SAMPLERS`, `RANGE_SAMPLERS` or `SCHEDULERS`. count: steps that are run.
    schedule: a diffusers scheduler's config: the noise levels, and whether the network predicts v or the noise.
    seeds: one for each frame, for samplers that add noise on the way.
    start, level: see `sample_scheduler`. blend: a background laid in on the way.
    """
    if sampler in SCHEDULERS:
        scheduler = make_scheduler(sampler, schedule, steps=steps)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds] or None
        stochastic = sampler == "diffusers-dpm-sde"
        return sample_scheduler(
            predict,
            noise,
            scheduler,
            count,
            start=start,
            level=level,
            blend=blend,
            generator=generators if stochastic else None,
        )
    levels = levels_of(schedule)
    prediction: Prediction = "eps" if schedule.get("prediction_type") == "epsilon" else "v"
    denoise, source = denoiser(predict, levels, prediction), path_noise(seeds, noise)
    if sampler in RANGE_SAMPLERS:
        last = len(levels.alphas_cumprod) - 1
        span = float(levels.sigma_at(level * last)), float(levels.sigmas[0])
        return sample_range(denoise, noise, sampler, span, count, source, start, blend)
    skipped = skipped_steps(count, level)
    sigmas = step_sigmas(sampler, steps, count + skipped, levels)[skipped:]
    return sample_sigmas(denoise, noise, sampler, sigmas, source, start, blend)
