"""Palettes that a studio keeps in files: Adobe swatches (.ase), GIMP's palettes (.gpl), and JSON."""

import re
import struct
from collections.abc import Callable, Iterator
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
ASE_CHANNELS = {"RGB ": 3, "LAB ": 3, "Gray": 1, "CMYK": 4}

HEX_COLOR = re.compile(r"#?([0-9a-fA-F]{6})")
GPL_LINE = re.compile(r"\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})(?:\s+(.*))?")


@dataclass(frozen=True)
class Swatch:
    """A color with a name."""

    name: str                          # may be empty
    color: tuple[float, float, float]  # sRGB-encoded, 0..1


class _Fault(ValueError):
    """What is wrong with a palette, in words that go on after the file's name."""


def read_swatches(path: Path) -> tuple[Swatch, ...]:
    """Read the swatches of a .ase, .gpl or .json file, in its order; doubles are left out.

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
            raise _Fault(f"is larger than {LARGEST_FILE:,} bytes")
        found: dict[tuple[float, float, float], Swatch] = {}
        for swatch in read(data):
            found.setdefault(swatch.color, swatch)
        if not found:
            raise _Fault("holds no color")
        if len(found) > MOST_SWATCHES:
            raise _Fault(f"holds {len(found)} colors, and {MOST_SWATCHES} are the most")
    except _Fault as fault:
        raise PresetError(f"the palette {path} {fault}", hint="save it again, as RGB swatches") from None
    return tuple(found.values())


def swatch_colors(swatches: tuple[Swatch, ...]) -> Floats:
    """Give the colors of swatches, (K, 3) sRGB-encoded in 0..1."""
    return np.array([swatch.color for swatch in swatches], np.float32).reshape(-1, 3)


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
    at = 12
    for _ in range(count):
        kind, length = _unpacked(">HI", data, at)
        at += 6
        body = data[at : at + length]
        if len(body) < length:
            raise _Fault("ends too early")
        at += length
        if kind == ASE_COLOR:
            yield _ase_color(body)


def _ase_color(body: bytes) -> Swatch:
    (letters,) = _unpacked(">H", body, 0)
    name = body[2 : 2 + 2 * letters].decode("utf-16-be", errors="replace").rstrip("\0")
    at = 2 + 2 * letters
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
    return Swatch(name, (red, green, blue))


def _unpacked(form: str, data: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        raise _Fault("ends too early") from None


def _read_json(data: bytes) -> Iterator[Swatch]:
    """A list of colors, or of {"name", "color"}; or {"name": color}; either also under "swatches" or "colors"."""
    try:
        content = parse_json(data)
    except (ValueError, RecursionError):
        raise _Fault("is no JSON") from None
    if isinstance(content, dict):
        inner = content.get("swatches", content.get("colors"))
        content = inner if isinstance(inner, list | dict) else content
    if isinstance(content, dict):
        content = [{"name": name, "color": color} for name, color in content.items()]
    if not isinstance(content, list):
        raise _Fault("holds no list of colors")
    for number, entry in enumerate(content, start=1):
        given = entry if isinstance(entry, dict) else {"color": entry}
        yield Swatch(str(given.get("name", "")), _of_json(given.get("color"), number))


def _of_json(value: Any, number: int) -> tuple[float, float, float]:
    if isinstance(value, str) and (match := HEX_COLOR.fullmatch(value.strip())):
        return _of_levels(*bytes.fromhex(match[1]))
    is_level = [isinstance(level, int) and not isinstance(level, bool) for level in value] if _is_triple(value) else []
    if is_level and all(is_level) and all(0 <= level <= 255 for level in value):
        return _of_levels(*value)
    raise _Fault(f'has an entry {number} that is no color: write it "#rrggbb", or [red, green, blue] in 0..255')


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3


def _of_levels(red: int, green: int, blue: int) -> tuple[float, float, float]:
    return red / 255, green / 255, blue / 255


READERS: dict[str, Callable[[bytes], Iterator[Swatch]]] = {".ase": _read_ase, ".gpl": _read_gpl, ".json": _read_json}
