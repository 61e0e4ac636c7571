"""Bytes that were whole once, and names that somebody meant badly."""

import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# A disk in memory, where there is one: most of the time would else go into waiting for the other.
QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
PNG = b"\x89PNG\r\n\x1a\n"
LARGE = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def costly(test: Any) -> Any:
    """Mark a target whose examples take long each: a quarter of them do in a test run."""
    return settings(max_examples=max(settings().max_examples // 4, 1))(test)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own for one example."""
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=QUICK) as folder:
        yield Path(folder)


@st.composite
def edited(draw: st.DrawFn, whole: bytes, most: int = 6) -> bytes:
    """A file with some of its bytes changed, taken out, doubled or cut off; numbers become extreme ones."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        # Headers decide most, and they are small.
        near = draw(st.booleans())
        at = draw(st.integers(0, max(min(len(content), 200 if near else 1 << 30) - 1, 0)))
        kind = draw(st.sampled_from(("byte", "number", "cut", "out", "twice", "insert")))
        if kind == "byte":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "number":
            value, form = draw(st.sampled_from(LARGE)), draw(st.sampled_from(("<I", ">I", "<H", ">H")))
            piece = struct.pack(form, value & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))
            content[at : at + len(piece)] = piece
        elif kind == "cut":
            del content[at:]
        elif kind == "out":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "twice":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
    return bytes(content)


def with_right_sums(png: bytes) -> bytes:
    """A PNG whose pieces bear the sums that belong to them, so that a reader goes on to what is in them."""
    if not png.startswith(PNG):
        return png
    made, at = bytearray(PNG), len(PNG)
    while at + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + length]
        made += png[at : at + 8] + data
        if len(data) < length:
            break
        made += struct.pack(">I", zlib.crc32(kind + data))
        at += 12 + length
    return bytes(made)


# What upsets shells, logs, patterns, YAML, templates, terminals and paths, and what a person in a hurry types.
BAD_PARTS = (
    "\n",
    "\r\n",
    "\t",
    "\x1b[2J",
    "\x07",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\u200d",
    "\ufeff",
    " ",
    "  ",
    "'",
    '"',
    "`",
    "$(id)",
    "${HOME}",
    "%d",
    "%s",
    "%04d",
    "####",
    "@",
    "{shot}",
    "{{Param.X}}",
    "{0}",
    "<b>",
    "&amp;",
    "<script>",
    "|",
    ";",
    "&&",
    ">",
    "*",
    "?",
    "[a]",
    "\\",
    "\\n",
    "..",
    ".",
    "~",
    "-",
    "--",
    "-o",
    "#",
    "!",
    "=",
    ":",
    ",",
    "+",
    "^",
    "é",
    "e\u0301",
    "動画",
    "ß",
    "İ",
    "\U0001f469\u200d\U0001f3a8",
    "key",
    "ref",
    "manifest",
    "frames",
    "openjd_fail: x",
    "Progress: 100%",
    "TR_PROGRESS 100%",
    "walk",
    "A",
    "0",
    "0001",
    "١٢",
    "²",
    "1-5:2",
    "1-100x2",
    "CON",
    "nul",
    "\udcff",
)
SUFFIXES = (
    ".png",
    ".PNG",
    ".tif",
    ".tga",
    ".exr",
    ".jpg",
    ".txt",
    "",
    ".png.png",
    ".0001.png",
    ".#.png",
    ".jsonl",
    ".json",
)


@st.composite
def file_names(draw: st.DrawFn, longest: int = 255, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """The name of a file that a disk would take, as hostile as may be."""
    text = st.one_of(st.text(st.characters(exclude_characters="/\0", exclude_categories=()), max_size=12), st.just(""))
    parts = draw(st.lists(st.one_of(st.sampled_from(BAD_PARTS), text), min_size=1, max_size=6))
    stem, suffix = "".join(parts), draw(st.sampled_from(suffixes))
    if draw(st.integers(0, 9)) == 0:
        stem *= 60
    encoded = stem.encode(errors="surrogateescape") if _is_plain(stem) else stem.encode(errors="ignore")
    name = encoded[: longest - len(suffix)].decode(errors="ignore") + suffix
    return name if name not in ("", ".", "..") else "_"


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
