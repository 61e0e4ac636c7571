"""A frame is made ready: its ink and its mask lie on the canvas, around the character."""

import numpy as np

from colorcli.prepare.canvas import from_canvas
from colorcli.prepare.frame import prepare_frame
from colorcli.presets import CanvasSettings, LineSettings, Preset
from colorcli.variants import VARIANTS
from tests.prepare.drawn import figure, overlap, picture

MINI = VARIANTS["mini"]


def test_the_drawing_fills_the_canvas() -> None:
    drawn = figure(1281, 723)
    frame = prepare_frame(picture(1 - drawn.ink), Preset(), MINI)
    width, height = frame.canvas.size
    assert frame.ink_canvas.shape == frame.mask_canvas.shape == (height, width)
    assert overlap(frame.mask, drawn.mask) > 0.97
    rows = np.flatnonzero(frame.mask_canvas.max(1) > 0.5)
    assert np.ptp(rows) > 0.75 * frame.canvas.window[3]
    back = from_canvas(frame.mask_canvas, frame.canvas, 0)
    assert back.shape == (723, 1281) and overlap(back, drawn.mask) > 0.95


def test_the_whole_frame_fills_the_canvas_on_request_and_when_it_is_blank() -> None:
    drawn = figure()
    whole = Preset(canvas=CanvasSettings(crop="frame"))
    assert prepare_frame(picture(1 - drawn.ink), whole, MINI).canvas.crop == (0, 0, 640, 480)
    blank = prepare_frame(picture(np.ones((77, 64), np.float32)), Preset(), MINI)
    assert blank.canvas.crop == (0, 0, 64, 77) and blank.ink_canvas.max() == blank.mask_canvas.max() == 0


def test_the_canvas_area_of_the_preset_comes_before_the_models() -> None:
    drawn = figure()
    large = Preset(canvas=CanvasSettings(area=640 * 640))
    width, height = prepare_frame(picture(1 - drawn.ink), large, MINI).canvas.size
    assert 0.8 < width * height / 640**2 < 1.25


def test_a_given_mask_is_the_mask() -> None:
    drawn = figure()
    given = np.zeros_like(drawn.mask)
    given[100:300, 200:400] = 1
    frame = prepare_frame(picture(1 - drawn.ink), Preset(), MINI, [given])
    np.testing.assert_array_equal(frame.mask, given)


def test_a_painted_frame_is_read_as_a_painting() -> None:
    drawn = figure(paper=(0.7, 0.8, 0.9))
    frame = prepare_frame(picture(drawn.color), Preset(lines=LineSettings(mode="extract")), MINI)
    assert overlap(frame.mask, drawn.mask) > 0.97
    assert frame.lines.ink[drawn.ink == 1].mean() > 0.5


def test_the_same_frame_is_prepared_the_same_way_twice() -> None:
    source = picture(1 - figure(gap_px=8).ink)
    one, two = (prepare_frame(source, Preset(), MINI) for _ in range(2))
    np.testing.assert_array_equal(one.mask_canvas, two.mask_canvas)
    np.testing.assert_array_equal(one.ink_canvas, two.ink_canvas)
