"""The stages of the published systems: what their networks read of a batch of pictures, and what each one minimizes.

Spec: training, 2, 5, 6 and 7. Where the published programs disagree with themselves, this is what their released
settings do; what a recipe may say instead is in `sections`. They train mini too, whose networks are of the same kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from colorcli.model.attention import AttentionPlan, Region, SideFeatures
from colorcli.model.autoencoder import latents_of
from colorcli.model.build import Components
from colorcli.model.conditions import Encoders
from colorcli.model.conditions_v2 import SideEncoders, local_tokens
from colorcli.model.preprocess import clip_pixels, latent_mask, scale, stretch, tagger_pixels
from colorcli.model.reference import clip_tokens
from colorcli.model.scalars import crop_vector, pack_scalars
from colorcli.train.data.batch import Losses, PictureBatch, PictureSource
from colorcli.train.objectives.bleaching import Thresholds, bleach, merged_masks, with_holes, without_character
from colorcli.train.objectives.denoising import Reading, called, denoising_losses, dropped_maps
from colorcli.train.objectives.noise import chance
from colorcli.train.recipe import StageSection
from colorcli.train.turn import Turn

E = TypeVar("E", Encoders, SideEncoders)   # what reads the pictures of a batch
SIDE_CANVAS = 768.0   # the side encoders are told sizes as multiples of this many pixels


@dataclass(frozen=True)
class Chances:
    """How often each kind of hiding happens in a stage, and between which values masks are cut."""

    reference: float             # samples whose reference tokens are zero
    sketch: float = 0.0          # each sketch map of a sample
    hole: float = 0.0            # samples with a stranger's shape cut out of the reference
    white: float = 0.0           # samples before plain paper
    lowest: float = 0.01         # thresholds of masks
    highest: float = 0.99
    background: float = 0.0      # batches of the style stage that read the background too


# As published. `xl-refine` was never published with its settings: its share of white backgrounds is that of the SD2.1
# system, whose sketch maps are never dropped; `switch` has the reference dropout that its base model ended with.
PUBLISHED: dict[str, Chances] = {
    "xl-base": Chances(reference=0.2, sketch=0.1, hole=0.1),
    "xl-refine": Chances(reference=0.2, sketch=0.1, white=0.05),
    "v2-background": Chances(reference=0.5, white=0.05),
    "v2-style": Chances(reference=0.5, white=0.05),
    "switch": Chances(reference=0.5, lowest=0.05, highest=0.95),
}
LOWEST_WITH_GRAM = 0.05   # lowest threshold of holes where the second branch is on


def chances_of(stage: str, options: StageSection) -> Chances:
    """Give the published chances of a stage, with what a recipe says instead."""
    found = PUBLISHED[stage]
    if stage == "xl-base" and options.gram.weight:
        found = replace(found, lowest=LOWEST_WITH_GRAM)
    drop = options.drop
    said = {
        "reference": drop.reference, "sketch": drop.sketch, "hole": drop.hole, "white": drop.white_background,
        "lowest": drop.lowest_threshold, "highest": drop.highest_threshold, "background": drop.background_path,
    }
    return replace(found, **{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True)
class Draws:
    """Everything that chance decides about the inputs of a batch."""

    thresholds: Thresholds
    hole: Tensor                    # (B,) bool: a stranger's shape is cut out of the reference
    white: Tensor                   # (B,) bool: before plain paper
    level: Tensor                   # (B, 1, 1, 1) how white that paper is, 0..1
    sketch_keep: tuple[Tensor, ...]   # (B,) bool for each sketch map
    background: bool = False        # the style stage reads the background too

    @staticmethod
    def drawn(generator: torch.Generator, rows: int, maps: int, chances: Chances, device: torch.device) -> "Draws":
        """Draw for a batch."""
        cuts = torch.rand(2 * rows, generator=generator).to(device)
        return Draws(
            thresholds=Thresholds.of(cuts, chances.lowest, chances.highest),
            hole=chance(chances.hole, rows, generator, device),
            white=chance(chances.white, rows, generator, device),
            level=torch.rand(rows, 1, 1, 1, generator=generator).to(device),
            sketch_keep=tuple(~chance(chances.sketch, rows, generator, device) for _ in range(maps)),
            background=bool(torch.rand((), generator=generator) < chances.background),
        )


@dataclass(frozen=True)
class Prepared:
    """A batch as the denoising network takes it."""

    latents: Tensor                  # (B, C, h, w) clean, scaled
    read: Reading
    seen: PictureBatch | None = None        # the pictures as they were read: whitened, with holes
    behind: Tensor | None = None            # (B, 3, S, S) what was read as the background


def make_picture_batch(data: PictureSource, turn: Turn, size: int, options: StageSection) -> PictureBatch:
    """Choose pictures of one canvas."""
    return data.batch(turn, size)


# --- the XL system -------------------------------------------------------------------------------------------------


def xl_encoders(components: Components, generator: torch.Generator | None, *, tagger: bool = True) -> Encoders:
    """Give what reads pictures, as the published program trains with it: latents are a sample, not the mode.

    tagger: False leaves the tagger's tokens zero, to see what they are good for.
    """
    tower, projection, towers = components.tagger, components.projection, components.image_encoder
    assert tower is not None and projection is not None, "a model that reads keys by tokens"

    def read_tags(picture: Tensor) -> Tensor:
        tokens = tower(tagger_pixels(picture, tower.config["image_size"]))
        return tokens if tagger else torch.zeros_like(tokens)

    return Encoders(
        clip=lambda picture: clip_tokens(towers, clip_pixels(picture, towers.config.image_size)),
        tagger=read_tags,
        latents=lambda picture: latents_of(components.vae.encode(picture), generator).float(),
        projection=projection,
        sketch=lambda sketch: called(components.sketch_encoder, sketch),
        reference_net=components.reference_net,
        adapters=components.adapter.adapters() if components.adapter is not None else (),
        latent_scale=components.vae.config["scaling_factor"],
    )


def xl_base_inputs(encoders: Encoders, batch: PictureBatch, draws: Draws) -> Prepared:
    """Prepare a batch for the base model: some references get holes."""
    reference = with_holes(batch.reference, batch.reference_mask, draws.thresholds, draws.hole)
    maps = dropped_maps(encoders.sketch(batch.sketch), draws.sketch_keep)
    read = Reading(_tokens(encoders, reference), maps, picture_vector(batch), mask=batch.sketch_mask)
    latents = encoders.latent_scale * encoders.latents(batch.image)
    return Prepared(latents, read, replace(batch, reference=reference))


def xl_refine_inputs(encoders: Encoders, batch: PictureBatch, draws: Draws) -> Prepared:
    """Prepare a batch for the background plugin: no lines outside the character, the background read by itself.

    The cross-attention blends softly by the mask, so its thresholds decide only what is bleached; the attention to the
    bank keeps its own.
    """
    assert encoders.reference_net is not None, "the plugin is trained"
    seen, behind = _bleached(batch, draws, batch.reference_mask)
    height, width = batch.image.shape[2:]
    context = torch.cat([_tokens(encoders, batch.reference), _tokens(encoders, behind)], dim=1)  # (B, 2N, D)
    background = encoders.latent_scale * encoders.latents(stretch(behind, (height, width)))
    # The published trainer brings the two masks to the latents' size in two ways.
    masks = latent_mask(batch.sketch_mask), stretch(batch.reference_mask, (height // 8, width // 8))
    bank = encoders.reference_net(
        torch.cat([background, *(mask.to(background) for mask in masks)], dim=1),
        crop_vector(batch.crop[:, 0], batch.crop[:, 1], batch.crop[:, 2], batch.crop[:, 3]),
    )
    plan = AttentionPlan(
        region=Region(scale(batch.sketch_mask, 1 / 8), draws.thresholds.sketch, rule="soft"),
        bank=bank,
        adapters=encoders.adapters,
    )
    maps = dropped_maps(encoders.sketch(seen.sketch), draws.sketch_keep)
    read = Reading(context, maps, picture_vector(batch), plan, batch.sketch_mask)
    return Prepared(encoders.latent_scale * encoders.latents(seen.image), read, seen, behind)


def picture_vector(batch: PictureBatch) -> Tensor:
    """Give y of the denoising network, (B, 512): the side of what is seen in pixels of the original, and the score.

    Only the height tells how much smaller the picture is than its original, as in the published trainer.
    """
    height, width = batch.image.shape[2:]
    factor = batch.size[:, 0] / batch.size[:, 2]
    side = ((height * factor).floor() * (width * factor).floor()).sqrt()
    return pack_scalars([side, batch.score])


def _tokens(encoders: Encoders, picture: Tensor) -> Tensor:
    tokens: Tensor = called(encoders.projection, encoders.clip(picture), encoders.tagger(picture))
    return tokens


def _bleached(batch: PictureBatch, draws: Draws, reference_mask: Tensor) -> tuple[PictureBatch, Tensor]:
    """Give a batch with its backgrounds bleached, and what is to be read as the background, (B, 3, S, S)."""
    found = bleach(
        batch.image, batch.sketch, batch.reference, sketch_mask=batch.sketch_mask, reference_mask=reference_mask,
        thresholds=draws.thresholds, white=draws.white, level=draws.level,
    )
    return replace(batch, image=found.image, sketch=found.sketch), found.background_reference


def xl_base_losses(components: Components, batch: PictureBatch, turn: Turn, options: StageSection) -> Losses:
    """Denoise with the line art and the reference; with the Gram loss also under a stranger's reference."""
    return _losses("xl-base", _xl, xl_base_inputs, components, batch, turn, options)


def xl_refine_losses(components: Components, batch: PictureBatch, turn: Turn, options: StageSection) -> Losses:
    """Denoise with the background read by the ReferenceNet and the low-rank adapter."""
    return _losses("xl-refine", _xl, xl_refine_inputs, components, batch, turn, options)


def _xl(components: Components, generator: torch.Generator, options: StageSection) -> Encoders:
    return xl_encoders(components, generator, tagger=options.ablation.tagger)


def _losses(
    stage: str,
    encoders: Callable[[Components, torch.Generator, StageSection], E],
    prepare: Callable[[E, PictureBatch, Draws], Prepared],
    components: Components,
    batch: PictureBatch,
    turn: Turn,
    options: StageSection,
) -> Losses:
    """Draw what a stage leaves to chance, prepare the batch, and denoise it."""
    generator = turn.generator
    chances, maps = chances_of(stage, options), len(components.unet.down_blocks) + 1
    draws = Draws.drawn(generator, len(batch.image), maps, chances, batch.image.device)
    prepared = prepare(encoders(components, generator, options), batch, draws)
    return denoising_losses(
        components, prepared.latents, prepared.read, turn, generator, options, chances.reference
    )


# --- the SD2.1 system ----------------------------------------------------------------------------------------------


def side_encoders(components: Components, generator: torch.Generator | None) -> SideEncoders:
    """Give what reads pictures for the SD2.1 model, as it is trained with it."""
    tower = components.image_encoder
    background, style = components.background_encoder, components.style_encoder
    assert background is not None and style is not None, "a model with side encoders"
    return SideEncoders(
        clip=lambda picture: clip_tokens(tower, clip_pixels(picture, tower.config.image_size)),
        latents=lambda picture: latents_of(components.vae.encode(picture), generator).float(),
        sketch=lambda sketch: called(components.sketch_encoder, sketch),
        background=background,
        style=style,
        adapters=components.adapter.adapters() if components.adapter is not None else (),
        latent_scale=components.vae.config["scaling_factor"],
    )


def v2_background_inputs(encoders: SideEncoders, batch: PictureBatch, draws: Draws) -> Prepared:
    """Prepare a batch for the background stage: the holes of the background are two characters' together."""
    seen, behind = _bleached(batch, draws, merged_masks(batch.reference_mask))
    tokens, behind_tokens = (local_tokens(encoders.clip(picture)) for picture in (batch.reference, behind))
    latents = encoders.latent_scale * encoders.latents(stretch(behind, _canvas(batch)))
    hints = encoders.background(latents, original_size_vector(batch), tokens)
    plan = AttentionPlan(
        region=_region(batch, draws), adapters=encoders.adapters, sides=SideFeatures(hints=hints),
    )
    maps = dropped_maps(encoders.sketch(seen.sketch), draws.sketch_keep)
    read = Reading(torch.cat([tokens, behind_tokens], dim=1), maps, None, plan, batch.sketch_mask)
    return Prepared(encoders.latent_scale * encoders.latents(seen.image), read, seen, behind)


def v2_style_inputs(encoders: SideEncoders, batch: PictureBatch, draws: Draws) -> Prepared:
    """Prepare a batch for the style stage; if the draws say so, the background is read as in the stage before."""
    if draws.background:
        plain = v2_background_inputs(encoders, batch, draws)
    else:
        maps = dropped_maps(encoders.sketch(batch.sketch), draws.sketch_keep)
        read = Reading(local_tokens(encoders.clip(batch.reference)), maps, None, mask=batch.sketch_mask)
        plain = Prepared(encoders.latent_scale * encoders.latents(batch.image), read)
    tokens = plain.read.context.chunk(2, 1)[0] if draws.background else plain.read.context
    # The whole reference at its own size: what is read of it is a mean over all places.
    latents = encoders.latent_scale * encoders.latents(batch.reference)
    styles = encoders.style(latents, original_size_vector(batch), tokens)
    plan = replace(plain.read.plan, sides=replace(plain.read.plan.sides, styles=styles))
    return replace(plain, read=replace(plain.read, plan=plan))


def switch_inputs(encoders: SideEncoders, batch: PictureBatch, draws: Draws) -> Prepared:
    """Prepare a batch for the adapters alone: each side of the mask reads its own half of the context."""
    behind = without_character(batch.reference, batch.reference_mask, draws.thresholds)
    context = torch.cat([local_tokens(encoders.clip(picture)) for picture in (batch.reference, behind)], dim=1)
    plan = AttentionPlan(region=_region(batch, draws), adapters=encoders.adapters)
    maps = dropped_maps(encoders.sketch(batch.sketch), draws.sketch_keep)
    read = Reading(context, maps, None, plan, batch.sketch_mask)
    return Prepared(encoders.latent_scale * encoders.latents(batch.image), read)


def original_size_vector(batch: PictureBatch) -> Tensor:
    """Give y of the side encoders in training, (B, 512): height and width of the original, as multiples of 768."""
    return pack_scalars([batch.size[:, 0] / SIDE_CANVAS, batch.size[:, 1] / SIDE_CANVAS])


def _region(batch: PictureBatch, draws: Draws) -> Region:
    return Region(scale(batch.sketch_mask, 1 / 8), draws.thresholds.sketch)


def _canvas(batch: PictureBatch) -> tuple[int, int]:
    return batch.image.shape[2], batch.image.shape[3]


def v2_background_losses(components: Components, batch: PictureBatch, turn: Turn, options: StageSection) -> Losses:
    """Denoise with the background brought in through the skip connections and an adapter for each side of the mask."""
    return _losses("v2-background", _sides, v2_background_inputs, components, batch, turn, options)


def v2_style_losses(components: Components, batch: PictureBatch, turn: Turn, options: StageSection) -> Losses:
    """Denoise with the decoder modulated by the style of the whole reference."""
    return _losses("v2-style", _sides, v2_style_inputs, components, batch, turn, options)


def switch_losses(components: Components, batch: PictureBatch, turn: Turn, options: StageSection) -> Losses:
    """Denoise with an adapter for each side of the mask, and nothing else."""
    return _losses("switch", _sides, switch_inputs, components, batch, turn, options)


def _sides(components: Components, generator: torch.Generator, options: StageSection) -> SideEncoders:
    return side_encoders(components, generator)
