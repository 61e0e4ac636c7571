"""Pictures on disk as batches: chosen by plan, cropped to one canvas, changed at random, beside their references."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorcli.errors import DataError, FrameError
from colorcli.prepare.masks import mask_from_flat
from colorcli.train.data.archives import PictureStore
from colorcli.train.data.augment import (
    Layers,
    MaskChanges,
    blank_margins,
    change_mask,
    flat_background,
    jittered,
    turned,
)
from colorcli.train.data.buckets import (
    SIZES_512,
    SIZES_768,
    AspectPlan,
    BatchPlan,
    SegmentPlan,
    ShuffledPlan,
    Size,
    canvas_sizes,
)
from colorcli.train.data.characters import CharacterSet, Sample
from colorcli.train.data.index import DEFAULT_SCORE, Entry, PictureFilter, open_index
from colorcli.train.turn import Turn

if TYPE_CHECKING:
    from colorcli.train.data.batch import PictureBatch

Bytes = NDArray[np.uint8]
# Where the reference of a picture comes from.
ReferenceChoice = Literal["self", "listed", "every", "archive", "shifted", "paired"]

MOST_SKIPPED = 1000   # pictures in a row that cannot be used, then something is wrong with the whole set
NAMES_TOLD = 5        # of pictures that could not be used


@dataclass(frozen=True)
class PictureSettings:
    """How pictures become batches. The defaults are the published XL training; lengths are pixels."""

    sizes: tuple[Size, ...] = canvas_sizes(1024)   # canvases, (height, width)
    load: tuple[int, int] | None = None   # short side before the crop, drawn from lowest to below highest; None: no lot
    reference_side: int = 1280            # of the square that a reference is squashed to
    margin_down: int = 201                # most rows that are blanked at top and bottom of a sketch
    margin_across: int = 201              # most columns that are blanked left and right
    mask: MaskChanges = field(default_factory=MaskChanges)   # what happens to a reference's mask
    reference: ReferenceChoice = "self"   # see REFERENCES
    shift: int = 4                        # for "shifted": the reference of picture i is picture i + shift
    which: PictureFilter = field(default_factory=PictureFilter)
    flat_background: float = 0.0          # probability, of pictures with listed references alone
    flip: float = 0.0                     # probability that picture, sketch and mask are mirrored
    reference_flip: float = 0.0           # probability that the reference is mirrored
    rotation: float = 0.0                 # probability that the reference is rotated
    most_degrees: float = 45.0            # by which it is rotated at most
    jitter: float = 0.0                   # share by which brightness, contrast and saturation may change
    segment: int = 1                      # pictures of one archive that come together; a batch is a multiple of it
    repeated: bool = False                # pictures are repeated so that every one is in some batch, for validation
    readers: int = 4                      # threads that read and decode


XL = PictureSettings()
# v2 widens every reference's mask to a grid, and blanks fewer columns than rows.
V2 = PictureSettings(
    sizes=SIZES_768, load=(0, 1024), reference_side=1024, margin_down=200, margin_across=100,
    mask=MaskChanges(grid=1.0), which=PictureFilter(min_score=5.0, min_side=1024),
)  # fmt: skip
V1_768 = replace(V2, load=(0, 961), margin_down=150, which=PictureFilter(min_side=768), flip=0.5)
V1_512 = replace(V1_768, sizes=SIZES_512, load=(544, 577), which=PictureFilter(min_side=512))
SETTINGS: dict[str, PictureSettings] = {"xl": XL, "v2": V2, "v1-768": V1_768, "v1-512": V1_512}

REFERENCES: dict[ReferenceChoice, str] = {
    "self": "the picture itself, as in all published training",
    "listed": "one of the references that the index lists, by lot; the picture itself if it lists none",
    "every": "each of the listed references in turn: a picture is seen once for each",
    "archive": "any picture of the same archive, by lot",
    "shifted": "the picture some places further on, for validation",
    "paired": "the file of the same name in reference/, for tests",
}


def scaled(settings: PictureSettings, side: int, reference_side: int, multiple_of: int = 32) -> PictureSettings:
    """Give the same for a smaller model: canvases around side x side, and all lengths in proportion."""
    before = settings.sizes[0][0]
    canvas, square = side / before, reference_side / settings.reference_side
    mask = settings.mask
    return replace(
        settings,
        sizes=settings.sizes if side == before else canvas_sizes(side, multiple_of),
        load=None if settings.load is None else (round(settings.load[0] * canvas), round(settings.load[1] * canvas)),
        reference_side=reference_side,
        margin_down=round(settings.margin_down * canvas),
        margin_across=round(settings.margin_across * canvas),
        mask=replace(
            mask,
            cell=(max(1, round(mask.cell[0] * square)), max(1, round(mask.cell[1] * square))),
            dilation=2 * round((mask.dilation - 1) / 2 * square) + 1,
        ),
        which=replace(settings.which, min_side=round(settings.which.min_side * canvas)),
    )


def settings_for(
    like: str,
    side: int | None = None,
    *,
    reference_side: int | None = None,
    reference: ReferenceChoice = "self",
    min_score: float | None = None,
    min_side: int | None = None,
) -> PictureSettings:
    """Give the settings of a published training, scaled to canvases of `side`, with other references and filters.

    like: one of SETTINGS. reference_side: unset: in proportion to the canvas.
    """
    settings = SETTINGS[like]
    if side is not None or reference_side is not None:
        before = settings.sizes[0][0]
        square = reference_side or round(settings.reference_side * (side or before) / before)
        # The networks of v1 and v2 halve a picture once more often.
        settings = scaled(settings, side or before, square, multiple_of=32 if like == "xl" else 64)
    which = settings.which
    return replace(settings, reference=reference, which=PictureFilter(
        which.min_score if min_score is None else min_score,
        which.missing_score,
        which.min_side if min_side is None else min_side,
    ))


@dataclass(frozen=True)
class Shown:
    """One picture as it goes into a batch, 8-bit, lines dark on white."""

    image: Bytes            # (H, W, 3)
    sketch: Bytes           # (H, W, 3)
    mask: Bytes             # (H, W)
    reference: Bytes        # (S, S, 3)
    reference_mask: Bytes   # (S, S)
    size: tuple[int, int, int]                  # original height and width, short side it was brought to
    crop: tuple[float, float, float, float]     # top, left, height, width as fractions
    score: float
    scored: bool = False
    path: str = ""
    reference_path: str = ""
    sketch_by: str = ""
    mask_by: str = ""


def stacked(rows: Sequence[Shown]) -> "PictureBatch":
    """Make the tensors of a batch: colors to -1..1, sketches in model polarity, masks to 0..1."""
    # A look at a training set needs no tensors, and torch takes seconds to load.
    import torch

    from colorcli.train.data.batch import PictureBatch

    def colors(pictures: Sequence[Bytes]) -> torch.Tensor:
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)

    def masks(layers: Sequence[Bytes]) -> torch.Tensor:
        return torch.from_numpy(np.stack(layers))[:, None].float().div_(255.0)

    return PictureBatch(
        image=colors([row.image for row in rows]),
        sketch=-colors([row.sketch for row in rows]),
        reference=colors([row.reference for row in rows]),
        sketch_mask=masks([row.mask for row in rows]),
        reference_mask=masks([row.reference_mask for row in rows]),
        size=torch.tensor([row.size for row in rows], dtype=torch.float32),
        crop=torch.tensor([row.crop for row in rows], dtype=torch.float32),
        score=torch.tensor([row.score for row in rows], dtype=torch.float32),
        names=tuple(row.path for row in rows),
    )


@dataclass
class Broken:
    """The pictures that could not be used so far: how many, and the first of them with the reason."""

    numbers: set[int] = field(default_factory=set)
    first: list[str] = field(default_factory=list)

    def add(self, number: int, reason: str) -> None:
        """Note a picture, once."""
        if number not in self.numbers:
            self.numbers.add(number)
            if len(self.first) < NAMES_TOLD:
                self.first.append(reason)

    def __str__(self) -> str:
        """Tell of them in lines for a person; empty if there are none."""
        if not self.numbers:
            return ""
        count = len(self.numbers)
        more = [f"  and {count - len(self.first)} more"] if count > len(self.first) else []
        said = "1 picture could not be used and was skipped:" if count == 1 else \
            f"{count} pictures could not be used and were skipped:"
        return "\n".join([said, *(f"  {reason}" for reason in self.first), *more])


class Unfit(Exception):
    """A picture that does not cover the canvas of this batch: nothing is wrong with it."""


class PictureSet:
    """A training set in the published layout, as batches that depend on their turn alone.

    A picture that cannot be read is skipped by going on to the next; `broken` tells which.
    """

    def __init__(self, root: Path, settings: PictureSettings = XL) -> None:
        """Read the index. Raises DataError if the set is not there or nothing of it can be used."""
        self.store = PictureStore(root)
        self.settings = settings
        self.index = open_index(self.store, settings.which)
        needed = ["mask", *(["reference"] if settings.reference == "paired" else [])]
        for kind in needed:
            if not self.store.has(kind):  # type: ignore[arg-type]
                raise DataError(
                    f"{root} has no folder {kind}",
                    hint="colorcli dataset index makes masks" if kind == "mask" else
                    "it holds the reference of every picture under the picture's own name",
                )
        count = len(self.index)
        repeats = np.maximum(self.index.references, 1) if settings.reference == "every" else np.ones(count, np.int64)
        # Picture of each thing to be learned, and which of its references; only "every" has a picture more than once.
        self._picture = np.repeat(np.arange(count), repeats)
        self._listed = np.arange(len(self._picture)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        self.broken = Broken()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(settings.readers, "pictures")
        self._order = lru_cache(maxsize=8)(self._ordered)

    def __len__(self) -> int:
        """Count what there is to learn from: pictures, or pictures with each of their references."""
        return len(self._picture)

    def close(self) -> None:
        """End the threads and close the archives."""
        self._threads.shutdown()
        self.store.close()

    def plan(self, batch: int) -> BatchPlan:
        """Give the order of batches of a size. Raises DataError if there are too few pictures for a single one."""
        plan = self.order(batch)
        if not plan.batches_of_epoch():
            width, height = plan.width, plan.height
            pools = int((width > height).sum()), int((width < height).sum()), int((width == height).sum())
            raise DataError(
                f"{self.store.root.name} has too few pictures for a batch of {batch}: {pools[0]} lie across, "
                f"{pools[1]} stand upright, {pools[2]} are square",
                hint="make the batch smaller, or the set larger; those of one batch all lie in one direction",
            )
        return plan

    def order(self, batch: int) -> BatchPlan:
        """Give the order of batches of a size, even if it has none."""
        return self._order(batch)

    def batch(self, turn: Turn, size: int) -> "PictureBatch":
        """Give the batch of a turn: `size` pictures of one canvas."""
        return stacked(self.shown(turn, size))

    def shown(self, turn: Turn, size: int) -> list[Shown]:
        """Give the pictures of a turn's batch, one by one."""
        planned = self.plan(size).planned(turn.number)
        seeds = turn.rng.integers(2**62, size=size)
        jobs = [(int(number), planned.size, int(seed)) for number, seed in zip(planned.pictures, seeds, strict=True)]
        return list(self._threads.map(lambda job: self._first_usable(*job), jobs))

    def _ordered(self, batch: int) -> BatchPlan:
        width, height = self.index.width[self._picture], self.index.height[self._picture]
        segment = self.settings.segment
        if segment > 1:
            if batch % segment:
                raise DataError(f"a batch of {batch} is no whole number of {segment} pictures of one archive",
                                hint=f"make it {max(1, batch // segment) * segment}")
            return SegmentPlan(width, height, self.index.archive[self._picture], batch, self.settings.sizes, segment)
        make = AspectPlan if self.settings.load is None else ShuffledPlan
        return make(width, height, batch, self.settings.sizes, repeated=self.settings.repeated)

    def _first_usable(self, number: int, canvas: Size, seed: int) -> Shown:
        """Give this picture, or the next that can be read and covers the canvas."""
        for step in range(min(MOST_SKIPPED, len(self))):
            candidate = (number + step) % len(self)
            try:
                # From the same seed whichever it is: what is skipped leaves no trace in the others.
                return self.show(candidate, canvas, np.random.default_rng(seed))
            except Unfit:
                continue
            except FrameError as problem:
                with self._lock:
                    self.broken.add(int(self._picture[candidate]), problem.message)
        reason = self.broken.first[0] if self.broken.first else f"they do not cover a canvas of {canvas[1]}x{canvas[0]}"
        raise DataError(
            f"none of {min(MOST_SKIPPED, len(self))} pictures in a row can be used: {reason}",
            hint=f"colorcli dataset check {self.store.root} tells what is wrong with the others",
        )

    def show(self, number: int, canvas: Size, rng: np.random.Generator) -> Shown:
        """Read a picture and do to it all that is done at random.

        canvas: (height, width). Raises FrameError if it or its reference cannot be used, Unfit if it is too small.
        """
        settings, entry = self.settings, self.index.entry(int(self._picture[number]))
        if settings.load is None and not _covers((entry.width, entry.height), canvas):
            raise Unfit(entry.path)
        target = self.layers(entry)
        if settings.load is None and not _covers(target.color.size, canvas):
            raise FrameError(
                f"color/{entry.path} is {_by(target.color.size)}, but the index says {entry.width}x{entry.height}"
            )
        name = self._reference_of(number, entry, rng)
        reference = target if name == entry.path and settings.reference != "paired" else self._reference(name)
        if entry.references and rng.random() < settings.flat_background:
            target, reference = flat_background(target, reference, rng)
        if settings.jitter:
            colors = jittered((target.color, reference.color), settings.jitter, rng)
            target, reference = replace(target, color=colors[0]), replace(reference, color=colors[1])
        image, sketch, mask, load, crop = _cropped(target, canvas, settings.load, rng)
        sketch = blank_margins(sketch, settings.margin_down, settings.margin_across, rng)
        if rng.random() < settings.flip:
            image, sketch, mask = image[:, ::-1], sketch[:, ::-1], mask[:, ::-1]
        if rng.random() < settings.rotation:
            reference = turned(reference, float(rng.uniform(-settings.most_degrees, settings.most_degrees)))
        square = (settings.reference_side,) * 2
        picture = np.asarray(reference.color.resize(square, Image.Resampling.BICUBIC))
        cover = np.asarray(reference.mask.resize(square, Image.Resampling.BICUBIC))
        if rng.random() < settings.reference_flip:
            picture, cover = picture[:, ::-1], cover[:, ::-1]
        width, height = target.color.size
        return Shown(
            image=image, sketch=sketch, mask=mask,
            reference=picture, reference_mask=change_mask(np.ascontiguousarray(cover), settings.mask, rng),
            size=(height, width, load), crop=crop,
            score=DEFAULT_SCORE if entry.score is None else entry.score, scored=entry.score is not None,
            path=entry.path, reference_path=name, sketch_by=entry.sketch_by, mask_by=entry.mask_by,
        )  # fmt: skip

    def layers(self, entry: Entry) -> Layers:
        """Read a picture, its sketch and its mask. Raises FrameError if one is broken or of another shape."""
        color, sketch = self.store.color(entry.path), self.store.color(entry.path, "sketch")
        mask = self.store.gray(entry.path)
        for kind, layer in (("sketch", sketch), ("mask", mask)):
            if not _same_shape(layer.size, color.size):
                raise FrameError(
                    f"{kind}/{entry.path} is {_by(layer.size)}, but its color picture is {_by(color.size)}"
                )
        return Layers(color, sketch, mask)

    def _reference(self, name: str) -> Layers:
        """Read a reference and its mask; a paired one has no mask, so the character is found in it."""
        if self.settings.reference == "paired":
            color = self.store.color(name, "reference")
            pixels = np.asarray(color, np.float32) / np.float32(255)
            found = mask_from_flat(pixels, np.zeros(pixels.shape[:2], np.float32))
            return Layers(color, color, Image.fromarray(np.round(found * 255).astype(np.uint8)))
        color, mask = self.store.color(name), self.store.gray(name)
        if not _same_shape(mask.size, color.size):
            raise FrameError(f"mask/{name} is {_by(mask.size)}, but its color picture is {_by(color.size)}")
        return Layers(color, color, mask)

    def _reference_of(self, number: int, entry: Entry, rng: np.random.Generator) -> str:
        """Give the path of the picture that is the reference."""
        choice = self.settings.reference
        if choice == "listed" and entry.references:
            return entry.references[int(rng.integers(len(entry.references)))]
        if choice == "every" and entry.references:
            return entry.references[int(self._listed[number])]
        if choice == "archive":
            members = self.store.members("color", str(Path(entry.path).parent))
            return members[int(rng.integers(len(members)))]
        if choice == "shifted":
            return self.index.entry((int(self._picture[number]) + self.settings.shift) % len(self.index)).path
        return entry.path


def _covers(size: tuple[int, int], canvas: Size) -> bool:
    """Tell whether a picture of (width, height) covers a canvas of (height, width), brought to its short side."""
    width, height = _resized(size, min(canvas))
    return width >= canvas[1] and height >= canvas[0]


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Give (width, height) with the short side brought to `short`, aspect kept, the long one rounded down."""
    width, height = size
    return (short, short * height // width) if width <= height else (short * width // height, short)


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether two sizes have the same aspect, up to a pixel of rounding in the smaller one."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _cropped(
    target: Layers, canvas: Size, load: tuple[int, int] | None, rng: np.random.Generator
) -> tuple[Bytes, Bytes, Bytes, int, tuple[float, float, float, float]]:
    """Resize a picture, its sketch and its mask alike and cut the canvas out of all at one random place.

    load: see `PictureSettings`. Gives color, sketch, mask, the short side, and the crop as fractions. Raises Unfit.
    """
    height, width = canvas
    short = min(canvas) if load is None else int(rng.integers(max(*canvas, load[0]), load[1]))
    size = _resized(target.color.size, short)
    room = size if load is None else (min(size[0], load[1]), min(size[1], load[1]))
    if room[0] < width or room[1] < height:
        raise Unfit
    left, top = int(rng.integers(room[0] - width + 1)), int(rng.integers(room[1] - height + 1))
    box = (left, top, left + width, top + height)
    layers = (
        np.asarray(layer.resize(size, Image.Resampling.BICUBIC).crop(box))
        for layer in (target.color, target.sketch, target.mask)
    )
    crop = (top / size[1], left / size[0], height / size[1], width / size[0])
    return *layers, short, crop  # type: ignore[return-value]


# --- generated drawings --------------------------------------------------------------------------------------------


class DrawnPictures:
    """Generated drawings as the published stages see pictures: the finished drawing, its line art, its mask."""

    def __init__(self, characters: CharacterSet, settings: PictureSettings, same_pose: float = 0.15) -> None:
        """same_pose: share of drawings whose reference is the drawing itself, else another pose of the character."""
        self.characters = characters
        self.settings = settings
        self.same_pose = same_pose

    def batch(self, turn: Turn, size: int) -> "PictureBatch":
        """Give the batch of a turn: `size` drawings of one canvas."""
        return stacked(self.shown(turn, size))

    def shown(self, turn: Turn, size: int) -> list[Shown]:
        """Give the drawings of a turn's batch, one by one."""
        rng = turn.rng
        pair = self.characters.pairs(rng, size, self.same_pose)
        return [self._show(*both, rng) for both in zip(pair.targets, pair.references, strict=True)]

    def _show(self, target: Sample, reference: Sample, rng: np.random.Generator) -> Shown:
        settings = self.settings
        height, width = target.line.shape
        ink = target.line.astype(np.uint16)[:, :, None]
        square = (settings.reference_side,) * 2
        cover = Image.fromarray(255 - reference.square_cells[:, :, 0])  # of the parts the first is the background
        cover = cover.resize(square, Image.Resampling.BICUBIC)
        sketch = np.repeat(target.line[:, :, None], 3, axis=2)
        return Shown(
            image=((target.flat * ink) // 255).astype(np.uint8),
            sketch=blank_margins(sketch, settings.margin_down, settings.margin_across, rng),
            mask=np.asarray(Image.fromarray(target.mask).resize((width, height), Image.Resampling.BILINEAR)),
            reference=np.asarray(Image.fromarray(reference.square_color).resize(square, Image.Resampling.BICUBIC)),
            reference_mask=change_mask(np.asarray(cover), settings.mask, rng),
            size=(height, width, min(height, width)), crop=(0.0, 0.0, 1.0, 1.0), score=DEFAULT_SCORE,
            path="drawn", reference_path="drawn", sketch_by="drawn", mask_by="drawn",
        )  # fmt: skip
