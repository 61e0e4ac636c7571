"""Palettes that a studio keeps in files: Adobe swatches (.ase), GIMP's palettes (.gpl), and JSON.

A swatch may be the shadow of another: a name that ends in shadow, shade, sh or dark ("skin shadow", "skin_sh",
"Skin (dark)", "skin shadow 2") and is "skin" without it. In an Adobe file a group may have the name instead: the swatch
"shadow" of the group "skin" is the shadow of the group's first other swatch. Names of one group go together first.
"""

import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.errors import PresetError
from colorcli.files import open_plain, parse_json

Floats = NDArray[np.float32]

LARGEST_FILE = 1_000_000   # bytes; a palette of a thousand swatches has about 50,000
MOST_SWATCHES = 4096

ASE_BEGINS = b"ASEF"
ASE_COLOR = 0x0001
ASE_GROUP = 0xC001
ASE_GROUP_ENDS = 0xC002
ASE_CHANNELS = {"RGB ": 3, "LAB ": 3, "Gray": 1, "CMYK": 4}

HEX_COLOR = re.compile(r"#?([0-9a-fA-F]{6})")
OLD_COLOR = re.compile(r"\s*#[0-9a-fA-F]{6}\s*")   # a name in a palette swap; without # it may be a word: "facade"
SHADOW_WORDS = {"shadow", "shade", "sh", "dark"}   # with a number behind them, too
FEWER = "keep the colors of the character"
SHAPES = """write {"skin": "#fad6be", ...}, or a swap of old and new: {"#fad6be": "#7a6f9e", ...}"""
GPL_LINE = re.compile(r"\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})(?:\s+(.*))?")

Color = tuple[float, float, float]
Words = tuple[str, ...]


@dataclass(frozen=True)
class Swatch:
    """A color with a name; colors are sRGB-encoded, 0..1."""

    name: str                     # may be empty
    color: Color
    group: str = ""               # the name of the group that it is in
    becomes: Color | None = None  # in a palette swap: the color that takes its place


@dataclass(frozen=True)
class Swatches:
    """The colors of a production, sRGB-encoded in 0..1."""

    colors: Floats                             # (S, 3)
    pairs: tuple[tuple[int, int], ...] = ()    # the numbers of a color and of one that is its shadow by name
    swapped: Floats | None = None              # (S, 3) what takes the place of each, in a palette swap

    def digest(self) -> str:
        """SHA-256 over all that a picture can depend on; that of the colors alone where there is nothing else."""
        digest = hashlib.sha256(self.colors.tobytes())
        if self.pairs:
            digest.update(b"pairs" + repr(self.pairs).encode())
        if self.swapped is not None:
            digest.update(b"swapped" + self.swapped.tobytes())
        return digest.hexdigest()


class _Fault(ValueError):
    """What is wrong with a palette, in words that go on after the file's name, and what to do."""

    def __init__(self, what: str, hint: str = "save it again, as RGB swatches") -> None:
        super().__init__(what)
        self.hint = hint


def read_swatches(path: Path) -> tuple[Swatch, ...]:
    """Read the swatches of a .ase, .gpl or .json file, in its order; doubles without a name of their own are left out.

    Raises PresetError if it is missing, of another kind, damaged, or holds no color that a screen has.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise PresetError(f"the palette {path} is of no kind that can be read", hint="give a .ase, .gpl or .json file")
    try:
        with open_plain(path) as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PresetError(f"the palette {path} cannot be read: {error.strerror}", hint="check its name") from error
    try:
        if len(data) > LARGEST_FILE:
            raise _Fault(f"is larger than {LARGEST_FILE:,} bytes", FEWER)
        found: list[Swatch] = []
        names: dict[Color, set[tuple[str, str]]] = {}
        for swatch in read(data):
            named = names.setdefault(swatch.color, set())
            if not named or (swatch.name and (swatch.group, swatch.name) not in named):
                found.append(swatch)
            named.add((swatch.group, swatch.name))
        if not found:
            raise _Fault("holds no color")
        if len(found) > MOST_SWATCHES:
            raise _Fault(f"holds {len(found)} colors, and {MOST_SWATCHES} are the most", FEWER)
    except _Fault as fault:
        raise PresetError(f"the palette {path} {fault}", hint=fault.hint) from None
    return tuple(found)


def swatches_of(swatches: Sequence[Swatch]) -> Swatches:
    """Give the colors of swatches, each once, and which of them are pairs by their names."""
    number = {color: place for place, color in enumerate(dict.fromkeys(swatch.color for swatch in swatches))}
    first = {swatch.color: swatch for swatch in reversed(swatches)}
    swapped = [first[color].becomes for color in number]
    pairs = dict.fromkeys(
        (number[lit.color], number[dark.color]) for lit, dark in _named_pairs(swatches) if lit.color != dark.color
    )
    return Swatches(
        np.array(list(number), np.float32).reshape(-1, 3),
        tuple(pairs),
        None if None in swapped else np.array(swapped, np.float32).reshape(-1, 3),
    )


def _named_pairs(swatches: Sequence[Swatch]) -> Iterator[tuple[Swatch, Swatch]]:
    """Give each color that has a shadow by name, and the shadow."""
    lit: dict[tuple[Words, Words], Swatch] = {}   # by group and name
    alone: dict[Words, Swatch] = {}                # by name, in whatever group
    first: dict[Words, Swatch] = {}                # of each group
    dark: list[tuple[Swatch, Words]] = []
    for swatch in swatches:
        group, name = _words(swatch.group), _words(swatch.name)
        base = _base(name)
        if base is not None:
            dark.append((swatch, base))
            continue
        lit.setdefault((group, name), swatch)
        alone.setdefault(name, swatch)
        if group:
            first.setdefault(group, swatch)
    for shadow, base in dark:
        group = _words(shadow.group)
        found = (lit.get((group, base)) or alone.get(base)) if base else first.get(group)
        if found is not None:
            yield found, shadow


def _words(name: str) -> Words:
    """A name as it is compared: its words in small letters."""
    return tuple(word for word in re.split(r"[\s_./:,()-]", name.casefold()) if word)


def _base(name: Words) -> Words | None:
    """What a name is the shadow of, in words; none of them if it is only called a shadow; None: it is no shadow."""
    words = name[:-1] if len(name) > 1 and name[-1].isdigit() else name
    if words and words[-1].rstrip("0123456789") in SHADOW_WORDS:
        return words[:-1]
    return None


def hex_color(color: Floats) -> str:
    """Write a color (3,) in 0..1 as #rrggbb."""
    return "#" + "".join(f"{round(float(level) * 255):02x}" for level in color)


def _read_gpl(data: bytes) -> Iterator[Swatch]:
    """A text: its kind in the first line, then red, green and blue in 0..255 and a name in each line."""
    lines = data.decode("utf-8", errors="replace").lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "GIMP Palette":
        raise _Fault("does not begin with the line 'GIMP Palette'")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip() or line.lstrip().startswith("#") or re.match(r"(Name|Columns|Channels):", line):
            continue
        match = GPL_LINE.fullmatch(line)
        if match is None or any(int(level) > 255 for level in match.group(1, 2, 3)):
            raise _Fault(f"has a line {number} that is no color in 0..255: {line[:40]!r}")
        yield Swatch((match[4] or "").strip(), _of_levels(*(int(level) for level in match.group(1, 2, 3))))


def _read_ase(data: bytes) -> Iterator[Swatch]:
    """Blocks of a kind, a length and a body; a color's body is its name in UTF-16, a model, and floats."""
    if data[:4] != ASE_BEGINS or len(data) < 12:
        raise _Fault("does not begin as an Adobe swatch file does")
    (count,) = struct.unpack_from(">I", data, 8)
    at, group = 12, ""
    for _ in range(count):
        kind, length = _unpacked(">HI", data, at)
        at += 6
        body = data[at : at + length]
        if len(body) < length:
            raise _Fault("ends too early")
        at += length
        if kind == ASE_GROUP:
            group, _ = _ase_name(body)
        elif kind == ASE_GROUP_ENDS:
            group = ""
        elif kind == ASE_COLOR:
            yield _ase_color(body, group)


def _ase_name(body: bytes) -> tuple[str, int]:
    """The name at the start of a block, and where it ends."""
    (letters,) = _unpacked(">H", body, 0)
    end = 2 + 2 * letters
    return body[2:end].decode("utf-16-be", errors="replace").rstrip("\0"), end


def _ase_color(body: bytes, group: str) -> Swatch:
    name, at = _ase_name(body)
    model = body[at : at + 4].decode("ascii", errors="replace")
    if model not in ASE_CHANNELS:
        raise _Fault(f"has a swatch {name!r} of an unknown color model {model!r}")
    values = _unpacked(f">{ASE_CHANNELS[model]}f", body, at + 4)
    if not np.isfinite(values).all():
        raise _Fault(f"has a swatch {name!r} that is no color")
    if model == "CMYK":
        raise _Fault(f"has a swatch {name!r} in CMYK, whose look depends on a printer")
    if model == "LAB ":
        # Lightness is kept in 0..1, the other two as they are.
        lab = np.array([[[100 * values[0], values[1], values[2]]]], np.float32)
        values = tuple(float(value) for value in cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)[0, 0])
    red, green, blue = (min(max(float(value), 0.0), 1.0) for value in (values * 3 if model == "Gray" else values))
    return Swatch(name, (red, green, blue), group)


def _unpacked(form: str, data: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        raise _Fault("ends too early") from None


def _read_json(data: bytes) -> Iterator[Swatch]:
    """A list of colors, or of {"name", "color"}; or {"name": color}; either also under "swatches" or "colors".

    {"#f3c8a0": "#7a6f9e"}, where every name is a color, is a palette swap: old and new. Of both it can be only one.
    """
    try:
        content = parse_json(data)
    except ValueError:
        raise _Fault("is no JSON", SHAPES) from None
    if isinstance(content, dict):
        inner = content.get("swatches", content.get("colors"))
        content = inner if isinstance(inner, list | dict) else content
    if isinstance(content, dict):
        names = [name for name in content if not OLD_COLOR.fullmatch(name)]
        if len(names) < len(content):
            if names:
                raise _Fault(f"swaps colors, but has an entry {names[0]!r} that is not written as #rrggbb", SHAPES)
            yield from _swap(content)
            return
        content = [{"name": name, "color": color} for name, color in content.items()]
    if not isinstance(content, list):
        raise _Fault("holds no list of colors", SHAPES)
    for number, entry in enumerate(content, start=1):
        given = entry if isinstance(entry, dict) else {"color": entry}
        yield Swatch(str(given.get("name", "")), _of_json(given.get("color"), number))


def _swap(content: dict[str, Any]) -> Iterator[Swatch]:
    given: dict[Color, Color] = {}
    for number, (old, new) in enumerate(content.items(), start=1):
        color, becomes = _of_json(old, number), _of_json(new, number)
        if given.setdefault(color, becomes) != becomes:
            raise _Fault(f"gives {old} two new colors", "take one of them out")
        yield Swatch("", color, becomes=becomes)


def _of_json(value: Any, number: int) -> Color:
    if isinstance(value, str) and (match := HEX_COLOR.fullmatch(value.strip())):
        return _of_levels(*bytes.fromhex(match[1]))
    is_level = [isinstance(level, int) and not isinstance(level, bool) for level in value] if _is_triple(value) else []
    if is_level and all(is_level) and all(0 <= level <= 255 for level in value):
        return _of_levels(*value)
    raise _Fault(f"has an entry {number} that is no color", 'write it "#rrggbb", or [red, green, blue] in 0..255')


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3


def _of_levels(red: int, green: int, blue: int) -> Color:
    return red / 255, green / 255, blue / 255


READERS: dict[str, Callable[[bytes], Iterator[Swatch]]] = {".ase": _read_ase, ".gpl": _read_gpl, ".json": _read_json}
