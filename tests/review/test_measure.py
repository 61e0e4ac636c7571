"""Numbers without a truth: what moves is no flicker, what is painted anew is; colors beside the key's."""

import numpy as np
import pytest

from colorcli.images import Picture
from colorcli.presets import MaskSettings, Preset
from colorcli.review.measure import Look, change_between, look_at
from tests.review.studio import BLUE, GREEN, PNG8, RED, Float, boxes, painted

HEAD, BODY = (4, 6, 24, 20), (50, 30, 44, 28)
# The whole frame counts as character: the paper around the boxes is a region that stays white.
EVERYWHERE = Preset(masks=MaskSettings(source="none"))
PALETTE = np.array([RED, GREEN, (1, 1, 1)], np.float32)


def look(drawing: Float, result: Float, preset: Preset = Preset(), palette: Float | None = PALETTE) -> Look:  # noqa: B008
    return look_at(Picture(drawing, None, PNG8, 3), Picture(result, None, PNG8, 3), preset, palette)


def two(head: tuple[float, float, float], body: tuple[float, float, float], shift: int = 0) -> Look:
    """A head over a body, moved to the right."""
    places = [(left + shift, top, width, height) for left, top, width, height in (HEAD, BODY)]
    drawing = boxes(*places)
    return look(drawing, painted(drawing, (places[0], head), (places[1], body)))


def test_a_figure_that_moves_in_its_own_colors_does_not_flicker() -> None:
    change = change_between(two(RED, GREEN), two(RED, GREEN, shift=5))
    assert (change.flicker, change.jumped, change.jumps) == (0.0, 0.0, ())
    assert change.compared > 0.9


def test_a_region_in_another_color_is_found_where_it_is() -> None:
    change = change_between(two(RED, GREEN), two(BLUE, GREEN))
    (jump,) = change.jumps
    left, top, width, height = jump.box
    assert (left * 96, top * 64) == (HEAD[0] + 2, HEAD[1] + 2)
    assert (width * 96, height * 64) == (HEAD[2] - 4, HEAD[3] - 4)
    assert (jump.before, jump.after) == ("#cc3333", "#3366cc")
    head, body = 20 * 16, 40 * 24   # pixels inside the lines
    assert change.jumped == pytest.approx(head / (head + body), abs=0.02)


def test_flicker_is_the_mean_change_of_a_channel_in_levels() -> None:
    paler = (RED[0] - 0.04, RED[1] - 0.04, RED[2] - 0.04)
    change = change_between(two(RED, RED), two(paler, paler))
    assert change.flicker == pytest.approx(0.04 * 255, abs=0.01)
    assert change.jumped == 0.0   # CIEDE2000 of so little is far below 8


def test_a_region_that_moved_away_is_not_compared_with_what_lies_there_now() -> None:
    one = boxes((2, 10, 20, 20))
    other = boxes((70, 10, 20, 20))   # by more than one and a half of its own width
    change = change_between(
        look(one, painted(one, ((2, 10, 20, 20), RED))), look(other, painted(other, ((70, 10, 20, 20), BLUE)))
    )
    assert (change.flicker, change.jumped, change.compared) == (0.0, 0.0, 0.0)


def test_a_region_that_has_moved_on_and_changed_its_color_is_found() -> None:
    one, other = (10, 10, 24, 30), (42, 12, 24, 30)   # by more than its own width
    before, after = boxes(one), boxes(other)
    change = change_between(look(before, painted(before, (one, RED))), look(after, painted(after, (other, BLUE))))
    assert change.jumped == pytest.approx(1.0)
    assert [(jump.before, jump.after) for jump in change.jumps] == [("#cc3333", "#3366cc")]
    assert change.flicker == 0.0   # no place shows it in both


def test_regions_that_share_a_strip_are_two() -> None:
    one, other = (10, 10, 40, 30), (40, 10, 50, 14)
    before, after = boxes(one), boxes(other)
    change = change_between(look(before, painted(before, (one, RED))), look(after, painted(after, (other, BLUE))))
    assert (change.flicker, change.jumped) == (0.0, 0.0)


def test_another_shape_is_another_region() -> None:
    one, other = (10, 10, 16, 40), (42, 12, 46, 14)
    before, after = boxes(one), boxes(other)
    change = change_between(look(before, painted(before, (one, RED))), look(after, painted(after, (other, BLUE))))
    assert (change.jumped, change.compared) == (0.0, 0.0)


def test_frames_of_two_sizes_are_not_compared() -> None:
    small = boxes(HEAD, size=(96, 60))
    assert change_between(two(RED, GREEN), look(small, small)).compared == 0.0


def test_a_frame_without_a_closed_line_has_no_region_and_no_color() -> None:
    blank = np.ones((64, 96, 3), np.float32)
    seen = look(blank, blank)
    assert (seen.character_px, seen.palette_distance, float(seen.palette_use.sum())) == (0, 0.0, 0.0)
    assert change_between(seen, two(RED, GREEN)).flicker == 0.0


def test_colors_of_the_key_are_at_no_distance_and_counted_by_area() -> None:
    seen = two(RED, GREEN)
    assert seen.palette_distance == pytest.approx(0, abs=0.2)   # 8-bit levels of 0.2 and 0.6 are not those exactly
    inner = (16 * 12, 36 * 20, 0)   # two pixels off the lines
    assert seen.palette_use == pytest.approx(np.array(inner) / sum(inner), abs=0.05)
    assert seen.foreign == ()


def test_black_is_one_hundred_from_a_palette_of_white() -> None:
    drawing = boxes(BODY)
    seen = look(drawing, painted(drawing, (BODY, (0, 0, 0))), palette=np.ones((1, 3), np.float32))
    assert seen.palette_distance == pytest.approx(100, abs=0.01)   # CIEDE2000 of lightness 0 and 100
    assert seen.foreign == (("#000000", pytest.approx(1.0)),)


def test_colors_that_are_none_of_the_keys_come_by_how_much_there_is_of_them() -> None:
    foreign = two(BLUE, (0.1, 0.1, 0.1)).foreign
    assert [color for color, _ in foreign] == ["#1a1a1a", "#3366cc"]   # the body is larger than the head
    assert [share for _, share in foreign] == sorted((share for _, share in foreign), reverse=True)


def test_a_painting_with_more_colors_than_can_be_counted_is_measured_all_the_same() -> None:
    random = np.random.default_rng(3)
    drawing = boxes((2, 2, 316, 236), size=(320, 240))
    result = drawing.copy()
    result[4:234, 4:314] = random.random((230, 310, 3), np.float32)
    seen = look(drawing, result, palette=np.array([[0.5, 0.5, 0.5]], np.float32))
    flat = painted(drawing, ((2, 2, 316, 236), (0.5, 0.5, 0.5)))
    gray = look(drawing, flat, palette=np.array([[0.5, 0.5, 0.5]], np.float32))
    assert seen.palette_distance is not None and gray.palette_distance is not None
    assert seen.palette_distance > 15 > gray.palette_distance


def test_without_a_key_there_is_no_distance() -> None:
    drawing = boxes(BODY)
    assert look(drawing, drawing, palette=None).palette_distance is None


def test_a_large_frame_is_measured_small_with_the_same_outcome() -> None:
    places = [tuple(15 * side for side in box) for box in (HEAD, BODY)]
    drawing = boxes(*places, size=(1440, 960))  # type: ignore[arg-type]
    one = look(drawing, painted(drawing, (places[0], RED), (places[1], GREEN)))  # type: ignore[arg-type]
    other = look(drawing, painted(drawing, (places[0], BLUE), (places[1], GREEN)))  # type: ignore[arg-type]
    assert one.color.shape == (853, 1280, 3)
    (jump,) = change_between(one, other).jumps
    assert jump.box == pytest.approx([side / of for side, of in zip(HEAD, (96, 64, 96, 64), strict=True)], abs=0.01)
