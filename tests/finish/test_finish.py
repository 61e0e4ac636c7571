"""A finished frame: colors inside the lines, the lines as they were drawn, nothing else."""

import numpy as np
import pytest

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.finish.finish import finish_frame
from colorcli.prepare.canvas import from_canvas
from colorcli.presets import BackgroundSettings, FinishSettings, OutputSettings, Preset, load_preset
from tests.finish.studio import COLORS, NIGHT, RED, face, flats, key_of, painted, picture, prepared, shown

STEP = 1 / 255
CEL = Preset()
SOFT = Preset(finish=FinishSettings(fill="soft"))


def finished(drawn, alpha=None, preset=CEL, colors=None, key=None):
    """Finish a drawing with a perfect layer: color and alpha."""
    size = drawn.shape[1::-1]
    frame = prepared(picture(drawn, alpha), preset)
    _, truth, shape = face(size)
    layer = painted(frame, flats(size) if colors is None else colors)
    return finish_frame(layer, frame, key or key_of(truth, shape, preset), preset)


@pytest.mark.parametrize("preset", [CEL, SOFT])
@pytest.mark.parametrize("cel", [True, False])
@pytest.mark.parametrize("width", [1.5, 2.0, 5.0])
def test_a_black_line_pixel_stays_as_it_was_drawn(preset, cel, width):
    drawn, _, alpha = face(width=width)
    color, _ = finished(drawn, alpha if cel else None, preset)
    full = (drawn.max(axis=2) < 0.05) & (alpha > 0.99)
    assert full.sum() > 100
    assert np.abs(color[full] - drawn[full]).max() <= STEP


@pytest.mark.parametrize("stroke", [(0.55, 0.55, 0.55), (0.8, 0.1, 0.1), (0.3, 0.5, 0.95), (0.75, 0.75, 0.75)])
def test_gray_and_colored_lines_stay_as_they_were_drawn(stroke):
    drawn, _, alpha = face(stroke=stroke, width=4)
    color, _ = finished(drawn, alpha)
    full = (np.abs(drawn - np.array(stroke)).max(axis=2) < 0.01) & (alpha > 0.99)
    assert full.sum() > 500
    assert np.abs(color[full] - drawn[full]).max() <= STEP


@pytest.mark.parametrize("preset", [CEL, SOFT])
@pytest.mark.parametrize("cel", [True, False])
def test_soft_edges_of_lines_mix_with_the_color_below_as_in_the_true_picture(preset, cel):
    drawn, truth, alpha = face()
    color, given = finished(drawn, alpha if cel else None, preset)
    over = truth * alpha[..., None] + 1 - alpha[..., None]
    off = np.abs(shown(color, given) - (over if cel else truth)).max(axis=2)
    # Thresholds in ink leave small differences; a rim of paper under a line would be one of 0.3 and more.
    assert off.max() < 0.25
    assert off.mean() < 0.005


def test_no_paper_shines_through_a_thin_black_line_over_a_dark_color():
    drawn, _, alpha = face(width=1.5)
    dark = np.broadcast_to(np.float32(NIGHT), drawn.shape)
    key = key_of(np.ascontiguousarray(dark), alpha, CEL)
    color, _ = finished(drawn, alpha, colors=np.ascontiguousarray(dark), key=key)
    inside = alpha > 0.99
    assert color[inside].max() < max(NIGHT) + 0.1


@pytest.mark.parametrize("preset", [CEL, SOFT])
def test_each_region_has_its_color_up_to_the_line(preset):
    drawn, truth, alpha = face()
    color, _ = finished(drawn, alpha, preset)
    bare = (drawn.min(axis=2) > 0.99) & (alpha > 0.99)
    assert ciede2000(lab_of(color[bare]), lab_of(truth[bare])).max() < 3


@pytest.mark.parametrize("preset", [CEL, SOFT])
def test_colors_that_run_over_a_line_are_put_back_inside_it(preset):
    drawn, truth, alpha = face()
    slid = np.roll(flats(), 2, axis=(0, 1))  # the model is off by two pixels
    color, _ = finished(drawn, alpha, preset, colors=slid)
    bare = (drawn.min(axis=2) > 0.99) & (alpha > 0.99)
    right = ciede2000(lab_of(color[bare]), lab_of(truth[bare])) < 8
    assert right.mean() > (0.999 if preset is CEL else 0.98)


def test_a_region_is_flat_even_if_the_model_is_not():
    drawn, _, alpha = face()
    noisy = np.clip(flats() + np.random.default_rng(1).normal(0, 0.1, flats().shape), 0, 1).astype(np.float32)
    color, _ = finished(drawn, alpha, colors=noisy)
    bare = (drawn.min(axis=2) > 0.99) & (alpha > 0.99)
    assert len(np.unique(color[bare].round(3), axis=0)) == 4


def test_flat_colors_are_those_of_the_key():
    drawn, _, alpha = face()
    color, _ = finished(drawn, alpha, colors=np.clip(flats() + 0.03, 0, 1))
    bare = (drawn.min(axis=2) > 0.99) & (alpha > 0.99)
    nearest = np.abs(color[bare][:, None] - np.float32(COLORS)).max(axis=2).min(axis=1)
    assert nearest.max() < 0.004


def test_a_color_far_from_the_key_stays_what_the_model_said():
    drawn, _, alpha = face()
    far = np.broadcast_to(np.float32((0.9, 0.85, 0.1)), drawn.shape)
    color, _ = finished(drawn, alpha, colors=np.ascontiguousarray(far))
    assert np.allclose(color[80, 110], (0.9, 0.85, 0.1), atol=0.01)


def test_two_colors_in_a_region_with_an_open_line_stay_two():
    drawn, _, alpha = face(gap=True)
    color, _ = finished(drawn, alpha)
    y = 160
    assert np.allclose(color[y, 110], COLORS[2], atol=0.02)
    assert np.allclose(color[y, 190], COLORS[3], atol=0.02)
    changes = np.flatnonzero(np.abs(np.diff(color[y, 100:200, 2])) > 0.02)
    assert len(changes) <= 3  # one border, smoothed
    assert abs(100 + changes.mean() - 150) < 2


def test_a_shaded_region_is_not_cut_into_bands():
    drawn, _, alpha = face(gap=True)
    ramp = np.linspace(0.2, 0.9, drawn.shape[1], dtype=np.float32)
    layer = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], drawn.shape))
    color, _ = finished(drawn, alpha, colors=layer, preset=Preset(finish=FinishSettings(palette="off")))
    lower = color[160, 100:200][drawn[160, 100:200].min(axis=1) > 0.99]
    assert np.ptp(lower, axis=0).max() < STEP


def test_soft_fill_keeps_the_shades():
    drawn, _, alpha = face(gap=True)
    ramp = np.linspace(0.2, 0.9, drawn.shape[1], dtype=np.float32)
    layer = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], drawn.shape))
    color, _ = finished(drawn, alpha, colors=layer, preset=SOFT)
    assert np.abs(color[160, 100:200, 0] - ramp[100:200]).max() < 0.03


@pytest.mark.parametrize("rule", ["white", "transparent", "keep", "model"])
@pytest.mark.parametrize("size", [(300, 240), (251, 333), (64, 64)])
def test_the_size_is_that_of_the_frame(rule, size):
    drawn, _, alpha = face(size)
    preset = Preset(background=BackgroundSettings(rule=rule))
    for given in (alpha, None):
        color, after = finished(drawn, given, preset)
        assert color.shape == drawn.shape
        assert after is None or after.shape == alpha.shape
        assert np.isfinite(color).all()
        assert color.min() >= 0 and color.max() <= 1


def test_paper_outside_the_character_is_white():
    drawn, _, alpha = face(paper=0.93)  # a page that is not quite white
    color, given = finished(drawn)
    assert given is None
    assert color[3, 3].min() == 1
    assert color[alpha == 0].min() > 0.97


def test_the_background_of_the_key_is_kept_on_demand():
    drawn, truth, alpha = face()
    sky = np.float32((0.6, 0.8, 0.95))
    preset = Preset(background=BackgroundSettings(rule="keep"))
    key = key_of(truth * alpha[..., None] + sky * (1 - alpha[..., None]), None, preset)
    color, _ = finished(drawn, preset=preset, key=key)
    assert np.allclose(color[3, 3], sky, atol=0.02)
    assert np.allclose(color[80, 110], RED, atol=0.02)


def test_a_cel_keeps_its_alpha():
    drawn, _, alpha = face()
    _, given = finished(drawn, alpha)
    assert np.array_equal(given, alpha)


def test_transparent_paper_cuts_the_character_out_with_its_lines():
    drawn, _, alpha = face()
    color, given = finished(drawn, preset=Preset(background=BackgroundSettings(rule="transparent")))
    assert given[3, 3] == 0
    assert given[alpha > 0.99].min() > 0.95
    outline = (drawn.max(axis=2) < 0.05)
    assert given[outline].min() == 1
    # laid over white it is the frame that the rule "white" gives
    white, _ = finished(drawn)
    assert np.abs(shown(color, given) - white).max() < 0.02


def test_lines_alone_in_the_alpha_get_color_between_them():
    drawn, truth, _ = face()
    ink = 1 - drawn[..., 0]
    color, given = finished(np.zeros_like(drawn), ink)
    assert given[120 - 60, 150 - 40] == 1
    assert given[3, 3] == 0
    assert np.abs(shown(color, given) - truth).mean() < 0.01


def test_lines_alone_in_the_alpha_are_lines_also_of_a_small_figure_in_a_large_frame():
    drawn, truth, _ = face((120, 96), width=6)

    def placed(small):
        large = np.ones((720, 1280, 3), np.float32)
        large[300:396, 500:620] = small
        return large

    frame = prepared(picture(np.zeros((720, 1280, 3), np.float32), 1 - placed(drawn).mean(axis=2)), CEL)
    layer = painted(frame, placed(flats((120, 96))))
    color, alpha = finish_frame(layer, frame, key_of(placed(truth), None, CEL), CEL)
    assert np.abs(shown(color, alpha) - placed(truth)).max() < 0.25


def test_an_alpha_can_be_left_out_or_be_the_mask():
    drawn, _, alpha = face()
    color, none = finished(drawn, alpha, Preset(output=OutputSettings(alpha="none")))
    assert none is None
    assert color[3, 3].min() == 1
    _, mask = finished(drawn, None, Preset(output=OutputSettings(alpha="mask")))
    assert mask[3, 3] == 0 and mask[80, 110] == 1


def test_light_lines_on_dark_paper_stay_light():
    drawn, _, _ = face(stroke=(0.95, 0.95, 0.95), paper=0.1, width=3)
    color, _ = finished(drawn)
    full = drawn.min(axis=2) > 0.94
    assert np.abs(color[full] - drawn[full]).max() <= STEP
    assert np.allclose(color[80, 110], RED, atol=0.02)


def test_lines_can_be_left_out():
    drawn, _, alpha = face()
    color, _ = finished(drawn, alpha, Preset(finish=FinishSettings(lines="none")))
    inside = alpha > 0.99
    assert np.abs(color[inside][:, None] - np.float32(COLORS)).max(axis=2).min(axis=1).max() < 0.3
    assert color[inside].max(axis=1).min() > 0.1  # no black left


def test_an_empty_frame_stays_empty():
    blank = np.ones((120, 160, 3), np.float32)
    for rule in ("white", "transparent", "keep", "model"):
        color, _ = finished(blank, preset=Preset(background=BackgroundSettings(rule=rule)))
        assert color.shape == blank.shape
        assert np.isfinite(color).all()
    color, _ = finished(blank)
    assert color.min() == 1


def test_a_black_frame_comes_through():
    color, _ = finished(np.zeros((90, 120, 3), np.float32))
    assert np.isfinite(color).all()


def test_the_models_picture_is_delivered_as_it_is_where_that_is_asked_for():
    """The published preset: no lines laid over, nothing kept inside them, nothing taken out."""
    preset = load_preset("published")
    drawn, _, alpha = face()
    layer = np.random.default_rng(1).random((*drawn.shape[:2], 3)).astype(np.float32)
    frame = prepared(picture(drawn), preset)
    shown_layer = painted(frame, layer)
    color, given = finish_frame(shown_layer, frame, key_of(drawn, alpha, preset), preset)
    assert given is None
    np.testing.assert_allclose(color, from_canvas(shown_layer, frame.canvas, 1), atol=1e-6)


def test_no_regions_are_looked_for_where_the_model_has_filled_them():
    drawn, truth, alpha = face()
    looked = []
    for fill in ("flat", "model"):
        preset = Preset(finish=FinishSettings(fill=fill))
        frame = prepared(picture(drawn, alpha), preset)
        finish_frame(painted(frame, flats()), frame, key_of(truth, alpha, preset), preset)
        looked.append("regions" in vars(frame))   # found when first asked for, and kept
    assert looked == [True, False]
