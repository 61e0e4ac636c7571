"""Settings at the edges of what is let in, on pictures at the edges of what there is: colored, or failed in words."""

import functools
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from colorcli.errors import PresetError
from colorcli.images import PixelFormat, read_size, write_picture
from colorcli.presets import check_for_variant, load_preset, preset_keys
from colorcli.settings import Key
from colorcli.shot.stand_in import StandIn
from colorcli.variants import VARIANTS
from tests.fuzz.mutations import costly, scratch
from tests.shot.studio import color

# What the stand-in has no say in, or what asks for files and models that are not there.
LEFT_OUT = ("model", "lora", "manipulate", "masks.network", "masks.key_network", "lines.network", "background.image",
            "finish.palette_file", "sampling", "warm_start", "injection", "compat")  # fmt: skip
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))
PIXELS = st.one_of(
    arrays.arrays(np.float32, SHAPES, elements=st.sampled_from((0.0, 0.5, 1.0))),
    st.tuples(SHAPES, st.sampled_from((0.0, 0.9, 1.0))).map(lambda pair: np.full(pair[0], pair[1], np.float32)),
)


@functools.cache
def edges() -> dict[str, list[Any]]:
    """For every setting the values at the edges of its range, and its choices."""
    found: dict[str, list[Any]] = {}
    for key in preset_keys():
        if not any(key.path == name or key.path.startswith(f"{name}.") for name in LEFT_OUT):
            values = values_of(key)
            if values:
                found[key.path] = values
    return found


def values_of(key: Key) -> list[Any]:
    """What `presets keys` says that a setting may be, as far as it can be listed."""
    allowed = key.allowed.removesuffix(", or null")
    if allowed == "true or false":
        return [True, False]
    if allowed.startswith("one of "):
        return allowed.removeprefix("one of ").split(", ")
    if allowed.startswith(("a whole number, ", "a number, ")) and " to " in allowed:
        low, _, high = allowed.partition(", ")[2].partition(" to ")
        number = int if allowed.startswith("a whole") else float
        return [number(low), number(high)]
    return []


def test_the_edges_of_most_settings_are_known():
    assert {"canvas.area", "lines.min_stroke_px", "masks.grow_px", "finish.fill"} <= set(edges())
    assert edges()["canvas.margin"] == [0.0, 0.5]
    assert edges()["canvas.area"] == [4096, 2048 * 2048]


@costly
@given(
    st.dictionaries(st.sampled_from(sorted(edges())), st.integers(0, 20), max_size=5), PIXELS, PIXELS,
    st.sampled_from((None, "alpha")),
)  # fmt: skip
@example({"canvas.area": 1, "canvas.margin": 1}, np.zeros((1, 1, 3), np.float32), np.ones((1, 1, 3), np.float32), None)
@example(
    {"lines.min_stroke_px": 1, "masks.grow_px": 1},
    np.zeros((40, 1, 3), np.float32),
    np.zeros((1, 40, 3), np.float32),
    "alpha",
)
def test_a_preset_at_the_edges_colors_any_picture(chosen, drawing, key, alpha):
    overrides = [f"{path}={str(edges()[path][place % len(edges()[path])]).lower()}" for path, place in chosen.items()]
    # A canvas of four million pixels takes seconds, and shows nothing that one of 4096 does not.
    overrides = [text for text in overrides if text != f"canvas.area={2048 * 2048}"]
    try:
        preset = load_preset("cel", overrides)
        check_for_variant(preset, VARIANTS["mini"])
    except PresetError:
        return
    with scratch() as folder:
        kind = PixelFormat("png", "uint8")
        (folder / "walk").mkdir()
        holes = np.indices(drawing.shape[:2]).sum(axis=0).astype(np.float32) % 2 if alpha else None
        write_picture(folder / "walk" / "walk.0001.png", drawing, holes, kind)
        write_picture(folder / "key.png", key, None, kind)
        outcome = color(folder / "walk", preset=preset, colorizer=StandIn())  # type: ignore[arg-type]
        assert outcome.result.exit_code in (0, 3, 7), outcome.result.error
        for record in outcome.result.failed:
            assert record.error is not None and record.error.kind != "internal", record.error.message
        if outcome.result.exit_code == 0:
            (made,) = [file for file in outcome.plans[0].out.iterdir() if file.name.startswith("walk")]
            assert read_size(made) == drawing.shape[1::-1]
