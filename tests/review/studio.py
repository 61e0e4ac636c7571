"""Shots for tests of reviews: boxes in known colors, colored for real or put together by hand."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, PixelFormat, write_picture
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset
from colorcli.review.measure import Change
from colorcli.review.page import write_page
from colorcli.review.pictures import Album, page_copy, thumbnail
from colorcli.review.reviewed import ReviewedFrame, ReviewedShot, review_shot
from colorcli.review.worth import Measured
from colorcli.shot.journal import Journal, later_than
from colorcli.shot.manifest import FrameRecord, Manifest, UnsureRegion, read_records
from tests.shot.studio import FakeColorizer, as_painted, color, draw_key

Float = NDArray[np.float32]
PNG8 = PixelFormat("png", "uint8")
RED, GREEN, BLUE, GRAY = (0.8, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.4, 0.8), (0.6, 0.6, 0.6)
SIZE = (96, 64)


def boxes(*places: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> Float:
    """Outlined boxes (left, top, width, height) in ink on white paper, (H, W, 3)."""
    paper = np.ones((size[1], size[0], 3), np.float32)
    for left, top, width, height in places:
        paper[top : top + height, left : left + width] = 0
        paper[top + 2 : top + height - 2, left + 2 : left + width - 2] = 1
    return paper


def painted(drawing: Float, *fills: tuple[tuple[int, int, int, int], tuple[float, float, float]]) -> Float:
    """A drawing with its boxes filled inside their lines."""
    result = drawing.copy()
    for (left, top, width, height), fill in fills:
        result[top + 2 : top + height - 2, left + 2 : left + width - 2] = fill
    return result


@dataclass
class Painter(FakeColorizer):
    """Paints the first frame in the first color, the next in the next."""

    colors: Sequence[tuple[float, float, float]] = ()
    order: list[tuple[float, float, float]] = field(default_factory=list)

    def color(
        self, frames: Sequence[PreparedFrame], reference: Float, preset: Preset, votes: Sequence[Sequence[float]] = ()
    ) -> list[Float]:
        layers = super().color(frames, reference, preset, votes)
        for layer in layers:
            fill = self.colors[len(self.order) % len(self.colors)]
            self.order.append(fill)
            layer[:] = fill
        return layers


def colored_shot(
    folder: Path, fills: Sequence[tuple[float, float, float]], *, numbers: Sequence[int] | None = None, **asked: object
) -> Path:
    """Color a shot of one box, which moves a little, in a color for each frame; gives OUT. Named sc.0001.png."""
    shot = folder / "sc"
    shot.mkdir(parents=True)
    for place, number in enumerate(numbers or range(1, len(fills) + 1)):
        write_picture(shot / f"sc.{number:04d}.png", boxes((20 + place, 12, 40, 40)), None, PNG8)
    draw_key(folder / "key.png", RED)
    out = folder / "out"
    color(shot, ref=folder / "key.png", colorizer=Painter(colors=fills), out=out, preset=as_painted(), **asked)
    return out


def doubt(out: Path, frame: str, *, share: float, count: int = 1, **region: object) -> None:
    """Write into a shot's records that a frame has a region which a person should look at."""
    with Journal(out / "frames.doubts.jsonl") as journal:
        for record in read_records(out):
            if record.frame == frame:
                told = UnsureRegion.model_validate({"area": 400} | region)
                checks = record.checks | {"unsure": count, "unsure_area": share}
                update = {"unsure": (told,), "checks": checks, "finished": later_than(record.finished)}
                journal.add(record.model_copy(update=update))


def made_up_shot(count: int, *, failed: Sequence[int] = (), size: tuple[int, int] = SIZE) -> tuple[ReviewedShot, Album]:
    """A reviewed shot of many frames without any file: at place n gray n % 200 + 30 over a white drawing."""
    album = Album()
    frames = []
    white = _picture((1.0, 1.0, 1.0), size)
    drawing = album.add("drawing", page_copy(white, 960))
    for place in range(count):
        name = f"sc.{place + 1:04d}"
        if place in failed:
            record = FrameRecord.model_validate(
                {"frame": name, "number": place + 1, "sequence": "sc.", "status": "failed",
                 "error": {"kind": "frame", "message": f"{name}.png is damaged", "hint": "save it again"}}
            )
            frames.append(ReviewedFrame(Measured(record), before=drawing))
            continue
        level = (place % 200 + 30) / 255
        picture = _picture((level, level, level), size)
        record = FrameRecord(
            frame=name, number=place + 1, sequence="sc.", status="written", output=f"{name}.png", seconds=0.1
        )
        change = Change(float(place % 7), 1.0, 0.0, ())
        frames.append(
            ReviewedFrame(
                Measured(record, change=change), drawing, album.add(f"result {place}", page_copy(picture, 960)),
                thumbnail(picture),
            )
        )
    manifest = Manifest(shot="../sc", name="sc")
    return ReviewedShot("sc", Path("out"), None, manifest, tuple(frames), tuple(failed), None, (), ()), album


def _picture(fill: tuple[float, float, float], size: tuple[int, int]) -> Picture:
    pixels = np.empty((size[1], size[0], 3), np.float32)
    pixels[:] = fill
    return Picture(pixels, None, PNG8, 3)


def page_of(out: Path, page: Path, *, rate: float = 24.0) -> tuple[str, ReviewedShot]:
    """Review one shot; gives the text of the page, and what was found."""
    album = Album()
    shot = review_shot(out, album)
    write_page(page, [shot], album, rate=rate, title="review")
    return page.read_text(encoding="utf-8"), shot


class Page(HTMLParser):
    """The elements of a page, as another parser than a browser's sees them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs) | {"": tag}, ""))

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style"):
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of one kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, list[dict[str, object]]]:
        """What the script is given."""
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "data"))

    def picture(self, number: int) -> str:
        """A picture of the page, base64."""
        return next(text for attributes, text in self.scripts if attributes.get("id") == f"picture-{number}").strip()

    @property
    def words(self) -> str:
        """The text of the page with single spaces."""
        return re.sub(r"\s+", " ", self.text)
