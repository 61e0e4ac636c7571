"""From noise to a picture: noise levels, steps, samplers by name, and guidance.

Two kinds of samplers, as in the published systems. Those over noise levels sigma work on latents
x = x0 + sigma * noise, and are told their steps (`SIGMA_SAMPLERS`) or choose them (`RANGE_SAMPLERS`); diffusers'
schedulers (`SCHEDULERS`) step through whole times. A `Predictor` takes latents of unit variance and a time, and gives
what the network gives.
"""

from colorcli.sampling.dpm_solver import RANGE_SAMPLERS
from colorcli.sampling.guidance import Guidance, Predictor, combine, guided
from colorcli.sampling.injection import ReferenceOnly
from colorcli.sampling.levels import STEPS, TRAINING_STEPS, NoiseLevels, levels_of, scaled_linear
from colorcli.sampling.runs import (
    Blend,
    denoiser,
    frame_noise,
    path_noise,
    sample,
    sample_scheduler,
    sample_sigmas,
    skipped_steps,
)
from colorcli.sampling.schedulers import PUBLISHED_SCHEDULE, SCHEDULERS, make_scheduler
from colorcli.sampling.sigma_samplers import SIGMA_SAMPLERS, step_sigmas

__all__ = [
    "PUBLISHED_SCHEDULE",
    "RANGE_SAMPLERS",
    "SCHEDULERS",
    "SIGMA_SAMPLERS",
    "STEPS",
    "TRAINING_STEPS",
    "Blend",
    "Guidance",
    "NoiseLevels",
    "Predictor",
    "ReferenceOnly",
    "combine",
    "denoiser",
    "frame_noise",
    "guided",
    "levels_of",
    "make_scheduler",
    "path_noise",
    "sample",
    "sample_scheduler",
    "sample_sigmas",
    "scaled_linear",
    "skipped_steps",
    "step_sigmas",
]
