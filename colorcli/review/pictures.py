"""Small copies of pictures for a page: exact where they are flat, and each once, however many frames show it."""

import io
import threading
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorcli.images import Picture, over_paper

Float = NDArray[np.float32]

THUMBNAIL_PX = 168         # longer side in the contact sheet
THUMBNAIL_QUALITY = 82
LARGEST_EXACT = 160_000    # bytes of an exact copy; larger ones, such as of soft shades, are compressed with losses
LOSSY_QUALITY = 92


@dataclass(frozen=True)
class Copy:
    """A picture as the page holds it."""

    data: bytes    # WebP
    size: tuple[int, int]
    exact: bool    # no color was changed to save room


def page_copy(picture: Picture, longest: int) -> Copy:
    """Make the copy that the page shows, with its alpha, not longer than `longest` pixels; never larger than it is."""
    image = _image(shrunk(picture, longest))
    data = _webp(image, lossless=True, quality=60, method=2)
    exact = len(data) <= LARGEST_EXACT
    if not exact:
        data = _webp(image, quality=LOSSY_QUALITY, method=2)
    return Copy(data, image.size, exact)


def thumbnail(picture: Picture) -> bytes:
    """Make the picture of a contact sheet, over white, WebP."""
    small = shrunk(picture, THUMBNAIL_PX)
    return _webp(_image(replace(small, color=over_paper(small), alpha=None)), quality=THUMBNAIL_QUALITY, method=4)


def shrunk(picture: Picture, longest: int) -> Picture:
    """Give a picture that is not longer than `longest` pixels: a small copy of a longer one, else itself."""
    scale = longest / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.size[0] * scale)), max(1, round(picture.size[1] * scale)))
    if picture.alpha is None:
        color = cv2.resize(picture.color, size, interpolation=cv2.INTER_AREA)
        return replace(picture, color=np.clip(color, 0, 1))
    alpha = cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA)
    # Averages of straight color would bring in what is behind the alpha.
    held = cv2.resize(picture.color * picture.alpha[:, :, None], size, interpolation=cv2.INTER_AREA)
    color = np.divide(held, alpha[:, :, None], out=np.zeros_like(held), where=alpha[:, :, None] > 1e-6)
    return replace(picture, color=np.clip(color, 0, 1), alpha=alpha)


class Album:
    """The pictures of a page by number; any thread may add."""

    def __init__(self) -> None:
        self._copies: list[Copy] = []
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def number_of(self, digest: str) -> int | None:
        """The number of a picture that is there already."""
        with self._lock:
            return self._numbers.get(digest)

    def add(self, digest: str, copy: Copy) -> int:
        """Take in a picture, and give its number; the first of two with one digest stays."""
        with self._lock:
            if digest not in self._numbers:
                self._numbers[digest] = len(self._copies)
                self._copies.append(copy)
            return self._numbers[digest]

    def __len__(self) -> int:
        return len(self._copies)

    def __getitem__(self, number: int) -> Copy:
        return self._copies[number]

    @property
    def total_bytes(self) -> int:
        """Of all pictures together."""
        return sum(len(copy.data) for copy in self._copies)


def _image(picture: Picture) -> Image.Image:
    """A picture in 8 bits, RGB or straight RGBA."""
    pixels = picture.color if picture.alpha is None else np.dstack([picture.color, picture.alpha])
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _webp(image: Image.Image, **settings: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", **settings)
    return stream.getvalue()
