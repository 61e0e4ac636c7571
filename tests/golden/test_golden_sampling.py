"""Noise levels, guidance and complete sampling runs give the golden numbers."""

import pytest
import torch
from torch import Tensor

from colorcli.model.attention import AttentionPlan, Region
from colorcli.sampling import (
    PUBLISHED_SCHEDULE,
    SCHEDULERS,
    Blend,
    Guidance,
    combine,
    denoiser,
    levels_of,
    make_scheduler,
    sample_scheduler,
    sample_sigmas,
    scaled_linear,
    step_sigmas,
)
from tests.golden import networks
from tests.golden.fixture import count, load
from tests.golden.published_names import PUBLISHED_SAMPLERS, PUBLISHED_STEPS
from tests.golden.runs import guidance_of, guided_network, prediction_of


def test_golden_guidance_combines_the_branches():
    fixture = load("guidance_combine")
    for i, case in enumerate(fixture.config["cases"]):
        guidance = guidance_of(case["scale"])
        rows = torch.cat([fixture.inputs[branch] for branch in guidance.branches])
        fixture.check(f"out.case{i}", combine(rows, guidance))


def test_golden_noise_levels_and_their_times():
    fixture = load("noise_schedules")
    numbers = fixture.config
    levels = scaled_linear(numbers["beta_start"], numbers["beta_end"], numbers["training_steps"])
    fixture.check("alphas_cumprod", levels.alphas_cumprod.float())
    fixture.check("model_sigmas", levels.sigmas.float())
    fixture.check("sigma_to_t", levels.time_of(fixture.inputs["sigma_query"]).float())
    fixture.check("t_to_sigma", levels.sigma_at(fixture.inputs["t_query"]).float())


def test_golden_steps_of_every_sampler_and_schedule():
    fixture = load("noise_schedules")
    numbers = fixture.config
    levels = scaled_linear(numbers["beta_start"], numbers["beta_end"], numbers["training_steps"])
    for sampler, steps in numbers["sampler_schedule_pairs"]:
        for number in numbers["step_counts"]:
            sigmas = step_sigmas(PUBLISHED_SAMPLERS[sampler], PUBLISHED_STEPS[steps], number, levels)
            fixture.check(f"sigmas.{sampler}.{steps}.{number}", sigmas)


def test_golden_times_of_the_diffusers_schedulers():
    fixture = load("noise_schedules")
    numbers = fixture.config
    own = {"beta_start": numbers["beta_start"], "beta_end": numbers["beta_end"]}
    config = {**PUBLISHED_SCHEDULE, **own, "num_train_timesteps": numbers["training_steps"]}
    for name, expected in fixture.outputs.items():
        if name.startswith("timesteps."):
            _, sampler, steps = name.split(".")
            scheduler = make_scheduler(PUBLISHED_SAMPLERS[sampler], config)
            scheduler.set_timesteps(int(steps))
            fixture.check(name, torch.as_tensor(scheduler.timesteps).to(expected.dtype))


@pytest.mark.parametrize("i", range(count("xl_sampling", "runs")))
def test_golden_sampling_runs_and_every_call_in_them(i):
    fixture = load("xl_sampling")
    run = fixture.config["runs"][i]
    sampler, steps = PUBLISHED_SAMPLERS[run["sampler"]], PUBLISHED_STEPS[run["scheduler"]]
    predict = guided_network(fixture, guidance_of(run["guidance"]))
    schedule = prediction_of(fixture)
    if sampler in SCHEDULERS:
        scheduler = make_scheduler(sampler, schedule, steps=steps)
        fixture.check(f"out.run{i}", sample_scheduler(predict, fixture.inputs["x_T"], scheduler, run["steps"]))
        return
    levels = levels_of(schedule)
    sigmas = step_sigmas(sampler, steps, run["steps"], levels)
    fixture.check(f"run{i}.sigmas", sigmas)
    plain = denoiser(predict, levels, fixture.config["parameterization"])
    calls, noises = [], []

    def traced(x: Tensor, sigma: float) -> Tensor:
        clean = plain(x, sigma)
        calls.append((x, sigma, clean))
        return clean

    def recorded(sigma: float, sigma_next: float) -> Tensor:
        noises.append(fixture.outputs[f"run{i}.noise{len(noises)}"])
        return noises[-1]

    fixture.check(f"out.run{i}", sample_sigmas(traced, fixture.inputs["x_T"], sampler, sigmas, recorded))
    assert f"run{i}.call{len(calls)}.x" not in fixture.outputs, "the reference run called the network more often"
    assert f"run{i}.noise{len(noises)}" not in fixture.outputs, "the reference run added noise more often"
    for k, (x, sigma, clean) in enumerate(calls):
        fixture.check(f"run{i}.call{k}.x", x)
        fixture.check(f"run{i}.call{k}.sigma", torch.tensor([sigma]))
        fixture.check(f"run{i}.call{k}.denoised", clean)


@pytest.mark.parametrize("i", range(count("xl_latent_inpaint_sampling", "runs")))
def test_golden_background_is_laid_in_after_every_step_but_the_last(i):
    fixture = load("xl_latent_inpaint_sampling")
    run, attention, given = fixture.config["runs"][i], fixture.config["cross_attention"], fixture.inputs
    guidance = guidance_of(run["guidance"])
    region = Region(
        given["mask"].repeat(len(guidance.branches), 1, 1, 1), attention["mask_threshold"], attention["merge_scale"],
        attention["fg_scale"], attention["bg_scale"], compat=True,
    )
    predict = guided_network(fixture, guidance, AttentionPlan(region))
    threshold = 0.5 if run["threshold"] is None else run["threshold"]
    blend = Blend(given["mask"][:1] > threshold, given["inpaint_latent"])
    scheduler = make_scheduler(PUBLISHED_SAMPLERS[run["sampler"]], prediction_of(fixture))
    fixture.check(f"out.run{i}", sample_scheduler(predict, given["x_T"], scheduler, run["steps"], blend=blend))


def test_golden_window_takes_the_reference_away_outside():
    fixture = load("xl_guidance_window")
    given, unet = fixture.inputs, networks.unet(fixture)
    for i, case in enumerate(fixture.config["cases"]):
        guidance = Guidance(window=tuple(case["window"]), off_window=tuple(case["off_window"]))
        seen = guidance.sees_reference(case["t"], fixture.config["num_training_steps"])
        plan = AttentionPlan(seeing_rows=None if seen else ())
        out = unet(given["x"], case["t"], given["y"], given["context"], fixture.input_family("control"), plan)
        fixture.check(f"out.case{i}", out)
