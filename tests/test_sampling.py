"""Samplers against the closed form of a Gaussian, and what guidance, seeds and starts promise."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from colorcli.model.conditions import Conditions
from colorcli.presets import SamplerName, ScheduleName, schedules_of
from colorcli.sampling import (
    PUBLISHED_SCHEDULE,
    RANGE_SAMPLERS,
    SCHEDULERS,
    SIGMA_SAMPLERS,
    STEPS,
    Blend,
    Guidance,
    combine,
    denoiser,
    frame_noise,
    guided,
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
from colorcli.sampling.dpm_solver import ORDERS, dpm_adaptive, dpm_fast, fast_orders
from tests.golden.published_names import PUBLISHED_SAMPLERS, PUBLISHED_STEPS

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


def test_the_samplers_of_presets_are_those_there_are():
    assert sorted(get_args(SamplerName)) == sorted([*SIGMA_SAMPLERS, *RANGE_SAMPLERS, *SCHEDULERS])
    assert sorted(get_args(ScheduleName)) == sorted(["automatic", *STEPS])
    assert set(PUBLISHED_SAMPLERS.values()) <= set(get_args(SamplerName))
    assert set(PUBLISHED_STEPS.values()) == set(get_args(ScheduleName))


@pytest.mark.parametrize("sampler", sorted(SCHEDULERS))
def test_a_schedule_that_a_preset_may_name_changes_the_steps_and_any_other_would_not(sampler):
    def times(steps: str) -> list[float]:
        scheduler = make_scheduler(sampler, steps=steps)
        scheduler.set_timesteps(8)
        return [float(time) for time in scheduler.timesteps]

    changes = {steps for steps in get_args(ScheduleName) if times(steps) != times("automatic")}
    assert {"automatic", *changes} == set(schedules_of(sampler))


def end_at(x: Tensor, sigma: float, low: float) -> Tensor:
    """Where the noise-removing ODE has come to at noise level `low`."""
    return MEAN + (x - MEAN) * ((SPREAD**2 + low**2) / (SPREAD**2 + sigma**2)) ** 0.5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_half_the_step_leaves_the_error_of_its_order(order):
    x = frame_noise([1], (4, 5, 6)).double() * 10.0

    def error(count: int) -> float:
        levels = [10.0 * (0.1 / 10.0) ** (i / count) for i in range(count + 1)]
        found = x
        for sigma, sigma_next in pairwise(levels):
            slope = (found - gaussian(found, sigma)) / sigma
            found = ORDERS[order](gaussian, found, sigma, sigma_next, slope)
        return float((found - end_at(x, 10.0, 0.1)).abs().max())

    assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.25)


def test_dpm_fast_calls_the_network_as_often_as_it_was_told():
    for count in range(1, 25):
        orders, calls = fast_orders(count), []

        def counted(x: Tensor, sigma: float) -> Tensor:
            calls.append(sigma)  # noqa: B023 (called in this turn of the loop)
            return gaussian(x, sigma)

        dpm_fast(counted, torch.ones(1, 4, 2, 2), 14.0, 0.03, count, path_noise([1], torch.zeros(1, 4, 2, 2)))
        assert sum(orders) == len(calls) == count
        assert max(calls) == 14.0
        assert min(calls) > 0.03
    assert (fast_orders(8), fast_orders(9), fast_orders(10)) == ([3, 3, 2], [3, 3, 2, 1], [3, 3, 3, 1])


def test_dpm_solvers_follow_the_ode_to_the_lowest_noise_level():
    noise = frame_noise([1], (4, 5, 6)).double()
    high, low = 14.6, 0.03
    exact_end, source = end_at(noise * high, high, low), path_noise([1], noise)
    fast = dpm_fast(gaussian, noise * high, high, low, 30, source, eta=0.0)
    torch.testing.assert_close(fast, exact_end, atol=5e-3, rtol=0)
    calls = {}
    for relative in (0.05, 0.0005):
        seen = []
        found = dpm_adaptive(
            lambda x, sigma, seen=seen: (seen.append(sigma), gaussian(x, sigma))[1],
            noise * high, high, low, 0, source, eta=0.0, relative=relative, absolute=relative * 0.156,
        )  # fmt: skip
        calls[relative] = len(seen)
        torch.testing.assert_close(found, exact_end, atol=2 * relative, rtol=0)  # of numbers up to 2
    assert calls[0.05] < calls[0.0005] < 400


@pytest.mark.parametrize("sampler", sorted(RANGE_SAMPLERS))
def test_dpm_solvers_with_fresh_noise_draw_from_the_data(sampler):
    noise = frame_noise([3], (4, 50, 50))
    found = sample(gaussian_v, noise, sampler=sampler, count=60, seeds=[3])
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(found.std()) == pytest.approx(SPREAD, abs=0.06)


def test_an_adaptive_run_ends_even_if_the_network_says_nothing_sensible():
    calls = []

    def nonsense(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(len(calls))) * 1e4

    noise = frame_noise([1], (4, 4, 4))
    dpm_adaptive(nonsense, noise, 14.6, 0.03, 0, path_noise([1], noise))
    assert len(calls) < 1500
    assert bool(dpm_adaptive(lambda x, _: x * math.nan, noise, 14.6, 0.03, 0, path_noise([1], noise)).isnan().all())


@pytest.mark.parametrize("sampler", [*SIGMA_SAMPLERS, *RANGE_SAMPLERS, *SCHEDULERS])
def test_every_sampler_lays_the_background_in_after_every_step_but_the_last(sampler):
    inside = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    inside[..., :3] = True
    background = torch.full((1, 4, 6, 6), 2.0)
    noise = frame_noise([1], (4, 6, 6))
    seen: list[tuple[float, Tensor]] = []

    def predict(x: Tensor, time: float) -> Tensor:
        seen.append((time, x))
        return gaussian_v(x, time)

    def run(blend: Blend | None) -> Tensor:
        seen.clear()
        return sample(predict, noise, sampler=sampler, count=12, seeds=[1], blend=blend)

    alone = run(None)
    blended = run(Blend(inside, background))
    time, x = seen[-1]
    # Outside, a network that is right about other data moves the background only by the last step.
    assert float((blended[..., 3:] - 2.0).abs().mean()) < 0.35 * float((alone[..., 3:] - 2.0).abs().mean())
    if sampler in ("euler", "dpm++2m", "lms", "ddim", "diffusers-dpm"):  # the last call is the last step's only one
        sigma = float(LEVELS.sigma_at(time))
        expected = (background + sigma * noise) / (1 + sigma**2) ** 0.5
        torch.testing.assert_close(x[..., 3:], expected[..., 3:], atol=2e-3, rtol=1e-3)
        assert not torch.allclose(x[..., :3], expected[..., :3], atol=0.1)


STARTS = [sampler for sampler in [*SIGMA_SAMPLERS, *RANGE_SAMPLERS, *SCHEDULERS] if sampler != "diffusers-pndm"]


@pytest.mark.parametrize("schedule", [PUBLISHED_SCHEDULE, MINI], ids=["published", "mini"])
@pytest.mark.parametrize("sampler", STARTS)
def test_any_number_of_steps_from_any_start_gives_numbers(sampler, schedule):
    noise, start = frame_noise([1], (4, 4, 4)), torch.zeros(1, 4, 4, 4)
    for steps in schedules_of(sampler):
        for count in (1, 2, 3, 7, 100):
            for level in (1.0, 0.8, 0.3):
                found = sample(
                    lambda x, time: x * 0.1, noise, sampler=sampler, count=count, schedule=schedule, steps=steps,
                    seeds=[1], start=start, level=level,
                )  # fmt: skip
                assert bool(found.isfinite().all()), (steps, count, level)


@pytest.mark.parametrize("sampler", [*SIGMA_SAMPLERS, *RANGE_SAMPLERS, *SCHEDULERS])
def test_a_start_is_what_the_first_call_sees_under_the_noise_of_its_time(sampler):
    if sampler not in STARTS:
        pytest.skip("its first steps lead out of noise")
    noise, start = frame_noise([1], (4, 4, 4)), torch.full((1, 4, 4, 4), 3.0)
    seen: list[tuple[float, Tensor]] = []

    def predict(x: Tensor, time: float) -> Tensor:
        seen.append((time, x))
        return x * 0

    sample(predict, noise, sampler=sampler, count=8, seeds=[1], start=start, level=0.4)
    time, x = seen[0]
    sigma = float(LEVELS.sigma_at(time))
    assert 0.05 < time / 999 < 0.75  # a share of the steps, which may lie closer at the end
    torch.testing.assert_close(x, (start + sigma * noise) / (1 + sigma**2) ** 0.5, atol=2e-3, rtol=2e-3)


class CountingNetwork:
    """Predicts the mean of the sketch maps and, where it sees the reference, of the context; counts its rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x, time, y, context, maps, plan):
        self.rows.append(len(x))
        sees = torch.zeros(len(x))
        sees[list(range(len(x))) if plan.seeing_rows is None else plan.seeing_rows] = 1
        return x + maps[0].mean((1, 2, 3)).view(-1, 1, 1, 1) + (sees * context.mean()).view(-1, 1, 1, 1)


def drawn_conditions() -> Conditions:
    return Conditions(
        context=torch.full((1, 2, 3), 5.0), y=None, sketch_maps=(torch.ones(1, 1, 4, 4),),
        blank_maps=(torch.zeros(1, 1, 4, 4),), region=None,
    )


@pytest.mark.parametrize("sketch", [1.0, 2.0])
def test_where_the_reference_is_not_seen_the_row_without_it_is_not_computed_and_nothing_changes(sketch):
    network, x = CountingNetwork(), torch.randn(2, 1, 4, 4)
    narrow = Guidance(4.0, sketch, window=(0.0, 0.5))
    predict = guided(network, drawn_conditions(), narrow)
    inside, outside = predict(x, 900), predict(x, 100)
    more = 2 if sketch > 1 else 0
    assert network.rows == [4 + more, 2 + more]
    # By hand: the plain row says x + 1 (+ 5 with the reference), the one without a drawing x (+ 5).
    pushed = [x + 1 + 4 * 5.0] + ([x + 5 + sketch] if more else [])
    unseen = [x + 1] + ([x + sketch] if more else [])
    assert torch.allclose(inside, torch.stack(pushed).mean(0), atol=1e-5)
    assert torch.allclose(outside, torch.stack(unseen).mean(0), atol=1e-5)


def test_outside_the_guidance_window_one_row_is_enough_and_still_sees_the_reference():
    network, x = CountingNetwork(), torch.randn(1, 1, 4, 4)
    predict = guided(network, drawn_conditions(), Guidance(4.0, 2.0, push_window=(0.25, 0.75)))
    plain = [predict(x, time) for time in (999, 750, 249, 0)]
    assert [len(one) for one in plain] == [1, 1, 1, 1]
    predict(x, 500)
    assert network.rows == [1, 1, 1, 1, 3]
    assert all(torch.allclose(one, x + 1 + 5.0) for one in plain)
