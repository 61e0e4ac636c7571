"""Few-step distillation for mini: one step of the student is to do what two steps of its teacher do.

Progressive distillation (Salimans & Ho 2022, arXiv:2202.00512, algorithm 2) with v-prediction and deterministic steps.
A stage halves the count of steps once, so a recipe goes from 8 to 4, 2 and 1 in three stages; the teacher of each is
the model as it was when the stage began. Guidance is folded in: the student does alone what the teacher does guided
(Meng et al. 2022, arXiv:2210.03142, for one scale).
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from colorcli.model.autoencoder import latents_of
from colorcli.model.build import Components, last_features, size_condition
from colorcli.model.unet import PLAIN, Sightings
from colorcli.train.data.batch import Losses
from colorcli.train.data.batches import ColorBatch
from colorcli.train.objectives.mini import BACKGROUND_WEIGHT, MISMATCH_NOISE, context_of, mismatched
from colorcli.train.objectives.noise import normal
from colorcli.train.recipe import StageSection
from colorcli.train.turn import Turn

TEACHER = "teacher"   # its name beside the model
CLEAN = -1            # a time before the first: no noise is left
LAST = 999

Predict = Callable[[Tensor, Tensor], Tensor]   # latents (B, C, h, w), times (B,) -> v


def appoint_teacher(components: Components) -> None:
    """Keep a copy of the denoising network as it is now, for the student to learn from."""
    components.beside[TEACHER] = copy.deepcopy(components.unet).requires_grad_(False).eval()


def signal_and_noise(alphas_cumprod: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Give how much of a signal and of noise of unit variance there is at times (B,), `CLEAN` or more: (B, 1, 1, 1)."""
    shares = torch.where(times >= 0, alphas_cumprod[times.clamp_min(0)], torch.ones((), device=times.device))
    shares = shares[:, None, None, None]
    return shares.sqrt(), (1 - shares).sqrt()


def clean_of(noised: Tensor, v: Tensor, alphas_cumprod: Tensor, times: Tensor) -> Tensor:
    """Give the clean latents that a prediction v means."""
    signal, noise = signal_and_noise(alphas_cumprod, times)
    return signal * noised - noise * v


def v_of(noised: Tensor, clean: Tensor, alphas_cumprod: Tensor, times: Tensor) -> Tensor:
    """Give the prediction v that means clean latents: the inverse of `clean_of`; the times are not `CLEAN`."""
    signal, noise = signal_and_noise(alphas_cumprod, times)
    return (signal * noised - clean) / noise


def step(noised: Tensor, clean: Tensor, alphas_cumprod: Tensor, times: Tensor, next_times: Tensor) -> Tensor:
    """Take a deterministic step (DDIM, arXiv:2010.02502, equation 12 with no fresh noise) towards `clean` latents."""
    signal, noise = signal_and_noise(alphas_cumprod, times)
    next_signal, next_noise = signal_and_noise(alphas_cumprod, next_times)
    return next_signal * clean + next_noise / noise * (noised - signal * clean)


def two_steps(
    predict: Predict, noised: Tensor, alphas_cumprod: Tensor, times: Tensor, middle: Tensor, end: Tensor
) -> Tensor:
    """Give the clean latents to which one step from `times` to `end` leads where two steps over `middle` lead.

    noised: (B, C, h, w). times, middle, end: (B,) falling, `CLEAN` at the least.
    """
    half = step(noised, clean_of(noised, predict(noised, times), alphas_cumprod, times), alphas_cumprod, times, middle)
    # A middle without noise is where the run ends; the network is never asked there.
    asked = middle.clamp_min(0)
    clean = clean_of(half, predict(half, asked), alphas_cumprod, asked)
    reached = torch.where(
        (middle > CLEAN)[:, None, None, None], step(half, clean, alphas_cumprod, asked, end), half
    )
    signal, noise = signal_and_noise(alphas_cumprod, times)
    end_signal, end_noise = signal_and_noise(alphas_cumprod, end)
    ratio = end_noise / noise
    return (reached - ratio * noised) / (end_signal - ratio * signal)


def stretch(times: Tensor, teacher_steps: int) -> tuple[Tensor, Tensor]:
    """Give where a student's step from times (B,) comes by in its middle and where it ends.

    A run of n steps that begins at the last time makes steps of 1000 / n times, the last one to no noise at all.
    """
    length = (LAST + 1) // teacher_steps
    return (times - length).clamp_min(CLEAN), (times - 2 * length).clamp_min(CLEAN)


def distill_losses(components: Components, batch: ColorBatch, turn: Turn, options: StageSection) -> Losses:
    """The error of the student's v against that of the teacher's two steps, the character weighted over the background.

    The times are those of the student's run from noise in half of the samples, and any in the others: a run from a
    color match begins anywhere. The student's last features are held to the teacher's, for parts are read from them.
    """
    section, generator, device = options.distill, turn.generator, batch.flat.device
    unet, teacher = components.unet, components.beside[TEACHER]
    alphas = components.alphas_cumprod
    count = len(batch.flat)
    with torch.no_grad():
        latents = latents_of(components.vae.encode(batch.flat)).float() * components.vae.config["scaling_factor"]
        context = context_of(components, batch.reference, options)
        maps = tuple(components.sketch_encoder(batch.sketch))
    height, width = batch.flat.shape[-2:]
    y = size_condition(height, width).to(device).expand(count, -1)

    students = section.teacher_steps // 2
    run = LAST - torch.randint(students, (count,), generator=generator) * ((LAST + 1) // students)
    anywhere = torch.randint(LAST + 1, (count,), generator=generator)
    times = torch.where(torch.rand(count, generator=generator) < 0.5, run, anywhere).to(device)
    signal, deviation = signal_and_noise(alphas, times)
    begun = torch.where(deviation > MISMATCH_NOISE, mismatched(latents, batch.parts, generator), latents)
    noised = signal * begun + deviation * normal(latents.shape, generator, device)

    last = last_features(unet)
    shown: list[Tensor] = []

    def predict(x: Tensor, at: Tensor) -> Tensor:
        seen = Sightings((last,))
        v = teacher(x, at.float(), y, context, maps, PLAIN, seen).float()
        shown.append(seen.all[last])
        if section.guidance <= 1:
            return v
        alone = teacher(x, at.float(), y, torch.zeros_like(context), maps).float()
        return alone + section.guidance * (v - alone)

    with torch.no_grad():
        clean = two_steps(predict, noised, alphas, times, *stretch(times, section.teacher_steps))
    target = v_of(noised, clean, alphas, times)
    seen = Sightings((last,))
    predicted = unet(noised, times.float(), y, context, maps, PLAIN, seen).float()
    share = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * batch.mask
    error = ((predicted - target).square() * share).sum() / (share.sum() * latents.shape[1])
    taught = shown[0].float()
    drift = (seen.all[last].float() - taught).square().mean() / taught.var().clamp_min(1e-6)
    return {"loss": error + section.keep * drift, "distilled": error.detach(), "drift": drift.detach()}
