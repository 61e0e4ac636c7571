"""A drawing with two surfaces in two tones each: the tones stay together, whatever the model or a new palette does."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from colorcli.finish.finish import Fill, fill_character, finish_frame
from colorcli.finish.layers import layered_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.palette_file import Swatches
from colorcli.presets import FinishSettings, LayerSettings, Preset
from tests.finish.studio import MINI, painted, picture, prepared

Float = NDArray[np.float32]
Color = tuple[float, float, float]

SKIN, SKIN_SHADOW, COAT, COAT_SHADOW = (0.95, 0.80, 0.70), (0.72, 0.52, 0.46), (0.93, 0.60, 0.35), (0.68, 0.46, 0.34)
SIZE = (360, 200)
SKIN_LIT, SKIN_DARK, COAT_LIT, COAT_DARK, PATCH = (60, 100), (130, 100), (240, 50), (310, 100), (240, 130)   # x, y
GREEN: Color = (0.35, 0.60, 0.50)


def lines() -> Float:
    """Two boxes, and a patch in the second one."""
    drawn = np.full((*SIZE[::-1], 3), 255, np.uint8)
    for corner, end in (((20, 20), (170, 180)), ((190, 20), (340, 180)), ((210, 100), (260, 160))):
        cv2.rectangle(drawn, corner, end, (0, 0, 0), 3)
    return (drawn / np.float32(255)).astype(np.float32)


def colors(skin: Color, skin_dark: Color, coat: Color, coat_dark: Color, patch: Color) -> Float:
    """Every surface is lit at its left and dark at its right, and there is no line between."""
    tones = np.ones((*SIZE[::-1], 3), np.float32)
    tones[:, :95], tones[:, 95:180] = skin, skin_dark
    tones[:, 180:275], tones[:, 275:] = coat, coat_dark
    tones[100:160, 210:260] = patch
    return tones


def cel() -> Float:
    """The alpha of the boxes."""
    alpha = np.zeros(SIZE[::-1], np.float32)
    alpha[19:182, 19:172] = alpha[19:182, 189:342] = 1
    return alpha


TRUE = colors(SKIN, SKIN_SHADOW, COAT, COAT_SHADOW, SKIN)


def figure(preset: Preset, swatches: Swatches | None = None) -> PreparedKey:
    return prepare_key(picture(np.minimum(TRUE, lines()), cel()), preset, MINI, swatches=swatches)


def between(one: Color, other: Color, share: float) -> Color:
    return tuple(float(a + share * (b - a)) for a, b in zip(one, other, strict=True))


def finished(layer: Float, preset: Preset, swatches: Swatches | None = None) -> Float:
    frame = prepared(picture(lines(), cel()), preset)
    return finish_frame(painted(frame, layer), frame, figure(preset, swatches), preset)[0]


def at(color: Float, place: tuple[int, int]) -> Float:
    return color[place[1], place[0]]


def test_the_key_tells_which_tone_is_whose() -> None:
    key = figure(Preset())
    tones = np.float32([SKIN, SKIN_SHADOW, COAT, COAT_SHADOW])
    apart = np.abs(tones[:, None] - key.palette.colors[None]).max(axis=2)  # (4, K)
    assert apart.min(axis=1).max() < 1e-3
    numbers = apart.argmin(axis=1)
    assert key.shadows[numbers].tolist() == numbers[[0, 0, 2, 2]].tolist()


def test_a_surface_keeps_its_own_shadow_where_the_model_is_between_two() -> None:
    painted_ = colors(SKIN, between(SKIN_SHADOW, COAT_SHADOW, 0.6), COAT, COAT_SHADOW, SKIN)
    assert np.abs(at(finished(painted_, Preset()), SKIN_DARK) - SKIN_SHADOW).max() < 0.004
    frame = prepared(picture(lines(), cel()), Preset())
    fill = fill_character(painted(frame, painted_), frame, figure(Preset()), Preset(), frame.regions)
    assert fill.unsure == ()   # by the pair, and not only by its neighbor
    nearest = finished(painted_, Preset(finish=FinishSettings(palette_margin=0)))
    assert np.abs(at(nearest, SKIN_DARK) - COAT_SHADOW).max() < 0.004


def test_a_piece_that_is_a_guess_is_named() -> None:
    def filled(patch: Color) -> Fill:
        preset = Preset()
        frame = prepared(picture(lines(), cel()), preset)
        layer = painted(frame, colors(SKIN, SKIN_SHADOW, COAT, COAT_SHADOW, patch))
        return fill_character(layer, frame, figure(preset), preset, frame.regions)

    assert filled(SKIN).unsure == ()
    for guess in (between(SKIN_SHADOW, COAT_SHADOW, 0.5), (0.1, 0.9, 0.9)):   # between two, and far from all
        fill = filled(guess)
        assert fill.labels is not None and fill.unsure == (int(at(fill.labels, PATCH)),)


def test_pieces_are_no_neighbors_in_the_empty_space_around_the_character() -> None:
    """A doubtful box with skin in its middle, and nobody's blue below it; other boxes stand far off to both sides."""
    size, blue = (600, 240), (0.2, 0.3, 0.9)
    boxes = {(180, 20, 280, 120): between(SKIN_SHADOW, COAT_SHADOW, 0.55), (180, 120, 280, 220): blue,
             (10, 100, 40, 140): COAT, (560, 100, 590, 140): COAT, (210, 50, 250, 90): SKIN}
    drawn, alpha = np.full((*size[::-1], 3), 255, np.uint8), np.zeros(size[::-1], np.float32)
    layer = np.ones((*size[::-1], 3), np.float32)
    for (left, top, right, bottom), color in boxes.items():
        cv2.rectangle(drawn, (left, top), (right, bottom), (0, 0, 0), 3)
        alpha[top - 1 : bottom + 2, left - 1 : right + 2] = 1
        layer[top : bottom + 1, left : right + 1] = color
    frame = prepared(picture((drawn / np.float32(255)).astype(np.float32), alpha), Preset())
    color, _ = finish_frame(painted(frame, layer), frame, figure(Preset()), Preset())
    assert np.abs(at(color, (195, 100)) - SKIN_SHADOW).max() < 0.004   # of 260 pixels of border 160 are with skin


@pytest.mark.parametrize("file", [
    Swatches(np.float32([GREEN]), (), None),
    Swatches(np.float32([SKIN]), (), np.float32([GREEN])),
], ids=["a palette", "a swap"])  # fmt: skip
def test_what_a_shadow_lets_through_is_the_same_after_a_repaint(file: Swatches) -> None:
    # The palette's green is nobody's color, and the skin's the nearest one.
    reach = 60 if file.swapped is None else 12
    preset = Preset(layers=LayerSettings(names=("flat", "shade")), finish=FinishSettings(palette_reach=reach))
    frame = prepared(picture(lines(), cel()), preset)
    shades, flats = [], []
    for swatches in (None, file):
        layered = layered_frame(painted(frame, TRUE), frame, figure(preset, swatches), preset)
        flat, shade = (layer.whole()[0] for layer in layered.layers(["flat", "shade"], linear=True))
        assert flat is not None and shade is not None
        shades.append(shade)
        flats.append(flat)
    assert np.abs(at(flats[1], SKIN_LIT) - ((np.float32(GREEN) + 0.055) / 1.055) ** 2.4).max() < 1e-4
    np.testing.assert_allclose(at(flats[1], SKIN_DARK), at(flats[1], SKIN_LIT), atol=1e-5)
    assert at(shades[0], SKIN_DARK).max() < 0.7
    for place in (SKIN_LIT, SKIN_DARK):
        np.testing.assert_allclose(at(shades[1], place), at(shades[0], place), atol=1e-4)


def test_two_tones_over_a_line_that_is_taken_out_are_one_surface_in_the_flat_layer() -> None:
    drawn = lines()
    drawn[119:122, 22:169] = (1.0, 0.1, 0.1)   # red, so it only parts the first box
    true = colors(SKIN, SKIN_SHADOW, COAT, COAT_SHADOW, SKIN)
    true[:120, 60:95], true[120:, :180] = SKIN_SHADOW, GREEN   # of the first box most is dark
    preset = Preset(finish=FinishSettings(separation_lines="remove", palette="off"))   # the key is not asked
    frame = prepared(picture(drawn, cel()), preset)
    layered = layered_frame(painted(frame, true), frame, figure(preset), preset)
    (layer,) = layered.layers(["flat"], linear=False)
    flat = layer.whole()[0]
    assert flat is not None
    for place, tone in (((40, 100), SKIN), (SKIN_DARK, SKIN), (COAT_DARK, COAT), ((95, 150), GREEN)):
        assert np.abs(at(flat, place) - tone).max() < 0.01


@pytest.mark.parametrize("level", [11, 14, 38, 111, 133, 188, 213])   # not itself any more by the sRGB curve and back
def test_a_shadow_that_keeps_a_channel_stays_a_pair_whatever_its_color_becomes(level: int) -> None:
    true = colors((1.0, 0.7, 0.6), (1.0, 0.5, 0.42), COAT, COAT_SHADOW, SKIN)
    preset, new = Preset(), np.full(3, level / 255, np.float32)
    key = prepare_key(picture(np.minimum(true, lines()), cel()), preset, MINI,
                      swatches=Swatches(np.float32([(1.0, 0.7, 0.6)]), (), new[None]))
    frame = prepared(picture(lines(), cel()), preset)
    fill = fill_character(painted(frame, true), frame, key, preset, frame.regions)
    assert fill.labels is not None and fill.colors is not None and fill.lit is not None
    dark = at(fill.labels, SKIN_DARK)
    assert (fill.colors[dark] < new - 0.001).any()
    np.testing.assert_allclose(fill.lit[dark], new, atol=1e-6)
    assert (fill.colors <= fill.lit).all()


def test_a_shadow_that_a_swap_makes_lighter_in_a_channel_is_a_surface_of_its_own() -> None:
    night, rim = (0.48, 0.44, 0.62), (0.55, 0.30, 0.40)
    file = Swatches(np.float32([SKIN, SKIN_SHADOW]), (), np.float32([night, rim]))
    frame = prepared(picture(lines(), cel()), Preset())
    fill = fill_character(painted(frame, TRUE), frame, figure(Preset(), file), Preset(), frame.regions)
    assert fill.labels is not None and fill.lit is not None
    np.testing.assert_array_equal(fill.lit[at(fill.labels, SKIN_DARK)], np.float32(rim))


def test_a_swap_leaves_the_other_surface_alone() -> None:
    night = finished(TRUE, Preset(), Swatches(np.float32([SKIN]), (), np.float32([GREEN])))
    assert np.abs(at(night, SKIN_LIT) - GREEN).max() < 0.004 and np.abs(at(night, PATCH) - GREEN).max() < 0.004
    for place, tone in ((COAT_LIT, COAT), (COAT_DARK, COAT_SHADOW)):
        assert np.abs(at(night, place) - tone).max() < 0.004
