"""Words change what the network sees of the reference: CLIP's picture tokens are moved along directions of its texts.

Works with models whose pictures are read by the CLIP that also reads text. The direction is that of the target, or
from the anchor (what the picture shows now) to the target; the control says where in the picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTextModelWithProjection

Thresholds = tuple[float, float, float, float]

THRESHOLDS: Thresholds = (0.5, 0.55, 0.65, 0.95)
AWAY = 2.0    # how far irrelevant places are moved away from the target, in moves of the relevant ones
HEAT = 0.25   # of a heat map, for each threshold that is passed


@dataclass(frozen=True)
class TextEdit:
    """One change by words; the vectors are (D,) of unit length, as `text_vectors` gives them."""

    target: Tensor
    scale: float                    # likeness to the target that is asked for; pictures have about 0 to 15
    anchor: Tensor | None = None    # moved away from
    control: Tensor | None = None   # what the places that change show; None: all places alike
    enhance: bool = False           # with an anchor: all that is like it in a place is turned towards the target
    thresholds: Thresholds = THRESHOLDS   # of a place's relevance to the control, 0..1, rising


def edit_tokens(tokens: Tensor, edits: Sequence[TextEdit]) -> Tensor:
    """Change what a picture shows in its places, edit after edit: (B, 1 + N, D), the class token first and left alone.

    As published, nothing is changed unless an edit has a scale above 0.
    """
    if not any(edit.scale > 0 for edit in edits):
        return tokens
    whole, places = tokens[:, :1], tokens[:, 1:]
    for edit in edits:
        turned = edit.anchor if edit.enhance else None
        change = edit.scale - _along(whole, edit.target if turned is None else turned)  # (B, 1, 1)
        weight = change
        if edit.control is not None:
            weight = position_weight(relevance(places, edit.control), change, edit.thresholds)  # (B, N, 1)
        if turned is not None:
            weight = weight + _along(places, turned)
        direction = edit.target if edit.anchor is None else edit.target - edit.anchor
        places = places + weight * direction
    return torch.cat([whole, places], dim=1)


def relevance(places: Tensor, control: Tensor) -> Tensor:
    """Tell how much each place (B, N, D) shows of the control: (B, N, 1), from 0 for the least to 1 for the most."""
    return normalised(_along(places, control))


def normalised(likeness: Tensor) -> Tensor:
    """Spread the likenesses (B, N, 1) of a picture's places over 0..1."""
    low, high = likeness.amin(1, keepdim=True), likeness.amax(1, keepdim=True)
    # Where all places are alike none is more relevant than another, and the division would give no number.
    return (likeness - low) / (high - low).clamp_min(torch.finfo(likeness.dtype).tiny)


def position_weight(
    relevance: Tensor, change: Tensor, thresholds: Thresholds = THRESHOLDS, away: float = AWAY
) -> Tensor:
    """Give how far each place is moved, (B, N, 1): all of `change` where it is relevant, the other way where it is not.

    relevance: (B, N, 1) in 0..1. change: (B, 1, 1). thresholds: up to the first the weight is -away * change; then it
    rises from -change to 0, to half of change, and to all of it.
    """
    none, low, half, full = thresholds
    steps = (
        (full, change.expand_as(relevance)),
        (half, change / 2 + change / 2 * (relevance - half) / (full - half)),
        (low, change / 2 * (relevance - low) / (half - low)),
        (none, -change + change * (relevance - none) / (low - none)),
    )
    weight = (-away * change).expand_as(relevance)
    for threshold, above in reversed(steps):
        weight = torch.where(relevance > threshold, above, weight)
    return weight


def heat(relevance: Tensor, threshold: float) -> Tensor:
    """Mark the places at or above a threshold: `HEAT` there and 0 elsewhere, of the shape of `relevance`."""
    return HEAT * (relevance >= threshold)


def heat_map(relevance: Tensor, thresholds: Thresholds = THRESHOLDS) -> Tensor:
    """Add up the heat of all thresholds, to look at: 0..1, of the shape of `relevance`."""
    return torch.stack([heat(relevance, threshold) for threshold in thresholds]).sum(0)


def similarity_picture(
    places: Tensor, control: Tensor, size: tuple[int, int], thresholds: Thresholds = THRESHOLDS
) -> Tensor:
    """Show which parts of a picture an edit with this control reaches: (height, width), 0..1 in steps of `HEAT`.

    places: (1, N, D) of a square grid, rows first. size: (height, width) of the picture. Where the map is 1 the edit
    works in full; where it is 0 it works the other way.
    """
    side = math.isqrt(places.shape[1])
    assert side * side == places.shape[1], places.shape
    grid = _along(places, control).view(1, 1, side, side)
    smooth = F.interpolate(grid, size, mode="bicubic", align_corners=False)  # (1, 1, H, W)
    return heat_map(normalised(smooth.view(1, -1, 1)), thresholds).view(size)


def similarity_pictures(tokens: Tensor, edits: Sequence[TextEdit], size: tuple[int, int]) -> list[Tensor | None]:
    """Show where each edit works, after those before it: see `similarity_picture`; None where an edit has no control.

    tokens: (1, 1 + N, D) as for `edit_tokens`. size: (height, width) of the picture.
    """
    shown: list[Tensor | None] = []
    for number, edit in enumerate(edits):
        places = edit_tokens(tokens, edits[:number])[:, 1:]
        control = edit.control
        shown.append(None if control is None else similarity_picture(places, control, size, edit.thresholds))
    return shown


@dataclass(frozen=True)
class WordEdit:
    """One change as a user writes it."""

    target: str
    scale: float
    anchor: str | None = None
    control: str | None = None
    enhance: bool = False
    thresholds: Thresholds = THRESHOLDS


def read_edits(wanted: Sequence[WordEdit], read: Callable[[list[str]], Tensor]) -> tuple[TextEdit, ...]:
    """Turn words into vectors; `read` gives texts as (B, D), as `text_vectors` does. Each text is read once."""
    texts = sorted({text for edit in wanted for text in (edit.target, edit.anchor, edit.control) if text})
    if not texts:
        return ()
    vectors = dict(zip(texts, read(texts), strict=True))
    return tuple(
        TextEdit(
            vectors[edit.target], edit.scale, vectors[edit.anchor] if edit.anchor else None,
            vectors[edit.control] if edit.control else None, edit.enhance, edit.thresholds,
        )
        for edit in wanted
    )


def text_vectors(tower: CLIPTextModelWithProjection, ids: Tensor) -> Tensor:
    """Read texts as unit vectors (B, D), comparable with CLIP's picture tokens.

    ids: (B, T) of CLIP's tokenizer, each with its end token, whatever comes behind that. The last transformer layer is
    left out, as the published models do.
    """
    before_last = tower(input_ids=ids, output_hidden_states=True).hidden_states[-2]  # (B, T, hidden)
    end = (ids == tower.config.eos_token_id).int().argmax(1)
    last = tower.text_model.final_layer_norm(before_last[torch.arange(len(ids), device=ids.device), end])
    vectors = tower.text_projection(last)
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _along(tokens: Tensor, direction: Tensor) -> Tensor:
    """Give the inner products of tokens (B, N, D) with a direction (D,): (B, N, 1)."""
    return (tokens @ direction)[..., None]
