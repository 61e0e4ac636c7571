"""diffusers' schedulers by name, and the noise schedule of the published models."""

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler

from colorcli.sampling.levels import BETA_END, BETA_START, TRAINING_STEPS
from colorcli.sampling.sigma_samplers import slope_weight


class LinearMultistepScheduler(LMSDiscreteScheduler):
    """diffusers' linear multistep scheduler with its integrals in closed form, so that it needs no SciPy."""

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """Give the weight of the slope `current_order` steps back in step t."""
        sigmas = [float(sigma) for sigma in self.sigmas]
        return slope_weight([sigmas[t - k] for k in range(order)], current_order, sigmas[t], sigmas[t + 1])


# diffusers' schedulers, each with what it is made with beside the noise levels.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "diffusers-dpm": (DPMSolverMultistepScheduler, {}),
    "diffusers-dpm-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "diffusers-euler": (EulerDiscreteScheduler, {}),
    "diffusers-pndm": (PNDMScheduler, {}),
    "diffusers-lms": (LinearMultistepScheduler, {}),
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
