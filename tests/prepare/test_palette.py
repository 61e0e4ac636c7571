import cv2
import numpy as np

from colorcli.images import FORMATS, Picture
from colorcli.prepare.lineart import lines_of_color
from colorcli.prepare.palette import find_palette, is_shadow, shadows_of
from colorcli.presets import LineSettings

WHITE, JACKET, TROUSERS = (1.0, 1.0, 1.0), (0.62, 0.62, 0.62), (0.2, 0.2, 0.22)
COLORS = ((0.8, 0.2, 0.2), (0.2, 0.6, 0.3), (0.15, 0.15, 0.5))


def disks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three antialiased disks with black outlines: color, ink, mask."""
    color = np.ones((120, 300, 3), np.float32)
    ink, mask = np.zeros((120, 300), np.float32), np.zeros((120, 300), np.float32)
    for i, flat in enumerate(COLORS):
        center = (50 + 100 * i, 60)
        cv2.circle(color, center, 40 - 8 * i, flat, -1, cv2.LINE_AA)
        cv2.circle(color, center, 40 - 8 * i, (0, 0, 0), 2, cv2.LINE_AA)
        cv2.circle(ink, center, 40 - 8 * i, 1.0, 2, cv2.LINE_AA)
        cv2.circle(mask, center, 40 - 8 * i, 1.0, -1)
    return color, ink, mask


def test_the_palette_is_the_flat_colors_without_mixtures_of_edges():
    palette = find_palette(*disks())
    assert len(palette.colors) == 3
    assert np.allclose(palette.colors, COLORS, atol=0.01)  # the largest disk first


def test_every_counted_pixel_names_its_color():
    color, ink, mask = disks()
    palette = find_palette(color, ink, mask)
    for i, flat in enumerate(COLORS):
        assert palette.index[60, 50 + 100 * i] == i
        assert np.allclose(palette.colors[palette.index[60, 50 + 100 * i]], flat, atol=0.01)
    assert palette.index[5, 5] == -1


def test_an_empty_mask_gives_white():
    color, ink, mask = disks()
    assert np.allclose(find_palette(color, ink, np.zeros_like(mask)).colors, [WHITE])


def a_shirt_with_a_tie(*, line: int = 2, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A gray jacket, a white shirt front, a narrow tie as dark as the trousers, black outlines: color and mask."""
    def box(left: float, top: float, right: float, bottom: float) -> tuple[tuple[int, int], tuple[int, int]]:
        return (round(left * size), round(top * size)), (round(right * size), round(bottom * size))

    color = np.ones((round(200 * size), 1280, 3), np.float32)  # lines may be as wide as in a frame of this width
    for place, flat in ((box(40, 20, 160, 110), JACKET), (box(50, 110, 150, 180), TROUSERS),
                        (box(80, 20, 120, 60), WHITE), (box(96, 24, 104, 90), TROUSERS)):
        cv2.rectangle(color, *place, flat, -1)
        cv2.rectangle(color, *place, (0.05, 0.05, 0.05), line)
    mask = np.zeros(color.shape[:2], np.float32)
    cv2.rectangle(mask, *box(40, 20, 160, 180), 1.0, -1)
    return color, mask


def lines_of(color: np.ndarray) -> np.ndarray:
    picture = Picture(color, None, FORMATS["png8"], 3)
    return lines_of_color(picture, LineSettings()).ink


def test_a_narrow_dark_field_that_was_taken_for_a_line_keeps_its_color():
    color, mask = a_shirt_with_a_tie()
    ink = lines_of(color)
    assert ink[50:85, 98:103].max() > 0.5  # the tie is as narrow and as dark as a line
    palette = find_palette(color, ink, mask)
    assert np.allclose(palette.colors[palette.index[50:85, 99:102]], TROUSERS, atol=0.01)


def test_a_line_however_thick_the_pen_is_no_field_of_its_own_color():
    for line in (2, 4, 6):
        color, mask = a_shirt_with_a_tie(line=line, size=2)
        palette = find_palette(color, lines_of(color), mask)
        on_line = np.abs(color - 0.05).max(axis=2) < 0.01
        assert (palette.index[on_line] == -1).all()
        assert len(palette.colors) == 3


def test_a_colored_line_is_no_field_either():
    color, mask = a_shirt_with_a_tie(line=4, size=2)
    cv2.line(color, (95, 150), (145, 150), (0.4, 0.15, 0.1), 4)  # a brown seam of the jacket
    palette = find_palette(color, lines_of(color), mask)
    assert len(palette.colors) == 3


LIT, SHADE = (0.9, 0.7, 0.3), (0.63, 0.42, 0.18)


def told_shadows(color: np.ndarray) -> dict[tuple[float, ...], tuple[float, ...]]:
    """Each color of a picture without lines but those of `ink`, and the one that it is the shadow of."""
    ink = (color.max(axis=2) < 0.05).astype(np.float32)
    palette = find_palette(color, ink, np.ones(ink.shape, np.float32))
    named = [tuple(round(float(value), 2) for value in one) for one in palette.colors]
    return {named[dark]: named[lit] for dark, lit in enumerate(shadows_of(palette)) if dark != lit}


def half_in_shadow(shade: tuple[float, float, float] = SHADE) -> np.ndarray:
    """A field of a color, its left half darker."""
    color = np.empty((80, 120, 3), np.float32)
    color[:] = LIT
    color[:, :50] = shade
    return color


def test_a_darker_tone_that_meets_its_color_without_a_line_is_its_shadow():
    assert told_shadows(half_in_shadow()) == {SHADE: LIT}


def test_a_line_between_two_tones_makes_them_two_things():
    color = half_in_shadow()
    color[:, 49:52] = 0
    assert told_shadows(color) == {}


def test_a_color_of_another_hue_or_much_darker_is_a_thing_of_its_own():
    assert told_shadows(half_in_shadow((0.2, 0.6, 0.3))) == {}
    assert told_shadows(half_in_shadow((0.12, 0.1, 0.15))) == {}
    assert not is_shadow(np.float32(LIT), np.float32(LIT))


def test_a_tone_that_borders_on_another_color_for_most_of_its_way_is_no_shadow_of_the_first():
    color = half_in_shadow()
    color[:, :50] = (0.2, 0.6, 0.3)
    color[30:50, 10:50] = SHADE   # 20 of its pixels' borders are with the lit color, 100 with the green
    assert told_shadows(color) == {}


def test_a_color_beside_a_gap_in_a_line_is_no_shadow_of_what_is_behind_it():
    color = half_in_shadow()
    color[:34, 49:52] = color[46:, 49:52] = 0   # 12 of 80 pixels are open
    assert told_shadows(color) == {}


def test_a_rim_of_light_does_not_make_a_shadow_of_all_beside_it():
    color = half_in_shadow()
    color[:] = SHADE
    color[:, 50:54] = LIT
    assert told_shadows(color) == {}


def test_the_shadow_of_a_shadow_is_one_of_the_lit_color():
    color = half_in_shadow()
    color[:, :20] = (0.44, 0.27, 0.11)
    assert told_shadows(color) == {SHADE: LIT, (0.44, 0.27, 0.11): LIT}


TONE = (0.7, 0.6, 0.6)
SURFACES = {"coat": (0.9, 0.7, 0.3), "skirt": (0.3, 0.6, 0.9), "skin": (0.95, 0.8, 0.7)}


def in_tone(color: tuple[float, ...], tone: tuple[float, ...] = TONE) -> tuple[float, ...]:
    return tuple(round(level * share, 2) for level, share in zip(color, tone, strict=True))


def behind_the_body(*fields: tuple[float, ...], arm: tuple[float, ...]) -> np.ndarray:
    """Fields side by side, each half in shadow; then one in the color of the skin and another one, all with lines."""
    color = np.zeros((60, 60 * len(fields) + 80, 3), np.float32)
    for number, field in enumerate(fields):
        color[2:58, 60 * number + 2 : 60 * number + 30] = field
        color[2:58, 60 * number + 30 : 60 * number + 58] = in_tone(field)
    color[2:58, -78:-42] = SURFACES["skin"]
    color[2:58, -38:-2] = arm
    return color


def test_what_is_all_in_shadow_is_known_by_the_tone_of_two_other_shadows():
    coat, skirt, skin = SURFACES.values()
    beside = {in_tone(coat): coat, in_tone(skirt): skirt}
    assert told_shadows(behind_the_body(coat, skirt, arm=in_tone(skin))) == {**beside, in_tone(skin): skin}
    assert told_shadows(behind_the_body(coat, skirt, arm=in_tone(skin, (0.6, 0.6, 0.7)))) == beside
    assert told_shadows(behind_the_body(coat, arm=in_tone(skin))) == {in_tone(coat): coat}
    # What a shadow would be in that tone once more is nothing that a production paints.
    assert told_shadows(behind_the_body(coat, skirt, arm=in_tone(in_tone(coat)))) == beside
