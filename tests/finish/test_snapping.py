"""Pieces get the palette color that they have; where two are about as near, the pair or the neighbors tell."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.finish.snapping import NONE, Pieces, Snapped, SnapRule, borders_of, snap

Float = NDArray[np.float32]

SKIN, SKIN_SHADOW, COAT, COAT_SHADOW = (0.95, 0.80, 0.70), (0.72, 0.52, 0.46), (0.93, 0.60, 0.35), (0.68, 0.46, 0.34)
PALETTE = np.float32([SKIN, SKIN_SHADOW, COAT, COAT_SHADOW])
SHADOWS = np.int32([0, 0, 2, 2])
RULE = SnapRule(reach=12, margin=2.5)
APART = ciede2000(lab_of(np.float32(SKIN_SHADOW)), lab_of(np.float32(COAT_SHADOW)))


def snapped(
    colors: Sequence[Sequence[float]],
    regions: Sequence[int] | None = None,
    borders: Sequence[tuple[int, int, int]] = (),
    palette: Float = PALETTE,
    shadows: NDArray[np.int32] = SHADOWS,
    rule: SnapRule = RULE,
    areas: Sequence[int] = (),
) -> Snapped:
    """Pieces, each of 100 pixels and a closed region of its own if nothing is said; borders: (piece, piece, pixels)."""
    both = [*borders, *((two, one, pixels) for one, two, pixels in borders)]
    pieces = Pieces(
        np.float32(colors),
        np.array(range(len(colors)) if regions is None else regions, np.int64),
        np.array(areas or [100] * len(colors), np.int64),
        lambda: np.array(sorted(both), np.int64).reshape(-1, 3),
    )
    return snap(pieces, palette, shadows, rule)


def between(one: Sequence[float], other: Sequence[float], share: float) -> list[float]:
    return [float(a + share * (b - a)) for a, b in zip(one, other, strict=True)]


def test_the_colors_of_the_tests_are_as_they_are_meant() -> None:
    assert 5 < APART < 8    # nearer than the reach, and farther apart than twice the margin


def test_a_color_is_snapped_only_within_reach() -> None:
    found = snapped([(0.95, 0.05, 0.03), (0.3, 0.8, 0.3)], palette=np.float32([[1, 0, 0], [0, 0, 1]]),
                    shadows=np.int32([0, 1]))
    assert list(found.numbers) == [0, NONE]
    assert list(found.unsure) == [False, True]


def test_what_is_out_of_reach_raises_no_doubt() -> None:
    color = between(SKIN_SHADOW, COAT_SHADOW, 0.45)
    distances = ciede2000(lab_of(np.float32(color))[None], lab_of(np.float32([SKIN_SHADOW, COAT_SHADOW])))
    found = snapped([color, COAT], borders=[(0, 1, 100)], rule=SnapRule(float(distances.mean()), 2.5))
    assert found.numbers[0] == 1 and not found.unsure[0]


def test_a_color_of_the_palette_is_sure_whatever_else_is_near() -> None:
    alike = np.float32([(0.50, 0.50, 0.50), (0.51, 0.505, 0.50)])
    assert ciede2000(lab_of(alike[0]), lab_of(alike[1])) < RULE.margin
    found = snapped(alike, palette=alike, shadows=np.int32([0, 1]))
    assert list(found.numbers) == [0, 1] and not found.unsure.any()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_between_two_colors_a_guess_is_told(share: float) -> None:
    found = snapped([between(SKIN_SHADOW, COAT_SHADOW, share)])
    assert found.numbers[0] == (1 if share < 0.5 else 3)
    # On the way from one to the other the two distances differ by the part of the way that is not their middle.
    differ = abs(1 - 2 * share) * APART
    if abs(differ - RULE.margin) > 0.5:    # CIEDE2000 bends the way a little
        assert found.unsure[0] == (differ < RULE.margin)


def test_two_tones_of_one_surface_that_are_about_as_near_leave_the_surface_sure() -> None:
    found = snapped([between(SKIN, SKIN_SHADOW, 0.5)], rule=SnapRule(30, 2.5))
    assert found.numbers[0] in (0, 1) and not found.unsure[0]


def test_the_shadow_of_another_surface_is_not_laid_beside_a_color_whose_own_is_as_near() -> None:
    dark = between(SKIN_SHADOW, COAT_SHADOW, 0.6)
    assert list(snapped([SKIN, dark], regions=[1, 2]).numbers) == [0, 3]
    together = snapped([SKIN, dark], regions=[1, 1])
    assert list(together.numbers) == [0, 1] and not together.unsure.any()
    coat = snapped([COAT, between(SKIN_SHADOW, COAT_SHADOW, 0.4)], regions=[1, 1])
    assert list(coat.numbers) == [2, 3]


def test_two_materials_behind_an_open_line_stay_two() -> None:
    assert list(snapped([SKIN, COAT_SHADOW], regions=[1, 1]).numbers) == [0, 3]
    assert list(snapped([SKIN, SKIN_SHADOW, COAT, COAT_SHADOW], regions=[1, 1, 1, 1]).numbers) == [0, 1, 2, 3]


def test_two_pieces_never_become_one_for_the_sake_of_a_pair() -> None:
    dark = [between(SKIN_SHADOW, COAT_SHADOW, share) for share in (0.4, 0.6)]
    assert list(snapped(dark, regions=[1, 1]).numbers) == [1, 3]


def test_two_pairs_in_one_region_are_both_found() -> None:
    blue, blue_shadow, green, green_shadow = (0.4, 0.5, 0.9), (0.28, 0.34, 0.65), (0.5, 0.9, 0.8), (0.26, 0.38, 0.62)
    palette = np.float32([*PALETTE, blue, blue_shadow, green, green_shadow])
    shadows = np.int32([*SHADOWS, 4, 4, 6, 6])
    colors = [SKIN, between(SKIN_SHADOW, COAT_SHADOW, 0.6), blue, between(blue_shadow, green_shadow, 0.6)]
    assert list(snapped(colors, range(4), palette=palette, shadows=shadows).numbers) == [0, 3, 4, 7]
    assert list(snapped(colors, [1] * 4, palette=palette, shadows=shadows).numbers) == [0, 1, 4, 5]


@pytest.mark.parametrize(("areas", "numbers"), [((100, 100), [2, 3]), ((100, 1000), [0, 1])])
def test_of_two_pairs_that_fit_the_one_is_taken_that_is_nearer_for_more_pixels(
    areas: tuple[int, int], numbers: list[int]
) -> None:
    grays = np.float32([(level,) * 3 for level in (0.60, 0.40, 0.64, 0.44)])
    # The lit one is nearer to that of the second pair by a fifth of the way, the dark one to that of the first by less.
    pieces = [between(grays[0], grays[2], 0.6), between(grays[1], grays[3], 0.46)]
    assert list(snapped(pieces, palette=grays).numbers) == [2, 1]
    assert list(snapped(pieces, [1, 1], palette=grays, areas=areas).numbers) == numbers


def test_without_a_margin_the_nearest_is_taken() -> None:
    dark = between(SKIN_SHADOW, COAT_SHADOW, 0.55)
    found = snapped([SKIN, dark], regions=[1, 1], rule=SnapRule(12, 0))
    assert list(found.numbers) == [0, 3] and not found.unsure.any()


def test_neighbors_decide_where_they_speak_clearly() -> None:
    doubtful = between(SKIN_SHADOW, COAT_SHADOW, 0.55)

    def beside(skin_px: int, coat_px: int, other_px: int) -> Snapped:
        blue = (0.2, 0.3, 0.9)   # nobody's color, so it has no voice, but it has a border
        return snapped([doubtful, SKIN, COAT, blue], borders=[(0, 1, skin_px), (0, 2, coat_px), (0, 3, other_px)])

    assert beside(60, 0, 40).numbers[0] == 1       # most of the border says skin
    assert beside(40, 0, 60).numbers[0] == 3       # less than half says too little
    assert beside(60, 30, 10).numbers[0] == 3      # nor does it if coat says nearly as much
    assert beside(10, 80, 10).numbers[0] == 3
    assert beside(60, 0, 40).unsure[0]             # and it stays a guess


def test_neighbors_that_are_guesses_themselves_say_nothing() -> None:
    doubtful, skinny = between(SKIN_SHADOW, COAT_SHADOW, 0.55), between(SKIN_SHADOW, COAT_SHADOW, 0.45)
    found = snapped([doubtful, skinny], borders=[(0, 1, 100)])
    assert list(found.numbers) == [3, 1] and found.unsure.all()


def test_the_order_of_the_pieces_does_not_matter() -> None:
    random = np.random.default_rng(4)
    colors = PALETTE[random.integers(4, size=40)] + random.normal(0, 0.04, (40, 3)).astype(np.float32)
    regions = random.integers(1, 16, size=40)
    borders = [(one, two, int(random.integers(1, 90))) for one in range(40) for two in range(one)
               if random.random() < 0.2]
    found = snapped(colors, regions, borders)
    order = random.permutation(40)
    place = np.argsort(order)
    other = snapped(colors[order], regions[order], [(int(place[a]), int(place[b]), px) for a, b, px in borders])
    np.testing.assert_array_equal(found.numbers[order], other.numbers)
    np.testing.assert_array_equal(found.unsure[order], other.unsure)
    assert 0 < found.unsure.sum() < 40


def test_borders_are_counted_on_both_sides() -> None:
    labels = np.int32([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    assert borders_of(labels).tolist() == [[0, 1, 2], [0, 2, 2], [1, 0, 2], [1, 2, 1], [2, 0, 2], [2, 1, 1]]
    assert borders_of(np.ones((3, 3), np.int32)).shape == (0, 3)


def test_outside_there_are_no_borders() -> None:
    labels = np.int32([[0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 2, 0], [0, 0, 0, 0]])
    assert borders_of(labels).tolist() == [[0, 1, 2], [1, 0, 2]]


def test_nothing_is_snapped_to_nothing() -> None:
    assert list(snapped([SKIN], palette=np.zeros((0, 3), np.float32), shadows=np.zeros(0, np.int32)).numbers) == [NONE]
    assert snapped(np.zeros((0, 3))).numbers.shape == (0,)
