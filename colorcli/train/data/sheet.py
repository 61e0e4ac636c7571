"""A look at a training set: a contact sheet of what training sees of it, and a count of what it can use."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colorcli.errors import FrameError
from colorcli.images import FORMATS, write_picture
from colorcli.train.data.index import Counts
from colorcli.train.data.pictures import DrawnPictures, PictureSet, Shown
from colorcli.train.turn import Turn

HEIGHT = 240           # of a picture on the sheet, pixels
GAP = 8                # between pictures
PAPER = (238, 238, 238)
INK, FAINT = (20, 20, 20), (110, 110, 110)
TITLES = ("picture", "sketch", "mask", "reference", "reference's mask")
READ = 500             # pictures that are read to find broken ones, unless all are


@dataclass(frozen=True)
class SetCheck:
    """What a training set holds and what of it can be used."""

    indexed: bool              # False: there is no index
    counts: Counts             # rows of the index, and why some are left out
    landscape: int
    portrait: int
    square: int
    batches: int               # in an epoch, 0: too few pictures for a single one
    unseen: int                # pictures that no batch of an epoch has: a batch lies in one direction
    read: int                  # pictures that were read
    broken: dict[str, str]     # of those, path -> what is wrong
    sketch_by: dict[str, int]  # of those that were read
    mask_by: dict[str, int]
    canvases: dict[str, int]   # canvas, "1024x768" -> batches among the first ones of epoch 0


def check_set(
    pictures: PictureSet, batch: int, most: int | None = READ,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> SetCheck:
    """Read up to `most` pictures (None: all), spread evenly over a set, and count what there is.

    tell: receives how many pictures are read, and how many will be.
    """
    index = pictures.index
    count = len(index) if most is None else min(most, len(index))
    numbers = np.unique(np.linspace(0, len(index) - 1, count).astype(np.int64))
    broken: dict[str, str] = {}
    sketch_by: Counter[str] = Counter()
    mask_by: Counter[str] = Counter()
    for done, number in enumerate(numbers.tolist(), 1):
        path = f"row {number}"
        try:
            entry = index.entry(number)
            path = entry.path
            sketch_by[entry.sketch_by or "unknown"] += 1
            mask_by[entry.mask_by or "unknown"] += 1
            pictures.layers(entry)
        except FrameError as problem:
            broken[path] = problem.message
        tell(done, len(numbers))
    plan = pictures.order(batch)
    batches = plan.batches_of_epoch()
    sizes = [plan.planned(number).size for number in range(min(batches, 200))]
    return SetCheck(
        indexed=index.indexed,
        counts=index.counts,
        landscape=int((index.width > index.height).sum()),
        portrait=int((index.width < index.height).sum()),
        square=int((index.width == index.height).sum()),
        batches=batches,
        unseen=len(pictures) - batches * batch,
        read=len(numbers),
        broken=broken,
        sketch_by=dict(sketch_by),
        mask_by=dict(mask_by),
        canvases=dict(Counter(f"{width}x{height}" for height, width in sizes).most_common()),
    )


def write_sheet(path: Path, pictures: PictureSet | DrawnPictures, rows: int, seed: int = 0) -> list[Shown]:
    """Write what training sees of `rows` pictures, a row for each, and give them. Raises OutputError or DataError."""
    shown = [pictures.shown(Turn(seed, "sheet", number), 1)[0] for number in range(rows)]
    sheet = np.asarray(draw_sheet(shown), np.float32) / np.float32(255)
    write_picture(path, sheet, None, FORMATS["png8"])
    return shown


def draw_sheet(shown: Sequence[Shown]) -> Image.Image:
    """Lay pictures out in rows: image, sketch, mask, reference and its mask, with a line of text below."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    rows = [[_tile(pixels) for pixels in (row.image, row.sketch, row.mask, row.reference, row.reference_mask)]
            for row in shown]
    widths = [max((row[column].width for row in rows), default=HEIGHT) for column in range(len(TITLES))]
    line = HEIGHT + 44
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), 30 + line * len(rows)), PAPER)
    pen = ImageDraw.Draw(sheet)
    lefts = [GAP + sum(widths[:column]) + GAP * column for column in range(len(widths))]
    for left, title in zip(lefts, TITLES, strict=True):
        pen.text((left, 7), title, INK, font)
    for number, (row, told) in enumerate(zip(rows, shown, strict=True)):
        top = 30 + line * number
        for left, tile in zip(lefts, row, strict=True):
            sheet.paste(tile, (left, top))
            pen.rectangle((left - 1, top - 1, left + tile.width, top + tile.height), outline=FAINT)
        first, second = in_words(told)
        pen.text((lefts[0], top + HEIGHT + 3), first, INK, small)
        pen.text((lefts[0], top + HEIGHT + 20), second, FAINT, small)
    return sheet


def in_words(row: Shown) -> tuple[str, str]:
    """Tell of a picture in two lines: which it is, and what was done to it."""
    height, width, load = row.size
    canvas = f"{row.image.shape[1]}x{row.image.shape[0]}"
    of_itself = row.reference_path == row.path
    first = f"{row.path}   reference: {'the picture itself' if of_itself else row.reference_path}"
    score = f"{row.score:.2f}" + ("" if row.scored else " (nobody scored it)")
    second = (
        f"{width}x{height}, short side to {load}, canvas {canvas} at {row.crop[1]:.0%} across, {row.crop[0]:.0%} down"
        f"   score {score}   sketch: {row.sketch_by or 'unknown'}   mask: {row.mask_by or 'unknown'}"
    )
    return first, second


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    width = max(1, round(picture.width * HEIGHT / picture.height))
    return picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)
