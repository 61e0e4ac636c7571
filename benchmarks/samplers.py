"""How far our samplers are from the nearest schedulers of diffusers: `python -m benchmarks.samplers` prints a table.

Both begin from the same noise and draw the same numbers on the way. They run on the network of the golden sampling
runs, whose weights are random, and on one that knows its data (normal, spread 0.5), as trained networks do.
"""

import argparse
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
)
from torch import Tensor

from colorcli.sampling import (
    PUBLISHED_SCHEDULE,
    RANGE_SAMPLERS,
    SCHEDULERS,
    SIGMA_SAMPLERS,
    Guidance,
    Predictor,
    denoiser,
    levels_of,
    sample_scheduler,
    sample_sigmas,
    step_sigmas,
)
from colorcli.sampling.schedulers import LinearMultistepScheduler
from tests.golden.fixture import Fixture, load
from tests.golden.published_names import PUBLISHED_SAMPLERS, PUBLISHED_STEPS
from tests.golden.runs import guidance_of, guided_network, prediction_of

SEED = 1
SPREAD = 0.5
LEVELS = levels_of(PUBLISHED_SCHEDULE)
HEADING = ("published", "schedule", "steps", "ours", "nearest of diffusers", "noise levels", "network", "known data")

# The nearest scheduler for each of our samplers, and what it is made with; as the documentation of diffusers has it.
TWINS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++2m": (DPMSolverMultistepScheduler, {}),
    "dpm++2m-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++2m-sde-heun": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    "dpm++3m-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "dpm++sde": (DPMSolverSinglestepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++2s-a": (DPMSolverSinglestepScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "lms": (LinearMultistepScheduler, {}),
    "dpm2": (KDPM2DiscreteScheduler, {}),
    "dpm2-a": (KDPM2AncestralDiscreteScheduler, {}),
}
SPREADS: dict[str, dict[str, Any]] = {
    "uniform": {"timestep_spacing": "linspace"},
    "sgm-uniform": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "polyexponential": {"use_exponential_sigmas": True},
}


@dataclass(frozen=True)
class Run:
    """A run in the published program's words."""

    sampler: str
    schedule: str
    steps: int
    guidance: Guidance


def runs(fixture: Fixture) -> Iterator[Run]:
    """Give the golden runs, then every other sampler as the published program comes."""
    for run in fixture.config["runs"]:
        yield Run(run["sampler"], run["scheduler"], run["steps"], guidance_of(run["guidance"]))
    for sampler in PUBLISHED_SAMPLERS:
        yield Run(sampler, "Automatic", 20, Guidance(4.0))


def compare(run: Run, fixture: Fixture) -> tuple[str, ...]:
    """Give a row of the table."""
    ours, steps = PUBLISHED_SAMPLERS[run.sampler], PUBLISHED_STEPS[run.schedule]
    first = (run.sampler, run.schedule, str(run.steps), ours)
    if ours in SCHEDULERS:
        return (*first, SCHEDULERS[ours][0].__name__, "the same", "0 %", "0 %")
    if ours in RANGE_SAMPLERS:
        return (*first, "none", "", "", "")
    known = steps if steps != "automatic" else SIGMA_SAMPLERS[ours].automatic
    twin, options = twin_of(ours, known, prediction_of(fixture))
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    noise, schedule = fixture.inputs["x_T"], prediction_of(fixture)
    predictors = guided_network(fixture, run.guidance), knowing
    shares = [f"{100 * difference(predict, noise, run, twin, schedule):.2g} %" for predict in predictors]
    return (*first, f"{type(twin).__name__}({named})", level_difference(run, twin), *shares)


def twin_of(sampler: str, steps: str, schedule: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make the nearest scheduler; what it is made with beside the noise schedule, as far as it knows it."""
    kind, own = TWINS[sampler]
    bare = {name: value for name, value in schedule.items() if name not in ("timestep_spacing", "steps_offset")}
    options = {**own, **SPREADS[steps]}
    known = inspect.signature(kind.__init__).parameters
    options = {name: value for name, value in options.items() if name in known}
    return kind.from_config({**bare, **options}), options


def difference(predict: Predictor, noise: Tensor, run: Run, twin: Any, schedule: dict[str, Any]) -> float:
    """Give the difference of both results as a share of ours, root mean square."""
    sampler, levels = PUBLISHED_SAMPLERS[run.sampler], levels_of(schedule)
    sigmas = step_sigmas(sampler, PUBLISHED_STEPS[run.schedule], run.steps, levels)
    drawn = generators(len(noise))

    def source(sigma: float, sigma_next: float) -> Tensor:
        return torch.stack([torch.randn(noise.shape[1:], generator=generator) for generator in drawn])

    with torch.inference_mode():
        ours = sample_sigmas(denoiser(predict, levels), noise, sampler, sigmas, source)
        draws = "generator" in inspect.signature(twin.step).parameters
        theirs = sample_scheduler(predict, noise, twin, run.steps, generator=generators(len(noise)) if draws else None)
    return float((ours - theirs).square().mean().sqrt() / ours.square().mean().sqrt())


def level_difference(run: Run, twin: Any) -> str:
    """Say how far the noise levels of both are apart, at most, as a share."""
    ours = step_sigmas(PUBLISHED_SAMPLERS[run.sampler], PUBLISHED_STEPS[run.schedule], run.steps, LEVELS)[:-1]
    twin.set_timesteps(run.steps)
    theirs = torch.as_tensor(twin.sigmas).double().unique_consecutive()
    theirs = theirs[theirs > 0]
    if len(theirs) != len(ours):
        return f"{len(ours)} and {len(theirs)}"
    share = float(((theirs - ours) / ours).abs().max())
    return "equal" if share < 1e-3 else f"{100 * share:.2g} % apart"


def knowing(x: Tensor, time: float) -> Tensor:
    """Predict v as a network that knows its data to be normal around 0 would; x has unit variance."""
    sigma = float(LEVELS.sigma_at(time))
    size = (sigma**2 + 1) ** 0.5
    clean = SPREAD**2 * x * size / (SPREAD**2 + sigma**2)
    return (x / size - clean) * (size / sigma)


def generators(count: int) -> list[torch.Generator]:
    """Make a generator for each frame, the same ones each time."""
    return [torch.Generator("cpu").manual_seed(SEED + i) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    fixture = load("xl_sampling")
    rows = [HEADING, tuple("---" for _ in HEADING), *(compare(run, fixture) for run in runs(fixture))]
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
