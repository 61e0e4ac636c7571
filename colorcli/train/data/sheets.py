"""One show's model sheets: pictures of its characters, read once by the networks that stay as they are.

    sheets/
      hana/               one folder for each character (or the pictures of one right in sheets/)
        front.png  side.png  run.0001.png
        line/front.png    the drawing of a picture, where there is one; else its lines are found in it

A shot with known colors (`color/`, `line/`, `key.png`) is such a folder as well. What a stage learns from is a picture
of a character, to be colored from another picture of it: prepared, matched and encoded as a render would do it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from colorcli.errors import FrameError, PresetError
from colorcli.files import file_digest
from colorcli.images import Picture, over_paper, read_picture
from colorcli.model.build import Components, reference_tokens
from colorcli.model.match import KeyMap, PartMap, paint_match
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.canvas import to_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.prepare.regions import PAPER_BELOW, closed_regions, nearest_labelled
from colorcli.presets import Preset, default_preset
from colorcli.train.data.batches import PairBatch
from colorcli.train.data.pairs import MOST_REGIONS, RegionPair, region_pair
from colorcli.train.sections import SheetsSection
from colorcli.train.tensor_file import write_tensors
from colorcli.train.turn import Turn
from colorcli.variants import METHOD_VERSION

Float = NDArray[np.float32]

PICTURES = {".png", ".tif", ".tiff", ".tga", ".jpg", ".jpeg", ".exr"}
LAYOUT = "2"              # of the file of encoded pictures
STORED = torch.float16   # encoded pictures on disk and in memory


@dataclass(frozen=True)
class SheetPicture:
    """One picture of a character."""

    color: Path
    line: Path | None   # its drawing; None: the lines are found in the picture


@dataclass(frozen=True)
class Lesson:
    """A picture to be colored, and the picture of the same character that it is colored from, by their numbers."""

    frame: int
    key: int


@dataclass(frozen=True)
class SheetBatch:
    """Some lessons on one canvas, as the networks in front of the denoising one have read them."""

    latents: Tensor               # (B, C, h, w) of the true colors
    start: Tensor                 # (B, C, h, w) what a run begins from: the color match; without one the true colors
    matched: Tensor               # (B,) bool, whether there is a color match
    mask: Tensor                  # (B, 1, h, w) 1 = character
    maps: tuple[Tensor, ...]      # of the line art, finest first
    y: Tensor | None              # (B, y_dim)
    key: tuple[Tensor, ...]       # (B, N, D) the context; or the tokens of both towers, which the projection reads
    level: float                  # share of the noise schedule that is run from a color match
    pairs: tuple[RegionPair, ...] = ()   # of the same or other lessons, for a model that matches regions

    def to(self, device: torch.device | str) -> Self:
        """Give the same on a device, in float32."""
        def moved(x: Tensor) -> Tensor:
            return x.to(device, None if x.dtype == torch.bool else torch.float32)

        return replace(
            self,
            latents=moved(self.latents), start=moved(self.start), matched=moved(self.matched), mask=moved(self.mask),
            maps=tuple(moved(x) for x in self.maps), y=None if self.y is None else moved(self.y),
            key=tuple(moved(x) for x in self.key), pairs=PairBatch(self.pairs).to(device).pairs,
        )  # fmt: skip


class SheetSet:
    """Encoded model sheets in memory, and batches of them that depend on the turn only."""

    def __init__(self, file: Path) -> None:
        with safe_open(file, framework="pt") as opened:
            about = json.loads(opened.metadata()["sheets"])
            self._tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        self.level = float(about["level"])
        self.pairs = [self._pair(name) for name in about["pairs"]]
        if self.pairs == [] and any(".start." in name for name in self._tensors):
            raise PresetError(f"no picture in {about['folder']} has a closed region to learn from",
                              hint="give pictures with closed dark lines around flat colors, or drawings in line/")
        self.lessons = [Lesson(*pair) for pair in about["lessons"]]
        self.by_size: dict[tuple[int, ...], list[Lesson]] = {}
        for lesson in self.lessons:
            self.by_size.setdefault(tuple(self._tensors[f"{lesson.frame}.latents"].shape), []).append(lesson)

    def batch(self, turn: Turn, size: int) -> SheetBatch:
        """Choose lessons of one canvas, each canvas as often as it has lessons."""
        rng = turn.rng
        sizes = list(self.by_size)
        share = np.array([len(self.by_size[one]) for one in sizes], float)
        there = self.by_size[sizes[rng.choice(len(sizes), p=share / share.sum())]]
        found = self.together([there[i] for i in rng.choice(len(there), size, replace=len(there) < size)])
        if not self.pairs:
            return found
        chosen = rng.choice(len(self.pairs), size, replace=len(self.pairs) < size)
        return replace(found, pairs=tuple(self.pairs[i] for i in chosen))

    def together(self, lessons: Sequence[Lesson]) -> SheetBatch:
        """Lay lessons of one canvas together."""
        def stacked(names: Sequence[str]) -> Tensor:
            return torch.stack([self._tensors[name] for name in names])

        frames, keys = [lesson.frame for lesson in lessons], [lesson.key for lesson in lessons]
        starts = [f"{lesson.frame}.start.{lesson.key}" for lesson in lessons]
        matched = [name in self._tensors for name in starts]
        first = frames[0]
        return SheetBatch(
            latents=stacked([f"{i}.latents" for i in frames]),
            start=stacked([
                name if there else f"{i}.latents" for name, there, i in zip(starts, matched, frames, strict=True)
            ]),
            matched=torch.tensor(matched),
            mask=stacked([f"{i}.mask" for i in frames]),
            maps=tuple(stacked([f"{i}.{name}" for i in frames]) for name in self._numbered(first, "map")),
            y=stacked([f"{i}.y" for i in frames]) if f"{first}.y" in self._tensors else None,
            key=tuple(stacked([f"{j}.{name}" for j in keys]) for name in self._numbered(keys[0], "key")),
            level=self.level,
        )

    def _pair(self, name: str) -> RegionPair:
        read = {field.name: self._tensors[f"{name}.{field.name}"] for field in fields(RegionPair)}
        return RegionPair(**{name: x.float() if x.is_floating_point() else x for name, x in read.items()})

    def _numbered(self, picture: int, kind: str) -> Iterator[str]:
        number = 0
        while f"{picture}.{kind}.{number}" in self._tensors:
            yield f"{kind}.{number}"
            number += 1


def find_sheets(folder: Path) -> dict[str, list[SheetPicture]]:
    """Find the pictures of each character, by its name. Raises PresetError if there are none."""
    if not folder.is_dir():
        raise PresetError(f"sheets.folder: there is no folder {folder}",
                          hint="give the folder that holds the pictures of each character in a folder of its own")
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in ("line", "color"))
    found = {path.name: pictures for path in (folder, *inner) if (pictures := _pictures_of(path))}
    if not found:
        raise PresetError(f"sheets.folder: {folder} holds no pictures",
                          hint="lay the pictures of each character into a folder of its own there")
    return found


def _pictures_of(folder: Path) -> list[SheetPicture]:
    """The pictures of one character, in `folder` and in `folder/color`, with their drawings from `folder/line`."""
    lines = {path.stem: path for path in _files(folder / "line")}
    return [SheetPicture(path, lines.get(path.stem)) for path in (*_files(folder), *_files(folder / "color"))]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    there = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith("."))
    return sorted(there)


def encoded_sheets(
    cache: Path,
    section: SheetsSection,
    model: str,
    load: Callable[[], ColorizePipeline],
    say: Callable[[str], None],
    *,
    tokens: bool = False,
) -> Path:
    """Encode model sheets into a file in the folder `cache`, unless one of the same pictures and weights is there.

    model: digest of the weights; load: gives them. tokens: keep what both towers read of a key, for a projection that
    learns. Raises PresetError if there are no pictures, or one cannot be used.
    """
    sheets = find_sheets(section.folder)
    files = [file for pictures in sheets.values() for one in pictures for file in (one.color, one.line) if file]
    parts = [LAYOUT, METHOD_VERSION, model, section.model_dump_json(exclude={"folder"}), str(tokens),
             *(f"{file.relative_to(section.folder)} {file_digest(file)}" for file in files)]
    file = cache / f"sheets-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}.safetensors"
    if file.exists():
        return file
    count = sum(len(pictures) for pictures in sheets.values())
    say(f"reading {count} pictures of {len(sheets)} characters in {section.folder}")
    tensors, about = encode(load(), sheets, section, tokens=tokens)
    cache.mkdir(parents=True, exist_ok=True)
    write_tensors(file, tensors, {"sheets": json.dumps(about)})
    return file


@torch.inference_mode()
def encode(
    pipeline: ColorizePipeline, sheets: Mapping[str, Sequence[SheetPicture]], section: SheetsSection, *, tokens: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all pictures as a render would, with the settings that suit the model; gives tensors and what they are.

    Each picture has a number, its mirror image the next one. A frame has latents, mask, maps and y; a key its tokens;
    a lesson the latents of its color match. Raises PresetError if a picture cannot be used.
    """
    preset = default_preset(pipeline.variant)
    rng = np.random.default_rng(0)   # the same lessons in every run
    tensors: dict[str, Tensor] = {}
    lessons: list[tuple[int, int]] = []
    pairs: list[str] = []
    first = 0
    for pictures in sheets.values():
        numbers = [first + 2 * place for place in range(len(pictures))]
        first += 2 * len(pictures)
        keys = {}
        for number, one in zip(numbers, pictures, strict=True):
            color = _read(one.color)
            key = prepare_key(color, preset, pipeline.variant)
            keys[number] = pipeline.encode_reference(key, preset)
            seen = pipeline.key_pictures(key).reference
            assert seen is not None
            read = reference_tokens(Components.of(pipeline), seen) if tokens else (keys[number].tokens.context,)
            _keep(tensors, f"{number}.key", read)
        for number, one in zip(numbers, pictures, strict=True):
            others = [other for other in numbers if other != number] or [number]
            chosen = rng.permutation(others)[: section.references].tolist()
            if rng.random() < section.same:
                chosen.append(number)
            for mirrored in (False, True) if section.mirrored else (False,):
                place = number + mirrored
                frame, target = prepared(one, preset, pipeline, mirrored=mirrored)
                tensors[f"{place}.latents"] = pipeline.encode_picture(target)[0]
                tensors[f"{place}.mask"] = torch.from_numpy(_cells(frame.mask_canvas))[None]
                lessons += [(place, other) for other in chosen]
                for other in chosen if preset.sampling.start == "match" else ():
                    known = keys[other].match
                    assert known is not None
                    parts = pipeline.read_parts(frame, keys[other], preset)
                    match = paint_match(parts, frame, known, pipeline.matcher)
                    tensors[f"{place}.start.{other}"] = pipeline.encode_picture(match.color)[0]
                    pair = None if mirrored else _regions(parts, frame, known, _read(one.color))
                    if pair is not None:   # its mirror image is the same with another sign
                        pairs.append(f"{place}.pair.{other}")
                        tensors |= {f"{pairs[-1]}.{name.name}": getattr(pair, name.name) for name in fields(pair)}
                conditions = pipeline.conditions(frame, keys[chosen[0]], preset)
                _keep(tensors, f"{place}.map", conditions.sketch_maps)
                if conditions.y is not None:
                    tensors[f"{place}.y"] = conditions.y[0]
    stored = {
        name: tensor.to("cpu", STORED if tensor.is_floating_point() else None).clone().contiguous()
        for name, tensor in tensors.items()
    }
    about = {"lessons": lessons, "pairs": pairs, "level": preset.sampling.start_level, "folder": str(section.folder)}
    return stored, about


def prepared(
    one: SheetPicture, preset: Preset, pipeline: ColorizePipeline, *, mirrored: bool = False
) -> tuple[PreparedFrame, Float]:
    """Prepare a picture as a frame, and give the color layer (h, w, 3), 0..1, that is to come out on its canvas.

    A model that is matched paints colors without lines (those are laid over them), any other the picture as it is.
    Raises PresetError if the drawing is not as large as the picture.
    """
    color = _read(one.color)
    line = color if one.line is None else _read(one.line)
    if line.size != color.size:
        raise PresetError(f"the drawing {one.line} is {line.size[0]}x{line.size[1]}, but its picture {one.color} is "
                          f"{color.size[0]}x{color.size[1]}", hint="make them one size, or take the drawing away")
    if mirrored:
        color, line = _mirror(color), _mirror(line)
    if one.line is None:
        preset = preset.model_copy(update={"lines": preset.lines.model_copy(update={"mode": "extract"})})
    frame = prepare_frame(line, preset, pipeline.variant)
    target = over_paper(color)
    if pipeline.variant.has_match:
        target = without_lines(target, frame.lines.ink, frame.mask)
    return frame, to_canvas(target, frame.canvas, 1)


def without_lines(color: Float, ink: Float, mask: Float) -> Float:
    """Let the colors of regions run together under the lines, and make paper of what lies outside the character.

    color: (H, W, 3). ink, mask: (H, W), 0..1. A drawing without any region stays as it is.
    """
    regions = closed_regions(ink, mask)
    bare = np.where(ink < PAPER_BELOW, regions.labels, 0)
    if not bare.any():
        return color
    filled = color.reshape(-1, 3)[nearest_labelled(np.asarray(bare, np.int32))]
    return np.where(mask[..., None] > 0.5, filled, np.float32(1.0)).astype(np.float32)


def _regions(parts: PartMap, frame: PreparedFrame, key: KeyMap, color: Picture) -> RegionPair | None:
    """Read the regions of a frame beside those of a key; None where one of them has none, or too many."""
    regions = frame.regions
    if not (0 < regions.count <= MOST_REGIONS and 0 < len(key.region_colors) <= MOST_REGIONS):
        return None
    return region_pair(parts, regions, frame, key, over_paper(color))


def _keep(tensors: dict[str, Tensor], name: str, several: Sequence[Tensor]) -> None:
    for number, one in enumerate(several):
        tensors[f"{name}.{number}"] = one[0]


def _cells(mask: Float) -> Float:
    """Average a mask (h, w) over the cells of the latents, (h/8, w/8)."""
    height, width = mask.shape
    means: Float = mask.reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3), dtype=np.float32)
    return means


def _read(path: Path) -> Picture:
    try:
        return read_picture(path)
    except FrameError as error:
        raise PresetError(f"sheets.folder: {path}: {error.message}", hint=error.hint) from error


def _mirror(picture: Picture) -> Picture:
    alpha = None if picture.alpha is None else np.ascontiguousarray(picture.alpha[:, ::-1])
    return replace(picture, color=np.ascontiguousarray(picture.color[:, ::-1]), alpha=alpha)
