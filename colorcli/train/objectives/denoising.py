"""The published objective: denoise with the own reference, and keep the geometry under a stranger's.

Spec: training, 1.2, 2.2 and 3. Everything random is drawn from the generator that is handed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colorcli.errors import PresetError
from colorcli.model.attention import AttentionPlan
from colorcli.model.build import Components
from colorcli.model.preprocess import scale
from colorcli.model.unet import PLAIN, Sightings, features_of
from colorcli.train.data.batch import Losses
from colorcli.train.objectives.gram import gram_blocks, gram_loss, weight_at
from colorcli.train.objectives.noise import chance, offset_noise
from colorcli.train.recipe import StageSection
from colorcli.train.sections import DiffusionSection, GramSection
from colorcli.train.turn import Turn

TIMES = 1000
Prediction = Literal["v", "epsilon"]


@dataclass(frozen=True)
class Reading:
    """What the denoising network reads beside the noised latents of a batch."""

    context: Tensor                    # (B, M, D)
    sketch_maps: tuple[Tensor, ...]    # finest first
    y: Tensor | None                   # (B, y_dim)
    plan: AttentionPlan = PLAIN
    mask: Tensor | None = None         # (B, 1, H, W) the character in the picture, for losses that weight by it


@dataclass(frozen=True)
class Noised:
    """Latents on their way to noise, and what the network has to say of them."""

    latents: Tensor   # (B, C, h, w)
    target: Tensor    # (B, C, h, w)
    times: Tensor     # (B,) 0..999
    alphas: Tensor    # (B, 1, 1, 1) share of the signal's variance that is left


# --- noise and drops -----------------------------------------------------------------------------------------------


def add_noise(
    latents: Tensor, noise: Tensor, times: Tensor, alphas_cumprod: Tensor, prediction: Prediction = "v"
) -> Noised:
    """Noise clean latents (B, C, h, w) to their times (B,), whole numbers; noise is of the latents' shape."""
    alphas = alphas_cumprod.to(latents)[times][:, None, None, None]
    noised = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    target = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents if prediction == "v" else noise
    return Noised(noised, target, times, alphas)


def prediction_of(components: Components, section: DiffusionSection) -> Prediction:
    """Tell what the network predicts: as the recipe says, or else as the model's schedule does."""
    if section.prediction is not None:
        return section.prediction
    return "epsilon" if components.scheduler.config["prediction_type"] == "epsilon" else "v"


def dropped(context: Tensor, keep: Tensor) -> Tensor:
    """Set all tokens of samples (B, M, D) to zero that are not kept, (B,) of 0 and 1; they stay in their places."""
    return context * keep.to(context)[:, None, None]


def dropped_maps(maps: Sequence[Tensor], keep: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Set sketch maps (B, C, h, w) to zero for samples that are not kept, (B,) of 0 and 1 for each map."""
    return tuple(x * kept.to(x)[:, None, None, None] for x, kept in zip(maps, keep, strict=True))


# --- losses --------------------------------------------------------------------------------------------------------


def diffusion_loss(
    predicted: Tensor, noised: Noised, section: DiffusionSection, prediction: Prediction = "v",
    mask: Tensor | None = None,
) -> Tensor:
    """Give the mean squared error of what was predicted, (B, C, h, w), in float32."""
    errors = (predicted.float() - noised.target.float()).square()
    if section.masked:
        assert mask is not None, "a mask of what counts"
        errors = errors * scale(mask.float(), 1 / 8).clamp(0, 1)
    if section.min_snr:
        errors = errors * min_snr_weights(noised.alphas, section.min_snr, prediction)
    return errors.mean()


def min_snr_weights(alphas: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Weight noise levels by the smaller of gamma and signal to noise, over the latter (arXiv:2303.09556).

    For v one is added to the ratio of signal to noise. alphas: share of the signal's variance, any shape.
    """
    ratio = alphas / (1 - alphas) + (prediction == "v")
    return ratio.clamp_max(gamma) / ratio.clamp_min(torch.finfo(ratio.dtype).tiny)


def branch_losses(
    components: Components, noised: Noised, read: Reading, options: StageSection, weight: float
) -> Losses:
    """Denoise with the own reference; if the Gram loss has a weight, look once more with the neighbor's.

    Both branches see the same latents, noise, times, line art and vector condition. The second has no loss of its own.
    """
    names = compared_features(components, options.gram, len(read.context)) if weight else ()
    seen = Sightings(names)
    predicted = components.unet(
        noised.latents, noised.times.float(), read.y, read.context, read.sketch_maps, read.plan, seen
    )
    prediction = prediction_of(components, options.diffusion)
    diffusion = diffusion_loss(predicted, noised, options.diffusion, prediction, read.mask)
    losses = {"loss": diffusion, "diffusion": diffusion.detach()}
    if not weight:
        return losses
    return with_second_branch(losses, components, noised, read, options.gram, weight, seen.all)


def compared_features(components: Components, section: GramSection, rows: int) -> tuple[str, ...]:
    """Name the features that both branches are compared by; raises PresetError if a batch has no neighbors."""
    if rows < 2:
        raise PresetError("gram.weight asks for a second reference, but the batch is one picture",
                          hint="set batch to 2 or more")
    return gram_blocks(components.unet, section)


def with_second_branch(
    losses: Losses,
    components: Components,
    noised: Noised,
    read: Reading,
    section: GramSection,
    weight: float,
    aligned: Mapping[str, Tensor],
) -> Losses:
    """Add the weighted Gram loss between features of the first branch and those under the neighbors' references."""
    strange = strange_context(read.context, section)
    misaligned = features_of(
        components.unet, noised.latents, noised.times.float(), read.y, strange, read.sketch_maps, read.plan,
        list(aligned),
    )
    gram = gram_loss(list(aligned.values()), misaligned, section, read.mask)
    return losses | {"loss": losses["loss"] + weight * gram, "gram": gram.detach()}


def strange_context(context: Tensor, section: GramSection) -> Tensor:
    """Give every sample of (B, M, D) the reference of its neighbor in the batch, after whatever was dropped."""
    strange = context.roll(1, 0)
    return strange.detach() if section.detach_reference else strange


def denoising_losses(
    components: Components,
    latents: Tensor,
    read: Reading,
    turn: Turn,
    generator: torch.Generator,
    options: StageSection,
    reference_dropout: float,
) -> Losses:
    """Draw times, noise and who goes without a reference, and give the losses of a batch.

    latents: (B, C, h, w) clean and scaled. read: nothing dropped from its context yet.
    """
    section, rows, device = options.diffusion, len(latents), latents.device
    times = torch.randint(TIMES, (rows,), generator=generator).to(device)
    noise = offset_noise(latents, generator, section.offset_noise)
    prediction = prediction_of(components, section)
    noised = add_noise(latents, noise, times, components.alphas_cumprod, prediction)
    probability = (reference_dropout + options.drop.reference_late * times / (TIMES - 1)).clamp(0, 1)
    keep = ~chance(probability, rows, generator, device)
    kept = Reading(dropped(read.context, keep), read.sketch_maps, read.y, read.plan, read.mask)
    return branch_losses(components, noised, kept, options, weight_at(options.gram, turn.step / options.steps))


# --- memory --------------------------------------------------------------------------------------------------------


def recompute(components: Components, on: bool = True) -> None:
    """Choose whether what the gradient needs is computed anew instead of being kept (gradient checkpointing).

    It is for the transformer blocks of every U-shaped network, the sketch encoder and the projection.
    """
    for name in ("unet", "reference_net", "background_encoder", "style_encoder", "sketch_encoder", "projection"):
        module = getattr(components, name)
        if module is not None:
            module.recomputes = on


def called(module: nn.Module | Callable[..., Any], *inputs: Tensor) -> Any:
    """Call a network, keeping nothing for its gradient if `recompute` chose so."""
    if getattr(module, "recomputes", False) and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)
