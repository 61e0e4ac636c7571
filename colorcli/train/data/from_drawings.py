"""A training set of generated drawings: every character in several poses, each pose a reference of the others."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colorcli.train.data.archives import png_bytes, write_archives
from colorcli.train.data.blocks import KINDS, Part
from colorcli.train.data.buckets import canvas_sizes
from colorcli.train.data.index import Entry
from colorcli.train.drawings import FAMILIES, TAGS, VALIDATION_FAMILIES, design_character, draw

CHARACTERS_PER_ARCHIVE = 20
SPARE = 4     # pixels by which the long side of a picture exceeds that of the canvas it is drawn for
VERSION = 1   # of the drawings: raised when the same seed gives other ones


@dataclass(frozen=True)
class CharacterBlock:
    """Some generated characters."""

    first: int         # seed of the first character, the others follow
    characters: int
    poses: int
    side: int          # of the square whose area the pictures have, pixels
    validation: bool = False   # of families that mini is never trained on

    @property
    def zip_id(self) -> str:
        """Name of its archives: the seed of its first character."""
        return f"{'validation' if self.validation else 'drawn'}_{self.first:08d}"

    @property
    def source(self) -> str:
        """A source of its own, so that other characters stay where they are."""
        return self.zip_id

    @property
    def count(self) -> int:
        """Pictures in it."""
        return self.characters * self.poses

    def made_of(self) -> dict[str, Any]:
        """All that decides on the drawings."""
        return {**asdict(self), "version": VERSION}

    def write(self, root: Path) -> Part:
        """Draw the characters and write their archives. Raises OutputError."""
        families = list(VALIDATION_FAMILIES if self.validation else FAMILIES)
        sizes = canvas_sizes(self.side)
        entries: list[Entry] = []
        with write_archives(root, self.zip_id, KINDS) as archives:
            for seed in range(self.first, self.first + self.characters):
                character = design_character(seed, families[seed % len(families)] if self.validation else None)
                rng = np.random.default_rng([seed, 78])
                names = [f"{seed:08d}_{pose:02d}.png" for pose in range(self.poses)]
                for name in names:
                    height, width = (
                        # A batch takes no canvas that its pictures only just cover.
                        length + SPARE * (length > self.side) for length in sizes[int(rng.integers(len(sizes)))]
                    )
                    drawing = draw(character, int(rng.integers(2**31)), (width, height))
                    for kind, pixels in zip(KINDS, (drawing.color, drawing.line, drawing.mask), strict=True):
                        archives.add(kind, name, png_bytes(pixels))
                    others = tuple(f"{self.zip_id}/{other}" for other in names if other != name)
                    tags = ", ".join(tag for tag, there in zip(TAGS, drawing.tags, strict=True) if there)
                    entries.append(Entry(f"{self.zip_id}/{name}", width, height, references=others, tags=tags,
                                         sketch_by="drawn", mask_by="drawn"))
        return Part(tuple(entries))


def character_blocks(
    characters: int, poses: int, seed: int, side: int, validation: bool = False
) -> list[CharacterBlock]:
    """Part characters into blocks; the first one has the seed given."""
    return [
        CharacterBlock(seed + first, min(CHARACTERS_PER_ARCHIVE, characters - first), poses, side, validation)
        for first in range(0, characters, CHARACTERS_PER_ARCHIVE)
    ]
