"""The training set: generated drawings laid onto canvases once, kept in shards, and served as batches."""

import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from colorcli.train.drawings import PARTS, VALIDATION_FAMILIES, Drawing, design_character, draw

SIDE = 320  # canvases have about the area of a square of this side, pixels
CELL = 8  # pixels of one latent cell
SQUARE = 256  # side of the square that the reference towers see
SHEET = (512, 576)  # size at which a character is drawn before it is laid onto its canvas, (width, height)
CHARACTERS_PER_SHARD = 20
VALIDATION_SEED = 10_000_000  # characters of validation are counted from here

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One drawing of a character on its canvas, all uint8."""

    flat: Bytes  # (h, w, 3) colors without lines
    line: Bytes  # (h, w) 255 paper, dark lines
    cells: Bytes  # (h/8, w/8, parts) share of each part in each cell, 0..255
    mask: Bytes  # (h/8, w/8) share of the character, 0..255
    square_color: Bytes  # (256, 256, 3) the finished drawing, squashed
    square_line: Bytes  # (256, 256) the line art, squashed
    square_cells: Bytes  # (32, 32, parts)
    square_flat: Bytes  # (32, 32, 3) mean color of the flat picture
    tags: Bytes  # (tags,) 0 or 1


def canvas_sizes(side: int = SIDE, multiple_of: int = 32) -> list[tuple[int, int]]:
    """List the canvas sizes (width, height) of training: multiples of 32 within 12 % of the area of side x side."""
    area, sides = side * side, range(multiple_of, 2 * side, multiple_of)
    return [(w, h) for w in sides for h in sides if abs(w * h - area) <= 0.12 * area and 0.28 <= w / h <= 2.6]


def part_shares(parts: Bytes, rows: int, columns: int) -> Bytes:
    """Give the share of every part in each of rows x columns equal cells, (rows, columns, parts), 0..255."""
    height, width = parts.shape
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    index = (row[:, None] * columns + column[None, :]) * len(PARTS) + parts
    counts = np.bincount(index.ravel(), minlength=rows * columns * len(PARTS)).reshape(rows, columns, len(PARTS))
    return np.round(255.0 * counts / counts.sum(-1, keepdims=True)).astype(np.uint8)


def lay_on_canvas(drawing: Drawing, margin: float, side: int = SIDE) -> Sample:
    """Crop a drawing to its character plus a margin (share of the longer side), and lay it onto the nearest canvas."""
    rows, columns = np.flatnonzero(drawing.mask.max(1)), np.flatnonzero(drawing.mask.max(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    pad = margin * max(bottom - top, right - left)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    canvas = min(canvas_sizes(side), key=lambda size: abs(math.log(size[0] / size[1]) - math.log(width / height)))
    scale = min(canvas[0] / width, canvas[1] / height)
    to_canvas = np.array(
        [
            [scale, 0.0, canvas[0] / 2 - scale * (left + right) / 2],
            [0.0, scale, canvas[1] / 2 - scale * (top + bottom) / 2],
        ]
    )

    def lay(image: Bytes, fill: int, interpolation: int = cv2.INTER_AREA) -> Bytes:
        return np.asarray(
            cv2.warpAffine(image, to_canvas, canvas, flags=interpolation, borderValue=(fill,) * 3), np.uint8
        )

    linear = cv2.INTER_LINEAR
    paper = 255 if drawing.mask.min() == 0 and (drawing.flat[0, 0] >= 250).all() else int(drawing.flat[0, 0].mean())
    parts, mask = lay(drawing.parts, 0, cv2.INTER_NEAREST), lay(drawing.mask, 0, linear)
    flat, color, line = (
        lay(drawing.flat, paper, linear),
        lay(drawing.color, paper, linear),
        lay(drawing.line, 255, linear),
    )
    square = (SQUARE, SQUARE)
    return Sample(
        flat=flat,
        line=line,
        cells=part_shares(parts, canvas[1] // CELL, canvas[0] // CELL),
        mask=np.asarray(
            cv2.resize(mask, (canvas[0] // CELL, canvas[1] // CELL), interpolation=cv2.INTER_AREA), np.uint8
        ),
        square_color=np.asarray(cv2.resize(color, square, interpolation=cv2.INTER_AREA), np.uint8),
        square_line=np.asarray(cv2.resize(line, square, interpolation=cv2.INTER_AREA), np.uint8),
        square_cells=part_shares(parts, SQUARE // CELL, SQUARE // CELL),
        square_flat=np.asarray(cv2.resize(flat, (SQUARE // CELL,) * 2, interpolation=cv2.INTER_AREA), np.uint8),
        tags=np.asarray(drawing.tags, np.uint8),
    )


def draw_character(
    seed: int, poses: int, family: str | None, side: int = SIDE, background: str | None = None
) -> list[Sample]:
    """Draw one character `poses` times, each on its own canvas. background: as `draw` takes it."""
    character = design_character(seed, family)
    rng = np.random.default_rng([seed, 77])
    samples = []
    for _ in range(poses):
        drawing = draw(character, pose_seed=int(rng.integers(2**31)), size=SHEET, background=background)
        samples.append(lay_on_canvas(drawing, margin=float(rng.uniform(0.01, 0.12)), side=side))
    return samples


def draw_shard(
    path: Path,
    seeds: Sequence[int],
    poses: int,
    families: Sequence[str] | None,
    side: int = SIDE,
    background: str | None = None,
) -> None:
    """Draw characters into one safetensors file, `<character>.<pose>.<field>`; nothing is done if it is there."""
    if path.exists():
        return
    arrays = {}
    for index, seed in enumerate(seeds):
        family = families[index % len(families)] if families else None
        for pose, sample in enumerate(draw_character(seed, poses, family, side, background)):
            for field in fields(Sample):
                arrays[f"{seed}.{pose}.{field.name}"] = np.ascontiguousarray(getattr(sample, field.name))
    partial = path.with_suffix(".partial")
    save_file(arrays, partial)
    partial.rename(path)


def draw_shards(
    folder: Path,
    characters: int,
    poses: int,
    validation: bool,
    tell: Callable[[str], None],
    side: int = SIDE,
    background: str | None = None,
    processes: int = 2,
) -> list[Path]:
    """Draw all characters that are not drawn yet, in `processes` processes, and give the shard files.

    side: canvases have about the area of a square of this side, pixels. background: as `draw` takes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = VALIDATION_SEED if validation else 0
    families = list(VALIDATION_FAMILIES) if validation else None
    name = "validation" if validation else "train"
    jobs = []
    for first in range(0, characters, CHARACTERS_PER_SHARD):
        seeds = range(start + first, start + min(first + CHARACTERS_PER_SHARD, characters))
        canvas = ("" if side == SIDE else f".{side}") + (f".{background}" if background else "")
        file = folder / f"{name}.{first:06d}.{len(seeds)}x{poses}{canvas}.safetensors"
        jobs.append((file, seeds, poses, families, side, background))
    missing = [job for job in jobs if not job[0].exists()]
    if missing:
        tell(f"drawing {len(missing) * CHARACTERS_PER_SHARD} characters of the {name} set")
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.starmap(draw_shard, missing)
    return [job[0] for job in jobs]


@dataclass(frozen=True)
class Pair:
    """Drawings of a batch: what is to be colored, and another picture of the same character as its reference."""

    targets: list[Sample]
    references: list[Sample]


class CharacterSet:
    """All drawings in memory, grouped by character, with batches that depend on the step number only."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.characters: list[list[Sample]] = []
        for shard in shards:
            arrays = load_file(shard)
            poses: dict[str, dict[int, dict[str, Bytes]]] = {}
            for key, array in arrays.items():
                seed, pose, field = key.split(".")
                poses.setdefault(seed, {}).setdefault(int(pose), {})[field] = array
            for seed in sorted(poses, key=int):
                self.characters.append([Sample(**poses[seed][pose]) for pose in sorted(poses[seed])])
        self.by_size: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for index, samples in enumerate(self.characters):
            for pose, sample in enumerate(samples):
                self.by_size.setdefault((sample.line.shape[0], sample.line.shape[1]), []).append((index, pose))

    def pairs(self, rng: np.random.Generator, batch: int, same_pose: float = 0.15) -> Pair:
        """Choose a batch of one canvas size; with probability `same_pose` the reference is the drawing itself."""
        sizes = list(self.by_size)
        weights = np.array([len(self.by_size[size]) for size in sizes], float)
        if weights.max() >= batch:
            weights[weights < batch] = 0.0
        members = self.by_size[sizes[rng.choice(len(sizes), p=weights / weights.sum())]]
        targets, references = [], []
        for choice in rng.choice(len(members), batch, replace=len(members) < batch):
            index, pose = members[choice]
            poses = self.characters[index]
            other = pose if rng.random() < same_pose else (pose + int(rng.integers(1, len(poses)))) % len(poses)
            targets.append(poses[pose])
            references.append(poses[other])
        return Pair(targets, references)

    def samples(self, rng: np.random.Generator, batch: int) -> list[Sample]:
        """Choose single drawings of any canvas size."""
        chosen = rng.choice(len(self.characters), batch, replace=batch > len(self.characters))
        return [self.characters[index][int(rng.integers(len(self.characters[index])))] for index in chosen]
