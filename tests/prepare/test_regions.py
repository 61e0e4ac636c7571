"""Regions are what a painter would fill with one click, and a few pixels more."""

import cv2
import numpy as np

from colorcli.prepare.regions import closed_regions, nearest_labelled, pixels_of_regions

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


def test_a_drawing_of_one_pixel_is_a_region_if_no_speck():
    paper, all_of_it = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    assert [closed_regions(paper, all_of_it, speck_px, gap_px=4).count for speck_px in (1, 2)] == [1, 0]


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


def a_wall_with_a_gap(gap: int) -> np.ndarray:
    """Two rooms of 120x100 and 79x100 pixels, and a wall of 2 pixels with an opening between them."""
    ink = np.zeros((100, 201), np.float32)
    ink[:, 120:122] = 1
    ink[50 : 50 + gap, 120:122] = 0
    return ink


def test_a_gap_in_a_line_is_closed_up_to_its_widest():
    for gap in (2, 3, 6, 9, 12):
        ink = a_wall_with_a_gap(gap)
        assert closed_regions(ink, np.ones_like(ink)).count == 1
        regions = closed_regions(ink, np.ones_like(ink), gap_px=12)
        assert regions.count == 2
        assert (regions.labels[:, :115] == regions.labels[0, 0]).all()
        assert (regions.labels[:, 127:] == regions.labels[0, -1]).all()


def test_a_door_is_no_gap():
    ink = a_wall_with_a_gap(20)
    assert closed_regions(ink, np.ones_like(ink), gap_px=12).count == 1


def test_closing_gaps_leaves_no_pixel_without_a_region():
    ink = a_wall_with_a_gap(8)
    open_, closed = (closed_regions(ink, np.ones_like(ink), gap_px=gap) for gap in (0, 12))
    assert ((open_.labels > 0) == (closed.labels > 0)).all()
    assert closed.areas.sum() == open_.areas.sum() == sum(len(pixels) for pixels in pixels_of_regions(closed))


def test_a_limb_that_narrows_stays_whole():
    ink = np.ones((100, 300), np.float32)
    cv2.fillPoly(ink, [np.array([(10, 10), (10, 60), (290, 38), (290, 32)])], 0)
    assert closed_regions(ink, np.ones_like(ink), gap_px=12).count == 1


def test_only_the_region_with_the_gap_is_parted():
    ink = np.concatenate([a_wall_with_a_gap(0), np.ones((2, 201), np.float32), a_wall_with_a_gap(6)])
    open_, closed = (closed_regions(ink, np.ones_like(ink), gap_px=gap) for gap in (0, 12))
    assert (open_.count, closed.count) == (3, 4)
    assert (closed.labels[:100] == open_.labels[:100]).all()
