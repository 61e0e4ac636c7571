"""The stages of mini: what its networks see of generated drawings, and what each of them minimizes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from colorcli.model.autoencoder import latents_of
from colorcli.model.build import Components, last_features, reference_tokens, size_condition
from colorcli.model.matcher import RegionMatcher, color_scores
from colorcli.model.unet import PLAIN, Sightings
from colorcli.train.data.batch import Losses
from colorcli.train.data.batches import (
    ColorBatch,
    PairBatch,
    SketchBatch,
    TaggerBatch,
    color_batch,
    pair_batch,
    sketch_batch,
    tagger_batch,
)
from colorcli.train.data.characters import CharacterSet
from colorcli.train.data.pairs import PairSet, RegionPair
from colorcli.train.objectives.denoising import Noised, Reading, called, compared_features, dropped, with_second_branch
from colorcli.train.objectives.gram import weight_at
from colorcli.train.objectives.noise import chance, normal, offset_noise
from colorcli.train.recipe import StageSection
from colorcli.train.turn import Turn

MAP_WEIGHTS = (1.0, 0.3, 0.2, 0.2)  # weight of each sketch map's part loss, finest first
BACKGROUND_WEIGHT = 0.15  # weight of a cell outside the character in the diffusion loss
FEATURE_PART_WEIGHT = 0.2  # of the part loss on the U-Net's last features: parts first, color second
MAP_PART_WEIGHT = 0.05     # keeps the parts in the sketch maps alive
REFERENCE_DROPOUT = 0.1  # share of samples that see no reference
MISMATCH_SHARE = 0.15              # share of samples that start from wrong colors
MISMATCH_NOISE = 0.5               # standard deviation of the noise above which they do
SMALL_REGION_PX, SMALL_REGION_WEIGHT = 40, 0.3  # regions that `evaluate` does not count
OFFSET_NOISE = 0.05                # one more normal draw for each sample and channel
AUTOENCODER_NOISE = 0.03           # standard deviation of what the decoder learns to overlook
SAME_POSE = {"mixed": 0.15, "other": 0.0, "same": 1.0}  # share of samples whose reference is the drawing itself


def part_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy between part logits and part shares, both (B, parts, h, w); the background counts less.

    Where only one side has the finer grid, the shares are averaged to the grid of the logits.
    """
    if shares.shape[-2:] != logits.shape[-2:]:
        shares = F.adaptive_avg_pool2d(shares, (logits.shape[2], logits.shape[3]))
    weight = (1.0 - shares[:, 0]).clamp_min(BACKGROUND_WEIGHT)  # (B, h, w)
    loss = -(shares * logits.float().log_softmax(1)).sum(1)
    return (loss * weight).sum() / weight.sum()


def part_accuracy(logits: Tensor, shares: Tensor) -> Tensor:
    """Share of the character's cells whose most likely part is the largest one."""
    if shares.shape[-2:] != logits.shape[-2:]:
        shares = F.adaptive_avg_pool2d(shares, (logits.shape[2], logits.shape[3]))
    inside = shares[:, 0] < 0.5
    truth = shares.clone()
    truth[:, 0] = 0.0
    right = (logits[:, 1:].argmax(1) + 1 == truth.argmax(1)) & inside
    return right.sum() / inside.sum().clamp_min(1)


def make_color_batch(data: CharacterSet, turn: Turn, size: int, options: StageSection) -> ColorBatch:
    """Choose drawings of one canvas, and for each another one of its character, or as the options say."""
    rng = turn.rng
    return color_batch(data.pairs(rng, size, SAME_POSE[options.ablation.reference]), rng)


def autoencoder_losses(components: Components, batch: ColorBatch, turn: Turn, options: StageSection) -> Losses:
    """Reconstruct color layers: mean absolute error, plus the size of what the latents add to the mean color."""
    pictures = batch.flat
    latents = latents_of(components.vae.encode(pictures)).float()
    noisy = latents + AUTOENCODER_NOISE * normal(latents.shape, turn.generator, latents.device)
    error = (components.vae.decode(noisy).sample.float() - pictures).abs().mean()
    drift = (latents[:, :3] - F.avg_pool2d(pictures, 8)).square().mean() + latents[:, 3:].square().mean()
    return {"loss": error + 0.02 * drift, "error": error.detach()}


def make_tagger_batch(data: CharacterSet, turn: Turn, size: int, options: StageSection) -> TaggerBatch:
    """Choose drawings of any canvas."""
    rng = turn.rng
    return tagger_batch(data.samples(rng, size), rng)


def tagger_losses(components: Components, batch: TaggerBatch, turn: Turn, options: StageSection) -> Losses:
    """Part and color of every cell, tags of the whole: cross-entropies, and the mean color of color drawings."""
    shown, tagger, head = batch, components.tagger, components.token_head
    assert tagger is not None and head is not None
    tokens = tagger(shown.pictures.flip(1))  # towers of this kind take BGR
    logits = head.part_logits(tokens)
    parts = part_loss(logits, shown.parts)
    colored = shown.is_color
    color = (head.colors(tokens[colored]).float() - shown.colors[colored]).abs().mean()
    tags = F.binary_cross_entropy_with_logits(head.tag_logits(tokens).float(), shown.tags)
    with torch.no_grad():
        on_color = part_accuracy(logits[colored], shown.parts[colored])
        on_line = part_accuracy(logits[~colored], shown.parts[~colored])
    return {
        "loss": parts + color + 0.3 * tags,
        "parts": parts.detach(),
        "color": color.detach(),
        "on_color": on_color,
        "on_line": on_line,
    }


def make_sketch_batch(data: CharacterSet, turn: Turn, size: int, options: StageSection) -> SketchBatch:
    """Choose line art of one canvas."""
    rng = turn.rng
    return sketch_batch(data.pairs(rng, size).targets, rng)


def sketch_losses(components: Components, batch: SketchBatch, turn: Turn, options: StageSection) -> Losses:
    """Parts read from each of the sketch maps."""
    assert components.map_head is not None
    logits = components.map_head(components.sketch_encoder(batch.sketch))
    loss = _map_loss(logits, batch.parts)
    return {"loss": loss, "accuracy": part_accuracy(logits[0].detach(), batch.parts)}


def _map_loss(logits: list[Tensor], parts: Tensor) -> Tensor:
    """Sum up the part losses of all sketch maps, the finest counting most."""
    losses = [weight * part_loss(level, parts) for weight, level in zip(MAP_WEIGHTS, logits, strict=True)]
    return torch.stack(losses).sum()


def colorizer_losses(components: Components, batch: ColorBatch, turn: Turn, options: StageSection) -> Losses:
    """v-prediction on color latents, the character weighted over the background; with the Gram loss in two branches.

    Half of the timesteps are uniform, half lean to high noise (square root of a uniform draw), where the color of a
    part is decided.
    """
    shown, generator, device = batch, turn.generator, batch.flat.device
    assert components.feature_head is not None and components.map_head is not None
    count = len(shown.flat)
    with torch.no_grad():
        latents = latents_of(components.vae.encode(shown.flat)).float() * components.vae.config["scaling_factor"]
    noise = offset_noise(latents, generator, OFFSET_NOISE)
    draws = torch.rand(count, generator=generator)
    draws[count // 2 :] = draws[count // 2 :].sqrt()
    steps = (draws * 1000).long().clamp(0, 999).to(device)
    alphas = components.alphas_cumprod[steps][:, None, None, None]
    begun = torch.where((1 - alphas).sqrt() > MISMATCH_NOISE, mismatched(latents, shown.parts, generator), latents)
    noised = alphas.sqrt() * begun + (1 - alphas).sqrt() * noise
    # The v that leads from the noised latents to the true ones, whatever they were noised from.
    target = (alphas.sqrt() * noised - latents) / (1 - alphas).sqrt()

    tokens = context_of(components, shown.reference, options)
    keep = ~chance(REFERENCE_DROPOUT, count, generator, device)
    maps = tuple(called(components.sketch_encoder, shown.sketch))
    height, width = shown.flat.shape[-2:]
    y = size_condition(height, width).to(device).expand(count, -1)
    read = Reading(dropped(tokens, keep), maps, y, mask=shown.mask)
    weight = weight_at(options.gram, turn.step / options.steps)
    compared = compared_features(components, options.gram, count) if weight else ()
    last = last_features(components.unet)
    seen = Sightings((last, *compared))
    predicted = components.unet(noised, steps.float(), y, read.context, maps, PLAIN, seen)

    share = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * shown.mask
    diffusion = ((predicted.float() - target).square() * share).sum() / (share.sum() * latents.shape[1])
    features = seen.all
    logits = components.feature_head(features[last])
    parts = part_loss(logits, shown.parts)
    map_parts = _map_loss(components.map_head(maps), shown.parts)
    losses = {
        "loss": diffusion + FEATURE_PART_WEIGHT * parts + MAP_PART_WEIGHT * map_parts,
        "diffusion": diffusion.detach(),
        "parts": parts.detach(),
        "accuracy": part_accuracy(logits.detach(), shown.parts),
    }
    if not weight:
        return losses
    aligned = {name: features[name] for name in compared}
    at = Noised(noised, target, steps, alphas)
    return with_second_branch(losses, components, at, read, options.gram, weight, aligned)


def context_of(components: Components, reference: Tensor, options: StageSection) -> Tensor:
    """Read references (B, 3, H, W) as context tokens (B, N, C)."""
    assert components.projection is not None
    clip, tags = reference_tokens(components, reference)
    seen_tags = tags if options.ablation.tagger else torch.zeros_like(tags)
    return torch.as_tensor(called(components.projection, clip, seen_tags))


def mismatched(latents: Tensor, parts: Tensor, generator: torch.Generator) -> Tensor:
    """Give some samples the mistakes of a color match: one part has the mean color of another.

    latents: (B, C, h, w). parts: (B, parts, h, w) shares. So the model learns to trust the key more than its start.
    """
    begun = latents.clone()
    largest = parts.argmax(1)  # (B, h, w)
    for row in range(len(latents)):
        there = largest[row].unique()
        if len(there) < 3 or torch.rand((), generator=generator) > MISMATCH_SHARE:
            continue
        for _ in range(2):
            wrong, color = there[1:][torch.randint(len(there) - 1, (2,), generator=generator).to(there.device)]
            begun[row][:, largest[row] == wrong] = latents[row][:, largest[row] == color].mean(1, keepdim=True)
    return begun


def make_pair_batch(data: PairSet, turn: Turn, size: int, options: StageSection) -> PairBatch:
    """Choose pairs of a frame and its key."""
    return PairBatch(tuple(data.batch(turn.rng, size)))


def matcher_losses(components: Components, batch: PairBatch, turn: Turn, options: StageSection) -> Losses:
    """Cross-entropy of the right palette color for each region of a frame, tiny regions counted less.

    Regions whose color the key does not show teach nothing. In training both pictures are mirrored, the key's palette
    gets other colors, and the readings are shaken, all at random.
    """
    assert components.matcher is not None
    shown = pair_batch(batch.pairs, turn.rng if components.matcher.training else None)
    return color_losses(components.matcher, batch.pairs, shown)


def color_losses(matcher: RegionMatcher, pairs: Sequence[RegionPair], shown: tuple[Tensor, ...]) -> Losses:
    """Give the matcher's loss and accuracy on pairs; `shown`: what it sees of them, see `pair_batch`."""
    logits = matcher(*shown)
    total, right, weights = logits.new_zeros((), dtype=torch.float32), 0.0, 0.0
    for row, pair in zip(logits.float(), pairs, strict=True):
        pair_logits = row[: len(pair.frame), : len(pair.key)]
        scores = color_scores(pair_logits, pair.color_of, pair.rule, matcher.rule_share).log_softmax(1)  # (R, K)
        known = pair.right.any(1)
        weight = torch.where(pair.pixels >= SMALL_REGION_PX, 1.0, SMALL_REGION_WEIGHT) * known
        correct = (scores.exp() * pair.right).sum(1).clamp_min(1e-6)
        total = total - (weight * correct.log()).sum()
        chosen = pair.right.gather(1, scores.argmax(1, keepdim=True))[:, 0]
        right += float((weight * chosen).sum())
        weights += float(weight.sum())
    return {"loss": total / max(weights, 1.0), "accuracy": torch.tensor(right / max(weights, 1.0))}
