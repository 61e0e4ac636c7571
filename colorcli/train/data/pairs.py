"""What the region matcher learns from: regions of generated frames and of their keys, read along a user's own path."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import FORMATS, Picture
from colorcli.loading import load_pipeline
from colorcli.model.match import KeyMap, PartMap, read_regions, region_tokens, rule_scores
from colorcli.model.weights import read_list
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.prepare.regions import Regions, pixels_of_regions
from colorcli.presets import default_preset
from colorcli.train.data.validation import SIZE
from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw
from colorcli.variants import METHOD_VERSION

FIRST_SEED = 500_000       # characters of the pairs are counted from here: the networks never learned from them
VALIDATION_SEED = 11_900_000
CHARACTERS_PER_SHARD = 20
MOST_REGIONS = 160         # a picture with more of them is left out
SAME_COLOR = 8.0           # CIEDE2000 below which a palette color is the right one, as `evaluate` counts
ANY_FRAMING_SHARE = 0.25   # of keys that may show less than the whole figure


@dataclass(frozen=True)
class RegionPair:
    """The regions of a frame and of its key, and which colors are right."""

    frame: Tensor      # (R, token) see `match.region_tokens`
    key: Tensor        # (S, token)
    color_of: Tensor   # (S,) number of each key region's palette color
    palette: Tensor    # (K, 3) in 0..1
    right: Tensor      # (R, K) bool
    rule: Tensor       # (R, K) the hand-made score
    pixels: Tensor     # (R,) area in the drawing
    views: Tensor      # (R, VIEWS, side, side) uint8, see `region_views`
    key_views: Tensor  # (S, VIEWS, side, side)


def read_character(pipeline: ColorizePipeline, seed: int, family: str | None, frames: int) -> Iterator[RegionPair]:
    """Draw a key and some frames of a character, and read them as a render would; every second is of the key's shot."""
    preset, variant = default_preset(pipeline.variant), pipeline.variant
    character = design_character(seed, family)
    rng = np.random.default_rng([seed, 5])
    poses = rng.integers(2**31, size=frames + 1)
    framing = None if rng.random() < ANY_FRAMING_SHARE else "full"
    shown = draw(character, int(poses[0]), SIZE, background="plain", framing=framing, sway=0)
    key = prepare_key(_picture(shown.color, shown.mask), preset, variant)
    reference = pipeline.encode_reference(key, preset)
    assert reference.match is not None
    if not 0 < len(reference.match.region_colors) <= MOST_REGIONS:
        return
    for number, pose in enumerate(poses[1:]):
        # Half of the frames are of the key's own shot, half are any others of the character.
        if number % 2:
            drawing = draw(character, int(pose), SIZE, background="plain")
        else:
            drawing = draw(character, int(poses[0]), SIZE, background="plain", framing=framing, sway=number + 1)
        frame = prepare_frame(
            _picture(cv2.cvtColor(drawing.line, cv2.COLOR_GRAY2RGB), drawing.mask), preset, variant
        )
        regions = frame.regions
        if 0 < regions.count <= MOST_REGIONS:
            parts = pipeline.read_parts(frame, reference, preset)
            color = np.asarray(drawing.color, np.float32) / np.float32(255)
            yield region_pair(parts, regions, frame, reference.match, color)


def region_pair(
    parts: PartMap, regions: Regions, frame: PreparedFrame, key: KeyMap, color: NDArray[np.float32]
) -> RegionPair:
    """Read the regions of a frame whose true colors (H, W, 3), 0..1, are known."""
    readings = read_regions(regions, parts, frame.canvas, frame.mask_canvas, frame.lines.ink)
    truth = color.reshape(-1, 3)
    medians = np.stack([np.median(truth[pixels], axis=0) for pixels in pixels_of_regions(regions)])  # (R, 3)
    true_lab, palette_lab = lab_of(medians), lab_of(key.palette.numpy())
    shape = (len(true_lab), len(palette_lab), 3)
    apart = ciede2000(np.broadcast_to(true_lab[:, None], shape), np.broadcast_to(palette_lab[None], shape))
    return RegionPair(
        frame=region_tokens(readings).half(),
        key=region_tokens(key.regions).half(),
        color_of=key.region_colors,
        palette=key.palette,
        right=torch.from_numpy(apart < SAME_COLOR),
        rule=rule_scores(parts, readings, key).half(),
        pixels=torch.from_numpy(regions.areas[1:]),
        views=readings.views,
        key_views=key.regions.views,
    )


def _picture(color: NDArray[Any], mask: NDArray[np.uint8]) -> Picture:
    straight, cover = (np.asarray(image, np.float32) / np.float32(255) for image in (color, mask))
    return Picture(straight, cover, FORMATS["png8"], 4)


# --- shards --------------------------------------------------------------------------------------------------------


def read_shards(
    folder: Path,
    model: Path,
    characters: int,
    frames: int,
    validation: bool,
    tell: Callable[[str], None],
    processes: int = 2,
) -> list[Path]:
    """Read all characters that are not read yet with the networks of a model folder, and give the shard files.

    The shards of other weights, or of another version of the method, lie beside them, under another digest.
    """
    folder = folder / _digest_of_readers(model)[:12]
    folder.mkdir(parents=True, exist_ok=True)
    start, name = (VALIDATION_SEED, "validation") if validation else (FIRST_SEED, "train")
    jobs = []
    for first in range(0, characters, CHARACTERS_PER_SHARD):
        seeds = range(start + first, start + min(first + CHARACTERS_PER_SHARD, characters))
        path = folder / f"{name}.{first:06d}.{len(seeds)}x{frames}.safetensors"
        jobs.append((path, model, seeds, frames, validation))
    missing = [job for job in jobs if not job[0].exists()]
    if missing:
        tell(f"reading the regions of {len(missing) * CHARACTERS_PER_SHARD} characters of the {name} set")
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.starmap(read_shard, missing, chunksize=4)
    return [job[0] for job in jobs]


def _digest_of_readers(model: Path) -> str:
    """Tell how regions are read: by all weights of a model but those of the matcher that learns from it, and how."""
    files = read_list(model).files
    names = sorted(name for name in files if name.endswith(".safetensors") and not name.startswith("matcher/"))
    return hashlib.sha256("".join([METHOD_VERSION, *(files[name].sha256 for name in names)]).encode()).hexdigest()


def read_shard(path: Path, model: Path, seeds: Sequence[int], frames: int, validation: bool) -> None:
    """Read characters into one safetensors file, `<number>.<field>`; nothing is done if it is there."""
    if path.exists():
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pipeline = load_pipeline(str(model.resolve()), "cpu")
    held_out = list(VALIDATION_FAMILIES)
    families = {seed: held_out[seed % len(held_out)] if validation else None for seed in seeds}
    pairs = [pair for seed, family in families.items() for pair in read_character(pipeline, seed, family, frames)]
    tensors = {
        f"{number}.{field.name}": getattr(pair, field.name).clone().contiguous()
        for number, pair in enumerate(pairs) for field in fields(RegionPair)
    }
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.rename(path)


class PairSet:
    """All pairs in memory, served in batches that depend on the step number only."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.pairs: list[RegionPair] = []
        for shard in shards:
            tensors = load_file(shard)
            for number in range(len(tensors) // len(fields(RegionPair))):
                values = {field.name: tensors[f"{number}.{field.name}"] for field in fields(RegionPair)}
                floats = {name: values[name].float() for name in ("frame", "key", "rule")}
                self.pairs.append(RegionPair(**{**values, **floats}))

    def batch(self, rng: np.random.Generator, count: int) -> list[RegionPair]:
        """Choose some pairs."""
        chosen = rng.choice(len(self.pairs), count, replace=count > len(self.pairs))
        return [self.pairs[index] for index in chosen]
