"""From drawings to tensors: the augmentations and the layout of what each stage sees."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorcli.model.match import MIRRORED
from colorcli.prepare.region_views import INK_VIEWS
from colorcli.train.data.batch import TensorBatch
from colorcli.train.data.characters import Pair, Sample
from colorcli.train.data.pairs import RegionPair

HIDDEN_VIEWS = 0.1  # share of pictures in whose views no ink is seen
SHAKE = 0.1  # standard deviation of what is laid over the readings of regions


def _picture(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack (h, w, 3) pictures to (B, 3, h, w) in -1..1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _sketch(lines: Sequence[NDArray[np.uint8]], strength: NDArray[np.float32]) -> Tensor:
    """Stack (h, w) line art to (B, 3, h, w) in model polarity, paper -1; `strength` (B,) fades the ink."""
    ink = 1.0 - torch.from_numpy(np.stack(lines)).float() / 255.0  # (B, h, w)
    ink = ink * torch.from_numpy(strength)[:, None, None]
    return (2.0 * ink - 1.0)[:, None].expand(-1, 3, -1, -1).contiguous()


def _shares(cells: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack (rows, columns, parts) shares to (B, parts, rows, columns) in 0..1."""
    return torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2).float() / 255.0


def _flip(tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Mirror the samples marked in `rows` (B,) of every (B, C, h, w) tensor."""
    choice = rows[:, None, None, None]
    return [torch.where(choice, tensor.flip(-1), tensor) for tensor in tensors]


@dataclass(frozen=True)
class TaggerBatch(TensorBatch):
    """Color drawings and line art in one batch, the color ones first."""

    pictures: Tensor  # (B, 3, 256, 256) RGB in -1..1
    is_color: Tensor  # (B,) bool
    parts: Tensor  # (B, parts, 32, 32) shares
    colors: Tensor  # (B, 3, 32, 32) in -1..1
    tags: Tensor  # (B, tags) 0..1


def tagger_batch(samples: Sequence[Sample], rng: np.random.Generator) -> TaggerBatch:
    """Show half of the drawings in color and half as white line art."""
    half = len(samples) // 2
    strength = rng.uniform(0.6, 1.0, len(samples)).astype(np.float32)
    color = _picture([sample.square_color for sample in samples[:half]])
    line = -_sketch([sample.square_line for sample in samples[half:]], strength[half:])
    colors = _picture([sample.square_flat for sample in samples])
    for row in range(half):
        if rng.random() < 0.3:  # so that parts are known by shape too, not by their usual colors only
            order = torch.from_numpy(rng.permutation(3))
            color[row], colors[row] = color[row][order], colors[row][order]
    flip = torch.from_numpy(rng.random(len(samples)) < 0.5)
    pictures, parts, colors = _flip(
        [torch.cat([color, line]), _shares([s.square_cells for s in samples]), colors], flip
    )
    tags = torch.from_numpy(np.stack([sample.tags for sample in samples])).float()
    return TaggerBatch(pictures, torch.arange(len(samples)) < half, parts, colors, tags)


@dataclass(frozen=True)
class SketchBatch(TensorBatch):
    """Line art with its parts."""

    sketch: Tensor  # (B, 3, h, w) paper -1
    parts: Tensor  # (B, parts, h/8, w/8) shares


def sketch_batch(samples: Sequence[Sample], rng: np.random.Generator) -> SketchBatch:
    """Give line art of one canvas size, mirrored and faded at random."""
    strength = rng.uniform(0.6, 1.0, len(samples)).astype(np.float32)
    flip = torch.from_numpy(rng.random(len(samples)) < 0.5)
    sketch, parts = _flip([_sketch([s.line for s in samples], strength), _shares([s.cells for s in samples])], flip)
    return SketchBatch(sketch, parts)


@dataclass(frozen=True)
class ColorBatch(TensorBatch):
    """What the colorizer is trained on."""

    flat: Tensor  # (B, 3, h, w) the target color layer, -1..1
    sketch: Tensor  # (B, 3, h, w) paper -1
    mask: Tensor  # (B, 1, h/8, w/8) share of the character, 0..1
    parts: Tensor  # (B, parts, h/8, w/8) shares
    reference: Tensor  # (B, 3, 256, 256) the key, -1..1


def color_batch(pair: Pair, rng: np.random.Generator) -> ColorBatch:
    """Give targets and references; both get the same new palette (channels exchanged) in half of the cases."""
    count = len(pair.targets)
    strength = rng.uniform(0.7, 1.0, count).astype(np.float32)
    flat, reference = _picture([s.flat for s in pair.targets]), _picture([s.square_color for s in pair.references])
    for row in range(count):
        if rng.random() < 0.5:
            order = torch.from_numpy(rng.permutation(3))
            flat[row], reference[row] = flat[row][order], reference[row][order]
    mask = torch.from_numpy(np.stack([s.mask for s in pair.targets])).float()[:, None] / 255.0
    flip = torch.from_numpy(rng.random(count) < 0.5)
    sketch, parts = _sketch([s.line for s in pair.targets], strength), _shares([s.cells for s in pair.targets])
    flat, sketch, mask, parts = _flip([flat, sketch, mask, parts], flip)
    (reference,) = _flip([reference], torch.from_numpy(rng.random(count) < 0.5))
    return ColorBatch(flat, sketch, mask, parts, reference)


@dataclass(frozen=True)
class PairBatch:
    """What the matcher is trained on."""

    pairs: tuple[RegionPair, ...]

    def to(self, device: torch.device | str) -> Self:
        """Give the same on a device."""
        moved = (
            RegionPair(**{field.name: getattr(pair, field.name).to(device) for field in fields(RegionPair)})
            for pair in self.pairs
        )
        return type(self)(tuple(moved))


def pair_batch(
    pairs: Sequence[RegionPair], rng: np.random.Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Give frame tokens, key tokens, key colors in -1..1, which rows are there, and views, as `RegionMatcher` takes.

    With `rng` they are mirrored, recolored and shaken at random.
    """
    longest = max(len(pair.frame) for pair in pairs), max(len(pair.key) for pair in pairs)
    token, device = pairs[0].frame.shape[1], pairs[0].frame.device
    frame, key = (torch.zeros(len(pairs), length, token, device=device) for length in longest)
    frame_there, key_there = (torch.zeros(len(pairs), n, dtype=torch.bool, device=device) for n in longest)
    colors = torch.zeros(len(pairs), longest[1], 3, device=device)
    views: tuple[list[Tensor], list[Tensor]] = [], []
    for row, pair in enumerate(pairs):
        frame[row, : len(pair.frame)], frame_there[row, : len(pair.frame)] = pair.frame, True
        key[row, : len(pair.key)], key_there[row, : len(pair.key)] = pair.key, True
        shown = [pair.views.float() / 255, pair.key_views.float() / 255]
        palette = pair.palette * 2 - 1
        if rng is not None:
            palette = palette[:, torch.from_numpy(rng.permutation(3))] * (-1.0 if rng.random() < 0.3 else 1.0)
            for which, tokens in enumerate((frame[row], key[row])):
                if rng.random() < 0.5:
                    tokens[:, list(MIRRORED)] *= -1
                    shown[which] = shown[which].flip(-1)
                shown[which][:, list(INK_VIEWS)] *= rng.uniform(0.6, 1.0) if rng.random() >= HIDDEN_VIEWS else 0.0
        colors[row, : len(pair.key)] = palette[pair.color_of]
        for each, one in zip(views, shown, strict=True):
            each.append(one)
    if rng is not None:
        generator = torch.Generator("cpu").manual_seed(int(rng.integers(2**62)))
        frame, key = (x + SHAKE * torch.randn(x.shape, generator=generator).to(device) for x in (frame, key))
    return frame, key, colors, frame_there, key_there, torch.cat(views[0]), torch.cat(views[1])
