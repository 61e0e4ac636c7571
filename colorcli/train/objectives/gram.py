"""The Gram loss: whatever the reference, the relations between the places of a picture stay as they are.

A Gram matrix holds the cosines between all pairs of tokens of one layer: where things are, not what they look like.
The loss compares it between two passes of the network that differ in the reference only (arXiv:2603.05971).
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from colorcli.errors import PresetError
from colorcli.model.unet import places
from colorcli.train.sections import GramSection

PUBLISHED_BLOCKS = (23, 63)   # of 70, from 1: those before the last of the encoder's and the decoder's deepest level
PUBLISHED_COUNT = 70
STANDARD_EPS = 1e-6
LARGEST_CROSS_ENTROPY = 100.0  # of a relation that is there in one matrix only; torch cuts logarithms there too


def gram_matrices(tokens: Tensor, *, normalize: bool = True, standardize: bool = False) -> Tensor:
    """Give the products of all pairs of tokens, (B, N, N) float32, of tokens (B, N, C).

    normalize: of unit tokens, so that they are cosines. standardize: every channel has mean 0 and deviation 1 over the
    tokens first.
    """
    x = tokens.float()
    if standardize:
        x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + STANDARD_EPS)
    if normalize:
        x = F.normalize(x, dim=2)
    return x @ x.mT


def gram_loss(
    aligned: Sequence[Tensor], misaligned: Sequence[Tensor], section: GramSection, mask: Tensor | None = None
) -> Tensor:
    """Sum up over some layers how far the second pass's relations are from the first's, which gets no gradient.

    aligned, misaligned: features of the layers, (B, N, C) each. mask: (B, 1, H, W), the character in the picture, for
    mask weighting. The section's weight is not in it; see `weight_at`.
    """
    assert len(aligned) == len(misaligned) > 0, (len(aligned), len(misaligned))
    total = misaligned[0].new_zeros((), dtype=torch.float32)
    # Sums over a thousand tokens are beyond half precision, and a cosine near 1 has no digits left in it.
    with torch.autocast(total.device.type, enabled=False):
        for anchor, second in zip(aligned, misaligned, strict=True):
            target, found = (
                gram_matrices(x, normalize=section.form == "cosine", standardize=section.standardize)
                for x in (anchor.detach(), second)
            )
            if section.normalize_rows:
                target, found = F.normalize(target, dim=2), F.normalize(found, dim=2)
            inside = None
            if section.mask_weighting:
                assert mask is not None, "a mask to weight by"
                inside = token_mask(mask, target.shape[1], section.mask_threshold)
            total = total + VARIANTS[section.variant](target, found, section, inside)
    return total


def token_mask(mask: Tensor, tokens: int, threshold: float) -> Tensor:
    """Give which of a layer's tokens are in the character, (B, N) of 0 and 1: the mask's nearest pixel is above."""
    rows, columns = token_grid(tokens, mask.shape[2] / mask.shape[3])
    return (F.interpolate(mask.float(), (rows, columns), mode="nearest") > threshold).flatten(1).float()


def token_grid(tokens: int, aspect: float) -> tuple[int, int]:
    """Give the rows and columns of a map of so many tokens, whose height over width is about `aspect`."""
    rows = [n for n in range(1, tokens + 1) if tokens % n == 0]
    best = min(rows, key=lambda n: abs(math.log(n * n / tokens / aspect)))
    return best, tokens // best


def weight_at(section: GramSection, progress: float) -> float:
    """Give the weight of the loss at a point of the stage, 0..1: 0 before the start, then at once or by a ramp."""
    if section.weight == 0 or progress < section.start:
        return 0.0
    return section.weight * (min(1.0, (progress - section.start) / section.ramp) if section.ramp else 1.0)


def gram_blocks(unet: UNet2DConditionModel, section: GramSection) -> tuple[str, ...]:
    """Name what of which transformer blocks is compared, as `denoise` tells it.

    If the section does not say, it is as published for the published network, and the last block of the encoder's and
    of the decoder's deepest level in any other. Raises PresetError if the network has not so many blocks.
    """
    found = places(unet)
    numbers = section.blocks
    if numbers is None and len(found) == PUBLISHED_COUNT:
        numbers = PUBLISHED_BLOCKS
    elif numbers is None:
        deepest = [(number, place.part) for number, place in enumerate(found, 1) if place.deepest]
        numbers = tuple(max(number for number, at in deepest if at == part) for part in ("encoder", "decoder"))
    if not numbers or max(numbers) > len(found) or min(numbers) < 1:
        raise PresetError(
            f"gram.blocks is {list(numbers)}, but the network has the blocks 1 to {len(found)}",
            hint="leave gram.blocks out for those that suit the network",
        )
    return tuple(f"{section.feature}.{number - 1}" for number in numbers)


# --- how two matrices are compared ---------------------------------------------------------------------------------
# target and found are (B, N, N), inside is (B, N) of 0 and 1 or None; target has no gradient.


def _squares(target: Tensor, found: Tensor, section: GramSection, inside: Tensor | None) -> Tensor:
    squares = (found - target).square()
    if inside is not None:
        squares = squares * inside[:, :, None] * inside[:, None, :]
    # The paper writes the sum of a picture's; the published program takes the mean over all entries, masked or not.
    return squares.sum((1, 2)).mean() if section.form == "paper" else squares.mean()


def _row_divergence(target: Tensor, found: Tensor, section: GramSection, inside: Tensor | None) -> Tensor:
    wanted, given = ((x / section.temperature).log_softmax(2) for x in (target, found))
    return F.kl_div(given, wanted, reduction="sum", log_target=True) / len(target)


def _ranking(target: Tensor, found: Tensor, section: GramSection, inside: Tensor | None) -> Tensor:
    related = target > row_thresholds(target, section.spread)
    strongest_other = found.masked_fill(related, -torch.inf).amax(2)
    weakest = found.masked_fill(~related, torch.inf).amin(2)  # infinite where a row has no relation: nothing to rank
    return F.relu(strongest_other - weakest + section.margin).mean()


def _binary(target: Tensor, found: Tensor, section: GramSection, inside: Tensor | None) -> Tensor:
    """Cross-entropy between relations that are there or not; the gradient is that of a sigmoid in place of the step.

    A row's threshold is taken as given. With a mask, only rows of tokens in the character count.
    """
    wanted = (target > row_thresholds(target, section.spread)).float()
    above = found - row_thresholds(found.detach(), section.spread)
    soft = F.binary_cross_entropy_with_logits(above, wanted, reduction="none")
    hard = LARGEST_CROSS_ENTROPY * ((above > 0).float() - wanted).abs()
    entropies = (soft + (hard - soft).detach()).mean(2)  # (B, N)
    if inside is None:
        return entropies.mean()
    return (entropies * inside).sum() / inside.sum().clamp_min(1)


def row_thresholds(gram: Tensor, spread: float) -> Tensor:
    """Give what an entry has to be above to be a relation, (B, N, 1): the row's mean and some deviations."""
    return gram.mean(2, keepdim=True) + spread * gram.std(2, keepdim=True)


VARIANTS: dict[str, Callable[[Tensor, Tensor, GramSection, Tensor | None], Tensor]] = {
    "mse": _squares,
    "kl": _row_divergence,
    "ranking": _ranking,
    "binary": _binary,
}
