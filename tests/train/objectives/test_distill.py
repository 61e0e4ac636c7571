"""Few-step distillation against closed forms: a Gaussian, whose way out of noise is known, and diffusers' DDIM."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from colorcli.errors import PresetError
from colorcli.model.build import Components, build_components
from colorcli.sampling import scaled_linear
from colorcli.train.data.batches import ColorBatch
from colorcli.train.objectives.distill import (
    CLEAN,
    LAST,
    TEACHER,
    appoint_teacher,
    clean_of,
    distill_losses,
    signal_and_noise,
    step,
    stretch,
    two_steps,
    v_of,
)
from colorcli.train.recipe import StageSection, read_recipe
from colorcli.train.sections import DistillSection
from colorcli.train.stages import trained_modules
from colorcli.train.turn import Turn
from colorcli.variants import MINI

ALPHAS = scaled_linear(zero_terminal_snr=True).alphas_cumprod
MEAN, SPREAD = 0.7, 0.5   # of the Gaussian that the toy's pictures come from

Clean = Callable[[Tensor, Tensor], Tensor]   # latents, times -> clean latents


def gaussian(noised: Tensor, times: Tensor) -> Tensor:
    """What a perfect network sees: the mean of all pictures that may have become these latents."""
    signal, noise = signal_and_noise(ALPHAS, times)
    spread = signal**2 * SPREAD**2 + noise**2
    return MEAN + SPREAD**2 * signal / spread * (noised - signal * MEAN)


def flow(noised: Tensor, times: Tensor, end: Tensor) -> Tensor:
    """Where infinitely many steps lead: on a Gaussian every picture keeps its place in units of the spread."""
    places = []
    for at in (times, end):
        signal, noise = signal_and_noise(ALPHAS, at)
        places.append((signal * MEAN, (signal**2 * SPREAD**2 + noise**2).sqrt()))
    (middle, spread), (end_middle, end_spread) = places
    return end_middle + end_spread * (noised - middle) / spread


def student_of(teacher: Clean, teacher_steps: int) -> Clean:
    """The perfect student: what training strives for, as a function."""

    def clean(noised: Tensor, times: Tensor) -> Tensor:
        def predict(x: Tensor, at: Tensor) -> Tensor:
            return v_of(x, teacher(x, at), ALPHAS, at)

        return two_steps(predict, noised, ALPHAS, times, *stretch(times, teacher_steps))

    return clean


def run(model: Clean, noise: Tensor, steps: int) -> Tensor:
    """Draw pictures out of noise in some steps."""
    x, times = noise, torch.full((len(noise),), LAST)
    for _ in range(steps):
        end = (times - (LAST + 1) // steps).clamp_min(CLEAN)
        x, times = step(x, model(x, times), ALPHAS, times, end), end
    return x


@pytest.fixture
def noise() -> Tensor:
    return torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None, None, None]


def test_a_step_is_that_of_diffusers(noise):
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                              prediction_type="v_prediction", rescale_betas_zero_snr=True,
                              timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(8)
    x = noise.float()
    for time in scheduler.timesteps:
        times = torch.full((len(x),), int(time))
        v = torch.sin(3 * x)
        expected = scheduler.step(v, time, x).prev_sample
        alphas = scheduler.alphas_cumprod
        x = step(x, clean_of(x, v, alphas, times), alphas, times, (times - 125).clamp_min(CLEAN))
        torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)
    assert int(times[0]) == 124   # the last one ended without noise


def test_one_step_of_a_perfect_student_ends_where_two_of_the_teacher_end(noise):
    x = run(gaussian, noise, 4)
    torch.testing.assert_close(run(student_of(gaussian, 4), noise, 2), x, atol=1e-10, rtol=0)


def test_a_chain_of_students_does_in_one_step_what_many_steps_do(noise):
    start, end = torch.full((13,), LAST), torch.full((13,), CLEAN)
    exact = flow(noise, start, end)
    torch.testing.assert_close(exact, MEAN + SPREAD * noise, atol=1e-6, rtol=0)   # from noise alone
    model: Clean = gaussian
    for steps in (100, 50):
        model = student_of(model, 2 * steps)
    assert (run(model, noise, 50) - run(gaussian, noise, 200)).abs().max() < 1e-9
    model = gaussian
    for steps in (8, 4, 2):
        model = student_of(model, steps)
    in_one, alone = (run(one, noise, 1) for one in (model, gaussian))
    assert (alone - MEAN).abs().max() < 1e-6           # a network that was not taught paints the mean of all pictures
    assert (in_one - run(gaussian, noise, 8)).abs().max() < 1e-9
    assert (in_one - exact).abs().max() < 0.35 * (alone - exact).abs().max()


def test_more_steps_of_the_first_teacher_bring_the_student_nearer_to_the_truth(noise):
    exact = MEAN + SPREAD * noise
    errors = []
    for first in (2, 4, 8):
        model: Clean = gaussian
        for steps in [8, 4, 2][-int(np.log2(first)):]:
            model = student_of(model, steps)
        errors.append(float((run(model, noise, 1) - exact).abs().max()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.5 * errors[0]


def test_a_step_that_ends_before_its_middle_asks_the_teacher_once():
    asked: list[int] = []

    def predict(x: Tensor, at: Tensor) -> Tensor:
        asked.append(int(at[0]))
        return v_of(x, gaussian(x, at), ALPHAS, at)

    x, times = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64), torch.tensor([60])
    middle, end = stretch(times, 8)
    assert (int(middle), int(end)) == (CLEAN, CLEAN)
    clean = two_steps(predict, x, ALPHAS, times, middle, end)
    torch.testing.assert_close(clean, gaussian(x, times))   # whatever was asked at a middle without noise


def test_a_student_learns_the_jump_by_gradient(noise):
    """A line through the places of a Gaussian has two numbers, which the loss of the stage finds."""
    times = torch.full((13,), LAST)
    middle, end = stretch(times, 2)
    target = v_of(noise, two_steps(lambda x, at: v_of(x, gaussian(x, at), ALPHAS, at), noise, ALPHAS, times, middle,
                                   end), ALPHAS, times)
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=50)

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (line[0] + line[1] * noise - target).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    clean = clean_of(noise, (line[0] + line[1] * noise).detach(), ALPHAS, times)
    torch.testing.assert_close(clean, run(gaussian, noise, 2), atol=1e-6, rtol=0)


# --- the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def components() -> Components:
    torch.manual_seed(0)
    made = build_components(MINI, 6, 4)
    torch.nn.init.normal_(made.unet.conv_out.weight, std=0.05)
    made.freeze()
    return made


def batch(seed: int = 0) -> ColorBatch:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    parts = torch.rand(2, 6, 8, 8, generator=generator).softmax(1)
    reference = torch.rand(2, 3, 256, 256, generator=generator) * 2 - 1
    return ColorBatch(picture, -picture.abs(), torch.ones(2, 1, 8, 8), parts, reference)


def options(**distill) -> StageSection:
    return StageSection(name="distill", steps=1, batch=2, rate=1e-3, distill=DistillSection(**distill))


def test_only_the_student_learns_and_its_teacher_stays(components):
    appoint_teacher(components)
    components.freeze()
    modules = trained_modules(components, "distill")
    assert set(modules) == {"unet"}
    modules["unet"].requires_grad_(True)
    before = {name: value.clone() for name, value in components.beside[TEACHER].state_dict().items()}
    losses = distill_losses(components, batch(), Turn(1, "distill", 0), options(teacher_steps=4))
    losses["loss"].backward()
    moved = {name for name, module in components.modules() for p in module.parameters() if p.grad is not None}
    assert moved == {"unet"} and float(losses["drift"]) == 0   # it still is its teacher's twin
    with torch.no_grad():
        for value in components.unet.parameters():
            value.add_(1e-3)
    components.freeze()
    assert all(torch.equal(before[name], x) for name, x in components.beside[TEACHER].state_dict().items())
    later = distill_losses(components, batch(), Turn(1, "distill", 0), options(teacher_steps=4))
    assert float(later["drift"]) > 0


def test_guidance_is_folded_into_what_the_student_learns(components):
    """A teacher whose v is the mean of its context plus a constant has a guided v that is scaled in the mean alone."""
    kept = components.unet

    class Says(torch.nn.Module):
        """Predicts clean latents of one number, which the context moves; tells features as a network does."""

        def __init__(self, moved: float) -> None:
            super().__init__()
            self.moved = moved
            self.up_blocks = kept.up_blocks

        def forward(self, x, times, y, context, maps, plan=None, observe=None):
            if observe is not None:
                observe("output.8", torch.rand(2, 64, 8, 8))
            seen = (context.abs().sum((1, 2)) > 0).float()[:, None, None, None]
            return v_of(x, (0.2 + self.moved * seen).expand_as(x), components.alphas_cumprod, times.long())

    def error(moved: float, guidance: float) -> float:
        components.unet, components.beside[TEACHER] = Says(moved), Says(0.1)
        found = distill_losses(components, batch(), Turn(1, "distill", 0), options(teacher_steps=4, guidance=guidance))
        return float(found["distilled"])

    try:
        assert error(0.1, 1.0) < 1e-8
        assert error(0.3, 3.0) < 1e-8   # 0 + 3 * 0.1
        assert error(0.1, 3.0) > 1e-3
    finally:
        components.unet = kept


@pytest.mark.parametrize(("steps", "message"), [(3, "half of it is no whole number"), (1, "2 to 500")])
def test_steps_that_cannot_be_halved_are_refused(tmp_path, steps, message):
    path = tmp_path / "few.yaml"
    path.write_text("name: few\nstages:\n  - {name: distill, steps: 1, batch: 2, rate: 1.0e-4, "
                    f"distill: {{teacher_steps: {steps}}}}}\n")
    with pytest.raises(PresetError, match=message):
        read_recipe(path)
