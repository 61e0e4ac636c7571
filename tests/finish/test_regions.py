"""Each region gets its own color, measured where no other color bleeds in."""

import cv2
import numpy as np

from colorcli.finish.regions import region_colors, split_by_color
from colorcli.prepare.regions import closed_regions

EVERYWHERE = np.ones((60, 80), np.float32)


def ink_of(*lines: tuple[tuple[int, int], tuple[int, int]], amount: float = 1.0) -> np.ndarray:
    ink = np.zeros((60, 80), np.float32)
    for start, end in lines:
        cv2.line(ink, start, end, amount, 1)
    return ink


def test_the_color_of_a_region_is_measured_away_from_its_lines():
    regions = closed_regions(ink_of(((40, 0), (40, 59))), EVERYWHERE)
    layer = np.zeros((60, 80, 3), np.float32)
    layer[:, :36] = 0.8  # the dark of the right side bleeds four pixels over the line
    colors = region_colors(layer, regions, blur_px=4)
    assert np.allclose(colors[regions.labels[30, 10]], 0.8)
    assert np.allclose(colors[regions.labels[30, 70]], 0.0)


def test_a_region_with_one_color_is_not_parted():
    regions = closed_regions(np.zeros((60, 80), np.float32), EVERYWHERE)
    noisy = np.random.default_rng(3).normal(0.5, 0.04, (60, 80, 3)).astype(np.float32)
    assert split_by_color(noisy, regions, 1.0).count == 1


def test_a_region_with_two_flat_colors_is_parted_where_they_meet():
    regions = closed_regions(np.zeros((60, 80), np.float32), EVERYWHERE)
    layer = np.full((60, 80, 3), 0.7, np.float32)
    layer[:, 50:] = 0.4
    parted = split_by_color(layer, regions, 1.0)
    assert parted.count == 2
    assert sorted(parted.areas[1:]) == [30 * 60, 50 * 60]


def test_scattered_wrong_pixels_are_no_piece():
    regions = closed_regions(np.zeros((60, 80), np.float32), EVERYWHERE)
    layer = np.full((60, 80, 3), 0.7, np.float32)
    wrong = np.random.default_rng(5).random((60, 80)) < 0.12
    layer[wrong] = (0.9, 0.2, 0.2)
    assert split_by_color(layer, regions, 1.0).count == 1


def test_parting_one_region_leaves_its_neighbors_alone():
    regions = closed_regions(ink_of(((40, 0), (40, 59))), EVERYWHERE)
    layer = np.full((60, 80, 3), 0.7, np.float32)
    layer[30:, :38] = 0.3
    right = regions.labels == regions.labels[30, 70]
    parted = split_by_color(layer, regions, 1.0)
    assert parted.count == 3
    assert len(np.unique(parted.labels[right])) == 1
    assert np.array_equal(parted.areas[1:], np.bincount(parted.labels.reshape(-1), minlength=4)[1:])
