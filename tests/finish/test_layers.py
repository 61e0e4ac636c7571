"""Layers laid over each other, by the formulas that compositors use, are the finished frame again."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from colorcli.finish.finish import finish_frame
from colorcli.finish.layers import LayeredFrame, layered_frame
from colorcli.presets import BackgroundSettings, FinishSettings, LayerName, LayerSettings, OutputSettings, Preset
from tests.finish.studio import COLORS, NIGHT, RED, face, flats, key_of, painted, picture, prepared

Float = NDArray[np.float32]
Plane = tuple[NDArray[np.float64], NDArray[np.float64]]

ALL: tuple[LayerName, ...] = ("color", "line", "matte", "flat", "shade", "paper")
SIZE = (120, 96)


def light(encoded: NDArray[np.float64]) -> NDArray[np.float64]:
    """IEC 61966-2-1, written down once more."""
    encoded = np.clip(encoded, 0, 1)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def preset_of(rule: str = "white", fill: str = "flat", alpha: str = "same", lines: str = "original") -> Preset:
    return Preset(
        background=BackgroundSettings(rule=rule),  # type: ignore[arg-type]
        finish=FinishSettings(fill=fill, lines=lines),  # type: ignore[arg-type]
        output=OutputSettings(alpha=alpha),  # type: ignore[arg-type]
    )


@cache
def finished(preset: Preset, kind: str = "paper", flattened: bool = False) -> LayeredFrame:
    """A face: on paper, on a cel, or only its lines in an alpha; colored by a model that makes few mistakes."""
    drawn, truth, shape = face(SIZE)
    drawing = {
        "paper": picture(drawn),
        "cel": picture(drawn, shape),
        "lines": picture(np.zeros_like(drawn), 1 - drawn.mean(axis=2)),
    }[kind]
    frame = prepared(drawing, preset)
    noise = np.random.default_rng(7).normal(0, 0.02, (*SIZE[::-1], 3)).astype(np.float32)
    layer = painted(frame, np.clip(flats(SIZE) + noise, 0, 1))
    return layered_frame(layer, frame, key_of(truth, shape, preset), preset, flattened)


def planes(layered: LayeredFrame, linear: bool) -> dict[str, Plane]:
    """Each layer multiplied by its alpha, and the alpha."""
    found: dict[str, Plane] = {}
    size = layered.color.shape[:2]
    for layer in layered.layers(ALL, linear):
        color, alpha = layer.whole()
        rows = np.ones(size) if alpha is None else alpha.astype(np.float64)
        shown = np.zeros((*size, 3)) if color is None else color.astype(np.float64)
        for values in (shown, rows):
            assert values.min() >= 0 and values.max() <= 1 + 1e-6, layer.name
        found[layer.name] = (shown * rows[..., None], rows)
    return found


def over(stack: Sequence[Plane]) -> Plane:
    """Porter and Duff, from the bottom up."""
    color, alpha = stack[0]
    for top, cover in stack[1:]:
        color, alpha = top + (1 - cover)[..., None] * color, cover + (1 - cover) * alpha
    return color, alpha


def recomposed(layered: LayeredFrame, linear: bool, shaded: bool = False) -> Plane:
    """line over (color over paper), with flat * shade for color."""
    found = planes(layered, linear)
    color = found["color"] if not shaded else (found["flat"][0] * found["shade"][0], found["flat"][1])
    shows_lines = layered.preset.finish.lines == "original"
    return over([*([found["paper"]] if "paper" in found else []), color, *([found["line"]] if shows_lines else [])])


@pytest.mark.parametrize("linear", [False, True], ids=["encoded", "linear"])
@pytest.mark.parametrize("kind", ["paper", "cel", "lines"])
@pytest.mark.parametrize(
    "preset",
    [
        preset_of(),
        preset_of("transparent"),
        preset_of("keep"),
        preset_of("model", "soft"),
        preset_of("white", "model"),
        preset_of("white", "soft", "mask"),
        preset_of("transparent", "flat", "none"),
        preset_of("keep", "soft", "none", "none"),
        preset_of("transparent", "soft", "same", "none"),
    ],
    ids=lambda preset: f"{preset.background.rule}-{preset.finish.fill}-{preset.output.alpha}-{preset.finish.lines}",
)
def test_layers_laid_over_each_other_are_the_finished_frame(preset: Preset, kind: str, linear: bool) -> None:
    layered = finished(preset, kind)
    alpha = np.ones(SIZE[::-1]) if layered.alpha is None else layered.alpha
    color = layered.color.astype(np.float64)
    wanted = (light(color) if linear else color) * alpha[..., None]
    for shaded in (False, True):
        made, cover = recomposed(layered, linear, shaded)
        assert np.abs(made - wanted).max() < 3e-5
        assert np.abs(cover - alpha).max() < 3e-5


def test_flat_times_shade_is_the_frame_also_where_two_things_meet_without_a_line() -> None:
    drawn, truth, shape = face((300, 240), gap=True)
    frame = prepared(picture(drawn), preset_of())
    layered = layered_frame(painted(frame, flats((300, 240))), frame, key_of(truth, shape, preset_of()), preset_of())
    below = layered.color[180:200, 148:153]   # a blue and a color of night, softly
    assert len(np.unique(below.round(3).reshape(-1, 3), axis=0)) > 2
    assert np.abs(recomposed(layered, linear=False, shaded=True)[0] - layered.color).max() < 3e-5


@pytest.mark.parametrize("kind", ["cel", "lines"])
def test_layers_of_a_frame_that_goes_into_a_jpeg_are_that_over_white(kind: str) -> None:
    preset = preset_of("transparent")
    alone, flat = finished(preset, kind), finished(preset, kind, flattened=True)
    assert alone.alpha is not None and flat.alpha is None
    over_white = alone.color * alone.alpha[..., None] + 1 - alone.alpha[..., None]
    assert np.abs(recomposed(flat, linear=False)[0] - over_white).max() < 3e-5


@pytest.mark.parametrize("rule", ["white", "transparent", "model"])
def test_a_frame_is_the_same_with_and_without_layers(rule: str) -> None:
    preset = preset_of(rule)
    drawn, truth, shape = face(SIZE)
    frame, key = prepared(picture(drawn, shape), preset), key_of(truth, shape, preset)
    layer = painted(frame, flats(SIZE))
    color, alpha = finish_frame(layer, frame, key, preset)
    layered = layered_frame(layer, frame, key, preset)
    list(layered.layers(ALL, linear=True))
    assert np.array_equal(color, layered.color)
    assert (alpha is None and layered.alpha is None) or np.array_equal(alpha, layered.alpha)


def test_the_line_layer_over_the_paper_is_the_drawing() -> None:
    drawn, _, _ = face(SIZE)
    ink, cover = planes(finished(preset_of()), linear=False)["line"]
    apart = np.abs(ink + (1 - cover)[..., None] - drawn).max(axis=2)
    assert apart[cover > 0.2].max() < 1e-5
    assert apart.max() < 1 - 0.92   # what `lines.paper` takes for paper is no line


def test_a_line_that_lets_half_of_the_white_through_in_a_png_lets_a_fifth_of_the_light_through_in_an_exr() -> None:
    layered = finished(preset_of())
    (encoded,), (linear,) = (list(layered.layers(["line"], light)) for light in (False, True))
    assert encoded.alpha is not None and linear.alpha is not None
    through = np.linspace(0, 1, 11)
    covers = np.interp(1 - through, np.sort(encoded.alpha.ravel()), np.sort(linear.alpha.ravel()))
    assert np.abs(covers - (1 - light(through))).max() < 0.02


def test_color_has_no_line_and_no_dark_rim_in_it() -> None:
    (layer,) = finished(preset_of()).layers(["color"], linear=False)
    color, alpha = layer.whole()
    assert color is not None and alpha is not None
    drawn, _, _ = face(SIZE)
    under_lines = (alpha > 0.5) & (drawn.mean(axis=2) < 0.5)
    assert under_lines.sum() > 100
    # Each pixel has one of the four colors, as they were seen through the noise; none is darker than the darkest.
    nearest = np.abs(color[alpha > 0][:, None] - np.array(COLORS)[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 0.05


@pytest.mark.parametrize("linear", [False, True], ids=["encoded", "linear"])
def test_lines_that_the_model_painted_too_are_in_the_lines_and_not_in_the_color(linear: bool) -> None:
    preset = preset_of(fill="model")
    drawn, truth, shape = face((300, 240))
    frame = prepared(picture(drawn), preset)
    painted_lines = painted(frame, truth)   # with its lines, blurred, as a model does
    layered = layered_frame(painted_lines, frame, key_of(truth, shape, preset), preset)
    made, _ = recomposed(layered, linear)
    assert np.abs(made - (light(layered.color.astype(np.float64)) if linear else layered.color)).max() < 3e-5
    made, _ = recomposed(layered, linear, shaded=True)
    assert np.abs(made - (light(layered.color.astype(np.float64)) if linear else layered.color)).max() < 3e-5
    (layer,) = layered.layers(["color"], linear=False)
    color = layer.whole()[0]
    assert color is not None
    green = color[60, 146:170]   # across the upright line, from red to green
    assert np.minimum(np.abs(green - RED).max(axis=1), np.abs(green - COLORS[1]).max(axis=1)).max() < 0.1


def test_the_matte_is_the_alpha_that_a_cut_out_frame_has() -> None:
    for rule, kind in (("white", "paper"), ("keep", "cel"), ("model", "paper"), ("white", "lines")):
        matte = planes(finished(preset_of(rule), kind), linear=False)["matte"][1]
        cut_out = finished(preset_of("transparent"), kind).alpha
        assert cut_out is not None
        assert np.abs(matte - cut_out).max() < 1e-6


def test_without_lines_the_color_is_the_frame_and_the_lines_still_come() -> None:
    with_lines, without = finished(preset_of()), finished(preset_of(lines="none"))
    found = planes(without, linear=False)
    assert np.abs(over([found["paper"], found["color"]])[0] - without.color).max() < 3e-5
    assert np.abs(found["line"][1] - planes(with_lines, linear=False)["line"][1]).max() < 1e-6


@pytest.mark.parametrize("linear", [False, True], ids=["encoded", "linear"])
def test_lines_that_are_taken_out_of_the_frame_are_in_no_layer(linear: bool) -> None:
    """A red line parts the upper half; it is to be seen in the drawing only."""
    drawn, truth, shape = face((300, 240))
    upright = (drawn.mean(axis=2) < 0.95) & (np.abs(np.arange(300) - 150) < 4)[None] & (np.arange(240) < 114)[:, None]
    drawn[upright] = 1 - (1 - drawn[upright]) * np.float32([0.1, 0.9, 0.9])
    finish = FinishSettings(separation_lines="remove")
    preset = preset_of().model_copy(update={"finish": finish})
    frame = prepared(picture(drawn), preset)
    layered = layered_frame(painted(frame, flats((300, 240))), frame, key_of(truth, shape, preset), preset)
    found = planes(layered, linear)
    assert found["line"][1][40:100, 146:154].max() == 0 and found["line"][1][150:200, 146:154].max() == 1
    color, _ = recomposed(layered, linear)
    assert np.abs(color - (light(layered.color.astype(np.float64)) if linear else layered.color)).max() < 3e-5


def test_a_cut_out_frame_has_no_paper() -> None:
    assert "paper" not in planes(finished(preset_of("transparent")), linear=False)
    assert "paper" in planes(finished(preset_of("transparent", alpha="none")), linear=False)


@pytest.mark.parametrize("preset", [preset_of(), preset_of("transparent"), preset_of("white", "soft", "mask")])
def test_an_empty_frame_has_empty_layers(preset: Preset) -> None:
    drawn, truth, shape = face(SIZE)
    frame = prepared(picture(np.ones_like(drawn)), preset)
    layered = layered_frame(painted(frame, flats(SIZE)), frame, key_of(truth, shape, preset), preset)
    found = planes(layered, linear=True)
    assert found["color"][1].max() == found["line"][1].max() == found["matte"][1].max() == 0
    assert found["shade"][0].min() == 1
    assert layered.parts.cut_out or found["paper"][0].min() == 1


def two_tones(light_tone: Float, dark_tone: Float, in_key: bool) -> tuple[LayeredFrame, NDArray[np.bool_]]:
    """A face whose upper left part is all of the dark tone, and where that is.

    in_key: the key shows both tones side by side without a line; else with one between them, as two things.
    """
    preset = preset_of().model_copy(update={"layers": LayerSettings(names=ALL)})
    drawn, truth, shape = face((300, 240))
    y, x = np.mgrid[:240, :300]
    first = (x < 150) & (y < 120) & (shape > 0)
    key = truth.copy()
    # The upper half of the key is one surface, half of it in shadow.
    inside = (drawn.mean(axis=2) > 0.99) | ((np.abs(x - 150) < 6) & (y > 24) & (y < 116))
    key[(y < 118) & (shape > 0) & inside] = light_tone
    key[(y < 118) & (shape > 0) & inside & (x < 150)] = dark_tone
    if not in_key:
        key[(y < 118) & (np.abs(x - 150) < 3)] = 0
    frame = prepared(picture(drawn), preset)
    colors = flats((300, 240))
    colors[first] = dark_tone
    return layered_frame(painted(frame, colors), frame, key_of(key, shape, preset), preset), first & (
        drawn.mean(axis=2) > 0.99
    )


@pytest.mark.parametrize("in_key", [True, False])
def test_a_shadow_of_the_key_is_its_lit_color_times_shade(in_key: bool) -> None:
    light_tone, dark_tone = np.float32([0.9, 0.7, 0.3]), np.float32([0.63, 0.42, 0.18])
    layered, where = two_tones(light_tone, dark_tone, in_key)
    flat, shade = (layer.whole()[0] for layer in layered.layers(["flat", "shade"], linear=False))
    assert flat is not None and shade is not None
    tone = light_tone if in_key else dark_tone
    assert np.abs(flat[where] - tone).max() < 0.01
    assert np.abs(shade[where] - dark_tone / tone).max() < 0.01
    assert shade[125:].min() == 1   # the lower half has none


def test_an_unlike_color_beside_another_is_no_shadow_of_it() -> None:
    layered, where = two_tones(np.float32(RED), np.float32(NIGHT), in_key=True)
    (flat,) = layered.layers(["flat"], linear=False)
    color = flat.whole()[0]
    assert color is not None
    assert np.abs(color[where] - NIGHT).max() < 0.01
