"""Doubts: shares in, regions out that a person should look at; the same answers as on paper."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.doubts import ANY_POSE, HALF, Told, drawn_cases, fitted, row, told_of
from colorcli.finish.doubts import Calibration, chance_of, doubts_in, same_material
from colorcli.images import FORMATS, Picture
from colorcli.model.evidence import Evidence
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.palette_file import Swatches
from colorcli.presets import CheckSettings, Preset
from colorcli.variants import VARIANTS

RED, RED_SHADOW, BLUE, BLUISH = (0.8, 0.2, 0.2), (0.55, 0.12, 0.13), (0.2, 0.3, 0.8), (0.2, 0.31, 0.78)
GREEN = (0.2, 0.6, 0.3)
COLORS = np.array([RED, RED_SHADOW, BLUE, GREEN], np.float32)
PLAIN = Calibration(share=1, likeness=0, shift=0)


@pytest.fixture(scope="module")
def key() -> PreparedKey:
    """A key of three boxes: red with a shadow that meets it without a line, blue, green."""
    color = np.ones((120, 160, 3), np.float32)
    for left, fill in ((10, RED), (60, BLUE), (110, GREEN)):
        color[20:100, left : left + 40] = 0
        color[23:97, left + 3 : left + 37] = fill
    color[60:97, 13:47] = RED_SHADOW
    picture = Picture(color, None, FORMATS["png8"], 3)
    return prepare_key(picture, Preset(), VARIANTS["mini"])


def frame(*shares: list[float], likeness: list[float] | None = None, taken: list[int] | None = None) -> tuple:
    """A frame of boxes in a row, the first the largest; each has the color that most speaks for, or the one `taken`."""
    labels = np.zeros((60, 40 * len(shares)), np.int32)
    color = np.ones((*labels.shape, 3), np.float32)
    for number, share in enumerate(shares):
        box = np.s_[10 : 50 - 4 * number, 40 * number + 5 : 40 * number + 35]
        labels[box] = number + 1
        color[box] = COLORS[taken[number] if taken else int(np.argmax(share))]
    alike = np.zeros(len(shares)) if likeness is None else np.array(likeness)
    return Evidence(labels, np.array(shares, np.float32), alike.astype(np.float32), COLORS), color


def told(key: PreparedKey, found: tuple, below: float = 0.6) -> list[int]:
    """Which of the boxes are told, by their left sides."""
    preset = Preset(checks=CheckSettings(unsure_below=below))
    return [doubt.box[0] // 40 for doubt in doubts_in(*found, key, preset).regions]


def test_a_region_that_two_materials_may_have_is_told_with_both(key: PreparedKey) -> None:
    evidence, color = frame([0.97, 0.01, 0.01, 0.01], [0.04, 0.0, 0.49, 0.47])
    found = doubts_in(evidence, color, key, Preset())
    (doubt,) = found.regions
    assert (doubt.box, doubt.area) == ((45, 10, 30, 36), 30 * 36)
    assert doubt.other is not None
    assert np.allclose([doubt.color, doubt.other], [BLUE, GREEN])
    assert found.share == pytest.approx(36 / (40 + 36))


def test_a_shadow_is_no_other_material_than_its_color(key: PreparedKey) -> None:
    assert told(key, frame([0.5, 0.5, 0.0, 0.0])) == []
    assert told(key, frame([0.5, 0.0, 0.5, 0.0])) == [0]


def test_colors_that_look_alike_are_one(key: PreparedKey) -> None:
    colors = np.array([BLUE, BLUISH, GREEN], np.float32)
    assert same_material(colors, key).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_colors_that_the_key_does_not_have_are_no_tones_of_what_it_has(key: PreparedKey) -> None:
    colors = np.array([BLUE, (0.9, 0.9, 0.1), (0.95, 0.6, 0.9)], np.float32)
    assert same_material(colors, key).tolist() == np.eye(3, dtype=bool).tolist()


def test_a_part_that_the_key_does_not_show_is_less_sure_than_one_that_it_shows(key: PreparedKey) -> None:
    shares = [0.0, 0.0, 0.8, 0.2]
    assert told(key, frame(shares, shares, likeness=[0.0, -6.0])) == [1]


def test_what_the_picture_has_counts_and_not_what_was_chosen_for_it(key: PreparedKey) -> None:
    evidence, color = frame([0.9, 0.0, 0.1, 0.0], taken=[2])
    (doubt,) = doubts_in(evidence, color, key, Preset()).regions
    assert doubt.other is not None
    assert np.allclose([doubt.color, doubt.other], [BLUE, RED])


def test_of_a_color_that_is_mixed_with_its_lines_a_little_the_palettes_own_is_told(key: PreparedKey) -> None:
    evidence, color = frame([0.0, 0.0, 0.5, 0.5], taken=[2])
    (doubt,) = doubts_in(evidence, color * np.float32(0.95), key, Preset()).regions
    assert np.allclose(doubt.color, BLUE)
    (doubt,) = doubts_in(evidence, color * np.float32(0.5), key, Preset()).regions
    assert np.allclose(doubt.color, np.array(BLUE) / 2)


def test_the_largest_region_comes_first_and_a_speck_not_at_all(key: PreparedKey) -> None:
    half = [0.0, 0.0, 0.5, 0.5]
    assert told(key, frame(half, half, half)) == [0, 1, 2]
    evidence, color = frame(half, half)
    labels = evidence.labels.copy()
    labels[labels == 2] = 0
    labels[10:16, 45:51] = 2   # 36 pixels
    assert told(key, (replace(evidence, labels=labels), color)) == [0]


def test_in_a_larger_picture_a_speck_has_more_pixels(key: PreparedKey) -> None:
    evidence, color = frame([0.0, 0.0, 0.5, 0.5])
    labels = np.zeros_like(evidence.labels)
    labels[10:20, 5:15] = 1   # 100 pixels
    color[10:20, 5:15] = BLUE
    assert told(key, (replace(evidence, labels=labels), color)) == [0]
    wide = np.pad(labels, ((0, 0), (0, 2560 - labels.shape[1])))   # twice 1280: four times 40 pixels
    color = np.pad(color, ((0, 0), (0, 2560 - color.shape[1]), (0, 0)), constant_values=1)
    assert told(key, (replace(evidence, labels=wide), color)) == []


def test_with_the_productions_palette_its_colors_are_told(key: PreparedKey) -> None:
    production = np.array([(0.25, 0.33, 0.8), (0.22, 0.63, 0.33)], np.float32)   # near blue, and near green
    key = replace(key, swatches=Swatches(production))
    evidence, _ = frame([0.0, 0.0, 0.5, 0.5])
    color = np.where((evidence.labels > 0)[..., None], production[0], np.float32(1))
    (doubt,) = doubts_in(evidence, color, key, Preset()).regions
    assert doubt.other is not None
    assert np.allclose([doubt.color, doubt.other], production)


def test_the_threshold_is_the_presets(key: PreparedKey) -> None:
    found = frame([0.97, 0.01, 0.01, 0.01], [0.0, 0.0, 0.6, 0.4])
    assert told(key, found, below=0.0) == []
    assert told(key, found, below=1.0) == [0, 1]


def test_a_frame_without_regions_has_no_doubts(key: PreparedKey) -> None:
    nothing = np.zeros((0, 4), np.float32)
    evidence = Evidence(np.zeros((8, 8), np.int32), nothing, nothing[:, 0], COLORS)
    assert doubts_in(evidence, np.ones((8, 8, 3), np.float32), key, Preset()).regions == ()


def test_the_chance_is_a_logistic_curve_of_the_odds() -> None:
    share, none = np.array([0.2, 0.5, 0.9], np.float32), np.zeros(3, np.float32)
    assert np.allclose(chance_of(share, none, PLAIN), share)
    # exp(log(4) / 2) = 2, odds of two to one
    assert np.allclose(chance_of(np.array([0.8]), np.zeros(1), replace(PLAIN, share=0.5)), 2 / 3)
    assert np.allclose(chance_of(np.array([0.5]), np.array([-1.0]), replace(PLAIN, likeness=np.log(3))), 1 / 4)
    assert 0 < chance_of(np.array([0.0]), np.zeros(1))[0] < chance_of(np.array([1.0]), np.zeros(1))[0] < 1


def test_the_curve_that_is_fitted_is_the_one_that_turns_shares_into_chances() -> None:
    random = np.random.default_rng(1)
    shares, likeness = random.uniform(0, 1, 40000) ** 2, random.uniform(-6, 0, 40000)
    true = Calibration(share=0.7, likeness=0.3, shift=0.5)
    right = random.uniform(size=40000) < chance_of(shares.astype(np.float32), likeness.astype(np.float32), true)
    found = fitted([Told(shares=shares.tolist(), likeness=likeness.tolist(), wrong=(~right).tolist())])
    assert (found["share"], found["likeness"], found["shift"]) == pytest.approx((0.7, 0.3, 0.5), abs=0.05)


def test_on_drawn_characters_what_is_told_is_wrong_far_more_often_than_the_rest() -> None:
    told = told_of(drawn_cases(4, kinds=(ANY_POSE, HALF)))
    any_pose, half = (row(name, told[name], Preset().checks.unsure_below) for name in (ANY_POSE, HALF))
    for found in (any_pose, half):
        assert found["wrong of the told"] > 2 * found["wrong of the rest"], found
    assert half["told"] > any_pose["told"]   # the key does not show the rest
