"""Presets, recipes, --set and palettes of any text: settings in their range, or an error that names the place."""

import math
from pathlib import Path

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from colorcli.errors import PresetError, UsageError
from colorcli.prepare.palette_file import read_swatches, swatches_of
from colorcli.presets import Preset, flat_settings, load_preset, preset_keys, shipped_presets
from colorcli.settings import NodeReader, read_yaml
from colorcli.train.recipe import Recipe, read_recipe
from tests.fuzz.mutations import edited, scratch

PATHS = tuple(key.path for key in preset_keys())
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefghi", "bcdefghij", strict=True)
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from(
        ("1e999", "-1e999", ".inf", ".nan", "1e12", "0x10", "0o7", "1_000", "09", "-0", "+1", "1.", ".5", "9" * 5000)
    ),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        NUMBERS,
        st.text(max_size=12),
        st.sampled_from(
            (
                "auto",
                "cel",
                "on",
                "off",
                "no",
                "~",
                "!!python/object/apply:os.system [id]",
                "*a",
                "&a x",
                "<<",
                "{shot}",
                "/",
                "..",
                "\0",
                "\x1b[2J",
                "2026-11-21",
                "1:30",
                "\ud800",
                "",
            )
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)
GROUPS = st.dictionaries(
    st.one_of(
        st.sampled_from([path.partition(".")[0] for path in PATHS]),
        st.sampled_from(("extends", "description", "<<", "x")),
    ),
    st.one_of(
        VALUES, st.dictionaries(st.sampled_from([path.rpartition(".")[2] for path in PATHS]), VALUES, max_size=4)
    ),
    max_size=4,
)


def texts_of(value: object) -> str:
    """A value as YAML; what has no text form there is written as the words that Python has for it."""
    try:
        return str(yaml.safe_dump(value, allow_unicode=True))
    except (yaml.YAMLError, UnicodeEncodeError):
        return repr(value)


def check_preset(preset: Preset) -> None:
    """What holds for every preset that was let in: numbers that are numbers, in the ranges that are told."""
    for path, value in flat_settings(preset).items():
        for number in value if isinstance(value, tuple) else (value,):
            assert not isinstance(number, float) or math.isfinite(number), (path, value)
    assert Preset.model_validate(preset.model_dump()) == preset
    assert preset.canvas.area is None or preset.canvas.area <= 2048 * 2048
    assert preset.sampling.steps <= 100


@given(
    st.one_of(
        GROUPS.map(texts_of).map(str.encode),
        st.text(max_size=200).map(lambda text: text.encode(errors="replace")),
        st.binary(max_size=200),
        st.sampled_from(sorted(shipped_presets())).flatmap(lambda name: edited(shipped_presets()[name].read_bytes())),
    )
)
@example(LAUGHS.encode())
@example(b"a: &a [*a]")
@example(b"a: &a {b: *a}")
@example(b"sampling: " + b"[" * 100_000)
@example(b"{" * 50_000)
@example(b"? " * 50_000)
@example(b"- " * 100_000)
@example(b"sampling:\n  seed: " + b"9" * 200_000)
@example(b"extends: /dev/zero")
@example(b"extends: 'a\\0b.yaml'")
@example(b'extends: "a\\0b.yaml"')
@example(b'model: "a\\0b"')
@example(b'background: {split: true, image: "a\\0b"}')
@example(b"lora: [{file: /dev/zero}, {file: 3}, 7, {}]")
@example(b"\xff\xfes\0a\0")
def test_a_preset_of_any_bytes_is_settings_or_an_error(content):
    with scratch() as folder:
        file = folder / "a.yaml"
        file.write_bytes(content)
        try:
            check_preset(load_preset(str(file)))
        except PresetError as error:
            assert len(error.message) < 2000
        try:
            read = read_recipe(file)
        except (PresetError, UsageError) as error:
            assert len(error.message) < 2000
        else:
            assert isinstance(read, Recipe)


@given(st.lists(st.tuples(st.one_of(st.sampled_from(PATHS), st.text(max_size=12)), VALUES), min_size=1, max_size=3))
@example([("canvas.area", "1e12")])
@example([("canvas.size", [10**9, 10**9])])
@example([("sampling.steps", "9" * 5000)])
@example([("sampling.seed", -1)])
@example([("lora", [{"file": "x"}] * 100)])
def test_a_change_on_the_command_line_is_in_range_or_an_error(changes):
    overrides = [
        f"{path}={value if isinstance(value, str) else texts_of(value).removesuffix('...').strip()}"
        for path, value in changes
    ]
    try:
        check_preset(load_preset("cel", overrides))
    except PresetError as error:
        assert len(error.message) < 12_000


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_yaml_of_any_text_ends_soon_and_holds_plain_values_only(text):
    with scratch() as folder:
        file = folder / "a.yaml"
        file.write_bytes(text.encode())
        try:
            node = read_yaml(file)
            value = NodeReader("a.yaml").value(node) if node is not None else None
        except PresetError:
            return
    waiting = [value]
    while waiting:
        one = waiting.pop()
        assert one is None or type(one) in (bool, int, float, str, tuple, dict), type(one)
        waiting += list(one.values()) if isinstance(one, dict) else list(one) if isinstance(one, tuple) else []


ASE = b"ASEF\0\1\0\0\0\0\0\1\0\1\0\0\0\x1c\0\3\0a\0b\0\0RGB " + b"\x3f\x80\0\0" * 3 + b"\0\0"
GPL = b"GIMP Palette\nName: a\n#\n255 0 10 red\n  1 2 3\n"
JSON = b'{"skin": "#ffeedd", "swatches": [{"name": "a", "color": [1, 0.5, 0]}]}'


@given(
    st.sampled_from(((".ase", ASE), (".gpl", GPL), (".json", JSON))).flatmap(
        lambda pair: st.tuples(
            st.just(pair[0]), st.one_of(edited(pair[1]), st.binary(max_size=60).map(pair[1][:8].__add__))
        )
    )
)
@example((".json", b'{"#ffeedd": "#000000", "#000000": [1, 2, 3]}'))
@example((".gpl", b"GIMP Palette\n1 1 1 a\n0 0 0 a" + b" (" * 3000 + b"shadow" + b"9" * 3000 + b"\n"))
@example((".json", b"[" * 200_000))
@example((".json", b'[{"color": [1e999, NaN, -1]}]'))
@example((".json", b'["#' + b"f" * 5000 + b'"]'))
@example((".ase", b"ASEF\0\1\0\0\xff\xff\xff\xff" + b"\0\1\xff\xff\xff\xff" * 4))
@example((".gpl", b"GIMP Palette\n" + b"9" * 5000 + b" 0 0\n"))
def test_a_palette_of_any_bytes_is_colors_or_an_error(palette):
    suffix, content = palette
    with scratch() as folder:
        file = Path(folder) / f"a{suffix}"
        file.write_bytes(content)
        try:
            swatches = read_swatches(file)
        except PresetError:
            return
    for swatch in swatches:
        assert all(math.isfinite(value) and 0 <= value <= 1 for value in swatch.color)
    found = swatches_of(swatches)
    assert 0 < len(found.colors) <= len(swatches)
    assert all(0 <= number < len(found.colors) for pair in found.pairs for number in pair)
