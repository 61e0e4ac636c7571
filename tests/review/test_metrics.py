"""Colors are compared as people see them, and the measures say what the definition says."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import FORMATS, Picture, read_picture
from colorcli.review.metrics import (
    character_paper,
    copied_key_score,
    flicker,
    painted_key_score,
    pooled,
    region_score,
    true_regions,
)
from colorcli.train.evaluation.evaluate import find_known_shots

# Sharma, Wu, Dalal 2005, table 1: two colors in CIELAB and their difference.
SHARMA = np.array(
    [
        [50.0000, 2.6772, -79.7751, 50.0000, 0.0000, -82.7485, 2.0425],
        [50.0000, 3.1571, -77.2803, 50.0000, 0.0000, -82.7485, 2.8615],
        [50.0000, 2.8361, -74.0200, 50.0000, 0.0000, -82.7485, 3.4412],
        [50.0000, -1.3802, -84.2814, 50.0000, 0.0000, -82.7485, 1.0000],
        [50.0000, -1.1848, -84.8006, 50.0000, 0.0000, -82.7485, 1.0000],
        [50.0000, -0.9009, -85.5211, 50.0000, 0.0000, -82.7485, 1.0000],
        [50.0000, 0.0000, 0.0000, 50.0000, -1.0000, 2.0000, 2.3669],
        [50.0000, -1.0000, 2.0000, 50.0000, 0.0000, 0.0000, 2.3669],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0009, 7.1792],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0010, 7.1792],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0011, 7.2195],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0012, 7.2195],
        [50.0000, -0.0010, 2.4900, 50.0000, 0.0009, -2.4900, 4.8045],
        [50.0000, -0.0010, 2.4900, 50.0000, 0.0010, -2.4900, 4.8045],
        [50.0000, -0.0010, 2.4900, 50.0000, 0.0011, -2.4900, 4.7461],
        [50.0000, 2.5000, 0.0000, 50.0000, 0.0000, -2.5000, 4.3065],
        [50.0000, 2.5000, 0.0000, 73.0000, 25.0000, -18.0000, 27.1492],
        [50.0000, 2.5000, 0.0000, 61.0000, -5.0000, 29.0000, 22.8977],
        [50.0000, 2.5000, 0.0000, 56.0000, -27.0000, -3.0000, 31.9030],
        [50.0000, 2.5000, 0.0000, 58.0000, 24.0000, 15.0000, 19.4535],
        [50.0000, 2.5000, 0.0000, 50.0000, 3.1736, 0.5854, 1.0000],
        [50.0000, 2.5000, 0.0000, 50.0000, 3.2972, 0.0000, 1.0000],
        [50.0000, 2.5000, 0.0000, 50.0000, 1.8634, 0.5757, 1.0000],
        [50.0000, 2.5000, 0.0000, 50.0000, 3.2592, 0.3350, 1.0000],
        [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
        [63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630],
        [61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731],
        [35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645],
        [22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373],
        [36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146],
        [90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441],
        [90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381],
        [6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377],
        [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
    ]
)

# What the two simple ways to color from a key reach on the known shots: shot, key, painted, copied.
BASELINES = [
    ("saha_front", "saha_front", 0.51, 0.58),
    ("saha_side", "saha_side", 0.64, 0.75),
    ("saha_side", "saha_front", 0.32, 0.30),
]

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"
KNOWN_SHOTS = Path(os.environ.get("COLORCLI_DATA") or BESIDE)


def test_color_differences_are_those_of_the_published_table():
    assert np.abs(ciede2000(SHARMA[:, :3], SHARMA[:, 3:6]) - SHARMA[:, 6]).max() < 5e-5


def test_a_difference_is_the_same_both_ways():
    assert np.allclose(ciede2000(SHARMA[:, 3:6], SHARMA[:, :3]), ciede2000(SHARMA[:, :3], SHARMA[:, 3:6]), atol=1e-9)


def test_white_and_the_primaries_have_their_known_lab_values():
    colors = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    known = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    assert np.abs(lab_of(colors) - np.array(known)).max() < 0.03


def test_a_region_is_paper_of_forty_pixels_inside_the_character():
    line = paper(40, 40)
    line.color[:, 20] = 0  # two halves
    line.color[0:8, 0:5] = 0.3  # a gray field is no paper
    line.alpha[30:] = 0.4
    line.color[2:4, 25:40:4] = 0
    regions = true_regions(line, line)
    # left half without the field, right half; both end where the alpha does
    assert sorted(len(place) for place in regions.pixels) == [20 * 30 - 40, 19 * 30 - 8]


def test_thirty_nine_pixels_are_no_region():
    line = paper(1, 39)
    assert not true_regions(line, line).pixels
    assert len(true_regions(paper(1, 40), paper(1, 40)).pixels) == 1


def test_regions_that_only_touch_at_a_corner_are_two():
    line = paper(20, 20)
    line.color[:10, :10] = line.color[10:, 10:] = 0
    assert len(true_regions(line, line).pixels) == 2


def test_the_score_counts_regions_and_area_apart():
    line = paper(20, 30)
    line.color[:, 10] = 0  # 200 and 380 pixels
    truth = replace(line, color=np.full_like(line.color, 0.5))
    painted = truth.color.copy()
    painted[:, 11:] = (0.9, 0.2, 0.2)
    score = region_score(true_regions(line, truth), painted)
    assert score.accuracy == 0.5
    assert score.area_accuracy == pytest.approx(200 / 580)


def test_a_pooled_score_counts_every_region_once():
    line = paper(20, 30)
    one = region_score(true_regions(line, line), line.color)
    none = region_score(true_regions(line, line), line.color * 0)
    assert pooled([one, none, none, none]).accuracy == 0.25


def test_a_held_color_does_not_flicker_and_a_jump_does():
    still = np.full((20, 20, 3), 0.5, np.float32)
    everywhere = np.ones((20, 20), bool)
    jump = still.copy()
    jump[:10] = 0.8
    expected = float(ciede2000(lab_of(still[0, 0]), lab_of(jump[0, 0]))) / 2
    assert flicker(still, still, everywhere, everywhere) == 0
    assert flicker(still, jump, everywhere, everywhere) == pytest.approx(expected)


def test_what_truly_moves_is_no_flicker():
    still = np.full((20, 20, 3), 0.5, np.float32)
    jump = still.copy()
    jump[:10] = 0.8
    everywhere = np.ones((20, 20), bool)
    assert flicker(still, jump, everywhere, everywhere, still, jump) == 0
    assert flicker(still, jump, everywhere, ~everywhere) == 0


@pytest.mark.parametrize(("shot", "key", "painted", "copied"), BASELINES)
def test_the_simple_ways_to_color_reach_their_known_scores(shot, key, painted, copied):
    if not KNOWN_SHOTS.is_dir():
        pytest.skip(f"the known shots are not in {KNOWN_SHOTS} (COLORCLI_DATA)")
    shots = {known.name: known for known in find_known_shots(KNOWN_SHOTS)}
    if not {shot, key} <= set(shots):
        pytest.skip(f"no {shot} in {KNOWN_SHOTS}")
    picture = read_picture(shots[key].key)
    truths = zip(shots[shot].lines, shots[shot].colors, strict=True)
    regions = [true_regions(read_picture(line), read_picture(color)) for line, color in truths]
    assert pooled([painted_key_score(each, picture) for each in regions]).accuracy == pytest.approx(painted, abs=0.005)
    assert pooled([copied_key_score(each, picture) for each in regions]).accuracy == pytest.approx(copied, abs=0.005)


def test_the_paper_of_a_drawing_without_alpha_is_all_its_light_pixels():
    line = replace(paper(4, 4), alpha=None)
    line.color[0] = 0.5
    assert character_paper(line).sum() == 12


def paper(height: int, width: int) -> Picture:
    """White paper that is all character."""
    return Picture(
        np.ones((height, width, 3), np.float32), np.ones((height, width), np.float32), FORMATS["png8"], channels=4
    )
