"""Pictures whose right colors are known: shots with their truth, and training sets in the published layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorcli.errors import FrameError, KeyImageError, ShotError
from colorcli.images import FORMATS, Picture, read_picture
from colorcli.train.data.archives import PictureStore
from colorcli.train.data.index import PictureFilter, PictureIndex, open_index

Float = NDArray[np.float32]

PICTURES = {".png", ".tif", ".tiff", ".tga", ".jpg", ".jpeg", ".exr"}
EVERY_PICTURE = PictureFilter(min_score=-np.inf, missing_score=0.0, min_side=1)


@dataclass(frozen=True)
class KnownFrame:
    """A drawing and its truth, read when they are asked for. Reading raises FrameError."""

    name: str
    line: Callable[[], Picture]
    color: Callable[[], Picture]
    mask: Callable[[], Float | None] = lambda: None   # (H, W) where the character is, if a file says so


class Known(Protocol):
    """Some frames of one character, and a key of it."""

    @property
    def name(self) -> str: ...

    @property
    def frames(self) -> Sequence[KnownFrame]: ...

    def read_key(self) -> Picture:
        """Read the key. Raises KeyImageError."""

    def read_key_mask(self) -> Float | None:
        """The key's character (H, W), if a file tells it."""


@dataclass(frozen=True)
class KnownShot:
    """A shot with its truth: a folder with `line/`, `color/` of the same file names, and `key.png`."""

    name: str
    lines: tuple[Path, ...]
    colors: tuple[Path, ...]
    key: Path

    @cached_property
    def frames(self) -> tuple[KnownFrame, ...]:
        """Its frames in order."""
        return tuple(
            KnownFrame(line.name, partial(read_picture, line), partial(read_picture, color))
            for line, color in zip(self.lines, self.colors, strict=True)
        )

    def read_key(self) -> Picture:
        """Read the key. Raises KeyImageError."""
        try:
            return read_picture(self.key)
        except FrameError as error:
            raise KeyImageError(f"the key cannot be used: {error.message}", hint=error.hint) from error

    def read_key_mask(self) -> Float | None:
        """Nothing: a key's alpha tells where the character is."""
        return None


@dataclass(frozen=True)
class KnownPicture:
    """A picture of a training set: sketch, color and mask of one name; its key is the color picture itself."""

    store: PictureStore
    item: str

    @property
    def name(self) -> str:
        """Its path in the set, `<zip-id>/<file>`."""
        return self.item

    @property
    def frames(self) -> tuple[KnownFrame, ...]:
        """The one frame."""
        return (KnownFrame(self.item, self._line, self._color, self.read_key_mask),)

    def read_key(self) -> Picture:
        """Read the color picture. Raises FrameError, so that it can be passed over."""
        return self._color()

    def read_key_mask(self) -> Float | None:
        """The character as `mask/` tells it, (H, W), if there is one."""
        if not self.store.has("mask"):
            return None
        mask, size = self.store.gray(self.item), self.store.size(self.item, "color")
        fitting = mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(fitting, np.float32) / np.float32(255)

    def _line(self) -> Picture:
        sketch, size = self.store.color(self.item, "sketch"), self.store.size(self.item, "color")
        # Sets exist whose sketches were made at another size than their pictures.
        return _picture(sketch if sketch.size == size else sketch.resize(size, Image.Resampling.BICUBIC))

    def _color(self) -> Picture:
        return _picture(self.store.color(self.item))


def is_training_set(data: Path) -> bool:
    """Tell whether a folder is a training set in the published layout: it has color/ and sketch/."""
    return (data / "color").is_dir() and (data / "sketch").is_dir()


def find_known_shots(data: Path) -> list[KnownShot]:
    """Find the shots with known colors in a folder, by name. A folder that is itself one counts as well.

    Raises ShotError if there are none, if a drawing has no truth, or if a key is missing.
    """
    if not data.is_dir():
        raise ShotError(f"there is no folder {data}", hint="give the folder that holds the shots with known colors")
    inner = sorted(path for path in data.iterdir() if (path / "line").is_dir())
    folders = [data] if (data / "line").is_dir() else inner
    if not folders:
        raise ShotError(
            f"{data} holds no shot with known colors",
            hint="each needs line/, color/ and key.png; a training set needs color/ and sketch/",
        )
    return [_known_shot(folder) for folder in folders]


def find_known_pictures(data: Path, limit: int | None = None) -> list[KnownPicture]:
    """Find the pictures of a training set, whatever their score and size; `limit` of them spread evenly over it.

    Raises DataError if there are none.
    """
    store = PictureStore(data)
    index: PictureIndex = open_index(store, EVERY_PICTURE)
    count = len(index) if limit is None else min(limit, len(index))
    numbers = np.linspace(0, len(index), count, endpoint=False).astype(int)
    return [KnownPicture(store, index.entry(int(number)).path) for number in numbers]


def first_frames(shots: Sequence[KnownShot], limit: int | None) -> list[KnownShot]:
    """Keep `limit` frames at most, as many of each shot, the first ones: flicker needs neighbors."""
    if limit is None:
        return list(shots)
    each = max(1, limit // len(shots))
    return [replace(shot, lines=shot.lines[:each], colors=shot.colors[:each]) for shot in shots[:limit]]


def _known_shot(folder: Path) -> KnownShot:
    lines = sorted(path for path in (folder / "line").iterdir() if path.suffix.lower() in PICTURES)
    if not lines:
        raise ShotError(f"{folder / 'line'} holds no frames", hint="take the shot out of the folder, or fill it")
    colors = [folder / "color" / path.name for path in lines]
    for path in colors:
        if not path.exists():
            raise ShotError(f"{path} is missing, but line/{path.name} is there", hint="every drawing needs its truth")
    key = folder / "key.png"
    if not key.exists():
        raise ShotError(f"{folder} has no key.png", hint="copy the color frame there that is to be the key")
    return KnownShot(folder.name, tuple(lines), tuple(colors), key)


def _picture(image: Image.Image) -> Picture:
    pixels = np.asarray(image, np.float32) / np.float32(255)
    return Picture(np.ascontiguousarray(pixels), None, FORMATS["png8"], 3)
