"""A production's palette: a color and its shadow get swatches of their own, or move together."""

import numpy as np
import pytest
from numpy.typing import NDArray

from colorcli.finish.repaint import Repainted, in_step, repaint
from colorcli.prepare.palette_file import Swatches

Float = NDArray[np.float32]
Color = tuple[float, float, float]

SKIN, SKIN_SHADOW, COAT = (0.95, 0.80, 0.70), (0.72, 0.52, 0.46), (0.30, 0.45, 0.75)
KEY = np.float32([SKIN, COAT, SKIN_SHADOW])
SHADOWS = np.int32([0, 1, 0])
PEACH, PEACH_SHADOW, NAVY = (0.97, 0.83, 0.72), (0.70, 0.54, 0.47), (0.28, 0.45, 0.72)


def light(encoded: Float) -> NDArray[np.float64]:
    """IEC 61966-2-1, written down once more."""
    values = np.asarray(encoded, np.float64)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def swatches(*colors: Color, pairs: tuple[tuple[int, int], ...] = ()) -> Swatches:
    return Swatches(np.float32(colors), pairs)


def swap(changes: dict[Color, Color]) -> Swatches:
    return Swatches(np.float32(list(changes)), (), np.float32(list(changes.values())))


def repainted(file: Swatches, key: Float = KEY, shadows: NDArray[np.int32] = SHADOWS) -> Repainted:
    return repaint(key, shadows, file, 12.0)


def assert_lets_the_same_through(found: Repainted, lit: int = 0, dark: int = 2, key: Float = KEY) -> None:
    np.testing.assert_allclose(
        light(found.colors[dark]) / light(found.colors[lit]), light(key[dark]) / light(key[lit]), atol=1e-5
    )


def test_without_a_file_every_color_stays() -> None:
    found = repaint(KEY, SHADOWS, None, 12.0)
    np.testing.assert_array_equal(found.colors, KEY)
    assert found.that("stays") == [0, 1, 2]


def test_a_file_with_both_gives_both() -> None:
    found = repainted(swatches(NAVY, PEACH_SHADOW, PEACH))
    np.testing.assert_array_equal(found.colors, np.float32([PEACH, NAVY, PEACH_SHADOW]))
    assert found.how == ("swatch", "swatch", "swatch")


def test_a_shadow_without_a_swatch_goes_with_its_color() -> None:
    found = repainted(swatches(PEACH, NAVY))
    np.testing.assert_array_equal(found.colors[:2], np.float32([PEACH, NAVY]))
    assert_lets_the_same_through(found)
    assert found.how == ("swatch", "swatch", "step")


def test_a_color_that_the_file_does_not_have_stays_with_its_shadow() -> None:
    found = repainted(swatches(NAVY))
    np.testing.assert_array_equal(found.colors, np.float32([SKIN, NAVY, SKIN_SHADOW]))
    assert found.that("stays") == [0, 2]


def test_one_swatch_that_is_near_to_both_is_the_lit_color_and_the_shading_survives() -> None:
    lit, dark = (0.60, 0.60, 0.62), (0.54, 0.54, 0.57)
    key = np.float32([lit, dark])
    found = repainted(swatches((0.57, 0.57, 0.59)), key, np.int32([0, 0]))
    assert found.how == ("swatch", "step")
    assert_lets_the_same_through(found, 0, 1, key)


def test_the_color_of_another_material_is_no_shadow() -> None:
    wood = (0.70, 0.50, 0.45)    # in the key, and hardly to be told from the shadow of the skin
    key = np.float32([SKIN, wood, SKIN_SHADOW])
    found = repainted(swatches(PEACH, wood), key)
    np.testing.assert_array_equal(found.colors[1], np.float32(wood))
    assert found.how[2] == "step"
    assert_lets_the_same_through(found, key=key)


def test_a_swatch_that_is_lighter_than_the_color_is_no_shadow_of_it() -> None:
    key = np.float32([(0.50, 0.50, 0.50), (0.45, 0.45, 0.45)])
    found = repainted(swatches((0.48, 0.48, 0.48), (0.53, 0.53, 0.53)), key, np.int32([0, 0]))
    assert found.how == ("swatch", "step")
    assert (found.colors[1] < found.colors[0]).all()


def test_a_pair_by_name_is_used_however_far_it_is() -> None:
    violet = (0.35, 0.20, 0.50)
    found = repainted(swatches(PEACH, NAVY, violet, PEACH_SHADOW, pairs=((0, 2),)))
    np.testing.assert_array_equal(found.colors, np.float32([PEACH, NAVY, violet]))


def test_the_shadow_of_another_swatch_by_name_is_not_taken() -> None:
    found = repainted(swatches(PEACH, NAVY, PEACH_SHADOW, pairs=((1, 2),)))
    assert found.how[2] == "step"


def test_a_swatch_that_two_colors_have_is_no_shadow_if_the_nearer_one_is_nearer() -> None:
    gray, other = (0.50,) * 3, (0.62,) * 3   # both have the only gray swatch; the skin's shadow lies between them
    key = np.float32([SKIN, gray, other, (0.56,) * 3])
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        found = repainted(swatches(PEACH, (0.50,) * 3), key[order], np.int32([0, 1, 2, 0]))
        assert found.how == ("swatch", "swatch", "swatch", "step")


def test_three_tones_stay_three_in_their_order() -> None:
    key = np.float32([(0.9, 0.7, 0.6), (0.75, 0.56, 0.47), (0.6, 0.43, 0.35)])
    found = repainted(swatches((0.88, 0.72, 0.60), (0.68, 0.50, 0.42)), key, np.int32([0, 0, 0]))
    assert (np.diff(light(found.colors).sum(axis=1)) < -0.02).all()


def test_a_darker_shadow_is_not_lighter_than_the_other_after_all() -> None:
    key = np.float32([(0.90,) * 3, (0.56,) * 3, (0.53,) * 3])
    found = repainted(swatches((0.90,) * 3, (0.52,) * 3, (0.62,) * 3), key, np.int32([0, 0, 0]))
    np.testing.assert_array_equal(found.colors[1], np.float32((0.52,) * 3))
    assert (found.colors[2] < found.colors[1]).all()


def test_one_shadow_by_name_is_not_used_for_two() -> None:
    key = np.float32([(0.9, 0.7, 0.6), (0.75, 0.56, 0.47), (0.6, 0.43, 0.35)])
    found = repainted(swatches((0.9, 0.7, 0.6), (0.3, 0.2, 0.5), pairs=((0, 1),)), key, np.int32([0, 0, 0]))
    assert found.how == ("swatch", "swatch", "step")
    assert_lets_the_same_through(found, 1, 2, key)   # it goes with the lighter shadow


@pytest.mark.parametrize("new", [(0.3, 0.3, 0.6), (0.05, 0.02, 0.1), (1.0, 1.0, 1.0), (0.9, 0.0, 0.0)])
def test_a_swap_moves_a_color_anywhere_and_its_shadow_with_it(new: Color) -> None:
    found = repainted(swap({SKIN: new}))
    np.testing.assert_array_equal(found.colors[0], np.float32(new))
    through = light(KEY[2]) / light(KEY[0])
    np.testing.assert_allclose(light(found.colors[2]), light(np.float32(new)) * through, atol=1e-5)
    np.testing.assert_array_equal(found.colors[1], np.float32(COAT))


def test_a_swap_that_names_both_is_taken_by_its_word() -> None:
    rim, night = (0.55, 0.60, 0.90), (0.48, 0.44, 0.62)   # the shadow is lighter than the color
    found = repainted(swap({SKIN: night, SKIN_SHADOW: rim}))
    np.testing.assert_array_equal(found.colors, np.float32([night, COAT, rim]))


def test_a_swap_changes_that_color_and_no_other_that_is_like_it() -> None:
    cream = (0.95, 0.84, 0.76)
    found = repainted(swap({SKIN: (0.4, 0.4, 0.7)}), np.float32([SKIN, cream]), np.int32([0, 1]))
    np.testing.assert_array_equal(found.colors[1], np.float32(cream))


def test_a_darker_shadow_goes_with_a_swapped_one_also_if_their_color_stays() -> None:
    key = np.float32([(0.9, 0.7, 0.6), (0.75, 0.56, 0.47), (0.6, 0.43, 0.35)])
    found = repainted(swap({(0.75, 0.56, 0.47): (0.2, 0.2, 0.4)}), key, np.int32([0, 0, 0]))
    assert found.how == ("stays", "swatch", "step")
    assert_lets_the_same_through(found, 1, 2, key)


def test_a_swap_of_a_color_that_the_key_does_not_have_changes_nothing() -> None:
    found = repainted(swap({(0.1, 0.9, 0.1): (0.0, 0.0, 0.0), COAT: (0.0, 0.0, 0.0)}))
    np.testing.assert_array_equal(found.colors[[0, 2]], KEY[[0, 2]])
    assert found.unused == (0,)


def test_black_has_no_shadow_and_a_shadow_of_black_stays_black() -> None:
    black = np.zeros(3, np.float32)
    np.testing.assert_array_equal(in_step(black, np.float32(SKIN), np.float32(SKIN_SHADOW)), black)
    gray = np.float32([0.5, 0.5, 0.5])
    np.testing.assert_allclose(in_step(gray, black, black), gray, atol=1e-6)


def test_a_color_that_does_not_move_keeps_its_shadow() -> None:
    np.testing.assert_allclose(in_step(KEY[0], KEY[0], KEY[2]), KEY[2], atol=1e-6)
