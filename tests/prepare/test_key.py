"""The key is made ready: colors over white, its character, its outlines, its bleached background."""

import numpy as np

from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import CanvasSettings, Preset, ReferenceSettings
from colorcli.variants import VARIANTS
from tests.prepare.drawn import figure, overlap, picture

MINI = VARIANTS["mini"]


def test_a_key_and_its_line_art_lie_on_the_canvas_alike() -> None:
    drawn = figure()
    key = prepare_key(picture(drawn.color), Preset(), MINI)
    frame = prepare_frame(picture(1 - drawn.ink), Preset(), MINI)
    assert key.canvas.size == frame.canvas.size
    assert overlap(key.mask_canvas, frame.mask_canvas) > 0.95
    assert np.abs(key.ink_canvas - frame.ink_canvas).sum() < 0.6 * frame.ink_canvas.sum()


def test_a_transparent_key_lies_on_white() -> None:
    drawn = figure(paper=(1, 0, 1))
    key = prepare_key(picture(drawn.color, drawn.mask), Preset(), MINI)
    np.testing.assert_array_equal(key.mask, drawn.mask)
    assert key.color_canvas[key.mask_canvas == 0].min() > 0.999


def test_bleaching_leaves_the_background_and_nothing_of_the_character() -> None:
    drawn = figure(paper=(0.2, 0.6, 0.4))
    whole = Preset(canvas=CanvasSettings(crop="frame"))
    key = prepare_key(picture(drawn.color), whole, MINI)
    assert (key.bleached_canvas[key.mask_canvas >= 0.5] == 1).all()
    outside = key.bleached_canvas[key.mask_canvas == 0]
    np.testing.assert_allclose(np.median(outside, axis=0), [0.2, 0.6, 0.4], atol=0.01)


def test_padding_widens_the_key_with_white() -> None:
    drawn = figure()
    wide = Preset(canvas=CanvasSettings(crop="frame"), reference=ReferenceSettings(padding=1.5))
    key = prepare_key(picture(drawn.color), wide, MINI, [drawn.mask])
    assert key.picture.size == (960, 480) and key.mask.shape == (480, 960)
    assert key.picture.color[:, :160].min() == 1 and key.mask[:, :160].max() == 0
    np.testing.assert_array_equal(key.mask[:, 160:800], drawn.mask)
