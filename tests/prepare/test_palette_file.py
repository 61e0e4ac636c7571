"""Palettes of a production: what is read, and what is refused and how."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from colorcli.errors import PresetError
from colorcli.prepare.palette_file import hex_color, read_swatches, swatches_of

SKIN, COAT = (250, 214, 190), (32, 64, 128)


def ase(*swatches: tuple[str, str, tuple[float, ...]]) -> bytes:
    """Adobe's swatch file as its public descriptions say: a group around colors, big-endian, names in UTF-16."""
    return ase_groups({"": swatches})


def ase_groups(groups: Mapping[str | None, Sequence[tuple[str, str, tuple[float, ...]]]]) -> bytes:
    """The same with the groups of these names; None: no group around them."""
    blocks = []
    for group, swatches in groups.items():
        if group is not None:
            body = utf_16(group)
            blocks.append(struct.pack(">HI", 0xC001, len(body)) + body)
        for name, model, values in swatches:
            body = utf_16(name) + model.encode() + struct.pack(f">{len(values)}f", *values) + struct.pack(">H", 2)
            blocks.append(struct.pack(">HI", 1, len(body)) + body)
        if group is not None:
            blocks.append(struct.pack(">HI", 0xC002, 0))
    return b"ASEF" + struct.pack(">HHI", 1, 0, len(blocks)) + b"".join(blocks)


def utf_16(name: str) -> bytes:
    return struct.pack(">H", len(name) + 1) + (name + "\0").encode("utf-16-be")


def pairs_in(path: Path) -> set[tuple[str, str]]:
    """Each color and its shadow, as they are written."""
    found = swatches_of(read_swatches(path))
    return {(hex_color(found.colors[lit]), hex_color(found.colors[dark])) for lit, dark in found.pairs}


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
    np.testing.assert_array_equal(swatches_of(read_swatches(file)).colors, np.float32([SKIN, COAT]) / np.float32(255))


@pytest.mark.parametrize(
    ("lit", "dark"),
    [
        ("skin", "skin shadow"), ("Skin", "SKIN_SHADE"), ("skin", "skin sh"), ("skin", "skin-dark"),
        ("skin, day", "Skin.Day (shadow)"), ("skin", "skin shadow 2"), ("skin", "skin_sh2"),
        ("Haut 2", "Haut 2 shadow"),
    ],
)  # fmt: skip
def test_a_name_that_ends_in_a_word_for_shadow_makes_a_pair(lit: str, dark: str, tmp_path: Path) -> None:
    file = tmp_path / "hero.gpl"
    file.write_text(f"GIMP Palette\n10 20 30 {dark}\n250 214 190 {lit}\n32 64 128 coat\n")
    assert pairs_in(file) == {("#fad6be", "#0a141e")}


@pytest.mark.parametrize("name", ["", "shadow", "skin", "shadow skin", "skins shadow", "skinshadow", "dark 3"])
def test_other_names_make_none(name: str, tmp_path: Path) -> None:
    file = tmp_path / "hero.gpl"
    file.write_text(f"GIMP Palette\n250 214 190 skin\n10 20 30 {name}\n")
    assert pairs_in(file) == set()


def test_what_stands_behind_a_group_is_not_in_it(tmp_path: Path) -> None:
    gray, dark = ("RGB ", (200 / 255,) * 3), ("RGB ", (100 / 255,) * 3)
    (tmp_path / "hero.ase").write_bytes(ase_groups({"skin": [("lit", *gray)], None: [("shadow", *dark)]}))
    assert pairs_in(tmp_path / "hero.ase") == set()


def test_a_color_is_no_shadow_of_itself(tmp_path: Path) -> None:
    file = tmp_path / "hero.gpl"
    file.write_text("GIMP Palette\n250 214 190 skin\n250 214 190 skin shadow\n")
    assert pairs_in(file) == set()


def test_a_shadow_that_another_swatch_looks_like_is_still_a_shadow(tmp_path: Path) -> None:
    file = tmp_path / "hero.gpl"
    file.write_text("GIMP Palette\n250 214 190 skin\n32 64 128 coat\n32 64 128 skin shadow\n")
    assert pairs_in(file) == {("#fad6be", "#204080")}
    assert swatches_of(read_swatches(file)).colors.shape == (2, 3)


def test_the_groups_of_an_adobe_file_are_pairs_or_hold_them(tmp_path: Path) -> None:
    (one, two, three, four, five, six, seven) = (
        ("RGB ", (level / 255,) * 3) for level in (200, 100, 150, 80, 220, 40, 210)
    )
    file = tmp_path / "hero.ase"
    file.write_bytes(
        ase_groups(
            {
                "skin": [("lit", *one), ("rim", *seven), ("shadow", *two)],
                "day": [("coat", *three), ("coat shadow", *four)],
                "night": [("coat", *five), ("coat shadow", *six), ("dark", *two)],
            }
        )
    )
    assert pairs_in(file) == {("#c8c8c8", "#646464"), ("#969696", "#505050"), ("#dcdcdc", "#282828"),
                              ("#dcdcdc", "#646464")}


@pytest.mark.parametrize("held", [lambda swap: swap, lambda swap: {"swatches": swap}, lambda swap: {"colors": swap}])
def test_old_colors_and_new_ones_are_a_swap(held: Callable[[object], object], tmp_path: Path) -> None:
    file = tmp_path / "night.json"
    file.write_text(json.dumps(held({"#FAD6BE": "#7a6f9e", "#204080": [16, 16, 64]})))
    found = swatches_of(read_swatches(file))
    assert [hex_color(color) for color in found.colors] == ["#fad6be", "#204080"]
    assert found.swapped is not None
    assert [hex_color(color) for color in found.swapped] == ["#7a6f9e", "#101040"]


def test_a_word_that_could_be_a_color_is_a_name(tmp_path: Path) -> None:
    file = tmp_path / "hero.json"
    file.write_text('{"facade": "#fad6be", "decade": "#204080"}')
    assert named(file) == [("facade", "#fad6be"), ("decade", "#204080")]
    assert swatches_of(read_swatches(file)).swapped is None


def test_what_a_picture_depends_on_is_in_the_digest(tmp_path: Path) -> None:
    contents = {
        "plain.gpl": "GIMP Palette\n250 214 190\n10 20 30\n",
        "named.gpl": "GIMP Palette\n250 214 190 skin\n10 20 30 coat\n",
        "paired.gpl": "GIMP Palette\n250 214 190 skin\n10 20 30 skin shadow\n",
        "swap.json": '{"#fad6be": "#0a141e", "#0a141e": "#0a141e"}',
        "other.json": '{"#fad6be": "#0a141e", "#0a141e": "#0a141f"}',
    }
    digests = {}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        digests[name] = swatches_of(read_swatches(tmp_path / name)).digest()
    assert digests.pop("plain.gpl") == digests["named.gpl"]
    assert len(set(digests.values())) == len(digests)


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
        ("a.json", b'{"#fad6be": "#204080", "#204080": "night"}', "entry 2"),
        ("a.json", b'{"#fad6be": "#204080", "#FAD6BE": "#204081"}', "two new colors"),
        ("a.json", b'{"#fad6be": "#204080", "#20408": "#101040"}', "'#20408' that is not written as #rrggbb"),
        ("a.json", b'{"skin": "#fad6be", "#204080": "#101040"}', "'skin'"),
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
