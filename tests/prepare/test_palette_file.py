"""Palettes of a production: what is read, and what is refused and how."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from colorcli.errors import PresetError
from colorcli.prepare.palette_file import hex_color, read_swatches, swatch_colors

SKIN, COAT = (250, 214, 190), (32, 64, 128)


def ase(*swatches: tuple[str, str, tuple[float, ...]]) -> bytes:
    """Adobe's swatch file as its public descriptions say: a group around colors, big-endian, names in UTF-16."""
    blocks = [struct.pack(">HI", 0xC001, 2) + b"\0\0"]
    for name, model, values in swatches:
        body = struct.pack(">H", len(name) + 1) + (name + "\0").encode("utf-16-be") + model.encode()
        body += struct.pack(f">{len(values)}f", *values) + struct.pack(">H", 2)
        blocks.append(struct.pack(">HI", 1, len(body)) + body)
    blocks.append(struct.pack(">HI", 0xC002, 0))
    return b"ASEF" + struct.pack(">HHI", 1, 0, len(blocks)) + b"".join(blocks)


def named(path: Path) -> list[tuple[str, str]]:
    return [(swatch.name, hex_color(np.float32(swatch.color))) for swatch in read_swatches(path)]


def test_a_gimp_palette_keeps_names_and_order_and_leaves_doubles_out(tmp_path: Path) -> None:
    file = tmp_path / "hero.gpl"
    lines = ["GIMP Palette", "Name: hero", "Columns: 2", "# the coat", " 32  64 128\tCoat, day", "250 214 190 Skin"]
    file.write_text("\n".join([*lines, "32 64 128", ""]))
    assert named(file) == [("Coat, day", "#204080"), ("Skin", "#fad6be")]


def test_adobe_swatches_in_rgb_gray_and_lab_are_read(tmp_path: Path) -> None:
    file = tmp_path / "hero.ase"
    coat = tuple(level / 255 for level in COAT)
    file.write_bytes(ase(("Mäntel", "RGB ", coat), ("mid", "Gray", (0.5,)), ("white", "LAB ", (1.0, 0, 0))))
    assert named(file) == [("Mäntel", "#204080"), ("mid", "#808080"), ("white", "#ffffff")]


@pytest.mark.parametrize(
    "content",
    [
        ["#fad6be", [32, 64, 128]],
        [{"name": "skin", "color": "#FAD6BE"}, {"name": "coat", "color": "204080"}],
        {"skin": "#fad6be", "coat": "#204080"},
        {"name": "hero", "swatches": [{"color": [250, 214, 190]}, {"color": [32, 64, 128]}]},
        {"colors": {"skin": "#fad6be", "coat": "#204080"}},
    ],
)
def test_every_usual_shape_of_json_gives_the_same_colors(content: object, tmp_path: Path) -> None:
    file = tmp_path / "hero.json"
    file.write_text(json.dumps(content))
    np.testing.assert_array_equal(swatch_colors(read_swatches(file)), np.float32([SKIN, COAT]) / np.float32(255))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.aco", b"", "no kind"),
        ("a.gpl", b"", "GIMP Palette"),
        ("a.gpl", b"GIMP Palette\n", "holds no color"),
        ("a.gpl", b"GIMP Palette\n300 0 0 too bright\n", "line 2"),
        ("a.ase", b"ASEF", "does not begin"),
        ("a.ase", ase(("x", "RGB ", (0.1, 0.2, 0.3)))[:30], "ends too early"),
        ("a.ase", ase(("ink", "CMYK", (0, 0, 0, 1))), "CMYK"),
        ("a.ase", ase(("x", "RGB ", (float("nan"), 0, 0))), "no color"),
        ("a.ase", b"ASEF" + struct.pack(">HHI", 1, 0, 2**32 - 1), "ends too early"),
        ("a.json", b"[" * 100_000, "no JSON"),
        ("a.json", b'{"skin": "red"}', "entry 1"),
        ("a.json", b"[[0, 0, 999]]", "entry 1"),
        ("a.json", b"[[true, 0, 0]]", "entry 1"),
        ("a.json", b"3", "no list"),
        ("a.json", b" " * 1_000_001, "larger than"),
    ],
)
def test_what_holds_no_colors_is_refused_by_name(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PresetError) as caught:
        read_swatches(tmp_path / name)
    assert name in caught.value.message and says in caught.value.message and caught.value.hint


def test_a_palette_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"none\.gpl"):
        read_swatches(tmp_path / "none.gpl")
