"""Samplers against the closed form of a Gaussian, and what guidance, seeds and starts promise."""

import math

import pytest
import torch
from torch import Tensor

from colorcli.sampling import (
    PUBLISHED_SCHEDULE,
    SCHEDULERS,
    SIGMA_SAMPLERS,
    STEPS,
    Blend,
    Guidance,
    combine,
    denoiser,
    frame_noise,
    levels_of,
    make_scheduler,
    path_noise,
    sample,
    sample_scheduler,
    sample_sigmas,
    scaled_linear,
    skipped_steps,
    step_sigmas,
)

LEVELS = scaled_linear()
MINI = {**PUBLISHED_SCHEDULE, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
MEAN, SPREAD = 0.7, 0.5
DETERMINISTIC = ["euler", "heun", "lms", "dpm2", "dpm++2m"]


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """The best guess of clean data that is normal around MEAN, spread SPREAD."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def gaussian_v(x: Tensor, time: float) -> Tensor:
    """What a perfect network that predicts v says of the same data; x has unit variance."""
    abar = float(LEVELS.alphas_cumprod[int(time)]) if float(time).is_integer() else None
    sigma = float(LEVELS.sigma_at(time)) if abar is None else ((1 - abar) / abar) ** 0.5
    size = (sigma**2 + 1) ** 0.5
    clean = gaussian(x * size, sigma)
    return (x / size - clean) * (size / sigma)


def exact(x: Tensor, sigma: float) -> Tensor:
    """Where the noise-removing ODE ends."""
    return MEAN + (x - MEAN) * SPREAD / (SPREAD**2 + sigma**2) ** 0.5


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_follow_the_ode_to_its_end(sampler):
    noise = frame_noise([1, 2], (4, 5, 6))
    sigmas = step_sigmas(sampler, "karras", 60, LEVELS)
    found = sample_sigmas(gaussian, noise, sampler, sigmas, path_noise([], noise))
    tolerance = 0.05 if sampler == "euler" else 5e-3
    torch.testing.assert_close(found, exact(noise * sigmas[0], float(sigmas[0])), atol=tolerance, rtol=0)


@pytest.mark.parametrize("sampler", sorted(set(SIGMA_SAMPLERS) - set(DETERMINISTIC)))
def test_stochastic_samplers_draw_from_the_data(sampler):
    noise = frame_noise([3], (4, 50, 50))
    sigmas = step_sigmas(sampler, "karras", 40, LEVELS)
    found = sample_sigmas(gaussian, noise, sampler, sigmas, path_noise([3], noise))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    # Steps of first order fall short of the spread by a share that shrinks with their size.
    assert float(found.std()) == pytest.approx(SPREAD, abs=0.06 if sampler == "euler-a" else 0.03)


@pytest.mark.parametrize("sampler", sorted(SCHEDULERS))
def test_schedulers_of_diffusers_reach_the_data_too(sampler):
    noise = frame_noise([4], (4, 50, 50))
    schedule = {**PUBLISHED_SCHEDULE, "timestep_spacing": "trailing", "steps_offset": 0}
    found = sample(gaussian_v, noise, sampler=sampler, count=50, schedule=schedule, seeds=[4])
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(found.std()) == pytest.approx(SPREAD, abs=0.06)


def test_a_wrapped_network_says_what_the_closed_form_says():
    noise = frame_noise([5], (4, 3, 3))
    for sigma in (0.05, 1.0, 14.0):
        x = noise * (SPREAD**2 + sigma**2) ** 0.5 + MEAN
        torch.testing.assert_close(denoiser(gaussian_v, LEVELS)(x, sigma), gaussian(x, sigma), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", sorted(STEPS))
def test_steps_fall_to_zero_and_are_as_many_as_asked(steps):
    for sampler in SIGMA_SAMPLERS:
        sigmas = step_sigmas(sampler, steps, 7, LEVELS)
        assert len(sigmas) == 8
        assert float(sigmas[-1]) == 0
        assert bool((sigmas.diff() < 0).all())


def test_steps_equal_the_published_numbers():
    three = step_sigmas("dpm++3m-sde", "automatic", 20, LEVELS)
    expected = torch.tensor([14.61464, 10.71011, 7.84873, 0.05431, 0.0398])
    torch.testing.assert_close(three[[0, 1, 2, 18, 19]], expected, atol=1e-4, rtol=0)
    times = LEVELS.time_of(three[[0, 1, 8]])
    torch.testing.assert_close(times.float(), torch.tensor([999.0, 945.813, 413.164]), atol=1e-2, rtol=0)
    sgm = step_sigmas("dpm++3m-sde", "sgm-uniform", 5, LEVELS)
    torch.testing.assert_close(sgm, torch.tensor([14.6146, 5.9489, 2.9183, 1.6156, 0.9324, 0.0]), atol=1e-3, rtol=0)


def test_time_and_noise_level_are_inverse_to_each_other():
    times = torch.tensor([0.0, 0.4, 17.25, 500.0, 998.9, 999.0])
    torch.testing.assert_close(LEVELS.time_of(LEVELS.sigma_at(times)), times, atol=1e-3, rtol=0)


def test_zero_terminal_snr_ends_in_pure_noise_and_begins_as_before():
    levels = levels_of(MINI)
    assert float(levels.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-12)
    assert float(levels.alphas_cumprod[0]) == pytest.approx(float(LEVELS.alphas_cumprod[0]))
    theirs = make_scheduler("ddim", MINI).alphas_cumprod.double()
    torch.testing.assert_close(levels.alphas_cumprod, theirs, atol=1e-5, rtol=0)
    assert math.isfinite(float(levels.sigmas[-1]))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++2m", "dpm++3m-sde", "diffusers-dpm-sde"])
def test_a_frame_does_not_depend_on_the_others_in_its_batch(sampler):
    def run(seeds: list[int]) -> Tensor:
        return sample(gaussian_v, frame_noise(seeds, (4, 6, 6)), sampler=sampler, count=5, seeds=seeds)

    together, alone = run([7, 8, 9]), run([8])
    assert torch.equal(together[1:2], alone)
    assert torch.equal(run([7, 8, 9]), together)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++2m"])
@pytest.mark.parametrize("schedule", [PUBLISHED_SCHEDULE, MINI], ids=["published", "mini"])
def test_a_start_is_kept_the_more_the_later_the_run_begins(sampler, schedule):
    start = torch.full((1, 4, 6, 6), 3.0)

    def distance(level: float) -> float:
        calls = []

        def keeping(x: Tensor, time: float) -> Tensor:
            calls.append(time)
            return -x if time > 998 else (x * 0)

        noise = frame_noise([1], (4, 6, 6))
        found = sample(keeping, noise, sampler=sampler, count=4, schedule=schedule, start=start, level=level)
        assert len(calls) == 4
        return float((found - start).abs().mean())

    assert distance(0.2) < distance(0.5) < distance(0.9)


def test_as_many_steps_are_run_as_asked_wherever_the_run_begins():
    assert skipped_steps(6, 0.6) == 4
    assert skipped_steps(6, 1.0) == 0
    assert skipped_steps(1, 0.1) == 9


def test_two_stretches_from_one_level_belong_to_one_path():
    like = torch.zeros(1, 4, 100, 100)
    source = path_noise([1], like)
    half, whole = source(4.0, 2.0), source(4.0, 1.0)
    assert float(half.std()) == pytest.approx(1, abs=0.02)
    assert float(whole.std()) == pytest.approx(1, abs=0.02)
    rest = whole * 3**0.5 - half * 2**0.5
    assert float(rest.std()) == pytest.approx(1, abs=0.02)
    assert float((rest * half).mean()) == pytest.approx(0, abs=0.02)
    assert abs(float((source(1.0, 0.5) * whole).mean())) < 0.02


def test_the_noise_on_the_way_is_no_copy_of_the_starting_noise():
    start = frame_noise([5], (4, 100, 100))
    assert abs(float((start * path_noise([5], start)(2.0, 1.0)).mean())) < 0.02


def test_the_background_outside_is_as_noisy_as_the_frame_and_clean_at_the_end():
    inside = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    inside[..., :3] = True
    background = torch.full((1, 4, 6, 6), 2.0)
    noise = frame_noise([1], (4, 6, 6))
    seen: list[tuple[float, Tensor]] = []

    def predict(x: Tensor, time: float) -> Tensor:
        seen.append((time, x))
        return gaussian_v(x, time)

    scheduler = make_scheduler("ddim", PUBLISHED_SCHEDULE)
    sample_scheduler(predict, noise, scheduler, 4, blend=Blend(inside, background))
    time, x = seen[-1]
    expected = scheduler.add_noise(background, noise, torch.tensor([int(time)]))
    torch.testing.assert_close(x[..., 3:], expected[..., 3:])
    assert not torch.allclose(x[..., :3], expected[..., :3])


def test_guidance_of_one_takes_the_plain_prediction_and_needs_no_other_row():
    assert Guidance().branches == ("cond",)
    rows = torch.arange(4.0).view(4, 1)
    assert torch.equal(combine(rows, Guidance()), rows)
    assert Guidance(1.0, 2.0).branches == ("cond", "uncond_sketch")
    assert combine(torch.tensor([[3.0], [1.0]]), Guidance(4.0)).item() == 1 + 4 * 2


def test_the_reference_is_seen_inside_the_window_and_not_in_the_gap():
    guidance = Guidance(window=(0.2, 0.9), off_window=(0.5, 0.6))
    seen = {progress: guidance.sees_reference(999 * (1 - progress)) for progress in (0.1, 0.3, 0.55, 0.8, 0.95)}
    assert seen == {0.1: False, 0.3: True, 0.55: False, 0.8: True, 0.95: False}
