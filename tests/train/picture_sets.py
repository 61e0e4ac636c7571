"""Small training sets for tests, in which one can tell from a pixel which picture it belongs to."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorcli.train.data.archives import Kind, png_bytes, write_archives
from colorcli.train.data.index import INDEX_FOLDER, Entry, write_index

KINDS: tuple[Kind, ...] = ("color", "sketch", "mask")


def color_of(number: int) -> tuple[int, int, int]:
    """The color of picture `number`: no two of the first 256 are alike."""
    return number, 255 - number, (7 * number) % 256


def layers(number: int, size: tuple[int, int]) -> dict[Kind, NDArray[np.uint8]]:
    """A picture of one color whose sketch has a line across, and whose character is its left half. size: (w, h)."""
    width, height = size
    color = np.full((height, width, 3), color_of(number), np.uint8)
    sketch = np.full((height, width), 255, np.uint8)
    sketch[height // 2] = 0
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return {"color": color, "sketch": sketch, "mask": mask}


def write_set(
    root: Path, sizes: Iterable[tuple[int, int]], archives: int = 2, *, indexed: bool = True, score: float | None = 6.0
) -> list[Entry]:
    """Write pictures of these (width, height) into archives by turns, with an index; gives what the index says."""
    entries = []
    numbered = list(enumerate(sizes))
    for archive in range(archives):
        zip_id = f"{archive:05d}"
        with write_archives(root, zip_id, KINDS) as writer:
            for number, size in numbered[archive::archives]:
                for kind, pixels in layers(number, size).items():
                    writer.add(kind, f"{number:03d}.png", png_bytes(pixels))
                entries.append(Entry(f"{zip_id}/{number:03d}.png", *size, score=score))
    if indexed:
        with write_index(root / INDEX_FOLDER) as index:
            for entry in entries:
                index.add(entry)
    return entries
