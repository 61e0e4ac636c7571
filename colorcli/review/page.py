"""The page of a review: one HTML file that needs nothing beside it and no network, written from templates."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from colorcli.prepare.palette_file import hex_color
from colorcli.review.pictures import Album
from colorcli.review.reviewed import ReviewedFrame, ReviewedShot
from colorcli.settings import flattened
from colorcli.shot.manifest import THERE, Manifest
from colorcli.shot.unsure import unsure_count
from colorcli.whole_file import whole_file

PAGE_NAME = "review.html"
CHART_WIDTH, CHART_HEIGHT = 1000, 100   # of the curves, in their own units: they are stretched to the page
FIRST_SHOWN = 12                        # frames worth a look that are shown at once
ASSETS = files("colorcli.review").joinpath("assets")

STATUS_WORDS = {
    "written": "colored", "held": "held drawing", "skipped": "up to date", "failed": "failed", "missing": "no drawing",
}


@dataclass(frozen=True)
class Curve:
    """One number of every frame, to be drawn."""

    title: str
    what: str                          # in a sentence
    unit: str
    values: tuple[float | None, ...]   # None: not measured
    least_top: float                   # the axis reaches at least so far: small numbers shall look small

    @property
    def top(self) -> float:
        """Where the axis ends."""
        return max([self.least_top, *(value for value in self.values if value is not None)])

    @property
    def known(self) -> list[float]:
        """The values that were measured."""
        return [value for value in self.values if value is not None]

    @property
    def highest(self) -> int:
        """The place of the highest value."""
        return max(range(len(self.values)), key=lambda place: -1.0 if (value := self.values[place]) is None else value)

    def x(self, place: int) -> float:
        """Where a frame stands, 0..CHART_WIDTH: in the middle of its share of the width."""
        return (place + 0.5) / len(self.values) * CHART_WIDTH

    def y(self, value: float) -> float:
        """How high a value is, from the top."""
        return CHART_HEIGHT * (1 - value / self.top)

    def pieces(self) -> list[str]:
        """The curve as SVG paths, parted where nothing was measured."""
        paths: list[list[str]] = [[]]
        for place, value in enumerate(self.values):
            if value is None:
                paths.append([])
            else:
                paths[-1].append(f"{self.x(place):.2f} {self.y(value):.2f}")
        return [f"M{points[0]}h0.01" if len(points) == 1 else "M" + "L".join(points) for points in paths if points]

    def areas(self) -> list[str]:
        """The same closed at the bottom, to be filled."""
        closed = []
        for piece in self.pieces():
            points = piece[1:].split("L")
            if len(points) > 1:
                first, last = points[0].split()[0], points[-1].split()[0]
                closed.append(f"{piece}L{last} {CHART_HEIGHT}L{first} {CHART_HEIGHT}Z")
        return closed


def write_page(path: Path, shots: Sequence[ReviewedShot], album: Album, *, rate: float, title: str) -> None:
    """Write the page of some shots, whole or not at all. rate: frames a second. Raises OutputError."""
    script, style = _asset("page.js"), _asset("page.css")
    assert "</script" not in script and "</style" not in style
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "hex": hex_color,
        "percent": _percent,
        "number": _number,
        "count_of": _count_of,
    }
    stream = environment.get_template("page.html.jinja").stream(
        title=title,
        script=jinja2.utils.markupsafe.Markup(script),
        style=jinja2.utils.markupsafe.Markup(style),
        # Nothing is fetched and no other script runs, whatever stands in a frame's name or a message.
        policy=f"default-src 'none'; img-src data: blob:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        shots=[_shot_for_page(shot) for shot in shots],
        data={"rate": rate, "shots": [_shot_for_script(shot) for shot in shots]},
        pictures=lambda: _pictures(album),
        status_words=STATUS_WORDS,
        first_shown=FIRST_SHOWN,
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
    )
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.writelines(stream)


def curves_of(shot: ReviewedShot) -> tuple[Curve, ...]:
    """The curves of a shot."""
    changes = [frame.change for frame in shot.frames]
    looks = [frame.measured.look for frame in shot.frames]
    shares = [frame.record.unsure_share if frame.record.status in THERE else None for frame in shot.frames]
    return (
        Curve(
            "Flicker",
            "Mean change of a channel against the frame before, inside regions that both drawings show at the same "
            "place. Steady flat colors are at 0; painted shadows that move count a little.",
            "8-bit levels",
            tuple(None if change is None else change.flicker for change in changes),
            2.0,
        ),
        Curve(
            "Repainted",
            "Share of the character in regions that have another color than in the frame before, by CIEDE2000 8 or "
            "more.",
            "% of the character",
            tuple(None if change is None else 100 * change.jumped for change in changes),
            5.0,
        ),
        Curve(
            "Distance to the palette",
            "Mean CIEDE2000 distance of the character's colors to the nearest color of the key. 1 is hardly visible; "
            "flat colors that are snapped to the key are at 0.",
            "CIEDE2000",
            tuple(None if look is None else look.palette_distance for look in looks),
            4.0,
        ),
        Curve(
            "Unsure",
            "Share of the figure in regions whose color is right with less than the chance that checks.unsure_below "
            "asks for, as the coloring itself told it.",
            "% of the figure",
            tuple(None if share is None else 100 * share for share in shares),
            10.0,
        ),
    )


def _shot_for_page(shot: ReviewedShot) -> Mapping[str, Any]:
    """What the template shows of a shot."""
    failed, missing = shot.count("failed"), shot.count("missing")
    return {
        "shot": shot,
        "manifest": shot.manifest,
        "there": shot.there,
        "failed": failed,
        "missing": missing,
        "expected": len(shot.frames) - missing,
        "curves": [curve for curve in curves_of(shot) if curve.known],
        "flicker": shot.flicker,
        "repainted": None if shot.repainted is None else 100 * shot.repainted,
        "first": [(place, shot.frames[place]) for place in shot.first],
        "failures": [(place, frame) for place, frame in enumerate(shot.frames) if frame.record.status == "failed"],
        "settings": [(path, _value(value)) for path, value in flattened(shot.manifest.settings).items()],
        "facts": list(_facts(shot.manifest)),
        "foreign": _foreign(shot),
    }


def _shot_for_script(shot: ReviewedShot) -> Mapping[str, Any]:
    """What the script needs to know of a shot."""
    return {
        "name": shot.name,
        "palette": [hex_color(color.color) for color in shot.palette],
        "first": list(shot.first),
        "layers": list(dict.fromkeys(name for frame in shot.frames for name in frame.layers)),
        "frames": [_frame_for_script(frame) for frame in shot.frames],
    }


def _frame_for_script(frame: ReviewedFrame) -> Mapping[str, Any]:
    change, look, record = frame.change, frame.measured.look, frame.record
    return {
        "name": record.frame,
        "status": STATUS_WORDS[record.status],
        "before": frame.before,
        "after": frame.after,
        "layers": frame.layers,
        "ticks": frame.ticks,
        "error": record.error.message if record.error else None,
        "hint": record.error.hint if record.error else None,
        "reasons": [reason.words for reason in frame.reasons],
        "flicker": None if change is None else round(change.flicker, 2),
        "repainted": None if change is None else round(100 * change.jumped, 2),
        "distance": None if look is None or look.palette_distance is None else round(look.palette_distance, 2),
        "jumps": [] if change is None else [
            {"box": [round(share, 4) for share in jump.box], "from": jump.before, "to": jump.after}
            for jump in change.jumps
        ],
        "unsure": _unsure_for_script(frame),
        "unsure_count": unsure_count(record),
    }


def _unsure_for_script(frame: ReviewedFrame) -> list[Mapping[str, Any]]:
    """The regions to look at that are listed, their boxes as shares of the frame."""
    if frame.size is None:
        return []
    width, height = frame.size
    return [
        {
            "box": [round(pixels / side, 4) for pixels, side in zip(region.box, (width, height) * 2, strict=True)],
            "color": region.color,
            "other": region.other,
            "sure": None if region.sure is None else round(100 * region.sure),
        }
        for region in frame.record.unsure
    ]


def _foreign(shot: ReviewedShot) -> list[tuple[str, float, int]]:
    """Colors that are none of the key's: #rrggbb, their largest share in a frame, and the place of that frame."""
    found: dict[str, tuple[float, int]] = {}
    for place, frame in enumerate(shot.frames):
        for color, share in frame.measured.look.foreign if frame.measured.look else ():
            if share > found.get(color, (0.0, 0))[0]:
                found[color] = (share, place)
    return sorted(((color, share, place) for color, (share, place) in found.items()), key=lambda one: -one[1])[:12]


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_value(one) for one in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    return str(value)


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What else is known of how the shot was made."""
    asked = manifest.request
    yield "preset", asked.preset or "-"
    yield "drawings", manifest.shot
    yield "key", ", ".join(asked.refs) or "-"
    if asked.masks:
        yield "masks", ", ".join(asked.masks)
    if manifest.background is not None:
        yield "background", manifest.background.path
    if manifest.palette is not None:
        yield "palette", manifest.palette.path
    layers = manifest.settings.get("layers")
    if isinstance(layers, Mapping) and layers.get("names"):
        yield "layers", f"{_value(layers['names'])}, as {_value(layers.get('files'))}"
    if asked.frames or asked.chunk:
        yield "frames of the last run", " ".join(part for part in (asked.frames, asked.chunk) if part)
    yield "colorcli", f"{manifest.tool}, method {manifest.method}"
    yield "first colored", manifest.created
    yield "last colored", manifest.updated or manifest.created


def _pictures(album: Album) -> Iterator[tuple[int, str]]:
    for number in range(len(album)):
        yield number, base64.b64encode(album[number].data).decode()


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "< 0.1%"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _count_of(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _digest(text: str) -> str:
    """A script or a style as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return ASSETS.joinpath(name).read_text(encoding="utf-8")
