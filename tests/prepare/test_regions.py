"""Regions are what a painter would fill with one click, and a few pixels more."""

import cv2
import numpy as np

from colorcli.prepare.regions import closed_regions, nearest_labelled

EVERYWHERE = np.ones((60, 80), np.float32)


def ink_of(*lines: tuple[tuple[int, int], tuple[int, int]], amount: float = 1.0) -> np.ndarray:
    ink = np.zeros((60, 80), np.float32)
    for start, end in lines:
        cv2.line(ink, start, end, amount, 1)
    return ink


def test_a_line_parts_the_paper():
    regions = closed_regions(ink_of(((40, 0), (40, 59))), EVERYWHERE)
    assert regions.count == 2
    assert regions.labels[30, 10] != regions.labels[30, 70]
    assert sorted(regions.areas[1:]) == [39 * 60, 40 * 60]


def test_a_slanted_line_of_one_pixel_does_not_leak():
    assert closed_regions(ink_of(((10, 0), (70, 59))), EVERYWHERE).count == 2


def test_paper_outside_the_mask_is_no_region():
    mask = EVERYWHERE.copy()
    mask[:, 40:] = 0
    regions = closed_regions(np.zeros((60, 80), np.float32), mask)
    assert regions.count == 1
    assert regions.labels[:, 40:].max() == 0


def test_a_speck_between_crossing_strokes_is_no_region():
    ink = EVERYWHERE.copy()
    ink[5:50, 5:30] = 0
    ink[20:22, 60:62] = 0
    assert closed_regions(ink, EVERYWHERE).count == 1


def test_a_sliver_that_shows_no_bare_paper_is_a_region():
    ink = np.zeros((60, 80), np.float32)
    ink[:, 38:43] = (1.0, 0.3, 0.3, 0.3, 1.0)
    regions = closed_regions(ink, EVERYWHERE)
    assert regions.count == 3
    assert len({int(regions.labels[30, x]) for x in (10, 40, 70)}) == 3


def test_a_light_edge_belongs_to_its_own_side_of_the_stroke():
    ink = np.zeros((60, 80), np.float32)
    ink[:, 30:34] = (0.3, 0.3, 0.3, 1.0)  # a stroke with a long soft edge to the left
    regions = closed_regions(ink, EVERYWHERE)
    assert (regions.labels[:, 30:33] == regions.labels[0, 0]).all()


def test_every_pixel_knows_the_nearest_region():
    labels = np.zeros((10, 10), np.int32)
    labels[:, 0], labels[:, 9] = 1, 2
    nearest = labels.reshape(-1)[nearest_labelled(labels)]
    assert (nearest[:, :5] == 1).all() and (nearest[:, 5:] == 2).all()
